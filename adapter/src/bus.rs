//! Moves bytes between this node and Redis, and knows no packet.

mod backoff;
mod cluster;
mod connector;
mod error;
mod ghost;
mod health;
mod inbox;
mod link;
mod probe;
mod publisher;
mod queries;
mod sentinel;
mod subscriber;
mod subscriptions;
mod topic;
mod topology;

use self::{
    cluster::Links,
    connector::Connector,
    health::Health,
    link::{Ended, Shared},
};
pub(crate) use self::{
    inbox::{Frame, Inbox, Item, Losses},
    queries::{Queries, QueryError},
    subscriptions::Then,
    topic::{Topic, TopicKind},
};
use crate::{AdapterConfig, AdapterError, AdapterMetrics, LinkState, LostReason, Mode};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The way to Redis.
pub(crate) struct Bus {
    links: Arc<Links>,
    health: Arc<Health>,
    queries: Arc<Queries>,
    is_sharded: bool,
}

impl Bus {
    pub(crate) fn new(
        config: &AdapterConfig,
        uid: &str,
        own_channel: String,
        metrics: &AdapterMetrics,
    ) -> Result<Self, AdapterError> {
        let redis = config.redis.as_ref().ok_or(AdapterError::RedisMissing)?;
        let connector = Arc::new(Connector::new(redis, config)?);
        let health = Arc::new(Health::new(metrics.redis_link_up.clone()));
        let queries = Arc::new(Queries::new(Arc::clone(&connector)));
        let is_sharded = config.mode == Mode::RedisSharded;
        let shared = Shared {
            config: config.clone(),
            uid: uid.to_owned(),
            kind: if is_sharded { TopicKind::Shard } else { TopicKind::Channel },
            connector,
            queries: Arc::clone(&queries),
            health: Arc::clone(&health),
            metrics: metrics.clone(),
            refresh: Arc::default(),
        };
        Ok(Self { links: Arc::new(Links::new(shared, own_channel)), health, queries, is_sharded })
    }

    pub(crate) fn link(&self) -> &watch::Sender<LinkState> {
        self.health.state()
    }

    /// Begins to put what comes in for these topics into the inbox, beside those it goes into already. Redis
    /// hears of it a little later.
    pub(crate) fn open(&self, topics: &[Topic], inbox: &Arc<Inbox>) {
        for topic in topics {
            self.links.open(topic.clone(), inbox, None);
        }
    }

    /// Stops putting what comes in for these topics into the inbox. Gives who waited for them, to be called when
    /// the caller holds no lock: whoever is called may ask for anything again.
    #[must_use = "what is returned is to be called"]
    pub(crate) fn close(&self, topics: &[Topic], inbox: &Arc<Inbox>) -> Vec<Then> {
        let close = |topic: &Topic| self.links.close(topic.kind, &topic.name, inbox);
        topics.iter().flat_map(close).collect()
    }

    /// Whether Redis has confirmed all of these topics, and has ended none of them since.
    pub(crate) fn is_held(&self, topics: &[Topic]) -> bool {
        topics.iter().all(|topic| self.links.is_held(topic))
    }

    /// As [`open`](Self::open), and calls `then` when Redis has confirmed it: at once if it has already or if
    /// the link is down; also when the link is lost before.
    pub(crate) fn follow(&self, topic: Topic, inbox: &Arc<Inbox>, then: Then) {
        self.links.open(topic, inbox, Some(then));
    }

    /// Queues a message, if there is a link and room in the queue. Never waits.
    pub(crate) fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        self.links.publish(channel, payload)
    }

    /// How many connections subscribe to a channel itself, in the whole of Redis. Nothing if Redis does not
    /// tell in time.
    pub(crate) async fn count(&self, channel: &str) -> Option<usize> {
        let counted = if self.is_sharded {
            let numsub = redis::cmd("PUBSUB").arg("SHARDNUMSUB").arg(channel).to_owned();
            let master = self.links.master_of(channel);
            self.queries.run_at::<(String, usize)>(master, &numsub).await.map(|(_, count)| count)
        } else {
            let numsub = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).to_owned();
            let counts = self.queries.run_everywhere::<(String, usize)>(&numsub).await;
            counts.map(|counts| counts.iter().map(|(_, count)| count).sum())
        };
        match counted {
            Ok(count) => Some(count),
            Err(error) => {
                tracing::warn!(event = "count_failed", %error, "the servers were not counted");
                None
            }
        }
    }

    /// Where to ask Redis something.
    pub(crate) fn queries(&self) -> &Queries {
        &self.queries
    }

    /// Waits until nothing is queued or unanswered.
    pub(crate) async fn flushed(&self) {
        self.links.flushed().await;
    }

    /// Keeps the link until the shutdown.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) {
        let first = self.links.first();
        match first.run(shutdown, &*first).await {
            Ended::Shutdown => {}
            Ended::IsCluster => self.links.run(shutdown).await,
        }
        self.health.end();
    }
}

#[cfg(test)]
mod tests;
