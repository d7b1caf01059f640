//! JSON values as the text they were written in, and a small reader for what `serde_json` does not do in one pass:
//! find the place of a value in the text, bound depth and numbers, tolerate lone surrogates as browsers send them,
//! and stream into another format.

mod raw;
mod write;

use std::{borrow::Cow, ops::Range};

use memchr::memchr;
use thiserror::Error;

pub use raw::{NoParts, RawJson, RawValues};
pub use write::push_quoted;
pub(crate) use write::{push_f64, push_u64};

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
    depth_max: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Reader::within(text, DEPTH_MAX)
    }

    /// A reader of values that may be nested this deep.
    fn within(text: &'a str, depth_max: usize) -> Self {
        Reader { text, at: 0, depth: 0, depth_max }
    }

    /// Skips white space and gives the first byte of what follows.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<u8, JsonError> {
        match self.text.as_bytes().get(self.at) {
            Some(&byte) if byte > b' ' => Ok(byte),
            _ => self.peek_behind_space(),
        }
    }

    /// Clients write no white space.
    #[cold]
    fn peek_behind_space(&mut self) -> Result<u8, JsonError> {
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
        if self.depth > self.depth_max {
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
        let mut at = start;
        // Keys and names end within a few bytes; only longer strings are worth more than that.
        if let Some(word) = self.text.as_bytes().get(start..).and_then(<[u8]>::first_chunk) {
            at += special_bytes(u64::from_le_bytes(*word)).trailing_zeros() as usize / 8;
            if self.text.as_bytes().get(at) == Some(&b'"') {
                self.at = at + 1;
                return Ok(RawStr { text: &self.text[start..at], escaped: false });
            }
        }
        self.long_string(start, at)
    }

    /// Reads on from `at` in the string that begins at `start`.
    #[inline(never)]
    fn long_string(&mut self, start: usize, mut at: usize) -> Result<RawStr<'a>, JsonError> {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            at += plain_len(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += escape_len(&bytes[at..])?;
                }
                // A control character, or the end of the text.
                _ => return Err(JsonError::Syntax),
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
        let rest = &self.text.as_bytes()[self.at..];
        let (len, value) = match rest {
            [b'n', b'u', b'l', b'l', ..] => (4, None),
            [b't', b'r', b'u', b'e', ..] => (4, Some(true)),
            [b'f', b'a', b'l', b's', b'e', ..] => (5, Some(false)),
            _ => return Err(JsonError::Syntax),
        };
        self.at += len;
        Ok(value)
    }

    /// Reads any value, whatever is inside of it.
    pub(crate) fn value(&mut self) -> Result<RawJson<'a>, JsonError> {
        let first = self.peek()?;
        let start = self.at;
        self.skip(first)?;
        Ok(RawJson::of(&self.text[start..self.at]))
    }

    /// Skips the value at the cursor, which begins with the byte `first`.
    fn skip(&mut self, first: u8) -> Result<(), JsonError> {
        match first {
            b'"' => {
                self.string()?;
            }
            b'[' => {
                let mut more = self.open(b']')?;
                while more {
                    let first = self.peek()?;
                    self.skip(first)?;
                    more = self.more(b']')?;
                }
            }
            b'{' => {
                let mut more = self.open(b'}')?;
                while more {
                    self.key()?;
                    let first = self.peek()?;
                    self.skip(first)?;
                    more = self.more(b'}')?;
                }
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
            }
            _ => {
                self.literal()?;
            }
        }
        Ok(())
    }
}

/// How many bytes there are before the first that ends a string or may not stand in it: a quote, a backslash or a
/// control character.
fn plain_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    // A search by words has the place at once, which a vector search has not: that is for what is longer.
    while let Some(word) = bytes[at..].first_chunk() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at == 16 {
            let (chunks, _) = bytes[at..].as_chunks();
            at += 32 * chunks.iter().take_while(|chunk| !has_special(chunk)).count();
        }
    }
    let is_plain = |byte: &&u8| !matches!(byte, 0..0x20 | b'"' | b'\\');
    at + bytes[at..].iter().take_while(is_plain).count()
}

/// Without branches, so that the compiler turns it into vector code. Each term is zero for one kind of byte.
fn has_special(chunk: &[u8; 32]) -> bool {
    let distance = |byte: u8| (byte & !0x1f).min(byte ^ b'"').min(byte ^ b'\\');
    chunk.iter().fold(u8::MAX, |least, byte| least.min(distance(*byte))) == 0
}

/// Has the highest bit set in the lowest byte of `word` that is a quote, a backslash or a control character. What
/// is above that byte means nothing, because a subtraction may have borrowed from it.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    (control | quote | backslash) & (ONES * 0x80)
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
