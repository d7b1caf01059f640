//! What the node is told: defaults, then the TOML file, then `CARILLON_*` variables, then flags.
//!
//! [`RawConfig`] is what was written, [`Config`] what is true. Each section is one struct, written
//! once with the `section!` macro: it yields the loader, the environment names, the commented
//! template and `docs/config.md`. `TryFrom` checks the relations between fields and collects every
//! complaint, so that one run of `check-config` names all that is wrong.
//!
//! The layers are merged by this module and not by a library: those at hand stop at the first
//! wrong value and cannot name the nearest key for an unknown one.

mod check;
pub(crate) mod document;
pub(crate) mod fields;
mod load;
mod namespace;
#[cfg(test)]
mod page;
mod section;
mod sections;
#[cfg(test)]
mod tests;
mod value;

pub use load::{ConfigError, Loaded, RawConfig, Sources, load};
pub use namespace::{Auth, NamespaceConfig, NamespacePath};
pub use sections::{
    ClusterConfig, DrainConfig, EngineConfig, LogConfig, ServerConfig, SocketConfig,
};
pub use value::{
    AdapterMode, LogFormat, LogLevel, OnGap, OriginPattern, Origins, Parser, Transports,
};

/// All that one node was told, checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Listeners and their limits.
    pub server: ServerConfig,
    /// Engine.IO: transports, timings, payloads.
    pub engine: EngineConfig,
    /// Socket.IO: packets, rooms, namespaces.
    pub socket: SocketConfig,
    /// The other nodes and Redis between them.
    pub cluster: ClusterConfig,
    /// How the node leaves.
    pub drain: DrainConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// The namespaces, in the order they were written; exact paths win over patterns.
    pub namespaces: Vec<NamespaceConfig>,
    /// Whether the built-in demo runs, and with it the chat page.
    pub demo: bool,
}
