//! Whether this node should get new clients, and why not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use adapter::LinkState;
use http::StatusCode;

use crate::hub::Hub;

/// How long a lost link is tolerated before a node that needs Redis turns unready: all nodes lose a
/// restarting Redis at the same moment, and a balancer without nodes serves nobody.
const LINK_GRACE: Duration = Duration::from_secs(10);

/// What the probes answer.
pub struct Readiness {
    needs_redis: bool,
    draining: AtomicBool,
    link_lost_since: Mutex<Option<Instant>>,
}

/// The state of a node in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Fit for new clients.
    Ready,
    /// The link to Redis was never up yet.
    Starting,
    /// The link to Redis is lost and the node needs it.
    NoRedis,
    /// The node is on its way out.
    Draining,
}

impl State {
    /// The status and the word of the readiness probe. 404 is what HAProxy's `disable-on-404` takes
    /// for a soft stop; other balancers only need it not to be 200.
    pub fn probe(self) -> (StatusCode, &'static str) {
        match self {
            Self::Ready => (StatusCode::OK, "ready\n"),
            Self::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Self::NoRedis => (StatusCode::SERVICE_UNAVAILABLE, "redis\n"),
            Self::Draining => (StatusCode::NOT_FOUND, "draining\n"),
        }
    }
}

impl Readiness {
    /// A node that is not draining.
    pub fn new(needs_redis: bool) -> Self {
        Self { needs_redis, draining: AtomicBool::new(false), link_lost_since: Default::default() }
    }

    /// Turns the node unready for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the node is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The state now.
    pub fn state(&self, hub: &Hub) -> State {
        if self.is_draining() {
            return State::Draining;
        }
        let link = hub.adapter().link();
        let mut lost_since = self.link_lost_since.lock().unwrap_or_else(PoisonError::into_inner);
        match link {
            LinkState::Connecting => State::Starting,
            LinkState::Down => {
                let since = *lost_since.get_or_insert_with(Instant::now);
                let overdue = since.elapsed() >= LINK_GRACE;
                if self.needs_redis && overdue { State::NoRedis } else { State::Ready }
            }
            LinkState::Memory | LinkState::Up => {
                *lost_since = None;
                State::Ready
            }
        }
    }
}
