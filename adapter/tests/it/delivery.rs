//! What crosses from node to node while nothing is broken.

use crate::{
    eventually,
    node::{Node, Record, config},
    redis_server::RedisServer,
};
use adapter::{AdapterConfig, Flags, GapCause, LostReason, Published, RoomName, Selection};
use bytes::Bytes;
use protocol::socket::EventData;
use std::{collections::HashMap, time::Duration};

async fn two_nodes() -> (RedisServer, Node, Node) {
    let redis = RedisServer::start().await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    (redis, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_crosses_whole_and_its_echo_is_dropped() {
    let (_redis, a, b) = two_nodes().await;
    let selection = Selection { rooms: vec!["r".into(), "s".into()], except: vec!["x".into()] };
    let flags = Flags { volatile: true, compress: Some(false), local: false };
    let json = r#"["ev",{"_placeholder":true,"num":0},"é",1.5]"#;
    let data = EventData { json: json.into(), attachments: vec![Bytes::from_static(b"\0\xff")] };
    assert_eq!(a.adapter.broadcast("/", &selection, flags, &data), Published::Queued);
    let records = b.recorded("the event", |records| !records.is_empty()).await;
    let expected =
        Record::Event { ns: "/".into(), selection, flags, json: json.into(), n_attachments: 1 };
    assert_eq!(records, [expected]);
    eventually("the echo", async || a.received("own") == 1.0).await;
    assert!(a.records().is_empty());
    eventually("the answer of Redis", async || a.published("accepted") == 1.0).await;
    eventually("the count", async || b.received("delivered") == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_messages_keep_their_order_over_all_channels() {
    let (_redis, a, b) = two_nodes().await;
    for number in 0..5000 {
        let rooms: &[&str] = [&[][..], &["r"], &["s"], &["r", "s"]][number % 4];
        assert_eq!(a.emit_to("/", rooms, &number.to_string()), Published::Queued);
    }
    b.hears("4999").await;
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<_> = (0..5000).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_rooms_of_nobody_here_are_dropped() {
    let (_redis, a, b) = two_nodes().await;
    b.set_rooms(&["here", "#", "a#b"]);
    for (room, text) in [("there", "1"), ("here", "2"), ("#", "3"), ("a#b", "4"), ("", "5")] {
        a.emit_to("/", &[room], text);
    }
    b.hears("5").await;
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["2", "3", "4", "5"]);
    assert_eq!(b.received("no_room"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_with_awkward_names_are_kept_apart() {
    let (redis, a, b) = two_nodes().await;
    let namespaces = ["/", "/#x", "/a*", "/abc", "/[ab]", "/a?c", r"/a\*"];
    for ns in namespaces {
        b.adapter.open_namespace(ns);
        // Twice is once.
        b.adapter.open_namespace(ns);
    }
    // Redis counts each pattern once, however many subscribe to it.
    let patterns = namespaces.len() as i64;
    eventually("the subscriptions", async || {
        redis.run::<i64>(&["PUBSUB", "NUMPAT"]).await == patterns
    })
    .await;
    for ns in namespaces {
        a.emit_to(ns, &[], ns.replace('\\', "/").as_str());
        a.emit_to(ns, &["x"], "room");
    }
    let n_expected = 2 * namespaces.len();
    let records = b.recorded("all messages", |records| records.len() >= n_expected).await;
    // The last namespace's messages are here; what was delivered twice would be too.
    assert_eq!(records.len(), n_expected);
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (ns, text) in b.texts() {
        assert!(text == "room" || text == ns.replace('\\', "/"), "{text} in {ns}");
        *counts.entry(ns).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 2), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_namespace_hears_nothing_until_it_is_opened_again() {
    let (redis, a, b) = two_nodes().await;
    let patterns = async || redis.run::<i64>(&["PUBSUB", "NUMPAT"]).await;
    b.adapter.open_namespace("/chat");
    eventually("the subscription", async || patterns().await == 2).await;
    b.adapter.close_namespace("/chat");
    eventually("the end of the subscription", async || patterns().await == 1).await;
    a.emit_to("/chat", &[], "unheard");
    assert!(a.adapter.flush(crate::PATIENCE).await, "it is published before anybody listens again");
    b.adapter.open_namespace("/chat");
    b.adapter.close_namespace("/chat");
    b.adapter.open_namespace("/chat");
    eventually("the subscription again", async || patterns().await == 2).await;
    a.emit_to("/chat", &[], "heard");
    b.hears("heard").await;
    assert_eq!(b.texts(), [("/chat".to_owned(), "heard".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_prefix_is_another_cluster() {
    let (redis, a, b) = two_nodes().await;
    let apart = AdapterConfig { key: "socket.i?".into(), ..config(&redis.url()) };
    let c = Node::start_with(apart).await;
    a.emit("for b");
    c.emit("for nobody");
    b.hears("for b").await;
    eventually("the echo", async || c.received("own") == 1.0).await;
    assert!(c.records().is_empty());
    assert_eq!(b.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_applied_in_order_with_broadcasts() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis.url()).await;
    let mut connection = redis.connection().await;
    let broadcast = b"\x93\xa7emitter\x83\xa4type\x02\xa4data\x92\xa2ev\xa1x\xa3nsp\xa1/\x82\xa5rooms\x91\xa2e1\xa6except\x90";
    let mut pipeline = redis::pipe();
    for (channel, payload) in [
        (
            "socket.io-request#/#",
            &br#"{"type":2,"opts":{"rooms":["r"],"except":["x"]},"rooms":["e1","e2"]}"#[..],
        ),
        ("socket.io#/#e1#", &broadcast[..]),
        (
            "socket.io-request#/#",
            br#"{"type":3,"opts":{"rooms":["e1"],"except":[]},"rooms":["e1"]}"#,
        ),
        ("socket.io-request#/#", br#"{"type":4,"opts":{"rooms":["e2"],"except":[]},"close":true}"#),
    ] {
        pipeline.cmd("PUBLISH").arg(channel).arg(payload).ignore();
    }
    let _: () = pipeline.query_async(&mut connection).await.expect("published");
    let records = node.recorded("four requests", |records| records.len() == 4).await;
    let selection = |rooms: &[&str], except: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| RoomName::from(*name)).collect();
        Selection { rooms: names(rooms), except: names(except) }
    };
    let ns = || String::from("/");
    let expected = [
        Record::Join {
            ns: ns(),
            selection: selection(&["r"], &["x"]),
            rooms: vec!["e1".into(), "e2".into()],
        },
        Record::Event {
            ns: ns(),
            selection: selection(&["e1"], &[]),
            flags: Flags::default(),
            json: r#"["ev","x"]"#.into(),
            n_attachments: 0,
        },
        Record::Leave { ns: ns(), selection: selection(&["e1"], &[]), rooms: vec!["e1".into()] },
        Record::Disconnect { ns: ns(), selection: selection(&["e2"], &[]), close: true },
    ];
    assert_eq!(records, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_this_node_alone_is_not_published() {
    let (_redis, a, b) = two_nodes().await;
    let flags = Flags { local: true, ..Flags::default() };
    let data = EventData { json: r#"["ev","local"]"#.into(), attachments: Vec::new() };
    let published = a.adapter.broadcast("/", &Selection::default(), flags, &data);
    assert_eq!(published, Published::LocalOnly);
    a.emit("after");
    b.hears("after").await;
    assert_eq!(b.records().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_could_not_bear_is_not_published() {
    let (redis, a, b) = two_nodes().await;
    let small = AdapterConfig { cluster_frame_max: 200, ..config(&redis.url()) };
    let c = Node::start_with(small).await;
    assert_eq!(c.emit(&"x".repeat(200)), Published::Lost(LostReason::TooLarge));
    let data = EventData { json: r#"["disconnect"]"#.into(), attachments: Vec::new() };
    let published = a.adapter.broadcast("/", &Selection::default(), Flags::default(), &data);
    assert_eq!(published, Published::Lost(LostReason::Invalid));
    a.emit("after");
    b.hears("after").await;
    assert_eq!(b.records().len(), 1);
    assert_eq!((a.published("invalid"), c.published("too_large")), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_receive_queue_is_a_gap_before_what_comes_later() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis.url()).await;
    let b =
        Node::start_with(AdapterConfig { receive_queue_frames: 4, ..config(&redis.url()) }).await;
    b.set_ready(false);
    a.emit_to("/", &["r"], "0");
    // Only once nothing more leaves the queue it is certain what gets into it.
    eventually("the first to wait", async || b.is_waiting()).await;
    for number in 1..20 {
        a.emit_to("/", &["r"], &number.to_string());
    }
    let depth = || b.metric("carillon_cluster_receive_queue_depth_frames", None);
    eventually("all of them", async || b.received("overflow") + depth() == 19.0).await;
    b.set_ready(true);
    let n_kept = 20 - b.received("overflow") as usize;
    b.recorded("what was kept", |records| records.len() == n_kept + 1).await;
    a.emit_to("/", &["r"], "later");
    b.hears("later").await;
    let gap = Record::Gap { ns: "/".into(), room: Some("r".into()), cause: GapCause::Overflow };
    assert_eq!(b.gaps(), [gap]);
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let mut expected: Vec<_> = (0..n_kept).map(|number| number.to_string()).collect();
    expected.push("later".into());
    assert_eq!(texts, expected);
    assert_eq!(b.metric("carillon_cluster_gaps_total", Some("overflow")), 1.0);
    assert_eq!(b.metric("carillon_cluster_receive_queue_depth_frames", None), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_a_gap() {
    let redis = RedisServer::start().await;
    let a = Node::start(&redis.url()).await;
    let b =
        Node::start_with(AdapterConfig { cluster_frame_max: 1000, ..config(&redis.url()) }).await;
    a.emit(&"x".repeat(1000));
    a.emit("after");
    b.hears("after").await;
    let gap = Record::Gap { ns: "/".into(), room: None, cause: GapCause::Overflow };
    assert_eq!(b.gaps(), [gap]);
    assert_eq!(b.received("too_large"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_publish_queue_says_so() {
    let redis = RedisServer::start().await;
    let small = AdapterConfig {
        publish_queue_frames: 10,
        publish_timeout: Duration::from_secs(20),
        probe_interval: Duration::from_secs(20),
        ..config(&redis.url())
    };
    let node = Node::start_with(small).await;
    redis.freeze();
    let results: Vec<_> = (0..1000).map(|number| node.emit(&number.to_string())).collect();
    redis.thaw();
    let n_lost =
        results.iter().filter(|result| **result == Published::Lost(LostReason::QueueFull)).count();
    assert!(n_lost > 0);
    assert_eq!(node.published("queue_full"), n_lost as f64);
    assert!(node.adapter.flush(crate::PATIENCE).await);
    assert_eq!(node.published("accepted"), (1000 - n_lost) as f64);
    assert_eq!(node.metric("carillon_cluster_publish_queue_depth_frames", None), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_for_the_answers_of_redis() {
    let (_redis, a, _b) = two_nodes().await;
    for number in 0..2000 {
        a.emit(&number.to_string());
    }
    assert!(a.adapter.flush(crate::PATIENCE).await);
    assert_eq!(a.published("accepted"), 2000.0);
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_node_costs_one_message() {
    let (_redis, a, b) = two_nodes().await;
    a.emit("panic please");
    a.emit("after");
    b.hears("after").await;
    assert_eq!(b.records().len(), 1);
}
