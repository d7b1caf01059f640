//! One timer wheel for all sessions of a node: pings, pong deadlines, stalls, handshakes.
//!
//! A timer per session would cost an allocation and a place in the runtime's own wheel for each
//! of them. Here a session has one weak reference in one slot, and says itself, when its turn
//! comes, what is due and when it wants to be asked again.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::session::Session;

/// Precision of every deadline of a session. Heartbeats are tens of seconds.
const TICK: Duration = Duration::from_millis(20);

/// Slots of the wheel: deadlines further away than `SLOTS * TICK` go round more than once.
const SLOTS: usize = 2048;

/// A point in time in milliseconds since the node started.
pub type Millis = u64;

/// The clock and the wheel of one engine.
pub struct Timer {
    started: Instant,
    wheel: Mutex<Wheel>,
}

struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// The next tick to process.
    tick: u64,
}

struct Entry {
    session: Weak<Session>,
    due: Millis,
}

impl Timer {
    /// A wheel that starts now.
    pub fn new() -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(SLOTS).collect();
        Self { started: Instant::now(), wheel: Mutex::new(Wheel { slots, tick: 0 }) }
    }

    /// Milliseconds since the node started.
    pub fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    /// Asks `session` what is due at `due`, not earlier and at most one tick later.
    pub fn schedule(&self, session: Weak<Session>, due: Millis) {
        let mut wheel = self.wheel.lock().unwrap_or_else(PoisonError::into_inner);
        let tick = tick_of(due).max(wheel.tick);
        let slot = tick as usize % SLOTS;
        wheel.slots[slot].push(Entry { session, due });
    }

    /// Turns the wheel until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = Vec::new();
        while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
            self.collect(self.now(), &mut due);
            for (session, entry_due) in due.drain(..) {
                let session: Arc<Session> = session;
                if let Some(next) = session.on_timer(self.now(), entry_due) {
                    self.schedule(Arc::downgrade(&session), next);
                }
            }
        }
    }

    fn collect(&self, now: Millis, due: &mut Vec<(Arc<Session>, Millis)>) {
        let mut wheel = self.wheel.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now / TICK.as_millis() as u64;
        // After a long pause one full turn visits every slot; more would visit them again.
        let first = wheel.tick.max((until + 1).saturating_sub(SLOTS as u64));
        for tick in first..=until {
            let slot = &mut wheel.slots[tick as usize % SLOTS];
            slot.retain(|entry| {
                if entry.due > now {
                    return entry.session.strong_count() > 0;
                }
                if let Some(session) = entry.session.upgrade() {
                    due.push((session, entry.due));
                }
                false
            });
            if slot.is_empty() && slot.capacity() > 64 {
                *slot = Vec::new();
            }
        }
        wheel.tick = wheel.tick.max(until + 1);
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

/// The first tick at which `due` has passed.
fn tick_of(due: Millis) -> u64 {
    due.div_ceil(TICK.as_millis() as u64)
}
