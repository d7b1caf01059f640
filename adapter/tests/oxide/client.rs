//! A client of the smallest kind: Engine.IO over HTTP long-polling, one connection for each request.

use crate::soon;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

/// What stands between the packets of a payload.
const SEPARATOR: char = '\x1e';

/// A connected client. What it receives is collected until it is dropped.
pub struct Client {
    address: SocketAddr,
    ns: String,
    session: String,
    /// Its public id.
    pub id: String,
    packets: watch::Receiver<Vec<String>>,
    polling: JoinSet<()>,
}

impl Client {
    /// Connects to a namespace.
    pub async fn connect(address: SocketAddr, ns: &str) -> Self {
        let open = soon("the handshake", request(address, "GET", None, "")).await;
        let open: Value = serde_json::from_str(&open[1..]).expect("an open packet");
        let session = open["sid"].as_str().expect("a session id").to_owned();
        let (collect, packets) = watch::channel(Vec::new());
        let mut polling = JoinSet::new();
        polling.spawn(poll(address, session.clone(), collect));
        let (id, ns) = (String::new(), ns.to_owned());
        let mut client = Self { address, ns, session, id, packets, polling };
        client.post(&format!("40{}", client.prefix())).await;
        let connected = client.packet(|packet| packet.starts_with("40")).await;
        let connected = connected[2..].trim_start_matches(&client.prefix()).to_owned();
        let connected: Value = serde_json::from_str(&connected).expect("the id of the socket");
        connected["sid"].as_str().expect("an id").clone_into(&mut client.id);
        client
    }

    /// Sends an Engine.IO packet.
    pub async fn post(&self, packet: &str) {
        soon("a post", request(self.address, "POST", Some(&self.session), packet)).await;
    }

    /// Sends an event.
    pub async fn emit(&self, json: &str) {
        self.post(&format!("42{}{json}", self.prefix())).await;
    }

    /// Joins another namespace over the same connection.
    pub async fn join_namespace(&self, ns: &str) {
        self.post(&format!("40{ns},")).await;
        let front = format!("40{ns},");
        self.packet(|packet| packet.starts_with(&front)).await;
    }

    /// Takes no more packets, and keeps its connection.
    pub async fn stop_polling(&mut self) {
        self.polling.shutdown().await;
    }

    /// Answers a question with arguments.
    pub async fn answer(&self, question: &str, args: &str) {
        let digits = question[2..].trim_start_matches(&self.prefix());
        let id: String = digits.chars().take_while(char::is_ascii_digit).collect();
        self.post(&format!("43{}{id}{args}", self.prefix())).await;
    }

    /// Waits for a packet.
    pub async fn packet(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        let mut packets = self.packets.clone();
        let find = |packets: &Vec<String>| packets.iter().find(|packet| is_wanted(packet)).cloned();
        let what = format!("a packet behind {:?}", self.packets());
        let packets = soon(&what, packets.wait_for(|packets| find(packets).is_some())).await;
        find(&packets.expect("the client polls")).expect("just found")
    }

    /// Waits for an event, and gives all texts of events `["ev", text]` up to it.
    pub async fn texts_until(&self, text: &str) -> Vec<String> {
        let event = format!(r#"42{}["ev","{text}"]"#, self.prefix());
        self.packet(|packet| packet == event).await;
        let front = format!(r#"42{}["ev",""#, self.prefix());
        let texts = self.packets().into_iter().filter_map(|packet| {
            Some(packet.strip_prefix(&front)?.strip_suffix("\"]")?.to_owned())
        });
        texts.collect()
    }

    /// All packets received.
    pub fn packets(&self) -> Vec<String> {
        self.packets.borrow().clone()
    }

    fn prefix(&self) -> String {
        if self.ns == "/" { String::new() } else { format!("{},", self.ns) }
    }
}

async fn poll(address: SocketAddr, session: String, collect: watch::Sender<Vec<String>>) {
    loop {
        let payload = request(address, "GET", Some(&session), "").await;
        if payload.is_empty() {
            return;
        }
        for packet in payload.split(SEPARATOR) {
            if packet == "2" {
                request(address, "POST", Some(&session), "3").await;
            }
            collect.send_modify(|packets| packets.push(packet.to_owned()));
        }
    }
}

/// Does one request. Gives the body of the answer, an empty one if the session has ended.
async fn request(address: SocketAddr, method: &str, session: Option<&str>, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the application listens");
    let session = session.map(|session| format!("&sid={session}")).unwrap_or_default();
    let head = format!(
        "{method} /socket.io/?EIO=4&transport=polling{session} HTTP/1.1\r\nhost: test\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    if head.starts_with("HTTP/1.1 200") { body.to_owned() } else { String::new() }
}
