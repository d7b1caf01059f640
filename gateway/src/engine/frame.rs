//! One or more Engine.IO packets, encoded once and shared by every socket that gets them.
//!
//! The bytes are kept as WebSocket frames, headers included. The polling form is derived from
//! them when the first polling session asks for it, and kept for the others.

use std::sync::{Arc, LazyLock, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::engine::RECORD_SEPARATOR;
use protocol::frame::{self, Opcode};

/// Encoded packets in the order in which they leave. Cloning is a reference count.
#[derive(Clone)]
pub struct Frame(Arc<Encoded>);

struct Encoded {
    websocket: Box<[u8]>,
    polling: OnceLock<Box<str>>,
}

impl Frame {
    /// Takes complete, unmasked WebSocket frames.
    pub fn from_websocket(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(Arc::new(Encoded { websocket: bytes.into(), polling: OnceLock::new() }))
    }

    /// One text packet, its Engine.IO type digit included.
    pub fn text(packet: &str) -> Self {
        let mut bytes = Vec::with_capacity(packet.len() + 10);
        append_text(&mut bytes, packet);
        Self::from_websocket(bytes)
    }

    /// Several frames as one, so that each member of a room costs one write for all of them.
    pub fn concat<'a>(frames: impl Iterator<Item = &'a Frame> + Clone) -> Self {
        let len = frames.clone().map(|frame| frame.websocket().len()).sum();
        let mut bytes = Vec::with_capacity(len);
        for frame in frames {
            bytes.extend_from_slice(frame.websocket());
        }
        Self::from_websocket(bytes)
    }

    /// Whether there is no packet in it, so nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.websocket.is_empty()
    }

    /// The packets as WebSocket frames.
    pub fn websocket(&self) -> &[u8] {
        &self.0.websocket
    }

    /// The packets as one polling payload.
    pub fn polling(&self) -> &str {
        self.0.polling.get_or_init(|| polling_form(&self.0.websocket))
    }
}

/// The heartbeat packet `2`.
pub fn ping() -> Frame {
    static PING: LazyLock<Frame> = LazyLock::new(|| Frame::text("2"));
    PING.clone()
}

/// Appends one text packet as a WebSocket frame.
pub fn append_text(out: &mut Vec<u8>, packet: &str) {
    frame::encode_header(out, Opcode::Text, packet.len());
    out.extend_from_slice(packet.as_bytes());
}

/// Appends one binary message as a WebSocket frame.
pub fn append_binary(out: &mut Vec<u8>, payload: &[u8]) {
    frame::encode_header(out, Opcode::Binary, payload.len());
    out.extend_from_slice(payload);
}

/// Reads our own frames back; control frames mean nothing to a polling client and are left out.
fn polling_form(mut frames: &[u8]) -> Box<str> {
    let mut payload = String::with_capacity(frames.len());
    while let Ok(Some(header)) = frame::parse_header(frames) {
        let end = header.header_len + header.payload_len as usize;
        let body = &frames[header.header_len..end];
        frames = &frames[end..];
        if !matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            continue;
        }
        if !payload.is_empty() {
            payload.push(RECORD_SEPARATOR);
        }
        if header.opcode == Opcode::Text {
            payload.push_str(std::str::from_utf8(body).expect("text frames are made from text"));
        } else {
            payload.push('b');
            STANDARD.encode_string(body, &mut payload);
        }
    }
    payload.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_form_separates_packets_and_encodes_binary() {
        let mut bytes = Vec::new();
        append_text(&mut bytes, "451-[\"a\",{\"_placeholder\":true,\"num\":0}]");
        append_binary(&mut bytes, &[1, 2, 3]);
        frame::encode_header(&mut bytes, Opcode::Pong, 0);
        let frame = Frame::concat([Frame::from_websocket(bytes), ping()].iter());
        let expected = "451-[\"a\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQID\u{1e}2";
        assert_eq!(frame.polling(), expected);
    }
}
