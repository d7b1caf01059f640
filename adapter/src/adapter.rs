//! Selections and events on one side, the other nodes on the other.

use crate::{
    AdapterConfig, AdapterError, AdapterMetrics, Flags, Local, Mode, Selection, classic::Classic,
    memory::Memory,
};
use protocol::socket::EventData;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What became of a broadcast to the other nodes. Local delivery is not part of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// There was nobody else to send it to: memory mode, or the flag `local`.
    LocalOnly,
    /// It waits for its turn on the connection to Redis.
    Queued,
    /// The other nodes do not get it.
    Lost(LostReason),
}

/// Why the other nodes do not get a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// There is no link to Redis.
    LinkDown,
    /// Too much waits to be published.
    QueueFull,
    /// The message is larger than other nodes take.
    TooLarge,
    /// The message is one that Node servers or their clients cannot bear.
    Invalid,
}

impl LostReason {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            LostReason::LinkDown => "link_down",
            LostReason::QueueFull => "queue_full",
            LostReason::TooLarge => "too_large",
            LostReason::Invalid => "invalid",
        }
    }
}

/// How this node is connected to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There are no others.
    Memory,
    /// The link has not been up yet.
    Connecting,
    /// Connected to a master, all subscriptions confirmed.
    Up,
    /// The link was up and is lost.
    Down,
}

/// The way to the sockets of other nodes. Cheap to clone.
pub struct Adapter<L> {
    mode: AdapterMode<L>,
}

enum AdapterMode<L> {
    Memory(Arc<Memory>),
    Classic(Arc<Classic<L>>),
}

impl<L> Clone for Adapter<L> {
    fn clone(&self) -> Self {
        let mode = match &self.mode {
            AdapterMode::Memory(memory) => AdapterMode::Memory(Arc::clone(memory)),
            AdapterMode::Classic(classic) => AdapterMode::Classic(Arc::clone(classic)),
        };
        Self { mode }
    }
}

impl<L: Local> Adapter<L> {
    /// Makes an adapter over the sockets of this node. Nothing is connected before [`run`](Self::run).
    pub fn new(
        local: Arc<L>,
        config: AdapterConfig,
        metrics: AdapterMetrics,
    ) -> Result<Self, AdapterError> {
        config.check()?;
        let mode = match config.mode {
            Mode::Memory => AdapterMode::Memory(Arc::new(Memory::new())),
            Mode::Redis => AdapterMode::Classic(Arc::new(Classic::new(local, config, metrics)?)),
        };
        Ok(Self { mode })
    }

    /// Works until the shutdown: keeps the link to Redis, publishes, and delivers what other nodes send.
    /// To be called once.
    pub async fn run(&self, shutdown: CancellationToken) {
        match &self.mode {
            AdapterMode::Memory(_) => shutdown.cancelled().await,
            AdapterMode::Classic(classic) => classic.run(&shutdown).await,
        }
    }

    /// Begins to receive for a namespace. Never waits; the subscription follows.
    pub fn open_namespace(&self, ns: &str) {
        match &self.mode {
            AdapterMode::Memory(_) => {}
            AdapterMode::Classic(classic) => classic.open_namespace(ns),
        }
    }

    /// Stops receiving for a namespace. Never waits.
    pub fn close_namespace(&self, ns: &str) {
        match &self.mode {
            AdapterMode::Memory(_) => {}
            AdapterMode::Classic(classic) => classic.close_namespace(ns),
        }
    }

    /// Sends an event to the other nodes. Local delivery is done by the caller before this call. Never
    /// waits.
    pub fn broadcast(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
    ) -> Published {
        match &self.mode {
            AdapterMode::Memory(memory) => memory.broadcast(),
            AdapterMode::Classic(classic) => classic.broadcast(ns, selection, flags, data),
        }
    }

    /// How this node is connected to the others.
    pub fn link(&self) -> LinkState {
        *self.link_sender().borrow()
    }

    /// The same, for those who wait for changes.
    pub fn link_changes(&self) -> watch::Receiver<LinkState> {
        self.link_sender().subscribe()
    }

    /// Waits until everything queued so far is published and answered, or the time is over. Says whether
    /// everything was. What is queued later is waited for too.
    pub async fn flush(&self, deadline: Duration) -> bool {
        match &self.mode {
            AdapterMode::Memory(_) => true,
            AdapterMode::Classic(classic) => {
                tokio::time::timeout(deadline, classic.flushed()).await.is_ok()
            }
        }
    }

    fn link_sender(&self) -> &watch::Sender<LinkState> {
        match &self.mode {
            AdapterMode::Memory(memory) => memory.link(),
            AdapterMode::Classic(classic) => classic.link(),
        }
    }
}
