//! Whether all links are up.

use crate::LinkState;
use prometheus::IntGauge;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

/// How long a link that is down is waited for by others before they let themselves be counted.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// There is none.
    Down,
    /// A probe made the whole way, and all is subscribed to but what others count.
    Proven,
    /// Everything is.
    Up,
}

/// How far a link is, and since when.
#[derive(Clone, Copy)]
struct State {
    progress: Progress,
    since: Instant,
}

/// The state of all links together: up only if each of them is.
pub(super) struct Health {
    state: watch::Sender<LinkState>,
    /// A link has come further, or was lost.
    changed: watch::Sender<()>,
    /// Those there should be, by number.
    links: Mutex<HashMap<usize, State>>,
    gauge: IntGauge,
}

impl Health {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.set(0);
        Self {
            state: watch::Sender::new(LinkState::Connecting),
            changed: watch::Sender::new(()),
            links: Mutex::default(),
            gauge,
        }
    }

    pub(super) fn state(&self) -> &watch::Sender<LinkState> {
        &self.state
    }

    /// A link is needed.
    pub(super) fn expect(&self, link: usize) {
        let new = State { progress: Progress::Down, since: Instant::now() };
        self.change(|links| _ = links.entry(link).or_insert(new));
    }

    /// A link has come so far. One that is not needed any more does not matter.
    pub(super) fn set(&self, link: usize, progress: Progress) {
        self.change(|links| {
            if let Some(known) = links.get_mut(&link)
                && known.progress != progress
            {
                *known = State { progress, since: Instant::now() };
            }
        });
    }

    /// A link is not needed any more.
    pub(super) fn forget(&self, link: usize) {
        self.change(|links| _ = links.remove(&link));
    }

    /// Waits until all links are proven, within reason: who is counted must be able to answer, and the answer
    /// may have to go over another link. One that has been down for long is not waited for.
    pub(super) async fn all_proven(&self) {
        let mut changed = self.changed.subscribe();
        while let Some(until) = self.waited_for_until() {
            // The sender lives as long as `self`.
            let _ = time::timeout_at(until, changed.changed()).await;
        }
    }

    /// When the last of the links that are down has been so for long.
    fn waited_for_until(&self) -> Option<Instant> {
        let now = Instant::now();
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let down = links.values().filter(|link| link.progress == Progress::Down);
        down.map(|link| link.since + PATIENCE).filter(|until| *until > now).max()
    }

    /// Nothing is up any more.
    pub(super) fn end(&self) {
        self.change(|links| {
            links.values_mut().for_each(|link| link.progress = Progress::Down);
        });
        self.state.send_replace(LinkState::Down);
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<usize, State>)) {
        // Held until the state is told, so that what is told last is what is true.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut links);
        let least = links.values().map(|link| link.progress).min().unwrap_or(Progress::Down);
        let is_up = least == Progress::Up;
        self.gauge.set(i64::from(is_up));
        self.changed.send_replace(());
        self.state.send_if_modified(|state| {
            let next = match (is_up, *state) {
                (true, _) => LinkState::Up,
                (false, LinkState::Connecting) => LinkState::Connecting,
                (false, _) => LinkState::Down,
            };
            std::mem::replace(state, next) != next
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_links_must_be_up() {
        let health = Health::new(IntGauge::new("up", "up").expect("a valid name"));
        let state = || *health.state().borrow();
        health.expect(1);
        health.expect(2);
        health.set(1, Progress::Proven);
        health.set(2, Progress::Up);
        assert_eq!((state(), health.gauge.get()), (LinkState::Connecting, 0));
        assert_eq!(health.waited_for_until(), None);
        health.set(1, Progress::Up);
        assert_eq!((state(), health.gauge.get()), (LinkState::Up, 1));
        health.expect(3);
        assert_eq!((state(), health.gauge.get()), (LinkState::Down, 0));
        assert!(health.waited_for_until().is_some());
        health.forget(3);
        health.set(3, Progress::Down);
        assert_eq!(state(), LinkState::Up);
        health.end();
        assert_eq!((state(), health.gauge.get()), (LinkState::Down, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_has_been_down_for_long_is_not_waited_for() {
        let health = Health::new(IntGauge::new("up", "up").expect("a valid name"));
        let took = async || {
            let started = Instant::now();
            health.all_proven().await;
            started.elapsed()
        };
        health.expect(1);
        health.expect(2);
        health.expect(3);
        health.set(1, Progress::Proven);
        time::advance(PATIENCE / 2).await;
        assert!((PATIENCE / 2..PATIENCE).contains(&took().await), "as long as is left");
        assert_eq!(took().await, Duration::ZERO);
        // Nor does it make others wait for the whole time for a third.
        health.set(2, Progress::Proven);
        health.set(2, Progress::Down);
        let comes = async {
            time::sleep(PATIENCE / 4).await;
            health.set(2, Progress::Proven);
        };
        let (took, ()) = tokio::join!(took(), comes);
        assert!(took < PATIENCE / 2, "{took:?}");
    }
}
