//! Client packets of `socket.io-msgpack-parser`: one map `{type, data, options, id, nsp}` per packet.

use std::str;

use bytes::Bytes;

use super::{
    TranscodeError,
    decode::{Cursor, Head},
    encode::{json_to_msgpack, push_str, push_u64},
};
use crate::socket::{ACK_ID_MAX, EventData, Packet, PacketError, PacketKind};

/// A packet has five keys; some more leave room for those of later versions.
const KEYS_MAX: usize = 16;

/// notepack's extension for `undefined`, up to the byte that means nothing.
const UNDEFINED: [u8; 2] = [0xd4, 0x00];

/// A client packet with its data as JSON text, ready for the same checks as one of the default parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPacket<'a> {
    /// What the packet is for; the binary kinds if it holds binaries.
    pub kind: PacketKind,
    /// The namespace.
    pub namespace: &'a str,
    /// The acknowledgement id.
    pub id: Option<u64>,
    /// The data; `json` is empty when there is none.
    pub data: EventData,
}

impl ClientPacket<'_> {
    /// The packet as the default parser would have read it.
    pub fn as_packet(&self) -> Packet<'_> {
        Packet {
            kind: self.kind,
            attachments: self.data.attachments.len(),
            namespace: self.namespace,
            id: self.id,
            data: &self.data.json,
        }
    }
}

/// Reads one packet, which must fill `bytes`.
pub fn decode_packet(
    bytes: &[u8],
    attachments_max: usize,
) -> Result<ClientPacket<'_>, TranscodeError> {
    let mut cursor = Cursor::new(bytes);
    let count = match cursor.head()? {
        Head::Map(count) if count <= KEYS_MAX => count,
        _ => return Err(TranscodeError::InvalidPacket),
    };
    let (mut kind, mut namespace, mut id, mut data) = (None, None, None, None);
    for _ in 0..count {
        let Head::Str(key) = cursor.head()? else { return Err(TranscodeError::InvalidPacket) };
        match key {
            b"type" => set(&mut kind, packet_kind(&mut cursor)?)?,
            b"nsp" => set(&mut namespace, packet_namespace(&mut cursor)?)?,
            b"id" => set(&mut id, integer(&mut cursor)?)?,
            // JavaScript's `undefined`, which notepack writes for a CONNECT without auth: no data.
            b"data" if cursor.rest().starts_with(&UNDEFINED) => {
                cursor.skip(1)?;
                set(&mut data, Default::default())?;
            }
            b"data" => set(&mut data, cursor.json(attachments_max)?)?,
            _ => cursor.skip(1)?,
        }
    }
    if !cursor.is_at_end() {
        return Err(TranscodeError::TrailingBytes);
    }
    let (Some(kind), Some(namespace)) = (kind, namespace) else {
        return Err(TranscodeError::InvalidPacket);
    };
    let (json, attachments) = data.unwrap_or_default();
    let carries_binaries = matches!(kind, PacketKind::Event | PacketKind::Ack);
    if !carries_binaries && !attachments.is_empty() {
        return Err(TranscodeError::InvalidPacket);
    }
    let kind = kind.with_attachments(attachments.len());
    let data = EventData { json: json.into(), attachments };
    let packet = ClientPacket { kind, namespace, id, data };
    packet.as_packet().check().map_err(|_: PacketError| TranscodeError::InvalidPacket)?;
    Ok(packet)
}

/// Keeps the value of a key that may come once.
fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), TranscodeError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TranscodeError::InvalidPacket),
    }
}

/// The parser has no binary kinds: binaries stand inline.
fn packet_kind(cursor: &mut Cursor<'_>) -> Result<PacketKind, TranscodeError> {
    let number = u8::try_from(integer(cursor)?).map_err(|_| TranscodeError::InvalidPacket)?;
    PacketKind::from_number(number)
        .filter(|kind| !kind.is_binary())
        .ok_or(TranscodeError::InvalidPacket)
}

fn packet_namespace<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, TranscodeError> {
    let Head::Str(name) = cursor.head()? else { return Err(TranscodeError::InvalidPacket) };
    str::from_utf8(name).map_err(|_| TranscodeError::InvalidUtf8)
}

/// Reads a whole number from 0 to the largest that JavaScript counts with, in any numeric form.
fn integer(cursor: &mut Cursor<'_>) -> Result<u64, TranscodeError> {
    let number = match cursor.head()? {
        Head::Unsigned(number) => number,
        Head::Signed(number) => u64::try_from(number).map_err(|_| TranscodeError::InvalidPacket)?,
        Head::Float(number) if number.fract() == 0.0 && number >= 0.0 => number as u64,
        _ => return Err(TranscodeError::InvalidPacket),
    };
    if number > ACK_ID_MAX { Err(TranscodeError::InvalidPacket) } else { Ok(number) }
}

/// Appends one packet. `json` may be empty for packets without data. After an error `out` is as it was before.
pub fn encode_packet(
    out: &mut Vec<u8>,
    kind: PacketKind,
    namespace: &str,
    id: Option<u64>,
    json: &str,
    attachments: &[Bytes],
) -> Result<(), TranscodeError> {
    let start = out.len();
    let count = 2 + u8::from(id.is_some()) + u8::from(!json.is_empty());
    out.push(0x80 | count);
    push_str(out, "type");
    push_u64(out, kind.with_attachments(0) as u64);
    if !json.is_empty() {
        push_str(out, "data");
        if let Err(error) = json_to_msgpack(out, json, attachments) {
            out.truncate(start);
            return Err(error);
        }
    }
    if let Some(id) = id {
        push_str(out, "id");
        push_u64(out, id);
    }
    push_str(out, "nsp");
    push_str(out, namespace);
    Ok(())
}
