//! Engine.IO as a client speaks it: WebSocket, polling, and polling that becomes WebSocket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, Result, bail, ensure};
use protocol::engine::OpenPacket;
use protocol::frame::{self, Opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::client::{HANDSHAKE_ACCEPT, HANDSHAKE_KEY, push_text};

/// Between two packets of a polling payload.
const SEPARATOR: char = '\x1e';

/// No head of a response is longer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Room for what one read brings.
const READ_BYTES: usize = 16 * 1024;

/// How a client gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// From the first byte.
    WebSocket,
    /// Polling first, as browsers do.
    Upgrade,
    /// Polling for good.
    Polling,
}

/// The two ends of a session's packets, each the text of an Engine.IO packet.
pub struct Packets {
    /// What came.
    pub incoming: mpsc::Sender<String>,
    /// What is to be sent.
    pub outgoing: mpsc::Receiver<String>,
}

impl Packets {
    async fn came(&self, packet: &str) -> Result<()> {
        self.incoming.send(packet.to_owned()).await.context("the session is over")
    }
}

/// Opens a session and carries its packets until it ends, which is always an error.
pub async fn carry(
    address: SocketAddr,
    transport: Transport,
    mut packets: Packets,
) -> Result<Infallible> {
    if transport == Transport::WebSocket {
        let socket = WebSocket::connect(address, None).await?;
        return socket.carry(&mut packets).await;
    }
    let mut polls = Http { address, stream: None };
    let target = "/socket.io/?EIO=4&transport=polling";
    let opening = polls.request("GET", target, "").await.context("open a polling session")?;
    let open = opening.split(SEPARATOR).next().and_then(|packet| packet.strip_prefix('0'));
    let open =
        OpenPacket::parse(open.context("no open packet")?).context("parse the open packet")?;
    let session = open.sid.to_string();
    for packet in opening.split(SEPARATOR) {
        packets.came(packet).await?;
    }
    let target = format!("{target}&sid={session}");
    let upgrade = async {
        if transport == Transport::Polling {
            std::future::pending::<()>().await;
        }
        let mut socket = WebSocket::connect(address, Some(&session)).await?;
        socket.send("2probe").await?;
        let answer = socket.receive().await?;
        ensure!(answer == "3probe", "the probe was answered with {answer:?}");
        Ok::<_, anyhow::Error>(socket)
    };
    let pause = watch::Sender::new(false);
    let incoming = packets.incoming.clone();
    let poll = poll(polls, &target, &incoming, pause.subscribe());
    let posts = Http { address, stream: None };
    let socket = {
        let post = post(posts, &target, &mut packets.outgoing, pause.subscribe());
        let mut polling = pin!(async { tokio::try_join!(poll, post) });
        let mut socket = tokio::select! {
            end = &mut polling => {
                end?;
                bail!("polling ended without a pause");
            }
            socket = upgrade => socket.context("upgrade")?,
        };
        // The server ends the poll that waits with a packet that means nothing.
        pause.send_replace(true);
        polling.await?;
        socket.send("5").await?;
        socket
    };
    socket.carry(&mut packets).await
}

/// Polls until it is told to pause.
async fn poll(
    mut http: Http,
    target: &str,
    incoming: &mpsc::Sender<String>,
    pause: watch::Receiver<bool>,
) -> Result<()> {
    while !*pause.borrow() {
        let payload = http.request("GET", target, "").await.context("poll")?;
        for packet in payload.split(SEPARATOR) {
            incoming.send(packet.to_owned()).await.context("the session is over")?;
        }
    }
    Ok(())
}

/// Posts what is to be sent until it is told to pause.
async fn post(
    mut http: Http,
    target: &str,
    outgoing: &mut mpsc::Receiver<String>,
    mut pause: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        let mut payload = tokio::select! {
            biased;
            _ = pause.wait_for(|is_paused| *is_paused) => return Ok(()),
            packet = outgoing.recv() => packet.context("the session is over")?,
        };
        while let Ok(packet) = outgoing.try_recv() {
            payload.push(SEPARATOR);
            payload.push_str(&packet);
        }
        let answer = http.request("POST", target, &payload).await.context("post")?;
        ensure!(answer == "ok", "a post was answered with {answer:?}");
    }
}

/// A kept connection for requests, one after the other.
struct Http {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Http {
    /// Sends a request and gives the body of the answer, which must be a success.
    async fn request(&mut self, method: &str, target: &str, body: &str) -> Result<String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        let len = body.len();
        let content = if method == "POST" {
            format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {len}\r\n")
        } else {
            String::new()
        };
        let address = self.address;
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{content}\r\n{body}");
        stream.write_all(request.as_bytes()).await.context("send a request")?;
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let head_len = read_head(&mut stream, &mut buffer).await?;
        let head = String::from_utf8_lossy(&buffer[..head_len]).to_lowercase();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let body_len: usize =
            header("content-length").context("no content-length")?.parse().context("its value")?;
        while buffer.len() < head_len + body_len {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "transport close");
        }
        let answer = String::from_utf8_lossy(&buffer[head_len..]).into_owned();
        if !head.starts_with("http/1.1 200 ") {
            bail!("{} {answer}", head.lines().next().unwrap_or_default());
        }
        if header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

/// The metrics page of a node, or another one of its internal listener.
pub async fn get(address: SocketAddr, target: &str) -> Result<String> {
    Http { address, stream: None }.request("GET", target, "").await
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await.context("transport error")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads until the head of a response is whole and gives its length.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(end + 4);
        }
        ensure!(buffer.len() < HEAD_BYTES_MAX, "an endless response");
        ensure!(stream.read_buf(buffer).await? > 0, "transport close");
    }
}

struct WebSocket {
    reads: OwnedReadHalf,
    writes: OwnedWriteHalf,
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    at: usize,
}

impl WebSocket {
    async fn connect(address: SocketAddr, session: Option<&str>) -> Result<WebSocket> {
        let mut stream = connect(address).await?;
        let session = session.map(|id| format!("&sid={id}")).unwrap_or_default();
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket{session} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {HANDSHAKE_KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.context("send the upgrade request")?;
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let at = read_head(&mut stream, &mut buffer).await?;
        let head = String::from_utf8_lossy(&buffer[..at]);
        let lower = head.to_lowercase();
        ensure!(
            lower.starts_with("http/1.1 101 ") && lower.contains(&HANDSHAKE_ACCEPT.to_lowercase()),
            "upgrade refused: {}",
            head.lines().next().unwrap_or_default()
        );
        let (reads, writes) = stream.into_split();
        Ok(WebSocket { reads, writes, buffer, at })
    }

    async fn send(&mut self, packet: &str) -> Result<()> {
        let mut out = Vec::new();
        push_text(&mut out, packet.as_bytes());
        self.writes.write_all(&out).await.context("send")
    }

    async fn receive(&mut self) -> Result<String> {
        receive(&mut self.reads, &mut self.buffer, &mut self.at).await
    }

    async fn carry(self, packets: &mut Packets) -> Result<Infallible> {
        let WebSocket { mut reads, mut writes, mut buffer, mut at } = self;
        let Packets { incoming, outgoing } = packets;
        let read = async {
            loop {
                let packet = receive(&mut reads, &mut buffer, &mut at).await?;
                incoming.send(packet).await.context("the session is over")?;
            }
        };
        let write = async {
            let mut out = Vec::new();
            loop {
                let packet = outgoing.recv().await.context("the session is over")?;
                out.clear();
                push_text(&mut out, packet.as_bytes());
                while let Ok(packet) = outgoing.try_recv() {
                    push_text(&mut out, packet.as_bytes());
                }
                writes.write_all(&out).await.context("send")?;
            }
        };
        tokio::select! {
            end = read => end,
            end = write => end,
        }
    }
}

/// Reads the next text frame.
async fn receive(
    reads: &mut OwnedReadHalf,
    buffer: &mut Vec<u8>,
    at: &mut usize,
) -> Result<String> {
    loop {
        if let Some(header) = frame::parse_header(&buffer[*at..])? {
            let start = *at + header.header_len;
            let end = start + usize::try_from(header.payload_len)?;
            if let Some(payload) = buffer.get(start..end) {
                ensure!(header.fin && header.mask.is_none(), "a frame in parts or with a mask");
                match header.opcode {
                    Opcode::Text => {}
                    Opcode::Close => bail!("transport close: {:?}", frame::close_code(payload)),
                    other => bail!("unexpected {other:?} frame"),
                }
                *at = end;
                return Ok(std::str::from_utf8(payload)?.to_owned());
            }
        }
        buffer.drain(..*at);
        *at = 0;
        ensure!(reads.read_buf(buffer).await? > 0, "transport close");
    }
}
