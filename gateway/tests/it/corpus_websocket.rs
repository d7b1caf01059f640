//! What clients may send over WebSocket, right or wrong, and what has to come of it. The row ids
//! name the lines of the project's corpus of bad input.

mod frames;
mod packets;

use crate::support::websocket::{Received, Ws, text};
use crate::support::{DEADLINE, Node, until};

/// One line of the corpus.
struct Row {
    id: &'static str,
    /// What is sent, as raw bytes, in one go.
    sent: Vec<u8>,
    expected: Expected,
}

/// What has to come of it.
#[derive(Clone)]
enum Expected {
    /// The event comes back from the server, and the connection stays open.
    Delivered(Vec<Received>),
    /// Nothing comes of it, and the connection stays open.
    Ignored,
    /// The connection is closed, and nothing was delivered.
    Closed,
    /// The same with this status in the close frame.
    ClosedWith(u16),
    /// The namespace is refused, and the connection stays open.
    Refused(String),
    /// The namespace is joined.
    Joined,
    /// Delivered or closed: both are safe.
    Either,
}

use Expected::{Closed, ClosedWith, Delivered, Either, Ignored, Joined, Refused};

fn row(id: &'static str, sent: impl AsRef<str>, expected: Expected) -> Row {
    Row { id, sent: text(sent.as_ref()), expected }
}

fn raw(id: &'static str, sent: Vec<u8>, expected: Expected) -> Row {
    Row { id, sent, expected }
}

/// An event that the server sends back as text.
fn echoed(text: impl Into<String>) -> Expected {
    Delivered(vec![Received::Text(text.into())])
}

/// A node whose clients wait only a moment for attachments that never come.
async fn node() -> Node {
    Node::start("[socket]\nattachments_timeout = \"300ms\"\n").await
}

async fn check(node: &Node, rows: &[Row]) {
    for row in rows {
        let mut ws = Ws::connect(node.public).await;
        check_row(&mut ws, row).await;
        node.neighbour_echo(row.id).await;
    }
    // Nothing of this is the node's own fault.
    assert_eq!(node.metric("carillon_sessions_closed_total{reason=\"overload\"}").await, 0.0);
}

async fn check_row(ws: &mut Ws, row: &Row) {
    // Shorter than the deadline of a single read, so that the failure names the row.
    let checked = tokio::time::timeout(DEADLINE / 2, outcome(ws, row)).await;
    assert!(checked.is_ok(), "{}: nothing came of it in time", row.id);
}

async fn outcome(ws: &mut Ws, row: &Row) {
    let Row { id, sent, expected } = row;
    ws.write(sent).await;
    match expected {
        Closed | ClosedWith(_) => {
            let (before, code) = ws.until_closed().await;
            assert_eq!(before, [], "{id}: delivered");
            if let ClosedWith(expected) = expected {
                assert_eq!(code, Some(*expected), "{id}: the close status");
            }
        }
        Either => {
            // Whatever it is, it is one or the other.
            ws.send("42999[\"echo\"]").await;
            loop {
                match ws.next().await {
                    Received::Text(text) if text.starts_with("43999") => break,
                    Received::Closed(_) => break,
                    _ => {}
                }
            }
        }
        Delivered(messages) => {
            for expected in messages {
                let received = ws.next().await;
                assert!(same(&received, expected), "{id}: {received:?} is not {expected:?}");
            }
            still_open(ws, id).await;
        }
        Ignored => still_open(ws, id).await,
        Refused(namespace) => {
            let received = ws.text().await;
            let start = format!("44{namespace},{{\"message\":");
            assert!(received.starts_with(&start), "{id}: {received} does not start with {start}");
            still_open(ws, id).await;
        }
        Joined => {
            let received = ws.text().await;
            assert!(received.starts_with("40"), "{id}: {received}");
        }
    }
}

/// The next thing that the client hears is the answer to its next question.
async fn still_open(ws: &mut Ws, id: &str) {
    ws.send("42999[\"echo\",\"open\"]").await;
    let received = ws.next().await;
    assert_eq!(received, Received::Text("43999[\"open\"]".to_owned()), "{id}");
}

/// Texts are compared as JSON behind their packet's header: a writer may choose other escapes.
fn same(received: &Received, expected: &Received) -> bool {
    let (Received::Text(received), Received::Text(expected)) = (received, expected) else {
        return received == expected;
    };
    let split = |text: &str| {
        let at = text.find('[').unwrap_or(text.len());
        let json = serde_json::from_str::<serde_json::Value>(&text[at..]).ok();
        (text[..at].to_owned(), json)
    };
    split(received) == split(expected)
}

/// Repeats rows that cost the server something, and looks at its memory before and after.
async fn check_growth(node: &Node, rows: &[Row], n_rounds: usize, bytes_max: i64) {
    // What every first use allocates once is no growth.
    for _ in 0..n_rounds / 5 {
        check(node, rows).await;
    }
    let before = node.resident_bytes();
    for _ in 0..n_rounds {
        check(node, rows).await;
    }
    // Closed connections linger for a moment to hear their peer's goodbye.
    until("memory has settled", async || node.resident_bytes() - before < bytes_max).await;
    node.until_metric("carillon_sessions{transport=\"websocket\"}", 1.0).await;
}
