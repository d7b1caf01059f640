//! The registry of live nodes.

use serde::{Deserialize, Serialize};

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
