//! The rooms whose channels this node receives because somebody here is in them.

use crate::{
    RoomName,
    bus::{Bus, Inbox, Then, Topic},
};
use prometheus::IntGauge;
use std::{
    collections::{HashMap, VecDeque},
    mem, slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How many rooms of a namespace are kept without members. A client that joins and leaves ever new rooms must not
/// fill Redis with channels.
const LINGERING_MAX: usize = 10_000;
/// How long broadcasts to a room go to the base channel after other nodes were told that sockets join it: by
/// then they receive the room's own channel, or have no link.
const JOINING_FOR: Duration = Duration::from_secs(5);
/// How many such rooms are known by name; with more, all rooms count as such for a while.
const JOINING_ROOMS_MAX: usize = 10_000;

/// The followed rooms of a namespace. Every call costs the same, however many there are.
pub(super) struct Followed {
    state: Mutex<State>,
    linger: Duration,
    gauge: IntGauge,
}

#[derive(Default)]
struct State {
    rooms: HashMap<RoomName, Room>,
    /// Rooms to be looked at when the time has come, each once.
    leaving: VecDeque<(Instant, RoomName)>,
    is_closed: bool,
}

struct Room {
    topic: Topic,
    has_members: bool,
    /// Until when the channel is kept if nobody comes.
    until: Instant,
    is_leaving: bool,
}

impl Followed {
    pub(super) fn new(linger: Duration, gauge: IntGauge) -> Self {
        Self { state: Mutex::default(), linger, gauge }
    }

    pub(super) fn room_opened(&self, bus: &Bus, inbox: &Arc<Inbox>, name: &str, topic: Topic) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        if let Some(room) = state.rooms.get_mut(name) {
            room.has_members = true;
            return;
        }
        bus.open(slice::from_ref(&topic), inbox);
        let room = Room { topic, has_members: true, until: Instant::now(), is_leaving: false };
        state.rooms.insert(name.into(), room);
        self.gauge.inc();
    }

    pub(super) fn room_closed(&self, name: &str) {
        let until = Instant::now() + self.linger;
        let mut state = self.state();
        if let Some(room) = state.rooms.get_mut(name) {
            room.has_members = false;
        }
        state.leave(name, until);
    }

    /// Calls `then` when the room's channel is received. A room without members is kept for as long as one that
    /// lost its last member, so there is time to join it.
    pub(super) fn when_followed(
        &self,
        bus: &Bus,
        inbox: &Arc<Inbox>,
        name: &str,
        topic: Topic,
        then: Box<dyn FnOnce() + Send>,
    ) {
        let until = Instant::now() + self.linger;
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            return then();
        }
        // The bus may call at once, while the lock is held, and who is called may ask for another room.
        let gate = Arc::new(Gate::new(then));
        let at_gate = Arc::clone(&gate);
        bus.follow(topic.clone(), inbox, Box::new(move || at_gate.pass()));
        if !state.rooms.contains_key(name) {
            let room = Room { topic, has_members: false, until, is_leaving: false };
            state.rooms.insert(name.into(), room);
            self.gauge.inc();
        }
        state.leave(name, until);
        drop(state);
        gate.open();
    }

    /// Lets go of the channels that nobody has come back to.
    pub(super) fn sweep(&self, bus: &Bus, inbox: &Arc<Inbox>) {
        let now = Instant::now();
        let mut then = Vec::new();
        let mut state = self.state();
        loop {
            let is_crowded = state.leaving.len() > LINGERING_MAX;
            let next = state.leaving.pop_front_if(|(until, _)| is_crowded || *until <= now);
            let Some((_, name)) = next else { break };
            let Some(room) = state.rooms.get_mut(&name) else { continue };
            room.is_leaving = false;
            if room.has_members {
                continue;
            }
            if room.until > now && !is_crowded {
                let until = room.until;
                state.leave(&name, until);
            } else if let Some(room) = state.rooms.remove(&name) {
                then.append(&mut bus.close(&[room.topic], inbox));
                self.gauge.dec();
            }
        }
        drop(state);
        then.into_iter().for_each(|then| then());
    }

    /// Lets go of all of them. Gives who waited for one.
    #[must_use = "what is returned is to be called"]
    pub(super) fn close(&self, bus: &Bus, inbox: &Arc<Inbox>) -> Vec<Then> {
        let mut state = self.state();
        let closed = mem::replace(&mut *state, State { is_closed: true, ..State::default() });
        let topics: Vec<_> = closed.rooms.into_values().map(|room| room.topic).collect();
        self.gauge.sub(topics.len() as i64);
        bus.close(&topics, inbox)
    }

    /// No code that holds the lock can panic half-way through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers that a room without members is to be let go of.
    fn leave(&mut self, name: &str, until: Instant) {
        let Some((key, _)) = self.rooms.get_key_value(name) else { return };
        let key = key.clone();
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.until = until;
        if !room.has_members && !mem::replace(&mut room.is_leaving, true) {
            self.leaving.push_back((until, key));
        }
    }
}

/// Holds back a call until it may be made.
struct Gate(Mutex<GateState>);

enum GateState {
    Closed(Box<dyn FnOnce() + Send>),
    /// Somebody wants through.
    Waiting(Box<dyn FnOnce() + Send>),
    Open(Option<Box<dyn FnOnce() + Send>>),
}

impl Gate {
    fn new(call: Box<dyn FnOnce() + Send>) -> Self {
        Self(Mutex::new(GateState::Closed(call)))
    }

    fn pass(&self) {
        self.change(|state| match state {
            GateState::Closed(call) | GateState::Waiting(call) => (GateState::Waiting(call), None),
            GateState::Open(call) => (GateState::Open(None), call),
        });
    }

    fn open(&self) {
        self.change(|state| match state {
            GateState::Closed(call) => (GateState::Open(Some(call)), None),
            GateState::Waiting(call) => (GateState::Open(None), Some(call)),
            GateState::Open(call) => (GateState::Open(call), None),
        });
    }

    /// The call is made without the lock.
    fn change(
        &self,
        change: impl FnOnce(GateState) -> (GateState, Option<Box<dyn FnOnce() + Send>>),
    ) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, call) = change(mem::replace(&mut *state, GateState::Open(None)));
        *state = next;
        drop(state);
        if let Some(call) = call {
            call();
        }
    }
}

/// The rooms that other nodes were just told to let sockets join.
///
/// They begin to receive the room's channel only when they are told. Until then broadcasts to it must come on the
/// base channel, which all receive, so that who joins and then emits reaches the new members.
#[derive(Default)]
pub(super) struct RecentJoins {
    rooms: HashMap<RoomName, Instant>,
    /// The same in the order in which they end; outlived entries are passed over.
    ends: VecDeque<(Instant, RoomName)>,
    all_until: Option<Instant>,
}

impl RecentJoins {
    pub(super) fn add(&mut self, rooms: &[RoomName]) {
        let now = Instant::now();
        let until = now + JOINING_FOR;
        self.forget(now);
        for room in rooms {
            if self.ends.len() >= JOINING_ROOMS_MAX {
                self.all_until = Some(until);
                return;
            }
            self.rooms.insert(room.clone(), until);
            self.ends.push_back((until, room.clone()));
        }
    }

    pub(super) fn contains(&mut self, room: &str) -> bool {
        let now = Instant::now();
        self.forget(now);
        self.rooms.contains_key(room) || self.all_until.is_some_and(|until| until > now)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((end, room)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            // A room that was joined again since ends later.
            if self.rooms.get(&room) == Some(&end) {
                self.rooms.remove(&room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_room_is_joining_for_a_while_after_each_join() {
        let mut recent = RecentJoins::default();
        recent.add(&["a".into(), "b".into()]);
        assert!(recent.contains("a") && recent.contains("b") && !recent.contains("c"));
        advance(JOINING_FOR / 2).await;
        recent.add(&["a".into()]);
        advance(JOINING_FOR / 2).await;
        assert!(recent.contains("a") && !recent.contains("b"));
        advance(JOINING_FOR / 2).await;
        assert!(!recent.contains("a"));
        assert!(recent.rooms.is_empty() && recent.ends.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_joining_rooms_are_all_rooms_for_a_while() {
        let mut recent = RecentJoins::default();
        let rooms: Vec<RoomName> =
            (0..=JOINING_ROOMS_MAX).map(|number| number.to_string().into()).collect();
        recent.add(&rooms);
        assert!(recent.contains("another"));
        assert_eq!(recent.ends.len(), JOINING_ROOMS_MAX);
        advance(JOINING_FOR).await;
        assert!(!recent.contains("another"));
    }

    #[test]
    fn a_gate_lets_one_call_through_once_it_is_open() {
        for is_early in [true, false] {
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&calls);
            let gate = Gate::new(Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }));
            if is_early {
                gate.pass();
            }
            assert_eq!(calls.load(Ordering::Relaxed), 0);
            gate.open();
            gate.pass();
            gate.pass();
            assert_eq!(calls.load(Ordering::Relaxed), 1);
        }
    }
}
