//! Clients that do not read: they are closed, they keep nothing, and nobody else feels them.

use std::time::Duration;

use super::{large, number_of};
use crate::support::{Node, Polling, Received, Ws};

/// More than the kernel takes for one connection, so that the rest has to wait in the node.
fn events_beyond_the_kernel() -> usize {
    let buffers = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").expect("tcp_wmem");
    let most: usize =
        buffers.split_whitespace().last().expect("three numbers").parse().expect("a number");
    (most + (8 << 20)) / 8_000
}

/// What the closed client held is given back; `publisher` and the neighbour are all that is left.
async fn all_given_back(node: &Node, n_descriptors: usize, publisher: &str) {
    let websockets = if publisher == "websocket" { 2.0 } else { 1.0 };
    node.until_metric("carillon_sessions{transport=\"websocket\"}", websockets).await;
    node.until_metric("carillon_sessions{transport=\"polling\"}", 2.0 - websockets).await;
    node.until_metric("carillon_sockets{namespace=\"/\"}", 1.0).await;
    crate::support::until("file descriptors are given back", async || {
        node.n_descriptors() <= n_descriptors
    })
    .await;
}

#[tokio::test]
async fn a_stalled_websocket_is_closed_by_bytes() {
    let node = Node::start("[engine]\noutbox_max = \"64KiB\"\nstall_timeout = \"1h\"\n").await;
    let mut publisher = Ws::connect(node.public).await;
    let n_descriptors = node.n_descriptors();
    let mut victim = Ws::connect(node.public).await;
    for n in 0..events_beyond_the_kernel() {
        publisher.call(&large("to-others", n)).await;
    }
    node.until_metric("carillon_sessions_closed_total{reason=\"slow_consumer\"}", 1.0).await;
    all_given_back(&node, n_descriptors, "websocket").await;
    let (received, _) = victim.until_closed().await;
    assert!(received.len() < events_beyond_the_kernel(), "the kernel's backlog is given up too");
    node.finish().await;
}

#[tokio::test]
async fn a_stalled_websocket_is_closed_by_time() {
    let node = Node::start("[engine]\noutbox_max = \"256MiB\"\nstall_timeout = \"400ms\"\n").await;
    let mut publisher = Ws::connect(node.public).await;
    let n_descriptors = node.n_descriptors();
    let mut victim = Ws::connect(node.public).await;
    for n in 0..events_beyond_the_kernel() {
        publisher.call(&large("to-others", n)).await;
    }
    node.until_metric("carillon_sessions_closed_total{reason=\"slow_consumer\"}", 1.0).await;
    all_given_back(&node, n_descriptors, "websocket").await;
    victim.until_closed().await;
    node.finish().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_is_kept() {
    const STALL_TIMEOUT: Duration = Duration::from_secs(3);
    let node = Node::start("[engine]\noutbox_max = \"256MiB\"\nstall_timeout = \"3s\"\n").await;
    let mut publisher = Ws::connect(node.public).await;
    let mut reader = Ws::connect(node.public).await;
    let n_events = events_beyond_the_kernel();
    let mut n_read = 0;
    for n in 0..n_events {
        publisher.call(&large("to-others", n)).await;
    }
    // Its outbox is not empty for longer than a stalled reader would live.
    let mut pace = tokio::time::interval(STALL_TIMEOUT * 2 / n_events as u32);
    while n_read < n_events {
        pace.tick().await;
        assert_eq!(number_of(&reader.text().await), n_read);
        n_read += 1;
    }
    assert_eq!(node.n_closed("slow_consumer").await, 0.0);
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_never_polls_is_closed_by_bytes() {
    let node = Node::start("[engine]\noutbox_max = \"64KiB\"\nping_timeout = \"1h\"\n").await;
    let mut publisher = Polling::connect(node.public).await;
    let mut victim = Polling::connect(node.public).await;
    for n in 0..7 {
        publisher.call(&large("to-others", n)).await;
    }
    assert_eq!(node.n_closed("slow_consumer").await, 0.0, "seven events fit");
    for n in 7..10 {
        publisher.call(&large("to-others", n)).await;
    }
    node.until_metric("carillon_sessions_closed_total{reason=\"slow_consumer\"}", 1.0).await;
    node.until_metric("carillon_sockets{namespace=\"/\"}", 1.0).await;
    let poll = victim.poll().await;
    assert_eq!(poll.text(), "1", "a hole is never filled with what was behind it");
    assert!(victim.is_dead().await);
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_never_polls_is_closed_by_time() {
    let node = Node::start("[engine]\nping_interval = \"1h\"\nping_timeout = \"400ms\"\n").await;
    let mut publisher = Polling::connect(node.public).await;
    let mut victim = Polling::connect(node.public).await;
    assert_eq!(publisher.call("[\"to-others\",1]").await, "[]");
    node.until_metric("carillon_sessions_closed_total{reason=\"slow_consumer\"}", 1.0).await;
    node.until_metric("carillon_sockets{namespace=\"/\"}", 1.0).await;
    assert!(victim.is_dead().await);
    node.finish().await;
}

#[tokio::test]
async fn a_stalled_reader_does_not_hurt_the_others() {
    let node = Node::start("[engine]\noutbox_max = \"64KiB\"\nstall_timeout = \"1h\"\n").await;
    let mut publisher = Ws::connect(node.public).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        readers.push(Ws::connect(node.public).await);
    }
    let _victim = Ws::connect(node.public).await;
    for n in 0..events_beyond_the_kernel() {
        publisher.call(&large("to-others", n)).await;
        for reader in &mut readers {
            assert_eq!(number_of(&reader.text().await), n);
        }
    }
    node.until_metric("carillon_sessions_closed_total{reason=\"slow_consumer\"}", 1.0).await;
    node.until_metric("carillon_sockets{namespace=\"/\"}", 11.0).await;
    node.finish().await;
}

#[tokio::test]
async fn volatile_events_are_dropped_for_a_socket_that_is_not_writable_and_only_for_it() {
    let node = Node::start("[engine]\noutbox_max = \"256MiB\"\nstall_timeout = \"1h\"\n").await;
    let mut publisher = Ws::connect(node.public).await;
    let mut reader = Ws::connect(node.public).await;
    let (mut victim, id) = Ws::connect_with_id(node.public).await;
    let n_events = events_beyond_the_kernel();
    for n in 0..n_events {
        let payload = format!("[{n},\"{}\"]", "x".repeat(8_000));
        publisher.call(&format!("[\"to-id\",\"{id}\",{payload}]")).await;
    }
    publisher.call("[\"volatile\",1000001]").await;
    publisher.call("[\"to-others\",1000002]").await;
    assert_eq!(reader.text().await, "42[\"msg\",1000001]");
    assert_eq!(reader.text().await, "42[\"msg\",1000002]");
    node.until_metric("carillon_volatile_dropped_total", 1.0).await;
    for n in 0..n_events {
        assert_eq!(number_of(&victim.text().await), n, "nothing else is dropped");
    }
    assert_eq!(victim.next().await, Received::Text("42[\"msg\",1000002]".to_owned()));
    publisher.call("[\"volatile\",1000003]").await;
    assert_eq!(victim.text().await, "42[\"msg\",1000003]", "it is writable again");
    node.finish().await;
}

#[tokio::test]
async fn a_polling_client_is_writable_while_it_polls() {
    let node = Node::start("").await;
    let mut publisher = Ws::connect(node.public).await;
    let mut client = Polling::connect(node.public).await;
    publisher.call("[\"volatile\",1]").await;
    node.until_metric("carillon_volatile_dropped_total", 1.0).await;
    client.begin_poll().await;
    let publish = async {
        // The poll may still be on its way, so more than one event can be needed.
        loop {
            publisher.call("[\"volatile\",2]").await;
        }
    };
    let response = tokio::select! {
        response = client.polled() => response,
        () = publish => return,
    };
    assert!(response.text().starts_with("42[\"msg\",2]"), "{response:?}");
    node.finish().await;
}
