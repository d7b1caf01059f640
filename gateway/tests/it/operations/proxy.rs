//! The PROXY protocol, version 2.

use std::net::{IpAddr, Ipv4Addr};

use crate::support::Node;
use crate::support::http::Http;

const SETTINGS: &str = "[server]\n\
    proxy_protocol = true\n\
    trusted_proxies = [\"127.0.0.1/32\"]\n\
    connections_per_address_max = 1\n\
    header_timeout = \"400ms\"\n";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, addresses].concat()
}

fn from_ipv4(client: [u8; 4]) -> Vec<u8> {
    header(PROXY, TCP4, &[&client[..], &[127, 0, 0, 1], &[0x30, 0x39, 0x0b, 0xb8]].concat())
}

fn from_ipv6(client: [u8; 16]) -> Vec<u8> {
    header(PROXY, TCP6, &[&client[..], &[0; 16], &[0x30, 0x39, 0x0b, 0xb8]].concat())
}

/// The status of a handshake behind `sent`, and the connection; nothing if it was closed.
async fn handshake(node: &Node, source: Ipv4Addr, sent: &[u8]) -> (Option<u16>, Http) {
    let mut http = Http::connect_from(IpAddr::V4(source), node.public).await;
    let _ = http.write(sent).await;
    let target = crate::support::websocket::TARGET;
    http.send("GET", target, &crate::support::websocket::HANDSHAKE, b"").await;
    let status = http.response().await.map(|response| response.status);
    (status, http)
}

#[tokio::test]
async fn the_address_in_the_header_is_the_clients() {
    let node = Node::start(SETTINGS).await;
    let local = Ipv4Addr::LOCALHOST;
    let client = from_ipv4([203, 0, 113, 1]);
    let (status, _first) = handshake(&node, local, &client).await;
    assert_eq!(status, Some(101));
    assert_eq!(handshake(&node, local, &client).await.0, Some(503), "one session for each");
    let (status, _second) = handshake(&node, local, &from_ipv4([203, 0, 113, 2])).await;
    assert_eq!(status, Some(101), "another client");

    let client = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let (status, _third) = handshake(&node, local, &from_ipv6(client)).await;
    assert_eq!(status, Some(101));
    assert_eq!(handshake(&node, local, &from_ipv6(client)).await.0, Some(503));
    // An IPv4 address in its IPv6 form is the same client.
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 1];
    assert_eq!(handshake(&node, local, &from_ipv6(mapped)).await.0, Some(503));

    // Health checks of the balancer itself name no client.
    let (status, _check) = handshake(&node, local, &header(LOCAL, 0, &[])).await;
    assert_eq!(status, Some(101));
    let (status, _check) = handshake(&node, local, &header(LOCAL, 0, &[])).await;
    assert_eq!(status, Some(101));
    node.finish().await;
}

#[tokio::test]
async fn what_is_no_header_ends_the_connection() {
    let node = Node::start(SETTINGS).await;
    let long = header(PROXY, TCP4, &[0; 5_000]);
    let short = header(PROXY, TCP4, &[203, 0, 113, 1]);
    let wrong_version = {
        let mut bytes = from_ipv4([203, 0, 113, 1]);
        bytes[12] = 0x11;
        bytes
    };
    let rows: [(&str, &[u8]); 5] = [
        ("none", b""),
        ("version 1", b"PROXY TCP4 203.0.113.1 127.0.0.1 12345 3000\r\n"),
        ("too long", &long),
        ("too short for its family", &short),
        ("another version", &wrong_version),
    ];
    for (name, sent) in rows {
        let (status, _) = handshake(&node, Ipv4Addr::LOCALHOST, sent).await;
        assert_eq!(status, None, "{name}");
        node.neighbour_echo(name).await;
    }
    let mut slow = Http::connect(node.public).await;
    slow.write(&SIGNATURE[..5]).await.expect("write");
    assert_eq!(slow.rest().await, "", "a header that does not end");
    node.until_metric("carillon_connections_refused_total{reason=\"proxy_header\"}", 6.0).await;
    node.finish().await;
}

#[tokio::test]
async fn strangers_speak_http_and_their_header_is_not_believed() {
    let node = Node::start(SETTINGS).await;
    let stranger = Ipv4Addr::new(127, 0, 0, 2);
    let (status, _plain) = handshake(&node, stranger, b"").await;
    assert_eq!(status, Some(101));
    let other = Ipv4Addr::new(127, 0, 0, 3);
    let (status, _) = handshake(&node, other, &from_ipv4([203, 0, 113, 1])).await;
    assert!(matches!(status, None | Some(400)), "{status:?}");
    node.finish().await;
}
