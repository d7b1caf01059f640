//! The values of a received message, in either encoding.

use super::{
    DecodeError,
    msgpack::{self, Reader},
};
use crate::RoomName;
use protocol::{
    json::{NoParts, RawJson},
    msgpack::{TranscodeError, json_to_msgpack, msgpack_to_json},
    socket::{EventData, inline_buffers},
};
use std::borrow::Cow;

/// One value. The text is checked JSON; the bytes are exactly one MessagePack value, checked as far as
/// [`value_len`](protocol::msgpack::value_len) does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Json(RawJson<'a>),
    Msgpack(&'a [u8]),
}

/// Whether a message that is an object is JSON.
pub(super) fn is_json(payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
}

impl From<NoParts> for DecodeError {
    fn from(_: NoParts) -> Self {
        DecodeError::Shape("array or object expected")
    }
}

impl<'a> Value<'a> {
    /// Calls `each` for every entry of a message that is an object. Its first byte tells the encoding. What `each`
    /// was called for counts for nothing if the message is broken behind it.
    pub(super) fn each_entry_of_message(
        payload: &'a [u8],
        mut each: impl FnMut(&[u8], Value<'a>),
    ) -> Result<(), DecodeError> {
        if is_json(payload) {
            let text = str::from_utf8(payload).map_err(|_| DecodeError::Json)?;
            let each = |key: &str, value| each(key.as_bytes(), Value::Json(value));
            return RawJson::read_message(text, each).map_err(|_| DecodeError::Json);
        }
        let mut reader = Reader::new(payload);
        for _ in 0..reader.map()? {
            let (key, value) = (reader.value()?, reader.value()?);
            if let Some(key) = msgpack::str_bytes(key) {
                each(key, Value::Msgpack(value));
            }
        }
        if reader.is_at_end() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    /// Reads a message that is JSON.
    pub(super) fn json(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let text = str::from_utf8(payload).map_err(|_| DecodeError::Json)?;
        RawJson::parse_message(text).map(Value::Json).ok_or(DecodeError::Json)
    }

    /// Calls `each` for every entry of an object whose key is a string.
    pub(super) fn each_entry(
        self,
        mut each: impl FnMut(&[u8], Value<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        match self {
            Value::Json(json) => {
                json.each_member(|key, value| each(key.as_bytes(), Value::Json(value)))
            }
            Value::Msgpack(bytes) => {
                let mut reader = Reader::new(bytes);
                for _ in 0..reader.map()? {
                    let (key, value) = (reader.value()?, reader.value()?);
                    if let Some(key) = msgpack::str_bytes(key) {
                        each(key, Value::Msgpack(value))?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The elements of an array.
    pub(super) fn elements(self) -> Result<Vec<Value<'a>>, DecodeError> {
        match self {
            Value::Json(json) => Ok(json.elements()?.iter().copied().map(Value::Json).collect()),
            Value::Msgpack(bytes) => {
                let mut reader = Reader::new(bytes);
                let mut elements = Vec::new();
                for _ in 0..reader.array()? {
                    elements.push(Value::Msgpack(reader.value()?));
                }
                Ok(elements)
            }
        }
    }

    pub(super) fn is_array(self) -> bool {
        match self {
            Value::Json(json) => json.get().starts_with('['),
            Value::Msgpack(bytes) => Reader::new(bytes).array().is_ok(),
        }
    }

    /// Null, or what older versions of notepack write for `undefined`.
    pub(super) fn is_null(self) -> bool {
        match self {
            Value::Json(json) => json.get() == "null",
            Value::Msgpack(bytes) => matches!(bytes, [0xc0] | [0xd4, 0, _]),
        }
    }

    /// What older versions of notepack write for `undefined`, which newer ones and JSON leave out.
    pub(super) fn is_undefined(self) -> bool {
        matches!(self, Value::Msgpack([0xd4, 0, _]))
    }

    pub(super) fn bool(self) -> Option<bool> {
        match self {
            Value::Json(json) => json.get().parse().ok(),
            Value::Msgpack(bytes) => msgpack::bool(bytes),
        }
    }

    /// The text of a string that is UTF-8; nothing for any other value.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Value::Json(json) => json.text(),
            Value::Msgpack(bytes) => {
                str::from_utf8(msgpack::str_bytes(bytes)?).ok().map(Cow::Borrowed)
            }
        }
    }

    pub(super) fn is_text(self, text: &str) -> bool {
        match self {
            Value::Json(_) => self.text().is_some_and(|own| own == text),
            Value::Msgpack(bytes) => msgpack::str_bytes(bytes) == Some(text.as_bytes()),
        }
    }

    fn is_number(self) -> bool {
        match self {
            Value::Json(json) => {
                matches!(json.get().as_bytes().first(), Some(b'-' | b'0'..=b'9'))
            }
            Value::Msgpack(bytes) => msgpack::is_number(bytes),
        }
    }

    /// A string or a number, which are what events may be named by.
    pub(super) fn is_name(self) -> bool {
        self.text().is_some() || self.is_number()
    }

    /// A whole number that is not negative, in any form.
    pub(super) fn uint(self) -> Option<u64> {
        if let Value::Msgpack([number @ 0..0x80]) = self {
            return Some((*number).into());
        }
        if !self.is_number() {
            return None;
        }
        self.number().ok()?.parse().ok()
    }

    /// A number as JavaScript prints it: it knows no difference between `1.0` and `1`.
    fn number(self) -> Result<String, TranscodeError> {
        match self {
            Value::Json(json) => {
                let mut packed = Vec::new();
                json_to_msgpack(&mut packed, json.get(), &[])?;
                Ok(msgpack_to_json(&packed, 0)?.json)
            }
            Value::Msgpack(bytes) => Ok(msgpack_to_json(bytes, 0)?.json),
        }
    }

    /// The value as JSON text with its binaries apart, no deeper than an event may be.
    pub(super) fn data(self) -> Result<EventData, DecodeError> {
        match self {
            Value::Json(json) => match RawJson::parse(json.get()) {
                Some(_) => Ok(EventData { json: json.get().into(), attachments: Vec::new() }),
                None => Err(TranscodeError::TooDeep.into()),
            },
            Value::Msgpack(bytes) => {
                // The size of the frame bounds the number of binaries.
                let decoded = msgpack_to_json(bytes, usize::MAX)?;
                Ok(EventData {
                    json: decoded.json.into_boxed_str(),
                    attachments: decoded.attachments,
                })
            }
        }
    }

    /// The value as JSON text alone, its binaries as Node writes them into JSON.
    pub(super) fn plain_data(self) -> Result<Box<str>, DecodeError> {
        let data = self.data()?;
        if data.attachments.is_empty() {
            return Ok(data.json);
        }
        let text = inline_buffers(&data.json, &data.attachments);
        let text = text.map_err(|_| TranscodeError::InvalidPlaceholder)?;
        // What stands for a binary is one level deeper than a placeholder.
        RawJson::parse(&text).ok_or(TranscodeError::TooDeep)?;
        Ok(text.into())
    }

    /// On Node any value may be a room, and `123` is another one than `"123"`. Here all rooms are texts.
    fn room(self) -> Result<RoomName, DecodeError> {
        if let Some(name) = self.text() {
            return Ok(RoomName::from(&*name));
        }
        if self.is_number() {
            return Ok(self.number()?.into());
        }
        match self.bool() {
            Some(bool) => Ok(bool.to_string().into()),
            None if self.is_null() => Ok("null".into()),
            None => Err(DecodeError::Shape("invalid room")),
        }
    }

    /// A list of rooms. Null is like a missing key: none.
    pub(super) fn rooms(self) -> Result<Vec<RoomName>, DecodeError> {
        if self.is_null() {
            return Ok(Vec::new());
        }
        self.elements()?.into_iter().map(Value::room).collect()
    }

    /// A list of rooms, or the name of one.
    pub(super) fn rooms_or_room(self) -> Result<Vec<RoomName>, DecodeError> {
        if self.is_array() { self.rooms() } else { Ok(vec![self.room()?]) }
    }
}
