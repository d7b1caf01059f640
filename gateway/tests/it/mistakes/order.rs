//! Order of one client's events, and sockets that are gone for good.

use std::time::Duration;

use socket2::SockRef;

use super::number_of;
use crate::support::websocket::text;
use crate::support::{Node, Polling, Ws, within};

#[tokio::test]
async fn twenty_thousand_events_of_one_client_stay_in_order() {
    const N_EVENTS: usize = 20_000;
    let node = Node::start("").await;
    let mut observer = Ws::connect(node.public).await;
    let mut client = Ws::connect(node.public).await;
    let mut sent = Vec::new();
    for n in 0..N_EVENTS {
        // Events of several kinds, so that none overtakes one that takes another way.
        sent.extend(text(&format!("42{n}[\"echo\",{n}]")));
        sent.extend(text(&format!("42[\"to-others\",{n}]")));
        sent.extend(text(&format!("42[\"join\",\"room-{}\"]", n % 10)));
    }
    let observed = async {
        for n in 0..N_EVENTS {
            assert_eq!(number_of(&observer.text().await), n);
        }
    };
    let acknowledged = async {
        client.write(&sent).await;
        for n in 0..N_EVENTS {
            assert_eq!(client.text().await, format!("43{n}[{n}]"));
        }
    };
    within("all events", async { tokio::join!(observed, acknowledged) }).await;
    node.finish().await;
}

#[tokio::test]
async fn an_ack_comes_after_what_its_event_caused() {
    let node = Node::start("").await;
    let mut client = Ws::connect(node.public).await;
    for n in 0..200 {
        client.send("42[\"join\",\"a\"]").await;
        client.send(&format!("421[\"to-room\",\"a\",{n}]")).await;
        client.send("422[\"leave\",\"a\"]").await;
        client.send("423[\"to-room\",\"a\",\"nobody\"]").await;
        assert_eq!(number_of(&client.text().await), n);
        for id in 1..=3 {
            assert_eq!(client.text().await, format!("43{id}[]"));
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn joining_while_leaving_leaves_no_ghost() {
    let node = Node::start("").await;
    let join = "42[\"join\",\"haunted\"]";
    for round in 0..100 {
        let mut ws = Ws::connect(node.public).await;
        ws.write(&text(join).repeat(1 + round % 20)).await;
        match round % 4 {
            0 => drop(ws),
            1 => {
                // A reset instead of an end.
                SockRef::from(ws.stream()).set_linger(Some(Duration::ZERO)).expect("linger");
                drop(ws);
            }
            2 => {
                // Behind its own DISCONNECT a client has no namespace to send to.
                ws.write(&[text("41"), text(join)].concat()).await;
                ws.until_closed().await;
            }
            _ => {
                ws.write(&[text(join), text("1"), text(join)].concat()).await;
                ws.until_closed().await;
            }
        }
        let mut polling = Polling::connect(node.public).await;
        polling.post(&[join, "1", join].join("\u{1e}")).await;
    }
    node.until_metric("carillon_sockets{namespace=\"/\"}", 0.0).await;
    node.until_metric("carillon_sessions{transport=\"websocket\"}", 1.0).await;
    let mut publisher = Ws::connect(node.public).await;
    let before = node.metric("carillon_deliveries_total").await;
    assert_eq!(publisher.call("[\"to-room\",\"haunted\",1]").await, "[]");
    assert_eq!(node.metric("carillon_deliveries_total").await, before, "somebody is in the room");
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_disconnects_may_connect_again_on_the_same_session() {
    let node = Node::start("").await;
    let (mut ws, first) = Ws::connect_with_id(node.public).await;
    ws.call("[\"join\",\"room\"]").await;
    ws.send("41").await;
    let second = ws.enter("/", "").await;
    assert_ne!(first, second);
    assert_eq!(ws.call("[\"to-room\",\"room\",1]").await, "[]");
    ws.send("42[\"to-all\",2]").await;
    assert_eq!(ws.text().await, "42[\"msg\",2]", "and it is in no room of its former life");
    node.finish().await;
}
