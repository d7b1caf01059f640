//! One master, one replica, three Sentinels.

use super::{Mode, Peer, Topic, eventually, redis_server::RedisServer};
use std::time::{Duration, Instant};

struct Sentinels {
    master: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    async fn start() -> Self {
        let master = RedisServer::start().await;
        let port = master.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let sentinel = RedisServer::start_sentinel(&format!(
                "sentinel monitor chimes 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds chimes 1000\n\
                 sentinel failover-timeout chimes 5000\n"
            ))
            .await;
            sentinels.push(sentinel);
        }
        let all = Self { master, replica, sentinels };
        for sentinel in &all.sentinels {
            let knows_all = async || {
                let master: std::collections::HashMap<String, String> =
                    sentinel.run(&["SENTINEL", "MASTER", "chimes"]).await;
                master["num-slaves"] == "1" && master["num-other-sentinels"] == "2"
            };
            eventually("all know each other", knows_all).await;
        }
        all
    }

    fn url(&self) -> String {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        // The first does not answer.
        format!("redis+sentinel://127.0.0.1:1,{}/chimes", hosts.join(","))
    }
}

async fn role(server: &RedisServer) -> String {
    let info: redis::InfoDict = server.run(&["INFO", "replication"]).await;
    info.get("role").expect("it is told")
}

/// How many clients publish at a server, other than Sentinels, which have names.
async fn n_publishers(server: &RedisServer) -> usize {
    let clients: String = server.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let publish = |line: &&str| line.contains(" name= ") && line.contains("cmd=publish");
    clients.lines().filter(publish).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_is_followed() {
    let mut all = Sentinels::start().await;
    let (a, b) =
        (Peer::start(Mode::Redis, &all.url()).await, Peer::start(Mode::Redis, &all.url()).await);
    let topics = [Topic::channel("a".into())];
    a.open(&topics).await;
    b.open(&topics).await;
    a.publish("a", "before").expect("there is a link");
    b.hears("a", "before").await;
    eventually("two publishers", async || n_publishers(&all.master).await == 2).await;
    assert_eq!(n_publishers(&all.replica).await, 0);
    all.master.stop();
    eventually("a new master", async || role(&all.replica).await == "master").await;
    let promoted = Instant::now();
    for peer in [&a, &b] {
        peer.heard_when("the gap", |heard| heard.contains(&super::Heard::Gap)).await;
        peer.up().await;
    }
    a.publish("a", "after").expect("there is a link");
    b.hears("a", "after").await;
    // The limit is what was promised; it is far above what is seen.
    assert!(promoted.elapsed() < Duration::from_secs(10), "{:?}", promoted.elapsed());

    // The old master comes back and is made a replica. Nobody goes there.
    all.master.start_again().await;
    eventually("a replica", async || role(&all.master).await == "slave").await;
    a.publish("a", "still").expect("there is a link");
    b.hears("a", "still").await;
    assert_eq!(n_publishers(&all.master).await, 0);
    assert_eq!((a.n_gaps(), b.n_gaps()), (1, 1));
}

/// Who is cut off from the others together with the old master would never find out by probes.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_sentinels_have_replaced_is_left_although_it_works() {
    let all = Sentinels::start().await;
    let peer = Peer::start(Mode::Redis, &all.url()).await;
    peer.open(&[Topic::channel("a".into())]).await;
    let other = RedisServer::start().await;
    for sentinel in &all.sentinels {
        let port = other.port().to_string();
        let _: String = sentinel.run(&["SENTINEL", "REMOVE", "chimes"]).await;
        let monitor = ["SENTINEL", "MONITOR", "chimes", "127.0.0.1", &port, "2"];
        let _: String = sentinel.run(&monitor).await;
    }
    peer.heard_when("the gap", |heard| heard.contains(&super::Heard::Gap)).await;
    peer.up().await;
    other.publish("a", b"elsewhere").await;
    peer.hears("a", "elsewhere").await;
    assert_eq!(role(&all.master).await, "master");
}
