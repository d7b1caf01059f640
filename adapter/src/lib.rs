//! The cluster side of a Carillon node.
#![forbid(unsafe_code)]

mod adapter;
mod config;
mod error;
mod local;
mod memory;
pub mod metrics;

pub use crate::{
    adapter::{Adapter, LinkState, LostReason, Published},
    config::{AdapterConfig, Mode, RedisConfig},
    error::AdapterError,
    local::{Flags, GapCause, Local, RoomName, Selection},
    metrics::AdapterMetrics,
};
