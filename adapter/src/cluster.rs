//! A node among others: pub/sub over Redis as `@socket.io/redis-adapter` uses it, in either of its protocols.
//!
//! What comes in for the sockets of a namespace is applied by one consumer, one message after the other. What a message asks
//! for and takes time becomes a task of a bounded set; its first step is still taken in order.

mod consumer;
mod dialect;
mod discarded;
mod follow;
mod namespace;
mod pending;
mod requester;
mod responder;

use self::{
    consumer::Received, dialect::Dialect, discarded::Discarded, namespace::Namespace,
    pending::Pending, responder::Limits,
};
use crate::{
    AdapterConfig, AdapterError, AdapterMetrics, Flags, Follow, LinkState, Local, LostReason,
    NodeRecord, Participation, Published, RoomName, Selection,
    bus::Bus,
    registry::Registry,
    wire::{RequestBody, channel},
};
use protocol::socket::EventData;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the end of a node may wait for what is still to be published.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a join waits for the channels of its rooms. A subscription takes a round trip to Redis.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(1);
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
    /// What works on answers to others, and how much of it there may be.
    answering: TaskTracker,
    limits: Limits,
    /// Ends what works on answers.
    stop: CancellationToken,
    metrics: AdapterMetrics,
    received: Received,
    warned: Mutex<Option<Instant>>,
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
        Ok(Self {
            local,
            dialect: Dialect::new(&config, &uid),
            registry: Registry::new(&config, &uid, &metrics),
            namespaces: Mutex::default(),
            opened: Notify::new(),
            pending: Pending::new(&config, &uid, &metrics),
            answering: TaskTracker::new(),
            limits: Limits::new(&metrics),
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
        let then = namespace.open(&self.bus, self.local.tag());
        namespaces.insert(name.to_owned(), Arc::new(namespace));
        drop(namespaces);
        then.into_iter().for_each(|then| then());
        self.opened.notify_one();
    }

    pub(crate) fn close_namespace(&self, name: &str) {
        let mut namespaces = self.namespaces();
        let Some(namespace) = namespaces.remove(name) else { return };
        // Under the lock, so that a namespace that is opened again at once keeps its own topics.
        let then = namespace.close(&self.bus);
        drop(namespaces);
        then.into_iter().for_each(|then| then());
    }

    #[cfg(all(test, feature = "socketioxide"))]
    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.namespaces().contains_key(name)
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
        self.followed(ns, rooms).await;
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

    /// Waits until what is sent to the rooms is received, for as long as that can take.
    async fn followed(&self, ns: &str, rooms: &[RoomName]) {
        if self.follows() == Follow::Nothing {
            return;
        }
        let (waiting, mut all_followed) = mpsc::channel::<()>(1);
        for room in rooms {
            let waiting = waiting.clone();
            self.when_followed(ns, room, Box::new(move || drop(waiting)));
        }
        drop(waiting);
        // Nothing is ever sent: the channel ends with the last room.
        let _ = tokio::time::timeout(FOLLOW_TIMEOUT, all_followed.recv()).await;
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
        let bus_stop = CancellationToken::new();
        let serving = async {
            tokio::join!(
                self.keep_consumers(shutdown),
                self.keep_registered(shutdown),
                shutdown.run_until_cancelled(self.keep_swept()),
            );
            // Nobody is to wait for this node: it is not counted any more, and what is owed is given while there is
            // a link.
            let namespaces: Vec<_> = self.namespaces().values().cloned().collect();
            for namespace in namespaces {
                namespace.uncount(&self.bus).into_iter().for_each(|then| then());
            }
            self.stop.cancel();
            self.answering.close();
            self.answering.wait().await;
            let _ = tokio::time::timeout(FAREWELL, self.flushed()).await;
            bus_stop.cancel();
        };
        tokio::join!(self.bus.run(&bus_stop), serving);
    }

    async fn keep_registered(&self, shutdown: &CancellationToken) {
        let Some(registry) = &self.registry else { return };
        let retagged = || {
            let tag = self.local.tag();
            let namespaces = self.namespaces();
            // Under the lock, so that none is closed meanwhile.
            let retagged =
                namespaces.values().flat_map(|namespace| namespace.retag(&self.bus, tag));
            let then: Vec<_> = retagged.collect();
            drop(namespaces);
            then.into_iter().for_each(|then| then());
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
