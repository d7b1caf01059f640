//! One test for each mistake that other servers of this protocol were measured to make. Escaped and
//! numeric event names, reserved names and trailing bytes are rows of the corpus as well; here they
//! stand for the polling transport.

mod memory;
mod order;
mod slow;
mod timing;
mod upgrade;

use crate::support::{Node, Polling, Ws, http};

/// An event of 8 KB, so that a few hundred fill every buffer on the way to a client.
fn large(event: &str, number: usize) -> String {
    format!("[\"{event}\",[{number},\"{}\"]]", "x".repeat(8_000))
}

/// The number of a [`large`] event, or of one whose only argument is a number.
fn number_of(packet: &str) -> usize {
    let argument = packet.strip_prefix("42[\"msg\",").unwrap_or_else(|| panic!("{packet:.80}"));
    let digits = argument.trim_start_matches('[');
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or_else(|_| panic!("{packet:.80}"))
}

#[tokio::test]
async fn a_public_id_is_useless_as_a_session_id() {
    let node = Node::start("").await;
    let (mut websocket, websocket_id) = Ws::connect_with_id(node.public).await;
    let (mut polling, polling_id) = Polling::connect_with_id(node.public).await;
    assert_ne!(polling.sid, polling_id);
    for id in [websocket_id, polling_id] {
        let polling = format!("/socket.io/?EIO=4&transport=polling&sid={id}");
        for method in ["GET", "POST"] {
            let response = http::request(node.public, method, &polling, &[], b"1").await;
            assert_eq!((response.status, response.code()), (400, Some(1)), "{method}");
        }
        let target = format!("/socket.io/?EIO=4&transport=websocket&sid={id}");
        let http = http::Http::connect(node.public).await;
        let refused = Ws::handshake(http, &target, &[]).await.err().expect("a refusal");
        assert_eq!((refused.status, refused.code()), (400, Some(1)), "upgrade");
    }
    assert_eq!(websocket.call("[\"echo\",1]").await, "[1]");
    assert_eq!(polling.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}

#[tokio::test]
async fn nobody_joins_the_room_of_anothers_id() {
    let node = Node::start("").await;
    let (mut victim, id) = Ws::connect_with_id(node.public).await;
    let mut thief = Ws::connect(node.public).await;
    let refusal = thief.call(&format!("[\"join\",\"{id}\"]")).await;
    assert!(refusal.contains("\"error\""), "{refusal}");
    let mut publisher = Ws::connect(node.public).await;
    publisher.call(&format!("[\"to-id\",\"{id}\",1]")).await;
    assert_eq!(victim.text().await, "42[\"msg\",1]");
    thief.send("427[\"echo\"]").await;
    assert_eq!(thief.text().await, "437[]", "the first that it hears is its own answer");
    // Nor can anybody put the victim out of it.
    thief.call(&format!("[\"leave\",\"{id}\"]")).await;
    victim.call(&format!("[\"leave\",\"{id}\"]")).await;
    publisher.call(&format!("[\"to-id\",\"{id}\",2]")).await;
    assert_eq!(victim.text().await, "42[\"msg\",2]");
    node.finish().await;
}

#[tokio::test]
async fn session_ids_stay_out_of_the_log() {
    let node = Node::start("[log]\nlevel = \"trace\"\n").await;
    let mut client = Polling::connect(node.public).await;
    client.post("42[\"secret-event\",\"secret-argument\"]").await;
    assert_eq!(client.next().await, "42[\"secret-event\",\"secret-argument\"]");
    client.post("7").await;
    assert!(client.is_dead().await);
    for line in node.log() {
        assert!(!line.contains(&client.sid), "{line}");
        assert!(!line.contains("secret-"), "{line}");
    }
    node.finish().await;
}

#[tokio::test]
async fn names_with_escapes_and_numbers_are_names() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    for (sent, expected) in [
        (r#"42["a\"b",1]"#, r#"42["a\"b",1]"#),
        (r#"42["\u0061\n\t",1]"#, r#"42["a\n\t",1]"#),
        ("42[7,1]", r#"42["7",1]"#),
        (r#"42["",1]"#, r#"42["",1]"#),
    ] {
        assert_eq!(client.post(sent).await.status, 200, "{sent}");
        assert_eq!(client.next().await, expected);
    }
    // An escaped name is the name that it means.
    assert_eq!(client.call(r#"["\u0065cho",1]"#).await, "[1]");
    node.finish().await;
}

#[tokio::test]
async fn trailing_bytes_and_reserved_names_end_the_session() {
    let node = Node::start("").await;
    let sent = [
        r#"42["echo",1]xyz"#,
        r#"42["echo",1],"evil"]"#,
        r#"42["connect"]"#,
        r#"42["disconnect","transport close"]"#,
        r#"42["\u0064isconnect"]"#,
        r#"42["disconnecting"]"#,
        r#"42["connect_error"]"#,
        r#"42["newListener"]"#,
        r#"42["removeListener"]"#,
    ];
    for sent in sent {
        let mut client = Polling::connect(node.public).await;
        assert_eq!(client.post(sent).await.status, 400, "{sent}");
        assert!(client.is_dead().await, "{sent}");
    }
    assert_eq!(node.n_closed("parse_error").await, sent.len() as f64);
    node.finish().await;
}
