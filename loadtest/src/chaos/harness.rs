//! What everybody in a scenario shares: the clock, the dice, the history, and where servers are.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::history::{History, NodeIndex, Time};

/// One scenario's state. Everything runs in one thread.
pub struct Harness {
    start: Instant,
    /// What happened until now.
    pub history: RefCell<History>,
    /// The only source of chance.
    pub random: RefCell<StdRng>,
    /// Where clients reach each node.
    pub entrances: RefCell<Vec<SocketAddr>>,
    /// Why the scenario cannot go on, beside what the checker finds.
    pub trouble: RefCell<Option<String>>,
    publishers: Cell<u32>,
}

impl Harness {
    /// A clock at zero and an empty history.
    pub fn new(seed: u64, flight: Time) -> Rc<Harness> {
        Rc::new(Harness {
            start: Instant::now(),
            history: RefCell::new(History { flight, ..History::default() }),
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            entrances: RefCell::default(),
            trouble: RefCell::default(),
            publishers: Cell::new(0),
        })
    }

    /// The time.
    pub fn now(&self) -> Time {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(Time::MAX)
    }

    /// A publisher that nobody was before.
    pub fn publisher(&self) -> u32 {
        self.publishers.set(self.publishers.get() + 1);
        self.publishers.get()
    }

    /// Where clients reach a node.
    pub fn entrance(&self, node: NodeIndex) -> SocketAddr {
        self.entrances.borrow()[node]
    }

    /// How many nodes there are.
    pub fn n_nodes(&self) -> usize {
        self.entrances.borrow().len()
    }

    /// Takes note of the first thing that should never happen.
    pub fn troubled(&self, what: String) {
        self.trouble.borrow_mut().get_or_insert(what);
    }
}
