//! The mode `redis`: pub/sub as `@socket.io/redis-adapter` uses it.

use crate::{
    AdapterConfig, AdapterError, AdapterMetrics, Flags, GapCause, LinkState, Local, LostReason,
    Published, Selection,
    bus::{Bus, Frame, Inbox, Item, Losses, Topic},
    wire::{
        DecodeError, Message, RequestBody,
        channel::{self, Addressed, Channels},
        classic,
    },
};
use prometheus::IntCounter;
use protocol::socket::EventData;
use rand::distr::{Alphanumeric, SampleString};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Characters of the uid. Node takes 6; with 12 no two nodes have the same one by accident.
const UID_LEN: usize = 12;
/// The pause between two warnings about messages that were not understood.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Classic<L> {
    local: Arc<L>,
    config: AdapterConfig,
    /// Under which name this node sends. New with each start: nodes with the same uid do not hear each other.
    uid: String,
    bus: Bus,
    namespaces: Mutex<HashMap<String, Arc<Namespace>>>,
    /// A namespace was opened and has no consumer yet.
    opened: Notify,
    metrics: AdapterMetrics,
    received: Received,
    warned: Mutex<Option<Instant>>,
}

struct Namespace {
    name: String,
    channels: Channels,
    inbox: Arc<Inbox>,
    /// Whether somebody consumes the inbox.
    is_consumed: AtomicBool,
}

/// Counters of received messages, resolved once.
struct Received {
    delivered: IntCounter,
    no_room: IntCounter,
    own: IntCounter,
    ignored: IntCounter,
    malformed: IntCounter,
    foreign: IntCounter,
}

impl<L: Local> Classic<L> {
    pub(crate) fn new(
        local: Arc<L>,
        config: AdapterConfig,
        metrics: AdapterMetrics,
    ) -> Result<Self, AdapterError> {
        let uid = Alphanumeric.sample_string(&mut rand::rng(), UID_LEN);
        let bus = Bus::new(&config, &uid, channel::own(&config.key), &metrics)?;
        metrics.receive_queue_limit.set(config.receive_queue_frames as i64);
        let received = |result| metrics.cluster_received_total.with_label_values(&[result]);
        let received = Received {
            delivered: received("delivered"),
            no_room: received("no_room"),
            own: received("own"),
            ignored: received("ignored"),
            malformed: received("malformed"),
            foreign: received("foreign"),
        };
        Ok(Self {
            local,
            config,
            uid,
            bus,
            namespaces: Mutex::default(),
            opened: Notify::new(),
            metrics,
            received,
            warned: Mutex::default(),
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
        let depth = self.metrics.receive_queue_depth.clone();
        let namespace = Namespace {
            name: name.to_owned(),
            channels: Channels::classic(&self.config.key, name, &self.uid),
            inbox: Arc::new(Inbox::new(&self.config, depth)),
            is_consumed: false.into(),
        };
        self.bus.open(&namespace.topics(), &namespace.inbox);
        namespaces.insert(name.to_owned(), Arc::new(namespace));
        drop(namespaces);
        self.opened.notify_one();
    }

    pub(crate) fn close_namespace(&self, name: &str) {
        let mut namespaces = self.namespaces();
        if let Some(namespace) = namespaces.remove(name) {
            // Under the lock, so that a namespace that is opened again at once keeps its own patterns.
            self.bus.close(&namespace.topics());
            namespace.inbox.close();
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
        match self.publish(ns, selection, flags, data) {
            Ok(()) => Published::Queued,
            Err(reason) => {
                self.metrics.cluster_published_total.with_label_values(&[reason.kind()]).inc();
                Published::Lost(reason)
            }
        }
    }

    fn publish(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
    ) -> Result<(), LostReason> {
        // Nothing is encoded in vain while Redis is away.
        if *self.link().borrow() != LinkState::Up {
            return Err(LostReason::LinkDown);
        }
        let payload = classic::encode_broadcast(
            self.config.parser,
            &self.uid,
            ns,
            selection,
            flags,
            data,
        )
        .map_err(|error| {
            tracing::debug!(event = "publish_refused", %error, "an event was not published");
            LostReason::Invalid
        })?;
        if payload.len() > self.config.cluster_frame_max {
            return Err(LostReason::TooLarge);
        }
        let channel = Channels::classic(&self.config.key, ns, &self.uid).broadcast(selection);
        self.bus.publish(channel, payload)
    }

    pub(crate) async fn flushed(&self) {
        self.bus.flushed().await;
    }

    /// Keeps the link, and one consumer for each namespace.
    pub(crate) async fn run(self: &Arc<Self>, shutdown: &CancellationToken) {
        tokio::join!(self.bus.run(shutdown), self.keep_consumers(shutdown));
    }

    async fn keep_consumers(self: &Arc<Self>, shutdown: &CancellationToken) {
        let mut consumers = JoinSet::new();
        let mut consumed: HashMap<Id, Arc<Namespace>> = HashMap::new();
        loop {
            for namespace in self.unconsumed() {
                let consumer = Arc::clone(self).consume(Arc::clone(&namespace));
                consumed.insert(consumers.spawn(consumer).id(), namespace);
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.opened.notified() => {}
                Some(ended) = consumers.join_next_with_id() => {
                    let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
                    if let Some(namespace) = consumed.remove(&id) {
                        consumer_ended(&namespace, ended.err());
                    }
                }
            }
        }
    }

    fn unconsumed(&self) -> Vec<Arc<Namespace>> {
        let namespaces = self.namespaces();
        let unconsumed = namespaces
            .values()
            .filter(|namespace| !namespace.is_consumed.swap(true, Ordering::Relaxed));
        unconsumed.cloned().collect()
    }

    /// Applies what comes in for a namespace, one after the other: the messages of one room come on several
    /// channels, and their order is that of the queue.
    async fn consume(self: Arc<Self>, namespace: Arc<Namespace>) {
        while let Some(item) = namespace.inbox.next().await {
            match item {
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

    async fn apply(&self, namespace: &Namespace, frame: &Frame) {
        let applied = match namespace.channels.addressed(&frame.channel) {
            Addressed::Foreign => Ok(&self.received.foreign),
            Addressed::Room(room) if !self.local.has_room(&namespace.name, &room) => {
                Ok(&self.received.no_room)
            }
            Addressed::Room(_) | Addressed::Everyone => {
                self.apply_broadcast(namespace, frame).await
            }
            Addressed::Request => self.apply_request(namespace, frame).await,
            Addressed::Response | Addressed::Any => Ok(&self.received.ignored),
        };
        match applied {
            Ok(counter) => counter.inc(),
            Err(error) => {
                self.received.malformed.inc();
                self.warn(namespace, &error);
            }
        }
    }

    async fn apply_broadcast(
        &self,
        namespace: &Namespace,
        frame: &Frame,
    ) -> Result<&IntCounter, DecodeError> {
        let ns = &namespace.name;
        match classic::decode_broadcast(self.config.parser, &frame.payload, &self.uid, ns)? {
            Message::Own => Ok(&self.received.own),
            Message::Foreign => Ok(&self.received.foreign),
            Message::Broadcast { selection, flags, data } => {
                self.local.ready().await;
                self.local.deliver(ns, &selection, flags, data);
                Ok(&self.received.delivered)
            }
            Message::Ignored | Message::Request(_) | Message::Response(_) => {
                Ok(&self.received.ignored)
            }
        }
    }

    async fn apply_request(
        &self,
        namespace: &Namespace,
        frame: &Frame,
    ) -> Result<&IntCounter, DecodeError> {
        let ns = &namespace.name;
        let request =
            match classic::decode_request(self.config.parser, &frame.payload, &self.uid, ns)? {
                Message::Request(request) => request,
                Message::Own => return Ok(&self.received.own),
                Message::Foreign => return Ok(&self.received.foreign),
                _ => return Ok(&self.received.ignored),
            };
        match request.body {
            RequestBody::Join { selection, rooms } => {
                self.local.join(ns, &selection, &rooms).await;
            }
            RequestBody::Leave { selection, rooms } => {
                self.local.leave(ns, &selection, &rooms).await;
            }
            RequestBody::Disconnect { selection, close } => {
                self.local.disconnect(ns, &selection, close).await;
            }
            _ => return Ok(&self.received.ignored),
        }
        Ok(&self.received.delivered)
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

    /// No code that holds the lock can panic half-way through a change.
    fn namespaces(&self) -> MutexGuard<'_, HashMap<String, Arc<Namespace>>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Namespace {
    fn topics(&self) -> Vec<Topic> {
        let patterns = [self.channels.broadcast_pattern(), self.channels.request_pattern()];
        patterns.map(Topic::pattern).into()
    }
}

/// A consumer ends with its namespace. If it ended by a panic in the node's own code, the message it was at is
/// lost, and the namespace gets another one.
fn consumer_ended(namespace: &Namespace, error: Option<JoinError>) {
    if let Some(error) = error
        && !namespace.inbox.is_closed()
    {
        let ns = &*namespace.name;
        tracing::error!(event = "consumer_panicked", ns, %error, "a message could not be delivered");
        namespace.is_consumed.store(false, Ordering::Relaxed);
    }
}

// Placeholders, to be replaced by the cluster module.
#[allow(clippy::todo)]
impl<L: Local> Classic<L> {
    pub(crate) fn follows(&self) -> crate::Follow {
        crate::Follow::Nothing
    }
    pub(crate) fn room_opened(&self, _: &str, _: &str) {}
    pub(crate) fn room_closed(&self, _: &str, _: &str) {}
    pub(crate) fn when_followed(&self, _: &str, _: &str, then: Box<dyn FnOnce() + Send>) {
        then();
    }
    pub(crate) async fn broadcast_with_ack(
        &self,
        _: &str,
        _: &Selection,
        _: Flags,
        _: &EventData,
        _: std::time::Duration,
    ) -> Result<crate::Acks, crate::RequestError<crate::Acks>> {
        todo!()
    }
    pub(crate) async fn fetch_sockets(
        &self,
        _: &str,
        _: &Selection,
    ) -> Result<Vec<crate::SocketDetail>, crate::RequestError<Vec<crate::SocketDetail>>> {
        todo!()
    }
    pub(crate) async fn sockets(
        &self,
        _: &str,
        _: &[crate::RoomName],
    ) -> Result<
        std::collections::BTreeSet<crate::RoomName>,
        crate::RequestError<std::collections::BTreeSet<crate::RoomName>>,
    > {
        todo!()
    }
    pub(crate) async fn all_rooms(
        &self,
        _: &str,
    ) -> Result<
        std::collections::BTreeSet<crate::RoomName>,
        crate::RequestError<std::collections::BTreeSet<crate::RoomName>>,
    > {
        todo!()
    }
    pub(crate) async fn join(&self, _: &str, _: &Selection, _: &[crate::RoomName]) -> Published {
        todo!()
    }
    pub(crate) async fn leave(&self, _: &str, _: &Selection, _: &[crate::RoomName]) -> Published {
        todo!()
    }
    pub(crate) async fn disconnect(&self, _: &str, _: &Selection, _: bool) -> Published {
        todo!()
    }
    pub(crate) fn server_side_emit(&self, _: &str, _: &EventData) -> Published {
        todo!()
    }
    pub(crate) async fn server_side_emit_with_ack(
        &self,
        _: &str,
        _: &EventData,
    ) -> Result<Vec<EventData>, crate::RequestError<Vec<EventData>>> {
        todo!()
    }
    pub(crate) async fn server_count(&self, _: &str) -> Option<usize> {
        todo!()
    }
    pub(crate) async fn nodes(&self) -> Option<Vec<crate::NodeRecord>> {
        todo!()
    }
}
