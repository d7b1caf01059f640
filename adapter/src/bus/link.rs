//! The link to one master.
//!
//! One task owns both connections: one that publishes, one that receives. It connects both, subscribes, waits for
//! the confirmation of each subscription and for a probe that made the whole way, and only then calls the link up.
//! From then on whatever goes wrong with either connection takes both down, and everything begins again after a
//! random pause.

use super::{
    backoff::{Backoff, FailureLog},
    connector::Connector,
    error::LinkError,
    ghost::Ghosts,
    health::Health,
    probe::Probe,
    publisher::PublishQueue,
    queries::Queries,
    subscriber::{Receiver, Receiving, Refusals},
    topic::TopicKind,
};
use crate::{AdapterConfig, AdapterMetrics, LostReason};
use redis::aio::MultiplexedConnection;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// The way to one master.
pub(super) struct Link {
    number: usize,
    connector: Arc<Connector>,
    receiver: Arc<Receiver>,
    publish_queue: PublishQueue,
    ghosts: Ghosts,
    queries: Arc<Queries>,
    health: Arc<Health>,
    is_up: AtomicBool,
    was_up: AtomicBool,
    metrics: AdapterMetrics,
    probe_interval: Duration,
    reconnect_delay: (Duration, Duration),
}

/// Two connections to a master, everything subscribed.
struct Connected {
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
}

impl Link {
    pub(super) fn new(number: usize, shared: &Shared, probe_channel: &str) -> Self {
        let Shared { config, uid, kind, metrics, .. } = shared;
        let probe = Probe::new(*kind, probe_channel, uid, config.probe_interval, metrics);
        shared.health.set(number, false);
        Self {
            number,
            connector: Arc::clone(&shared.connector),
            receiver: Arc::new(Receiver::new(Arc::new(probe), config, metrics)),
            publish_queue: PublishQueue::new(*kind, config, metrics),
            ghosts: Ghosts::default(),
            queries: Arc::clone(&shared.queries),
            health: Arc::clone(&shared.health),
            is_up: AtomicBool::new(false),
            was_up: AtomicBool::new(false),
            metrics: metrics.clone(),
            probe_interval: config.probe_interval,
            reconnect_delay: (config.reconnect_delay_min, config.reconnect_delay_max),
        }
    }

    pub(super) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Queues a message, if there is a link and room in the queue. Never waits.
    pub(super) fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        if !self.is_up.load(Ordering::Acquire) {
            return Err(LostReason::LinkDown);
        }
        self.publish_queue.push(channel, payload)
    }

    /// Waits until nothing is queued or unanswered.
    pub(super) async fn flushed(&self) {
        self.publish_queue.flushed().await;
    }

    /// Keeps the link until the shutdown.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        let ended = shutdown.run_until_cancelled(self.supervise()).await;
        self.set_down();
        match ended {
            None => {}
            Some(never) => match never {},
        }
    }

    async fn supervise(&self) -> Infallible {
        let mut backoff = Backoff::new(self.reconnect_delay);
        let mut log = FailureLog::default();
        loop {
            let connected = tokio::select! {
                biased;
                connected = self.connect() => connected,
                never = self.publish_queue.expire() => match never {},
            };
            let failure = match connected {
                Err(failure) => failure,
                Ok(connected) => {
                    let since = Instant::now();
                    self.set_up();
                    log = FailureLog::default();
                    let failure = self.keep(connected).await;
                    self.set_down();
                    // A link that breaks at once is no reason to be quicker with the next attempt.
                    if since.elapsed() >= self.reconnect_delay.1 {
                        backoff = Backoff::new(self.reconnect_delay);
                    }
                    failure
                }
            };
            log.failed(&failure);
            tokio::select! {
                biased;
                () = time::sleep(backoff.next()) => {}
                never = self.publish_queue.expire() => match never {},
            }
        }
    }

    /// Makes a link that is proven to work.
    async fn connect(&self) -> Result<Connected, LinkError> {
        let client = self.connector.next().await?;
        let mut receiving = Receiving::open(&self.receiver, &self.connector, &client).await?;
        let mut publisher = self.connector.open(&client, None).await?;
        let identity = self.ghosts.identify(receiving.unsubscribed()).await?;
        let probe = &self.receiver.probe;
        self.receiver.subscriptions.begin(self.ghosts.may_be_there());
        receiving.subscribe_probe(probe.kind(), &probe.channel()).await?;
        self.subscribe_all(&receiving, false).await?;
        probe.send(&mut publisher).await?;
        if self.ghosts.end(&mut publisher).await? {
            for channel in self.receiver.subscriptions.ghosts() {
                self.receiver.subscriptions.ghost_gone(&channel);
            }
        }
        self.ghosts.remember(identity);
        self.subscribe_all(&receiving, true).await?;
        self.queries.set_server(self.number, &client)?;
        Ok(Connected { receiving, publisher })
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
            if let Some((_, _, error)) = refusals.not_permitted.into_iter().next() {
                return Err(error);
            }
        }
    }

    /// Uses the link until it breaks.
    async fn keep(&self, connected: Connected) -> LinkError {
        let Connected { receiving, publisher } = connected;
        let lost = receiving.lost();
        let subscriptions = &self.receiver.subscriptions;
        let ghosts = self.ghosts.watch(publisher.clone(), subscriptions, self.probe_interval);
        let failure: Result<Infallible, LinkError> = tokio::select! {
            biased;
            () = lost.cancelled() => {
                self.ghosts.closed();
                Err(LinkError::Disconnected)
            }
            result = self.keep_subscribed(&receiving) => result,
            result = self.receiver.probe.keep_probing(publisher.clone()) => result,
            result = ghosts => result,
            result = self.publish_queue.keep_publishing(publisher) => result,
        };
        match failure {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    /// Follows the changes of what is wanted, until Redis does not answer.
    async fn keep_subscribed(&self, receiving: &Receiving) -> Result<Infallible, LinkError> {
        loop {
            let changes = self.receiver.subscriptions.take_changes(true);
            if changes.is_empty() {
                self.receiver.subscriptions.changed().await;
            } else {
                let refusals = receiving.apply(&self.receiver, &changes).await?;
                self.refused(refusals);
            }
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
        self.health.set(self.number, true);
        if self.was_up.swap(true, Ordering::Relaxed) {
            self.metrics.redis_reconnects_total.inc();
            tracing::warn!(event = "redis_link_up", "connected to Redis again");
            self.receiver.subscriptions.link_was_lost();
        } else {
            tracing::info!(event = "redis_link_up", "connected to Redis");
        }
    }

    fn set_down(&self) {
        self.is_up.store(false, Ordering::Release);
        self.health.set(self.number, false);
        self.receiver.subscriptions.link_is_down();
    }
}
