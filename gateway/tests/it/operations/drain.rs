//! Leaving: TERM, and a second one.

use crate::support::http::{self, Http};
use crate::support::{Launch, Node, Polling, Received, Ws, until};

const QUICK: &str = "[drain]\nready_delay = \"0s\"\nspread = \"0s\"\ndeadline = \"20s\"\n";

async fn end(mut node: Node, code: i32) {
    assert_eq!(node.exit().await.code(), Some(code), "{:?}", node.log());
    node.drain_log().await;
    node.check_log(0);
    let drained = format!(r#""drained":{}"#, code == 0);
    let log = node.log();
    let last = log.last().expect("a last line");
    assert!(last.contains(r#""event":"stopped""#) && last.contains(&drained), "{last}");
}

#[tokio::test]
async fn a_node_without_clients_drains_with_0() {
    let launch = Launch { settings: QUICK, neighbour: false, ..Launch::default() };
    let node = Node::launch(launch).await;
    node.signal("TERM").await;
    end(node, 0).await;
}

#[tokio::test]
async fn clients_are_closed_in_a_way_that_makes_them_reconnect() {
    let node = Node::start(QUICK).await;
    let mut ws = Ws::connect(node.public).await;
    let mut polling = Polling::connect(node.public).await;
    polling.begin_poll().await;
    node.signal("TERM").await;
    // A Socket.IO DISCONNECT (41) would keep clients from coming back.
    assert_eq!(ws.until_closed().await, (Vec::new(), None));
    assert_eq!(polling.polled().await.text(), "1");
    end(node, 0).await;
}

#[tokio::test]
async fn a_draining_node_is_unfit_and_serves_on() {
    let settings = "[drain]\nready_delay = \"1h\"\nspread = \"0s\"\ndeadline = \"2h\"\n";
    let node = Node::start(settings).await;
    for address in [node.public, node.internal] {
        let ready = http::get(address, "/readyz").await;
        assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
        assert_eq!(http::get(address, "/healthz").await.status, 200);
    }
    let mut before = Ws::connect(node.public).await;
    node.signal("TERM").await;
    until("the node is unfit", async || http::get(node.internal, "/readyz").await.status != 200)
        .await;
    for address in [node.public, node.internal] {
        let ready = http::get(address, "/readyz").await;
        assert_eq!((ready.status, ready.text().as_str()), (404, "draining\n"));
        assert_eq!(http::get(address, "/healthz").await.status, 200);
    }
    assert_eq!(node.metric("carillon_draining").await, 1.0);
    assert_eq!(before.call("[\"echo\",1]").await, "[1]", "who is there is served");
    let mut late = Ws::connect(node.public).await;
    assert_eq!(late.call("[\"echo\",2]").await, "[2]", "who comes late is served");
    let mut http = Http::connect(node.public).await;
    let response = http.request("GET", "/healthz", &[], b"").await;
    assert!(response.closes(), "the next request belongs to another node");
    node.neighbour_echo("TERM").await;
    node.signal("TERM").await;
    assert!(matches!(before.next().await, Received::Closed(_)));
    assert!(matches!(late.next().await, Received::Closed(_)));
    end(node, 1).await;
}

#[tokio::test]
async fn the_deadline_cuts_off_with_1() {
    let settings = "[drain]\nready_delay = \"0s\"\nspread = \"0s\"\ndeadline = \"300ms\"\n";
    let node = Node::start(settings).await;
    // Its close packet waits for a poll that never comes.
    let _client = Polling::connect(node.public).await;
    node.signal("TERM").await;
    end(node, 1).await;
}

#[tokio::test]
async fn an_interrupt_while_draining_ends_with_130() {
    let settings = "[drain]\nready_delay = \"1h\"\nspread = \"0s\"\ndeadline = \"2h\"\n";
    let mut node = Node::start(settings).await;
    node.signal("TERM").await;
    node.until_metric("carillon_draining", 1.0).await;
    node.signal("INT").await;
    assert_eq!(node.exit().await.code(), Some(130));
}
