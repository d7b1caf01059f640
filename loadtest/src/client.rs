//! One Socket.IO client over WebSocket: the handshake, and packets out of bytes.
//!
//! A client owns nothing but its socket and the bytes of a frame that has not arrived whole, so that thousands fit
//! into the caches next to the server that is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use protocol::frame::{self, Opcode};
use serde::Deserialize;

/// How long the kernel may take to accept a connection. On loopback only a full backlog takes time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The key that every handshake sends, and the answer that proves that the server has read it.
pub const HANDSHAKE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// See [`HANDSHAKE_KEY`].
pub const HANDSHAKE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A constant mask costs the server what a random one costs, and the generator nothing.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// No response to a handshake is longer.
const HANDSHAKE_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The upgrade request is sent.
    Upgrading,
    /// Switched to WebSocket, the Engine.IO open packet has not come.
    Opening,
    /// The Socket.IO CONNECT is sent.
    Connecting,
    Ready,
}

/// What reading a client's socket led to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing about the connection's state has changed.
    Same,
    /// The namespace has just accepted the client.
    Connected,
}

/// One client.
pub struct Client {
    stream: TcpStream,
    partial: Vec<u8>,
    phase: Phase,
    id: Box<str>,
}

/// The part of the CONNECT answer that matters.
#[derive(Deserialize)]
struct Connected<'a> {
    sid: &'a str,
}

impl Client {
    /// Opens the TCP connection and sends the upgrade request.
    pub fn start(address: SocketAddr) -> Result<Client> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {HANDSHAKE_KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).context("send the upgrade request")?;
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream: TcpStream::from_std(stream),
            partial: Vec::new(),
            phase: Phase::Upgrading,
            id: Box::default(),
        })
    }

    /// The public id of the socket; empty until it is connected.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// For the poll.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends frames that [`push_text`] has made.
    pub fn send(&mut self, frames: &[u8]) -> Result<()> {
        // What is in flight is far less than a socket buffer: a server that does not take it has stopped reading.
        let written = self.stream.write(frames).context("send")?;
        ensure!(written == frames.len(), "the server does not read what it is sent");
        Ok(())
    }

    /// Reads what has arrived. `work` gets each Socket.IO packet and appends the frames to answer with.
    pub fn read<F>(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
        work: &mut F,
    ) -> Result<Progress>
    where
        F: FnMut(&[u8], &mut Vec<u8>),
    {
        let mut progress = Progress::Same;
        loop {
            let len = match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("receive"),
            };
            if self.take(&buffer[..len], out, work)? == Progress::Connected {
                progress = Progress::Connected;
            }
            // A short read has emptied the socket: more bytes raise a new event.
            if len < buffer.len() {
                break;
            }
        }
        if !out.is_empty() {
            self.send(out)?;
            out.clear();
        }
        Ok(progress)
    }

    fn take<F>(&mut self, bytes: &[u8], out: &mut Vec<u8>, work: &mut F) -> Result<Progress>
    where
        F: FnMut(&[u8], &mut Vec<u8>),
    {
        let before = self.phase;
        if self.partial.is_empty() {
            let used = self.parse(bytes, out, work)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(bytes);
            let used = self.parse(&whole, out, work)?;
            if used < whole.len() {
                whole.drain(..used);
                self.partial = whole;
            }
        }
        let connected = before != Phase::Ready && self.phase == Phase::Ready;
        Ok(if connected { Progress::Connected } else { Progress::Same })
    }

    /// Handles what is whole in `bytes` and gives the number of bytes that were used.
    fn parse<F>(&mut self, bytes: &[u8], out: &mut Vec<u8>, work: &mut F) -> Result<usize>
    where
        F: FnMut(&[u8], &mut Vec<u8>),
    {
        let mut at = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                ensure!(bytes.len() < HANDSHAKE_MAX, "endless response to the upgrade request");
                return Ok(0);
            };
            let head = String::from_utf8_lossy(&bytes[..end]);
            ensure!(
                head.starts_with("HTTP/1.1 101 ") && head.contains(HANDSHAKE_ACCEPT),
                "upgrade refused: {}",
                head.lines().next().unwrap_or_default()
            );
            self.phase = Phase::Opening;
            at = end + 4;
        }
        while let Some(header) = frame::parse_header(&bytes[at..])? {
            ensure!(header.fin && header.mask.is_none(), "a frame in parts or with a mask");
            let start = at + header.header_len;
            let len = usize::try_from(header.payload_len)?;
            let Some(payload) = bytes.get(start..start + len) else { break };
            match header.opcode {
                Opcode::Text => self.text(payload, out, work)?,
                Opcode::Close => {
                    bail!("the server closed the WebSocket: {:?}", frame::close_code(payload))
                }
                other => bail!("unexpected {other:?} frame"),
            }
            at = start + len;
        }
        Ok(at)
    }

    fn text<F>(&mut self, packet: &[u8], out: &mut Vec<u8>, work: &mut F) -> Result<()>
    where
        F: FnMut(&[u8], &mut Vec<u8>),
    {
        match (self.phase, packet) {
            (Phase::Opening, [b'0', b'{', ..]) => {
                push_text(out, b"40");
                self.phase = Phase::Connecting;
            }
            (Phase::Connecting, [b'4', b'0', json @ ..]) => {
                let connected: Connected<'_> =
                    serde_json::from_slice(json).context("parse the CONNECT answer")?;
                self.id = connected.sid.into();
                self.phase = Phase::Ready;
            }
            (Phase::Ready, [b'4', packet @ ..]) => work(packet, out),
            (_, b"2") => push_text(out, b"3"),
            _ => bail!("unexpected packet {:?}", String::from_utf8_lossy(packet)),
        }
        Ok(())
    }
}

/// Appends a masked text frame.
pub fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    frame::encode_masked_header(out, Opcode::Text, text.len(), MASK);
    let start = out.len();
    out.extend_from_slice(text);
    frame::unmask(&mut out[start..], MASK);
}
