//! Settings of the endpoint: path, transports, upgrades, cookie.

use crate::support::http::{self, Http};
use crate::support::websocket;
use crate::support::{Launch, Node, Polling, Ws, polling};

/// A node at which the usual neighbour could not connect.
async fn node(settings: &str) -> Node {
    Node::launch(Launch { settings, neighbour: false, ..Launch::default() }).await
}

async fn status(node: &Node, path: &str) -> u16 {
    http::get(node.public, &format!("{path}?EIO=4&transport=polling")).await.status
}

/// A session over WebSocket at a path; its first echo stands for the neighbour's.
async fn echo_at(node: &Node, path: &str) {
    let target = format!("{path}?EIO=4&transport=websocket");
    let (mut ws, _) = Ws::open_from([127, 0, 0, 1].into(), node.public, &target).await;
    ws.enter("/", "").await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
}

#[tokio::test]
async fn the_path_is_a_setting() {
    let node = node("[engine]\npath = \"/my/io\"\n").await;
    assert_eq!(status(&node, "/my/io/").await, 200);
    assert_eq!(status(&node, "/my/io").await, 200, "the slash is added");
    for path in ["/socket.io/", "/", "/my/", "/my/io/more", "/my/iox", "/my/io//", "/MY/IO/"] {
        assert_eq!(status(&node, path).await, 404, "{path}");
    }
    echo_at(&node, "/my/io/").await;
    node.finish().await;
}

#[tokio::test]
async fn without_a_trailing_slash_the_path_has_none() {
    let node = node("[engine]\nadd_trailing_slash = false\n").await;
    assert_eq!(status(&node, "/socket.io").await, 200);
    assert_eq!(status(&node, "/socket.io/").await, 404);
    echo_at(&node, "/socket.io").await;
    node.finish().await;
}

async fn websocket_refusal(node: &Node, target: &str) -> (u16, Option<u64>) {
    let http = Http::connect(node.public).await;
    let refused = Ws::handshake(http, target, &[]).await.err().expect("a refusal");
    (refused.status, refused.code())
}

#[tokio::test]
async fn a_node_may_serve_polling_alone() {
    let node = node("[engine]\ntransports = [\"polling\"]\n").await;
    let mut client = Polling::connect(node.public).await;
    assert_eq!(client.open["upgrades"], serde_json::json!([]));
    assert_eq!(websocket_refusal(&node, websocket::TARGET).await, (400, Some(0)));
    assert_eq!(websocket_refusal(&node, &client.upgrade_target()).await, (400, Some(0)));
    assert_eq!(client.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}

#[tokio::test]
async fn a_node_may_serve_websocket_alone() {
    let node = node("[engine]\ntransports = [\"websocket\"]\n").await;
    let response = http::get(node.public, polling::TARGET).await;
    assert_eq!((response.status, response.code()), (400, Some(0)));
    let (_, open) = Ws::open_from([127, 0, 0, 1].into(), node.public, websocket::TARGET).await;
    assert!(open.contains("\"upgrades\":[]"), "{open}");
    echo_at(&node, "/socket.io/").await;
    node.finish().await;
}

#[tokio::test]
async fn upgrades_may_be_switched_off() {
    let node = Node::start("[engine]\nallow_upgrades = false\n").await;
    let mut client = Polling::connect(node.public).await;
    assert_eq!(client.open["upgrades"], serde_json::json!([]));
    assert_eq!(websocket_refusal(&node, &client.upgrade_target()).await, (400, Some(3)));
    assert_eq!(client.call("[\"echo\",1]").await, "[1]");
    echo_at(&node, "/socket.io/").await;
    node.finish().await;
}

#[tokio::test]
async fn the_cookie_is_set_once_and_never_read() {
    let node = Node::start("[engine]\ncookie = \"io\"\n").await;
    let response = http::get(node.public, polling::TARGET).await;
    let cookie = response.header("set-cookie").expect("a cookie");
    let mut client = Polling::connect(node.public).await;
    assert!(cookie.starts_with("io="), "{cookie}");
    for attribute in ["Path=/", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{attribute}: {cookie}");
    }
    let sid = cookie["io=".len()..].split(';').next().expect("a value");
    assert!(response.text().contains(sid), "{cookie}");
    client.begin_poll().await;
    client.post("421[\"echo\"]").await;
    assert_eq!(client.polled().await.header("set-cookie"), None, "only the handshake sets it");
    // The cookie names a session; the query does not.
    let header = format!("Cookie: io={}", client.sid);
    let response = http::request(node.public, "POST", polling::TARGET, &[&header], b"3").await;
    assert_eq!((response.status, response.code()), (400, Some(2)));
    node.finish().await;
}

#[tokio::test]
async fn no_cookie_is_set_by_default() {
    let node = Node::start("").await;
    assert_eq!(http::get(node.public, polling::TARGET).await.header("set-cookie"), None);
    node.finish().await;
}
