//! JSON text to MessagePack.

use bytes::Bytes;
use rmp::Marker;

use super::TranscodeError;
use crate::json::{PlaceholderKeys, Reader, Shape};

/// Appends the MessagePack form of one JSON value.
///
/// A placeholder becomes the attachment it names; each attachment may be named once. Without attachments a
/// placeholder is an object like any other. Keys keep their order. After an error `out` is as it was before.
pub fn json_to_msgpack(
    out: &mut Vec<u8>,
    json: &str,
    attachments: &[Bytes],
) -> Result<(), TranscodeError> {
    let start = out.len();
    let used = vec![false; attachments.len()];
    let mut encoder = Encoder { reader: Reader::new(json), out, attachments, used };
    let result = encoder.value().and_then(|_| encoder.reader.end().map_err(TranscodeError::from));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

struct Encoder<'a, 'out> {
    reader: Reader<'a>,
    out: &'out mut Vec<u8>,
    attachments: &'a [Bytes],
    used: Vec<bool>,
}

impl<'a> Encoder<'a, '_> {
    fn value(&mut self) -> Result<Shape<'a>, TranscodeError> {
        match self.reader.peek()? {
            b'"' => {
                let text = self.reader.string()?;
                push_str(self.out, &text.unescape());
                Ok(Shape::Other)
            }
            b'{' => self.object(),
            b'[' => self.array(),
            b'-' | b'0'..=b'9' => {
                let text = self.reader.number()?;
                push_number(self.out, text);
                Ok(Shape::Number(text))
            }
            _ => {
                let (marker, shape) = match self.reader.literal()? {
                    None => (Marker::Null, Shape::Other),
                    Some(true) => (Marker::True, Shape::True),
                    Some(false) => (Marker::False, Shape::Other),
                };
                self.out.push(marker.to_u8());
                Ok(shape)
            }
        }
    }

    fn array(&mut self) -> Result<Shape<'a>, TranscodeError> {
        let start = self.out.len();
        self.out.push(0);
        let mut count = 0;
        let mut more = self.reader.open(b']')?;
        while more {
            self.value()?;
            count += 1;
            more = self.reader.more(b']')?;
        }
        set_count(self.out, start, count, 0x90, [Marker::Array16, Marker::Array32]);
        Ok(Shape::Other)
    }

    fn object(&mut self) -> Result<Shape<'a>, TranscodeError> {
        let start = self.out.len();
        self.out.push(0);
        let mut count = 0;
        let mut keys = PlaceholderKeys::default();
        let mut more = self.reader.open(b'}')?;
        while more {
            let key = self.reader.key()?;
            push_str(self.out, &key.unescape());
            let value = self.value()?;
            if !self.attachments.is_empty() {
                keys.see(key, value);
            }
            count += 1;
            more = self.reader.more(b'}')?;
        }
        match keys.placeholder() {
            Some(num) => {
                self.out.truncate(start);
                self.attachment(num)?;
            }
            None => set_count(self.out, start, count, 0x80, [Marker::Map16, Marker::Map32]),
        }
        Ok(Shape::Other)
    }

    /// One attachment many times would make a huge message out of a small one, so each is taken once.
    fn attachment(&mut self, num: Option<usize>) -> Result<(), TranscodeError> {
        let num = num.ok_or(TranscodeError::InvalidPlaceholder)?;
        match self.used.get_mut(num) {
            Some(used) if !*used => *used = true,
            _ => return Err(TranscodeError::InvalidPlaceholder),
        }
        push_bin(self.out, &self.attachments[num]);
        Ok(())
    }
}

/// Writes the header of an array or map whose elements are written already, behind one byte kept free for it.
///
/// Almost all have at most 15 elements and need that byte only; for others the elements move.
fn set_count(out: &mut Vec<u8>, start: usize, count: u32, fix: u8, wide: [Marker; 2]) {
    if count <= 15 {
        out[start] = fix | count as u8;
    } else if let Ok(count) = u16::try_from(count) {
        let [high, low] = count.to_be_bytes();
        out.splice(start..=start, [wide[0].to_u8(), high, low]);
    } else {
        let [a, b, c, d] = count.to_be_bytes();
        out.splice(start..=start, [wide[1].to_u8(), a, b, c, d]);
    }
}

pub(super) fn push_str(out: &mut Vec<u8>, text: &str) {
    let len = text.len();
    if len < 32 {
        out.push(0xa0 | len as u8);
    } else {
        push_len(out, len, [Marker::Str8, Marker::Str16, Marker::Str32]);
    }
    out.extend_from_slice(text.as_bytes());
}

fn push_bin(out: &mut Vec<u8>, data: &[u8]) {
    push_len(out, data.len(), [Marker::Bin8, Marker::Bin16, Marker::Bin32]);
    out.extend_from_slice(data);
}

fn push_len(out: &mut Vec<u8>, len: usize, markers: [Marker; 3]) {
    if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[markers[0].to_u8(), len]);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(markers[1].to_u8());
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        // Limits of messages are far below 4 GiB.
        out.push(markers[2].to_u8());
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }
}

/// Appends a number whose grammar and range the reader has checked.
fn push_number(out: &mut Vec<u8>, text: &str) {
    if let Ok(number) = text.parse::<u64>() {
        return push_u64(out, number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return push_i64(out, number);
    }
    let number: f64 = text.parse().unwrap_or(f64::NAN);
    // JavaScript knows no difference between 2.0 and 2, nor between -0 and 0 in what it sends.
    if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number) {
        push_u64(out, number as u64);
    } else if number.fract() == 0.0 && (-9_223_372_036_854_775_808.0..0.0).contains(&number) {
        push_i64(out, number as i64);
    } else {
        out.push(Marker::F64.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    }
}

pub(super) fn push_u64(out: &mut Vec<u8>, number: u64) {
    if number < 128 {
        out.push(number as u8);
    } else if let Ok(number) = u8::try_from(number) {
        out.extend_from_slice(&[Marker::U8.to_u8(), number]);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(Marker::U16.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(Marker::U32.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(Marker::U64.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn push_i64(out: &mut Vec<u8>, number: i64) {
    if let Ok(number) = u64::try_from(number) {
        push_u64(out, number);
    } else if number >= -32 {
        out.push(number as u8);
    } else if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[Marker::I8.to_u8(), number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(Marker::I16.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        out.push(Marker::I32.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(Marker::I64.to_u8());
        out.extend_from_slice(&number.to_be_bytes());
    }
}
