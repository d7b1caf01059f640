//! What both protocols check of events and answers, and how they read what selects sockets.

use super::{
    DecodeError, EncodeError, EventError,
    msgpack::{self, Reader},
    value::Value,
};
use crate::{ClientAnswer, Flags, RoomName, Selection, SocketDetail};
use protocol::{
    msgpack::TranscodeError,
    socket::{Event, EventData, RESERVED_NAMES, parse_args, renumber},
};
use std::{borrow::Cow, time::Duration};

/// The most binaries that clients with socket.io-parser 4.2.6 and newer bear in one packet.
pub(super) const ATTACHMENTS_MAX: usize = 10;
/// EVENT. Node sends this for events with binaries too, and finds the binaries again on arrival.
pub(super) const TYPE_EVENT: u64 = 2;
/// BINARY_EVENT, which emitters of other languages send for events with binaries.
const TYPE_BINARY_EVENT: u64 = 5;

/// Names that Node servers do not send to each other, because their own handlers would take them for what the
/// library itself says; and `error`, on which a server without a handler for it ends.
const SERVER_RESERVED_NAMES: [&str; 4] = ["connect", "connection", "new_namespace", "error"];

pub(super) fn check_attachments(data: &EventData) -> Result<(), EncodeError> {
    if data.attachments.len() > ATTACHMENTS_MAX {
        return Err(EncodeError::TooManyAttachments);
    }
    Ok(())
}

/// Checks that data is an array that begins with a name.
///
/// Node servers deliver anything. But clients close their connection on an event without name or with a
/// reserved one, and a node that publishes such a thing, or delivers it, does that to all of them.
pub(super) fn check_text(json: &str) -> Result<(), EventError> {
    Event::parse(json).map(drop).map_err(|_| EventError)
}

/// The same for MessagePack, of which only the name is looked at.
pub(super) fn check_packed(data: &[u8]) -> Result<(), EventError> {
    let mut reader = Reader::new(data);
    let len = reader.array().map_err(|_| EventError)?;
    let name = if len == 0 { &[] } else { reader.value().map_err(|_| EventError)? };
    let is_name = match msgpack::str_bytes(name) {
        Some(name) => !RESERVED_NAMES.iter().any(|reserved| reserved.as_bytes() == name),
        None => msgpack::is_number(name),
    };
    if is_name { Ok(()) } else { Err(EventError) }
}

/// Checks an event that is to go to all servers: Node servers check only what they send themselves.
pub(super) fn check_server_event(data: &EventData) -> Result<(), EncodeError> {
    let args = parse_args(&data.json).map_err(|_| EventError)?;
    let name = args.first().ok_or(EventError)?;
    let is_name = match name.text() {
        Some(name) => !SERVER_RESERVED_NAMES.contains(&&*name),
        None => name.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()),
    };
    if is_name { Ok(()) } else { Err(EventError.into()) }
}

/// The first one of an answer's arguments, with the binaries it refers to: other servers take no more.
pub(super) fn first_argument(args: &EventData) -> Result<Option<EventData>, EncodeError> {
    let values = parse_args(&args.json).map_err(|_| TranscodeError::InvalidJson)?;
    Ok(values.first().map(|first| renumber(first.get(), &args.attachments)))
}

/// The data of a packet `{type, data}`, if it is an event.
pub(super) fn decode_packet(packet: Value<'_>) -> Result<Packet<'_>, DecodeError> {
    let (mut kind, mut data, mut nsp) = (None, None, None);
    packet.each_entry(|key, value| {
        match key {
            b"type" => kind = Some(value),
            b"data" => data = Some(value),
            b"nsp" => nsp = Some(value).filter(|nsp| !nsp.is_null()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Packet { kind, data, nsp })
}

/// A packet whose namespace is looked at before anything else.
pub(super) struct Packet<'a> {
    kind: Option<Value<'a>>,
    data: Option<Value<'a>>,
    nsp: Option<Value<'a>>,
}

impl Packet<'_> {
    /// Whether it is for this namespace; `/` where none is named.
    pub(super) fn is_for(&self, ns: &str) -> bool {
        self.nsp.map_or(ns == "/", |nsp| nsp.is_text(ns))
    }

    pub(super) fn event(&self) -> Result<EventData, DecodeError> {
        let kind = self.kind.and_then(Value::uint);
        if !matches!(kind, Some(TYPE_EVENT | TYPE_BINARY_EVENT)) {
            return Err(DecodeError::Shape("not an event"));
        }
        let data = self.data.ok_or(EventError)?;
        match data {
            Value::Json(json) => {
                check_text(json.get())?;
                Ok(EventData { json: json.get().into(), attachments: Vec::new() })
            }
            Value::Msgpack(bytes) => {
                check_packed(bytes)?;
                data.data()
            }
        }
    }
}

/// What selects sockets, and how they are to get it.
#[derive(Default)]
pub(super) struct Opts {
    pub(super) selection: Selection,
    pub(super) flags: Flags,
    pub(super) timeout: Option<Duration>,
}

pub(super) fn decode_opts(value: Value<'_>) -> Result<Opts, DecodeError> {
    let mut opts = Opts::default();
    value.each_entry(|key, value| {
        match key {
            b"rooms" => opts.selection.rooms = value.rooms()?,
            b"except" => opts.selection.except = value.rooms()?,
            b"flags" => (opts.flags, opts.timeout) = decode_flags(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(opts)
}

/// The flag `local` is without meaning on the wire: what was published is to be delivered.
fn decode_flags(value: Value<'_>) -> Result<(Flags, Option<Duration>), DecodeError> {
    let (mut flags, mut timeout) = (Flags::default(), None);
    if value.is_null() {
        return Ok((flags, timeout));
    }
    value.each_entry(|key, value| {
        match key {
            b"volatile" => flags.volatile = value.bool() == Some(true),
            b"compress" => flags.compress = value.bool(),
            b"timeout" => timeout = value.uint().map(Duration::from_millis),
            _ => {}
        }
        Ok(())
    })?;
    Ok((flags, timeout))
}

/// An event for all servers: an array that begins with a name. Which name is not looked at, as on Node.
pub(super) fn decode_server_event(value: Option<Value<'_>>) -> Result<EventData, DecodeError> {
    let value = value.ok_or(EventError)?;
    let is_event = value.is_array() && value.elements()?.first().is_some_and(|name| name.is_name());
    if is_event { value.data() } else { Err(EventError.into()) }
}

/// The one value of an answer as an array; none if it was left out.
pub(super) fn decode_answer(value: Option<Value<'_>>) -> Result<EventData, DecodeError> {
    let Some(value) = value.filter(|value| !value.is_undefined()) else {
        return Ok(EventData { json: "[]".into(), attachments: Vec::new() });
    };
    let EventData { json, attachments } = value.data()?;
    let json = format!("[{json}]");
    // The array around it must not make it deeper than it may be.
    parse_args(&json).map_err(|_| TranscodeError::TooDeep)?;
    Ok(EventData { json: json.into(), attachments })
}

pub(super) fn decode_ack(
    packet: Option<Value<'_>>,
    sid: Option<Value<'_>>,
) -> Result<ClientAnswer, DecodeError> {
    let socket = sid.and_then(Value::text).map(|sid| RoomName::from(&*sid));
    Ok(ClientAnswer { socket, args: decode_answer(packet)? })
}

pub(super) fn decode_sockets(value: Value<'_>) -> Result<Vec<SocketDetail>, DecodeError> {
    value.elements()?.into_iter().map(decode_socket).collect()
}

fn decode_socket(value: Value<'_>) -> Result<SocketDetail, DecodeError> {
    let mut id = None;
    // What a server leaves out, it has nothing to say about.
    let mut socket = SocketDetail {
        id: "".into(),
        rooms: Vec::new(),
        handshake: "{}".into(),
        data: "{}".into(),
    };
    value.each_entry(|key, value| {
        match key {
            b"id" => id = value.text(),
            b"rooms" => socket.rooms = value.rooms()?,
            b"handshake" => socket.handshake = value.plain_data()?,
            b"data" => socket.data = value.plain_data()?,
            _ => {}
        }
        Ok(())
    })?;
    let id: Cow<'_, str> = id.ok_or(DecodeError::Shape("socket without id"))?;
    socket.id = RoomName::from(&*id);
    Ok(socket)
}
