//! Writing a message, in either encoding.

use super::{EncodeError, event, msgpack};
use crate::{Flags, RoomName, Selection, SocketDetail};
use protocol::{
    json::{RawJson, push_quoted},
    msgpack::{TranscodeError, json_to_msgpack},
    socket::{EventData, inline_buffers},
};
use std::time::Duration;

/// A message in the making. As MessagePack says how many entries follow, so must the caller; in JSON, what was
/// opened is to be closed.
pub(super) enum Writer {
    Json(String),
    Msgpack(Vec<u8>),
}

impl Writer {
    pub(super) fn json() -> Self {
        Writer::Json(String::with_capacity(256))
    }

    /// A writer of MessagePack with room for this data.
    pub(super) fn msgpack(data: &EventData) -> Self {
        let attached: usize = data.attachments.iter().map(|attachment| attachment.len() + 5).sum();
        Writer::Msgpack(Vec::with_capacity(256 + data.json.len() + attached))
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Writer::Json(text) => text.into_bytes(),
            Writer::Msgpack(bytes) => bytes,
        }
    }

    /// The text, with a comma in place if one is needed before a further value. No value ends with what opens
    /// another.
    fn separated(text: &mut String) -> &mut String {
        if !matches!(text.as_bytes().last(), None | Some(b'[' | b'{' | b':')) {
            text.push(',');
        }
        text
    }

    pub(super) fn open_map(&mut self, len: usize) {
        match self {
            Writer::Json(text) => Self::separated(text).push('{'),
            Writer::Msgpack(bytes) => msgpack::push_map(bytes, len),
        }
    }

    pub(super) fn close_map(&mut self) {
        if let Writer::Json(text) = self {
            text.push('}');
        }
    }

    pub(super) fn open_array(&mut self, len: usize) {
        match self {
            Writer::Json(text) => Self::separated(text).push('['),
            Writer::Msgpack(bytes) => msgpack::push_array(bytes, len),
        }
    }

    pub(super) fn close_array(&mut self) {
        if let Writer::Json(text) = self {
            text.push(']');
        }
    }

    pub(super) fn key(&mut self, key: &str) {
        self.str(key);
        if let Writer::Json(text) = self {
            text.push(':');
        }
    }

    pub(super) fn str(&mut self, value: &str) {
        match self {
            Writer::Json(text) => push_quoted(Self::separated(text), value),
            Writer::Msgpack(bytes) => msgpack::push_str(bytes, value),
        }
    }

    pub(super) fn uint(&mut self, number: u64) {
        match self {
            Writer::Json(text) => Self::separated(text).push_str(&number.to_string()),
            Writer::Msgpack(bytes) => msgpack::push_uint(bytes, number),
        }
    }

    pub(super) fn bool(&mut self, value: bool) {
        match self {
            Writer::Json(text) => {
                Self::separated(text).push_str(if value { "true" } else { "false" });
            }
            Writer::Msgpack(bytes) => msgpack::push_bool(bytes, value),
        }
    }

    pub(super) fn str_entry(&mut self, key: &str, value: &str) {
        self.key(key);
        self.str(value);
    }

    pub(super) fn uint_entry(&mut self, key: &str, number: u64) {
        self.key(key);
        self.uint(number);
    }

    /// An entry that is left out if there is nothing to say.
    pub(super) fn optional_entry(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.str_entry(key, value);
        }
    }

    pub(super) fn rooms_entry(&mut self, key: &str, rooms: &[RoomName]) {
        self.key(key);
        self.open_array(rooms.len());
        for room in rooms {
            self.str(room);
        }
        self.close_array();
    }

    /// A value that is there as JSON text, its binaries apart.
    pub(super) fn data(&mut self, data: &EventData) -> Result<(), EncodeError> {
        match self {
            Writer::Json(text) => {
                RawJson::parse(&data.json).ok_or(TranscodeError::InvalidJson)?;
                push_data(text, data)
            }
            Writer::Msgpack(bytes) => Ok(json_to_msgpack(bytes, &data.json, &data.attachments)?),
        }
    }

    /// The data of an event for clients.
    pub(super) fn event(&mut self, data: &EventData) -> Result<(), EncodeError> {
        event::check_attachments(data)?;
        match self {
            Writer::Json(text) => {
                event::check_text(&data.json)?;
                push_data(text, data)
            }
            Writer::Msgpack(bytes) => {
                let start = bytes.len();
                json_to_msgpack(bytes, &data.json, &data.attachments)?;
                Ok(event::check_packed(&bytes[start..])?)
            }
        }
    }

    /// What selects sockets, without a word about flags.
    pub(super) fn selection_entry(&mut self, selection: &Selection) {
        self.key("opts");
        self.open_map(2);
        self.rooms_entry("rooms", &selection.rooms);
        self.rooms_entry("except", &selection.except);
        self.close_map();
    }

    /// What selects sockets, with flags.
    pub(super) fn opts(&mut self, selection: &Selection, flags: Flags, timeout: Option<Duration>) {
        self.open_map(3);
        self.rooms_entry("rooms", &selection.rooms);
        self.rooms_entry("except", &selection.except);
        self.key("flags");
        let n_flags = [flags.volatile, flags.compress.is_some(), timeout.is_some()];
        self.open_map(n_flags.into_iter().filter(|is_there| *is_there).count());
        if flags.volatile {
            self.key("volatile");
            self.bool(true);
        }
        if let Some(compress) = flags.compress {
            self.key("compress");
            self.bool(compress);
        }
        if let Some(timeout) = timeout {
            self.uint_entry("timeout", u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
        self.close_map();
        self.close_map();
    }

    pub(super) fn opts_entry(
        &mut self,
        selection: &Selection,
        flags: Flags,
        timeout: Option<Duration>,
    ) {
        self.key("opts");
        self.opts(selection, flags, timeout);
    }

    /// Described sockets, in the shape and order of Node.
    pub(super) fn sockets_entry(&mut self, sockets: &[SocketDetail]) -> Result<(), EncodeError> {
        self.key("sockets");
        self.open_array(sockets.len());
        for socket in sockets {
            self.open_map(4);
            self.str_entry("id", &socket.id);
            self.key("handshake");
            self.json_value(&socket.handshake)?;
            self.rooms_entry("rooms", &socket.rooms);
            self.key("data");
            self.json_value(&socket.data)?;
            self.close_map();
        }
        self.close_array();
        Ok(())
    }

    fn json_value(&mut self, json: &str) -> Result<(), EncodeError> {
        match self {
            Writer::Json(text) => {
                let value = RawJson::parse(json).ok_or(TranscodeError::InvalidJson)?;
                Self::separated(text).push_str(value.get());
                Ok(())
            }
            Writer::Msgpack(bytes) => Ok(json_to_msgpack(bytes, json, &[])?),
        }
    }
}

/// Appends data whose text has been checked. JSON has no binaries: they become what Node makes of them.
fn push_data(text: &mut String, data: &EventData) -> Result<(), EncodeError> {
    let text = Writer::separated(text);
    if data.attachments.is_empty() {
        text.push_str(&data.json);
    } else {
        let inlined = inline_buffers(&data.json, &data.attachments);
        let inlined = inlined.map_err(|_| TranscodeError::InvalidPlaceholder)?;
        // What stands for a binary is one level deeper than a placeholder.
        RawJson::parse(&inlined).ok_or(TranscodeError::TooDeep)?;
        text.push_str(&inlined);
    }
    Ok(())
}
