//! Engine.IO v4: packets, and the payloads that carry them over HTTP polling.

use std::{fmt::Write, time::Duration};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Separates the packets of a polling payload.
pub const RECORD_SEPARATOR: char = '\u{1e}';

/// Browsers pad their base64 and some clients do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One Engine.IO packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: the handshake, JSON of an [`OpenPacket`].
    Open(&'a str),
    /// `1`: the sender closes the session.
    Close,
    /// `2`: asks for a pong with the same text.
    Ping(&'a str),
    /// `3`: answers a ping.
    Pong(&'a str),
    /// `4`: text for the layer above.
    Message(&'a str),
    /// `5`: the client moves to the transport on which it sent this.
    Upgrade,
    /// `6`: nothing; ends a poll that waits.
    Noop,
    /// `b` in a payload, or a binary WebSocket message: bytes for the layer above.
    Binary(Bytes),
}

impl<'a> Packet<'a> {
    /// Reads one text packet as it comes in a WebSocket text message.
    ///
    /// Base64 binaries are refused: a WebSocket has binary messages for them.
    pub fn parse_text(text: &'a str) -> Result<Self, EngineError> {
        let Some(kind) = text.as_bytes().first() else { return Err(EngineError::Empty) };
        match kind {
            b'4' => Ok(Packet::Message(&text[1..])),
            b'3' => Ok(Packet::Pong(&text[1..])),
            b'2' => Ok(Packet::Ping(&text[1..])),
            b'0' => Ok(Packet::Open(&text[1..])),
            b'1' | b'5' | b'6' if text.len() > 1 => Err(EngineError::UnexpectedData),
            b'1' => Ok(Packet::Close),
            b'5' => Ok(Packet::Upgrade),
            b'6' => Ok(Packet::Noop),
            b'b' => Err(EngineError::UnexpectedBinary),
            _ => Err(EngineError::UnknownType),
        }
    }

    /// Reads one packet of a polling payload, where binaries are base64 after a `b`.
    pub fn parse_record(record: &'a str) -> Result<Self, EngineError> {
        match record.strip_prefix('b') {
            Some(text) => BASE64
                .decode(text)
                .map(|data| Packet::Binary(data.into()))
                .map_err(|_| EngineError::InvalidBase64),
            None => Packet::parse_text(record),
        }
    }

    /// Appends the packet in its text form, binaries as base64.
    pub fn encode(&self, out: &mut String) {
        match self {
            Packet::Open(data) => tagged(out, '0', data),
            Packet::Close => out.push('1'),
            Packet::Ping(data) => tagged(out, '2', data),
            Packet::Pong(data) => tagged(out, '3', data),
            Packet::Message(data) => tagged(out, '4', data),
            Packet::Upgrade => out.push('5'),
            Packet::Noop => out.push('6'),
            Packet::Binary(data) => {
                out.push('b');
                STANDARD.encode_string(data, out);
            }
        }
    }
}

/// Appends a packet to a payload, with the separator if it is not the first one.
pub fn push_record(payload: &mut String, packet: &Packet<'_>) {
    if !payload.is_empty() {
        payload.push(RECORD_SEPARATOR);
    }
    packet.encode(payload);
}

/// Splits the body of a polling request into packets.
///
/// Packets that carry no message are checked to be at most `idle_max` before any is decoded: a client needs one
/// of them at a time, while it may well have collected thousands of messages, which their size bounds. As on Node, packets before an invalid one come out
/// before the error does; the iterator ends after the first error.
pub fn payload_packets(body: &str, idle_max: usize) -> Result<Payload<'_>, EngineError> {
    if body.is_empty() {
        return Err(EngineError::Empty);
    }
    let bytes = body.as_bytes();
    let starts = memchr::memchr_iter(RECORD_SEPARATOR as u8, bytes).map(|separator| separator + 1);
    let is_idle = |start: &usize| !matches!(bytes.get(*start), Some(b'4' | b'b'));
    // No more than this many are looked for: the body may hold a million of them.
    if std::iter::once(0).chain(starts).filter(is_idle).take(idle_max + 1).count() > idle_max {
        return Err(EngineError::TooManyPackets);
    }
    Ok(Payload { rest: Some(body) })
}

/// The packets of one payload; see [`payload_packets`].
#[derive(Clone, Debug)]
pub struct Payload<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Payload<'a> {
    type Item = Result<Packet<'a>, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let record = match memchr::memchr(RECORD_SEPARATOR as u8, rest.as_bytes()) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                &rest[..end]
            }
            None => rest,
        };
        let packet = Packet::parse_record(record);
        if packet.is_err() {
            self.rest = None;
        }
        Some(packet)
    }
}

fn tagged(out: &mut String, kind: char, data: &str) {
    out.reserve(data.len() + 1);
    out.push(kind);
    out.push_str(data);
}

/// What the server tells a client about its session. It has no `Debug`, because `sid` is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenPacket<'a> {
    /// The session id.
    pub sid: &'a str,
    /// Transports the client may move to.
    #[serde(borrow)]
    pub upgrades: Vec<&'a str>,
    /// Time between two pings.
    #[serde(serialize_with = "to_millis", deserialize_with = "from_millis")]
    pub ping_interval: Duration,
    /// Time the client has for its pong.
    #[serde(serialize_with = "to_millis", deserialize_with = "from_millis")]
    pub ping_timeout: Duration,
    /// Largest polling body or WebSocket message in bytes.
    pub max_payload: u64,
}

impl<'a> OpenPacket<'a> {
    /// The JSON text, keys in the order in which Node writes them.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(128);
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let upgrades: Vec<String> = self.upgrades.iter().map(|name| quoted(name)).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{{"sid":{},"upgrades":[{}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
            quoted(self.sid),
            upgrades.join(","),
            self.ping_interval.as_millis(),
            self.ping_timeout.as_millis(),
            self.max_payload,
        );
        json
    }

    /// Reads the JSON text of an open packet, as a client does.
    pub fn parse(json: &'a str) -> Result<Self, EngineError> {
        serde_json::from_str(json).map_err(|_| EngineError::InvalidOpen)
    }
}

fn to_millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn from_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// Why an Engine.IO packet or payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A packet without even a type, or a payload without packets.
    #[error("empty packet")]
    Empty,
    /// The first character names no packet type.
    #[error("unknown packet type")]
    UnknownType,
    /// Text after a type that carries none.
    #[error("data after a packet type without data")]
    UnexpectedData,
    /// A base64 binary outside of a polling payload.
    #[error("base64 binary in a text message")]
    UnexpectedBinary,
    /// A binary that is no base64.
    #[error("invalid base64")]
    InvalidBase64,
    /// More packets in one payload than allowed.
    #[error("too many packets in a payload")]
    TooManyPackets,
    /// An open packet that is no JSON of the known form.
    #[error("invalid open packet")]
    InvalidOpen,
}

impl EngineError {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            EngineError::Empty => "empty",
            EngineError::UnknownType => "unknown_type",
            EngineError::UnexpectedData => "unexpected_data",
            EngineError::UnexpectedBinary => "unexpected_binary",
            EngineError::InvalidBase64 => "invalid_base64",
            EngineError::TooManyPackets => "too_many_packets",
            EngineError::InvalidOpen => "invalid_open",
        }
    }
}
