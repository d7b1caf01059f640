//! The floor of a comparison: what is left when a server does nothing but what the kernel demands.
//!
//! One thread, one poll, no state beside the sockets: frames of the load generator are recognised by their first
//! bytes, every message is encoded once, and what a read brought for everyone is written to everyone in one write.
//! It trusts its clients, and a socket that does not take a write whole is closed. Nothing else may use it.
//!
//! With `FLOOR_FAULT` set to `lose`, `duplicate` or `swap` it does so with broadcasts, for the proof that the load
//! generator notices.
#![expect(clippy::print_stdout, reason = "the ready line goes to standard output")]

use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use protocol::frame::{self, Opcode};

const LISTENER: Token = Token(usize::MAX);
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The answer to the one key that the load generator sends, and the Engine.IO open packet behind it.
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OPEN: &str =
    r#"0{"sid":"0","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

struct Floor {
    poll: Poll,
    listener: TcpListener,
    sockets: Vec<Option<TcpStream>>,
    free: Vec<usize>,
    /// Frames for everyone.
    all: Vec<u8>,
    /// Frames for the socket that is being read.
    own: Vec<u8>,
    switch: Vec<u8>,
    fault: Option<Fault>,
}

/// What is done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Lose,
    Duplicate,
    Swap,
}

impl Fault {
    fn read() -> Result<Option<Fault>> {
        Ok(match std::env::var("FLOOR_FAULT").as_deref() {
            Err(_) => None,
            Ok("lose") => Some(Fault::Lose),
            Ok("duplicate") => Some(Fault::Duplicate),
            Ok("swap") => Some(Fault::Swap),
            Ok(other) => anyhow::bail!("unknown FLOOR_FAULT {other}"),
        })
    }
}

fn main() -> Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!(r#"{{"event":"listening","public":"{}"}}"#, listener.local_addr()?);
    let mut switch = SWITCH.as_bytes().to_vec();
    push(&mut switch, &[OPEN.as_bytes()]);
    let (sockets, free, all, own) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let fault = Fault::read()?;
    let mut floor = Floor { poll, listener, sockets, free, all, own, switch, fault };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept()?,
                Token(index) => floor.read(index, &mut buffer)?,
            }
        }
        floor.flush();
    }
}

impl Floor {
    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.sockets.push(None);
                self.sockets.len() - 1
            });
            self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            self.sockets[index] = Some(stream);
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) -> Result<()> {
        let Some(stream) = self.sockets[index].as_mut() else { return Ok(()) };
        let len = match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(0) | Err(_) => {
                self.sockets[index] = None;
                self.free.push(index);
                return Ok(());
            }
            Ok(len) => len,
        };
        if buffer.starts_with(b"GET ") {
            self.own.extend_from_slice(&self.switch);
        } else {
            self.frames(index, &mut buffer[..len])?;
        }
        if !self.own.is_empty() {
            let own = std::mem::take(&mut self.own);
            self.write(index, &own);
            self.own = own;
            self.own.clear();
        }
        Ok(())
    }

    fn frames(&mut self, index: usize, mut bytes: &mut [u8]) -> Result<()> {
        while let Some(header) = frame::parse_header(bytes)? {
            let (start, len) = (header.header_len, usize::try_from(header.payload_len)?);
            let (frame, rest) =
                bytes.split_at_mut_checked(start + len).context("a frame in two reads")?;
            let payload = &mut frame[start..];
            frame::unmask(payload, header.mask.context("a frame without mask")?);
            self.packet(index, payload);
            bytes = rest;
        }
        Ok(())
    }

    fn packet(&mut self, index: usize, packet: &[u8]) {
        const BROADCAST: &[u8] = br#"42["bcast",{"room":"bench","payload":"#;
        const DIRECT: &[u8] = br#"42["to",{"id":""#;
        if let Some(payload) = packet.strip_prefix(BROADCAST) {
            // Without the `}]` that ends the event.
            let parts: [&[u8]; 3] = [b"42[\"msg\",", &payload[..payload.len() - 2], b"]"];
            if self.fault == Some(Fault::Swap) {
                let later = std::mem::take(&mut self.all);
                push(&mut self.all, &parts);
                self.all.extend_from_slice(&later);
            } else {
                push(&mut self.all, &parts);
            }
        } else if let Some(rest) = packet.strip_prefix(DIRECT) {
            // `000017","payload":"..."}]`, where the id is the index of the socket in six digits.
            let other =
                rest[..6].iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0'));
            let payload = &rest[br#"000017","payload":"#.len()..rest.len() - 2];
            let mut frame = Vec::new();
            push(&mut frame, &[b"42[\"msg\",", payload, b"]"]);
            self.write(other, &frame);
        } else if packet == b"40" {
            push(&mut self.own, &[format!(r#"40{{"sid":"{index:06}"}}"#).as_bytes()]);
        } else if let Some(open) = packet.iter().position(|&byte| byte == b'[') {
            // An event with an ack, `42<id>["echo",<arguments>]`; joining and leaving answer nothing.
            let id = &packet[2..open];
            let arguments = packet
                .strip_suffix(b"]")
                .and_then(|packet| packet[open..].strip_prefix(b"[\"echo\","));
            push(&mut self.own, &[b"43", id, b"[", arguments.unwrap_or_default(), b"]"]);
        }
    }

    fn flush(&mut self) {
        if self.all.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.all);
        let lost = usize::from(self.fault == Some(Fault::Lose));
        for index in lost..self.sockets.len() {
            self.write(index, &all);
        }
        if self.fault == Some(Fault::Duplicate) {
            self.write(0, &all);
        }
        self.all = all;
        self.all.clear();
    }

    fn write(&mut self, index: usize, frames: &[u8]) {
        let Some(stream) = self.sockets[index].as_mut() else { return };
        if !matches!(stream.write(frames), Ok(len) if len == frames.len()) {
            self.sockets[index] = None;
            self.free.push(index);
        }
    }
}

/// Appends a text frame of several parts.
fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    frame::encode_header(out, Opcode::Text, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}
