//! JSON to MessagePack and back, in one pass and without a tree in between.
//!
//! Inside of a node an event is JSON text with placeholders for its binaries. Node servers exchange MessagePack
//! with the binaries inline, and so do clients that use `socket.io-msgpack-parser`. [`json_to_msgpack`] and
//! [`msgpack_to_json`] convert values, [`decode_packet`] and [`encode_packet`] whole client packets.
//!
//! What is written is what notepack.io 3.0.1 writes for the same JavaScript value, with one exception: integral
//! numbers of 2^64 and above become doubles, where notepack writes their low bits.

mod decode;
mod encode;
mod packet;

use thiserror::Error;

pub use self::{
    decode::{Decoded, msgpack_to_json, value_len},
    encode::json_to_msgpack,
    packet::{ClientPacket, decode_packet, encode_packet},
};
use crate::json::JsonError;

/// Why a value or packet could not be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// The text is no JSON.
    #[error("invalid JSON")]
    InvalidJson,
    /// Arrays or maps nested deeper than [`crate::DEPTH_MAX`].
    #[error("value nested too deep")]
    TooDeep,
    /// A number that a double cannot hold.
    #[error("number out of range")]
    NumberRange,
    /// The bytes end inside of a value.
    #[error("truncated value")]
    Truncated,
    /// The byte `c1`, which starts no value.
    #[error("byte without meaning")]
    UnknownMarker,
    /// A string that is not UTF-8.
    #[error("string is not UTF-8")]
    InvalidUtf8,
    /// A map key that is neither a string nor an integer.
    #[error("invalid map key")]
    InvalidKey,
    /// A placeholder without its attachment, with that of another, or where binaries stand inline.
    #[error("invalid placeholder")]
    InvalidPlaceholder,
    /// More binaries than allowed.
    #[error("too many attachments")]
    TooManyAttachments,
    /// A client packet whose keys or their values are not as they must be.
    #[error("invalid packet")]
    InvalidPacket,
    /// Bytes behind a client packet.
    #[error("bytes behind the packet")]
    TrailingBytes,
}

impl TranscodeError {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            TranscodeError::InvalidJson => "invalid_json",
            TranscodeError::TooDeep => "too_deep",
            TranscodeError::NumberRange => "number_range",
            TranscodeError::Truncated => "truncated",
            TranscodeError::UnknownMarker => "unknown_marker",
            TranscodeError::InvalidUtf8 => "invalid_utf8",
            TranscodeError::InvalidKey => "invalid_key",
            TranscodeError::InvalidPlaceholder => "invalid_placeholder",
            TranscodeError::TooManyAttachments => "too_many_attachments",
            TranscodeError::InvalidPacket => "invalid_packet",
            TranscodeError::TrailingBytes => "trailing_bytes",
        }
    }
}

impl From<JsonError> for TranscodeError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax => TranscodeError::InvalidJson,
            JsonError::Depth => TranscodeError::TooDeep,
            JsonError::Number => TranscodeError::NumberRange,
        }
    }
}
