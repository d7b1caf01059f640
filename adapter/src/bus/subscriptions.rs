//! What one link should receive, and what Redis has confirmed of it.
//!
//! Changes are queued, so that each costs the same however much else is subscribed to. The task that owns the
//! connection takes all that wait at once, compares what is wanted with what is held, and sends the difference.
//! What is held is known from the confirmations that Redis pushes, one for each topic, and from nothing else.

use super::{
    inbox::{Frame, Inbox},
    topic::{ByKind, Names, Topic, TopicKind},
    topology::slot,
};
use crate::wire::channel::escape_glob;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// To be called when a topic is received, or when it is clear that it will not be soon.
pub(crate) type Then = Box<dyn FnOnce() + Send>;

/// The topics of one link.
#[derive(Default)]
pub(super) struct Subscriptions {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    entries: ByKind<HashMap<Arc<str>, Entry>>,
    /// What may differ from what Redis holds. Each entry is in one of both at most once.
    queue: VecDeque<(TopicKind, Arc<str>)>,
    /// The same for counted topics, which are subscribed to after all others.
    counted_queue: VecDeque<(TopicKind, Arc<str>)>,
    /// Counted channels that a connection of ours may still hold which nobody reads any more.
    ghosts: HashSet<Arc<str>>,
    /// What is opened now is confirmed soon, or the link is lost.
    is_near: bool,
    is_up: bool,
}

#[derive(Default)]
struct Entry {
    /// Where messages go: one name may mean several things. Without any the topic is not wanted any more.
    inboxes: Inboxes,
    /// That of the name, so that a look at all of them need not hash each.
    slot: u16,
    is_counted: bool,
    is_queued: bool,
    held: Held,
    /// Messages may have been missed, which its inbox is to be told once it misses no more.
    has_gap: bool,
    then: Vec<Then>,
}

/// Several inboxes, each once.
#[derive(Clone, Default)]
pub(super) struct Inboxes(Arc<[Arc<Inbox>]>);

/// What Redis has confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    No,
    Yes,
    /// By a pattern that matches nothing else, which is not counted.
    ByPattern,
    /// The command that ends it is under way.
    Leaving,
}

/// What is to be sent to Redis, in this order.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) unsubscribe: Names,
    pub(super) subscribe: Names,
    /// Counted topics.
    pub(super) count: Names,
    /// Counted channels to be subscribed to without being counted.
    pub(super) stand_in: Vec<Arc<str>>,
    /// Those that were, and can be counted from now on.
    pub(super) count_again: Vec<Arc<str>>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.unsubscribe.is_empty()
            && self.subscribe.is_empty()
            && self.count.is_empty()
            && self.stand_in.is_empty()
            && self.count_again.is_empty()
    }
}

impl Subscriptions {
    /// Begins to put what comes in for a topic into the inbox, beside those it goes into already. `then` is called when Redis has confirmed it, or
    /// when the link is lost. If it has already, or if there is no link, the caller gets it back, to call it at
    /// once.
    #[must_use = "what is returned is to be called"]
    pub(super) fn open(
        &self,
        topic: Topic,
        inbox: &Arc<Inbox>,
        then: Option<Then>,
    ) -> Option<Then> {
        let mut state = self.state();
        let is_near = state.is_near;
        let (kind, name) = (topic.kind, Arc::from(topic.name));
        let entry = state.entry(kind, &name, topic.is_counted);
        entry.inboxes.add(inbox);
        let is_soon = is_near && !matches!(entry.held, Held::Yes | Held::ByPattern);
        let now = match then {
            Some(then) if is_soon => {
                entry.then.push(then);
                None
            }
            then => then,
        };
        state.queue(kind, &name);
        drop(state);
        self.changed.notify_one();
        now
    }

    /// The same for a topic that was received elsewhere until now: its inboxes are told that something may be
    /// missing when it is received here.
    #[must_use = "what is returned is to be called"]
    pub(super) fn take_over(&self, topic: Topic, moved: Moved) -> Vec<Then> {
        let mut state = self.state();
        let is_near = state.is_near;
        let (kind, name) = (topic.kind, Arc::from(topic.name));
        let entry = state.entry(kind, &name, topic.is_counted);
        moved.inboxes.iter().for_each(|inbox| entry.inboxes.add(inbox));
        entry.has_gap |= moved.has_gap;
        let now = if is_near {
            entry.then.extend(moved.then);
            Vec::new()
        } else {
            moved.then
        };
        state.queue(kind, &name);
        drop(state);
        self.changed.notify_one();
        now
    }

    /// Gives away all topics of slots that are not at home here any more.
    pub(super) fn give_away(&self, is_home: impl Fn(u16) -> bool) -> Vec<(Topic, Moved)> {
        let mut state = self.state();
        let mut moved = Vec::new();
        for kind in TopicKind::ALL {
            let mut names = Vec::new();
            for (name, entry) in state.entries.of_mut(kind) {
                if entry.inboxes.is_empty() || is_home(entry.slot) {
                    continue;
                }
                let inboxes = std::mem::take(&mut entry.inboxes);
                let is_counted = entry.is_counted;
                let topic = Topic { kind, name: name.to_string(), is_counted };
                let has_gap = entry.has_gap || entry.held != Held::No;
                let then = std::mem::take(&mut entry.then);
                moved.push((topic, Moved { inboxes, has_gap, then }));
                names.push(Arc::clone(name));
            }
            names.iter().for_each(|name| state.queue(kind, name));
        }
        drop(state);
        self.changed.notify_one();
        moved
    }

    /// Stops putting what comes in for a topic into the inbox. Gives who waited for it, if it was the last one.
    #[must_use = "what is returned is to be called"]
    pub(super) fn close(&self, kind: TopicKind, name: &str, inbox: &Arc<Inbox>) -> Vec<Then> {
        let mut state = self.state();
        let Some(entry) = state.entries.of_mut(kind).get_mut(name) else { return Vec::new() };
        entry.inboxes.remove(inbox);
        if !entry.inboxes.is_empty() {
            return Vec::new();
        }
        let then = std::mem::take(&mut entry.then);
        state.queue(kind, name);
        drop(state);
        self.changed.notify_one();
        then
    }

    /// Gives up a topic that Redis refuses.
    pub(super) fn refused(&self, kind: TopicKind, name: &str) {
        let entry = self.state().entries.of_mut(kind).remove(name);
        entry.into_iter().flat_map(|entry| entry.then).for_each(|then| then());
    }

    /// Waits for changes.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Everything that waits, counted topics only if asked for.
    pub(super) fn take_changes(&self, with_counted: bool) -> Changes {
        let mut changes = Changes::default();
        let mut now = Vec::new();
        let mut state = self.state();
        let mut queue = std::mem::take(&mut state.queue);
        if with_counted {
            queue.append(&mut state.counted_queue);
        }
        for (kind, name) in queue {
            now.append(&mut state.compare(kind, name, &mut changes));
        }
        drop(state);
        now.into_iter().for_each(|then| then());
        changes
    }

    /// A new connection holds nothing, and all that is wanted is to be sent. If the one before may still be
    /// held by Redis, it may still be counted.
    pub(super) fn begin(&self, has_ghost: bool) {
        let mut state = self.state();
        let State { entries, ghosts, queue, counted_queue, .. } = &mut *state;
        queue.clear();
        counted_queue.clear();
        for kind in TopicKind::ALL {
            entries.of_mut(kind).retain(|name, entry| {
                let was_counted = matches!(entry.held, Held::Yes | Held::Leaving);
                if has_ghost && entry.is_counted && was_counted && kind == TopicKind::Channel {
                    ghosts.insert(Arc::clone(name));
                }
                entry.held = Held::No;
                entry.is_queued = !entry.inboxes.is_empty();
                if entry.is_queued {
                    let queue = if entry.is_counted { &mut *counted_queue } else { &mut *queue };
                    queue.push_back((kind, Arc::clone(name)));
                }
                entry.is_queued
            });
        }
    }

    /// The channels that an old connection may still be counted for.
    pub(super) fn ghosts(&self) -> Vec<Arc<str>> {
        self.state().ghosts.iter().cloned().collect()
    }

    /// An old connection is not counted any more.
    pub(super) fn ghost_gone(&self, channel: &str) {
        let mut state = self.state();
        state.ghosts.remove(channel);
        state.queue(TopicKind::Channel, channel);
        drop(state);
        self.changed.notify_one();
    }

    /// Redis has confirmed a topic. Called in the order in which Redis sends.
    pub(super) fn held(&self, kind: TopicKind, name: &str) {
        let mut state = self.state();
        let is_up = state.is_up;
        let Some(entry) = state.entries.of_mut(kind).get_mut(name) else { return };
        entry.held = Held::Yes;
        let then = entry.received(is_up);
        drop(state);
        then.into_iter().for_each(|then| then());
    }

    /// The pattern that stands in for a counted channel is confirmed.
    pub(super) fn held_by_pattern(&self, channel: &str) {
        let mut state = self.state();
        let is_up = state.is_up;
        let Some(entry) = state.entries.of_mut(TopicKind::Channel).get_mut(channel) else { return };
        entry.held = Held::ByPattern;
        let then = entry.received(is_up);
        drop(state);
        then.into_iter().for_each(|then| then());
    }

    /// Redis has confirmed the end of a topic, or ended it by itself. Says whether it did so by itself.
    pub(super) fn ended(&self, kind: TopicKind, name: &str) -> bool {
        let mut state = self.state();
        let Some(entry) = state.entries.of_mut(kind).get_mut(name) else { return false };
        let was_asked = entry.held == Held::Leaving;
        entry.held = Held::No;
        if entry.inboxes.is_empty() && !entry.is_queued {
            state.entries.of_mut(kind).remove(name);
        } else {
            // Also if it was asked for: the topic may have been opened again since.
            entry.has_gap |= !was_asked;
            state.queue(kind, name);
        }
        drop(state);
        self.changed.notify_one();
        !was_asked
    }

    /// Queues a topic once more.
    pub(super) fn again(&self, kind: TopicKind, name: &str) {
        self.state().queue(kind, name);
        self.changed.notify_one();
    }

    /// Those that Redis has not confirmed.
    pub(super) fn not_held(&self, kind: TopicKind, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let state = self.state();
        let is_held = |name: &str| {
            let entry = state.entries.of(kind).get(name);
            entry.is_none_or(|entry| entry.held == Held::Yes)
        };
        names.iter().filter(|name| !is_held(name)).cloned().collect()
    }

    /// Whether a topic is received.
    pub(super) fn is_held(&self, kind: TopicKind, name: &str) -> bool {
        let state = self.state();
        let entry = state.entries.of(kind).get(name);
        entry.is_some_and(|entry| matches!(entry.held, Held::Yes | Held::ByPattern))
    }

    /// Another server has the channel, or soon will. Nobody waits for that.
    pub(super) fn misplaced(&self, kind: TopicKind, name: &str) {
        let mut state = self.state();
        let Some(entry) = state.entries.of_mut(kind).get_mut(name) else { return };
        entry.has_gap = true;
        let then = std::mem::take(&mut entry.then);
        drop(state);
        then.into_iter().for_each(|then| then());
    }

    /// Queues what is wanted and not held.
    pub(super) fn retry(&self) {
        let mut state = self.state();
        for kind in TopicKind::ALL {
            let entries = state.entries.of(kind).iter();
            let missing =
                entries.filter(|(_, entry)| !entry.inboxes.is_empty() && entry.held == Held::No);
            let missing: Vec<_> = missing.map(|(name, _)| Arc::clone(name)).collect();
            missing.iter().for_each(|name| state.queue(kind, name));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The link is nearly up: from now on, who follows a topic waits for Redis. Called before the last look at
    /// what is wanted, so that whoever does not wait is in it.
    pub(super) fn link_is_near(&self) {
        self.state().is_near = true;
    }

    /// The link is up: from now on, gaps are told as they end.
    pub(super) fn link_is_up(&self) {
        let mut state = self.state();
        (state.is_near, state.is_up) = (true, true);
    }

    /// The link is lost: nobody may wait for it.
    pub(super) fn link_is_down(&self) {
        let mut state = self.state();
        state.is_near = false;
        let was_up = std::mem::replace(&mut state.is_up, false);
        let mut then = Vec::new();
        for kind in TopicKind::ALL {
            for entry in state.entries.of_mut(kind).values_mut() {
                entry.has_gap |= was_up;
                then.append(&mut entry.then);
            }
        }
        drop(state);
        then.into_iter().for_each(|then| then());
    }

    /// Tells each inbox once that something may be missing. Called when the link is back: by then it is
    /// certain, and who reconnects for it misses nothing more.
    pub(super) fn tell_gaps(&self) {
        let mut state = self.state();
        let mut told = HashSet::new();
        for kind in TopicKind::ALL {
            for entry in state.entries.of_mut(kind).values_mut() {
                if entry.inboxes.is_empty()
                    || entry.held == Held::No
                    || !std::mem::take(&mut entry.has_gap)
                {
                    continue;
                }
                for inbox in entry.inboxes.iter() {
                    if told.insert(Arc::as_ptr(inbox)) {
                        inbox.lose_link();
                    }
                }
            }
        }
    }

    /// Where a message goes. For a pattern it is the pattern that decides and not the channel: a message that
    /// matches several patterns comes once for each.
    pub(super) fn inboxes(&self, kind: TopicKind, topic: &[u8], frame: &Frame) -> Option<Inboxes> {
        let topic = str::from_utf8(topic).ok()?;
        let state = self.state();
        let entry = match state.entries.of(kind).get(topic) {
            Some(entry) => entry,
            None => {
                let channel = str::from_utf8(&frame.channel).ok()?;
                let entry = state.entries.of(TopicKind::Channel).get(channel)?;
                // Once the channel itself is confirmed, the same message comes for it too.
                let stands_in = kind == TopicKind::Pattern && entry.held == Held::ByPattern;
                if !stands_in || escape_glob(channel) != topic {
                    return None;
                }
                entry
            }
        };
        (!entry.inboxes.is_empty()).then(|| entry.inboxes.clone())
    }

    /// No code that holds the lock can panic half-way through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A topic on its way from one link to another.
pub(super) struct Moved {
    inboxes: Inboxes,
    has_gap: bool,
    then: Vec<Then>,
}

impl Inboxes {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Inbox>> {
        self.0.iter()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, inbox: &Arc<Inbox>) {
        if !self.iter().any(|known| Arc::ptr_eq(known, inbox)) {
            self.0 = self.iter().chain([inbox]).cloned().collect();
        }
    }

    fn remove(&mut self, inbox: &Arc<Inbox>) {
        self.0 = self.iter().filter(|known| !Arc::ptr_eq(known, inbox)).cloned().collect();
    }
}

impl Entry {
    /// Messages come from now on. While the link is being made, gaps are told when it is up.
    fn received(&mut self, is_up: bool) -> Vec<Then> {
        if !self.inboxes.is_empty() && is_up && std::mem::take(&mut self.has_gap) {
            self.inboxes.iter().for_each(|inbox| inbox.lose_link());
        }
        std::mem::take(&mut self.then)
    }
}

impl State {
    fn entry(&mut self, kind: TopicKind, name: &Arc<str>, is_counted: bool) -> &mut Entry {
        let entry = self
            .entries
            .of_mut(kind)
            .entry(Arc::clone(name))
            .or_insert_with(|| Entry { slot: slot(name), ..Entry::default() });
        // It is enough that one of the meanings of the name is counted.
        entry.is_counted |= is_counted;
        entry
    }

    fn queue(&mut self, kind: TopicKind, name: &str) {
        let Some((name, _)) = self.entries.of(kind).get_key_value(name) else { return };
        let name = Arc::clone(name);
        let Some(entry) = self.entries.of_mut(kind).get_mut(&name) else { return };
        if !std::mem::replace(&mut entry.is_queued, true) {
            let queue = if entry.is_counted { &mut self.counted_queue } else { &mut self.queue };
            queue.push_back((kind, name));
        }
    }

    /// Adds what must be sent for one topic, and gives who waits for it in vain.
    fn compare(&mut self, kind: TopicKind, name: Arc<str>, changes: &mut Changes) -> Vec<Then> {
        let Some(entry) = self.entries.of_mut(kind).get_mut(&name) else { return Vec::new() };
        entry.is_queued = false;
        let is_wanted = !entry.inboxes.is_empty();
        let is_haunted = kind == TopicKind::Channel && self.ghosts.contains(&name);
        match (is_wanted, entry.held) {
            (true, Held::No) if is_haunted => changes.stand_in.push(name),
            (true, Held::No) if entry.is_counted => changes.count.of_mut(kind).push(name),
            (true, Held::No) => changes.subscribe.of_mut(kind).push(name),
            (true, Held::ByPattern) if !is_haunted => changes.count_again.push(name),
            (true, Held::Yes | Held::ByPattern) => return std::mem::take(&mut entry.then),
            // Who waits for it goes on waiting: it is queued again when it has ended.
            (true, Held::Leaving) => {}
            (false, Held::Yes) => {
                entry.held = Held::Leaving;
                changes.unsubscribe.of_mut(kind).push(name);
            }
            (false, Held::ByPattern) => {
                changes.unsubscribe.of_mut(TopicKind::Pattern).push(escape_glob(&name).into());
                self.entries.of_mut(kind).remove(&name);
            }
            (false, Held::No) => drop(self.entries.of_mut(kind).remove(&name)),
            (false, Held::Leaving) => {}
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
