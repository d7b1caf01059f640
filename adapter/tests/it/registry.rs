//! The list of live nodes.

use crate::{
    chaos_proxy::ChaosProxy,
    eventually,
    node::{Node, config},
    redis_server::RedisServer,
};
use adapter::{AdapterConfig, NodeDescription, Subscribe};
use protocol::id::NodeTag;
use std::time::Duration;

fn listed(redis: &RedisServer) -> AdapterConfig {
    let node = NodeDescription {
        kind: "carillon".into(),
        version: "1.2.3".into(),
        address: Some("10.0.0.1:3000".into()),
    };
    AdapterConfig { node: Some(node), ..config(&redis.url()) }
}

async fn start(config: AdapterConfig, tag: &str) -> Node {
    let node = Node::launch_tagged(config, NodeTag::parse(tag));
    node.up().await;
    node
}

async fn tags(node: &Node) -> Vec<String> {
    let nodes = node.adapter.nodes().await.expect("Redis answers");
    nodes.into_iter().map(|node| node.tag).collect()
}

async fn are_listed(node: &Node, expected: &[&str]) {
    let what = format!("{expected:?} on the list");
    eventually(&what, async || tags(node).await == expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_knows_who_is_there() {
    let redis = RedisServer::start().await;
    let b = start(listed(&redis), "bbbb").await;
    b.add_socket("s", &[], None);
    let a = start(listed(&redis), "aaaa").await;
    let unlisted = Node::start(&redis.url()).await;
    for node in [&a, &b, &unlisted] {
        are_listed(node, &["aaaa", "bbbb"]).await;
    }
    let nodes = unlisted.adapter.nodes().await.expect("Redis answers");
    assert_eq!((&*nodes[0].kind, &*nodes[0].version), ("carillon", "1.2.3"));
    assert_eq!(nodes[0].address.as_deref(), Some("10.0.0.1:3000"));
    assert!(nodes[0].started_ms > 0 && nodes[0].id != nodes[1].id);
    // The number of sockets is that of the last sign of life.
    eventually("the socket", async || {
        b.adapter.nodes().await.expect("Redis answers")[1].n_sockets == 1
    })
    .await;
    let expiry: i64 = redis.run(&["PTTL", "socket.io-carillon:node:aaaa"]).await;
    assert!(0 < expiry && expiry <= 15_000, "{expiry}");
    b.stop().await;
    assert_eq!(tags(&a).await, ["aaaa"], "who ends takes itself off the list");
    let left: Vec<String> = redis.run(&["ZRANGE", "socket.io-carillon:nodes", "0", "-1"]).await;
    assert_eq!(left, ["aaaa"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_is_forgotten() {
    let redis = RedisServer::start().await;
    let a = start(listed(&redis), "aaaa").await;
    let b = start(listed(&redis), "bbbb").await;
    are_listed(&a, &["aaaa", "bbbb"]).await;
    // It ends without a word.
    drop(b);
    let expire = ["PEXPIRE", "socket.io-carillon:node:bbbb", "1"];
    let _: i64 = redis.run(&expire).await;
    are_listed(&a, &["aaaa"]).await;
    // What is left of it in the index goes when its time is over.
    let _: i64 = redis.run(&["ZADD", "socket.io-carillon:nodes", "1", "bbbb"]).await;
    eventually("a clean index", async || {
        redis.run::<i64>(&["ZCARD", "socket.io-carillon:nodes"]).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgot_everything_is_told_again() {
    let mut redis = RedisServer::start().await;
    let a = start(listed(&redis), "aaaa").await;
    are_listed(&a, &["aaaa"]).await;
    redis.stop();
    assert_eq!(a.adapter.nodes().await, None, "nobody can tell");
    redis.start_again().await;
    a.up().await;
    are_listed(&a, &["aaaa"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_tag_become_two() {
    let redis = RedisServer::start().await;
    let interest = AdapterConfig { subscribe: Subscribe::Interest, ..listed(&redis) };
    let a = start(interest.clone(), "same").await;
    are_listed(&a, &["same"]).await;
    let b = Node::launch_tagged(interest, NodeTag::parse("same"));
    b.set_next_tag("more");
    b.up().await;
    are_listed(&a, &["more", "same"]).await;
    assert_eq!((a.tag(), b.tag()), (NodeTag::parse("same"), NodeTag::parse("more")));
    assert_eq!(b.metric("carillon_cluster_tag_collisions_total", None), 1.0);
    // What is sent to its sockets comes by the pattern for its new tag, and that for the old one is gone.
    eventually("both patterns", async || redis.run::<i64>(&["PUBSUB", "NUMPAT"]).await == 2).await;
    a.emit_to("/", &["more-rest-of-the-id"], "by id");
    b.hears("by id").await;
    a.emit_to("/", &["same-rest-of-the-id"], "for nobody");
    a.emit("last");
    b.hears("last").await;
    assert_eq!((b.texts().len(), b.received("no_room")), (2, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_change_its_tag_waits_until_it_is_free() {
    let redis = RedisServer::start().await;
    // What a node with a fixed tag leaves behind when it is killed.
    let left = r#"{"id":"before","tag":"same","kind":"carillon","version":"1","address":null,"started_ms":1,"n_sockets":0}"#;
    let key = "socket.io-carillon:node:same";
    let _: String = redis.run(&["SET", key, left, "PX", "2000"]).await;
    let node = start(listed(&redis), "same").await;
    let collisions = || node.metric("carillon_cluster_tag_collisions_total", None);
    eventually("the collision", async || collisions() >= 1.0).await;
    are_listed(&node, &["same"]).await;
    let record = node.adapter.nodes().await.expect("Redis answers").remove(0);
    assert_eq!(record.version, "1.2.3", "it is its own record now");
    assert_eq!(node.tag(), NodeTag::parse("same"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_strangers_are_passed_over() {
    let redis = RedisServer::start().await;
    let node = start(listed(&redis), "aaaa").await;
    are_listed(&node, &["aaaa"]).await;
    let _: String = redis.run(&["SET", "socket.io-carillon:node:zzzz", "no record"]).await;
    let until = "99999999999999";
    let _: i64 = redis.run(&["ZADD", "socket.io-carillon:nodes", until, "zzzz"]).await;
    assert_eq!(tags(&node).await, ["aaaa"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_late_leaves_the_one_who_took_its_tag_on_the_list() {
    let redis = RedisServer::start().await;
    let proxy = ChaosProxy::to(redis.port()).await;
    let settings = AdapterConfig { redis: config(&proxy.url()).redis, ..listed(&redis) };
    let node = start(settings, "same").await;
    are_listed(&node, &["same"]).await;
    // It looks whose record it is, and what it makes of that comes a while later.
    proxy.delay(Duration::from_millis(300));
    let _: String = redis.run(&["CONFIG", "RESETSTAT"]).await;
    let key = "socket.io-carillon:node:same";
    let taken = async {
        eventually("a look at the record", async || {
            redis.run::<String>(&["INFO", "commandstats"]).await.contains("cmdstat_get:")
        })
        .await;
        let _: String = redis.run(&["SET", key, r#"{"id":"another"}"#]).await;
    };
    tokio::join!(node.stop(), taken);
    let left: Option<String> = redis.run(&["GET", key]).await;
    assert_eq!(left.as_deref(), Some(r#"{"id":"another"}"#));
}
