//! Origins: who may talk to the node from a browser, on every kind of request.

use crate::support::http::{self, Http};
use crate::support::{Node, Polling, Response, Ws, polling, websocket};

const ORIGINS: &str =
    "[engine]\norigins = [\"https://app.example.com\", \"https://*.example.org\"]\n";

/// The four kinds of request with this Origin. The session is made without one.
async fn requests(node: &Node, origin: &str) -> Vec<(&'static str, Response)> {
    let origin = format!("Origin: {origin}");
    let address = node.public;
    let client = Polling::connect(address).await;
    let target = client.target();
    let preflight = [origin.as_str(), "Access-Control-Request-Method: POST"];
    let upgrade = Ws::handshake(Http::connect(address).await, websocket::TARGET, &[&origin]).await;
    let mut responses = vec![
        ("handshake", http::request(address, "GET", polling::TARGET, &[&origin], b"").await),
        ("POST", http::request(address, "POST", &target, &[&origin], b"3").await),
        ("OPTIONS", http::request(address, "OPTIONS", &target, &preflight, b"").await),
    ];
    match upgrade {
        Ok(_) => {}
        Err(response) => responses.push(("upgrade", response)),
    }
    responses
}

async fn check_refused(node: &Node, origin: &str) {
    let responses = requests(node, origin).await;
    assert_eq!(responses.len(), 4, "{origin}: the upgrade was not refused");
    for (kind, response) in responses {
        assert_eq!((response.status, response.code()), (403, Some(4)), "{kind} from {origin}");
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed, None, "{kind} from {origin}");
    }
}

async fn check_allowed(node: &Node, origin: &str, allowed: Option<&str>, credentials: bool) {
    let responses = requests(node, origin).await;
    assert_eq!(responses.len(), 3, "{origin}: {:?}", responses.last());
    for (kind, response) in responses {
        let expected = if kind == "OPTIONS" { 204 } else { 200 };
        assert_eq!(response.status, expected, "{kind} from {origin}: {response:?}");
        let header = response.header("access-control-allow-origin");
        assert_eq!(header.as_deref(), allowed, "{kind} from {origin}");
        let header = response.header("access-control-allow-credentials");
        assert_eq!(header.as_deref(), credentials.then_some("true"), "{kind} from {origin}");
        if kind == "OPTIONS" && allowed.is_some() {
            let methods = response.header("access-control-allow-methods").expect("methods");
            assert!(methods.contains("GET") && methods.contains("POST"), "{methods}");
        }
    }
}

#[tokio::test]
async fn without_configured_origins_only_the_own_host_is_one() {
    let node = Node::start("").await;
    check_allowed(&node, &format!("http://{}", node.public), None, false).await;
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        &format!("http://{}.evil.example", node.public),
        "",
    ] {
        check_refused(&node, origin).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn configured_origins_are_matched_whole() {
    let node = Node::start(ORIGINS).await;
    for origin in ["https://app.example.com", "https://a.example.org", "https://a.b.example.org"] {
        check_allowed(&node, origin, Some(origin), false).await;
    }
    for origin in [
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil",
        "https://evil-app.example.com",
        "https://example.org",
        "https://evilexample.org",
        "https://example.org.evil",
        "https://evil.example/.example.org",
        "https://evil.example#.example.org",
        "https://user@a.example.org",
        "null",
    ] {
        check_refused(&node, origin).await;
    }
    let response =
        http::request(node.public, "GET", polling::TARGET, &["Origin: https://a.example.org"], b"")
            .await;
    assert!(
        response.header("vary").is_some_and(|vary| vary.contains("Origin")),
        "caches keep them apart"
    );
    node.finish().await;
}

#[tokio::test]
async fn credentials_are_a_setting() {
    let node = Node::start(&format!("{ORIGINS}credentials = true\n")).await;
    let origin = "https://app.example.com";
    check_allowed(&node, origin, Some(origin), true).await;
    check_refused(&node, "https://evil.example").await;
    node.finish().await;
}

#[tokio::test]
async fn any_origin_is_allowed_without_credentials() {
    let node = Node::start("[engine]\norigins = [\"*\"]\n").await;
    for origin in ["https://anything.example", "null"] {
        check_allowed(&node, origin, Some("*"), false).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn programs_without_an_origin_may_connect() {
    let node = Node::start(ORIGINS).await;
    let response = http::get(node.public, polling::TARGET).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), None);
    node.finish().await;
}
