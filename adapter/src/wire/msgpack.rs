//! Just enough MessagePack to walk through a message; values inside of it are the business of `protocol`.

use super::DecodeError;
use protocol::msgpack::value_len;
use rmp::Marker;

/// A walk over MessagePack values, one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes of the next value.
    pub(super) fn value(&mut self) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.rest.split_at(value_len(self.rest)?);
        self.rest = rest;
        Ok(value)
    }

    /// The number of elements of the array that begins here; they follow.
    pub(super) fn array(&mut self) -> Result<usize, DecodeError> {
        match self.marker()? {
            Marker::FixArray(len) => Ok(len.into()),
            Marker::Array16 => self.len::<2>(),
            Marker::Array32 => self.len::<4>(),
            _ => Err(DecodeError::Shape("array expected")),
        }
    }

    /// The number of entries of the map that begins here; they follow.
    pub(super) fn map(&mut self) -> Result<usize, DecodeError> {
        match self.marker()? {
            Marker::FixMap(len) => Ok(len.into()),
            Marker::Map16 => self.len::<2>(),
            Marker::Map32 => self.len::<4>(),
            _ => Err(DecodeError::Shape("map expected")),
        }
    }

    fn marker(&mut self) -> Result<Marker, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Shape("truncated"))?;
        self.rest = rest;
        Ok(Marker::from_u8(*first))
    }

    fn len<const N: usize>(&mut self) -> Result<usize, DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(N).ok_or(DecodeError::Shape("truncated"))?;
        self.rest = rest;
        Ok(bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
    }
}

/// The bytes of a string value; nothing if the value is something else.
pub(super) fn str_bytes(value: &[u8]) -> Option<&[u8]> {
    let (first, rest) = value.split_first()?;
    let header = match Marker::from_u8(*first) {
        Marker::FixStr(_) => 0,
        Marker::Str8 => 1,
        Marker::Str16 => 2,
        Marker::Str32 => 4,
        _ => return None,
    };
    rest.get(header..)
}

/// A value that says yes or no, as JavaScript sees it; nothing for what is neither.
pub(super) fn bool(value: &[u8]) -> Option<bool> {
    match value {
        [0xc2] => Some(false),
        [0xc3] => Some(true),
        _ => None,
    }
}

pub(super) fn is_number(value: &[u8]) -> bool {
    use Marker::{F32, F64, FixNeg, FixPos, I8, I16, I32, I64, U8, U16, U32, U64};
    value.first().is_some_and(|first| {
        matches!(
            Marker::from_u8(*first),
            FixPos(_) | FixNeg(_) | F32 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64
        )
    })
}

pub(super) fn push_array(out: &mut Vec<u8>, len: usize) {
    push_header(out, len, 0x90, 15, [0xdc, 0xdd]);
}

pub(super) fn push_map(out: &mut Vec<u8>, len: usize) {
    push_header(out, len, 0x80, 15, [0xde, 0xdf]);
}

pub(super) fn push_str(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(len) if len > 31 => out.extend([0xd9, len]),
        _ => push_header(out, text.len(), 0xa0, 31, [0xda, 0xdb]),
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub(super) fn push_uint(out: &mut Vec<u8>, number: u64) {
    // Writing to a vector cannot fail.
    let _ = rmp::encode::write_uint(out, number);
}

/// Writes the shortest header for a length; what has 2^32 elements does not fit into a frame.
fn push_header(out: &mut Vec<u8>, len: usize, fixed: u8, fixed_max: u8, wide: [u8; 2]) {
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if len <= fixed_max => out.push(fixed | len),
        (_, Ok(len)) => {
            out.push(wide[0]);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(wide[1]);
            out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}
