//! Deadlines: heartbeats, handshakes that stop half-way, attachments that never come.

use std::time::{Duration, Instant};

use crate::support::websocket::{CONTINUATION, TEXT, fragment};
use crate::support::{Node, Polling, Received, Ws};

const HEARTBEAT: &str = "[engine]\nping_interval = \"300ms\"\nping_timeout = \"300ms\"\n";

#[tokio::test]
async fn the_first_ping_comes_after_one_interval_and_a_missing_pong_closes() {
    let node = Node::start(HEARTBEAT).await;
    let started = Instant::now();
    let mut ws = Ws::connect(node.public).await;
    assert_eq!(ws.next_raw().await, Received::Text("2".to_owned()));
    // Only the lower bounds: a busy machine is late, and no machine is early.
    assert!(started.elapsed() >= Duration::from_millis(300), "the ping came early");
    assert!(matches!(ws.next_raw().await, Received::Closed(_)), "one ping, then the end");
    assert!(started.elapsed() >= Duration::from_millis(600), "the end came early");
    assert_eq!(node.n_closed("ping_timeout").await, 1.0);
    node.finish().await;
}

#[tokio::test]
async fn a_polling_client_that_does_not_answer_is_closed() {
    let node = Node::start(HEARTBEAT).await;
    let mut client = Polling::connect(node.public).await;
    assert_eq!(client.poll().await.text(), "2");
    assert_eq!(client.poll().await.text(), "1");
    assert!(client.is_dead().await);
    assert_eq!(node.n_closed("ping_timeout").await, 1.0);
    node.finish().await;
}

#[tokio::test]
async fn clients_that_answer_are_kept() {
    let node = Node::start(HEARTBEAT).await;
    let mut ws = Ws::connect(node.public).await;
    let mut polling = Polling::connect(node.public).await;
    let websocket_lives = async {
        for _ in 0..6 {
            assert_eq!(ws.next_raw().await, Received::Text("2".to_owned()));
            ws.send("3").await;
        }
    };
    let polling_lives = async {
        for _ in 0..6 {
            assert_eq!(polling.poll().await.text(), "2");
            assert_eq!(polling.post("3").await.status, 200);
        }
    };
    tokio::join!(websocket_lives, polling_lives);
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    assert_eq!(polling.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}

#[tokio::test]
async fn the_open_packet_says_what_is_configured() {
    let settings =
        "[engine]\nping_interval = \"7s\"\nping_timeout = \"5s\"\nmax_payload = \"4KB\"\n";
    let node = Node::start(settings).await;
    let mut client = Polling::open(node.public).await;
    let open = &client.open;
    assert_eq!(open["pingInterval"], 7_000);
    assert_eq!(open["pingTimeout"], 5_000);
    assert_eq!(open["maxPayload"], 4_000);
    assert_eq!(open["upgrades"], serde_json::json!(["websocket"]));
    client.post("40").await;
    client.next().await;
    let limit = 4_000 - "42[\"echo\",\"\"]".len();
    let event = |len| format!("42[\"echo\",\"{}\"]", "x".repeat(len));
    assert_eq!(client.post(&event(limit)).await.status, 200);
    assert_eq!(client.post(&event(limit + 1)).await.status, 413);
    let mut ws = Ws::connect(node.public).await;
    ws.send(&event(limit)).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    ws.send(&event(limit + 1)).await;
    assert_eq!(ws.until_closed().await, (Vec::new(), Some(1009)));
    node.finish().await;
}

#[tokio::test]
async fn a_session_without_a_namespace_is_closed() {
    let node = Node::start("[engine]\nconnect_timeout = \"400ms\"\n").await;
    let mut silent = Ws::open(node.public).await;
    let mut refused = Ws::open(node.public).await;
    refused.send("40/nope,").await;
    assert!(refused.text().await.starts_with("44/nope,"));
    let mut polling = Polling::open(node.public).await;
    let mut joined = Ws::connect(node.public).await;
    silent.until_closed().await;
    refused.until_closed().await;
    assert_eq!(polling.poll().await.text(), "1");
    assert!(polling.is_dead().await);
    assert_eq!(node.n_closed("forced").await, 3.0);

    assert_eq!(joined.call("[\"echo\",1]").await, "[1]", "with a namespace it stays");
    joined.send("41").await;
    joined.until_closed().await;
    assert_eq!(node.n_closed("client_disconnect").await, 1.0, "the last namespace was left");
    node.finish().await;
}

#[tokio::test]
async fn attachments_that_never_come_end_the_session() {
    let node = Node::start("[socket]\nattachments_timeout = \"300ms\"\n").await;
    let header = "451-[\"a\",{\"_placeholder\":true,\"num\":0}]";
    let mut ws = Ws::connect(node.public).await;
    ws.send(header).await;
    assert_eq!(ws.until_closed().await.0, []);
    let mut polling = Polling::connect(node.public).await;
    assert_eq!(polling.post(header).await.status, 200);
    assert_eq!(polling.poll().await.text(), "1");
    assert_eq!(node.n_closed("parse_error").await, 2.0);
    // A pong between header and attachment neither hurts nor helps.
    let mut ws = Ws::connect(node.public).await;
    ws.send(header).await;
    ws.send("3").await;
    ws.write(&crate::support::websocket::binary(b"x")).await;
    assert_eq!(ws.text().await, header);
    assert_eq!(ws.next().await, Received::Binary(b"x".to_vec()));
    node.finish().await;
}

#[tokio::test]
async fn the_limit_on_frames_is_a_setting() {
    let node = Node::start("[engine]\nframes_per_message_max = 3\n").await;
    let mut ws = Ws::connect(node.public).await;
    let event = b"42[\"a\"]";
    let first = fragment(false, TEXT, event);
    let empty = fragment(false, CONTINUATION, b"");
    let last = fragment(true, CONTINUATION, b"");
    ws.write(&[&first[..], &empty, &last].concat()).await;
    assert_eq!(ws.text().await, "42[\"a\"]");
    ws.write(&[&first[..], &empty, &empty, &last].concat()).await;
    assert_eq!(ws.until_closed().await, (Vec::new(), Some(1008)));
    node.finish().await;
}

#[tokio::test]
async fn the_caps_on_rooms_and_namespaces_refuse_and_keep_the_connection() {
    let settings = "[socket]\nrooms_per_socket_max = 3\nnamespaces_per_client_max = 2\n";
    let node = Node::start(settings).await;
    let mut ws = Ws::connect(node.public).await;
    let mut joined = Vec::new();
    for room in 0..5 {
        joined.push(ws.call(&format!("[\"join\",\"room-{room}\"]")).await == "[]");
    }
    let n_joined = joined.iter().filter(|joined| **joined).count();
    assert!(joined.is_sorted_by(|before, after| before >= after), "first come, first served");
    assert!((2..=3).contains(&n_joined), "{n_joined} rooms beside or with the own one");
    ws.call("[\"leave\",\"room-0\"]").await;
    assert_eq!(ws.call("[\"join\",\"room-9\"]").await, "[]", "a left room makes room");
    ws.enter("/burst", "").await;
    ws.send("40/neighbour,").await;
    assert!(ws.text().await.starts_with("44/neighbour,"));
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}
