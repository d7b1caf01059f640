//! What the adapter sees and asks of the sockets of a node, on a node inside of this process.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use adapter::{Asked, Flags, Local, RoomName, Selection, SocketDetail};
use carillon::app::{App, Order};
use carillon::config::{Config, LogConfig, NamespaceConfig};
use carillon::socket::Gateway;
use carillon::telemetry::{self, Telemetry};
use futures_util::StreamExt;
use protocol::frame::{self, Opcode};
use protocol::socket::EventData;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// A node without rules, in this process.
struct Node {
    address: std::net::SocketAddr,
    gateway: Arc<Gateway>,
    orders: mpsc::Sender<Order>,
    running: tokio::task::JoinSet<()>,
}

impl Node {
    async fn start() -> Self {
        static TELEMETRY: LazyLock<Telemetry> =
            LazyLock::new(|| telemetry::init(&LogConfig::default()).expect("logging"));
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().expect("address");
        config.server.internal_listen = config.server.listen;
        config.drain.ready_delay = Duration::ZERO;
        config.drain.spread = Duration::ZERO;
        config.namespaces = vec![NamespaceConfig::default()];
        let app = App::build(config, TELEMETRY.clone()).await.expect("a node");
        let (address, _) = app.addresses().expect("bound");
        let gateway = app.gateway().clone();
        let (orders, received) = mpsc::channel(1);
        let reread = Box::new(|| Err("nothing to read".to_owned()));
        let mut running = tokio::task::JoinSet::new();
        running.spawn(async move {
            app.run(received, reread).await.expect("the node runs");
        });
        Self { address, gateway, orders, running }
    }

    fn local(&self) -> &impl Local {
        &**self.gateway.hub().lanes()
    }

    async fn stop(mut self) {
        self.orders.send(Order::Drain).await.expect("the node takes orders");
        self.running.join_next().await.expect("the node ran").expect("without a panic");
    }
}

/// A client that speaks just enough WebSocket: its mask is zero, so masking changes nothing.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// The id of its socket.
    id: String,
}

impl Client {
    async fn connect(address: std::net::SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("response head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        let mut client = Self { stream, received: Vec::new(), id: String::new() };
        assert!(client.next().await.starts_with('0'));
        client.send("40").await;
        let connected = client.next().await;
        let id =
            connected.strip_prefix(r#"40{"sid":""#).and_then(|rest| rest.strip_suffix(r#""}"#));
        client.id = id.expect("an id").to_owned();
        client
    }

    async fn send(&mut self, packet: &str) {
        let mut bytes = Vec::new();
        frame::encode_masked_header(&mut bytes, Opcode::Text, packet.len(), [0; 4]);
        bytes.extend_from_slice(packet.as_bytes());
        self.stream.write_all(&bytes).await.expect("send");
    }

    async fn next(&mut self) -> String {
        loop {
            if let Some(header) = frame::parse_header(&self.received).expect("valid frames") {
                let end = header.header_len + header.payload_len as usize;
                if self.received.len() >= end {
                    let payload = self.received[header.header_len..end].to_vec();
                    self.received.drain(..end);
                    return String::from_utf8(payload).expect("text");
                }
            }
            let read = self.stream.read_buf(&mut self.received);
            assert_ne!(in_time(read).await.expect("read"), 0, "the connection is open");
        }
    }

    /// Takes an event that asks for an acknowledgement. Gives the id to answer it under.
    async fn asked(&mut self) -> String {
        let packet = self.next().await;
        let id = packet.strip_prefix("42").and_then(|rest| rest.split('[').next());
        id.expect("an id before the data").to_owned()
    }
}

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time")
}

fn rooms(names: &[&str]) -> Vec<RoomName> {
    names.iter().map(|name| RoomName::from(*name)).collect()
}

fn to(names: &[&str]) -> Selection {
    Selection { rooms: rooms(names), except: Vec::new() }
}

fn names(rooms: &[RoomName]) -> BTreeSet<&str> {
    rooms.iter().map(|room| &**room).collect()
}

#[tokio::test]
async fn answers_come_one_by_one_until_nobody_owes_one() {
    let node = Node::start().await;
    let mut talkative = Client::connect(node.address).await;
    let mut silent = Client::connect(node.address).await;
    let data = EventData { json: r#"["question",1]"#.into(), attachments: Vec::new() };
    let everyone = to(&[]);
    let ask = |timeout| node.local().ask("/", &everyone, Flags::default(), data.clone(), timeout);

    let Asked { n_asked, mut answers } = ask(LONG).await;
    assert_eq!(n_asked, 2);
    let id = talkative.asked().await;
    assert_eq!(silent.asked().await, id, "one question has one id");
    talkative.send(&format!(r#"43{id}["first"]"#)).await;
    // A second answer to the same question counts for nothing.
    talkative.send(&format!(r#"43{id}["again"]"#)).await;
    let first = in_time(answers.next()).await.expect("an answer before all have come");
    assert_eq!(&*first.args.json, r#"["first"]"#);
    silent.send(&format!(r#"43{id}["second",2]"#)).await;
    let second = in_time(answers.next()).await.expect("an answer");
    assert_eq!(&*second.args.json, r#"["second",2]"#);
    assert_eq!(second.socket.as_deref(), Some(&*silent.id));
    assert_eq!(in_time(answers.next()).await, None);

    // Its time ends a question as well.
    let Asked { n_asked, mut answers } = ask(Duration::from_millis(50)).await;
    assert_eq!((n_asked, in_time(answers.next()).await), (2, None));
    silent.asked().await;

    // Nobody waits for a socket that has left.
    let Asked { n_asked, mut answers } = ask(LONG).await;
    assert_eq!(n_asked, 2);
    let id = silent.asked().await;
    drop(talkative);
    silent.send(&format!("43{id}[]")).await;
    assert_eq!(
        in_time(answers.next()).await.expect("an answer").socket.as_deref(),
        Some(&*silent.id)
    );
    assert_eq!(in_time(answers.next()).await, None);

    // A namespace without sockets, or one that is not there, owes nothing.
    let nobody = node.local().ask("/other", &to(&[]), Flags::default(), data, LONG).await;
    assert_eq!((nobody.n_asked, nobody.answers.count().await), (0, 0));
    node.stop().await;
}

#[tokio::test]
async fn sockets_and_rooms_are_described() {
    let node = Node::start().await;
    let one = Client::connect(node.address).await;
    let two = Client::connect(node.address).await;
    let local = node.local();
    local.join("/", &to(&[&one.id]), &rooms(&["a", "b"])).await;
    local.join("/", &to(&[&two.id]), &rooms(&["b", "c"])).await;
    assert_eq!(local.n_sockets(), 2);

    let all = local.rooms("/").await;
    assert_eq!(all.len(), 5, "each once");
    assert_eq!(names(&all), BTreeSet::from(["a", "b", "c", &one.id, &two.id]));

    let described = |selection: Selection| async move { local.sockets("/", &selection).await };
    let both: Vec<SocketDetail> = described(to(&["b"])).await;
    assert_eq!(both.len(), 2);
    let first = both.iter().find(|socket| *socket.id == *one.id).expect("the first");
    assert_eq!(names(&first.rooms), BTreeSet::from([&*one.id, "a", "b"]));
    assert_eq!(&*first.data, "{}");
    let only = described(Selection { except: rooms(&["c"]), ..to(&["b"]) }).await;
    assert_eq!(only, std::slice::from_ref(first));

    // A server can take a socket out of its own room.
    local.leave("/", &to(&[&one.id]), &rooms(&[&one.id, "b"])).await;
    let rest = described(to(&["a"])).await;
    assert_eq!(names(&rest[0].rooms), BTreeSet::from(["a"]));
    assert!(!names(&local.rooms("/").await).contains(&*one.id));

    assert!(described(to(&["nobody"])).await.is_empty());
    assert!(local.rooms("/other").await.is_empty());
    assert!(local.sockets("/other", &to(&[])).await.is_empty());
    drop((one, two));
    node.stop().await;
}

#[tokio::test]
async fn the_tag_of_a_node_stands_in_all_of_its_ids_and_then_stays() {
    let node = Node::start().await;
    assert!(node.local().change_tag());
    let tag = node.local().tag().expect("all ids begin with it");
    let client = Client::connect(node.address).await;
    assert!(client.id.starts_with(tag.as_str()));
    assert!(!node.local().change_tag());
    drop(client);
    node.stop().await;
}
