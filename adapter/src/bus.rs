//! Moves bytes between this node and Redis, and knows no packet.
//!
//! One task, [`Bus::run`], owns both connections: one that publishes, one that receives. It connects both to
//! a master, subscribes, waits for the confirmation of each subscription and for a probe that made the whole
//! way, and only then calls the link up. From then on whatever goes wrong with either connection takes both
//! down, and everything begins again after a random pause.

mod inbox;
mod probe;
mod publisher;
mod redis;
mod subscriber;

pub(crate) use self::inbox::{Frame, Inbox, Item, Losses};
use self::{
    probe::Probe,
    publisher::PublishQueue,
    redis::{Connector, LinkError},
    subscriber::Subscriber,
};
use crate::{AdapterConfig, AdapterError, AdapterMetrics, LinkState, LostReason};
use ::redis::aio::MultiplexedConnection;
use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

/// How many different failures are logged aloud before the link is up again.
const FAILURES_TOLD_MAX: usize = 16;

/// The way to Redis.
pub(crate) struct Bus {
    connector: Connector,
    subscriber: Arc<Subscriber>,
    probe: Arc<Probe>,
    publish_queue: PublishQueue,
    link: watch::Sender<LinkState>,
    metrics: AdapterMetrics,
    reconnect_delay: (Duration, Duration),
}

/// Two connections to a master, everything subscribed.
struct Link {
    /// Ends what the subscriber's connection may still read; first, so that it is dropped first.
    receiving: subscriber::Receiving,
    publisher: MultiplexedConnection,
    /// The patterns that Redis has confirmed.
    confirmed: BTreeSet<String>,
}

impl Bus {
    pub(crate) fn new(
        config: &AdapterConfig,
        uid: &str,
        own_channel: String,
        metrics: &AdapterMetrics,
    ) -> Result<Self, AdapterError> {
        let redis = config.redis.as_ref().ok_or(AdapterError::RedisMissing)?;
        let probe = Arc::new(Probe::new(own_channel, uid, config.probe_interval, metrics));
        metrics.redis_link_up.set(0);
        Ok(Self {
            connector: Connector::new(redis, config.publish_timeout)?,
            subscriber: Arc::new(Subscriber::new(Arc::clone(&probe), config, metrics)),
            probe,
            publish_queue: PublishQueue::new(config, metrics),
            link: watch::Sender::new(LinkState::Connecting),
            metrics: metrics.clone(),
            reconnect_delay: (config.reconnect_delay_min, config.reconnect_delay_max),
        })
    }

    pub(crate) fn link(&self) -> &watch::Sender<LinkState> {
        &self.link
    }

    /// Begins to put what comes in for these patterns into the inbox. Redis hears of it a little later.
    pub(crate) fn open(&self, patterns: Vec<String>, inbox: &Arc<Inbox>) {
        self.subscriber.open(patterns, inbox);
    }

    /// Stops receiving for these patterns.
    pub(crate) fn close(&self, patterns: &[String]) {
        self.subscriber.close(patterns);
    }

    /// Queues a message, if there is a link and room in the queue. Never waits.
    pub(crate) fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        if *self.link.borrow() != LinkState::Up {
            return Err(LostReason::LinkDown);
        }
        self.publish_queue.push(channel, payload)
    }

    /// Waits until nothing is queued or unanswered.
    pub(crate) async fn flushed(&self) {
        self.publish_queue.flushed().await;
    }

    /// Keeps the link until the shutdown.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) {
        let Some(never) = shutdown.run_until_cancelled(self.supervise()).await else {
            self.set_link(LinkState::Down);
            return;
        };
        match never {}
    }

    async fn supervise(&self) -> Infallible {
        let mut backoff = Backoff::new(self.reconnect_delay);
        let mut log = FailureLog::default();
        loop {
            let link = tokio::select! {
                biased;
                link = self.connect() => link,
                never = self.publish_queue.expire() => match never {},
            };
            let failure = match link {
                Err(failure) => failure,
                Ok(link) => {
                    let since = Instant::now();
                    self.set_up(&mut log);
                    let failure = self.keep(link).await;
                    self.set_link(LinkState::Down);
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
    async fn connect(&self) -> Result<Link, LinkError> {
        let client = self.connector.next();
        let mut receiving = self.subscriber.connect(&self.connector, client).await?;
        let mut publisher = self.connector.open(client, None).await?;
        receiving.subscribe_channel(self.probe.channel()).await?;
        let confirmed = self.subscriber.wanted();
        receiving.subscribe(&confirmed).await?;
        self.probe.send(&mut publisher).await?;
        Ok(Link { receiving, publisher, confirmed })
    }

    /// Uses the link until it breaks.
    async fn keep(&self, link: Link) -> LinkError {
        let Link { mut receiving, publisher, mut confirmed } = link;
        let lost = receiving.lost();
        let failure: Result<Infallible, LinkError> = tokio::select! {
            biased;
            () = lost.cancelled() => Err(LinkError::Disconnected),
            result = self.subscriber.keep_subscribed(&mut receiving, &mut confirmed) => result,
            result = self.probe.keep_probing(publisher.clone()) => result,
            result = self.publish_queue.keep_publishing(publisher) => result,
        };
        match failure {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    fn set_up(&self, log: &mut FailureLog) {
        let is_first = *self.link.borrow() == LinkState::Connecting;
        self.set_link(LinkState::Up);
        if is_first {
            tracing::info!(event = "redis_link_up", "connected to Redis");
        } else {
            self.metrics.redis_reconnects_total.inc();
            tracing::warn!(event = "redis_link_up", "connected to Redis again");
            self.subscriber.link_was_lost();
        }
        *log = FailureLog::default();
    }

    fn set_link(&self, state: LinkState) {
        self.metrics.redis_link_up.set(i64::from(state == LinkState::Up));
        self.link.send_replace(state);
    }
}

/// Random pauses under a bound that doubles, so that nodes that lost Redis at the same moment do not all come
/// back at the same moment.
struct Backoff {
    bound: Duration,
    bound_max: Duration,
}

impl Backoff {
    fn new((bound, bound_max): (Duration, Duration)) -> Self {
        Self { bound, bound_max }
    }

    fn next(&mut self) -> Duration {
        let delay = self.bound.mul_f64(rand::random());
        self.bound = (self.bound * 2).min(self.bound_max);
        delay
    }
}

/// Logs each kind of failure once until the link is up again: attempts go on forever, about once a second.
#[derive(Default)]
struct FailureLog {
    told: BTreeSet<String>,
}

impl FailureLog {
    fn failed(&mut self, failure: &LinkError) {
        let (event, kind, error) = ("redis_link_failed", failure.kind(), failure.to_string());
        if self.told.contains(&error) || self.told.len() == FAILURES_TOLD_MAX {
            tracing::debug!(event, kind, error, "still no link to Redis");
        } else if failure.needs_a_person() {
            tracing::error!(event, kind, error, "no link to Redis");
            self.told.insert(error);
        } else {
            tracing::warn!(event, kind, error, "no link to Redis");
            self.told.insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_a_bound_that_doubles_up_to_its_maximum() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new((ms(50), ms(1000)));
        for bound in [50, 100, 200, 400, 800, 1000, 1000, 1000] {
            assert!(backoff.next() <= ms(bound));
        }
    }
}
