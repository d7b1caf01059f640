//! Selections and events on one side, the other nodes on the other.

use crate::{
    Acks, AdapterConfig, AdapterError, AdapterMetrics, Flags, Local, Mode, NodeRecord,
    RequestError, RoomName, Selection, SocketDetail, cluster::Cluster, memory::Memory,
};
use protocol::socket::EventData;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
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

/// Which rooms with members on this node an adapter must be told of, because it receives nothing for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// None.
    Nothing,
    /// All but those that sockets have by their id.
    PublicRooms,
    /// All.
    AllRooms,
}

/// The way to the sockets of other nodes. Cheap to clone.
pub struct Adapter<L> {
    mode: AdapterMode<L>,
}

enum AdapterMode<L> {
    Memory(Arc<Memory<L>>),
    Cluster(Arc<Cluster<L>>),
}

impl<L> Clone for Adapter<L> {
    fn clone(&self) -> Self {
        let mode = match &self.mode {
            AdapterMode::Memory(memory) => AdapterMode::Memory(Arc::clone(memory)),
            AdapterMode::Cluster(cluster) => AdapterMode::Cluster(Arc::clone(cluster)),
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
            Mode::Memory => AdapterMode::Memory(Arc::new(Memory::new(local, &config))),
            Mode::Redis | Mode::RedisSharded => {
                AdapterMode::Cluster(Arc::new(Cluster::new(local, config, metrics)?))
            }
        };
        Ok(Self { mode })
    }

    /// Works until the shutdown: keeps the link to Redis, publishes, and delivers what other nodes send.
    /// To be called once.
    pub async fn run(&self, shutdown: CancellationToken) {
        match &self.mode {
            AdapterMode::Memory(_) => shutdown.cancelled().await,
            AdapterMode::Cluster(cluster) => cluster.run(&shutdown).await,
        }
    }

    /// Begins to receive for a namespace. Never waits; the subscription follows.
    pub fn open_namespace(&self, ns: &str) {
        match &self.mode {
            AdapterMode::Memory(_) => {}
            AdapterMode::Cluster(cluster) => cluster.open_namespace(ns),
        }
    }

    /// Stops receiving for a namespace. Never waits.
    pub fn close_namespace(&self, ns: &str) {
        match &self.mode {
            AdapterMode::Memory(_) => {}
            AdapterMode::Cluster(cluster) => cluster.close_namespace(ns),
        }
    }

    /// Whether it receives for a namespace.
    #[cfg(all(test, feature = "socketioxide"))]
    pub(crate) fn is_open(&self, ns: &str) -> bool {
        match &self.mode {
            AdapterMode::Memory(_) => false,
            AdapterMode::Cluster(cluster) => cluster.is_open(ns),
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
            AdapterMode::Memory(_) => Published::LocalOnly,
            AdapterMode::Cluster(cluster) => cluster.broadcast(ns, selection, flags, data),
        }
    }

    /// Which rooms it must be told of by [`room_opened`](Self::room_opened).
    pub fn follows(&self) -> Follow {
        match &self.mode {
            AdapterMode::Memory(_) => Follow::Nothing,
            AdapterMode::Cluster(cluster) => cluster.follows(),
        }
    }

    /// A room has its first member on this node. Never waits.
    ///
    /// Calls of this and [`room_closed`](Self::room_closed) for one room must come in the order in which the room
    /// changed, one after the other: whoever counts the members calls under the lock under which they are counted.
    /// The last call is what counts; if two overtake each other, a room with members is not received.
    pub fn room_opened(&self, ns: &str, room: &str) {
        match &self.mode {
            AdapterMode::Memory(_) => {}
            AdapterMode::Cluster(cluster) => cluster.room_opened(ns, room),
        }
    }

    /// A room has lost its last member on this node. Never waits. In order with
    /// [`room_opened`](Self::room_opened).
    pub fn room_closed(&self, ns: &str, room: &str) {
        match &self.mode {
            AdapterMode::Memory(_) => {}
            AdapterMode::Cluster(cluster) => cluster.room_closed(ns, room),
        }
    }

    /// Calls `then` once this node receives what is sent to the room: at once if it does already, if it
    /// cannot while the link is down, or if rooms are not followed. To be called before a join is
    /// acknowledged. The room need not have members yet.
    pub fn when_followed(&self, ns: &str, room: &str, then: impl FnOnce() + Send + 'static) {
        match &self.mode {
            AdapterMode::Memory(_) => then(),
            AdapterMode::Cluster(cluster) => cluster.when_followed(ns, room, Box::new(then)),
        }
    }

    /// Sends an event to the selected sockets of the whole cluster, this node's included, and collects
    /// their acknowledgements for at most `timeout`.
    pub async fn broadcast_with_ack(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
        timeout: Duration,
    ) -> Result<Acks, RequestError<Acks>> {
        match &self.mode {
            AdapterMode::Memory(memory) => {
                memory.broadcast_with_ack(ns, selection, flags, data, timeout).await
            }
            AdapterMode::Cluster(cluster) => {
                cluster.broadcast_with_ack(ns, selection, flags, data, timeout).await
            }
        }
    }

    /// Describes the selected sockets of the whole cluster, this node's included.
    pub async fn fetch_sockets(
        &self,
        ns: &str,
        selection: &Selection,
    ) -> Result<Vec<SocketDetail>, RequestError<Vec<SocketDetail>>> {
        match &self.mode {
            AdapterMode::Memory(memory) => Ok(memory.fetch_sockets(ns, selection).await),
            AdapterMode::Cluster(cluster) => cluster.fetch_sockets(ns, selection).await,
        }
    }

    /// The ids of the sockets in any of the rooms (without rooms: of all sockets), in the whole cluster.
    pub async fn sockets(
        &self,
        ns: &str,
        rooms: &[RoomName],
    ) -> Result<BTreeSet<RoomName>, RequestError<BTreeSet<RoomName>>> {
        match &self.mode {
            AdapterMode::Memory(memory) => Ok(memory.sockets(ns, rooms).await),
            AdapterMode::Cluster(cluster) => cluster.sockets(ns, rooms).await,
        }
    }

    /// All rooms with members anywhere in the cluster, those that sockets have by their id included.
    pub async fn all_rooms(
        &self,
        ns: &str,
    ) -> Result<BTreeSet<RoomName>, RequestError<BTreeSet<RoomName>>> {
        match &self.mode {
            AdapterMode::Memory(memory) => Ok(memory.all_rooms(ns).await),
            AdapterMode::Cluster(cluster) => cluster.all_rooms(ns).await,
        }
    }

    /// Lets the selected sockets of the whole cluster join rooms. Those of this node have joined when it
    /// returns; the result is about the others.
    pub async fn join(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) -> Published {
        match &self.mode {
            AdapterMode::Memory(memory) => {
                memory.join(ns, selection, rooms).await;
                Published::LocalOnly
            }
            AdapterMode::Cluster(cluster) => cluster.join(ns, selection, rooms).await,
        }
    }

    /// Lets the selected sockets of the whole cluster leave rooms; otherwise as [`join`](Self::join).
    pub async fn leave(&self, ns: &str, selection: &Selection, rooms: &[RoomName]) -> Published {
        match &self.mode {
            AdapterMode::Memory(memory) => {
                memory.leave(ns, selection, rooms).await;
                Published::LocalOnly
            }
            AdapterMode::Cluster(cluster) => cluster.leave(ns, selection, rooms).await,
        }
    }

    /// Disconnects the selected sockets of the whole cluster from the namespace, or with `close` closes
    /// their connections; otherwise as [`join`](Self::join).
    pub async fn disconnect(&self, ns: &str, selection: &Selection, close: bool) -> Published {
        match &self.mode {
            AdapterMode::Memory(memory) => {
                memory.disconnect(ns, selection, close).await;
                Published::LocalOnly
            }
            AdapterMode::Cluster(cluster) => cluster.disconnect(ns, selection, close).await,
        }
    }

    /// Sends an event to all other servers of the cluster. Never waits.
    pub fn server_side_emit(&self, ns: &str, data: &EventData) -> Published {
        match &self.mode {
            AdapterMode::Memory(_) => Published::LocalOnly,
            AdapterMode::Cluster(cluster) => cluster.server_side_emit(ns, data),
        }
    }

    /// The same, and collects what they answer: a JSON array with one element or none for each.
    pub async fn server_side_emit_with_ack(
        &self,
        ns: &str,
        data: &EventData,
    ) -> Result<Vec<EventData>, RequestError<Vec<EventData>>> {
        match &self.mode {
            AdapterMode::Memory(_) => Ok(Vec::new()),
            AdapterMode::Cluster(cluster) => cluster.server_side_emit_with_ack(ns, data).await,
        }
    }

    /// How many servers the namespace has, this one included, as Node's `serverCount()` counts them.
    /// Nothing if Redis could not be asked.
    pub async fn server_count(&self, ns: &str) -> Option<usize> {
        match &self.mode {
            AdapterMode::Memory(_) => Some(1),
            AdapterMode::Cluster(cluster) => cluster.server_count(ns).await,
        }
    }

    /// The live nodes by tag: those with a [`NodeDescription`](crate::NodeDescription) and a tag
    /// ([`Local::tag`]), this one among them if it has both and is listed already. Node servers are not among
    /// them. Nothing if Redis could not be asked.
    pub async fn nodes(&self) -> Option<Vec<NodeRecord>> {
        match &self.mode {
            AdapterMode::Memory(memory) => Some(memory.nodes()),
            AdapterMode::Cluster(cluster) => cluster.nodes().await,
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
            AdapterMode::Cluster(cluster) => {
                tokio::time::timeout(deadline, cluster.flushed()).await.is_ok()
            }
        }
    }

    fn link_sender(&self) -> &watch::Sender<LinkState> {
        match &self.mode {
            AdapterMode::Memory(memory) => memory.link(),
            AdapterMode::Cluster(cluster) => cluster.link(),
        }
    }
}
