//! A small JSON reader for what `serde_json` does not do: stream into another format, find the place of a value
//! in the text, bound depth and numbers, and tolerate lone surrogates as browsers send them.

use std::{borrow::Cow, fmt::Write, ops::Range};

use memchr::{memchr, memchr2};
use thiserror::Error;

use crate::DEPTH_MAX;

/// Why a text is not acceptable JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum JsonError {
    #[error("invalid JSON")]
    Syntax,
    #[error("JSON nested too deep")]
    Depth,
    #[error("JSON number outside of the range of a double")]
    Number,
}

/// Reads one JSON text from the start to the end.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Reader { text, at: 0, depth: 0 }
    }

    /// Skips white space and gives the first byte of what follows.
    pub(crate) fn peek(&mut self) -> Result<u8, JsonError> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(JsonError::Syntax)
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Ok(_) => Err(JsonError::Syntax),
            Err(_) => Ok(()),
        }
    }

    /// Enters the array or object at the cursor and tells whether it has an element.
    pub(crate) fn open(&mut self, close: u8) -> Result<bool, JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(JsonError::Depth);
        }
        if self.peek()? == close {
            self.close();
            return Ok(false);
        }
        Ok(true)
    }

    /// After an element: tells whether another one follows, else leaves the array or object.
    pub(crate) fn more(&mut self, close: u8) -> Result<bool, JsonError> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == close => {
                self.close();
                Ok(false)
            }
            _ => Err(JsonError::Syntax),
        }
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Reads an object's key and the colon.
    pub(crate) fn key(&mut self) -> Result<RawStr<'a>, JsonError> {
        if self.peek()? != b'"' {
            return Err(JsonError::Syntax);
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(JsonError::Syntax);
        }
        self.at += 1;
        Ok(key)
    }

    /// Reads the string at the cursor.
    pub(crate) fn string(&mut self) -> Result<RawStr<'a>, JsonError> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        let mut escaped = false;
        // Keys and names end within a few bytes; only longer strings are worth a vector search.
        let short_end = bytes.len().min(start + 16);
        while at < short_end && !matches!(bytes[at], b'"' | b'\\' | 0..0x20) {
            at += 1;
        }
        if bytes.get(at) != Some(&b'"') {
            loop {
                at += memchr2(b'"', b'\\', &bytes[at..]).ok_or(JsonError::Syntax)?;
                if bytes[at] == b'"' {
                    break;
                }
                escaped = true;
                at += escape_len(&bytes[at..])?;
            }
            if has_control(&bytes[start..at]) {
                return Err(JsonError::Syntax);
            }
        }
        self.at = at + 1;
        Ok(RawStr { text: &self.text[start..at], escaped })
    }

    /// Reads the number at the cursor; one that a double cannot hold is refused.
    pub(crate) fn number(&mut self) -> Result<&'a str, JsonError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let digits = |from: usize| {
            let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if count == 0 { Err(JsonError::Syntax) } else { Ok(from + count) }
        };
        at = if bytes.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
        if bytes.get(at) == Some(&b'.') {
            at = digits(at + 1)?;
        }
        let exponent = matches!(bytes.get(at), Some(b'e' | b'E'));
        if exponent {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            at = digits(at)?;
        }
        self.at = at;
        let text = &self.text[start..at];
        // A double holds any integer of up to 308 digits.
        if (exponent || text.len() > 308) && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(JsonError::Number);
        }
        Ok(text)
    }

    /// Reads `null` (as `None`), `true` or `false`.
    pub(crate) fn literal(&mut self) -> Result<Option<bool>, JsonError> {
        for (text, value) in [("null", None), ("true", Some(true)), ("false", Some(false))] {
            if self.text.as_bytes()[self.at..].starts_with(text.as_bytes()) {
                self.at += text.len();
                return Ok(value);
            }
        }
        Err(JsonError::Syntax)
    }
}

fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, byte| found | (*byte < 0x20))
}

/// Checks the escape at the start of `bytes` and gives its length.
fn escape_len(bytes: &[u8]) -> Result<usize, JsonError> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') if bytes.len() >= 6 && bytes[2..6].iter().all(u8::is_ascii_hexdigit) => Ok(6),
        _ => Err(JsonError::Syntax),
    }
}

/// A string between its quotes, escapes checked but not resolved.
#[derive(Clone, Copy)]
pub(crate) struct RawStr<'a> {
    text: &'a str,
    escaped: bool,
}

impl<'a> RawStr<'a> {
    pub(crate) fn is(self, text: &str) -> bool {
        if self.escaped { self.unescape() == text } else { self.text == text }
    }

    /// The string itself. A lone surrogate becomes U+FFFD, as it does wherever JavaScript encodes UTF-8.
    pub(crate) fn unescape(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.text);
        }
        let mut out = String::with_capacity(self.text.len());
        let mut rest = self.text;
        while let Some(at) = memchr(b'\\', rest.as_bytes()) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let (character, len) = resolve_escape(rest);
            out.push(character);
            rest = &rest[len..];
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

/// Resolves the escape at the start of `text`, which [`escape_len`] has checked.
fn resolve_escape(text: &str) -> (char, usize) {
    let character = match text.as_bytes()[1] {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return resolve_unicode(text),
        other => char::from(other),
    };
    (character, 2)
}

fn resolve_unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let units = [unit(0).unwrap_or(0xfffd), unit(6).unwrap_or(0)];
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => (character, 6 * character.len_utf16()),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// Checks one JSON text: syntax, depth, numbers, nothing behind it.
pub(crate) fn validate(json: &str) -> Result<(), JsonError> {
    placeholders(json).map(drop)
}

/// Whether [`validate`] could refuse, for depth or a number, a text that is otherwise valid JSON.
///
/// Every event passes here, so these are loops without branches, which the compiler turns into vector code. The
/// answer may be yes without need, because they do not know what is inside of strings.
pub(crate) fn needs_limits(json: &str) -> bool {
    let bytes = json.as_bytes();
    may_be_deep(bytes) || may_have_exponent(bytes) || may_have_long_number(bytes)
}

/// No text is nested deeper than it has opening brackets.
fn may_be_deep(bytes: &[u8]) -> bool {
    if bytes.len() <= DEPTH_MAX {
        return false;
    }
    // A chunk has no more brackets than a byte can count.
    let in_chunk =
        |chunk: &[u8]| -> u8 { chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum() };
    bytes.chunks(255).map(|chunk| usize::from(in_chunk(chunk))).sum::<usize>() > DEPTH_MAX
}

/// In valid JSON an exponent follows a digit.
fn may_have_exponent(bytes: &[u8]) -> bool {
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    pairs.fold(false, |found, (before, byte)| {
        found | (before.is_ascii_digit() & (byte | 0x20 == b'e'))
    })
}

/// A run of 309 digits, the shortest that a double cannot hold, cannot lie between two samples.
fn may_have_long_number(bytes: &[u8]) -> bool {
    const STEP: usize = 256;
    let run = |part: &mut dyn Iterator<Item = &u8>| part.take_while(|b| b.is_ascii_digit()).count();
    (STEP..bytes.len()).step_by(STEP).any(|at| {
        bytes[at].is_ascii_digit()
            && run(&mut bytes[at..].iter()) + run(&mut bytes[..at].iter().rev()) > STEP
    })
}

/// An object `{"_placeholder":true,"num":n}` in a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// Where the object stands.
    pub(crate) range: Range<usize>,
    /// Its `num`, if that is an integer.
    pub(crate) num: Option<usize>,
}

/// What a placeholder is made of, collected key by key. As in JavaScript the last of equal keys counts, and other
/// keys do not matter.
#[derive(Clone, Copy, Default)]
pub(crate) struct PlaceholderKeys {
    marked: bool,
    num: Option<usize>,
}

impl PlaceholderKeys {
    pub(crate) fn see(&mut self, key: RawStr<'_>, value: Shape<'_>) {
        if key.is("_placeholder") {
            self.marked = matches!(value, Shape::True);
        } else if key.is("num") {
            self.num = match value {
                Shape::Number(text) => index(text),
                _ => None,
            };
        }
    }

    /// `None` if this is an ordinary object, else its `num`.
    pub(crate) fn placeholder(self) -> Option<Option<usize>> {
        self.marked.then_some(self.num)
    }
}

/// As much of a value as a placeholder needs to know.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    True,
    Number(&'a str),
    Other,
}

/// JavaScript has one number type: `1`, `1.0` and `1e0` are the same index.
fn index(number: &str) -> Option<usize> {
    if let Ok(index) = number.parse::<u32>() {
        return usize::try_from(index).ok();
    }
    let number: f64 = number.parse().ok()?;
    let integral = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    integral.then_some(number as usize)
}

/// Finds the outermost placeholders of a JSON text in their order.
pub(crate) fn placeholders(json: &str) -> Result<Vec<Placeholder>, JsonError> {
    let mut reader = Reader::new(json);
    let mut found = Vec::new();
    walk(&mut reader, &mut found)?;
    reader.end()?;
    Ok(found)
}

fn walk<'a>(reader: &mut Reader<'a>, found: &mut Vec<Placeholder>) -> Result<Shape<'a>, JsonError> {
    match reader.peek()? {
        b'"' => reader.string().map(|_| Shape::Other),
        b'[' => {
            let mut more = reader.open(b']')?;
            while more {
                walk(reader, found)?;
                more = reader.more(b']')?;
            }
            Ok(Shape::Other)
        }
        b'{' => {
            let start = reader.at;
            let first_inside = found.len();
            let mut keys = PlaceholderKeys::default();
            let mut more = reader.open(b'}')?;
            while more {
                let key = reader.key()?;
                let value = walk(reader, found)?;
                keys.see(key, value);
                more = reader.more(b'}')?;
            }
            if let Some(num) = keys.placeholder() {
                found.truncate(first_inside);
                found.push(Placeholder { range: start..reader.at, num });
            }
            Ok(Shape::Other)
        }
        b'-' | b'0'..=b'9' => reader.number().map(Shape::Number),
        _ => Ok(if reader.literal()? == Some(true) { Shape::True } else { Shape::Other }),
    }
}

/// Appends a number as JavaScript prints it; NaN and the infinities become `null`.
pub(crate) fn push_f64(out: &mut String, number: f64) {
    let magnitude = number.abs();
    // Writing to a String cannot fail.
    let _ = if !number.is_finite() {
        out.write_str("null")
    } else if number == 0.0 {
        out.write_str("0")
    } else if (1e-6..1e21).contains(&magnitude) {
        write!(out, "{number}")
    } else if magnitude < 1.0 {
        write!(out, "{number:e}")
    } else {
        let text = format!("{number:e}");
        out.write_str(&text.replace('e', "e+"))
    };
}

/// Appends a string in quotes, with the escapes that JSON asks for.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let needs_escape = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !needs_escape(byte) {
            continue;
        }
        out.push_str(&text[copied..at]);
        copied = at + 1;
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
                continue;
            }
        };
        out.push_str(short);
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

/// Appends a decimal number without the formatting machinery: every packet of a client with an id needs it.
pub(crate) fn push_u64(out: &mut String, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    for &digit in &digits[at..] {
        out.push(char::from(digit));
    }
}
