//! References to what a client sent: `$0`, `$1.room`, `$auth.name`, `$id`.

use super::{Context, Refusal, RefusalCode, RoomName};
use bytes::Bytes;
use protocol::json::{NoParts, RawJson};
use std::{borrow::Cow, fmt};

/// The longest room name taken from a client, in bytes.
const ROOM_NAME_BYTES_MAX: usize = 200;
/// The largest integer that JavaScript holds exactly; larger ones would name different rooms on
/// different servers.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// What references are resolved against.
pub(super) struct Source<'a> {
    /// The name of the event, if there is one.
    pub event: Option<&'a str>,
    /// Its arguments.
    pub args: &'a [RawJson<'a>],
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
    Value(RawJson<'a>),
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
            Self::Argument(index, path) => match source.args.get(*index) {
                Some(value) => (*value, path),
                None => return Ok(Found::Missing),
            },
        };
        for key in path {
            value = match value.part(key) {
                Ok(Some(value)) => value,
                Ok(None) => return Ok(Found::Missing),
                Err(NoParts) => return Err(self.bad("is not an object")),
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
fn room_text(value: RawJson<'_>) -> Option<Cow<'_, str>> {
    let text = value.get();
    if text.starts_with('"') {
        // Without escapes the name is what stands between the quotes.
        let inner = text.get(1..text.len() - 1)?;
        if !inner.as_bytes().contains(&b'\\') {
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
    // Most names are plain ASCII, for which one look at all bytes, without a branch, is enough.
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) & (byte != b'#');
    if name.is_empty() {
        Err("is an empty room name")
    } else if name.len() > ROOM_NAME_BYTES_MAX {
        Err("is longer than 200 bytes")
    } else if name.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        Ok(())
    } else if name.chars().any(char::is_control) {
        Err("holds a control character")
    } else if name.contains('#') {
        Err("holds a `#`")
    } else {
        Ok(())
    }
}
