//! WebSocket frame headers (RFC 6455) as a server sees them, without extensions.

use std::str;

use thiserror::Error;

/// Longest payload of a control frame.
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// Longest header a frame can have: two bytes, eight of length, four of mask.
pub const HEADER_LEN_MAX: usize = 14;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// A text message or its first fragment.
    Text = 0x1,
    /// A binary message or its first fragment.
    Binary = 0x2,
    /// Close.
    Close = 0x8,
    /// Ping.
    Ping = 0x9,
    /// Pong.
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: never fragmented, at most 125 bytes, allowed between fragments.
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// The head of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this frame ends its message.
    pub fin: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// Bytes of payload that follow the header, as announced: check it against a limit before reading on.
    pub payload_len: u64,
    /// The key of the payload. Clients must set one, so a server closes where it is missing.
    pub mask: Option<[u8; 4]>,
    /// Bytes of this header.
    pub header_len: usize,
}

/// Reads the header at the start of `buf`; `None` means that more bytes are needed.
///
/// A header that is already known to be wrong is refused before it is complete.
pub fn parse_header(buf: &[u8]) -> Result<Option<FrameHeader>, FrameError> {
    let Some(&first) = buf.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let fin = first & 0x80 != 0;
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::UnknownOpcode)?;
    if opcode.is_control() && !fin {
        return Err(FrameError::FragmentedControl);
    }
    let Some(&second) = buf.get(1) else { return Ok(None) };
    let short_len = second & 0x7f;
    if opcode.is_control() && usize::from(short_len) > CONTROL_PAYLOAD_MAX {
        return Err(FrameError::LongControl);
    }
    let (payload_len, mask_at) = match short_len {
        126 => {
            let Some(&bytes) = buf.get(2..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            let len = u64::from(u16::from_be_bytes(bytes));
            if len < 126 {
                return Err(FrameError::InvalidLength);
            }
            (len, 4)
        }
        127 => {
            let Some(&bytes) = buf.get(2..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            let len = u64::from_be_bytes(bytes);
            if len <= u64::from(u16::MAX) || len >> 63 != 0 {
                return Err(FrameError::InvalidLength);
            }
            (len, 10)
        }
        short => (u64::from(short), 2),
    };
    if second & 0x80 == 0 {
        return Ok(Some(FrameHeader { fin, opcode, payload_len, mask: None, header_len: mask_at }));
    }
    let Some(&mask) = buf.get(mask_at..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    Ok(Some(FrameHeader { fin, opcode, payload_len, mask: Some(mask), header_len: mask_at + 4 }))
}

/// Applies the mask to a whole payload, in place. The same call masks and unmasks.
pub fn unmask(buf: &mut [u8], mask: [u8; 4]) {
    let half = u32::from_ne_bytes(mask);
    let word = u64::from(half) << 32 | u64::from(half);
    let (words, rest) = buf.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends the header of a whole server frame: FIN set, no mask.
pub fn encode_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    encode(out, opcode, payload_len, 0);
}

/// Appends the header of a whole client frame. The payload has to follow, masked with [`unmask`].
pub fn encode_masked_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize, mask: [u8; 4]) {
    encode(out, opcode, payload_len, 0x80);
    out.extend_from_slice(&mask);
}

fn encode(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize, mask_bit: u8) {
    let first = 0x80 | opcode as u8;
    if let Ok(len @ 0..126) = u8::try_from(payload_len) {
        out.extend_from_slice(&[first, mask_bit | len]);
    } else if let Ok(len) = u16::try_from(payload_len) {
        let [high, low] = len.to_be_bytes();
        out.extend_from_slice(&[first, mask_bit | 126, high, low]);
    } else {
        out.extend_from_slice(&[first, mask_bit | 127]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Checks the payload of a received close frame and gives its code, if it has one.
pub fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    if payload.is_empty() {
        return Ok(None);
    }
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return Err(FrameError::InvalidClose);
    };
    let code = u16::from_be_bytes(code);
    let assigned = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !assigned || reason.len() > CONTROL_PAYLOAD_MAX - 2 || str::from_utf8(reason).is_err() {
        return Err(FrameError::InvalidClose);
    }
    Ok(Some(code))
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A reserved bit is set although no extension was agreed on.
    #[error("reserved bit set")]
    ReservedBits,
    /// An opcode without meaning.
    #[error("unknown opcode")]
    UnknownOpcode,
    /// A control frame in fragments.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame above 125 bytes.
    #[error("control frame too long")]
    LongControl,
    /// A length that is not in its shortest form, or has the highest bit set.
    #[error("invalid frame length")]
    InvalidLength,
    /// A close payload of one byte, with a code that may not be sent, or with an invalid reason.
    #[error("invalid close payload")]
    InvalidClose,
}

impl FrameError {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            FrameError::ReservedBits => "reserved_bits",
            FrameError::UnknownOpcode => "unknown_opcode",
            FrameError::FragmentedControl => "fragmented_control",
            FrameError::LongControl => "long_control",
            FrameError::InvalidLength => "invalid_length",
            FrameError::InvalidClose => "invalid_close",
        }
    }
}
