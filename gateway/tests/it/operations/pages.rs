//! What the listeners serve besides Engine.IO.

use crate::support::node::command;
use crate::support::{Node, http, within};

/// The client's file as the build of the binary found it.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/client/dist/socket.io.js");

#[tokio::test]
async fn the_client_script_has_a_tag_or_names_the_command() {
    let node = Node::start("").await;
    let target = "/socket.io/socket.io.js";
    let response = http::get(node.public, target).await;
    let Ok(file) = std::fs::read(CLIENT) else {
        assert_eq!(response.status, 404);
        assert!(response.text().contains("make client"), "{}", response.text());
        node.finish().await;
        return;
    };
    assert_eq!(response.status, 200);
    assert!(response.body == file, "the file is served as it is");
    let kind = response.header("content-type").expect("a content type");
    assert!(kind.starts_with("application/javascript"), "{kind}");
    let tag = response.header("etag").expect("an ETag");
    for condition in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
        let condition = format!("If-None-Match: {condition}");
        let response = http::request(node.public, "GET", target, &[&condition], b"").await;
        assert_eq!((response.status, response.body.len()), (304, 0), "{condition}");
        assert_eq!(response.header("etag").as_ref(), Some(&tag));
    }
    let response =
        http::request(node.public, "GET", target, &["If-None-Match: \"other\""], b"").await;
    assert_eq!(response.status, 200);
    let head = http::request(node.public, "HEAD", target, &[], b"").await;
    assert_eq!((head.status, head.header("etag")), (200, Some(tag)));
    node.finish().await;
}

#[tokio::test]
async fn the_public_listener_serves_nothing_internal() {
    let node = Node::start("").await;
    for path in [
        "/metrics",
        "/api/v1/emit",
        "/admin",
        "/debug",
        "/socket.io/../metrics",
        "/socket.io/%2e%2e/metrics",
        "//metrics",
        "/",
        "/socket.io/package.json",
        "/socket.io/..%2fCargo.toml",
    ] {
        let response = http::get(node.public, path).await;
        assert_eq!(response.status, 404, "{path}: {response:?}");
    }
    assert_eq!(http::get(node.internal, "/metrics").await.status, 200);
    assert_eq!(http::get(node.internal, "/socket.io/?EIO=4&transport=polling").await.status, 404);
    node.finish().await;
}

#[tokio::test]
async fn public_probes_can_be_switched_off() {
    let node = Node::start("[server]\npublic_probes = false\n").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http::get(node.public, path).await.status, 404, "{path}");
        assert_eq!(http::get(node.internal, path).await.status, 200, "{path}");
    }
    node.finish().await;
}

#[tokio::test]
async fn the_demo_runs_only_where_it_was_asked_for_and_says_so() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut child = command()
        .args(["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0"])
        .spawn()
        .expect("start the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut log = Vec::new();
    let public = loop {
        let line = within("the demo listens", lines.next_line()).await.expect("read");
        let line = line.expect("the process is alive");
        log.push(line.clone());
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if line["event"] == "listening" {
            break line["public"].as_str().expect("text").parse().expect("an address");
        }
    };
    let page = http::get(public, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").expect("a type").starts_with("text/html"));
    assert!(page.header("content-security-policy").is_some());
    assert!(log.iter().any(|line| line.contains("demo")), "the log names the demo: {log:?}");
    child.kill().await.expect("kill");
}
