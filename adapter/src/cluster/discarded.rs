//! Notices that most of what a node receives is for others.

use crate::{AdapterConfig, Mode, Subscribe};
use prometheus::IntCounter;
use std::time::Duration;
use tokio::time::Instant;

/// Over which time the share is taken.
const PERIOD: Duration = Duration::from_secs(60);
/// Fewer messages than these in a period are no load worth a word.
const MESSAGES_MIN: u64 = 6_000;
/// From which share on it is told, in percent.
const SHARE_MAX: u64 = 80;

pub(super) struct Discarded {
    /// Whether there is a setting that would help.
    is_of_use: bool,
    is_told: bool,
    since: Instant,
    no_room: u64,
    delivered: u64,
}

impl Discarded {
    pub(super) fn new(config: &AdapterConfig) -> Self {
        let is_of_use = config.mode == Mode::Redis && config.subscribe == Subscribe::All;
        Self { is_of_use, is_told: false, since: Instant::now(), no_room: 0, delivered: 0 }
    }

    /// Looks whether a period is over and what it brought. Says so once in the life of the node.
    pub(super) fn look(&mut self, no_room: &IntCounter, delivered: &IntCounter) -> bool {
        if !self.is_of_use || self.is_told || self.since.elapsed() < PERIOD {
            return false;
        }
        let discarded = no_room.get() - self.no_room;
        let all = discarded + delivered.get() - self.delivered;
        (self.no_room, self.delivered, self.since) =
            (no_room.get(), delivered.get(), Instant::now());
        if all < MESSAGES_MIN || discarded * 100 <= all * SHARE_MAX {
            return false;
        }
        self.is_told = true;
        tracing::warn!(
            event = "mostly_discarded",
            discarded,
            received = all,
            "most messages from Redis are for rooms without members on this node: \
             subscribe = \"interest\" would spare it from receiving them"
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("c", "c").expect("a valid name")
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_once_and_only_of_a_load_that_is_mostly_for_others() {
        let (no_room, delivered) = (counter(), counter());
        let mut discarded =
            Discarded::new(&AdapterConfig { mode: Mode::Redis, ..AdapterConfig::default() });
        let mut minute = async |in_vain, of_use| {
            no_room.inc_by(in_vain);
            delivered.inc_by(of_use);
            tokio::time::advance(PERIOD).await;
            discarded.look(&no_room, &delivered)
        };
        assert!(!minute(100, 0).await, "too little");
        assert!(!minute(8_000, 2_000).await, "not more than four fifths");
        assert!(minute(8_001, 2_000).await);
        assert!(!minute(100_000, 0).await, "told already");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_told_where_no_setting_would_help() {
        let interest = AdapterConfig {
            mode: Mode::Redis,
            subscribe: Subscribe::Interest,
            ..AdapterConfig::default()
        };
        let mut discarded = Discarded::new(&interest);
        let no_room = counter();
        no_room.inc_by(100_000);
        tokio::time::advance(PERIOD).await;
        assert!(!discarded.look(&no_room, &counter()));
    }
}
