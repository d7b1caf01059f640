//! The forms in which other nodes say things. Pure functions: no I/O, no state, no panic on any input.

pub(crate) mod channel;
pub(crate) mod classic;
mod msgpack;
