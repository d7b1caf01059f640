//! What polling clients may send, right or wrong, and what has to come of it. The row ids name the
//! lines of the project's corpus of bad input.

use crate::support::http::{self, Http};
use crate::support::polling::{self, Polling, TARGET};
use crate::support::{Node, until};

/// Whether a session can be used after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Alive,
    Dead,
    /// Both are safe.
    Either,
}

use After::{Alive, Dead, Either};

/// One request on a session of its own.
struct Row {
    id: &'static str,
    body: Vec<u8>,
    header: &'static str,
    statuses: &'static [u16],
    after: After,
    /// What the server sends back before the session is used again.
    delivered: &'static [&'static str],
}

const TEXT: &str = "Content-Type: text/plain;charset=UTF-8";

fn row(id: &'static str, body: impl Into<Vec<u8>>, status: &'static [u16], after: After) -> Row {
    Row { id, body: body.into(), header: TEXT, statuses: status, after, delivered: &[] }
}

impl Row {
    fn delivers(self, delivered: &'static [&'static str]) -> Self {
        Self { delivered, ..self }
    }

    fn with(self, header: &'static str) -> Self {
        Self { header, ..self }
    }
}

async fn check(node: &Node, row: &Row) {
    let id = row.id;
    let mut client = Polling::connect(node.public).await;
    let target = client.target();
    let response = http::request(node.public, "POST", &target, &[row.header], &row.body).await;
    assert!(row.statuses.contains(&response.status), "{id}: {response:?}");
    for expected in row.delivered {
        assert_eq!(client.next().await, *expected, "{id}");
    }
    check_after(&mut client, id, row.after).await;
    node.neighbour_echo(id).await;
}

async fn check_after(client: &mut Polling, id: &str, after: After) {
    match after {
        Alive => {
            let response = client.post("42999[\"echo\",\"open\"]").await;
            assert_eq!(response.status, 200, "{id}: {response:?}");
            assert_eq!(client.next().await, "43999[\"open\"]", "{id}");
        }
        Dead => assert!(client.is_dead().await, "{id}: the session is alive"),
        Either => {}
    }
}

/// P1 to P17: bodies and their headers.
#[tokio::test]
async fn bodies() {
    let attachment = "451-[\"a\",{\"_placeholder\":true,\"num\":0}]";
    let rows = [
        row("P1", "42[\"a\"]\u{1e}42[\"b\"]", &[200], Alive).delivers(&["42[\"a\"]", "42[\"b\"]"]),
        row("P2", "", &[200, 400], Either),
        row("P3", "\u{1e}", &[400], Dead),
        row("P3 first", "\u{1e}42[\"a\"]", &[400], Dead),
        row("P4", "42[\"a\"]\u{1e}", &[200, 400], Either),
        row("P5 kind 7", "7", &[400], Dead),
        row("P5 zzz", "zzz", &[400], Dead),
        row("P6 open", "0{}", &[400], Dead),
        row("P6 upgrade", "5", &[400], Dead),
        row("P6 noop", "6", &[400], Dead),
        row("P7", "2", &[200, 400], Either),
        row("P8", "1\u{1e}42[\"a\"]", &[200], Dead),
        row("P9", "b!!!", &[400], Dead),
        row("P10", format!("{attachment}\u{1e}bAQID"), &[200], Alive)
            .delivers(&["451-[\"a\",{\"_placeholder\":true,\"num\":0}]", "bAQID"]),
        row("P11", b"42[\"a\xff\xfe\"]", &[400], Dead),
        row("P12", "42[\"a\"]", &[415], Either).with("Content-Encoding: gzip"),
        row("P13", "42[\"a\"]", &[400], Dead).with("Content-Type: application/octet-stream"),
        row("P14", format!("42[\"echo\",\"{}\"]", "x".repeat(99_990)), &[200], Alive),
        row("P15", "4".repeat(1_000_001), &[413], Dead),
        row("P16", "3\u{1e}".repeat(50_000), &[400], Dead),
        row("P16 1,001 packets", vec!["3"; 1_001].join("\u{1e}"), &[400], Dead),
        row("P16 1,000 packets", vec!["3"; 1_000].join("\u{1e}"), &[200], Alive),
        row("P17", "7:42[\"a\"]", &[400], Dead),
    ];
    let node = Node::start("").await;
    for row in &rows {
        check(&node, row).await;
    }
    node.finish().await;
}

/// P8 again: nothing behind the close packet is delivered to anybody.
#[tokio::test]
async fn nothing_behind_a_close_packet_is_delivered() {
    let node = Node::start("").await;
    let mut witness = Polling::connect(node.public).await;
    let mut client = Polling::connect(node.public).await;
    let response =
        client.post("42[\"to-all\",\"before\"]\u{1e}1\u{1e}42[\"to-all\",\"after\"]").await;
    assert_eq!(response.status, 200);
    assert_eq!(witness.next().await, "42[\"msg\",\"before\"]");
    assert_eq!(witness.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}

/// P15 with a body whose length is not announced.
#[tokio::test]
async fn a_chunked_body_ends_at_the_limit() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    let mut http = Http::connect(node.public).await;
    let target = client.target();
    http.send("POST", &target, &[TEXT, "Transfer-Encoding: chunked"], b"").await;
    let chunk = [b"10000\r\n".as_slice(), &[b'4'; 0x10000], b"\r\n"].concat();
    for _ in 0..17 {
        if http.write(&chunk).await.is_err() {
            break;
        }
    }
    let response = http.response().await.expect("a response");
    assert_eq!((response.status, response.closes()), (413, true), "P15 chunked");
    assert!(client.is_dead().await, "P15 chunked: the session is alive");
    node.finish().await;
}

/// P18: methods that Engine.IO does not use.
#[tokio::test]
async fn methods() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    for method in ["DELETE", "HEAD", "PUT", "PATCH"] {
        let response = http::request(node.public, method, &client.target(), &[], b"").await;
        assert_eq!(response.status, 405, "P18 {method}");
        node.neighbour_echo("P18").await;
    }
    check_after(&mut client, "P18", Alive).await;
    node.finish().await;
}

/// P19 and P20: two requests of one direction at once.
#[tokio::test]
async fn overlapping_requests() {
    let node = Node::start("").await;

    let mut client = Polling::connect(node.public).await;
    let target = client.target();
    let mut first = Http::connect(node.public).await;
    first.send("POST", &target, &[TEXT, "Content-Length: 10"], b"42[").await;
    // The second is an overlap once the first has been seen: until then it is an event.
    let mut status = 200;
    until("P19: the second POST is refused", async || {
        status = http::request(node.public, "POST", &target, &[TEXT], b"3").await.status;
        status != 200
    })
    .await;
    assert_eq!(status, 400, "P19");
    assert!(client.is_dead().await, "P19: the session is alive");
    node.neighbour_echo("P19").await;

    let mut client = Polling::connect(node.public).await;
    client.begin_poll().await;
    let second = async {
        let target = client.target();
        http::request(node.public, "GET", &target, &[], b"").await
    };
    let second = second.await;
    let first = client.polled().await;
    // Which of the two came first is the network's business.
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "P20");
    let closed = if first.status == 200 { first } else { second };
    assert_eq!(polling::packets(&closed), ["1"], "P20: the held poll ends with a close packet");
    assert!(client.is_dead().await, "P20: the session is alive");
    node.neighbour_echo("P20").await;
    node.finish().await;
}

/// P21: a body that takes too long.
#[tokio::test]
async fn slow_bodies() {
    let node = Node::start("[server]\nbody_timeout = \"400ms\"\n").await;
    let mut client = Polling::connect(node.public).await;
    let mut http = Http::connect(node.public).await;
    http.send("POST", &client.target(), &[TEXT, "Content-Length: 1000"], b"42[").await;
    let response = http.response().await.expect("P21: a response");
    assert_eq!((response.status, response.closes()), (408, true), "P21");
    assert!(client.is_dead().await, "P21: the session is alive");
    node.finish().await;
}

/// P22: a poll that its client gives up.
#[tokio::test]
async fn an_aborted_poll_loses_nothing() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    let before = node.metric("carillon_connections").await;
    let mut poll = Http::connect(node.public).await;
    poll.send("GET", &client.target(), &[], b"").await;
    node.until_metric("carillon_connections", before + 1.0).await;
    drop(poll);
    node.until_metric("carillon_connections", before).await;
    check_after(&mut client, "P22", Alive).await;
    node.finish().await;
}

/// P23: ids that name no session.
#[tokio::test]
async fn unknown_sessions() {
    let node = Node::start("").await;
    let client = Polling::connect(node.public).await;
    let other_node = format!("ZZZZ{}", &client.sid[4..]);
    let longer = format!("{}aa", client.sid);
    let sids = [
        "",
        "../../etc",
        "AAAAAAAAAAAAAAAA",
        "%C3%A9",
        "\u{e9}",
        &longer,
        &other_node,
        "__proto__",
    ];
    for sid in sids {
        for (method, target) in [("GET", TARGET), ("POST", TARGET)] {
            let target = format!("{target}&sid={sid}");
            let response = http::request(node.public, method, &target, &[], b"").await;
            let seen = (response.status, response.code());
            // What is no URI at all never reaches the engine.
            let not_a_uri = seen == (400, None) && !sid.is_ascii();
            assert!(seen == (400, Some(1)) || not_a_uri, "P23 {method} {sid:?}: {response:?}");
        }
        node.neighbour_echo("P23").await;
    }
    node.finish().await;
}

/// P24: versions and transports.
#[tokio::test]
async fn versions_and_transports() {
    let node = Node::start("").await;
    let queries = [
        "EIO=5&transport=polling",
        "EIO=3&transport=polling",
        "transport=polling",
        "EIO=%34&transport=polling",
        "EIO=4&EIO=3&transport=polling",
        "EIO=4&EIO=4&transport=polling",
        "EIO=4",
        "EIO=4&transport=webtransport",
        "EIO=4&transport=constructor",
        "EIO=4&transport=[]",
        "EIO=4&transport[]=polling",
        "EIO=4&transport=polling&transport=websocket",
        "EIO=4&transport=polling&sid=__proto__",
        "",
    ];
    for query in queries {
        let response = http::get(node.public, &format!("/socket.io/?{query}")).await;
        assert_eq!(response.status, 400, "P24 {query}: {response:?}");
        assert!(response.code().is_some(), "P24 {query}: {response:?}");
        node.neighbour_echo("P24").await;
    }
    let response = http::request(node.public, "POST", TARGET, &[], b"").await;
    assert_eq!((response.status, response.code()), (400, Some(2)), "a handshake by POST");
    node.finish().await;
}

/// Refused bodies, 1,000 times: neither the bodies nor their sessions stay.
#[tokio::test]
async fn memory_does_not_grow_with_refused_bodies() {
    let rows = [
        row("P5", "zzz", &[400], Dead),
        row("P9", "b!!!", &[400], Dead),
        row("P15", "4".repeat(1_000_001), &[413], Dead),
        row("P16", "3\u{1e}".repeat(50_000), &[400], Dead),
    ];
    let node = Node::start("").await;
    for _ in 0..50 {
        for row in &rows {
            check(&node, row).await;
        }
    }
    let before = node.resident_bytes();
    for _ in 0..250 {
        for row in &rows {
            check(&node, row).await;
        }
    }
    until("memory has settled", async || node.resident_bytes() - before < 12 << 20).await;
    node.until_metric("carillon_sessions{transport=\"polling\"}", 0.0).await;
    node.finish().await;
}
