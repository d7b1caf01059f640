//! How many connections the node takes, and how long it waits for their first words.

use std::net::IpAddr;

use crate::support::http::Http;
use crate::support::websocket::TARGET;
use crate::support::{Launch, Node, Polling, Ws, until};

const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A WebSocket session from an address, behind the given header; nothing if it is refused, by a
/// status or by the end of the connection.
async fn session(node: &Node, source: IpAddr, header: &[&str]) -> Result<Ws, Option<u16>> {
    let mut http = Http::connect_from(source, node.public).await;
    let headers: Vec<&str> =
        crate::support::websocket::HANDSHAKE.iter().chain(header).copied().collect();
    http.send("GET", TARGET, &headers, b"").await;
    match http.response().await {
        Some(response) if response.status == 101 => Ok(Ws::taken_over(http)),
        Some(response) => Err(Some(response.status)),
        None => Err(None),
    }
}

#[tokio::test]
async fn an_address_may_hold_so_many_connections() {
    let node = Node::start("[server]\nconnections_per_address_max = 2\n").await;
    let first = session(&node, LOCALHOST, &[]).await.expect("the first");
    let _second = session(&node, LOCALHOST, &[]).await.expect("the second");
    for spoofed in ["X-Forwarded-For: 203.0.113.1", "Forwarded: for=203.0.113.1"] {
        assert_eq!(session(&node, LOCALHOST, &[spoofed]).await.err(), Some(None), "{spoofed}");
    }
    node.until_metric("carillon_connections_refused_total{reason=\"address_limit\"}", 2.0).await;
    let _other = session(&node, OTHER, &[]).await.expect("another address");
    drop(first);
    until("the place is given back", async || session(&node, LOCALHOST, &[]).await.is_ok()).await;
    node.finish().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_forwarded_address_counts() {
    let settings =
        "[server]\nconnections_per_address_max = 2\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
    let node = Node::start(settings).await;
    let client = "X-Forwarded-For: 203.0.113.1";
    let first = session(&node, LOCALHOST, &[client]).await.expect("the first");
    // What stands before the last address was written by the client itself.
    let chained = "X-Forwarded-For: 198.51.100.7, 203.0.113.1";
    let _second = session(&node, LOCALHOST, &[chained]).await.expect("the second");
    for header in [client, chained, "X-Forwarded-For: 203.0.113.1, 127.0.0.1"] {
        assert_eq!(session(&node, LOCALHOST, &[header]).await.err(), Some(Some(503)), "{header}");
    }
    let another = "X-Forwarded-For: 203.0.113.1, 203.0.113.2";
    let _another = session(&node, LOCALHOST, &[another]).await.expect("another client");
    // The proxy's own connections are not counted.
    let mut own = Vec::new();
    for _ in 0..4 {
        own.push(session(&node, LOCALHOST, &[]).await.expect("the proxy itself"));
    }
    // From a stranger the header means nothing.
    let _stranger = session(&node, OTHER, &[client]).await.expect("a stranger");
    drop(first);
    until("the place is given back", async || session(&node, LOCALHOST, &[client]).await.is_ok())
        .await;
    node.finish().await;
}

#[tokio::test]
async fn the_node_may_hold_so_many_connections() {
    let node = Node::start("[server]\nconnections_max = 3\n").await;
    let first = session(&node, LOCALHOST, &[]).await.expect("the second beside the neighbour");
    let _second = session(&node, LOCALHOST, &[]).await.expect("the third");
    let refused = session(&node, LOCALHOST, &[]).await.err().expect("a refusal");
    assert!(matches!(refused, None | Some(503)), "{refused:?}");
    drop(first);
    until("the place is given back", async || session(&node, LOCALHOST, &[]).await.is_ok()).await;
    node.finish().await;
}

#[tokio::test]
async fn slow_heads_are_cut_off_and_held_requests_are_not() {
    let settings = "[server]\nheader_timeout = \"400ms\"\nkeep_alive = \"400ms\"\n";
    let node = Node::start(settings).await;
    let mut polling = Polling::connect(node.public).await;
    polling.begin_poll().await;
    let mut ws = Ws::connect(node.public).await;

    let silent = Http::connect(node.public).await;
    assert_eq!(silent.rest().await, "", "not a byte");
    let mut halted = Http::connect(node.public).await;
    halted.write(b"GET /healthz HTTP/1.1\r\nHost:").await.expect("write");
    assert_eq!(halted.rest().await, "", "half a head");

    // A head that comes drop by drop: the deadline is for all of it.
    let mut dripping = Http::connect(node.public).await;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
    let head = format!("GET /healthz HTTP/1.1\r\nHost: gateway\r\nX-Drip: {}", "x".repeat(10_000));
    let mut n_written = 0;
    for byte in head.as_bytes() {
        pace.tick().await;
        if dripping.write(&[*byte]).await.is_err() {
            break;
        }
        n_written += 1;
    }
    assert!(n_written < 1_000, "a slow head was taken for {n_written} bytes");

    let mut kept = Http::connect(node.public).await;
    assert_eq!(kept.request("GET", "/healthz", &[], b"").await.status, 200);
    assert_eq!(kept.rest().await, "", "an idle connection ends");

    assert_eq!(ws.call("[\"to-others\",1]").await, "[]", "a WebSocket has no such deadline");
    assert_eq!(polling.polled().await.text(), "42[\"msg\",1]", "and no held poll");
    node.finish().await;
}

#[tokio::test]
async fn many_half_open_connections_keep_nobody_out() {
    let settings = "[server]\nheader_timeout = \"2s\"\n";
    let node = Node::launch(Launch { settings, ..Launch::default() }).await;
    let mut half_open = Vec::new();
    for _ in 0..300 {
        let mut http = Http::connect(node.public).await;
        http.write(b"GET / HT").await.expect("write");
        half_open.push(http);
    }
    let mut ws = Ws::connect(node.public).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    node.neighbour_echo("half-open connections").await;
    // The neighbour and the client are what is left.
    node.until_metric("carillon_connections", 2.0).await;
    node.finish().await;
}
