//! What may arrive instead of a handshake, and what has to come of it. The row ids name the lines of
//! the project's corpus of bad input.

use crate::support::http::{self, Http};
use crate::support::websocket::{HANDSHAKE, TARGET, Ws};
use crate::support::{Node, Polling};

/// The head of a WebSocket handshake with some of its lines replaced.
fn handshake(request_line: &str, replaced: &[(&str, &str)], more: &[&str]) -> Vec<u8> {
    let mut head = format!("{request_line}\r\nHost: gateway\r\n");
    for line in HANDSHAKE {
        let name = line.split(':').next().unwrap_or_default();
        let line = match replaced.iter().find(|(known, _)| *known == name) {
            Some((_, "")) => continue,
            Some((_, value)) => format!("{name}: {value}"),
            None => line.to_owned(),
        };
        head.push_str(&line);
        head.push_str("\r\n");
    }
    for line in more {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Sends bytes on a connection of their own; the response, and what follows it until the end.
async fn exchange(node: &Node, sent: &[u8]) -> (Option<http::Response>, Http) {
    let mut http = Http::connect(node.public).await;
    // A peer that stops reading early has made up its mind.
    let _ = http.write(sent).await;
    let response = http.response().await;
    (response, http)
}

/// H1 to H11: what looks like a WebSocket handshake and is none never gets a 101, and its connection
/// is closed, because a proxy may take what follows for a tunnel.
#[tokio::test]
async fn websocket_handshakes() {
    let get = format!("GET {TARGET} HTTP/1.1");
    let old = format!("GET {TARGET} HTTP/1.0");
    let unknown = format!("GET {TARGET}&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1");
    let post = format!("POST {TARGET} HTTP/1.1");
    let rows: [(&str, Vec<u8>, &[u16]); 16] = [
        ("H1", handshake(&get, &[("Upgrade", "")], &[]), &[400, 426]),
        ("H2", handshake(&get, &[("Connection", "")], &[]), &[400, 426]),
        ("H2 keep-alive", handshake(&get, &[("Connection", "keep-alive")], &[]), &[400, 426]),
        ("H3", handshake(&get, &[("Sec-WebSocket-Version", "")], &[]), &[400, 426]),
        ("H4", handshake(&get, &[("Sec-WebSocket-Version", "1337")], &[]), &[400, 426]),
        ("H5", handshake(&get, &[("Sec-WebSocket-Key", "x")], &[]), &[400]),
        (
            "H5 15 bytes",
            handshake(&get, &[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAA")], &[]),
            &[400],
        ),
        ("H6", handshake(&get, &[("Upgrade", "h2c")], &[]), &[400, 426]),
        ("H7", handshake(&old, &[], &[]), &[400, 426]),
        ("H8", [handshake(&get, &[], &["Content-Length: 5"]), b"hello".to_vec()].concat(), &[400]),
        ("H8 chunked", handshake(&get, &[], &["Transfer-Encoding: chunked"]), &[400]),
        ("H9", handshake(&get, &[("Sec-WebSocket-Key", "")], &[]), &[400]),
        ("H10", handshake(&unknown, &[], &[]), &[400]),
        ("H11", handshake(&get, &[], &["Origin: https://evil.example"]), &[403]),
        ("H11 null", handshake(&get, &[], &["Origin: null"]), &[403]),
        ("POST", handshake(&post, &[], &["Content-Length: 0"]), &[400]),
    ];
    let node = Node::start("").await;
    for (id, sent, statuses) in rows {
        let (response, rest) = exchange(&node, &sent).await;
        let response = response.unwrap_or_else(|| panic!("{id}: no response"));
        assert!(statuses.contains(&response.status), "{id}: {response:?}");
        assert!(response.closes(), "{id}: the connection has to be closed: {response:?}");
        assert_eq!(rest.rest().await, "", "{id}: something follows the response");
        node.neighbour_echo(id).await;
    }
    assert_eq!(node.metric("carillon_sessions{transport=\"websocket\"}").await, 1.0);
    node.finish().await;
}

/// What browsers and libraries send in other words is a handshake as well.
#[tokio::test]
async fn valid_handshakes_in_other_words() {
    let node = Node::start("").await;
    let get = format!("GET {TARGET} HTTP/1.1");
    let rows = [
        handshake(&get, &[("Connection", "keep-alive, Upgrade")], &[]),
        handshake(&get, &[("Upgrade", "WebSocket"), ("Connection", "upgrade")], &[]),
        handshake(
            &get,
            &[],
            &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
        ),
        handshake(&get, &[], &["Origin: http://gateway"]),
    ];
    for sent in rows {
        let (response, _) = exchange(&node, &sent).await;
        let response = response.expect("a response");
        assert_eq!(response.status, 101, "{}", String::from_utf8_lossy(&sent));
        let accept = response.header("sec-websocket-accept");
        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(
            response.header("sec-websocket-extensions"),
            None,
            "extensions are not supported"
        );
    }
    node.finish().await;
}

/// H12 to H25: HTTP itself.
#[tokio::test]
async fn requests() {
    let many: String = (0..200).map(|n| format!("X-Header-{n}: x\r\n")).collect();
    let health = |lines: &str| format!("GET /healthz HTTP/1.1\r\nHost: gateway\r\n{lines}\r\n");
    let post = |lines: &str, body: &str| {
        let target = crate::support::polling::TARGET;
        format!("POST {target} HTTP/1.1\r\nHost: gateway\r\n{lines}\r\n\r\n{body}")
    };
    let long_uri = format!("GET /{} HTTP/1.1\r\nHost: gateway\r\n\r\n", "x".repeat(70_000));
    let rows: [(&str, String, &[u16]); 13] = [
        ("H12", health(&many), &[431]),
        ("H13", health(&format!("X-Big: {}\r\n", "x".repeat(500_000))), &[431]),
        ("H14", long_uri, &[414]),
        ("H15", health("X-Folded: a\r\n b\r\n"), &[400]),
        ("H16", "GET /healthz HTTP/1.1\nHost: gateway\n\n".to_owned(), &[200]),
        ("H17", "GET /\0 HTTP/1.1\r\nHost: gateway\r\n\r\n".to_owned(), &[400]),
        (
            "H18",
            "GET http://other/healthz HTTP/1.1\r\nHost: gateway\r\n\r\n".to_owned(),
            &[200, 400],
        ),
        ("H20", post("Content-Length: 1\r\nContent-Length: 2", "3"), &[400]),
        ("H21", post("Transfer-Encoding: chunked", "fffffffffffffffff\r\n3"), &[400]),
        ("unknown coding", post("Transfer-Encoding: xchunked", "1\r\n3\r\n0\r\n\r\n"), &[400]),
        ("a signed length", post("Content-Length: +1", "3"), &[400]),
        ("H23", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned(), &[400]),
        ("H24", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[400, 505]),
    ];
    let node = Node::start("").await;
    for (id, sent, statuses) in rows {
        let (response, _) = exchange(&node, sent.as_bytes()).await;
        // A connection that is simply closed is as good as a refusal.
        match response {
            Some(response) => {
                assert!(statuses.contains(&response.status), "{id}: {response:?}");
            }
            None => assert!(matches!(id, "H23" | "H24"), "{id}: no response"),
        }
        node.neighbour_echo(id).await;
    }
    let (response, http) = exchange(&node, &vec![0; 1_000_000]).await;
    assert!(response.is_none_or(|response| response.status == 400), "H25");
    http.rest().await;
    node.neighbour_echo("H25").await;
    node.finish().await;
}

/// H19: of two lengths the chunked one counts, and nothing behind it becomes a request.
#[tokio::test]
async fn a_smuggled_request_is_not_answered() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let body = format!("1\r\n3\r\n0\r\n\r\n{smuggled}");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        client.target(),
        body.len()
    );
    let (response, rest) = exchange(&node, format!("{head}{body}").as_bytes()).await;
    let response = response.expect("H19: a response");
    assert!(matches!(response.status, 200 | 400), "H19: {response:?}");
    assert!(response.closes(), "H19: {response:?}");
    assert_eq!(rest.rest().await, "", "H19: the smuggled request was answered");
    assert_eq!(client.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}

/// H22: requests in a row on one connection are answered in their order.
#[tokio::test]
async fn pipelined_requests() {
    let node = Node::start("").await;
    let mut client = Polling::connect(node.public).await;
    let target = client.target();
    let mut http = Http::connect(node.public).await;
    let pipelined = format!(
        "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n\
         POST {target} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 15\r\n\r\n427[\"echo\",\"h\"]"
    );
    http.write(pipelined.as_bytes()).await.expect("write");
    let first = http.response().await.expect("H22: the first response");
    let second = http.response().await.expect("H22: the second response");
    assert_eq!((first.status, first.text().as_str()), (200, "ok\n"), "H22");
    assert_eq!((second.status, second.text().as_str()), (200, "ok"), "H22");
    assert_eq!(client.next().await, "437[\"h\"]", "H22");
    node.finish().await;
}

/// Connections that end in the middle of their handshake, 1,000 times.
#[tokio::test]
async fn broken_off_handshakes_leave_nothing() {
    let node = Node::start("").await;
    let whole = handshake(&format!("GET {TARGET} HTTP/1.1"), &[], &[]);
    let descriptors = node.n_descriptors();
    let mut before = 0;
    for round in 0..1_200 {
        if round == 200 {
            before = node.resident_bytes();
        }
        let mut http = Http::connect(node.public).await;
        http.write(&whole[..whole.len() * (round % 10) / 9]).await.expect("write");
        drop(http);
    }
    crate::support::until("all is given back", async || {
        node.n_descriptors() <= descriptors && node.resident_bytes() - before < 12 << 20
    })
    .await;
    node.until_metric("carillon_sessions{transport=\"websocket\"}", 1.0).await;
    let mut ws = Ws::connect(node.public).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}
