//! A Redis Cluster of three masters.

use super::{
    Heard, LinkState, LostReason, Mode, Peer, Topic, bus, config, eventually,
    redis_server::RedisServer, soon,
};
use crate::bus::topology::slot;
use std::{collections::HashSet, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const RANGES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

struct Cluster {
    masters: Vec<RedisServer>,
}

async fn start_server() -> RedisServer {
    RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]).await
}

async fn info(server: &RedisServer, field: &str) -> String {
    let info: String = server.run(&["CLUSTER", "INFO"]).await;
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.expect("it is told").trim().to_owned()
}

impl Cluster {
    async fn start() -> Self {
        let mut masters = Vec::new();
        for (index, (first, last)) in RANGES.into_iter().enumerate() {
            let server = start_server().await;
            let (first, last) = (first.to_string(), last.to_string());
            let _: String = server.run(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            let epoch = (index + 1).to_string();
            let _: String = server.run(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            masters.push(server);
        }
        let cluster = Self { masters };
        for server in &cluster.masters[1..] {
            cluster.meet(server).await;
        }
        for server in &cluster.masters {
            eventually("a cluster", async || {
                info(server, "cluster_state").await == "ok"
                    && info(server, "cluster_slots_ok").await == "16384"
                    && info(server, "cluster_known_nodes").await == "3"
            })
            .await;
        }
        cluster
    }

    async fn meet(&self, server: &RedisServer) {
        let port = self.masters[0].port().to_string();
        let _: String = server.run(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    }

    fn url(&self) -> String {
        self.masters[0].url()
    }

    /// Gives a slot to another master, as `redis-cli` does.
    async fn migrate(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.masters[from], &self.masters[to]);
        let from_id: String = from.run(&["CLUSTER", "MYID"]).await;
        let to_id: String = to.run(&["CLUSTER", "MYID"]).await;
        let slot = slot.to_string();
        let _: String = to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        let _: String = from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        for server in [to, from] {
            let _: String = server.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        }
    }
}

fn master_of(channel: &str) -> usize {
    let slot = slot(channel);
    RANGES.iter().position(|(first, last)| (*first..=*last).contains(&slot)).expect("all slots")
}

/// A channel of one of the masters.
fn channel_at(master: usize) -> String {
    let mut names = (0..).map(|number| format!("channel{number}"));
    names.find(|name| master_of(name) == master).expect("there is one")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_channels_need_two_connections_to_each_master() {
    let cluster = Cluster::start().await;
    let (a, b) = (
        Peer::start(Mode::RedisSharded, &cluster.url()).await,
        Peer::start(Mode::RedisSharded, &cluster.url()).await,
    );
    let names: Vec<_> = (0..1_000).map(|number| format!("socket.io#/#room{number}#")).collect();
    let topics: Vec<_> = names.iter().cloned().map(Topic::shard).collect();
    b.open(&topics).await;
    assert_eq!(names.iter().map(|name| master_of(name)).collect::<HashSet<_>>().len(), 3);
    for name in &names {
        a.publish(name, name).expect("there is a link");
    }
    let heard = b.heard_when("all of them", |heard| heard.len() == names.len()).await;
    assert!(names.iter().all(|name| heard.contains(&Heard::Message(name.clone(), name.clone()))));
    for server in &cluster.masters {
        // The test has one itself; three more may be left of looks at the slots.
        let clients: String = server.run(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        assert_eq!(clients.lines().count(), 2, "one that receives for each node");
        let clients: String = server.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
        let publishing = clients.lines().filter(|line| line.contains("cmd=spublish"));
        assert!(publishing.count() <= 2, "one that publishes for each node");
    }
    // In order at each master, and counted where they are.
    b.open(&[Topic::shard("counted".into()).counted()]).await;
    a.open(&[Topic::shard("counted".into()).counted()]).await;
    assert_eq!(a.bus.count("counted").await, Some(2));
    // Keys go to their owners.
    let queries = a.bus.queries();
    for number in 0..20 {
        let set = redis::cmd("SET").arg(format!("key{number}")).arg(number).to_owned();
        queries.run::<()>(&set).await.expect("it is set");
    }
    let sizes: Vec<usize> = queries.run_everywhere(&redis::cmd("DBSIZE")).await.expect("told");
    assert_eq!((sizes.len(), sizes.iter().sum()), (3, 20));
    assert_eq!((a.n_gaps(), b.n_gaps()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_classic_mode_one_master_is_enough_and_all_are_counted() {
    let cluster = Cluster::start().await;
    let urls: Vec<_> = cluster.masters.iter().map(RedisServer::url).collect();
    let mut peers = Vec::new();
    for url in &urls {
        let peer = Peer::start(Mode::Redis, url).await;
        peer.open(&[Topic::channel("counted".into()).counted()]).await;
        peers.push(peer);
    }
    for peer in &peers {
        assert_eq!(peer.bus.count("counted").await, Some(3));
    }
    peers[0].publish("counted", "to all").expect("there is a link");
    for peer in &peers {
        peer.hears("counted", "to all").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_move_with_their_slots_while_messages_go_on() {
    let cluster = Cluster::start().await;
    let (a, b) = (
        Peer::start(Mode::RedisSharded, &cluster.url()).await,
        Peer::start(Mode::RedisSharded, &cluster.url()).await,
    );
    let (moving, staying) = (channel_at(0), channel_at(1));
    b.open(&[Topic::shard(moving.clone()), Topic::shard(staying.clone())]).await;
    let mut n_sent = 0;
    let mut send = || {
        for channel in [&moving, &staying] {
            a.publish(channel, &n_sent.to_string()).expect("both links are up");
        }
        n_sent += 1;
        n_sent
    };
    for _ in 0..100 {
        send();
    }
    cluster.migrate(slot(&moving), 0, 2).await;
    // The gap comes when the channel is subscribed to again, and not before.
    let gap = |heard: &[Heard]| heard.contains(&Heard::Gap);
    let until_gap = b.heard_when("the gap", gap);
    tokio::pin!(until_gap);
    loop {
        send();
        let pause = tokio::time::sleep(Duration::from_millis(5));
        tokio::select! {
            _ = &mut until_gap => break,
            () = pause => {}
        }
    }
    let (_, n_there): (String, usize) =
        cluster.masters[2].run(&["PUBSUB", "SHARDNUMSUB", &moving]).await;
    assert_eq!(n_there, 1);
    // The publisher finds out by itself.
    let arrives = async {
        loop {
            let text = (send() - 1).to_string();
            a.bus.flushed().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if b.times(&moving, &text) == 1 {
                return;
            }
        }
    };
    soon("a message at the new place", arrives).await;
    let last = send() - 1;
    b.hears(&moving, &last.to_string()).await;
    b.hears(&staying, &last.to_string()).await;
    let numbers = |channel: &str| -> Vec<u32> {
        let of = |heard: &Heard| match heard {
            Heard::Message(on, text) if on == channel => Some(text.parse().expect("a number")),
            _ => None,
        };
        b.heard().iter().filter_map(of).collect()
    };
    let all: Vec<u32> = (0..=last).collect();
    assert_eq!(numbers(&staying), all, "the others do not notice");
    let moved = numbers(&moving);
    assert!(moved.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    assert!(moved.len() > 100);
    // What the old master did not take went to the new one.
    soon("all answers", a.bus.flushed()).await;
    let published = |result| a.metrics.cluster_published_total.with_label_values(&[result]).get();
    assert_eq!((published("refused"), published("unknown")), (0, 0));
    assert_eq!(published("accepted"), 2 * u64::from(last + 1));
    assert_eq!(*a.bus.link().borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_master_does_not_silence_the_others_and_its_replica_takes_over() {
    let mut cluster = Cluster::start().await;
    let replica = start_server().await;
    cluster.meet(&replica).await;
    let id: String = cluster.masters[0].run(&["CLUSTER", "MYID"]).await;
    eventually("all are known", async || info(&replica, "cluster_known_nodes").await == "4").await;
    let replicate = async || {
        let mut connection = replica.connection().await;
        let replicate = redis::cmd("CLUSTER").arg("REPLICATE").arg(&id).to_owned();
        let done: redis::RedisResult<String> = replicate.query_async(&mut connection).await;
        done.is_ok()
    };
    eventually("a replica", replicate).await;
    let known = async || {
        let info: redis::InfoDict = replica.run(&["INFO", "replication"]).await;
        info.get::<String>("master_link_status").as_deref() == Some("up")
    };
    eventually("a synchronous replica", known).await;

    // The one that is lost is the only one that is named.
    let urls = [cluster.url(), cluster.masters[1].url()];
    let mut both = config(Mode::RedisSharded, &urls[0]);
    both.redis.as_mut().expect("set above").urls.push(urls[1].as_str().into());
    let (a, b) = (Peer::launch(&both), Peer::launch(&both));
    a.up().await;
    b.up().await;
    let (lost, kept) = (channel_at(0), channel_at(1));
    b.open(&[Topic::shard(lost.clone()), Topic::shard(kept.clone())]).await;
    a.publish(&lost, "before").expect("there is a link");
    b.hears(&lost, "before").await;
    cluster.masters[0].stop();
    a.link_is(LinkState::Down).await;
    b.link_is(LinkState::Down).await;
    assert_eq!(a.publish(&lost, "lost"), Err(LostReason::LinkDown));
    a.publish(&kept, "meanwhile").expect("this link is up");
    b.hears(&kept, "meanwhile").await;
    let gap = |heard: &[Heard]| heard.contains(&Heard::Gap);
    b.heard_when("the gap", gap).await;
    a.up().await;
    b.up().await;
    a.publish(&lost, "after").expect("there is a link");
    b.hears(&lost, "after").await;
    let (_, n_there): (String, usize) = replica.run(&["PUBSUB", "SHARDNUMSUB", &lost]).await;
    assert_eq!(n_there, 1);
    assert_eq!(b.times(&lost, "lost"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lost_master_does_not_end_all_questions() {
    let mut cluster = Cluster::start().await;
    for server in &cluster.masters {
        let _: String = server.run(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    }
    let peer = Peer::start(Mode::RedisSharded, &cluster.url()).await;
    let (lost, kept) = (channel_at(0), channel_at(1));
    peer.open(&[Topic::shard(lost.clone()), Topic::shard(kept.clone())]).await;
    assert_eq!(peer.bus.count(&lost).await, Some(1));
    // The newest link was that to the one that is lost.
    let home = redis::Client::open(cluster.url()).expect("a valid address");
    peer.bus.queries().set_server(&home, true);
    cluster.masters[0].stop();
    peer.link_is(LinkState::Down).await;
    assert_eq!(peer.bus.count(&kept).await, Some(1));
    assert_eq!(peer.bus.count(&lost).await, None);
    let set = redis::cmd("SET").arg(&kept).arg("x").to_owned();
    peer.bus.queries().run::<()>(&set).await.expect("its owner is there");
    let set = redis::cmd("SET").arg(&lost).arg("x").to_owned();
    peer.bus.queries().run::<()>(&set).await.expect_err("its owner is not");
}

/// It still answers, and claims its slots for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_cut_off_from_the_others_does_not_keep_its_slots() {
    let cluster = Cluster::start().await;
    let peer = Peer::start(Mode::RedisSharded, &cluster.url()).await;
    let name = channel_at(0);
    peer.open(&[Topic::shard(name.clone())]).await;
    // Somebody who knows what was, and has not looked since.
    let late = bus(&config(Mode::RedisSharded, &cluster.url()), "late").0;
    let before = late.links.discover(0).await.expect("the cluster answers");
    assert_eq!(before.masters().len(), 3);
    let end = CancellationToken::new();
    end.cancel();
    late.links.adopt(&before, &mut JoinSet::new(), &end);
    let mut ids = Vec::new();
    for server in &cluster.masters {
        ids.push(server.run::<String>(&["CLUSTER", "MYID"]).await);
    }
    for (server, forgotten) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        let forget = ["CLUSTER", "FORGET", &ids[forgotten]];
        let _: String = cluster.masters[server].run(&forget).await;
    }
    // The others go on without it.
    let _: String = cluster.masters[1].run(&["CLUSTER", "ADDSLOTSRANGE", "0", "5460"]).await;
    eventually("the end of the old one", async || {
        info(&cluster.masters[0], "cluster_state").await == "fail"
    })
    .await;
    eventually("a subscription at the new one", async || {
        let numsub = ["PUBSUB", "SHARDNUMSUB", &name];
        cluster.masters[1].run::<(String, usize)>(&numsub).await.1 == 1
    })
    .await;
    peer.up().await;
    peer.publish(&name, "after").expect("there is a link");
    peer.hears(&name, "after").await;
    // Whoever is asked first.
    for turn in 0..3 {
        let topology = late.links.discover(turn).await.expect("the cluster answers");
        let (_, port) = topology.owner(slot(&name)).expect("somebody has it");
        assert_eq!(*port, cluster.masters[1].port(), "turn {turn}");
    }
}
