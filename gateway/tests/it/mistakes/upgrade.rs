//! The change from polling to WebSocket: nothing is lost, and a probe that fails costs nothing.

use super::number_of;
use crate::support::http::{self, Http};
use crate::support::{Node, Polling, Received, Ws, polling};

/// Events for one client, numbered in the order in which they are published.
struct Stream {
    publisher: Ws,
    id: String,
    n_published: usize,
}

impl Stream {
    async fn publish(&mut self, n_events: usize) {
        for _ in 0..n_events {
            let event = format!("[\"to-id\",\"{}\",{}]", self.id, self.n_published);
            self.publisher.call(&event).await;
            self.n_published += 1;
        }
    }
}

/// Takes the events out of a poll's response; answers whether there were any packets but `6`.
fn take_events(response: &http::Response, received: &mut Vec<usize>) {
    assert_eq!(response.status, 200, "{response:?}");
    let packets = polling::packets(response);
    received.extend(packets.iter().filter(|packet| *packet != "6").map(|packet| number_of(packet)));
}

async fn probe(client: &Polling) -> Ws {
    let mut ws = Ws::upgrade(client.address, &client.upgrade_target()).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    ws
}

/// One upgrade with events published before, during and after it; `round` varies how many, what the
/// client polls meanwhile, and where the upgrade packet stands.
async fn upgrade_once(node: &Node, round: usize) {
    let (mut client, id) = Polling::connect_with_id(node.public).await;
    let publisher = Ws::connect(node.public).await;
    let mut stream = Stream { publisher, id, n_published: 0 };
    let mut received = Vec::new();

    let holds_poll = round % 2 == 1;
    if holds_poll {
        client.begin_poll().await;
    }
    stream.publish(round % 5).await;
    let mut ws = Ws::upgrade(client.address, &client.upgrade_target()).await;
    stream.publish(round % 3).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    stream.publish(round % 4).await;
    if holds_poll {
        // The official client ends its polls before it sends the upgrade packet.
        take_events(&client.polled().await, &mut received);
        if round.is_multiple_of(3) {
            stream.publish(2).await;
            take_events(&client.poll().await, &mut received);
        }
    }
    // Packets of the client directly behind its upgrade packet belong to the session.
    let upgrade =
        [crate::support::websocket::text("5"), crate::support::websocket::text("421[\"echo\"]")];
    if round.is_multiple_of(2) {
        ws.write(&upgrade.concat()).await;
    } else {
        ws.write(&upgrade[0]).await;
        stream.publish(1).await;
        ws.write(&upgrade[1]).await;
    }
    stream.publish(3).await;
    let mut answered = false;
    while received.len() < stream.n_published || !answered {
        match ws.text().await {
            text if text == "431[]" => answered = true,
            text => received.push(number_of(&text)),
        }
    }
    let expected: Vec<usize> = (0..stream.n_published).collect();
    assert_eq!(received, expected, "round {round}");
    // Nothing comes twice: the next packet is the answer to the next question.
    ws.send("422[\"echo\",\"end\"]").await;
    assert_eq!(ws.text().await, "432[\"end\"]", "round {round}");
}

#[tokio::test]
async fn nothing_is_lost_repeated_or_reordered() {
    let node = Node::start("").await;
    for round in 0..60 {
        upgrade_once(&node, round).await;
    }
    assert_eq!(node.metric("carillon_sessions_upgraded_total").await, 60.0);
    node.finish().await;
}

#[tokio::test]
async fn an_event_posted_before_the_upgrade_comes_before_those_behind_it() {
    let node = Node::start("").await;
    let (mut client, _) = Polling::connect_with_id(node.public).await;
    let mut ws = probe(&client).await;
    for n in 0..10 {
        assert_eq!(client.post(&format!("42{n}[\"echo\",{n}]")).await.status, 200);
    }
    ws.send("5").await;
    for n in 10..20 {
        ws.send(&format!("42{n}[\"echo\",{n}]")).await;
    }
    for n in 0..20 {
        assert_eq!(ws.text().await, format!("43{n}[{n}]"));
    }
    node.finish().await;
}

#[tokio::test]
async fn a_failed_probe_leaves_polling_alive() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    for sent in ["hello", "2", "5", "3probe", "42[\"echo\",1]", ""] {
        let mut ws = Ws::upgrade(client.address, &client.upgrade_target()).await;
        ws.send(sent).await;
        assert_eq!(ws.until_closed().await.0, [], "{sent}");
        assert_eq!(client.call("[\"echo\",1]").await, "[1]", "after {sent}");
    }
    for sent in ["2probe", "42[\"echo\",1]", "4"] {
        let mut ws = probe(&client).await;
        ws.send(sent).await;
        assert_eq!(ws.until_closed().await.0, [], "{sent}");
        assert_eq!(client.call("[\"echo\",1]").await, "[1]", "after the probe and {sent}");
    }
    // A connection that breaks at any point is no different.
    drop(Ws::upgrade(client.address, &client.upgrade_target()).await);
    node.until_metric("carillon_connections", 3.0).await;
    drop(probe(&client).await);
    node.until_metric("carillon_connections", 3.0).await;
    assert_eq!(client.call("[\"echo\",1]").await, "[1]");
    let mut ws = probe(&client).await;
    ws.send("5").await;
    assert_eq!(ws.call("[\"echo\",2]").await, "[2]", "it can still upgrade");
    node.finish().await;
}

#[tokio::test]
async fn a_stalled_probe_leaves_polling_alive() {
    let node = Node::start("[engine]\nupgrade_timeout = \"400ms\"\n").await;
    let mut client = Polling::connect(node.public).await;
    let mut silent = Ws::upgrade(client.address, &client.upgrade_target()).await;
    assert_eq!(client.call("[\"echo\",1]").await, "[1]", "while a silent probe is open");
    silent.until_closed().await;
    let mut probed = probe(&client).await;
    assert_eq!(client.call("[\"echo\",2]").await, "[2]", "while a probed connection is open");
    probed.until_closed().await;
    // Without a probe a poll is held again: it ends with an event, not with a `6`.
    client.begin_poll().await;
    let mut publisher = Ws::connect(node.public).await;
    publisher.call("[\"to-others\",3]").await;
    assert_eq!(client.polled().await.text(), "42[\"msg\",3]");
    node.finish().await;
}

#[tokio::test]
async fn polls_do_not_spin_while_a_probe_is_open() {
    let node = Node::start("[engine]\nupgrade_timeout = \"1s\"\n").await;
    let mut client = Polling::connect(node.public).await;
    let mut ws = probe(&client).await;
    let mut n_polls = 0;
    let polls = async {
        loop {
            assert_eq!(client.poll().await.text(), "6");
            n_polls += 1;
        }
    };
    tokio::select! {
        _ = ws.until_closed() => {}
        () = polls => {}
    }
    // Each is held for 100 ms; the second may grow with the machine's load, the number only shrinks.
    assert!((1..=15).contains(&n_polls), "{n_polls} polls in the second of the probe");
    node.finish().await;
}

#[tokio::test]
async fn a_second_probe_is_refused_and_the_first_goes_on() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    let target = client.upgrade_target();
    let mut first = probe(&client).await;
    let second = Ws::handshake(Http::connect(node.public).await, &target, &[]).await;
    let refused = second.err().expect("a refusal");
    assert_eq!((refused.status, refused.code()), (400, Some(3)));
    assert_eq!(client.call("[\"echo\",1]").await, "[1]");
    first.send("5").await;
    assert_eq!(first.call("[\"echo\",2]").await, "[2]");

    let third = Ws::handshake(Http::connect(node.public).await, &target, &[]).await;
    let refused = third.err().expect("a refusal of a session that is on WebSocket already");
    assert_eq!((refused.status, refused.code()), (400, Some(3)));
    let poll = client.poll().await;
    assert_eq!((poll.status, poll.code()), (400, Some(3)), "polling is over");
    let post = client.post("42[\"echo\",1]").await;
    assert_eq!((post.status, post.code()), (400, Some(3)), "polling is over");
    assert_eq!(first.call("[\"echo\",3]").await, "[3]");
    node.finish().await;
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_probe() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    let mut ws = probe(&client).await;
    assert_eq!(client.post("1").await.status, 200);
    ws.send("5").await;
    let (received, _) = ws.until_closed().await;
    assert_eq!(received, Vec::<Received>::new());
    assert!(client.is_dead().await);
    node.until_metric("carillon_sessions{transport=\"polling\"}", 0.0).await;
    node.until_metric("carillon_sessions{transport=\"websocket\"}", 1.0).await;
    node.finish().await;
}
