//! A long-polling client.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::http::{Http, Response};

/// Separates packets in a payload.
pub const SEPARATOR: char = '\u{1e}';

/// Where polling sessions begin.
pub const TARGET: &str = "/socket.io/?EIO=4&transport=polling";

/// A polling session, with one kept connection for each direction.
pub struct Polling {
    pub address: SocketAddr,
    pub sid: String,
    pub open: serde_json::Value,
    polls: Http,
    posts: Http,
    packets: VecDeque<String>,
}

impl Polling {
    /// A session without a namespace.
    pub async fn open(address: SocketAddr) -> Self {
        let mut polls = Http::connect(address).await;
        let response = polls.request("GET", TARGET, &[], b"").await;
        assert_eq!(response.status, 200, "{response:?}");
        let body = response.text();
        let open = body.strip_prefix('0').unwrap_or_else(|| panic!("an open packet, not {body}"));
        let open: serde_json::Value = serde_json::from_str(open).expect("JSON");
        let sid = open["sid"].as_str().expect("a session id").to_owned();
        let posts = Http::connect(address).await;
        Self { address, sid, open, polls, posts, packets: VecDeque::new() }
    }

    /// A client in the namespace `/`.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with_id(address).await.0
    }

    /// A client in the namespace `/`, and its socket id.
    pub async fn connect_with_id(address: SocketAddr) -> (Self, String) {
        let mut client = Self::open(address).await;
        assert_eq!(client.post("40").await.status, 200);
        let answer = client.next().await;
        let json = answer.strip_prefix("40").unwrap_or_else(|| panic!("CONNECT: {answer}"));
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let id = json["sid"].as_str().expect("a socket id").to_owned();
        (client, id)
    }

    /// The address of this session.
    pub fn target(&self) -> String {
        format!("{TARGET}&sid={}", self.sid)
    }

    /// The address at which this session upgrades.
    pub fn upgrade_target(&self) -> String {
        format!("{}&sid={}", super::websocket::TARGET, self.sid)
    }

    /// Sends packets.
    pub async fn post(&mut self, body: &str) -> Response {
        let target = self.target();
        self.posts
            .request("POST", &target, &["Content-Type: text/plain;charset=UTF-8"], body.as_bytes())
            .await
    }

    /// One poll.
    pub async fn poll(&mut self) -> Response {
        let target = self.target();
        self.polls.request("GET", &target, &[], b"").await
    }

    /// Begins a poll whose response [`Polling::polled`] reads.
    pub async fn begin_poll(&mut self) {
        let target = self.target();
        self.polls.send("GET", &target, &[], b"").await;
    }

    /// The response of the poll that was begun.
    pub async fn polled(&mut self) -> Response {
        self.polls.response().await.expect("a response to the poll")
    }

    /// The next packet; heartbeats are answered and not shown.
    pub async fn next(&mut self) -> String {
        loop {
            match self.packets.pop_front() {
                Some(packet) if packet == "2" => {
                    self.post("3").await;
                }
                Some(packet) => return packet,
                None => {
                    let response = self.poll().await;
                    assert_eq!(response.status, 200, "poll: {response:?}");
                    self.packets.extend(packets(&response));
                }
            }
        }
    }

    /// Sends an event and waits for its ack; everything else that arrives meanwhile is dropped.
    pub async fn call(&mut self, event: &str) -> String {
        let response = self.post(&format!("42777{event}")).await;
        assert_eq!(response.status, 200, "POST {event}: {response:?}");
        loop {
            if let Some(ack) = self.next().await.strip_prefix("43777") {
                return ack.to_owned();
            }
        }
    }

    /// Whether the session is over: the close packet comes at most once, and then it is unknown.
    pub async fn is_dead(&mut self) -> bool {
        for _ in 0..2 {
            // A connection that the server has closed is opened again.
            let mut polls = Http::connect(self.address).await;
            let response = polls.request("GET", &self.target(), &[], b"").await;
            match (response.status, response.code()) {
                (400, Some(1)) => return true,
                (200, _) if packets(&response).last().is_some_and(|packet| packet == "1") => {}
                _ => return false,
            }
        }
        false
    }
}

/// The packets of a payload.
pub fn packets(response: &Response) -> Vec<String> {
    response.text().split(SEPARATOR).map(str::to_owned).collect()
}
