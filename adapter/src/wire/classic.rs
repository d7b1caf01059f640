//! What `@socket.io/redis-adapter` (classic) and `@socket.io/redis-emitter` send.
//!
//! A broadcast is MessagePack, `[uid, packet{type, data, nsp}, opts{rooms, except, flags}]`, or what the setting
//! `parser` makes of that. Requests and answers are JSON, apart from those that may hold binaries. What is written
//! here is byte for byte what Node writes, with two extra keys in answers: `uid` of who answers, and `sid` of the
//! socket that acknowledges. Node ignores them. What is read may be any valid form, with unknown keys and missing
//! ones as Node accepts them.

use super::{
    DecodeError, EncodeError, Message, Request, RequestBody, Response, ResponseBody,
    event::{self, TYPE_EVENT},
    msgpack::{self, Reader},
    value::{self, Value},
    write::Writer,
};
use crate::{ClusterParser, Flags, RoomName, Selection};
use protocol::socket::EventData;

const SOCKETS: u64 = 0;
const ALL_ROOMS: u64 = 1;
const JOIN: u64 = 2;
const LEAVE: u64 = 3;
const DISCONNECT: u64 = 4;
const FETCH: u64 = 5;
/// A server-side event, and the answer to one.
const SERVER_EVENT: u64 = 6;
const BROADCAST: u64 = 7;
const CLIENT_COUNT: u64 = 8;
const ACK: u64 = 9;

/// Writes a broadcast.
pub(crate) fn encode_broadcast(
    parser: ClusterParser,
    uid: &str,
    ns: &str,
    selection: &Selection,
    flags: Flags,
    data: &EventData,
) -> Result<Vec<u8>, EncodeError> {
    let mut writer = writer_for(parser, data);
    writer.open_array(3);
    writer.str(uid);
    write_packet(&mut writer, ns, data)?;
    writer.opts(selection, flags, None);
    writer.close_array();
    Ok(writer.finish())
}

/// Writes a request. It is answered if it has an `id`.
pub(crate) fn encode_request(
    parser: ClusterParser,
    uid: &str,
    ns: &str,
    id: Option<&str>,
    body: &RequestBody,
) -> Result<Vec<u8>, EncodeError> {
    let (kind, n_entries) = match body {
        RequestBody::Sockets { .. } => (SOCKETS, 1),
        RequestBody::Rooms => (ALL_ROOMS, 0),
        RequestBody::Join { .. } => (JOIN, 2),
        RequestBody::Leave { .. } => (LEAVE, 2),
        RequestBody::Disconnect { .. } => (DISCONNECT, 2),
        RequestBody::Fetch { .. } => (FETCH, 1),
        RequestBody::ServerEvent { .. } => (SERVER_EVENT, 1),
        RequestBody::Ask { .. } => (BROADCAST, 2),
    };
    let mut writer = match body {
        RequestBody::Ask { data, .. } => writer_for(parser, data),
        _ => Writer::json(),
    };
    writer.open_map(2 + usize::from(id.is_some()) + n_entries);
    writer.str_entry("uid", uid);
    writer.optional_entry("requestId", id);
    writer.uint_entry("type", kind);
    match body {
        RequestBody::Sockets { rooms } => writer.rooms_entry("rooms", rooms),
        RequestBody::Rooms => {}
        RequestBody::Join { selection, rooms } | RequestBody::Leave { selection, rooms } => {
            writer.selection_entry(selection);
            writer.rooms_entry("rooms", rooms);
        }
        RequestBody::Disconnect { selection, close } => {
            writer.selection_entry(selection);
            writer.key("close");
            writer.bool(*close);
        }
        RequestBody::Fetch { selection } => writer.selection_entry(selection),
        RequestBody::ServerEvent { data } => {
            event::check_server_event(data)?;
            writer.key("data");
            writer.data(data)?;
        }
        RequestBody::Ask { selection, flags, data, timeout } => {
            writer.key("packet");
            write_packet(&mut writer, ns, data)?;
            writer.opts_entry(selection, *flags, *timeout);
        }
    }
    writer.close_map();
    Ok(writer.finish())
}

/// Writes an answer.
pub(crate) fn encode_response(
    parser: ClusterParser,
    uid: &str,
    request_id: &str,
    body: &ResponseBody,
) -> Result<Vec<u8>, EncodeError> {
    let answer = match body {
        ResponseBody::ServerEvent(args) => event::first_argument(args)?,
        ResponseBody::Ack(answer) => event::first_argument(&answer.args)?,
        _ => None,
    };
    let mut writer = match body {
        ResponseBody::Ack(_) => {
            writer_for(parser, answer.as_ref().unwrap_or(&EventData::default()))
        }
        _ => Writer::json(),
    };
    let kind = match body {
        ResponseBody::ServerEvent(_) => Some(SERVER_EVENT),
        ResponseBody::ClientCount(_) => Some(CLIENT_COUNT),
        ResponseBody::Ack(_) => Some(ACK),
        _ => None,
    };
    let socket = match body {
        ResponseBody::Ack(answer) => answer.socket.as_deref(),
        _ => None,
    };
    let has_value = match body {
        ResponseBody::ServerEvent(_) | ResponseBody::Ack(_) => answer.is_some(),
        ResponseBody::Empty => false,
        _ => true,
    };
    let optional = [kind.is_some(), has_value, socket.is_some()];
    writer.open_map(2 + optional.into_iter().filter(|is_there| *is_there).count());
    if let Some(kind) = kind {
        writer.uint_entry("type", kind);
    }
    writer.str_entry("requestId", request_id);
    match body {
        ResponseBody::Sockets(sockets) => writer.sockets_entry(sockets)?,
        ResponseBody::SocketIds(ids) => writer.rooms_entry("sockets", ids),
        ResponseBody::Rooms(rooms) => writer.rooms_entry("rooms", rooms),
        ResponseBody::ClientCount(count) => writer.uint_entry("clientCount", *count),
        ResponseBody::ServerEvent(_) | ResponseBody::Ack(_) | ResponseBody::Empty => {}
    }
    if let Some(answer) = &answer {
        writer.key(if matches!(body, ResponseBody::Ack(_)) { "packet" } else { "data" });
        writer.data(answer)?;
    }
    writer.optional_entry("sid", socket);
    writer.str_entry("uid", uid);
    writer.close_map();
    Ok(writer.finish())
}

fn writer_for(parser: ClusterParser, data: &EventData) -> Writer {
    match parser {
        ClusterParser::MessagePack => Writer::msgpack(data),
        ClusterParser::Json => Writer::json(),
    }
}

fn write_packet(writer: &mut Writer, ns: &str, data: &EventData) -> Result<(), EncodeError> {
    writer.open_map(3);
    writer.uint_entry("type", TYPE_EVENT);
    writer.key("data");
    writer.event(data)?;
    writer.str_entry("nsp", ns);
    writer.close_map();
    Ok(())
}

/// Reads a message from a broadcast channel of the namespace. In another encoding than that of the setting it
/// means nothing, as on Node, where it does harm.
pub(crate) fn decode_broadcast(
    parser: ClusterParser,
    payload: &[u8],
    uid: &str,
    ns: &str,
) -> Result<Message, DecodeError> {
    // As MessagePack these would be small numbers, which no message is.
    let is_json = matches!(payload.first(), Some(b'[' | b'{'));
    let parts = match (parser, is_json) {
        (ClusterParser::MessagePack, false) => unpack_broadcast(payload, uid)?,
        (ClusterParser::Json, true) => read_broadcast(payload, uid)?,
        (ClusterParser::MessagePack, true) => return Ok(Message::Ignored),
        // What is broken looks like MessagePack.
        (ClusterParser::Json, false) => {
            return unpack_broadcast(payload, uid).map(|_| Message::Ignored);
        }
    };
    let Some([packet, opts]) = parts else { return Ok(Message::Own) };
    let packet = event::decode_packet(packet)?;
    if !packet.is_for(ns) {
        return Ok(Message::Foreign);
    }
    let event::Opts { selection, flags, .. } = event::decode_opts(opts)?;
    Ok(Message::Broadcast { selection, flags, data: packet.event()? })
}

/// Packet and options of a broadcast; nothing if it is our own, of which no more is read.
fn unpack_broadcast<'a>(
    payload: &'a [u8],
    uid: &str,
) -> Result<Option<[Value<'a>; 2]>, DecodeError> {
    let mut reader = Reader::new(payload);
    let elements = reader.array()?;
    if elements < 3 {
        return Err(TOO_SHORT);
    }
    if msgpack::str_bytes(reader.value()?) == Some(uid.as_bytes()) {
        return Ok(None);
    }
    let parts = [Value::Msgpack(reader.value()?), Value::Msgpack(reader.value()?)];
    for _ in 3..elements {
        reader.value()?;
    }
    if reader.is_at_end() { Ok(Some(parts)) } else { Err(DecodeError::TrailingBytes) }
}

fn read_broadcast<'a>(payload: &'a [u8], uid: &str) -> Result<Option<[Value<'a>; 2]>, DecodeError> {
    match Value::json(payload)?.elements()?.as_slice() {
        [from, _, _, ..] if from.is_text(uid) => Ok(None),
        [_, packet, opts, ..] => Ok(Some([*packet, *opts])),
        _ => Err(TOO_SHORT),
    }
}

const TOO_SHORT: DecodeError = DecodeError::Shape("fewer than three elements");

/// Whether a message of the request or a response channel can be read: what begins with `{` is JSON, and everything
/// else is for the parser.
fn is_readable(parser: ClusterParser, payload: &[u8]) -> bool {
    value::is_json(payload) || parser == ClusterParser::MessagePack
}

/// Reads a message from the request channel of the namespace.
pub(crate) fn decode_request(
    parser: ClusterParser,
    payload: &[u8],
    uid: &str,
    ns: &str,
) -> Result<Message, DecodeError> {
    let entries = RequestEntries::read(payload)?;
    if !is_readable(parser, payload) {
        return Ok(Message::Ignored);
    }
    if entries.from.as_deref() == Some(uid) {
        return Ok(Message::Own);
    }
    let body = match entries.kind {
        Some(SOCKETS) => RequestBody::Sockets { rooms: entries.rooms()? },
        Some(ALL_ROOMS) => RequestBody::Rooms,
        Some(JOIN) => {
            RequestBody::Join { selection: entries.selection()?, rooms: entries.named()? }
        }
        Some(LEAVE) => {
            RequestBody::Leave { selection: entries.selection()?, rooms: entries.named()? }
        }
        Some(DISCONNECT) => {
            let close = entries.close.and_then(Value::bool).unwrap_or(false);
            RequestBody::Disconnect { selection: entries.selection()?, close }
        }
        Some(FETCH) => RequestBody::Fetch { selection: entries.selection()? },
        Some(SERVER_EVENT) => {
            RequestBody::ServerEvent { data: event::decode_server_event(entries.data)? }
        }
        Some(BROADCAST) => {
            let packet = entries.packet.ok_or(DecodeError::Shape("request without packet"))?;
            let packet = event::decode_packet(packet)?;
            if !packet.is_for(ns) {
                return Ok(Message::Foreign);
            }
            let opts = entries.opts.ok_or(DecodeError::Shape("request without opts"))?;
            let event::Opts { selection, flags, timeout } = event::decode_opts(opts)?;
            RequestBody::Ask { selection, flags, data: packet.event()?, timeout }
        }
        _ => return Ok(Message::Ignored),
    };
    Ok(Message::Request(Request { from: entries.from, id: entries.request_id, body }))
}

/// The entries that a request may have.
#[derive(Default)]
struct RequestEntries<'a> {
    from: Option<String>,
    request_id: Option<String>,
    kind: Option<u64>,
    opts: Option<Value<'a>>,
    rooms: Option<Value<'a>>,
    /// With `room`: the form of older adapters, for one socket and one room.
    sid: Option<Value<'a>>,
    room: Option<Value<'a>>,
    close: Option<Value<'a>>,
    data: Option<Value<'a>>,
    packet: Option<Value<'a>>,
}

impl<'a> RequestEntries<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut entries = RequestEntries::default();
        Value::each_entry_of_message(payload, |key, value| match key {
            b"uid" => entries.from = value.text().map(String::from),
            b"requestId" => entries.request_id = value.text().map(String::from),
            b"type" => entries.kind = value.uint(),
            b"opts" => entries.opts = Some(value).filter(|opts| !opts.is_null()),
            b"rooms" => entries.rooms = Some(value),
            b"sid" => entries.sid = Some(value),
            b"room" => entries.room = Some(value),
            b"close" => entries.close = Some(value),
            b"data" => entries.data = Some(value),
            b"packet" => entries.packet = Some(value),
            _ => {}
        })?;
        Ok(entries)
    }

    /// The sockets that `opts` selects, or the one with the id `sid`. What could select more than was meant is
    /// worse than no request.
    fn selection(&self) -> Result<Selection, DecodeError> {
        match (self.opts, self.sid.and_then(Value::text)) {
            (Some(opts), _) => Ok(event::decode_opts(opts)?.selection),
            (None, Some(sid)) => {
                Ok(Selection { rooms: vec![RoomName::from(&*sid)], except: Vec::new() })
            }
            (None, None) => Err(DecodeError::Shape("request without opts or sid")),
        }
    }

    /// The rooms to join or leave: a list, one name, or `room`.
    fn named(&self) -> Result<Vec<RoomName>, DecodeError> {
        let rooms = self.rooms.or(self.room);
        rooms.ok_or(DecodeError::Shape("request without rooms"))?.rooms_or_room()
    }

    fn rooms(&self) -> Result<Vec<RoomName>, DecodeError> {
        self.rooms.map_or_else(|| Ok(Vec::new()), Value::rooms)
    }
}

/// Reads a message from a response channel.
pub(crate) fn decode_response(
    parser: ClusterParser,
    payload: &[u8],
    uid: &str,
) -> Result<Message, DecodeError> {
    let (mut from, mut request_id, mut kind) = (None, None, None);
    let (mut sockets, mut rooms, mut data) = (None, None, None);
    let (mut count, mut packet, mut sid) = (None, None, None);
    Value::each_entry_of_message(payload, |key, value| match key {
        b"uid" => from = value.text().map(String::from),
        b"requestId" => request_id = value.text().map(String::from),
        b"type" => kind = value.uint(),
        b"sockets" => sockets = Some(value),
        b"rooms" => rooms = Some(value),
        b"data" => data = Some(value),
        b"clientCount" => count = value.uint(),
        b"packet" => packet = Some(value),
        b"sid" => sid = Some(value),
        _ => {}
    })?;
    if !is_readable(parser, payload) {
        return Ok(Message::Ignored);
    }
    if from.as_deref() == Some(uid) {
        return Ok(Message::Own);
    }
    let request_id = request_id.ok_or(DecodeError::Shape("response without id"))?;
    let body = match (kind, sockets, rooms) {
        (Some(SERVER_EVENT), ..) => ResponseBody::ServerEvent(event::decode_answer(data)?),
        (Some(CLIENT_COUNT), ..) => {
            ResponseBody::ClientCount(count.ok_or(DecodeError::Shape("count expected"))?)
        }
        (Some(ACK), ..) => ResponseBody::Ack(event::decode_ack(packet, sid)?),
        (_, Some(sockets), _) if sockets.is_array() => decode_sockets(sockets)?,
        (_, _, Some(rooms)) if rooms.is_array() => ResponseBody::Rooms(rooms.rooms()?),
        _ => ResponseBody::Empty,
    };
    Ok(Message::Response(Response { request_id, from, body }))
}

/// What they are tells what was asked for.
fn decode_sockets(sockets: Value<'_>) -> Result<ResponseBody, DecodeError> {
    let is_id = |socket: &Value<'_>| socket.text().is_some();
    if sockets.elements()?.first().is_some_and(is_id) {
        Ok(ResponseBody::SocketIds(sockets.rooms()?))
    } else {
        Ok(ResponseBody::Sockets(event::decode_sockets(sockets)?))
    }
}

#[cfg(test)]
mod tests;
