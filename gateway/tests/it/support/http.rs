//! HTTP/1.1 as raw bytes over one connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

/// One connection.
pub struct Http {
    stream: TcpStream,
    received: Vec<u8>,
    address: SocketAddr,
}

/// One response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; several of one name are joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of an Engine.IO error body.
    pub fn code(&self) -> Option<u64> {
        serde_json::from_slice::<serde_json::Value>(&self.body).ok()?.get("code")?.as_u64()
    }

    /// Whether the response ends its connection.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Connects from an address of this machine.
pub async fn connect_from(source: IpAddr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::new(source, 0)).expect("bind the source address");
    let stream = within("connect", socket.connect(address)).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

impl Http {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST.into(), address).await
    }

    /// Connects from a certain loopback address.
    pub async fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let stream = connect_from(source, address).await;
        Self { stream, received: Vec::new(), address }
    }

    /// Writes bytes; a peer that has closed is no failure of the test.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("write a request", self.stream.write_all(bytes)).await
    }

    /// Sends a request without waiting for its response.
    pub async fn send(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        let has =
            |name: &str| headers.iter().any(|line| line.to_ascii_lowercase().starts_with(name));
        if !has("host:") {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        if method == "POST" && !has("content-length:") && !has("transfer-encoding:") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        // The response says more than the failed write of a body that nobody wanted.
        let _ = self.write(&bytes).await;
    }

    /// Sends a request and reads its response.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Response {
        self.send(method, target, headers, body).await;
        let response =
            if method == "HEAD" { self.head_response().await } else { self.response().await };
        response
            .unwrap_or_else(|| panic!("{method} {target}: the connection ended without a response"))
    }

    /// The next response; nothing if the connection ends before one is complete.
    pub async fn response(&mut self) -> Option<Response> {
        let mut response = self.head_response().await?;
        if matches!(response.status, 101 | 204 | 304) {
            return Some(response);
        }
        let chunked = response.header("transfer-encoding").is_some();
        assert!(!chunked, "this client reads no chunked bodies");
        let length = match response.header("content-length") {
            Some(length) => length.parse().expect("a content length"),
            None => 0,
        };
        while self.received.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        response.body = self.received.drain(..length).collect();
        Some(response)
    }

    async fn head_response(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8(head).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Response { status, headers, body: Vec::new() })
    }

    /// Reads more; false at the end of the connection.
    async fn fill(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.received);
        matches!(within("read a response", read).await, Ok(n) if n > 0)
    }

    /// Everything until the connection ends, as text.
    pub async fn rest(mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Gives the connection up to a client of another protocol, with what it has received.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.received)
    }
}

/// A request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> Response {
    Http::connect(address).await.request(method, target, headers, body).await
}

/// A GET on a connection of its own.
pub async fn get(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, &[], b"").await
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
