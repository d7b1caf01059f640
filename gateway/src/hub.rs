//! The sockets of this node, and the one way to reach them.
//!
//! Every socket belongs to one lane. A lane is a task that owns its sockets and their rooms, so
//! that fan-out needs no lock; whatever concerns them is a command in the lane's queue, carried
//! out in the order in which it was queued.

mod ack;
mod lane;
mod lanes;
mod namespace;
mod room;

use std::sync::Arc;

use adapter::{Adapter, Flags, Published, Selection};
use protocol::socket::EventData;

pub use self::ack::Questions;
pub use self::lane::{Command, Membership, Observer, QUEUE_COMMANDS_MAX as LANE_COMMANDS_MAX};
pub use self::lanes::Lanes;
pub use self::namespace::{Change as NamespaceChange, Namespace, NamespaceError, Namespaces};
pub use self::room::Socket;

/// The sockets of this node together with the adapter to all others.
pub struct Hub {
    lanes: Arc<Lanes>,
    adapter: Adapter<Lanes>,
}

impl Hub {
    /// A hub over the lanes of this node and an adapter that knows the same lanes.
    pub fn new(lanes: Arc<Lanes>, adapter: Adapter<Lanes>) -> Self {
        Self { lanes, adapter }
    }

    /// The lanes of this node.
    pub fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }

    /// The adapter to the other nodes.
    pub fn adapter(&self) -> &Adapter<Lanes> {
        &self.adapter
    }

    /// Sends an event to the selected sockets of the whole cluster: to those of this node first and
    /// always, then to the other nodes. Never waits.
    pub fn publish(
        &self,
        namespace: &Arc<Namespace>,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
    ) -> Published {
        // The other nodes' copy is made from the same data, so it can be encoded after local
        // delivery has begun.
        self.lanes.publish(namespace, selection, flags, data);
        self.adapter.broadcast(namespace.name(), selection, flags, data)
    }
}
