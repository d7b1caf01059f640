//! Which Redis is good enough for a link, and what is said when it is not.

use crate::{
    eventually,
    node::{Node, config},
    redis_server::RedisServer,
};
use adapter::{AdapterConfig, LinkState, LostReason, Published};
use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

/// Collects what is logged in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while logging")).into_owned()
    }

    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while logging").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_redis_and_connects_when_it_comes() {
    let mut redis = RedisServer::stopped(&[]);
    let node = Node::launch(config(&redis.url()));
    assert_eq!(node.adapter.link(), LinkState::Connecting);
    assert_eq!(node.emit("lost"), Published::Lost(LostReason::LinkDown));
    redis.start_again().await;
    node.up().await;
    let other = Node::start(&redis.url()).await;
    other.emit("found");
    node.hears("found").await;
    assert!(node.gaps().is_empty(), "what was never there cannot be lost");
    assert_eq!(node.metric("carillon_redis_reconnects_total", None), 0.0);
    node.stop().await;
}

/// Answers whatever it is asked with the same line, and counts the connections.
async fn grumpy_server(answer: &'static str, count: Arc<AtomicUsize>) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("a bound address"));
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            count.fetch_add(1, Ordering::Relaxed);
            let mut buffer = [0; 4096];
            while let Ok(1..) = socket.read(&mut buffer).await {
                // Once for each command of the pipeline that sets a connection up.
                let n_commands = buffer.iter().filter(|byte| **byte == b'*').count();
                let answers = answer.repeat(n_commands);
                buffer.fill(0);
                if socket.write_all(answers.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (serving, url)
}

#[tokio::test]
async fn a_server_that_refuses_is_told_of_and_asked_again() {
    for (answer, told) in [
        ("-ERR unknown command `HELLO`, with args beginning with: `3`\r\n", "not speak RESP3"),
        ("-ERR unknown command 'hello'\r\n", "not speak RESP3"),
        ("-NOPROTO unsupported protocol version\r\n", "not speak RESP3"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "loading the dataset"),
        ("-ERR max number of clients reached\r\n", "max number of clients reached"),
        ("-NOAUTH HELLO must be called with the client already authenticated\r\n", "password"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "no link to Redis"),
    ] {
        let log = Log::default();
        let _guard = log.collect();
        let count = Arc::new(AtomicUsize::new(0));
        let (_serving, url) = grumpy_server(answer, Arc::clone(&count)).await;
        let node = Node::launch(config(&url));
        eventually(told, async || log.text().contains(told)).await;
        eventually("more attempts", async || count.load(Ordering::Relaxed) > 3).await;
        assert_eq!(node.adapter.link(), LinkState::Connecting);
    }
}

#[tokio::test]
async fn a_replica_is_refused_until_it_is_a_master() {
    let log = Log::default();
    let _guard = log.collect();
    let master = RedisServer::start().await;
    let port = master.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    let node = Node::launch(config(&replica.url()));
    eventually("the refusal", async || log.text().contains("not a master")).await;
    assert_eq!(node.adapter.link(), LinkState::Connecting);
    let _: String = replica.run(&["REPLICAOF", "NO", "ONE"]).await;
    node.up().await;
}

#[tokio::test]
async fn a_missing_grant_is_named_and_secrets_are_not() {
    let log = Log::default();
    let _guard = log.collect();
    let redis = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "carillon", "on", ">hunter2", "+@all", "resetchannels"];
    let _: String = redis.run(&user).await;
    let grant = async |grant: &str| {
        let _: String = redis.run(&["ACL", "SETUSER", "carillon", grant]).await;
    };
    let url = format!("redis://carillon:hunter2@127.0.0.1:{}", redis.port());
    let node = Node::launch(config(&url));
    // One of the channels of answers has a name that nobody knows before.
    grant("&socket.io-response#*").await;
    for missing in ["&socket.io-carillon#", "&socket.io#/#*", "&socket.io-request#/#"] {
        let named = format!("the user lacks the grant {missing}");
        eventually(&named, async || log.text().contains(&named)).await;
        assert_eq!(node.adapter.link(), LinkState::Connecting);
        grant(missing).await;
    }
    node.up().await;

    // A namespace of which nobody thought must not take the link from the others.
    node.adapter.open_namespace("/late");
    let named = "the user lacks the grant &socket.io#/late#*";
    eventually(named, async || log.text().contains(named)).await;
    assert_eq!(node.adapter.link(), LinkState::Up);

    let wrong = format!("redis://carillon:hunter3@127.0.0.1:{}", redis.port());
    let _stranger = Node::launch(config(&wrong));
    let refused = "Redis refused user or password";
    eventually(refused, async || log.text().contains(refused)).await;
    assert!(!log.text().contains("hunter"), "{}", log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_and_a_database_number_are_used() {
    let redis = RedisServer::start().await;
    let other = Node::start(&redis.url()).await;
    let _: String = redis.run(&["CONFIG", "SET", "requirepass", ""]).await;
    let user = ["ACL", "SETUSER", "default", ">secret"];
    let _: String = redis.run(&user).await;
    let url = format!("redis://:secret@127.0.0.1:{}/5", redis.port());
    let node = Node::start(&url).await;
    // Pub/sub knows no databases.
    node.emit("everywhere");
    other.hears("everywhere").await;
}

/// The key in `tls/` was made for this test and is good for nothing else; that of its root was thrown away.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_a_server_whose_certificate_is_believed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (certificate, key, root) = (path("server.pem"), path("server.key"), path("root.pem"));
    let plain = RedisServer::stopped(&[]);
    let port = plain.port().to_string();
    let server = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--port",
        "0",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &root,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://localhost:{port}");
    let mut believing = config(&url);
    let root = std::fs::read_to_string(&root).expect("the root certificate");
    believing.redis.as_mut().expect("set above").root_certificates = Some(root);
    let (a, b) = (Node::start_with(believing.clone()).await, Node::start_with(believing).await);
    a.emit("secretly");
    b.hears("secretly").await;
    let doubting: AdapterConfig = config(&url);
    let c = Node::launch(doubting);
    a.emit("secretly too");
    b.hears("secretly too").await;
    assert_eq!(c.adapter.link(), LinkState::Connecting);
    drop(server);
}
