//! Decodes JSON lines from the standard input, for comparison with other decoders.
//!
//! Each line is `{"layer": "socket" | "engine" | "payload", "text": "…"}`; each answer is one line too, either
//! `{"ok":false,"error":"…"}` or `{"ok":true, …}` with the parts of what was read.

use std::io::{self, BufRead, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use protocol::{
    engine,
    socket::{self, Event, Packet, PacketError, PacketKind},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

const ATTACHMENTS_MAX: usize = 10;
const PACKETS_MAX: usize = 1000;

#[derive(Deserialize)]
struct Line {
    layer: String,
    text: String,
}

/// A Socket.IO packet with its data as it was written, so that the reader of the answer parses the numbers.
#[derive(Serialize)]
struct SocketAnswer<'a> {
    ok: bool,
    kind: u8,
    attachments: usize,
    namespace: &'a str,
    id: Option<u64>,
    name: Option<String>,
    data: Option<&'a RawValue>,
}

fn main() -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let answer = match line.layer.as_str() {
            "socket" => decode_socket(&line.text).unwrap_or_else(|error| refused(error.kind())),
            "engine" => match engine::Packet::parse_text(&line.text) {
                Ok(packet) => json!({"ok": true, "packets": [engine_packet(&packet)]}).to_string(),
                Err(error) => refused(error.kind()),
            },
            _ => match engine::payload_packets(&line.text, PACKETS_MAX) {
                Ok(payload) => {
                    let packets: Vec<Value> = payload.map(payload_entry).collect();
                    json!({"ok": true, "packets": packets}).to_string()
                }
                Err(error) => refused(error.kind()),
            },
        };
        writeln!(out, "{answer}")?;
    }
    out.flush()
}

fn refused(kind: &str) -> String {
    json!({"ok": false, "error": kind}).to_string()
}

/// Applies every check between the text and the rules of a namespace.
fn decode_socket(text: &str) -> Result<String, PacketError> {
    let packet = Packet::parse(text, ATTACHMENTS_MAX)?;
    if packet.kind.is_binary() {
        socket::check_placeholders(packet.data, packet.attachments)?;
    }
    let mut name = None;
    match packet.kind {
        PacketKind::Event | PacketKind::BinaryEvent => {
            name = Some(Event::parse(packet.data)?.name.into_owned());
        }
        PacketKind::Ack | PacketKind::BinaryAck => drop(socket::parse_args(packet.data)?),
        PacketKind::Connect => drop(socket::parse_auth(packet.data)?),
        // Only servers send errors; whoever gets one from a client refuses it whatever it says.
        PacketKind::Disconnect | PacketKind::ConnectError => {}
    }
    let answer = SocketAnswer {
        ok: true,
        kind: packet.kind as u8,
        attachments: packet.attachments,
        namespace: packet.namespace,
        id: packet.id,
        name,
        data: serde_json::from_str(packet.data).ok(),
    };
    serde_json::to_string(&answer).map_err(|_| PacketError::InvalidData)
}

fn payload_entry(packet: Result<engine::Packet<'_>, engine::EngineError>) -> Value {
    match packet {
        Ok(packet) => engine_packet(&packet),
        Err(error) => json!({"type": "error", "data": error.kind()}),
    }
}

fn engine_packet(packet: &engine::Packet<'_>) -> Value {
    let (kind, data) = match packet {
        engine::Packet::Open(data) => ("open", *data),
        engine::Packet::Close => ("close", ""),
        engine::Packet::Ping(data) => ("ping", *data),
        engine::Packet::Pong(data) => ("pong", *data),
        engine::Packet::Message(data) => ("message", *data),
        engine::Packet::Upgrade => ("upgrade", ""),
        engine::Packet::Noop => ("noop", ""),
        engine::Packet::Binary(data) => {
            return json!({"type": "binary", "data": STANDARD.encode(data)});
        }
    };
    json!({"type": kind, "data": data})
}
