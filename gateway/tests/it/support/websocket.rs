//! A WebSocket client that can write anything, valid or not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{Http, Response};
use super::within;

/// Where WebSocket sessions begin.
pub const TARGET: &str = "/socket.io/?EIO=4&transport=websocket";

/// The headers of a valid handshake.
pub const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// RFC 6455 opcodes.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x5a, 0x01, 0xff, 0x33];

/// A WebSocket connection.
pub struct Ws {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Text(String),
    Binary(Vec<u8>),
    /// A pong of the WebSocket protocol.
    Pong(Vec<u8>),
    /// The connection ended; the status if a close frame held one.
    Closed(Option<u16>),
}

/// A frame with every part chosen freely.
pub fn frame(first_byte: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    let bit = if masked { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..=125 => bytes.push(bit | len as u8),
        len @ 126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(bit | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

/// A whole text message.
pub fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, true, payload.as_bytes())
}

/// A whole binary message.
pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, true, payload)
}

/// One fragment of a message.
pub fn fragment(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(if fin { FIN | opcode } else { opcode }, true, payload)
}

/// A control frame.
pub fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, true, payload)
}

impl Ws {
    /// Performs the handshake at `target`; the response if it is refused.
    pub async fn handshake(
        mut http: Http,
        target: &str,
        headers: &[&str],
    ) -> Result<Self, Response> {
        let headers: Vec<&str> = HANDSHAKE.iter().chain(headers).copied().collect();
        let response = http.request("GET", target, &headers, b"").await;
        if response.status != 101 {
            return Err(response);
        }
        Ok(Self::taken_over(http))
    }

    /// The WebSocket on a connection whose handshake was answered with 101.
    pub fn taken_over(http: Http) -> Self {
        let (stream, received) = http.into_parts();
        Self { stream, received }
    }

    /// A connection at `target` for which there is no Engine.IO session yet, or one that upgrades.
    pub async fn upgrade(address: SocketAddr, target: &str) -> Self {
        Self::handshake(Http::connect(address).await, target, &[])
            .await
            .unwrap_or_else(|response| panic!("handshake at {target}: {response:?}"))
    }

    /// A session without a namespace.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_from(Ipv4Addr::LOCALHOST.into(), address, TARGET).await.0
    }

    /// A session from a certain loopback address, and its open packet.
    pub async fn open_from(source: IpAddr, address: SocketAddr, target: &str) -> (Self, String) {
        let http = Http::connect_from(source, address).await;
        let mut ws = match Self::handshake(http, target, &[]).await {
            Ok(ws) => ws,
            Err(response) => panic!("handshake at {target}: {response:?}"),
        };
        let open = ws.text().await;
        assert!(open.starts_with("0{"), "an open packet comes first, not {open}");
        (ws, open)
    }

    /// A client in the namespace `/`.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with_id(address).await.0
    }

    /// A client in the namespace `/`, and its socket id.
    pub async fn connect_with_id(address: SocketAddr) -> (Self, String) {
        let mut ws = Self::open(address).await;
        let id = ws.enter("/", "").await;
        (ws, id)
    }

    /// Connects to a namespace; answers the socket id.
    pub async fn enter(&mut self, namespace: &str, auth: &str) -> String {
        let prefix = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(&format!("40{prefix}{auth}")).await;
        let answer = self.text().await;
        let json = answer
            .strip_prefix(&format!("40{prefix}"))
            .unwrap_or_else(|| panic!("CONNECT to {namespace}: {answer}"));
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        json["sid"].as_str().expect("a socket id").to_owned()
    }

    /// Sends a text message.
    pub async fn send(&mut self, payload: &str) {
        let _ = self.write(&text(payload)).await;
    }

    /// Writes bytes; answers whether the peer took them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        within("write frames", self.stream.write_all(bytes)).await.is_ok()
    }

    /// The next message of Engine.IO or above. Heartbeats are answered and not shown.
    pub async fn next(&mut self) -> Received {
        within("a message", self.quiet_next()).await
    }

    /// The next message, heartbeats included; WebSocket pings are answered.
    pub async fn next_raw(&mut self) -> Received {
        within("a message", self.quiet_next_raw()).await
    }

    /// As [`Ws::next`], for a client that may wait as long as nothing happens.
    pub async fn quiet_next(&mut self) -> Received {
        loop {
            match self.quiet_next_raw().await {
                Received::Text(text) if text == "2" => self.send("3").await,
                other => return other,
            }
        }
    }

    async fn quiet_next_raw(&mut self) -> Received {
        loop {
            let Some((first_byte, payload)) = self.next_frame().await else {
                return Received::Closed(None);
            };
            assert_eq!(first_byte & 0x70, 0, "a reserved bit of {first_byte:#x}");
            assert_ne!(first_byte & FIN, 0, "the server sends whole messages");
            match first_byte & 0x0f {
                TEXT => return Received::Text(String::from_utf8(payload).expect("UTF-8")),
                BINARY => return Received::Binary(payload),
                CLOSE => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Received::Closed(code);
                }
                PING => {
                    let _ = self.write(&control(PONG, &payload)).await;
                }
                PONG => return Received::Pong(payload),
                opcode => panic!("opcode {opcode}"),
            }
        }
    }

    async fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((head, len)) = self.frame_size()
                && self.received.len() >= head + len
            {
                let first_byte = self.received[0];
                let payload = self.received[head..head + len].to_vec();
                self.received.drain(..head + len);
                return Some((first_byte, payload));
            }
            let read = self.stream.read_buf(&mut self.received);
            if !matches!(read.await, Ok(n) if n > 0) {
                return None;
            }
        }
    }

    fn frame_size(&self) -> Option<(usize, usize)> {
        let bytes = &self.received;
        let short = *bytes.get(1)?;
        assert_eq!(short & 0x80, 0, "servers do not mask");
        match short {
            126 => Some((4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
            127 => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize)),
            len => Some((2, len.into())),
        }
    }

    /// The next message, which has to be text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Received::Text(text) => text,
            other => panic!("text was expected, not {other:?}"),
        }
    }

    /// Reads until the connection ends; answers what came before, and the close status.
    pub async fn until_closed(&mut self) -> (Vec<Received>, Option<u16>) {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Received::Closed(code) => return (before, code),
                other => before.push(other),
            }
        }
    }

    /// Sends an event and waits for its ack; everything else that arrives meanwhile is dropped.
    pub async fn call(&mut self, event: &str) -> String {
        self.send(&format!("42777{event}")).await;
        loop {
            let text = self.text().await;
            if let Some(ack) = text.strip_prefix("43777") {
                return ack.to_owned();
            }
        }
    }

    /// The TCP connection, for tests that tune or break it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}
