//! The registry of live nodes.

use crate::{AdapterConfig, NodeDescription};
use protocol::id::NodeTag;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a live node tells about itself, under `<key>-carillon:node:<tag>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Random for each start of a node.
    pub id: String,
    /// What the ids of its sockets begin with.
    pub tag: String,
    /// What kind of program it is.
    pub kind: String,
    /// The version of the program.
    pub version: String,
    /// Where other nodes reach it.
    pub address: Option<String>,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// How many sockets it has.
    pub n_sockets: usize,
}

/// What does not change in a node's record.
pub(crate) struct Identity {
    id: String,
    node: NodeDescription,
    started_ms: u64,
}

impl Identity {
    pub(crate) fn new(config: &AdapterConfig, id: String) -> Option<Self> {
        let node = config.node.clone()?;
        Some(Self { id, node, started_ms: now_ms() })
    }

    pub(crate) fn record(&self, tag: NodeTag, n_sockets: usize) -> NodeRecord {
        NodeRecord {
            id: self.id.clone(),
            tag: tag.as_str().to_owned(),
            kind: self.node.kind.clone(),
            version: self.node.version.clone(),
            address: self.node.address.clone(),
            started_ms: self.started_ms,
            n_sockets,
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
