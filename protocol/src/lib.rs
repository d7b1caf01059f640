//! The formats that Carillon speaks, as pure functions without I/O.
//!
//! [`engine`] knows Engine.IO packets and polling payloads, [`socket`] knows Socket.IO packets, event arguments
//! and binary placeholders, [`json`] the text of one value, [`frame`] knows WebSocket frame headers, and [`msgpack`] turns JSON into MessagePack
//! and back. [`id`] makes the identifiers that sessions and sockets carry.
//!
//! Every function here may be given bytes from a stranger. None of them panics, none reserves memory because a
//! length header asks for it, and none follows values nested deeper than [`DEPTH_MAX`], or [`MESSAGE_DEPTH_MAX`]
//! where that is said.
#![forbid(unsafe_code)]

pub mod engine;
pub mod frame;
pub mod id;
pub mod json;
pub mod msgpack;
pub mod socket;

/// How deep arrays and objects may be nested, the outermost one counted as 1.
///
/// Deep nesting has no use in events, but costs stack in every parser behind us, browsers included.
pub const DEPTH_MAX: usize = 64;

/// How deep a message between servers may be nested: it has values in an envelope of its own.
pub const MESSAGE_DEPTH_MAX: usize = DEPTH_MAX + 8;
