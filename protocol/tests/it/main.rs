//! Tests of the codecs through their public functions.

mod bad_input;
mod engine;
mod frame;
mod msgpack;
mod properties;
mod socket;
mod vectors;
