//! A node among others: pub/sub over Redis as `@socket.io/redis-adapter` uses it, in either of its protocols.
//!
//! What comes in for the sockets of a namespace is applied by one consumer, one message after the other. What a message asks
//! for and takes time becomes a task of a bounded set; its first step is still taken in order.

mod dialect;
mod discarded;
mod follow;
mod namespace;
mod pending;
mod requester;
mod responder;

use self::{
    dialect::Dialect,
    discarded::Discarded,
    namespace::{Feed, Namespace},
    pending::Pending,
};
use crate::{
    AdapterConfig, AdapterError, AdapterMetrics, Flags, Follow, GapCause, LinkState, Local,
    LostReason, NodeRecord, Participation, Published, RoomName, Selection,
    bus::{Bus, Frame, Item, Losses},
    registry::Registry,
    wire::{
        DecodeError, Message, RequestBody,
        channel::{self, Addressed},
    },
};
use prometheus::IntCounter;
use protocol::socket::EventData;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The pause between two warnings about messages that were not understood.
const WARNING_PAUSE: Duration = Duration::from_secs(60);
/// How many questions of others may wait for this node's sockets and handlers at once. Each is a task; Node knows
/// no limit.
const ANSWERS_MAX: usize = 1024;
/// The longest time between two looks at rooms whose channels are no longer needed.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Cluster<L> {
    local: Arc<L>,
    config: AdapterConfig,
    dialect: Dialect,
    bus: Bus,
    registry: Option<Registry>,
    namespaces: Mutex<HashMap<String, Arc<Namespace>>>,
    /// A namespace was opened and has no consumer yet.
    opened: Notify,
    pending: Pending,
    /// What works on answers to others, and the right to.
    answering: TaskTracker,
    answers: Arc<Semaphore>,
    /// Ends what works on answers.
    stop: CancellationToken,
    metrics: AdapterMetrics,
    received: Received,
    warned: Mutex<Option<Instant>>,
}

/// Counters of received messages, resolved once.
struct Received {
    delivered: IntCounter,
    no_room: IntCounter,
    own: IntCounter,
    ignored: IntCounter,
    malformed: IntCounter,
    foreign: IntCounter,
    refused: IntCounter,
    malformed_response: IntCounter,
}

impl Received {
    fn new(metrics: &AdapterMetrics) -> Self {
        let received = |result| metrics.cluster_received_total.with_label_values(&[result]);
        let responses = &metrics.cluster_responses_total;
        Self {
            delivered: received("delivered"),
            no_room: received("no_room"),
            own: received("own"),
            ignored: received("ignored"),
            malformed: received("malformed"),
            foreign: received("foreign"),
            refused: received("refused"),
            malformed_response: responses.with_label_values(&["malformed"]),
        }
    }
}

impl<L: Local> Cluster<L> {
    pub(crate) fn new(
        local: Arc<L>,
        config: AdapterConfig,
        metrics: AdapterMetrics,
    ) -> Result<Self, AdapterError> {
        // Under which name this node sends. New with each start: nodes with the same uid do not hear each other.
        let uid = crate::random_id();
        let bus = Bus::new(&config, &uid, channel::own(&config.key), &metrics)?;
        metrics.receive_queue_limit.set(config.receive_queue_frames as i64);
        metrics.answers_pending_limit.set(ANSWERS_MAX as i64);
        Ok(Self {
            local,
            dialect: Dialect::new(&config, &uid),
            registry: Registry::new(&config, &uid, &metrics),
            namespaces: Mutex::default(),
            opened: Notify::new(),
            pending: Pending::new(&config, &uid, &metrics),
            answering: TaskTracker::new(),
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            stop: CancellationToken::new(),
            received: Received::new(&metrics),
            warned: Mutex::default(),
            config,
            bus,
            metrics,
        })
    }

    pub(crate) fn link(&self) -> &watch::Sender<LinkState> {
        self.bus.link()
    }

    pub(crate) fn open_namespace(&self, name: &str) {
        let mut namespaces = self.namespaces();
        if namespaces.contains_key(name) {
            return;
        }
        let namespace = Namespace::new(name, &self.dialect, &self.config, &self.metrics);
        namespace.open(&self.bus, self.local.tag());
        namespaces.insert(name.to_owned(), Arc::new(namespace));
        drop(namespaces);
        self.opened.notify_one();
    }

    pub(crate) fn close_namespace(&self, name: &str) {
        let mut namespaces = self.namespaces();
        if let Some(namespace) = namespaces.remove(name) {
            // Under the lock, so that a namespace that is opened again at once keeps its own topics.
            namespace.close(&self.bus);
        }
    }

    pub(crate) fn broadcast(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
    ) -> Published {
        if flags.local {
            return Published::LocalOnly;
        }
        // Nothing is encoded in vain while Redis is away.
        let result = self.check_link().and_then(|()| {
            let payload = self.dialect.encode_broadcast(ns, selection, flags, data)?;
            let channel = match self.namespace(ns) {
                Some(namespace) => namespace.channel_of_broadcast(selection),
                None => self.dialect.channels(ns).broadcast(selection),
            };
            self.publish(channel, payload)
        });
        self.published(result)
    }

    /// Sends something to all servers that nobody answers.
    fn command(&self, ns: &str, body: &RequestBody) -> Published {
        let result = self.check_link().and_then(|()| {
            let payload = self.dialect.encode_request(ns, None, body)?;
            self.publish(self.dialect.channels(ns).request().to_owned(), payload)
        });
        self.published(result)
    }

    fn check_link(&self) -> Result<(), LostReason> {
        if *self.link().borrow() == LinkState::Up { Ok(()) } else { Err(LostReason::LinkDown) }
    }

    fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        if payload.len() > self.config.cluster_frame_max {
            return Err(LostReason::TooLarge);
        }
        self.bus.publish(channel, payload)
    }

    fn published(&self, result: Result<(), LostReason>) -> Published {
        match result {
            Ok(()) => Published::Queued,
            Err(reason) => {
                self.metrics.cluster_published_total.with_label_values(&[reason.kind()]).inc();
                Published::Lost(reason)
            }
        }
    }

    pub(crate) async fn join(
        &self,
        ns: &str,
        selection: &Selection,
        rooms: &[RoomName],
    ) -> Published {
        self.local.join(ns, selection, rooms).await;
        if let Some(namespace) = self.namespace(ns) {
            // Before it is sent: whoever emits next must find it.
            namespace.joins_elsewhere(rooms);
        }
        let body = RequestBody::Join { selection: selection.clone(), rooms: rooms.to_vec() };
        self.command(ns, &body)
    }

    pub(crate) async fn leave(
        &self,
        ns: &str,
        selection: &Selection,
        rooms: &[RoomName],
    ) -> Published {
        self.local.leave(ns, selection, rooms).await;
        let body = RequestBody::Leave { selection: selection.clone(), rooms: rooms.to_vec() };
        self.command(ns, &body)
    }

    pub(crate) async fn disconnect(
        &self,
        ns: &str,
        selection: &Selection,
        close: bool,
    ) -> Published {
        self.local.disconnect(ns, selection, close).await;
        self.command(ns, &RequestBody::Disconnect { selection: selection.clone(), close })
    }

    pub(crate) fn server_side_emit(&self, ns: &str, data: &EventData) -> Published {
        self.command(ns, &RequestBody::ServerEvent { data: data.clone() })
    }

    pub(crate) fn follows(&self) -> Follow {
        self.dialect.follows(self.local.tag())
    }

    pub(crate) fn room_opened(&self, ns: &str, room: &str) {
        if let Some(namespace) = self.namespace(ns) {
            namespace.room_opened(&self.bus, room, self.local.tag());
        }
    }

    pub(crate) fn room_closed(&self, ns: &str, room: &str) {
        if let Some(namespace) = self.namespace(ns) {
            namespace.room_closed(room);
        }
    }

    pub(crate) fn when_followed(&self, ns: &str, room: &str, then: Box<dyn FnOnce() + Send>) {
        match self.namespace(ns) {
            Some(namespace) => namespace.when_followed(&self.bus, room, self.local.tag(), then),
            None => then(),
        }
    }

    pub(crate) async fn nodes(&self) -> Option<Vec<NodeRecord>> {
        Registry::nodes(&self.config.key, self.bus.queries()).await
    }

    pub(crate) async fn flushed(&self) {
        self.bus.flushed().await;
    }

    /// Keeps the link, one consumer for each namespace, and everything else that has to be done again and again.
    pub(crate) async fn run(self: &Arc<Self>, shutdown: &CancellationToken) {
        let _stop = self.stop.clone().drop_guard();
        tokio::join!(
            self.bus.run(shutdown),
            self.keep_consumers(shutdown),
            self.keep_registered(shutdown),
            shutdown.run_until_cancelled(self.keep_swept()),
        );
        self.stop.cancel();
        self.answering.close();
        self.answering.wait().await;
    }

    async fn keep_consumers(self: &Arc<Self>, shutdown: &CancellationToken) {
        let mut consumers = JoinSet::new();
        let mut consumed: HashMap<Id, (Arc<Namespace>, Which)> = HashMap::new();
        loop {
            for (namespace, which) in self.unconsumed() {
                let consumer = Arc::clone(self).consume(Arc::clone(&namespace), which);
                consumed.insert(consumers.spawn(consumer).id(), (namespace, which));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.opened.notified() => {}
                Some(ended) = consumers.join_next_with_id() => {
                    let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
                    if let Some((namespace, which)) = consumed.remove(&id) {
                        consumer_ended(&namespace, which, ended.err());
                    }
                }
            }
        }
    }

    fn unconsumed(&self) -> Vec<(Arc<Namespace>, Which)> {
        let namespaces = self.namespaces();
        let feeds = namespaces.values().flat_map(|namespace| {
            [Which::Messages, Which::Answers].map(|which| (Arc::clone(namespace), which))
        });
        feeds
            .filter(|(namespace, which)| {
                !which.of(namespace).is_consumed.swap(true, Ordering::Relaxed)
            })
            .collect()
    }

    async fn keep_registered(&self, shutdown: &CancellationToken) {
        let Some(registry) = &self.registry else { return };
        let retagged = || {
            let tag = self.local.tag();
            let namespaces = self.namespaces();
            namespaces.values().for_each(|namespace| namespace.retag(&self.bus, tag));
        };
        let link = self.link().subscribe();
        registry.keep(&*self.local, self.bus.queries(), link, retagged, shutdown).await;
    }

    /// Lets go of the channels of rooms that nobody has come back to, and looks at what is received in vain.
    async fn keep_swept(&self) {
        let mut pause = tokio::time::interval(
            SWEEP_PAUSE.min(self.config.follow_linger / 4 + SWEEP_PAUSE / 20),
        );
        let mut discarded = Discarded::new(&self.config);
        loop {
            pause.tick().await;
            let namespaces: Vec<_> = self.namespaces().values().cloned().collect();
            namespaces.iter().for_each(|namespace| namespace.sweep(&self.bus));
            discarded.look(&self.received.no_room, &self.received.delivered);
        }
    }

    /// Applies what comes in for a namespace, one after the other.
    async fn consume(self: Arc<Self>, namespace: Arc<Namespace>, which: Which) {
        while let Some(item) = which.of(&namespace).inbox.next().await {
            match item {
                // Who waits for an answer that is lost waits for its deadline, and learns that it is not there.
                Item::Losses(_) if which == Which::Answers => {}
                Item::Losses(losses) => self.report(&namespace, &losses),
                Item::Frame(frame) => self.apply(&namespace, &frame).await,
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    fn report(&self, namespace: &Namespace, losses: &Losses) {
        let gap = |room: Option<&str>, cause: GapCause| {
            self.metrics.gaps_total.with_label_values(&[cause.kind()]).inc();
            self.local.gap(&namespace.name, room, cause);
        };
        let rooms: Vec<_> = losses
            .channels
            .iter()
            .map(|channel| namespace.channels.addressed_room(channel))
            .collect();
        if losses.everything || rooms.contains(&None) {
            gap(None, GapCause::Overflow);
        } else {
            rooms.iter().flatten().for_each(|room| gap(Some(room), GapCause::Overflow));
        }
        if losses.link {
            gap(None, GapCause::LinkLost);
        }
    }

    async fn apply(self: &Arc<Self>, namespace: &Arc<Namespace>, frame: &Frame) {
        let addressed = namespace.channels.addressed(&frame.channel);
        if let Addressed::Room(room) = &addressed
            && !self.local.has_room(&namespace.name, room)
        {
            self.received.no_room.inc();
            return;
        }
        match self.dialect.decode(&addressed, &frame.payload, &namespace.name) {
            Ok(message) => self.apply_message(namespace, message, frame.payload.len()).await.inc(),
            Err(error) => {
                self.received.malformed.inc();
                if addressed == Addressed::Response {
                    self.received.malformed_response.inc();
                }
                self.warn(namespace, &error);
            }
        }
    }

    async fn apply_message(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        message: Message,
        bytes: usize,
    ) -> &IntCounter {
        match message {
            Message::Own => &self.received.own,
            Message::Foreign => &self.received.foreign,
            Message::Ignored => &self.received.ignored,
            Message::Broadcast { selection, flags, data } => {
                self.local.ready().await;
                self.local.deliver(&namespace.name, &selection, flags, data);
                &self.received.delivered
            }
            Message::Request(request) => self.apply_request(namespace, request).await,
            Message::Response(response) => {
                if self.pending.answer(&namespace.name, response, bytes) {
                    &self.received.delivered
                } else {
                    &self.received.ignored
                }
            }
        }
    }

    /// Says that something was not understood: each time in detail, once a minute for those who watch.
    fn warn(&self, namespace: &Namespace, error: &DecodeError) {
        let ns = &*namespace.name;
        tracing::debug!(event = "message_malformed", ns, %error, "a message was not understood");
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= WARNING_PAUSE) {
            *warned = Some(Instant::now());
            tracing::warn!(
                event = "messages_malformed",
                ns,
                %error,
                "messages from Redis are not understood: something else may use the same prefix"
            );
        }
    }

    fn is_full(&self) -> bool {
        self.config.participation == Participation::Full
    }

    fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces().get(name).cloned()
    }

    /// No code that holds the lock can panic half-way through a change.
    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, Arc<Namespace>>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the feeds of a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Messages,
    Answers,
}

impl Which {
    fn of(self, namespace: &Namespace) -> &Feed {
        match self {
            Which::Messages => &namespace.messages,
            Which::Answers => &namespace.answers,
        }
    }
}

/// A consumer ends with its namespace. If it ended by a panic in the node's own code, the message it was at is
/// lost, and the namespace gets another one.
fn consumer_ended(namespace: &Namespace, which: Which, error: Option<JoinError>) {
    let feed = which.of(namespace);
    if let Some(error) = error
        && !feed.inbox.is_closed()
    {
        let ns = &*namespace.name;
        tracing::error!(event = "consumer_panicked", ns, %error, "a message could not be delivered");
        feed.is_consumed.store(false, Ordering::Relaxed);
    }
}
