//! One namespace: its channels, what came in for it, and the rooms that are followed.

use super::{
    dialect::{Dialect, RoomTopics},
    follow::{Followed, RecentJoins},
};
use crate::{
    AdapterConfig, AdapterMetrics, RoomName, Selection,
    bus::{Bus, Inbox, Then, Topic},
    wire::channel::{Addressed, Channels},
};
use protocol::id::NodeTag;
use std::{
    slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How long a question waits at most until its answers can come. Slots that have moved are found sooner.
const RECEIVED_MAX: Duration = Duration::from_secs(1);
/// The time between two looks.
const RECEIVED_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) channels: Channels,
    /// Everything that concerns sockets, in one queue: the messages of one room come on several channels.
    pub(super) messages: Feed,
    /// Answers to this node. They have a queue of their own, so that a flood of them costs no socket a message.
    pub(super) answers: Feed,
    /// What is always received. The last is received after all others.
    topics: Vec<Topic>,
    /// Where the channels of rooms are received by need.
    by_need: Option<ByNeed>,
}

/// What comes in, for one consumer.
pub(super) struct Feed {
    pub(super) inbox: Arc<Inbox>,
    /// Whether somebody consumes it.
    pub(super) is_consumed: AtomicBool,
}

impl Feed {
    fn new(config: &AdapterConfig, metrics: &AdapterMetrics) -> Self {
        let inbox = Arc::new(Inbox::new(config, metrics.receive_queue_depth.clone()));
        Self { inbox, is_consumed: false.into() }
    }
}

struct ByNeed {
    topics: RoomTopics,
    /// For broadcasts to single sockets of this node.
    tag_topic: Mutex<Option<Topic>>,
    followed: Followed,
    recent_joins: Mutex<RecentJoins>,
}

impl Namespace {
    pub(super) fn new(
        name: &str,
        dialect: &Dialect,
        config: &AdapterConfig,
        metrics: &AdapterMetrics,
    ) -> Self {
        let channels = dialect.channels(name);
        let gauge = metrics.rooms_followed.clone();
        let by_need = dialect.room_topics().map(|topics| ByNeed {
            topics,
            tag_topic: Mutex::default(),
            followed: Followed::new(config.follow_linger, gauge),
            recent_joins: Mutex::default(),
        });
        Self {
            name: name.to_owned(),
            topics: dialect.topics(&channels),
            channels,
            messages: Feed::new(config, metrics),
            answers: Feed::new(config, metrics),
            by_need,
        }
    }

    /// Begins to receive. Gives who is to be called without a lock.
    #[must_use = "what is returned is to be called"]
    pub(super) fn open(&self, bus: &Bus, tag: Option<NodeTag>) -> Vec<Then> {
        let then = self.retag(bus, tag);
        self.topics.iter().for_each(|topic| bus.open(slice::from_ref(topic), self.inbox_of(topic)));
        then
    }

    fn inbox_of(&self, topic: &Topic) -> &Arc<Inbox> {
        match self.channels.addressed(topic.name.as_bytes()) {
            Addressed::Response => &self.answers.inbox,
            _ => &self.messages.inbox,
        }
    }

    fn close_topic(&self, bus: &Bus, topic: &Topic) -> Vec<Then> {
        bus.close(slice::from_ref(topic), self.inbox_of(topic))
    }

    /// Stops receiving. Gives who is to be called without a lock.
    #[must_use = "what is returned is to be called"]
    pub(super) fn close(&self, bus: &Bus) -> Vec<Then> {
        // Not counted any more before anything else.
        let closed = self.topics.iter().rev().flat_map(|topic| self.close_topic(bus, topic));
        let mut then: Vec<Then> = closed.collect();
        if let Some(by_need) = &self.by_need {
            let tag_topic = by_need.tag_topic();
            then.append(&mut bus.close(tag_topic.as_slice(), &self.messages.inbox));
            then.append(&mut by_need.followed.close(bus, &self.messages.inbox));
        }
        self.messages.inbox.close();
        self.answers.inbox.close();
        then
    }

    /// Lets nobody count this node any more. Gives who is to be called without a lock.
    #[must_use = "what is returned is to be called"]
    pub(super) fn uncount(&self, bus: &Bus) -> Vec<Then> {
        let counted = self.topics.iter().filter(|topic| topic.is_counted);
        counted.flat_map(|topic| self.close_topic(bus, topic)).collect()
    }

    /// Waits until everything is received that is received always, within reason, and says whether it is. Before
    /// that, answers are missed. It is asked anew each time: slots of a Redis Cluster move at any time, and their
    /// channels are not received until they are found again.
    pub(super) async fn received(&self, bus: &Bus) -> bool {
        let received = async {
            // Nearly always it is. No word comes from channels that move between masters, so this looks again.
            while !bus.is_held(&self.topics) {
                sleep(RECEIVED_PAUSE).await;
            }
        };
        timeout(RECEIVED_MAX, received).await.is_ok()
    }

    /// Whether this node is among the servers that are counted, as far as it knows.
    pub(super) fn is_counted(&self, bus: &Bus) -> bool {
        let mut counted = self.topics.iter().filter(|topic| topic.is_counted);
        counted.any(|topic| bus.is_held(slice::from_ref(topic)))
    }

    /// On which channel a broadcast goes out that nobody acknowledges.
    pub(super) fn channel_of_broadcast(&self, selection: &Selection) -> String {
        if let ([room], Some(by_need)) = (selection.rooms.as_slice(), &self.by_need)
            && by_need.recent_joins().contains(room)
        {
            return self.channels.base().to_owned();
        }
        self.channels.broadcast(selection)
    }

    /// Other nodes are about to be told that sockets join these rooms.
    pub(super) fn joins_elsewhere(&self, rooms: &[RoomName]) {
        if let Some(by_need) = &self.by_need {
            by_need.recent_joins().add(rooms);
        }
    }

    pub(super) fn room_opened(&self, bus: &Bus, room: &str, tag: Option<NodeTag>) {
        if let Some(by_need) = &self.by_need
            && let Some(topic) = self.room_topic(by_need, room, tag)
        {
            by_need.followed.room_opened(bus, &self.messages.inbox, room, topic);
        }
    }

    /// The topic of a room, unless what comes there is received anyway: a room may be named like a server.
    fn room_topic(&self, by_need: &ByNeed, room: &str, tag: Option<NodeTag>) -> Option<Topic> {
        let topic = by_need.topics.topic(&self.channels, room, tag)?;
        let is_known = |known: &Topic| known.kind == topic.kind && known.name == topic.name;
        (!self.topics.iter().any(is_known)).then_some(topic)
    }

    pub(super) fn room_closed(&self, room: &str) {
        if let Some(by_need) = &self.by_need {
            by_need.followed.room_closed(room);
        }
    }

    pub(super) fn when_followed(
        &self,
        bus: &Bus,
        room: &str,
        tag: Option<NodeTag>,
        then: Box<dyn FnOnce() + Send>,
    ) {
        if let Some(by_need) = &self.by_need
            && let Some(topic) = self.room_topic(by_need, room, tag)
        {
            by_need.followed.when_followed(bus, &self.messages.inbox, room, topic, then);
        } else {
            then();
        }
    }

    /// The ids of this node's sockets begin with this from now on. It can only change before the first socket
    /// comes, so no room is followed yet.
    ///
    /// Gives who is to be called without a lock.
    #[must_use = "what is returned is to be called"]
    pub(super) fn retag(&self, bus: &Bus, tag: Option<NodeTag>) -> Vec<Then> {
        let Some(by_need) = &self.by_need else { return Vec::new() };
        let new = by_need.topics.tag_topic(&self.channels, tag);
        let mut tag_topic = by_need.tag_topic();
        if *tag_topic == new {
            return Vec::new();
        }
        bus.open(new.as_slice(), &self.messages.inbox);
        let then = bus.close(tag_topic.as_slice(), &self.messages.inbox);
        *tag_topic = new;
        then
    }

    pub(super) fn sweep(&self, bus: &Bus) {
        if let Some(by_need) = &self.by_need {
            by_need.followed.sweep(bus, &self.messages.inbox);
        }
    }
}

/// No code that holds one of the locks can panic half-way through a change.
impl ByNeed {
    fn tag_topic(&self) -> MutexGuard<'_, Option<Topic>> {
        self.tag_topic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent_joins(&self) -> MutexGuard<'_, RecentJoins> {
        self.recent_joins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
