//! What Carillon nodes ask each other, in every mode.

use crate::{
    eventually,
    node::{Node, Record, config},
    redis_server::RedisServer,
};
use adapter::{
    AdapterConfig, ClusterParser, Flags, Mode, Published, RequestCause, RoomName, Selection,
    ShardedMode, Subscribe,
};
use protocol::socket::EventData;
use std::time::Duration;

pub fn event(json: &str) -> EventData {
    EventData { json: json.into(), attachments: Vec::new() }
}

pub fn in_rooms(rooms: &[&str]) -> Selection {
    let rooms = rooms.iter().map(|room| RoomName::from(*room)).collect();
    Selection { rooms, except: Vec::new() }
}

/// Every mode, with a name.
pub fn modes(url: &str) -> Vec<(&'static str, AdapterConfig)> {
    let classic = || config(url);
    let sharded = |mode| AdapterConfig { mode: Mode::RedisSharded, sharded: mode, ..config(url) };
    let modes = vec![
        ("classic", AdapterConfig { specific_response_channel: false, ..classic() }),
        ("classic-private", AdapterConfig { specific_response_channel: true, ..classic() }),
        ("classic-json", AdapterConfig { parser: ClusterParser::Json, ..classic() }),
        ("classic-interest", AdapterConfig { subscribe: Subscribe::Interest, ..classic() }),
        ("static", sharded(ShardedMode::Static)),
        ("dynamic", sharded(ShardedMode::Dynamic)),
        ("dynamic-private", sharded(ShardedMode::DynamicPrivate)),
    ];
    // A prefix for each, so that one Redis serves all.
    modes
        .into_iter()
        .map(|(name, mode)| (name, AdapterConfig { key: name.into(), ..mode }))
        .collect()
}

/// Three nodes with two sockets each: `a1` and `a2`, of which the first is in the room `first`, and so on.
async fn three_nodes(config: &AdapterConfig) -> [Node; 3] {
    let names = ["a", "b", "c"];
    let nodes = names.map(|_| Node::launch(config.clone()));
    for (node, name) in nodes.iter().zip(names) {
        let (first, second) = (format!("{name}1"), format!("{name}2"));
        node.add_socket(&first, &["first", "r"], Some(&format!(r#"["{first}","more"]"#)));
        node.add_socket(&second, &["r"], Some("[]"));
        node.answer_servers(Some(&format!(r#"["{name}"]"#)));
        node.up().await;
    }
    for node in &nodes {
        eventually("three servers", async || node.adapter.server_count("/").await == Some(3)).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_tell_each_other_everything_in_every_mode() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let nodes = three_nodes(&config).await;
        for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
            asks_everything(mode, node, name).await;
        }
        for node in nodes {
            assert_eq!(node.metric("carillon_cluster_requests_pending", None), 0.0, "{mode}");
            assert_eq!(node.received("malformed"), 0.0, "{mode}");
            node.stop().await;
        }
    }
}

async fn asks_everything(mode: &str, node: &Node, name: &str) {
    let adapter = &node.adapter;
    let names = |names: Vec<RoomName>| {
        let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
        names.sort();
        names
    };
    let all = adapter.fetch_sockets("/", &Selection::default()).await.expect(mode);
    let ids = all.iter().map(|socket| socket.id.clone()).collect();
    assert_eq!(names(ids), ["a1", "a2", "b1", "b2", "c1", "c2"], "{mode}");
    let described = all.iter().find(|socket| &*socket.id == "b1").expect("found above");
    assert_eq!(names(described.rooms.clone()), ["b1", "first", "r"], "{mode}");
    assert_eq!(&*described.handshake, r#"{"headers":{},"auth":{}}"#, "{mode}");
    assert_eq!(&*described.data, r#"{"of":"b1"}"#, "{mode}");

    let selection = Selection { rooms: vec!["r".into()], except: vec!["first".into()] };
    let some = adapter.fetch_sockets("/", &selection).await.expect(mode);
    let ids = some.into_iter().map(|socket| socket.id).collect();
    assert_eq!(names(ids), ["a2", "b2", "c2"], "{mode}");
    let ids = adapter.sockets("/", &["first".into()]).await.expect(mode);
    assert_eq!(names(ids.into_iter().collect()), ["a1", "b1", "c1"], "{mode}");
    let rooms = adapter.all_rooms("/").await.expect(mode);
    let expected = ["a1", "a2", "b1", "b2", "c1", "c2", "first", "r"];
    assert_eq!(names(rooms.into_iter().collect()), expected, "{mode}");

    let minute = Duration::from_secs(60);
    let question = event(r#"["q",{"deep":[1]}]"#);
    let flags = Flags { volatile: true, ..Flags::default() };
    let asked = adapter.broadcast_with_ack("/", &in_rooms(&["r"]), flags, &question, minute).await;
    let acks = asked.expect(mode);
    assert_eq!((acks.n_asked, acks.answers.len()), (6, 6), "{mode}");
    let mut answers: Vec<_> = acks
        .answers
        .iter()
        .map(|answer| (answer.socket.as_deref().unwrap_or_default(), &*answer.args.json))
        .collect();
    answers.sort_unstable();
    assert_eq!(answers[1], ("a2", "[]"), "{mode}");
    for (socket, args) in [answers[0], answers[2], answers[4]] {
        // What comes from elsewhere is cut to the first argument.
        let whole = format!(r#"["{socket}","more"]"#);
        let first = format!(r#"["{socket}"]"#);
        assert_eq!(args, if socket.starts_with(name) { whole } else { first }, "{mode}");
    }

    let mut servers = adapter.server_side_emit_with_ack("/", &question).await.expect(mode);
    servers.sort_unstable_by(|a, b| a.json.cmp(&b.json));
    let servers: Vec<_> = servers.iter().map(|answer| &*answer.json).collect();
    let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|other| *other != name).collect();
    assert_eq!(servers, others.map_all(|other| format!(r#"["{other}"]"#)), "{mode}");
}

trait MapAll<T> {
    fn map_all<U>(self, f: impl FnMut(T) -> U) -> Vec<U>;
}

impl<T> MapAll<T> for Vec<T> {
    fn map_all<U>(self, f: impl FnMut(T) -> U) -> Vec<U> {
        self.into_iter().map(f).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_sockets_is_done_on_every_node_in_every_mode() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let [a, b, c] = three_nodes(&config).await;
        let first = in_rooms(&["first"]);
        let joined = a.adapter.join("/", &first, &["j".into(), "k".into()]).await;
        assert_eq!(joined, Published::Queued, "{mode}");
        assert_eq!(a.rooms_of("a1").expect("there"), ["first", "j", "k", "r"], "{mode}: at once");
        for (node, socket, other) in [(&b, "b1", "b2"), (&c, "c1", "c2")] {
            eventually("the join", async || {
                node.rooms_of(socket).expect("there") == ["first", "j", "k", "r"]
            })
            .await;
            assert_eq!(node.rooms_of(other).expect("there"), ["r"], "{mode}");
        }
        assert_eq!(b.adapter.leave("/", &in_rooms(&["j"]), &["k".into()]).await, Published::Queued);
        for (node, socket) in [(&a, "a1"), (&b, "b1"), (&c, "c1")] {
            eventually("the leave", async || {
                node.rooms_of(socket).expect("there") == ["first", "j", "r"]
            })
            .await;
        }
        let emitted = c.adapter.server_side_emit("/", &event(r#"["sse",1]"#));
        assert_eq!(emitted, Published::Queued, "{mode}");
        assert_eq!(c.adapter.disconnect("/", &first, true).await, Published::Queued);
        for (node, socket) in [(&a, "a1"), (&b, "b1"), (&c, "c1")] {
            eventually("the end", async || node.rooms_of(socket).is_none()).await;
        }
        let heard = |node: &Node| {
            let is_it = |record: &Record| {
                matches!(record, Record::ServerEvent { json, is_answered: false, .. }
                    if json == r#"["sse",1]"#)
            };
            node.records().iter().filter(|record| is_it(record)).count()
        };
        assert_eq!((heard(&a), heard(&b), heard(&c)), (1, 1, 0), "{mode}: never to itself");
        for node in [&a, &b, &c] {
            let joins = |record: &Record| matches!(record, Record::Join { .. });
            assert_eq!(node.records().iter().filter(|record| joins(record)).count(), 1, "{mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_for_this_node_alone_asks_no_other() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let [a, b, _c] = three_nodes(&config).await;
        let flags = Flags { local: true, ..Flags::default() };
        let minute = Duration::from_secs(60);
        let question = event(r#"["q"]"#);
        let all = Selection::default();
        let acks = a.adapter.broadcast_with_ack("/", &all, flags, &question, minute).await;
        assert_eq!(acks.expect(mode).answers.len(), 2);
        a.emit("after");
        b.hears("after").await;
        assert!(!b.records().iter().any(|record| matches!(record, Record::Ask { .. })), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_silent_makes_the_answer_partial() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let [a, b, _c] = three_nodes(&config).await;
        b.add_socket("silent", &[], None);
        let all = Selection::default();
        let question = event(r#"["q"]"#);
        let wait = Duration::from_secs(1);
        let asked =
            a.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, wait).await;
        let error = asked.expect_err(mode);
        assert_eq!(error.cause, RequestCause::Timeout, "{mode}");
        assert_eq!((error.received, error.expected), (2, Some(2)), "{mode}");
        assert_eq!((error.arrived.n_asked, error.arrived.answers.len()), (7, 6), "{mode}");
        let timeouts = b.records().into_iter().filter_map(|record| match record {
            Record::Ask { timeout, .. } => Some(timeout),
            _ => None,
        });
        assert_eq!(timeouts.collect::<Vec<_>>(), [wait], "{mode}: the wait of who asks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binaries_reach_servers_and_clients_that_are_asked() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let [a, b, _c] = three_nodes(&config).await;
        let json = r#"["q",{"_placeholder":true,"num":0}]"#;
        let attachments = vec![bytes::Bytes::from_static(b"\0\xff")];
        let question = EventData { json: json.into(), attachments };
        a.adapter.server_side_emit_with_ack("/", &question).await.expect(mode);
        let heard = b.records().into_iter().find_map(|record| match record {
            Record::ServerEvent { json, n_attachments, .. } => Some((json, n_attachments)),
            _ => None,
        });
        // Where JSON is sent, Node makes it an object for good.
        let is_sharded = config.mode == Mode::RedisSharded;
        let buffer = r#"["q",{"type":"Buffer","data":[0,255]}]"#;
        let expected = if is_sharded { (json, 1) } else { (buffer, 0) };
        let heard = heard.expect(mode);
        assert_eq!((&*heard.0, heard.1), expected, "{mode}");
        let (all, minute) = (Selection::default(), Duration::from_secs(60));
        let asked =
            a.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, minute).await;
        assert_eq!(asked.expect(mode).answers.len(), 6);
        let asked = b.records().into_iter().find_map(|record| match record {
            Record::Ask { json, .. } => Some(json),
            _ => None,
        });
        let expected = if config.parser == ClusterParser::Json { buffer } else { json };
        assert_eq!(asked.expect(mode), expected, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_is_everybody() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let node = Node::start_with(config).await;
        node.add_socket("s", &[], Some("[1]"));
        let (all, minute) = (Selection::default(), Duration::from_secs(60));
        assert_eq!(node.adapter.fetch_sockets("/", &all).await.expect(mode).len(), 1);
        let question = event(r#"["q"]"#);
        let acks =
            node.adapter.broadcast_with_ack("/", &all, Flags::default(), &question, minute).await;
        assert_eq!(acks.expect(mode).answers.len(), 1);
        let answers = node.adapter.server_side_emit_with_ack("/", &question).await.expect(mode);
        assert!(answers.is_empty());
        assert_eq!(node.adapter.server_count("/").await, Some(1), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_hear_answers_takes_no_part_for_the_whole() {
    let redis = RedisServer::start().await;
    let others = [Node::start(&redis.url()).await, Node::start(&redis.url()).await];
    for other in &others {
        other.adapter.open_namespace("/late");
    }
    eventually("two servers", async || others[0].adapter.server_count("/late").await == Some(2))
        .await;
    // It may not subscribe to what is asked in the namespace, so it is not counted there either.
    let user = ["ACL", "SETUSER", "carillon", "on", ">hunter2", "+@all", "resetchannels"];
    let _: String = redis.run(&user).await;
    let granted = ["-carillon#", "#/#*", "-request#/#", "-response#*", "#/late#*"];
    for channel in granted {
        let grant = format!("&socket.io{channel}");
        let _: String = redis.run(&["ACL", "SETUSER", "carillon", &grant]).await;
    }
    let url = format!("redis://carillon:hunter2@127.0.0.1:{}", redis.port());
    let node = Node::start(&url).await;
    node.adapter.open_namespace("/late");
    eventually("all three", async || node.adapter.server_count("/late").await == Some(3)).await;
    let error = node.adapter.fetch_sockets("/late", &Selection::default()).await;
    let error = error.expect_err("nobody hears it");
    assert_eq!((error.cause, error.expected), (RequestCause::LinkDown, None));
    // Where it hears everything nothing has changed.
    assert_eq!(node.adapter.server_count("/").await, Some(3));
    assert!(node.adapter.fetch_sockets("/", &Selection::default()).await.is_ok());
}
