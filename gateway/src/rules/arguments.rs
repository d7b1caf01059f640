//! References to what a client sent: `$0`, `$1.room`, `$auth.name`, `$id`.

use super::{Context, Refusal, RefusalCode, RoomName};
use bytes::Bytes;
use protocol::socket::Event;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The longest room name taken from a client, in bytes.
const ROOM_NAME_BYTES_MAX: usize = 200;
/// The largest integer that JavaScript holds exactly; larger ones would name different rooms on
/// different servers.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// What references are resolved against.
pub(super) struct Source<'a> {
    pub event: Option<&'a Event<'a>>,
    pub attachments: &'a [Bytes],
    pub context: &'a Context<'a>,
}

/// One reference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Reference {
    /// `$id`.
    Id,
    /// `$auth`, `$auth.name`.
    Auth(Box<[Box<str>]>),
    /// `$0`, `$1.room`.
    Argument(usize, Box<[Box<str>]>),
}

/// What a reference found.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Value(&'a RawValue),
    /// The socket's own id, which needs no escaping.
    Id(&'a str),
    /// Nothing is there, or `null` on the way to it.
    Missing,
}

impl Reference {
    /// Reads `$0.a.b` and the like; `text` begins with a `$` that is not escaped.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "`{text}` is no reference: there are `$0`, `$0.key`, `$*`, `$auth`, `$auth.key` and `$id` (`$$` writes a dollar sign)"
            )
        };
        let mut parts = text.strip_prefix('$').ok_or_else(unknown)?.split('.');
        let head = parts.next().unwrap_or_default();
        let path: Box<[Box<str>]> = parts.map(Box::from).collect();
        if path.iter().any(|part| part.is_empty()) {
            return Err(unknown());
        }
        match head {
            "id" if path.is_empty() => Ok(Self::Id),
            "auth" => Ok(Self::Auth(path)),
            _ if !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self::Argument(head.parse().map_err(|_| unknown())?, path))
            }
            _ => Err(unknown()),
        }
    }

    /// Follows the reference.
    pub(super) fn find<'a>(&self, source: &Source<'a>) -> Result<Found<'a>, Refusal> {
        let (mut value, path) = match self {
            Self::Id => return Ok(Found::Id(source.context.socket_id)),
            Self::Auth(path) => match source.context.auth {
                Some(auth) => (auth, path),
                None => return Ok(Found::Missing),
            },
            Self::Argument(index, path) => {
                match source.event.and_then(|event| event.args.get(*index)) {
                    Some(value) => (*value, path),
                    None => return Ok(Found::Missing),
                }
            }
        };
        for key in path {
            value = match child(value, key) {
                Ok(Some(value)) => value,
                Ok(None) => return Ok(Found::Missing),
                Err(()) => return Err(self.bad("is not an object")),
            };
        }
        Ok(Found::Value(value))
    }

    /// Follows the reference to a room name.
    pub(super) fn room(&self, source: &Source<'_>) -> Result<Option<RoomName>, Refusal> {
        let value = match self.find(source)? {
            Found::Id(id) => return Ok(Some(RoomName::from(id))),
            Found::Missing => return Ok(None),
            Found::Value(value) if value.get() == "null" => return Ok(None),
            Found::Value(value) => value,
        };
        let name = room_text(value).ok_or_else(|| self.bad("is not a string"))?;
        check_room(&name).map_err(|wrong| self.bad(wrong))?;
        Ok(Some(RoomName::from(name.as_ref())))
    }

    /// The refusal for an argument that `wrong`.
    pub(super) fn bad(&self, wrong: &str) -> Refusal {
        Refusal::new(RefusalCode::BadArgument, format!("{self} {wrong}"))
    }

    /// The refusal for an argument that is not there.
    pub(super) fn missing(&self) -> Refusal {
        self.bad("is missing")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::Id => return f.write_str("$id"),
            Self::Auth(path) => {
                f.write_str("$auth")?;
                path
            }
            Self::Argument(index, path) => {
                write!(f, "${index}")?;
                path
            }
        };
        path.iter().try_for_each(|part| write!(f, ".{part}"))
    }
}

/// Strings are room names as they are; whole numbers become text, as a JavaScript client means
/// `socket.emit("join", 5)`.
fn room_text(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    if text.starts_with('"') {
        // Without escapes the name is what stands between the quotes.
        let inner = text.get(1..text.len() - 1)?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        return serde_json::from_str::<String>(text).ok().map(Cow::Owned);
    }
    let number: i64 = text.parse().ok()?;
    (-INTEGER_MAX..=INTEGER_MAX).contains(&number).then(|| Cow::Owned(number.to_string()))
}

/// What every room name has to be, whoever wrote it. `#` separates the parts of a Redis channel,
/// so a name that held one would be read as another room by the other nodes.
pub(super) fn check_room(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("is an empty room name")
    } else if name.len() > ROOM_NAME_BYTES_MAX {
        Err("is longer than 200 bytes")
    } else if name.chars().any(char::is_control) {
        Err("holds a control character")
    } else if name.contains('#') {
        Err("holds a `#`")
    } else {
        Ok(())
    }
}

/// The value of `key` in an object, or at an index of an array, without building either. `null`
/// holds nothing; other values have no parts and are an error.
fn child<'a>(value: &'a RawValue, key: &str) -> Result<Option<&'a RawValue>, ()> {
    match value.get().as_bytes().first() {
        Some(b'{' | b'[') => {
            let mut reader = serde_json::Deserializer::from_str(value.get());
            reader.deserialize_any(Child(key)).map_err(|_| ())
        }
        Some(b'n') => Ok(None),
        _ => Err(()),
    }
}

struct Child<'k>(&'k str);

impl<'de> Visitor<'de> for Child<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // The last of several equal keys counts, as in JavaScript.
        while let Some(is_key) = map.next_key_seed(IsKey(self.0))? {
            if is_key {
                found = Some(map.next_value::<&RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let index: Option<usize> = self.0.parse().ok();
        let mut found = None;
        let mut at = 0;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if Some(at) == index {
                found = Some(value);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// Compares a key without keeping it.
struct IsKey<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;
    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
