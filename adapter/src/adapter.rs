//! Selections and events on one side, the other nodes on the other.

use crate::{
    AdapterConfig, AdapterError, AdapterMetrics, Flags, Local, Mode, Selection, memory::Memory,
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
    inner: Arc<Inner<L>>,
}

enum Inner<L> {
    Memory(Memory, std::marker::PhantomData<fn() -> L>),
}

impl<L> Clone for Adapter<L> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<L: Local> Adapter<L> {
    /// Makes an adapter over the sockets of this node. Nothing is connected before [`run`](Self::run).
    pub fn new(
        _local: Arc<L>,
        config: AdapterConfig,
        _metrics: AdapterMetrics,
    ) -> Result<Self, AdapterError> {
        config.check()?;
        let inner = match config.mode {
            Mode::Memory => Inner::Memory(Memory::new(), std::marker::PhantomData),
            Mode::Redis => return Err(AdapterError::RedisMissing),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Works until the shutdown: keeps the link to Redis, publishes, and delivers what other nodes send.
    pub async fn run(&self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }

    /// Begins to receive for a namespace. Never waits; the subscription follows.
    pub fn open_namespace(&self, _ns: &str) {}

    /// Stops receiving for a namespace. Never waits.
    pub fn close_namespace(&self, _ns: &str) {}

    /// Sends an event to the other nodes. Local delivery is done by the caller before this call. Never
    /// waits.
    pub fn broadcast(
        &self,
        _ns: &str,
        _selection: &Selection,
        _flags: Flags,
        _data: &EventData,
    ) -> Published {
        match &*self.inner {
            Inner::Memory(memory, _) => memory.broadcast(),
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
    /// everything was.
    pub async fn flush(&self, _deadline: Duration) -> bool {
        true
    }

    fn link_sender(&self) -> &watch::Sender<LinkState> {
        match &*self.inner {
            Inner::Memory(memory, _) => memory.link(),
        }
    }
}
