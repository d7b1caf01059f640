//! Socket.IO v5: packets as clients send them, event arguments, and placeholders for binary attachments.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use crate::json::{self, JsonError, RawJson, RawValues, Reader};

/// Largest acknowledgement id: beyond it JavaScript cannot tell neighbouring integers apart.
pub const ACK_ID_MAX: u64 = (1 << 53) - 1;

/// Names a client may not use for its events, because they mean something to the library itself.
pub const RESERVED_NAMES: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// Join a namespace; its answer.
    Connect = 0,
    /// Leave a namespace.
    Disconnect = 1,
    /// A named message.
    Event = 2,
    /// The answer to an event.
    Ack = 3,
    /// The namespace refused.
    ConnectError = 4,
    /// An event with attachments.
    BinaryEvent = 5,
    /// An answer with attachments.
    BinaryAck = 6,
}

impl PacketKind {
    /// The kind with this number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => PacketKind::Connect,
            1 => PacketKind::Disconnect,
            2 => PacketKind::Event,
            3 => PacketKind::Ack,
            4 => PacketKind::ConnectError,
            5 => PacketKind::BinaryEvent,
            6 => PacketKind::BinaryAck,
            _ => return None,
        })
    }

    /// Whether attachments follow packets of this kind.
    pub fn is_binary(self) -> bool {
        matches!(self, PacketKind::BinaryEvent | PacketKind::BinaryAck)
    }

    /// The kind of the same meaning for this number of attachments.
    pub fn with_attachments(self, attachments: usize) -> Self {
        match self {
            PacketKind::Event if attachments > 0 => PacketKind::BinaryEvent,
            PacketKind::Ack if attachments > 0 => PacketKind::BinaryAck,
            PacketKind::BinaryEvent if attachments == 0 => PacketKind::Event,
            PacketKind::BinaryAck if attachments == 0 => PacketKind::Ack,
            kind => kind,
        }
    }
}

/// The parts of one packet. `data` is not parsed yet: [`Event::parse`], [`parse_args`] and [`parse_auth`] do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What the packet is for.
    pub kind: PacketKind,
    /// How many binary messages follow.
    pub attachments: usize,
    /// The namespace, `/` when the packet names none. A query behind a `?` is part of the name, as on Node.
    pub namespace: &'a str,
    /// The acknowledgement id.
    pub id: Option<u64>,
    /// JSON text, not checked; empty when there is none.
    pub data: &'a str,
}

impl<'a> Packet<'a> {
    /// Reads the header of a packet, without the `4` of Engine.IO in front of it.
    pub fn parse(text: &'a str, attachments_max: usize) -> Result<Self, PacketError> {
        let first = text.as_bytes().first().ok_or(PacketError::UnknownKind)?;
        let kind =
            PacketKind::from_number(first.wrapping_sub(b'0')).ok_or(PacketError::UnknownKind)?;
        let mut rest = &text[1..];
        let mut attachments = 0;
        if kind.is_binary() {
            (attachments, rest) = split_attachments(rest, attachments_max)?;
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = match memchr::memchr(b',', rest.as_bytes()) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, ""),
            };
        }
        let (id, data) = split_id(rest)?;
        let packet = Packet { kind, attachments, namespace, id, data };
        packet.check()?;
        Ok(packet)
    }

    /// Checks which parts stand together, without looking into the data.
    pub(crate) fn check(&self) -> Result<(), PacketError> {
        // Control characters would break polling payloads and log lines.
        let is_name = self.namespace.starts_with('/');
        if !is_name || self.namespace.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(PacketError::InvalidNamespace);
        }
        let (needs_id, allows_id, is_data_right) = match self.kind {
            PacketKind::Event | PacketKind::BinaryEvent => {
                (false, true, self.data.starts_with('['))
            }
            PacketKind::Ack | PacketKind::BinaryAck => (true, true, self.data.starts_with('[')),
            PacketKind::Disconnect => (false, false, self.data.is_empty()),
            PacketKind::Connect | PacketKind::ConnectError => (false, false, true),
        };
        if self.id.is_some() && !allows_id || self.id.is_none() && needs_id {
            return Err(PacketError::InvalidId);
        }
        if !is_data_right {
            return Err(PacketError::InvalidData);
        }
        Ok(())
    }
}

fn split_attachments(text: &str, attachments_max: usize) -> Result<(usize, &str), PacketError> {
    let digits = leading_digits(text);
    if digits == 0 || text.as_bytes().get(digits) != Some(&b'-') {
        return Err(PacketError::InvalidAttachments);
    }
    // Digits that do not parse are too many for the type.
    match text[..digits].parse() {
        Ok(0) => Err(PacketError::InvalidAttachments),
        Ok(count) if count <= attachments_max => Ok((count, &text[digits + 1..])),
        _ => Err(PacketError::TooManyAttachments),
    }
}

fn split_id(text: &str) -> Result<(Option<u64>, &str), PacketError> {
    let digits = leading_digits(text);
    if digits == 0 {
        return Ok((None, text));
    }
    match text[..digits].parse() {
        Ok(id) if id <= ACK_ID_MAX => Ok((Some(id), &text[digits..])),
        _ => Err(PacketError::InvalidId),
    }
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// An event as it travels inside of a node: the JSON text of `[name, argument…]` and the binaries it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventData {
    /// The JSON array. Binaries stand as `{"_placeholder":true,"num":n}`.
    pub json: Box<str>,
    /// The binaries; `n` is an index into them.
    pub attachments: Vec<Bytes>,
}

/// A checked event: its name, and its arguments as JSON texts.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// The name. A number is a legal name and reads as its text.
    pub name: Cow<'a, str>,
    /// The arguments behind the name.
    pub args: RawValues<'a>,
}

impl<'a> Event<'a> {
    /// Reads the data of an event packet: one JSON array with a name in front, and nothing behind it.
    pub fn parse(json: &'a str) -> Result<Self, PacketError> {
        let mut reader = Reader::new(json);
        if reader.peek()? != b'[' || !reader.open(b']')? {
            return Err(PacketError::InvalidData);
        }
        let name = reader.value()?.get();
        let mut args = RawValues::default();
        while reader.more(b']')? {
            args.push(reader.value()?);
        }
        reader.end()?;
        let name = match name.as_bytes()[0] {
            b'"' => event_name(name)?,
            b'-' | b'0'..=b'9' => number_name(name),
            _ => return Err(PacketError::InvalidName),
        };
        if is_reserved(&name) {
            return Err(PacketError::ReservedName);
        }
        Ok(Event { name, args })
    }
}

/// Almost every name differs in its first letter already.
fn is_reserved(name: &str) -> bool {
    matches!(name.as_bytes().first(), Some(b'c' | b'd' | b'n' | b'r'))
        && RESERVED_NAMES.contains(&name)
}

fn event_name(quoted: &str) -> Result<Cow<'_, str>, PacketError> {
    let inner = &quoted[1..quoted.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    Ok(Reader::new(quoted).string()?.unescape())
}

fn number_name(number: &str) -> Cow<'_, str> {
    if number.len() <= 15 && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Cow::Borrowed(number);
    }
    let mut name = String::new();
    // The reader has checked the grammar, which is a part of Rust's.
    json::push_f64(&mut name, number.parse().unwrap_or(f64::NAN));
    Cow::Owned(name)
}

/// Reads the data of an acknowledgement: one JSON array, and nothing behind it.
pub fn parse_args(json: &str) -> Result<RawValues<'_>, PacketError> {
    let mut reader = Reader::new(json);
    if reader.peek()? != b'[' {
        return Err(PacketError::InvalidData);
    }
    let mut args = RawValues::default();
    let mut more = reader.open(b']')?;
    while more {
        args.push(reader.value()?);
        more = reader.more(b']')?;
    }
    reader.end()?;
    Ok(args)
}

/// Reads the data of a CONNECT packet: a JSON object, or nothing.
pub fn parse_auth(data: &str) -> Result<Option<RawJson<'_>>, PacketError> {
    if data.is_empty() {
        return Ok(None);
    }
    let auth = RawJson::read(data)?;
    if !auth.get().starts_with('{') {
        return Err(PacketError::InvalidData);
    }
    Ok(Some(auth))
}

/// Checks the data of a binary packet: each placeholder names one of the attachments, and no two the same one.
///
/// The second rule keeps one large attachment from being multiplied by many references to it.
pub fn check_placeholders(json: &str, attachments: usize) -> Result<(), PacketError> {
    let placeholders = json::placeholders(json)?;
    let mut seen = Vec::with_capacity(placeholders.len());
    for placeholder in &placeholders {
        match placeholder.num {
            Some(num) if num < attachments => seen.push(num),
            _ => return Err(PacketError::InvalidPlaceholder),
        }
    }
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(PacketError::InvalidPlaceholder);
    }
    Ok(())
}

/// Makes the data of an event out of JSON text that refers to some of these attachments.
///
/// Only attachments that are referred to are kept, numbered from 0 in the order of the text; each reference gets
/// its own. A reference to an attachment that does not exist becomes `null`: it would make the parser of every
/// receiver give up the connection. Without attachments the text stays as it is.
pub fn renumber(json: &str, attachments: &[Bytes]) -> EventData {
    let placeholders =
        if attachments.is_empty() { Ok(Vec::new()) } else { json::placeholders(json) };
    let placeholders = placeholders.unwrap_or_default();
    let mut kept = Vec::new();
    let mut out = String::with_capacity(json.len());
    let mut copied = 0;
    for placeholder in placeholders {
        out.push_str(&json[copied..placeholder.range.start]);
        copied = placeholder.range.end;
        match placeholder.num.and_then(|num| attachments.get(num)) {
            Some(attachment) => {
                push_placeholder(&mut out, kept.len());
                kept.push(attachment.clone());
            }
            None => out.push_str("null"),
        }
    }
    out.push_str(&json[copied..]);
    EventData { json: out.into(), attachments: kept }
}

/// The text of an event or other data with its binaries inside, in the form that `JSON.stringify` on Node gives
/// them: `{"type":"Buffer","data":[1,2]}`.
pub fn inline_buffers(json: &str, attachments: &[Bytes]) -> Result<String, PacketError> {
    let placeholders = if attachments.is_empty() { Vec::new() } else { json::placeholders(json)? };
    let mut out = String::with_capacity(json.len());
    let mut copied = 0;
    let mut used = vec![false; attachments.len()];
    for placeholder in placeholders {
        let num = placeholder.num.filter(|num| used.get(*num) == Some(&false));
        let num = num.ok_or(PacketError::InvalidPlaceholder)?;
        used[num] = true;
        out.push_str(&json[copied..placeholder.range.start]);
        copied = placeholder.range.end;
        out.push_str(r#"{"type":"Buffer","data":["#);
        for (at, byte) in attachments[num].iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            json::push_u64(&mut out, (*byte).into());
        }
        out.push_str("]}");
    }
    out.push_str(&json[copied..]);
    Ok(out)
}

/// Whether a text that was composed of valid values keeps the limits which every receiver checks: a value that
/// was as deep as it may be is too deep inside of another.
pub fn is_within_limits(json: &str) -> bool {
    RawJson::parse(json).is_some()
}

/// Appends the object that stands for the attachment `num`.
pub(crate) fn push_placeholder(out: &mut String, num: usize) {
    out.push_str(r#"{"_placeholder":true,"num":"#);
    json::push_u64(out, num as u64);
    out.push('}');
}

/// Appends a packet in its text form, without the `4` of Engine.IO in front of it.
pub fn encode_packet(
    out: &mut String,
    kind: PacketKind,
    attachments: usize,
    namespace: &str,
    id: Option<u64>,
    data: &str,
) {
    out.reserve(data.len() + namespace.len() + 8);
    out.push(char::from(b'0' + kind as u8));
    if kind.is_binary() {
        json::push_u64(out, attachments as u64);
        out.push('-');
    }
    if namespace != "/" {
        out.push_str(namespace);
        out.push(',');
    }
    if let Some(id) = id {
        json::push_u64(out, id);
    }
    out.push_str(data);
}

/// Why a packet or its data was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The first character names no kind.
    #[error("unknown packet kind")]
    UnknownKind,
    /// The number of attachments is missing, zero or no number.
    #[error("invalid number of attachments")]
    InvalidAttachments,
    /// More attachments than allowed.
    #[error("too many attachments")]
    TooManyAttachments,
    /// A control character in the name of a namespace.
    #[error("invalid namespace")]
    InvalidNamespace,
    /// An acknowledgement id that is missing, too large, or where none belongs.
    #[error("invalid acknowledgement id")]
    InvalidId,
    /// Data that is missing, is no JSON, or has another form than its kind asks for.
    #[error("invalid data")]
    InvalidData,
    /// Arrays or objects nested deeper than [`crate::DEPTH_MAX`].
    #[error("data nested too deep")]
    TooDeep,
    /// A number that a double cannot hold.
    #[error("number out of range")]
    NumberRange,
    /// An event name that is neither a string nor a number.
    #[error("invalid event name")]
    InvalidName,
    /// One of [`RESERVED_NAMES`].
    #[error("reserved event name")]
    ReservedName,
    /// A placeholder that names no attachment, or one that another placeholder names.
    #[error("invalid placeholder")]
    InvalidPlaceholder,
}

impl PacketError {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            PacketError::UnknownKind => "unknown_kind",
            PacketError::InvalidAttachments => "invalid_attachments",
            PacketError::TooManyAttachments => "too_many_attachments",
            PacketError::InvalidNamespace => "invalid_namespace",
            PacketError::InvalidId => "invalid_id",
            PacketError::InvalidData => "invalid_data",
            PacketError::TooDeep => "too_deep",
            PacketError::NumberRange => "number_range",
            PacketError::InvalidName => "invalid_name",
            PacketError::ReservedName => "reserved_name",
            PacketError::InvalidPlaceholder => "invalid_placeholder",
        }
    }
}

impl From<JsonError> for PacketError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax => PacketError::InvalidData,
            JsonError::Depth => PacketError::TooDeep,
            JsonError::Number => PacketError::NumberRange,
        }
    }
}
