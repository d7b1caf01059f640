//! What `createShardedAdapter` of `@socket.io/redis-adapter` sends.
//!
//! Every message is `{type, data, uid, nsp}`, as JSON, or as MessagePack where it holds binaries. What is written
//! here is byte for byte what Node writes; what is read may be any valid form of it.

use super::{
    DecodeError, EncodeError, Message, Request, RequestBody, Response, ResponseBody,
    event::{self, TYPE_EVENT},
    value::Value,
    write::Writer,
};
use crate::{Flags, Selection};
use protocol::socket::EventData;
use std::time::Duration;

const BROADCAST: u64 = 3;
const JOIN: u64 = 4;
const LEAVE: u64 = 5;
const DISCONNECT: u64 = 6;
const FETCH: u64 = 7;
const FETCH_RESPONSE: u64 = 8;
const SERVER_EVENT: u64 = 9;
const SERVER_EVENT_RESPONSE: u64 = 10;
const CLIENT_COUNT: u64 = 11;
const ACK: u64 = 12;

/// Writes a broadcast.
pub(crate) fn encode_broadcast(
    uid: &str,
    ns: &str,
    selection: &Selection,
    flags: Flags,
    data: &EventData,
) -> Result<Vec<u8>, EncodeError> {
    envelope(writer_for(data), BROADCAST, uid, ns, |writer| {
        write_event(writer, None, selection, flags, data, None)
    })
}

/// Writes a request. It is answered if it has an `id`.
pub(crate) fn encode_request(
    uid: &str,
    ns: &str,
    id: Option<&str>,
    body: &RequestBody,
) -> Result<Vec<u8>, EncodeError> {
    let no_flags = Flags::default();
    let writer = match body {
        RequestBody::ServerEvent { data } | RequestBody::Ask { data, .. } => writer_for(data),
        _ => Writer::json(),
    };
    let kind = match body {
        RequestBody::Join { .. } => JOIN,
        RequestBody::Leave { .. } => LEAVE,
        RequestBody::Disconnect { .. } => DISCONNECT,
        RequestBody::Fetch { .. } => FETCH,
        RequestBody::ServerEvent { .. } => SERVER_EVENT,
        RequestBody::Ask { .. } => BROADCAST,
        RequestBody::Sockets { .. } | RequestBody::Rooms => return Err(EncodeError::Unsupported),
    };
    envelope(writer, kind, uid, ns, |writer| {
        match body {
            RequestBody::Join { selection, rooms } | RequestBody::Leave { selection, rooms } => {
                writer.open_map(2);
                writer.opts_entry(selection, no_flags, None);
                writer.rooms_entry("rooms", rooms);
            }
            RequestBody::Disconnect { selection, close } => {
                writer.open_map(2);
                writer.opts_entry(selection, no_flags, None);
                writer.key("close");
                writer.bool(*close);
            }
            RequestBody::Fetch { selection } => {
                writer.open_map(1 + usize::from(id.is_some()));
                writer.opts_entry(selection, no_flags, None);
                writer.optional_entry("requestId", id);
            }
            RequestBody::ServerEvent { data } => {
                event::check_server_event(data)?;
                writer.open_map(1 + usize::from(id.is_some()));
                writer.optional_entry("requestId", id);
                writer.key("packet");
                writer.data(data)?;
            }
            RequestBody::Ask { selection, flags, data, timeout } => {
                return write_event(writer, id, selection, *flags, data, *timeout);
            }
            RequestBody::Sockets { .. } | RequestBody::Rooms => {
                return Err(EncodeError::Unsupported);
            }
        }
        writer.close_map();
        Ok(())
    })
}

/// Writes an answer.
pub(crate) fn encode_response(
    uid: &str,
    ns: &str,
    request_id: &str,
    body: &ResponseBody,
) -> Result<Vec<u8>, EncodeError> {
    let answer = match body {
        ResponseBody::ServerEvent(args) => event::first_argument(args)?,
        ResponseBody::Ack(answer) => event::first_argument(&answer.args)?,
        _ => None,
    };
    let writer = answer.as_ref().map_or_else(Writer::json, writer_for);
    let kind = match body {
        ResponseBody::Sockets(_) => FETCH_RESPONSE,
        ResponseBody::ServerEvent(_) => SERVER_EVENT_RESPONSE,
        ResponseBody::ClientCount(_) => CLIENT_COUNT,
        ResponseBody::Ack(_) => ACK,
        ResponseBody::SocketIds(_) | ResponseBody::Rooms(_) | ResponseBody::Empty => {
            return Err(EncodeError::Unsupported);
        }
    };
    let socket = match body {
        ResponseBody::Ack(answer) => answer.socket.as_deref(),
        _ => None,
    };
    let is_plain = matches!(body, ResponseBody::Sockets(_) | ResponseBody::ClientCount(_));
    let n_entries = usize::from(is_plain || answer.is_some()) + usize::from(socket.is_some());
    envelope(writer, kind, uid, ns, |writer| {
        writer.open_map(1 + n_entries);
        writer.str_entry("requestId", request_id);
        match body {
            ResponseBody::Sockets(sockets) => writer.sockets_entry(sockets)?,
            ResponseBody::ClientCount(count) => writer.uint_entry("clientCount", *count),
            _ => {}
        }
        if let Some(answer) = &answer {
            writer.key("packet");
            writer.data(answer)?;
        }
        writer.optional_entry("sid", socket);
        writer.close_map();
        Ok(())
    })
}

/// MessagePack where there are binaries, else JSON.
fn writer_for(data: &EventData) -> Writer {
    if data.attachments.is_empty() { Writer::json() } else { Writer::msgpack(data) }
}

fn envelope(
    mut writer: Writer,
    kind: u64,
    uid: &str,
    ns: &str,
    data: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Vec<u8>, EncodeError> {
    writer.open_map(4);
    writer.uint_entry("type", kind);
    writer.key("data");
    data(&mut writer)?;
    writer.str_entry("uid", uid);
    writer.str_entry("nsp", ns);
    writer.close_map();
    Ok(writer.finish())
}

fn write_event(
    writer: &mut Writer,
    id: Option<&str>,
    selection: &Selection,
    flags: Flags,
    data: &EventData,
    timeout: Option<Duration>,
) -> Result<(), EncodeError> {
    writer.open_map(2 + usize::from(id.is_some()));
    writer.key("packet");
    writer.open_map(2);
    writer.uint_entry("type", TYPE_EVENT);
    writer.key("data");
    writer.event(data)?;
    writer.close_map();
    writer.optional_entry("requestId", id);
    writer.opts_entry(selection, flags, timeout);
    writer.close_map();
    Ok(())
}

/// Reads a message of any channel of the namespace. Whether a request may come on that channel is for the caller
/// to say: on the channel of one server, Node takes only answers.
pub(crate) fn decode(payload: &[u8], uid: &str, ns: &str) -> Result<Message, DecodeError> {
    let (mut kind, mut data, mut from, mut nsp) = (None, None, None, None);
    Value::each_entry_of_message(payload, |key, value| match key {
        b"type" => kind = value.uint(),
        b"data" => data = Some(value),
        b"uid" => from = value.text(),
        b"nsp" => nsp = Some(value),
        _ => {}
    })?;
    if from.as_deref() == Some(uid) {
        return Ok(Message::Own);
    }
    // Where none is named, it is from a version that none of the present ones understands.
    if !nsp.is_some_and(|nsp| nsp.is_text(ns)) {
        return Ok(Message::Foreign);
    }
    let Some(kind @ BROADCAST..=ACK) = kind else {
        // Of the other types, adapters of other kinds send heartbeats and farewells.
        return Ok(Message::Ignored);
    };
    let data = Data::read(data.ok_or(DecodeError::Shape("message without data"))?)?;
    let from = from.map(String::from);
    if matches!(kind, FETCH_RESPONSE | SERVER_EVENT_RESPONSE | CLIENT_COUNT | ACK) {
        let (request_id, body) = data.response(kind)?;
        return Ok(Message::Response(Response { request_id, from, body }));
    }
    data.request(kind, from)
}

/// The entries that the data of a message may have.
#[derive(Default)]
struct Data<'a> {
    request_id: Option<String>,
    packet: Option<Value<'a>>,
    opts: Option<Value<'a>>,
    rooms: Option<Value<'a>>,
    close: Option<Value<'a>>,
    sockets: Option<Value<'a>>,
    client_count: Option<Value<'a>>,
    sid: Option<Value<'a>>,
}

impl<'a> Data<'a> {
    fn read(value: Value<'a>) -> Result<Self, DecodeError> {
        let mut data = Data::default();
        value.each_entry(|key, value| {
            match key {
                b"requestId" => data.request_id = value.text().map(String::from),
                b"packet" => data.packet = Some(value),
                b"opts" => data.opts = Some(value),
                b"rooms" => data.rooms = Some(value),
                b"close" => data.close = Some(value),
                b"sockets" => data.sockets = Some(value),
                b"clientCount" => data.client_count = Some(value),
                b"sid" => data.sid = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        Ok(data)
    }

    fn request(self, kind: u64, from: Option<String>) -> Result<Message, DecodeError> {
        let body = if kind == SERVER_EVENT {
            RequestBody::ServerEvent { data: event::decode_server_event(self.packet)? }
        } else {
            let opts = self.opts.ok_or(DecodeError::Shape("message without opts"))?;
            let event::Opts { selection, flags, timeout } = event::decode_opts(opts)?;
            let rooms = || match self.rooms {
                Some(rooms) => rooms.rooms_or_room(),
                None => Err(DecodeError::Shape("request without rooms")),
            };
            match kind {
                JOIN => RequestBody::Join { selection, rooms: rooms()? },
                LEAVE => RequestBody::Leave { selection, rooms: rooms()? },
                DISCONNECT => {
                    let close = self.close.and_then(Value::bool).unwrap_or(false);
                    RequestBody::Disconnect { selection, close }
                }
                FETCH => RequestBody::Fetch { selection },
                _ => {
                    let packet = self.packet.ok_or(DecodeError::Shape("message without packet"))?;
                    let data = event::decode_packet(packet)?.event()?;
                    if self.request_id.is_none() {
                        return Ok(Message::Broadcast { selection, flags, data });
                    }
                    RequestBody::Ask { selection, flags, data, timeout }
                }
            }
        };
        Ok(Message::Request(Request { from, id: self.request_id, body }))
    }

    fn response(self, kind: u64) -> Result<(String, ResponseBody), DecodeError> {
        let request_id = self.request_id.ok_or(DecodeError::Shape("response without id"))?;
        let body = match kind {
            FETCH_RESPONSE => match self.sockets {
                Some(sockets) => ResponseBody::Sockets(event::decode_sockets(sockets)?),
                None => ResponseBody::Empty,
            },
            SERVER_EVENT_RESPONSE => ResponseBody::ServerEvent(event::decode_answer(self.packet)?),
            CLIENT_COUNT => {
                let count = self.client_count.and_then(Value::uint);
                ResponseBody::ClientCount(count.ok_or(DecodeError::Shape("count expected"))?)
            }
            _ => ResponseBody::Ack(event::decode_ack(self.packet, self.sid)?),
        };
        Ok((request_id, body))
    }
}

#[cfg(test)]
mod tests;
