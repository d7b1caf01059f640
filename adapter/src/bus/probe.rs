//! Messages to ourselves, the only proof that what is published is also received.
//!
//! A connection can look alive and be deaf: half-open behind a firewall, on a server that was cut off from its
//! master, or with a subscription that got lost. TCP finds out late or never.

use super::{connector::check_role, error::LinkError, topic::TopicKind};
use crate::AdapterMetrics;
use prometheus::{Histogram, IntCounter};
use redis::aio::MultiplexedConnection;
use std::{
    convert::Infallible,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

/// How many probes in a row may be missed. One may be lost to a stall of this process or of Redis.
const MISSES_MAX: u32 = 1;

/// Sends probes and waits for them.
pub(super) struct Probe {
    kind: TopicKind,
    channel: RwLock<Arc<str>>,
    /// What all probes of this node begin with.
    prefix: String,
    sent: AtomicU64,
    seen: watch::Sender<u64>,
    interval: Duration,
    round_trip: Histogram,
    misses: IntCounter,
}

impl Probe {
    pub(super) fn new(
        kind: TopicKind,
        channel: &str,
        uid: &str,
        interval: Duration,
        metrics: &AdapterMetrics,
    ) -> Self {
        Self {
            kind,
            channel: RwLock::new(channel.into()),
            prefix: format!(r#"{{"uid":"{uid}","probe":"#),
            sent: AtomicU64::new(0),
            seen: watch::Sender::new(0),
            interval,
            round_trip: metrics.redis_probe_seconds.clone(),
            misses: metrics.redis_probe_misses_total.clone(),
        }
    }

    /// The channel of all nodes' probes.
    pub(super) fn channel(&self) -> Arc<str> {
        Arc::clone(&self.channel.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses another channel from now on.
    pub(super) fn set_channel(&self, channel: &str) {
        *self.channel.write().unwrap_or_else(PoisonError::into_inner) = channel.into();
    }

    /// Whether probes come on ordinary channels or on those of sharded pub/sub.
    pub(super) fn kind(&self) -> TopicKind {
        self.kind
    }

    /// Whether probes come on this channel.
    pub(super) fn is_channel(&self, kind: TopicKind, channel: &[u8]) -> bool {
        kind == self.kind && self.channel().as_bytes() == channel
    }

    /// Takes a message from the channel. Those of other nodes are none of our business.
    pub(super) fn arrived(&self, payload: &[u8]) {
        let number: Option<u64> = str::from_utf8(payload).ok().and_then(|payload| {
            payload.strip_prefix(&self.prefix)?.strip_suffix('}')?.parse::<u64>().ok()
        });
        if let Some(number) = number {
            self.seen.send_if_modified(|seen| {
                let is_new = number > *seen;
                *seen = number.max(*seen);
                is_new
            });
        }
    }

    /// Sends one probe to what must be a master, and waits until it is back.
    pub(super) async fn send(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), LinkError> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let payload = format!("{}{number}}}", self.prefix);
        let mut seen = self.seen.subscribe();
        let started = Instant::now();
        let round_trip = async {
            // A master that was demoted hears its own publishes, and nobody else does.
            check_role(connection).await?;
            let (command, channel) = (self.kind.publish(), self.channel());
            let publish = redis::cmd(command).arg(&*channel).arg(payload).to_owned();
            let published: redis::RedisResult<i64> = publish.query_async(connection).await;
            published.map_err(|error| LinkError::of_channel(command, &channel, error))?;
            // The sender lives as long as `self`.
            let _ = seen.wait_for(|seen| *seen >= number).await;
            Ok(())
        };
        time::timeout(self.interval, round_trip).await.unwrap_or(Err(LinkError::Deaf))?;
        self.round_trip.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Sends probes until too many are missed or the connection fails.
    pub(super) async fn keep_probing(
        &self,
        mut connection: MultiplexedConnection,
    ) -> Result<Infallible, LinkError> {
        let mut ticks = time::interval(self.interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        // The first tick is at once, and a probe has just been back.
        ticks.tick().await;
        let mut misses = 0;
        loop {
            ticks.tick().await;
            let started = Instant::now();
            match self.send(&mut connection).await {
                Ok(()) => misses = 0,
                Err(error @ (LinkError::Deaf | LinkError::Timeout)) => {
                    misses += 1;
                    self.misses.inc();
                    if misses > MISSES_MAX {
                        return Err(error);
                    }
                    // The time for an answer is over only when the interval is.
                    time::sleep_until(started + self.interval).await;
                    ticks.reset_immediately();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    #[test]
    fn only_own_probes_are_seen() {
        let metrics = AdapterMetrics::register(&Registry::new()).expect("no name is taken");
        let probe = Probe::new(TopicKind::Channel, "c", "me", Duration::from_secs(3), &metrics);
        let seen_after = |payload: &str| {
            probe.arrived(payload.as_bytes());
            *probe.seen.borrow()
        };
        assert_eq!(seen_after(r#"{"uid":"other","probe":1}"#), 0);
        assert_eq!(seen_after(r#"{"uid":"me","probe":2}"#), 2);
        assert_eq!(seen_after(r#"{"uid":"me","probe":1}"#), 2);
        assert_eq!(seen_after(r#"{"uid":"me","probe":3"#), 2);
        assert_eq!(seen_after(r#"{"uid":"me","notice":3}"#), 2);
    }
}
