//! What happens between two attempts to connect.

use super::error::LinkError;
use std::{collections::BTreeSet, time::Duration};

/// How many different failures are logged aloud before the link is up again.
const FAILURES_TOLD_MAX: usize = 16;

/// Random pauses under a bound that doubles, so that nodes that lost Redis at the same moment do not all come
/// back at the same moment.
pub(super) struct Backoff {
    bound: Duration,
    bound_max: Duration,
}

impl Backoff {
    pub(super) fn new((bound, bound_max): (Duration, Duration)) -> Self {
        Self { bound, bound_max }
    }

    pub(super) fn next(&mut self) -> Duration {
        let delay = self.bound.mul_f64(rand::random());
        self.bound = (self.bound * 2).min(self.bound_max);
        delay
    }
}

/// Logs each kind of failure once until the link is up again: attempts go on forever, about once a second.
#[derive(Default)]
pub(super) struct FailureLog {
    told: BTreeSet<String>,
}

impl FailureLog {
    pub(super) fn failed(&mut self, failure: &LinkError) {
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
