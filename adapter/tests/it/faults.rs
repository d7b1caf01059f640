//! What is lost when Redis or the way to it breaks, and what is not.

use crate::{
    chaos_proxy::ChaosProxy,
    eventually,
    node::{Node, Record, config},
    redis_server::RedisServer,
};
use adapter::{AdapterConfig, GapCause, LinkState, LostReason, Published};
use std::time::Duration;

/// Both ways work.
async fn cross(a: &Node, b: &Node, text: &str) {
    a.emit(&format!("{text} from a"));
    b.emit(&format!("{text} from b"));
    b.hears(&format!("{text} from a")).await;
    a.hears(&format!("{text} from b")).await;
}

fn link_gap() -> Record {
    Record::Gap { ns: "/".into(), room: None, cause: GapCause::LinkLost }
}

fn n_gaps(records: &[Record]) -> i32 {
    records.iter().filter(|record| **record == link_gap()).count() as i32
}

async fn redis_returns_after(outage: Duration) {
    let mut redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    cross(&a, &b, "before").await;
    redis.stop();
    a.link_is(LinkState::Down).await;
    b.link_is(LinkState::Down).await;
    assert_eq!(a.emit("lost"), Published::Lost(LostReason::LinkDown));
    assert_eq!(a.published("link_down"), 1.0);
    // The length of the outage is part of the test.
    tokio::time::sleep(outage).await;
    redis.start_again().await;
    a.up().await;
    b.up().await;
    cross(&a, &b, "after").await;
    for node in [&a, &b] {
        assert_eq!(node.gaps(), [link_gap()]);
        assert_eq!(node.metric("carillon_redis_reconnects_total", None), 1.0);
        assert_eq!(node.metric("carillon_redis_link_up", None), 1.0);
        assert_eq!(node.texts().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_restarted_after_a_second() {
    redis_returns_after(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_restarted_after_five_seconds() {
    redis_returns_after(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gap_of_a_lost_link_is_told_to_each_namespace() {
    let mut redis = RedisServer::start().await;
    let node = Node::start(&redis.url()).await;
    node.adapter.open_namespace("/chat");
    redis.stop();
    node.link_is(LinkState::Down).await;
    redis.start_again().await;
    let records = node.recorded("two gaps", |records| records.len() == 2).await;
    let namespaces = ["/", "/chat"].map(|ns| Record::Gap {
        ns: ns.into(),
        room: None,
        cause: GapCause::LinkLost,
    });
    assert!(namespaces.iter().all(|gap| records.contains(gap)), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_found_and_nothing_is_delivered_twice() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    redis.freeze();
    assert_eq!(a.emit("in flight"), Published::Queued);
    a.link_is(LinkState::Down).await;
    b.link_is(LinkState::Down).await;
    assert_eq!(a.published("unknown"), 1.0);
    redis.thaw();
    a.up().await;
    b.up().await;
    cross(&a, &b, "after").await;
    // What was in flight may have been published when Redis went on; it was not published again.
    let n_in_flight = b.texts().iter().filter(|(_, text)| text == "in flight").count();
    assert!(n_in_flight <= 1);
    assert_eq!((a.gaps(), b.gaps()), (vec![link_gap()], vec![link_gap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stalls_for_a_moment_costs_nothing() {
    let redis = RedisServer::start().await;
    let patient = AdapterConfig {
        probe_interval: Duration::from_secs(20),
        publish_timeout: Duration::from_millis(200),
        ..config(&redis.url())
    };
    let a = Node::start_with(patient.clone()).await;
    let b = Node::start_with(patient).await;
    redis.freeze();
    for number in 0..100 {
        assert_eq!(a.emit(&number.to_string()), Published::Queued);
    }
    eventually("a late answer", async || a.published("unknown") > 0.0).await;
    assert_eq!(a.adapter.link(), LinkState::Up);
    redis.thaw();
    b.hears("99").await;
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
    assert!(a.gaps().is_empty() && b.gaps().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_subscriber_comes_back() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    let killed: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(killed, 2);
    for node in [&a, &b] {
        node.recorded("the gap", |records| records.contains(&link_gap())).await;
        node.up().await;
    }
    cross(&a, &b, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_publishers_lose_or_deliver_each_message_but_never_twice() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    let mut queued = Vec::new();
    for number in 0..3000 {
        if a.emit(&number.to_string()) == Published::Queued {
            queued.push(number);
        }
        if number % 1000 == 500 {
            let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            // Both have lost a connection, and the next kill or look is for both.
            for node in [&a, &b] {
                let n_kills = number / 1000 + 1;
                node.recorded("the gap", |records| n_gaps(records) == n_kills).await;
            }
        }
    }
    assert!(a.adapter.flush(crate::PATIENCE).await);
    let counted: f64 =
        ["accepted", "unknown", "expired"].map(|result| a.published(result)).iter().sum();
    assert_eq!(counted, queued.len() as f64);
    a.up().await;
    b.up().await;
    cross(&a, &b, "after").await;
    let heard: Vec<i32> = b.texts().iter().filter_map(|(_, text)| text.parse().ok()).collect();
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    assert!(heard.iter().all(|number| queued.contains(number)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_is_found_and_replaced() {
    let redis = RedisServer::start().await;
    let proxy = ChaosProxy::to(redis.port()).await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&proxy.url()).await);
    cross(&a, &b, "before").await;
    // Nothing is unanswered, so only the probes can find out.
    assert!(b.adapter.flush(crate::PATIENCE).await);
    proxy.swallow();
    b.link_is(LinkState::Down).await;
    b.up().await;
    assert!(b.metric("carillon_redis_probe_misses_total", None) >= 2.0);
    cross(&a, &b, "after").await;
    assert_eq!((a.gaps(), b.gaps()), (vec![], vec![link_gap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_is_replaced_while_others_go_on() {
    let redis = RedisServer::start().await;
    let proxy = ChaosProxy::to(redis.port()).await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    let c = Node::start(&proxy.url()).await;
    proxy.cut();
    c.recorded("the gap", |records| records == [link_gap()]).await;
    c.up().await;
    cross(&a, &b, "after").await;
    cross(&a, &c, "after too").await;
    assert!(a.gaps().is_empty() && b.gaps().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_to_redis_is_filled_by_pipelining() {
    let redis = RedisServer::start().await;
    let proxy = ChaosProxy::to(redis.port()).await;
    let (a, b) = (Node::start(&proxy.url()).await, Node::start(&redis.url()).await);
    proxy.delay(Duration::from_millis(50));
    // One at a time these would take 300 seconds, far beyond the patience of the test.
    for number in 0..3000 {
        assert_eq!(a.emit(&number.to_string()), Published::Queued);
    }
    b.hears("2999").await;
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_master_is_left() {
    let redis = RedisServer::start().await;
    let successor = RedisServer::start().await;
    let mut config = config(&redis.url());
    let urls = &mut config.redis.as_mut().expect("set above").urls;
    urls.push(successor.url().into());
    let (a, b) = (Node::start_with(config.clone()).await, Node::start_with(config).await);
    let port = successor.port().to_string();
    let _: String = redis.run(&["REPLICAOF", "127.0.0.1", &port]).await;
    for node in [&a, &b] {
        node.recorded("the gap", |records| records == [link_gap()]).await;
        node.up().await;
    }
    cross(&a, &b, "at the successor").await;
    let patterns = async || successor.run::<i64>(&["PUBSUB", "NUMPAT"]).await;
    eventually("subscriptions at the successor", async || patterns().await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_redis_finds_too_slow_sees_a_gap() {
    let limit = ["--client-output-buffer-limit", "pubsub 1mb 1mb 1"];
    let redis = RedisServer::start_with(&limit).await;
    let proxy = ChaosProxy::to(redis.port()).await;
    let far = AdapterConfig { probe_interval: Duration::from_secs(10), ..config(&proxy.url()) };
    let (a, b) = (Node::start(&redis.url()).await, Node::start_with(far).await);
    proxy.swallow();
    // Enough for the buffers of the kernel and then some. The limit applies to the near node too, which reads.
    let text = "x".repeat(100_000);
    for _ in 0..300 {
        a.emit(&text);
        a.adapter.flush(crate::PATIENCE).await;
    }
    a.up().await;
    proxy.cut();
    b.recorded("the gap", |records| records.contains(&link_gap())).await;
    b.up().await;
    cross(&a, &b, "after").await;
}
