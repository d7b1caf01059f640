//! Answers that do not come, come late, twice, to nobody, or in floods.

use crate::{
    eventually,
    foreign::{Foreign, pack},
    node::{Node, Record, config},
    redis_server::RedisServer,
    requests::{event, in_rooms, modes},
    soon,
};
use adapter::{AdapterConfig, Flags, LinkState, Mode, RequestCause, Selection};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

const REQUEST: &str = "socket.io-request#/#";
const RESPONSE: &str = "socket.io-response#/#";

const MINUTE: Duration = Duration::from_secs(60);

/// A server that is counted, and says only what a test lets it.
async fn server(redis: &RedisServer) -> Foreign {
    Foreign::classic(redis, &[REQUEST, RESPONSE]).await
}

fn patient(redis: &RedisServer) -> AdapterConfig {
    AdapterConfig { requests_timeout: MINUTE, ..config(&redis.url()) }
}

fn responses(node: &Node, result: &str) -> f64 {
    node.metric("carillon_cluster_responses_total", Some(result))
}

fn requests(node: &Node, result: &str) -> f64 {
    node.metric("carillon_cluster_requests_total", Some(result))
}

fn pending(node: &Node) -> f64 {
    node.metric("carillon_cluster_requests_pending", None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_makes_the_result_partial() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let config = AdapterConfig { requests_timeout: Duration::from_millis(1500), ..config };
        let channel = if config.mode == Mode::RedisSharded { "#/#" } else { "-request#/#" };
        let channel = format!("{mode}{channel}");
        let _silent = match config.mode {
            Mode::RedisSharded => Foreign::sharded(&redis, &[&channel]).await,
            _ => Foreign::classic(&redis, &[&channel]).await,
        };
        let (a, b) = (Node::start_with(config.clone()).await, Node::start_with(config).await);
        a.add_socket("a", &[], Some("[1]"));
        b.add_socket("b", &[], Some("[2]"));
        eventually("three servers", async || a.adapter.server_count("/").await == Some(3)).await;
        let all = Selection::default();
        let question = event(r#"["q"]"#);
        let wait = Duration::from_millis(1500);
        let (sockets, ids, rooms, servers, acks) = tokio::join!(
            a.adapter.fetch_sockets("/", &all),
            a.adapter.sockets("/", &[]),
            a.adapter.all_rooms("/"),
            a.adapter.server_side_emit_with_ack("/", &question),
            a.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, wait),
        );
        let sockets = sockets.expect_err(mode);
        assert_eq!((sockets.cause, sockets.arrived.len()), (RequestCause::Timeout, 2), "{mode}");
        assert_eq!((sockets.received, sockets.expected), (1, Some(2)), "{mode}");
        let text = "not everybody answered in time: 1 of 2 other servers answered";
        assert_eq!(sockets.to_string(), text);
        assert_eq!(ids.expect_err(mode).arrived.len(), 2, "{mode}");
        assert_eq!(rooms.expect_err(mode).arrived.len(), 2, "{mode}");
        assert_eq!(servers.expect_err(mode).arrived.len(), 1, "{mode}");
        let acks = acks.expect_err(mode);
        assert_eq!((acks.received, acks.expected, acks.arrived.answers.len()), (1, Some(2), 2));
        assert_eq!((requests(&a, "timeout"), pending(&a)), (5.0, 0.0), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_late_double_foreign_or_broken_are_counted_and_harmless() {
    let redis = RedisServer::start().await;
    let server = server(&redis).await;
    let _silent = Foreign::classic(&redis, &[REQUEST]).await;
    let node = Node::start_with(patient(&redis)).await;
    let say = async |answer: Value| server.publish(RESPONSE, answer.to_string()).await;
    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 1).await;
        let id = &request["requestId"];
        say(json!({"requestId": id, "rooms": ["one"], "uid": "carillon"})).await;
        say(json!({"requestId": id, "rooms": ["twice"], "uid": "carillon"})).await;
        eventually("the double", async || responses(&node, "duplicate") == 1.0).await;
        say(json!({"requestId": "of another", "rooms": ["foreign"]})).await;
        eventually("the foreign", async || responses(&node, "foreign") == 1.0).await;
        say(json!({"requestId": id, "type": 8, "clientCount": 3})).await;
        eventually("the unfit", async || responses(&node, "unfit") == 1.0).await;
        for broken in [&b"{"[..], b"\xc1", b"[1]x", b"{\"requestId\":1}"] {
            server.publish(RESPONSE, broken).await;
        }
        say(json!({"requestId": id, "rooms": ["two"]})).await;
        say(json!({"requestId": id, "rooms": ["late"]})).await;
        eventually("the late", async || responses(&node, "late") == 1.0).await;
    };
    let (rooms, ()) = tokio::join!(node.adapter.all_rooms("/"), play);
    let rooms: Vec<_> = rooms.expect("whole").iter().map(ToString::to_string).collect();
    assert_eq!(rooms, ["one", "two"]);
    assert_eq!(requests(&node, "complete"), 1.0);
    eventually("the count", async || responses(&node, "taken") == 2.0).await;
    let n_broken = responses(&node, "malformed");
    assert!(n_broken >= 2.0 && n_broken == node.received("malformed"), "{n_broken}");
    assert_eq!(n_broken + node.received("ignored"), 4.0 + 4.0);
    assert!(node.records().is_empty(), "no gap, no event: {:?}", node.records());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_acknowledges_twice_counts_once() {
    let redis = RedisServer::start().await;
    let server = server(&redis).await;
    let node = Node::start_with(patient(&redis)).await;
    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 7).await;
        let id = request["requestId"].as_str().expect("a text");
        let count = format!(r#"{{"type":8,"requestId":"{id}","clientCount":2,"uid":"c"}}"#);
        let ack = |sid: &str| {
            pack(&format!(r#"{{"type":9,"requestId":"{id}","packet":1,"uid":"c","sid":"{sid}"}}"#))
        };
        // Acknowledgements that overtake the count are none the worse.
        server.publish(RESPONSE, ack("x")).await;
        server.publish(RESPONSE, &count).await;
        server.publish(RESPONSE, &count).await;
        server.publish(RESPONSE, ack("x")).await;
        eventually("both doubles", async || responses(&node, "duplicate") == 2.0).await;
        assert_eq!(pending(&node), 1.0, "one is still missing");
        server.publish(RESPONSE, ack("y")).await;
    };
    let (all, question) = (Selection::default(), event(r#"["q"]"#));
    let asking = node.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, MINUTE);
    let (acks, ()) = tokio::join!(asking, play);
    let acks = acks.expect("both have answered");
    assert_eq!((acks.n_asked, acks.answers.len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_meanwhile_does_not_keep_anybody_waiting() {
    let redis = RedisServer::start().await;
    let server = server(&redis).await;
    let node = Node::start_with(patient(&redis)).await;
    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 7).await;
        let id = &request["requestId"];
        for _ in 0..2 {
            let answer = json!({"type": 8, "requestId": id, "clientCount": 0});
            server.publish(RESPONSE, answer.to_string()).await;
        }
    };
    let (all, question) = (Selection::default(), event(r#"["q"]"#));
    let asking = node.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, MINUTE);
    let (acks, ()) = tokio::join!(asking, play);
    assert_eq!(acks.expect("nobody was asked").n_asked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_answers_costs_no_event() {
    let redis = RedisServer::start().await;
    let _server = server(&redis).await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start_with(patient(&redis)).await);
    b.add_socket("s", &[], None);
    let mut connection = redis.connection().await;
    let mut pipeline = redis::pipe();
    for number in 0..10_000 {
        let answer = format!(r#"{{"requestId":"r{number}","sockets":[]}}"#);
        pipeline.cmd("PUBLISH").arg(RESPONSE).arg(answer).ignore();
    }
    for number in 0..10 {
        let _: () = pipeline.query_async(&mut connection).await.expect("published");
        a.emit(&number.to_string());
    }
    b.hears("9").await;
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
    assert!(b.gaps().is_empty(), "{:?}", b.gaps());
    eventually("all of them", async || {
        responses(&b, "foreign") + b.received("overflow") == 100_000.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    let redis = RedisServer::start().await;
    let server = server(&redis).await;
    let node = Arc::new(Node::start_with(patient(&redis)).await);
    node.add_socket("s", &[], None);
    let mut callers = JoinSet::new();
    for number in 0..100 {
        let node = Arc::clone(&node);
        callers.spawn(async move {
            let (all, question) = (Selection::default(), event(r#"["q"]"#));
            if number % 2 == 0 {
                let _ = node.adapter.fetch_sockets("/", &all).await;
            } else {
                let flags = Flags::default();
                let _ = node.adapter.broadcast_with_ack("/", &all, flags, &question, MINUTE).await;
            }
        });
    }
    eventually("all questions", async || pending(&node) == 100.0).await;
    server.hear_all(REQUEST, 100, |_| true).await;
    callers.shutdown().await;
    assert_eq!((pending(&node), requests(&node, "abandoned")), (0.0, 100.0));
    let first = server.received(REQUEST).remove(0);
    let answer = json!({"requestId": first["requestId"], "sockets": []});
    server.publish(RESPONSE, answer.to_string()).await;
    eventually("the late answer", async || responses(&node, "late") == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_wait_are_refused() {
    let redis = RedisServer::start().await;
    let server = server(&redis).await;
    let node = Node::start_with(AdapterConfig { requests_max: 1, ..patient(&redis) }).await;
    node.add_socket("s", &[], Some("[1]"));
    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 1).await;
        let (all, question) = (Selection::default(), event(r#"["q"]"#));
        let error = node.adapter.fetch_sockets("/", &all).await.expect_err("no room");
        assert_eq!((error.cause, error.arrived.len()), (RequestCause::Overload, 1));
        let asking =
            node.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, MINUTE);
        let error = asking.await.expect_err("no room");
        assert_eq!((error.cause, error.arrived.n_asked), (RequestCause::Overload, 0));
        let answer = json!({"requestId": request["requestId"], "rooms": ["r"]});
        server.publish(RESPONSE, answer.to_string()).await;
    };
    let (rooms, ()) = tokio::join!(node.adapter.all_rooms("/"), play);
    assert_eq!(rooms.expect("whole").len(), 2);
    assert_eq!(requests(&node, "overload"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_larger_than_what_is_kept_end_the_wait() {
    let redis = RedisServer::start().await;
    let server = server(&redis).await;
    let _silent = Foreign::classic(&redis, &[REQUEST]).await;
    let small =
        AdapterConfig { cluster_frame_max: 1000, response_bytes_max: 1000, ..patient(&redis) };
    let node = Node::start_with(small).await;
    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 1).await;
        for _ in 0..2 {
            let answer = json!({"requestId": request["requestId"], "rooms": ["r".repeat(600)]});
            server.publish(RESPONSE, answer.to_string()).await;
        }
    };
    let (rooms, ()) = tokio::join!(node.adapter.all_rooms("/"), play);
    let error = rooms.expect_err("too much");
    assert_eq!((error.cause, error.arrived.len()), (RequestCause::Overload, 1));
    assert_eq!(pending(&node), 0.0);
    eventually("the count", async || responses(&node, "overflow") == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_link_the_own_part_arrives_and_the_cause_is_told() {
    let mut redis = RedisServer::start().await;
    let server = server(&redis).await;
    let node = Node::start_with(patient(&redis)).await;
    node.add_socket("s", &["r"], Some(r#"["here"]"#));
    let (all, question) = (Selection::default(), event(r#"["q"]"#));
    // It is lost while answers are waited for.
    let play = async {
        server.hears(REQUEST, |request| request["type"] == 5).await;
        redis.stop();
    };
    let (sockets, ()) = tokio::join!(node.adapter.fetch_sockets("/", &all), play);
    let error = sockets.expect_err("the link is lost");
    assert_eq!((error.cause, error.arrived.len()), (RequestCause::LinkDown, 1));
    assert_eq!((error.received, error.expected), (0, Some(1)));

    // It is away.
    node.link_is(LinkState::Down).await;
    let rooms = node.adapter.all_rooms("/").await.expect_err("there is no link");
    assert_eq!((rooms.cause, rooms.arrived.len()), (RequestCause::LinkDown, 2));
    assert_eq!(rooms.expected, None);
    let asking = node.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, MINUTE);
    let acks = soon("what the own sockets answer", asking).await.expect_err("there is no link");
    assert_eq!((acks.cause, acks.arrived.answers.len()), (RequestCause::LinkDown, 1));
    let servers = node.adapter.server_side_emit_with_ack("/", &question).await;
    assert_eq!(servers.expect_err("there is no link").cause, RequestCause::LinkDown);
    assert_eq!(node.adapter.server_count("/").await, None);
    node.adapter.join("/", &in_rooms(&["r"]), &["j".into()]).await;
    assert_eq!(node.rooms_of("s").expect("there"), ["j", "r"], "local comes first");
    assert_eq!(pending(&node), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_or_clients_could_not_bear_is_asked_of_nobody() {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    a.add_socket("s", &[], Some("[1]"));
    let all = Selection::default();
    let reserved = event(r#"["disconnect"]"#);
    let asking = a.adapter.broadcast_with_ack("/", &all, Flags::default(), &reserved, MINUTE);
    let error = asking.await.expect_err("a reserved name");
    assert_eq!((error.cause, error.arrived.n_asked), (RequestCause::Invalid, 0));
    let reserved = event(r#"["connection"]"#);
    let error = a.adapter.server_side_emit_with_ack("/", &reserved).await;
    assert_eq!(error.expect_err("a reserved name").cause, RequestCause::Invalid);
    a.emit("after");
    b.hears("after").await;
    let is_event = |record: &Record| matches!(record, Record::Event { .. });
    assert!(a.records().is_empty() && b.records().iter().all(is_event));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_open_cannot_be_asked() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis.url()).await;
    let error = node.adapter.fetch_sockets("/closed", &Selection::default()).await;
    assert_eq!(error.expect_err("nobody listens for answers").cause, RequestCause::Invalid);
    // One that is being opened can, as soon as it is.
    node.adapter.open_namespace("/late");
    node.add_socket_to("/late", "s", &[], None);
    let sockets = node.adapter.fetch_sockets("/late", &Selection::default()).await;
    assert_eq!(sockets.expect("whole").len(), 1);
}
