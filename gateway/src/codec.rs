//! How Socket.IO packets are written to the clients of this node: as JSON text, or as MessagePack
//! for clients that use `socket.io-msgpack-parser`. One choice for the whole node, so that a
//! broadcast is encoded once.

use std::cell::RefCell;

use protocol::frame::{self as websocket, Opcode};
use protocol::msgpack;
use protocol::socket::{self, EventData, PacketKind};

use crate::config::Parser;
use crate::engine::{Frame, frame};

/// The encoding of packets to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec(Parser);

impl Codec {
    /// The encoding that a parser of clients understands.
    pub fn new(parser: Parser) -> Self {
        Self(parser)
    }

    /// Which parser it is.
    pub fn parser(self) -> Parser {
        self.0
    }

    /// An event; with an id it asks for an acknowledgement.
    pub fn event(self, namespace: &str, id: Option<u64>, data: &EventData) -> Frame {
        self.frame(PacketKind::Event, namespace, id, data)
    }

    /// The answer to a CONNECT.
    pub fn connect(self, namespace: &str, sid: &str) -> Frame {
        // An id needs no escapes.
        let json = format!(r#"{{"sid":"{sid}"}}"#).into();
        self.frame(
            PacketKind::Connect,
            namespace,
            None,
            &EventData { json, attachments: Vec::new() },
        )
    }

    /// The end of a socket, which clients do not answer with a reconnect.
    pub fn disconnect(self, namespace: &str) -> Frame {
        self.frame(PacketKind::Disconnect, namespace, None, &EventData::default())
    }

    fn frame(self, kind: PacketKind, namespace: &str, id: Option<u64>, data: &EventData) -> Frame {
        let mut out = Vec::with_capacity(data.json.len() + namespace.len() + 32);
        self.append(&mut out, kind, namespace, id, data);
        Frame::from_websocket(out)
    }

    /// Appends a packet as WebSocket frames.
    pub fn append(
        self,
        out: &mut Vec<u8>,
        kind: PacketKind,
        namespace: &str,
        id: Option<u64>,
        data: &EventData,
    ) {
        match self.0 {
            Parser::Json => append_text(out, kind, namespace, id, data),
            Parser::Msgpack => append_msgpack(out, kind, namespace, id, data),
        }
    }
}

/// Bytes of the buffer for texts that a thread keeps.
const TEXT_KEPT: usize = 16 * 1024;

thread_local! {
    /// A text is written before the header that holds its length.
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn append_text(
    out: &mut Vec<u8>,
    kind: PacketKind,
    namespace: &str,
    id: Option<u64>,
    data: &EventData,
) {
    let n_attachments = data.attachments.len();
    let kind = kind.with_attachments(n_attachments);
    TEXT.with_borrow_mut(|packet| {
        packet.clear();
        packet.push('4');
        socket::encode_packet(packet, kind, n_attachments, namespace, id, &data.json);
        frame::append_text(out, packet);
        packet.shrink_to(TEXT_KEPT);
    });
    for attachment in &data.attachments {
        frame::append_binary(out, attachment);
    }
}

fn append_msgpack(
    out: &mut Vec<u8>,
    kind: PacketKind,
    namespace: &str,
    id: Option<u64>,
    data: &EventData,
) {
    let mut packet = Vec::with_capacity(data.json.len() + namespace.len() + 32);
    let encoded =
        msgpack::encode_packet(&mut packet, kind, namespace, id, &data.json, &data.attachments);
    match encoded {
        Ok(()) => {
            websocket::encode_header(out, Opcode::Binary, packet.len());
            out.extend_from_slice(&packet);
        }
        // Every event was checked where it entered the node. A packet that is not sent is better than
        // half of one, over which the client would give the connection up.
        Err(error) => tracing::error!(%error, "an event could not be written as MessagePack"),
    }
}
