//! Whether all links are up.

use crate::LinkState;
use prometheus::IntGauge;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// The state of all links together: up only if each of them is.
pub(super) struct Health {
    state: watch::Sender<LinkState>,
    /// Those there should be, by number.
    links: Mutex<HashMap<usize, bool>>,
    gauge: IntGauge,
}

impl Health {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.set(0);
        Self { state: watch::Sender::new(LinkState::Connecting), links: Mutex::default(), gauge }
    }

    pub(super) fn state(&self) -> &watch::Sender<LinkState> {
        &self.state
    }

    /// A link goes up or down; one that was not known is added.
    pub(super) fn set(&self, link: usize, is_up: bool) {
        self.change(|links| _ = links.insert(link, is_up));
    }

    /// A link is not needed any more.
    pub(super) fn forget(&self, link: usize) {
        self.change(|links| _ = links.remove(&link));
    }

    /// Nothing is up any more.
    pub(super) fn end(&self) {
        self.change(|links| links.values_mut().for_each(|is_up| *is_up = false));
        self.state.send_replace(LinkState::Down);
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<usize, bool>)) {
        // Held until the state is told, so that what is told last is what is true.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut links);
        let is_up = !links.is_empty() && links.values().all(|is_up| *is_up);
        self.gauge.set(i64::from(is_up));
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
        health.set(1, false);
        health.set(2, true);
        assert_eq!((state(), health.gauge.get()), (LinkState::Connecting, 0));
        health.set(1, true);
        assert_eq!((state(), health.gauge.get()), (LinkState::Up, 1));
        health.set(3, false);
        assert_eq!((state(), health.gauge.get()), (LinkState::Down, 0));
        health.forget(3);
        assert_eq!(state(), LinkState::Up);
        health.end();
        assert_eq!((state(), health.gauge.get()), (LinkState::Down, 0));
    }
}
