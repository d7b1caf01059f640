//! What `@socket.io/redis-adapter` (classic) and `@socket.io/redis-emitter` send.
//!
//! A broadcast is MessagePack, `[uid, packet{type, data, nsp}, opts{rooms, except, flags}]`. A request is JSON,
//! or MessagePack where it may hold binaries. What is written here is byte for byte what Node writes; what is
//! read may be any valid form of it, with unknown keys and missing ones as Node accepts them.

use super::msgpack::{self, Reader};
use crate::{Flags, RoomName, Selection};
use protocol::{
    msgpack::{TranscodeError, json_to_msgpack, msgpack_to_json},
    socket::{EventData, RESERVED_NAMES},
};
use serde_json::{Map, Value};
use thiserror::Error;

/// The most binaries that clients with socket.io-parser 4.2.6 and newer bear in one packet.
const ATTACHMENTS_MAX: usize = 10;
/// EVENT. Node sends this for events with binaries too, and finds the binaries again on arrival.
const TYPE_EVENT: u64 = 2;
/// BINARY_EVENT, which emitters of other languages send for events with binaries.
const TYPE_BINARY_EVENT: u64 = 5;

/// Why an event must not be published.
#[derive(Debug, Error)]
pub(crate) enum EncodeError {
    /// It is not what MessagePack can say.
    #[error(transparent)]
    Transcode(#[from] TranscodeError),
    /// Clients close their connection on more binaries than ten.
    #[error("more than {ATTACHMENTS_MAX} attachments")]
    TooManyAttachments,
    /// Not an array that begins with a name, or a name that clients close their connection on.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Why a message was not understood.
#[derive(Debug, Error)]
pub(crate) enum DecodeError {
    /// A value is broken.
    #[error(transparent)]
    Transcode(#[from] TranscodeError),
    /// A value is not what it must be here.
    #[error("{0}")]
    Shape(&'static str),
    /// Something stands behind the message.
    #[error("trailing bytes")]
    TrailingBytes,
    /// A request is no JSON.
    #[error("invalid JSON")]
    Json,
    /// The data is no event.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Why data is no event.
#[derive(Debug, Error)]
#[error("no event, or one with a reserved name")]
pub(crate) struct EventError;

/// What a message on a broadcast channel turned out to be.
#[derive(Debug)]
pub(crate) enum Broadcast {
    /// Our own message, which came back.
    Own,
    /// A message for a namespace with which this one shares a channel name.
    Foreign,
    /// In another encoding.
    Json,
    /// An event for the selected sockets.
    Event { selection: Selection, flags: Flags, data: EventData },
}

/// Writes a broadcast.
pub(crate) fn encode_broadcast(
    uid: &str,
    ns: &str,
    selection: &Selection,
    flags: Flags,
    data: &EventData,
) -> Result<Vec<u8>, EncodeError> {
    if data.attachments.len() > ATTACHMENTS_MAX {
        return Err(EncodeError::TooManyAttachments);
    }
    let attached: usize = data.attachments.iter().map(|attachment| attachment.len() + 5).sum();
    let mut out = Vec::with_capacity(128 + data.json.len() + attached);
    msgpack::push_array(&mut out, 3);
    msgpack::push_str(&mut out, uid);
    msgpack::push_map(&mut out, 3);
    msgpack::push_str(&mut out, "type");
    out.push(TYPE_EVENT as u8);
    msgpack::push_str(&mut out, "data");
    let start = out.len();
    json_to_msgpack(&mut out, &data.json, &data.attachments)?;
    check_event(&out[start..])?;
    msgpack::push_str(&mut out, "nsp");
    msgpack::push_str(&mut out, ns);
    msgpack::push_map(&mut out, 3);
    push_rooms(&mut out, "rooms", &selection.rooms);
    push_rooms(&mut out, "except", &selection.except);
    push_flags(&mut out, flags);
    Ok(out)
}

fn push_rooms(out: &mut Vec<u8>, key: &str, rooms: &[RoomName]) {
    msgpack::push_str(out, key);
    msgpack::push_array(out, rooms.len());
    for room in rooms {
        msgpack::push_str(out, room);
    }
}

fn push_flags(out: &mut Vec<u8>, flags: Flags) {
    msgpack::push_str(out, "flags");
    msgpack::push_map(out, usize::from(flags.volatile) + usize::from(flags.compress.is_some()));
    if flags.volatile {
        msgpack::push_str(out, "volatile");
        msgpack::push_bool(out, true);
    }
    if let Some(compress) = flags.compress {
        msgpack::push_str(out, "compress");
        msgpack::push_bool(out, compress);
    }
}

/// Checks that data is an array that begins with a name.
///
/// Node servers deliver anything. But clients close their connection on an event without name or with a
/// reserved one, and a node that publishes such a thing, or delivers it, does that to all of them.
fn check_event(data: &[u8]) -> Result<(), EventError> {
    let mut reader = Reader::new(data);
    let len = reader.array().map_err(|_| EventError)?;
    let name = if len == 0 { &[] } else { reader.value().map_err(|_| EventError)? };
    let is_name = match msgpack::str_bytes(name) {
        Some(name) => !RESERVED_NAMES.iter().any(|reserved| reserved.as_bytes() == name),
        None => msgpack::is_number(name),
    };
    if is_name { Ok(()) } else { Err(EventError) }
}

/// Reads a message from a broadcast channel of the namespace.
pub(crate) fn decode_broadcast(
    payload: &[u8],
    uid: &str,
    ns: &str,
) -> Result<Broadcast, DecodeError> {
    // As MessagePack these would be small numbers, which no message is.
    if matches!(payload.first(), Some(b'[' | b'{')) {
        return Ok(Broadcast::Json);
    }
    let mut reader = Reader::new(payload);
    let elements = reader.array()?;
    if elements < 3 {
        return Err(DecodeError::Shape("fewer than three elements"));
    }
    if msgpack::str_bytes(reader.value()?) == Some(uid.as_bytes()) {
        return Ok(Broadcast::Own);
    }
    let packet = decode_packet(reader.value()?)?;
    if packet.nsp.map_or(ns != "/", |nsp| msgpack::str_bytes(nsp) != Some(ns.as_bytes())) {
        return Ok(Broadcast::Foreign);
    }
    if !is_event_type(packet.kind) {
        return Err(DecodeError::Shape("not an event"));
    }
    let (selection, flags) = decode_opts(reader.value()?)?;
    for _ in 3..elements {
        reader.value()?;
    }
    if !reader.is_at_end() {
        return Err(DecodeError::TrailingBytes);
    }
    check_event(packet.data)?;
    // The size of the frame bounds the number of binaries.
    let decoded = msgpack_to_json(packet.data, usize::MAX)?;
    let data = EventData { json: decoded.json.into_boxed_str(), attachments: decoded.attachments };
    Ok(Broadcast::Event { selection, flags, data })
}

struct RawPacket<'a> {
    kind: &'a [u8],
    data: &'a [u8],
    nsp: Option<&'a [u8]>,
}

fn decode_packet(value: &[u8]) -> Result<RawPacket<'_>, DecodeError> {
    let mut packet = RawPacket { kind: &[], data: &[], nsp: None };
    each_entry(value, |key, value| {
        match key {
            b"type" => packet.kind = value,
            b"data" => packet.data = value,
            b"nsp" => packet.nsp = Some(value).filter(|nsp| !msgpack::is_nil(nsp)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(packet)
}

fn is_event_type(value: &[u8]) -> bool {
    // Read as JSON, all forms of a number look alike.
    msgpack::is_number(value)
        && msgpack_to_json(value, 0).is_ok_and(|kind| {
            kind.json.parse().is_ok_and(|kind| matches!(kind, TYPE_EVENT | TYPE_BINARY_EVENT))
        })
}

fn decode_opts(value: &[u8]) -> Result<(Selection, Flags), DecodeError> {
    let mut selection = Selection::default();
    let mut flags = Flags::default();
    each_entry(value, |key, value| {
        match key {
            b"rooms" => selection.rooms = decode_rooms(value)?,
            b"except" => selection.except = decode_rooms(value)?,
            b"flags" => flags = decode_flags(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((selection, flags))
}

/// Nil is like a missing key: no rooms.
fn decode_rooms(value: &[u8]) -> Result<Vec<RoomName>, DecodeError> {
    if msgpack::is_nil(value) {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(value);
    let mut rooms = Vec::new();
    for _ in 0..reader.array()? {
        rooms.push(decode_room(reader.value()?)?);
    }
    Ok(rooms)
}

/// On Node any value may be a room, and `123` is another one than `"123"`. Here all rooms are texts.
fn decode_room(value: &[u8]) -> Result<RoomName, DecodeError> {
    if let Some(name) = msgpack::str_bytes(value) {
        return str::from_utf8(name)
            .map(RoomName::from)
            .map_err(|_| DecodeError::Transcode(TranscodeError::InvalidUtf8));
    }
    let is_plain =
        msgpack::is_number(value) || msgpack::is_nil(value) || msgpack::bool(value).is_some();
    if !is_plain {
        return Err(DecodeError::Shape("invalid room"));
    }
    Ok(msgpack_to_json(value, 0)?.json.into())
}

/// The flag `local` is without meaning on the wire: what was published is to be delivered.
fn decode_flags(value: &[u8]) -> Result<Flags, DecodeError> {
    let mut flags = Flags::default();
    if msgpack::is_nil(value) {
        return Ok(flags);
    }
    each_entry(value, |key, value| {
        match key {
            b"volatile" => flags.volatile = msgpack::bool(value) == Some(true),
            b"compress" => flags.compress = msgpack::bool(value),
            _ => {}
        }
        Ok(())
    })?;
    Ok(flags)
}

/// Calls `each` for every entry of a map whose key is a string.
fn each_entry<'a>(
    value: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(value);
    for _ in 0..reader.map()? {
        let (key, value) = (reader.value()?, reader.value()?);
        if let Some(key) = msgpack::str_bytes(key) {
            each(key, value)?;
        }
    }
    Ok(())
}

/// What a message on the request channel asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Our own request, which came back.
    Own,
    /// The selected sockets are to join rooms.
    Join { selection: Selection, rooms: Vec<RoomName> },
    /// The selected sockets are to leave rooms.
    Leave { selection: Selection, rooms: Vec<RoomName> },
    /// The selected sockets are to be disconnected.
    Disconnect { selection: Selection, close: bool },
    /// A kind that is not served.
    Other,
}

/// Reads a message from the request channel. The first byte tells the encoding.
pub(crate) fn decode_request(payload: &[u8], uid: &str) -> Result<Request, DecodeError> {
    let request: Map<String, Value> = if payload.first() == Some(&b'{') {
        serde_json::from_slice(payload).map_err(|_| DecodeError::Json)?
    } else {
        let decoded = msgpack_to_json(payload, usize::MAX)?;
        if decoded.consumed != payload.len() {
            return Err(DecodeError::TrailingBytes);
        }
        serde_json::from_str(&decoded.json).map_err(|_| DecodeError::Json)?
    };
    if request.get("uid").and_then(Value::as_str) == Some(uid) {
        return Ok(Request::Own);
    }
    let Some(kind) = request.get("type").and_then(Value::as_u64) else {
        return Ok(Request::Other);
    };
    Ok(match kind {
        2 => Request::Join { selection: request_selection(&request)?, rooms: named(&request)? },
        3 => Request::Leave { selection: request_selection(&request)?, rooms: named(&request)? },
        4 => Request::Disconnect {
            selection: request_selection(&request)?,
            close: request.get("close").and_then(Value::as_bool).unwrap_or(false),
        },
        _ => Request::Other,
    })
}

/// The sockets that `opts` selects, or in the form of older adapters the one with the id `sid`.
fn request_selection(request: &Map<String, Value>) -> Result<Selection, DecodeError> {
    match (request.get("opts"), request.get("sid")) {
        (Some(Value::Object(opts)), _) => Ok(Selection {
            rooms: request_rooms(opts.get("rooms"))?,
            except: request_rooms(opts.get("except"))?,
        }),
        (None | Some(Value::Null), Some(Value::String(sid))) => {
            Ok(Selection { rooms: vec![sid.as_str().into()], except: Vec::new() })
        }
        _ => Err(DecodeError::Shape("request without opts or sid")),
    }
}

/// The rooms to join or leave: a list, one name, or in the form of older adapters `room`.
fn named(request: &Map<String, Value>) -> Result<Vec<RoomName>, DecodeError> {
    match (request.get("rooms"), request.get("room")) {
        (Some(Value::Array(_)), _) => request_rooms(request.get("rooms")),
        (Some(room), _) | (None, Some(room)) => Ok(vec![request_room(room)?]),
        (None, None) => Err(DecodeError::Shape("request without rooms")),
    }
}

fn request_rooms(value: Option<&Value>) -> Result<Vec<RoomName>, DecodeError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(rooms)) => rooms.iter().map(request_room).collect(),
        Some(_) => Err(DecodeError::Shape("rooms must be a list")),
    }
}

fn request_room(value: &Value) -> Result<RoomName, DecodeError> {
    match value {
        Value::String(name) => Ok(name.as_str().into()),
        Value::Null | Value::Bool(_) => Ok(value.to_string().into()),
        Value::Number(number) => {
            let text = match number.as_f64().filter(|_| number.is_f64()) {
                // JavaScript knows no difference between 1.0 and 1.
                Some(float) => float.to_string(),
                None => number.to_string(),
            };
            Ok(text.into())
        }
        Value::Array(_) | Value::Object(_) => Err(DecodeError::Shape("invalid room")),
    }
}

#[cfg(test)]
mod tests;
