//! MessagePack to JSON text.

use std::{fmt::Write, str};

use bytes::Bytes;
use rmp::Marker;

use super::TranscodeError;
use crate::{DEPTH_MAX, MESSAGE_DEPTH_MAX, json, socket};

/// Bytes reserved for the JSON text before it is written.
const CAPACITY_MAX: usize = 64 * 1024;

/// A value as JSON text, with its binaries apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The JSON text, binaries as placeholders numbered in the order of the text.
    pub json: String,
    /// The binaries.
    pub attachments: Vec<Bytes>,
    /// How many bytes the value took.
    pub consumed: usize,
}

/// Reads the MessagePack value at the start of `value` as JSON text.
///
/// As `JSON.stringify` on Node would print what notepack reads: dates as ISO strings, NaN and the infinities as
/// `null`, other extensions as `[type, binary]`, but 64-bit integers with all their digits.
///
/// A literal `{"_placeholder":true}` next to real binaries is refused: as JSON nobody could tell them apart.
pub fn msgpack_to_json(value: &[u8], attachments_max: usize) -> Result<Decoded, TranscodeError> {
    let mut cursor = Cursor::new(value);
    let (json, attachments) = cursor.json(attachments_max)?;
    Ok(Decoded { json, attachments, consumed: cursor.at })
}

/// Gives the length in bytes of the MessagePack value at the start of `value`, so that it can be skipped.
///
/// It checks lengths and depth, but not strings and keys. The value may be as deep as a message between servers.
pub fn value_len(value: &[u8]) -> Result<usize, TranscodeError> {
    let mut cursor = Cursor::new(value);
    cursor.skip(0)?;
    Ok(cursor.at)
}

/// A place in MessagePack bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

/// One value, without the elements of an array or map.
pub(super) enum Head<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Array(usize),
    Map(usize),
    Ext(i8, &'a [u8]),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], TranscodeError> {
        let taken = self.rest().get(..len).ok_or(TranscodeError::Truncated)?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TranscodeError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| TranscodeError::Truncated)
    }

    fn len8(&mut self) -> Result<usize, TranscodeError> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    fn len16(&mut self) -> Result<usize, TranscodeError> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn len32(&mut self) -> Result<usize, TranscodeError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| TranscodeError::Truncated)
    }

    fn ext(&mut self, len: usize) -> Result<Head<'a>, TranscodeError> {
        let [kind] = self.array()?;
        Ok(Head::Ext(kind as i8, self.take(len)?))
    }

    pub(super) fn head(&mut self) -> Result<Head<'a>, TranscodeError> {
        let [byte] = self.array()?;
        Ok(match Marker::from_u8(byte) {
            Marker::FixPos(number) => Head::Unsigned(number.into()),
            Marker::FixNeg(number) => Head::Signed(number.into()),
            Marker::FixStr(len) => Head::Str(self.take(len.into())?),
            Marker::FixArray(count) => Head::Array(count.into()),
            Marker::FixMap(count) => Head::Map(count.into()),
            Marker::Null => Head::Nil,
            Marker::True => Head::Bool(true),
            Marker::False => Head::Bool(false),
            Marker::U8 => Head::Unsigned(self.array::<1>()?[0].into()),
            Marker::U16 => Head::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Head::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Head::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::I8 => Head::Signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Head::Signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Head::Signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Head::Signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Head::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Head::Float(f64::from_be_bytes(self.array()?)),
            Marker::Str8 => {
                let len = self.len8()?;
                Head::Str(self.take(len)?)
            }
            Marker::Str16 => {
                let len = self.len16()?;
                Head::Str(self.take(len)?)
            }
            Marker::Str32 => {
                let len = self.len32()?;
                Head::Str(self.take(len)?)
            }
            Marker::Bin8 => {
                let len = self.len8()?;
                Head::Bin(self.take(len)?)
            }
            Marker::Bin16 => {
                let len = self.len16()?;
                Head::Bin(self.take(len)?)
            }
            Marker::Bin32 => {
                let len = self.len32()?;
                Head::Bin(self.take(len)?)
            }
            Marker::Array16 => Head::Array(self.len16()?),
            Marker::Array32 => Head::Array(self.len32()?),
            Marker::Map16 => Head::Map(self.len16()?),
            Marker::Map32 => Head::Map(self.len32()?),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => {
                let len = self.len8()?;
                self.ext(len)?
            }
            Marker::Ext16 => {
                let len = self.len16()?;
                self.ext(len)?
            }
            Marker::Ext32 => {
                let len = self.len32()?;
                self.ext(len)?
            }
            Marker::Reserved => return Err(TranscodeError::UnknownMarker),
        })
    }

    /// Converts the value at the cursor.
    pub(super) fn json(
        &mut self,
        attachments_max: usize,
    ) -> Result<(String, Vec<Bytes>), TranscodeError> {
        // By the bytes that are there, not by what they announce; JSON is rarely shorter.
        let capacity = (self.bytes.len() - self.at).min(CAPACITY_MAX);
        let mut writer = JsonWriter {
            out: String::with_capacity(capacity),
            attachments: Vec::new(),
            attachments_max,
            has_literal_placeholder: false,
        };
        writer.value(self, 0)?;
        if writer.has_literal_placeholder && !writer.attachments.is_empty() {
            return Err(TranscodeError::InvalidPlaceholder);
        }
        Ok((writer.out, writer.attachments))
    }

    /// Passes over the value at the cursor.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), TranscodeError> {
        let children = match self.head()? {
            Head::Array(count) => count,
            Head::Map(count) => count.saturating_mul(2),
            _ => return Ok(()),
        };
        if depth == MESSAGE_DEPTH_MAX {
            return Err(TranscodeError::TooDeep);
        }
        for _ in 0..children {
            self.skip(depth + 1)?;
        }
        Ok(())
    }
}

struct JsonWriter {
    out: String,
    attachments: Vec<Bytes>,
    attachments_max: usize,
    has_literal_placeholder: bool,
}

impl JsonWriter {
    fn value(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), TranscodeError> {
        match cursor.head()? {
            Head::Nil => self.out.push_str("null"),
            Head::Bool(true) => self.out.push_str("true"),
            Head::Bool(false) => self.out.push_str("false"),
            Head::Unsigned(number) => json::push_u64(&mut self.out, number),
            Head::Signed(number) => self.signed(number),
            Head::Float(number) => json::push_f64(&mut self.out, number),
            Head::Str(text) => self.string(text)?,
            Head::Bin(data) => self.attachment(data, depth)?,
            Head::Ext(kind, data) => self.ext(kind, data, depth)?,
            Head::Array(_) | Head::Map(_) if depth == DEPTH_MAX => {
                return Err(TranscodeError::TooDeep);
            }
            Head::Array(count) => {
                self.out.push('[');
                for index in 0..count {
                    if index > 0 {
                        self.out.push(',');
                    }
                    self.value(cursor, depth + 1)?;
                }
                self.out.push(']');
            }
            Head::Map(count) => {
                self.out.push('{');
                for index in 0..count {
                    if index > 0 {
                        self.out.push(',');
                    }
                    self.entry(cursor, depth + 1)?;
                }
                self.out.push('}');
            }
        }
        Ok(())
    }

    fn entry(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), TranscodeError> {
        let mut is_mark = false;
        match cursor.head()? {
            Head::Str(key) => {
                is_mark = key == b"_placeholder";
                self.string(key)?;
            }
            // An integer key reads as its digits, as every key does in JavaScript.
            Head::Unsigned(key) => {
                self.out.push('"');
                json::push_u64(&mut self.out, key);
                self.out.push('"');
            }
            Head::Signed(key) => {
                self.out.push('"');
                self.signed(key);
                self.out.push('"');
            }
            _ => return Err(TranscodeError::InvalidKey),
        }
        self.out.push(':');
        let start = self.out.len();
        self.value(cursor, depth)?;
        self.has_literal_placeholder |= is_mark && &self.out[start..] == "true";
        Ok(())
    }

    fn signed(&mut self, number: i64) {
        if number < 0 {
            self.out.push('-');
        }
        json::push_u64(&mut self.out, number.unsigned_abs());
    }

    fn string(&mut self, text: &[u8]) -> Result<(), TranscodeError> {
        let text = str::from_utf8(text).map_err(|_| TranscodeError::InvalidUtf8)?;
        json::push_quoted(&mut self.out, text);
        Ok(())
    }

    /// Writes the object that stands for a binary, which is one level deeper than the binary itself.
    fn attachment(&mut self, data: &[u8], depth: usize) -> Result<(), TranscodeError> {
        if depth >= DEPTH_MAX {
            return Err(TranscodeError::TooDeep);
        }
        if self.attachments.len() >= self.attachments_max {
            return Err(TranscodeError::TooManyAttachments);
        }
        socket::push_placeholder(&mut self.out, self.attachments.len());
        self.attachments.push(Bytes::copy_from_slice(data));
        Ok(())
    }

    /// Type -1 is a date by the MessagePack specification; type 0 is what older versions of notepack write.
    fn ext(&mut self, kind: i8, data: &[u8], depth: usize) -> Result<(), TranscodeError> {
        match (kind, data.len()) {
            (-1, 4 | 8 | 12) => push_date(&mut self.out, timestamp_millis(data)),
            (0, 1) => self.out.push_str("null"),
            (0, 8) => push_date(&mut self.out, integer(data)),
            (0, _) => self.attachment(data, depth)?,
            _ => {
                self.out.push('[');
                self.signed(kind.into());
                self.out.push(',');
                self.attachment(data, depth + 1)?;
                self.out.push(']');
            }
        }
        Ok(())
    }
}

/// Reads up to eight bytes as one signed number, the highest bit of eight being the sign.
fn integer(bytes: &[u8]) -> i128 {
    let unsigned = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    i128::from(unsigned as i64)
}

/// Milliseconds since 1970 of a timestamp of 4, 8 or 12 bytes, cut towards zero as `new Date` does.
fn timestamp_millis(data: &[u8]) -> i128 {
    let (nanos, seconds) = match data.len() {
        8 => {
            let both = integer(data) as u64;
            (i128::from(both >> 34), i128::from(both & ((1 << 34) - 1)))
        }
        12 => (integer(&data[..4]), integer(&data[4..])),
        _ => (0, integer(data)),
    };
    (seconds * 1_000_000_000 + nanos) / 1_000_000
}

/// Appends a date as `Date.prototype.toISOString` prints it; outside of its range a date is `null` in JSON.
fn push_date(out: &mut String, millis: i128) {
    const MILLIS_MAX: i128 = 8_640_000_000_000_000;
    const MILLIS_PER_DAY: i64 = 86_400_000;
    let in_range = i64::try_from(millis).ok().filter(|_| millis.abs() <= MILLIS_MAX);
    let Some(millis) = in_range else {
        out.push_str("null");
        return;
    };
    let (year, month, day) = civil_date(millis.div_euclid(MILLIS_PER_DAY));
    let time = millis.rem_euclid(MILLIS_PER_DAY);
    // Writing to a String cannot fail.
    let _ = match year {
        0..=9999 => write!(out, "\"{year:04}"),
        _ => write!(out, "\"{year:+07}"),
    };
    let _ = write!(
        out,
        "-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z\"",
        time / 3_600_000,
        time / 60_000 % 60,
        time / 1000 % 60,
        time % 1000,
    );
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
///
/// The calendar repeats every 400 years; counting years from March puts the leap day at their end.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    const DAYS_FROM_MARCH_0000_TO_1970: i64 = 719_468;
    let days = days + DAYS_FROM_MARCH_0000_TO_1970;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month =
        if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}
