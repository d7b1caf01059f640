//! Whether all links are up.

use crate::LinkState;
use prometheus::IntGauge;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time};

/// How long a link waits for the others before it lets itself be counted.
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

/// The state of all links together: up only if each of them is.
pub(super) struct Health {
    state: watch::Sender<LinkState>,
    /// Whether each link is at least proven.
    all_proven: watch::Sender<bool>,
    /// Those there should be, by number.
    links: Mutex<HashMap<usize, Progress>>,
    gauge: IntGauge,
}

impl Health {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.set(0);
        Self {
            state: watch::Sender::new(LinkState::Connecting),
            all_proven: watch::Sender::new(false),
            links: Mutex::default(),
            gauge,
        }
    }

    pub(super) fn state(&self) -> &watch::Sender<LinkState> {
        &self.state
    }

    /// A link is needed.
    pub(super) fn expect(&self, link: usize) {
        self.change(|links| _ = links.entry(link).or_insert(Progress::Down));
    }

    /// A link has come so far. One that is not needed any more does not matter.
    pub(super) fn set(&self, link: usize, progress: Progress) {
        self.change(|links| {
            if let Some(known) = links.get_mut(&link) {
                *known = progress;
            }
        });
    }

    /// A link is not needed any more.
    pub(super) fn forget(&self, link: usize) {
        self.change(|links| _ = links.remove(&link));
    }

    /// Waits until all links are proven, within reason: who is counted must be able to answer, and the answer
    /// may have to go over another link.
    pub(super) async fn all_proven(&self) {
        let mut all_proven = self.all_proven.subscribe();
        let _ = time::timeout(PATIENCE, all_proven.wait_for(|all_proven| *all_proven)).await;
    }

    /// Nothing is up any more.
    pub(super) fn end(&self) {
        self.change(|links| links.values_mut().for_each(|progress| *progress = Progress::Down));
        self.state.send_replace(LinkState::Down);
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<usize, Progress>)) {
        // Held until the state is told, so that what is told last is what is true.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut links);
        let least = links.values().min().copied().unwrap_or(Progress::Down);
        let is_up = least == Progress::Up;
        self.gauge.set(i64::from(is_up));
        self.all_proven.send_replace(least >= Progress::Proven);
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
        assert!(*health.all_proven.borrow());
        health.set(1, Progress::Up);
        assert_eq!((state(), health.gauge.get()), (LinkState::Up, 1));
        health.expect(3);
        assert_eq!((state(), health.gauge.get()), (LinkState::Down, 0));
        assert!(!*health.all_proven.borrow());
        health.forget(3);
        health.set(3, Progress::Down);
        assert_eq!(state(), LinkState::Up);
        health.end();
        assert_eq!((state(), health.gauge.get()), (LinkState::Down, 0));
    }
}
