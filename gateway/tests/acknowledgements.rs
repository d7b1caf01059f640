//! Events of the server that ask clients for an acknowledgement, on a node inside of this process.

use std::time::Duration;

use adapter::Selection;
use carillon::app::{App, Order};
use carillon::config::{Config, LogConfig, NamespaceConfig};
use carillon::telemetry;
use protocol::frame::{self, Opcode};
use protocol::socket::EventData;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A client that speaks just enough WebSocket: its mask is zero, so masking changes nothing.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
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
        let mut client = Self { stream, received: Vec::new() };
        assert!(client.next().await.starts_with('0'));
        client.send("40").await;
        assert!(client.next().await.starts_with("40{"));
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
            let n = tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time");
            assert_ne!(n.expect("read"), 0, "the connection is open");
        }
    }
}

#[tokio::test]
async fn answers_are_collected_until_all_have_come_or_time_is_up() {
    let telemetry = telemetry::init(&LogConfig::default()).expect("logging");
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().expect("address");
    config.server.internal_listen = config.server.listen;
    config.namespaces = vec![NamespaceConfig::default()];
    let app = App::build(config, telemetry).await.expect("a node");
    let (address, _) = app.addresses().expect("bound");
    let gateway = app.gateway().clone();
    let (orders, received) = mpsc::channel(1);
    let reread = Box::new(|| Err("nothing to read".to_owned()));
    let mut running = tokio::task::JoinSet::new();
    running.spawn(async move { app.run(received, reread).await });

    let mut talkative = Client::connect(address).await;
    let mut silent = Client::connect(address).await;
    let namespace = gateway.hub().lanes().namespaces().get("/").expect("the namespace");
    let data = EventData { json: r#"["question",1]"#.into(), attachments: Vec::new() };
    let everyone = Selection::default();
    let ask = |timeout| gateway.hub().emit_with_ack(&namespace, everyone.clone(), &data, timeout);

    // Everybody answers: the question ends long before its timeout.
    let both = async {
        for (client, answer) in [(&mut talkative, "first"), (&mut silent, "second")] {
            let packet = client.next().await;
            let id = packet.strip_prefix("42").and_then(|rest| rest.split('[').next());
            let id = id.expect("an id before the data").to_owned();
            client.send(&format!("43{id}[\"{answer}\"]")).await;
            // A second answer to the same question counts for nothing.
            client.send(&format!("43{id}[\"again\"]")).await;
        }
    };
    let (answers, ()) = tokio::join!(ask(Duration::from_secs(60)), both);
    let answers = answers.expect("room for a question");
    assert!(answers.is_complete());
    let mut texts: Vec<_> = answers.answers.iter().map(|(_, data)| &*data.json).collect();
    texts.sort_unstable();
    assert_eq!(texts, [r#"["first"]"#, r#"["second"]"#]);

    // One stays silent: what has come by the timeout is the result, and it says so.
    let one = async {
        let packet = talkative.next().await;
        let id = packet.strip_prefix("42").and_then(|rest| rest.split('[').next());
        let id = id.expect("an id before the data").to_owned();
        talkative.send(&format!("43{id}[]")).await;
    };
    let (answers, ()) = tokio::join!(ask(Duration::from_millis(500)), one);
    let answers = answers.expect("room for a question");
    assert_eq!((answers.n_asked, answers.answers.len()), (2, 1));
    assert!(!answers.is_complete());

    drop((talkative, silent));
    orders.send(Order::Drain).await.expect("the node takes orders");
}
