//! The link to one master.
//!
//! One task owns both connections: one that publishes, one that receives. It connects both, subscribes, waits for
//! the confirmation of each subscription and for a probe that made the whole way, and only then calls the link up.
//! From then on whatever goes wrong with either connection takes both down, and everything begins again after a
//! random pause.

use super::{
    backoff::{Backoff, FailureLog},
    connector::{Connector, Opened},
    error::LinkError,
    ghost::Ghosts,
    health::{Health, Progress},
    probe::Probe,
    publisher::{Outgoing, PublishQueue, Redirect},
    queries::Queries,
    subscriber::{Receiver, Receiving, Refusals},
    subscriptions::Subscriptions,
    topic::TopicKind,
    topology::{Address, Topology},
};
use crate::{AdapterConfig, AdapterMetrics, LostReason};
use redis::{Client, aio::MultiplexedConnection};
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

/// The way to one master.
pub(super) struct Link {
    number: usize,
    /// The server it is to; without one, to whoever is the master.
    server: Option<Client>,
    connector: Arc<Connector>,
    receiver: Arc<Receiver>,
    publish_queue: PublishQueue,
    ghosts: Ghosts,
    queries: Arc<Queries>,
    health: Arc<Health>,
    refresh: Arc<Notify>,
    /// Where probes are to go from now on.
    next_probe: Mutex<Option<Arc<str>>>,
    is_up: AtomicBool,
    was_up: AtomicBool,
    metrics: AdapterMetrics,
    probe_interval: Duration,
    reconnect_delay: (Duration, Duration),
}

/// Two connections to a master, everything subscribed.
struct Connected {
    client: Client,
    /// Ends what it may still read; first, so that it is dropped first.
    receiving: Receiving,
    publisher: MultiplexedConnection,
}

/// What several links have in common.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: AdapterConfig,
    pub(super) uid: String,
    /// How probes and messages are published.
    pub(super) kind: TopicKind,
    pub(super) connector: Arc<Connector>,
    pub(super) queries: Arc<Queries>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: AdapterMetrics,
    /// To be told when slots may have moved.
    pub(super) refresh: Arc<Notify>,
}

/// For a link that is the only one: Redis names no other master then.
impl Redirect for Link {
    fn redirect(&self, _to: &Address, frames: Vec<Outgoing>) {
        self.publish_queue.give_up(&frames);
    }
}

/// Why a link is not kept any more.
pub(super) enum Ended {
    /// It was told to end.
    Shutdown,
    /// There must be one for each master instead.
    IsCluster,
}

impl Link {
    pub(super) fn new(
        number: usize,
        server: Option<Client>,
        shared: &Shared,
        probe_channel: &str,
    ) -> Self {
        let Shared { config, uid, kind, metrics, refresh, .. } = shared;
        let probe = Probe::new(*kind, probe_channel, uid, config.probe_interval, metrics);
        shared.health.expect(number);
        let receiver = Receiver::new(probe, Arc::clone(refresh), config, metrics);
        Self {
            number,
            server,
            connector: Arc::clone(&shared.connector),
            receiver: Arc::new(receiver),
            publish_queue: PublishQueue::new(*kind, Arc::clone(refresh), config, metrics),
            ghosts: Ghosts::default(),
            queries: Arc::clone(&shared.queries),
            health: Arc::clone(&shared.health),
            refresh: Arc::clone(refresh),
            next_probe: Mutex::default(),
            is_up: AtomicBool::new(false),
            was_up: AtomicBool::new(false),
            metrics: metrics.clone(),
            probe_interval: config.probe_interval,
            reconnect_delay: (config.reconnect_delay_min, config.reconnect_delay_max),
        }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.receiver.subscriptions
    }

    /// The server it is to, if that is always the same.
    pub(super) fn server(&self) -> Option<&Client> {
        self.server.as_ref()
    }

    /// The channel of the probes from now on.
    pub(super) fn probe_channel(&self) -> Arc<str> {
        self.next_probe().unwrap_or_else(|| self.receiver.probe.channel())
    }

    /// Lets probes go over another channel.
    pub(super) fn set_probe_channel(&self, channel: String) {
        *self.next_probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.into());
        self.receiver.subscriptions.retry();
    }

    /// Queues a message, if there is a link and room in the queue. Never waits.
    pub(super) fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        if !self.is_up.load(Ordering::Acquire) {
            return Err(LostReason::LinkDown);
        }
        self.publish_queue.push(channel, payload)
    }

    pub(super) fn publish_queue(&self) -> &PublishQueue {
        &self.publish_queue
    }

    /// Waits until nothing is queued or unanswered.
    pub(super) async fn flushed(&self) {
        self.publish_queue.flushed().await;
    }

    /// Keeps the link until the shutdown.
    pub(super) async fn run(
        &self,
        shutdown: &CancellationToken,
        redirect: &impl Redirect,
    ) -> Ended {
        let ended = shutdown.run_until_cancelled(self.supervise(redirect)).await;
        self.set_down();
        match ended {
            None => Ended::Shutdown,
            Some(()) => Ended::IsCluster,
        }
    }

    /// Connects again and again, for as long as one link is enough.
    async fn supervise(&self, redirect: &impl Redirect) {
        let mut backoff = Backoff::new(self.reconnect_delay);
        let mut log = FailureLog::default();
        loop {
            let connected = tokio::select! {
                biased;
                connected = self.connect() => connected,
                never = self.publish_queue.expire() => match never {},
            };
            let failure = match connected {
                Err(failure) => {
                    // It may have failed when nearly all was done.
                    self.set_down();
                    failure
                }
                Ok(connected) => {
                    let since = Instant::now();
                    self.set_up();
                    log = FailureLog::default();
                    let failure = self.keep(connected, redirect).await;
                    self.set_down();
                    // A link that breaks at once is no reason to be quicker with the next attempt.
                    if since.elapsed() >= self.reconnect_delay.1 {
                        backoff = Backoff::new(self.reconnect_delay);
                    }
                    failure
                }
            };
            if let LinkError::IsCluster = failure {
                return;
            }
            log.failed(&failure);
            // In a Redis Cluster, another server may have taken its place.
            self.refresh.notify_one();
            tokio::select! {
                biased;
                () = time::sleep(backoff.next()) => {}
                never = self.publish_queue.expire() => match never {},
            }
        }
    }

    /// Makes a link that is proven to work.
    async fn connect(&self) -> Result<Connected, LinkError> {
        let Receiver { probe, subscriptions, .. } = &*self.receiver;
        let client = match &self.server {
            Some(client) => client.clone(),
            None => self.connector.next().await?,
        };
        let mut receiving = Receiving::open(&self.receiver, &self.connector, &client).await?;
        let is_cluster = receiving.is_cluster;
        if is_cluster && self.server.is_none() && probe.kind() == TopicKind::Shard {
            return Err(LinkError::IsCluster);
        }
        let Opened { connection: mut publisher, .. } = self.connector.open(&client, None).await?;
        let identity = self.ghosts.identify(receiving.unsubscribed()).await?;
        subscriptions.begin(self.ghosts.may_be_there());
        let channel = self.probe_channel();
        probe.set_channel(&channel);
        receiving.subscribe_probe(probe.kind(), &channel).await?;
        self.moved_probe(&channel);
        self.subscribe_all(&receiving, false).await?;
        probe.send(&mut publisher).await?;
        self.health.set(self.number, Progress::Proven);
        self.health.all_proven().await;
        if self.ghosts.end(&mut publisher).await? {
            for channel in subscriptions.ghosts() {
                subscriptions.ghost_gone(&channel);
            }
        }
        self.ghosts.remember(identity);
        subscriptions.link_is_near();
        self.subscribe_all(&receiving, true).await?;
        if is_cluster {
            match Topology::ask(&mut publisher, &client).await {
                Ok(topology) => self.connector.learn(&topology)?,
                // The link works without the others; servers cannot be counted.
                Err(error @ LinkError::NotPermitted { .. }) => {
                    tracing::error!(event = "redis_grant_missing", %error, "masters are not known");
                }
                Err(error) => return Err(error),
            }
        }
        self.queries.set_server(&client, is_cluster);
        self.connector.is_good(&client);
        Ok(Connected { client, receiving, publisher })
    }

    /// Subscribes to all there is, with or without what others count, and fails if that is not permitted.
    async fn subscribe_all(
        &self,
        receiving: &Receiving,
        with_counted: bool,
    ) -> Result<(), LinkError> {
        loop {
            let changes = self.receiver.subscriptions.take_changes(with_counted);
            if changes.is_empty() {
                return Ok(());
            }
            let refusals = receiving.apply(&self.receiver, &changes).await?;
            self.misplaced(&refusals);
            if let Some((_, _, error)) = refusals.not_permitted.into_iter().next() {
                return Err(error);
            }
        }
    }

    /// Uses the link until it breaks.
    async fn keep(&self, connected: Connected, redirect: &impl Redirect) -> LinkError {
        let Connected { client, receiving, publisher } = connected;
        let lost = receiving.lost();
        let subscriptions = &self.receiver.subscriptions;
        let ghosts = self.ghosts.watch(publisher.clone(), subscriptions, self.probe_interval);
        let superseded = self.connector.superseded(&client, self.probe_interval);
        let failure: Result<Infallible, LinkError> = tokio::select! {
            biased;
            () = lost.cancelled() => {
                self.ghosts.closed();
                Err(LinkError::Disconnected)
            }
            result = self.keep_subscribed(&receiving) => result,
            result = self.receiver.probe.keep_probing(publisher.clone()) => result,
            result = ghosts => result,
            failure = superseded => Err(failure),
            result = self.publish_queue.keep_publishing(publisher, redirect) => result,
        };
        match failure {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    /// Follows the changes of what is wanted, until Redis does not answer.
    async fn keep_subscribed(&self, receiving: &Receiving) -> Result<Infallible, LinkError> {
        let probe = &self.receiver.probe;
        loop {
            if let Some(channel) = self.next_probe() {
                receiving.subscribe_probe(probe.kind(), &channel).await?;
                let former = probe.channel();
                probe.set_channel(&channel);
                self.moved_probe(&channel);
                if former != channel {
                    receiving.unsubscribe_probe(probe.kind(), &former).await?;
                }
            }
            let changes = self.receiver.subscriptions.take_changes(true);
            if changes.is_empty() {
                self.receiver.subscriptions.changed().await;
            } else {
                let refusals = receiving.apply(&self.receiver, &changes).await?;
                self.misplaced(&refusals);
                self.refused(refusals);
            }
        }
    }

    fn next_probe(&self) -> Option<Arc<str>> {
        self.next_probe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Probes go over this channel now. Until then it is remembered that they are to: the link may be lost
    /// half-way, and where they were there is no way back.
    fn moved_probe(&self, channel: &Arc<str>) {
        let mut next = self.next_probe.lock().unwrap_or_else(PoisonError::into_inner);
        next.take_if(|next| next == channel);
    }

    /// Channels of which other masters have the slot are subscribed to when it is known who.
    fn misplaced(&self, refusals: &Refusals) {
        for name in &refusals.misplaced {
            self.receiver.subscriptions.misplaced(TopicKind::Shard, name);
            self.refresh.notify_one();
        }
    }

    /// Clients may be able to open a namespace, so a missing grant for it must not take the link from all
    /// others: it stays without messages.
    fn refused(&self, refusals: Refusals) {
        for (kind, name, error) in refusals.not_permitted {
            tracing::error!(event = "subscribe_refused", %error, "a namespace is alone");
            self.receiver.subscriptions.refused(kind, &name);
        }
    }

    fn set_up(&self) {
        self.is_up.store(true, Ordering::Release);
        self.receiver.subscriptions.link_is_up();
        self.health.set(self.number, Progress::Up);
        if self.was_up.swap(true, Ordering::Relaxed) {
            self.metrics.redis_reconnects_total.inc();
            tracing::warn!(event = "redis_link_up", "connected to Redis again");
        } else {
            tracing::info!(event = "redis_link_up", "connected to Redis");
        }
        self.receiver.subscriptions.tell_gaps();
    }

    fn set_down(&self) {
        self.is_up.store(false, Ordering::Release);
        self.health.set(self.number, Progress::Down);
        self.receiver.subscriptions.link_is_down();
    }
}
