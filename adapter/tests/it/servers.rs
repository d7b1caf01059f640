//! A Carillon node between servers that are not ours, which are played by the test byte for byte.

use crate::{
    eventually,
    foreign::{Foreign, pack},
    node::{Node, Record, config},
    redis_server::RedisServer,
    requests::{event, in_rooms},
};
use adapter::{AdapterConfig, Flags, Mode, Participation, Selection, ShardedMode};
use serde_json::{Value, json};
use std::time::Duration;

const REQUEST: &str = "socket.io-request#/#";
const RESPONSE: &str = "socket.io-response#/#";
/// Where the foreign server with the uid `25WDST` listens.
const TO_NODE: &str = "socket.io-response#/#25WDST#";
const BASE: &str = "socket.io#/#";
const TO_SHARDED: &str = "socket.io#/#0a32aba4f9ec430d#";

const MINUTE: Duration = Duration::from_secs(60);

async fn classic(redis: &RedisServer) -> Foreign {
    Foreign::classic(redis, &[REQUEST, RESPONSE, TO_NODE]).await
}

async fn carillon(config: AdapterConfig) -> Node {
    let node = Node::launch(config);
    node.add_socket("s1", &["room1"], Some(r#"["one",2]"#));
    node.add_socket("s2", &["room1", "room2"], Some("[]"));
    node.answer_servers(Some(r#"["pong",1]"#));
    node.up().await;
    node
}

/// Says something that the node applies after everything before, and waits for it.
async fn settle(server: &Foreign, channel: &str, node: &Node, text: &str) {
    let marker = match channel {
        REQUEST => format!(r#"{{"uid":"x","type":6,"data":["{text}"]}}"#),
        _ => format!(r#"{{"type":9,"data":{{"packet":["{text}"]}},"uid":"x","nsp":"/"}}"#),
    };
    server.publish(channel, marker).await;
    let is_marker =
        |record: &Record| matches!(record, Record::ServerEvent { json, .. } if json.contains(text));
    node.recorded(text, |records| records.iter().any(is_marker)).await;
    assert!(node.adapter.flush(crate::PATIENCE).await);
    // Redis has accepted all answers; a message of the test's own comes behind them.
    let (end, back) = (format!(r#"{{"end":"{text}"}}"#), [RESPONSE, TO_NODE, TO_SHARDED]);
    for channel in back {
        server.publish(channel, &end).await;
    }
    let own = if channel == REQUEST { RESPONSE } else { TO_SHARDED };
    server.hears(own, |message| message["end"] == text).await;
}

fn answers(server: &Foreign, channel: &str) -> Vec<Value> {
    let mut answers = server.received(channel);
    answers.retain(|answer| answer.get("end").is_none());
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_classic_question_gets_exactly_one_answer_in_the_right_place() {
    for is_specific in [false, true] {
        let redis = RedisServer::start().await;
        let server = classic(&redis).await;
        let specific_response_channel = is_specific;
        let node =
            carillon(AdapterConfig { specific_response_channel, ..config(&redis.url()) }).await;
        for request in [
            r#"{"uid":"25WDST","requestId":"r0","type":0,"rooms":["room2"]}"#,
            r#"{"uid":"25WDST","requestId":"mcB2M8","type":1}"#,
            r#"{"uid":"25WDST","requestId":"Qz94RZ","type":5,"opts":{"rooms":["room2"],"except":["room3"]}}"#,
            r#"{"uid":"25WDST","requestId":"r5e","type":5,"opts":{"rooms":["nobody"],"except":[]}}"#,
            r#"{"uid":"25WDST","requestId":"IxB3Ed","type":6,"data":["sse","q"]}"#,
        ] {
            server.publish(REQUEST, request).await;
        }
        let question = r#"{"uid":"25WDST","requestId":"0k8yXR","type":7,"packet":{"type":2,"data":["ackme","q"],"nsp":"/"},"opts":{"rooms":["room1"],"except":[],"flags":{"timeout":800}}}"#;
        server.publish(REQUEST, pack(question)).await;
        let channel = if is_specific { TO_NODE } else { RESPONSE };
        server.hear_all(channel, 2, |answer| answer["type"] == 9).await;
        settle(&server, REQUEST, &node, "settled").await;

        // Extra keys behind those of Node say who answered; without them the answers are Node's own.
        let strip = |mut answer: Value| {
            let keys = answer.as_object_mut().expect("an object");
            assert!(keys.remove("uid").is_some(), "{keys:?}");
            if keys.get("type") == Some(&json!(9)) {
                assert!(keys.remove("sid").is_some(), "{keys:?}");
            }
            answer
        };
        let handshake = json!({"headers": {}, "auth": {}});
        let details = json!([{
            "id": "s2", "handshake": handshake, "rooms": ["room1", "room2", "s2"], "data": {"of": "s2"},
        }]);
        let mut expected = vec![
            json!({"requestId": "r0", "sockets": ["s2"]}),
            json!({"requestId": "mcB2M8", "rooms": ["room1", "room2", "s1", "s2"]}),
            json!({"requestId": "Qz94RZ", "sockets": details}),
            json!({"requestId": "r5e", "sockets": []}),
            json!({"type": 8, "requestId": "0k8yXR", "clientCount": 2}),
            json!({"type": 9, "requestId": "0k8yXR", "packet": "one"}),
            json!({"type": 9, "requestId": "0k8yXR"}),
        ];
        let to_server_event = json!({"type": 6, "requestId": "IxB3Ed", "data": "pong"});
        if is_specific {
            // Node ignores the option for these.
            let shared = answers(&server, RESPONSE).into_iter().map(strip).collect::<Vec<_>>();
            assert_eq!(shared, [to_server_event]);
        } else {
            expected.insert(4, to_server_event);
            assert_eq!(answers(&server, TO_NODE), Vec::<Value>::new());
        }
        let given: Vec<_> = answers(&server, channel).into_iter().map(strip).collect();
        assert_eq!(given, expected);
        let asked = node.records().into_iter().find_map(|record| match record {
            Record::Ask { selection, json, timeout, .. } => Some((selection, json, timeout)),
            _ => None,
        });
        let wait = Duration::from_millis(800);
        assert_eq!(asked, Some((in_rooms(&["room1"]), r#"["ackme","q"]"#.into(), wait)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sharded_question_gets_exactly_one_answer_in_the_right_place() {
    for sharded in [ShardedMode::Static, ShardedMode::Dynamic, ShardedMode::DynamicPrivate] {
        let redis = RedisServer::start().await;
        let server = Foreign::sharded(&redis, &[BASE, TO_SHARDED]).await;
        let mode = Mode::RedisSharded;
        let node = carillon(AdapterConfig { mode, sharded, ..config(&redis.url()) }).await;
        for request in [
            r#"{"type":7,"data":{"opts":{"rooms":["room2"],"except":[]},"requestId":"f1"},"uid":"0a32aba4f9ec430d","nsp":"/"}"#,
            r#"{"type":7,"data":{"opts":{"rooms":["nobody"],"except":[]},"requestId":"f2"},"uid":"0a32aba4f9ec430d","nsp":"/"}"#,
            r#"{"type":9,"data":{"requestId":"e1","packet":["sse","q"]},"uid":"0a32aba4f9ec430d","nsp":"/"}"#,
            r#"{"type":3,"data":{"packet":{"type":2,"data":["ackme","q"]},"requestId":"a1","opts":{"rooms":[],"except":[],"flags":{"timeout":800}}},"uid":"0a32aba4f9ec430d","nsp":"/"}"#,
        ] {
            server.publish(BASE, request).await;
        }
        server.hear_all(TO_SHARDED, 2, |answer| answer["type"] == 12).await;
        settle(&server, BASE, &node, "settled").await;
        let given: Vec<_> = answers(&server, TO_SHARDED)
            .into_iter()
            .map(|mut answer| {
                assert_eq!(answer["nsp"], "/");
                answer["data"].as_object_mut().expect("an object").remove("sid");
                json!([answer["type"], answer["data"]])
            })
            .collect();
        let handshake = json!({"headers": {}, "auth": {}});
        let details = json!([{
            "id": "s2", "handshake": handshake, "rooms": ["room1", "room2", "s2"], "data": {"of": "s2"},
        }]);
        let expected = [
            json!([8, {"requestId": "f1", "sockets": details}]),
            json!([8, {"requestId": "f2", "sockets": []}]),
            json!([10, {"requestId": "e1", "packet": "pong"}]),
            json!([11, {"requestId": "a1", "clientCount": 2}]),
            json!([12, {"requestId": "a1", "packet": "one"}]),
            json!([12, {"requestId": "a1"}]),
        ];
        assert_eq!(given, expected);

        // Requests on a channel for answers mean nothing, and those without a uid cannot be answered.
        let own = "socket.io#/#";
        server
            .publish(
                own,
                r#"{"type":7,"data":{"opts":{"rooms":[],"except":[]},"requestId":"f3"},"nsp":"/"}"#,
            )
            .await;
        settle(&server, BASE, &node, "again").await;
        assert_eq!(answers(&server, TO_SHARDED).len(), expected.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_node_servers_are_taken() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(config(&redis.url())).await;
    assert_eq!(node.adapter.server_count("/").await, Some(2));

    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 5).await;
        assert_eq!(request["opts"], json!({"rooms": ["room1"], "except": []}));
        let (uid, id) = (&request["uid"], &request["requestId"]);
        let uid = uid.as_str().expect("a text");
        let answer = json!({"requestId": id, "sockets": [{
            "id": "node1", "handshake": {"headers": {}, "auth": {}}, "rooms": ["node1", "room1"], "data": {},
        }]});
        // Node servers answer on either, each as it is configured.
        server.publish(&format!("socket.io-response#/#{uid}#"), answer.to_string()).await;
    };
    let room = in_rooms(&["room1"]);
    let (sockets, ()) = tokio::join!(node.adapter.fetch_sockets("/", &room), play);
    let sockets = sockets.expect("both have answered");
    assert_eq!(sockets.len(), 3);
    assert_eq!((&*sockets[2].id, &*sockets[2].data), ("node1", "{}"));

    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 1).await;
        let answer = json!({"requestId": request["requestId"], "rooms": ["node1", "room9"]});
        server.publish(RESPONSE, answer.to_string()).await;
    };
    let (rooms, ()) = tokio::join!(node.adapter.all_rooms("/"), play);
    assert_eq!(rooms.expect("both have answered").len(), 6);

    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 0).await;
        let answer = json!({"requestId": request["requestId"], "sockets": ["node1"]});
        server.publish(RESPONSE, answer.to_string()).await;
    };
    let rooms = ["room2".into()];
    let (ids, ()) = tokio::join!(node.adapter.sockets("/", &rooms), play);
    assert_eq!(ids.expect("both have answered").len(), 2);

    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 6).await;
        assert_eq!(request["data"], json!(["sse", 1]));
        let answer = json!({"type": 6, "requestId": request["requestId"], "data": "of node"});
        server.publish(RESPONSE, answer.to_string()).await;
    };
    let sse = event(r#"["sse",1]"#);
    let (servers, ()) = tokio::join!(node.adapter.server_side_emit_with_ack("/", &sse), play);
    assert_eq!(&*servers.expect("it has answered")[0].json, r#"["of node"]"#);

    let play = async {
        let request = server.hears(REQUEST, |request| request["type"] == 7).await;
        assert_eq!(request["opts"]["flags"]["timeout"], 60_000);
        let id = request["requestId"].as_str().expect("a text");
        server
            .publish(RESPONSE, format!(r#"{{"type":8,"requestId":"{id}","clientCount":2}}"#))
            .await;
        for packet in [r#","packet":"B1""#, ""] {
            let ack = pack(&format!(r#"{{"type":9,"requestId":"{id}"{packet}}}"#));
            server.publish(RESPONSE, ack).await;
        }
    };
    let (room, question) = (in_rooms(&["room2"]), event(r#"["q"]"#));
    let asking = node.adapter.broadcast_with_ack("/", &room, Flags::default(), &question, MINUTE);
    let (acks, ()) = tokio::join!(asking, play);
    let acks = acks.expect("all have answered");
    let texts: Vec<_> = acks.answers.iter().map(|answer| &*answer.args.json).collect();
    assert_eq!((acks.n_asked, texts), (3, vec!["[]", r#"["B1"]"#, "[]"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_sharded_node_servers_are_taken() {
    let redis = RedisServer::start().await;
    let server = Foreign::sharded(&redis, &[BASE, TO_SHARDED]).await;
    let mode = Mode::RedisSharded;
    let node = carillon(AdapterConfig { mode, ..config(&redis.url()) }).await;
    let answer = async |kind: u64, answers: Vec<Value>| {
        let request = server.hears(BASE, |request| request["type"] == kind).await;
        let uid = request["uid"].as_str().expect("a text");
        for (number, mut answer) in answers.into_iter().enumerate() {
            answer["uid"] = "0a32aba4f9ec430d".into();
            answer["nsp"] = "/".into();
            answer["data"]["requestId"] = request["data"]["requestId"].clone();
            // On the base channel Node takes them too.
            let channel = if number == 0 { BASE.into() } else { format!("{BASE}{uid}#") };
            server.publish(&channel, answer.to_string()).await;
        }
    };
    let details = json!([{"id": "n1", "handshake": {}, "rooms": ["n1"], "data": {}}]);
    let play = answer(7, vec![json!({"type": 8, "data": {"sockets": details}})]);
    let all = Selection::default();
    let (sockets, ()) = tokio::join!(node.adapter.fetch_sockets("/", &all), play);
    assert_eq!(sockets.expect("whole").len(), 3);
    let play = answer(9, vec![json!({"type": 10, "data": {"packet": {"a": 1}}})]);
    let sse = event(r#"["sse",1]"#);
    let (servers, ()) = tokio::join!(node.adapter.server_side_emit_with_ack("/", &sse), play);
    assert_eq!(&*servers.expect("whole")[0].json, r#"[{"a":1}]"#);
    let acks = vec![
        json!({"type": 11, "data": {"clientCount": 1}}),
        json!({"type": 12, "data": {"packet": "B1"}}),
    ];
    let (room, question) = (in_rooms(&["room2"]), event(r#"["q"]"#));
    let asking = node.adapter.broadcast_with_ack("/", &room, Flags::default(), &question, MINUTE);
    let (acks, ()) = tokio::join!(asking, answer(3, acks));
    assert_eq!(acks.expect("whole").answers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_the_form_of_old_adapters_are_answered_by_who_has_the_socket() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let specific_response_channel = false;
    let node = carillon(AdapterConfig { specific_response_channel, ..config(&redis.url()) }).await;
    for request in [
        r#"{"uid":"25WDST","requestId":"j1","type":2,"sid":"s1","room":"old"}"#,
        r#"{"uid":"25WDST","requestId":"j2","type":2,"sid":"elsewhere","room":"old"}"#,
        r#"{"uid":"25WDST","requestId":"l1","type":3,"sid":"s1","room":"room1"}"#,
        r#"{"uid":"25WDST","requestId":"d1","type":4,"sid":"s2","close":true}"#,
    ] {
        server.publish(REQUEST, request).await;
    }
    settle(&server, REQUEST, &node, "settled").await;
    let ids: Vec<_> =
        answers(&server, RESPONSE).iter().map(|answer| answer["requestId"].clone()).collect();
    assert_eq!(ids, ["j1", "l1", "d1"]);
    assert_eq!(node.rooms_of("s1").expect("there"), ["old"]);
    assert_eq!(node.rooms_of("s2"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_counted_and_answers_by_its_participation() {
    let requests = [
        r#"{"uid":"25WDST","requestId":"r0","type":0,"rooms":[]}"#,
        r#"{"uid":"25WDST","requestId":"r1","type":1}"#,
        r#"{"uid":"25WDST","requestId":"r5","type":5,"opts":{"rooms":[],"except":[]}}"#,
        r#"{"uid":"25WDST","requestId":"r6","type":6,"data":["asked"]}"#,
        r#"{"uid":"25WDST","requestId":"j1","type":2,"sid":"s1","room":"old"}"#,
        r#"{"uid":"25WDST","type":2,"opts":{"rooms":["room2"],"except":[]},"rooms":["new"]}"#,
        r#"{"uid":"25WDST","type":6,"data":["told"]}"#,
    ];
    let ask = pack(
        r#"{"uid":"25WDST","requestId":"r7","type":7,"packet":{"type":2,"data":["q"],"nsp":"/"},"opts":{"rooms":[],"except":[],"flags":{}}}"#,
    );
    for (participation, counted, n_answers) in [
        (Participation::Broadcasts, 0, 0),
        (Participation::Commands, 0, 0),
        // One each, the old join included, and two for the clients.
        (Participation::Full, 1, 8),
    ] {
        let redis = RedisServer::start().await;
        let node = carillon(AdapterConfig { participation, ..config(&redis.url()) }).await;
        let count: (String, i64) = redis.run(&["PUBSUB", "NUMSUB", REQUEST]).await;
        assert_eq!(count.1, counted, "{participation:?}");
        let server = classic(&redis).await;
        for request in requests {
            server.publish(REQUEST, request).await;
        }
        server.publish(REQUEST, &ask).await;
        let is_applied = participation != Participation::Broadcasts;
        if is_applied {
            settle(&server, REQUEST, &node, "settled").await;
        } else {
            let broadcast = r#"["25WDST",{"type":2,"data":["ev","heard"],"nsp":"/"},{"rooms":[],"except":[],"flags":{}}]"#;
            server.publish(BASE, pack(broadcast)).await;
            node.hears("heard").await;
            assert!(node.adapter.flush(crate::PATIENCE).await);
        }
        let given = answers(&server, RESPONSE).len() + answers(&server, TO_NODE).len();
        assert_eq!(given, n_answers, "{participation:?}");
        let new = if is_applied { vec!["new", "room1", "room2"] } else { vec!["room1", "room2"] };
        assert_eq!(node.rooms_of("s2").expect("there"), new, "{participation:?}");
        let told = node.records().into_iter().filter_map(|record| match record {
            Record::ServerEvent { json, is_answered, .. } if !json.contains("settled") => {
                Some((json, is_answered))
            }
            _ => None,
        });
        let told: Vec<_> = told.collect();
        let is_answered = participation == Participation::Full;
        let expected = [(r#"["asked"]"#.into(), is_answered), (r#"["told"]"#.into(), false)];
        assert_eq!(told, if is_applied { &expected[..] } else { &[] }, "{participation:?}");

        // Whatever the level, it can ask, and expects the right number of answers.
        assert_eq!(node.adapter.server_count("/").await, Some(2), "{participation:?}");
        let play = async {
            let is_it = |request: &Value| request["type"] == 1 && request["uid"] != "25WDST";
            let request = server.hears(REQUEST, is_it).await;
            let answer = json!({"requestId": request["requestId"], "rooms": ["x"]});
            server.publish(RESPONSE, answer.to_string()).await;
        };
        let (rooms, ()) = tokio::join!(node.adapter.all_rooms("/"), play);
        assert!(rooms.expect("whole").contains("x"), "{participation:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_time_to_answer_holds_up_nothing() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(config(&redis.url())).await;
    node.let_answer(false);
    node.answer_servers(None);
    let ask = r#"{"uid":"25WDST","requestId":"a","type":7,"packet":{"type":2,"data":["q"],"nsp":"/"},"opts":{"rooms":[],"except":[],"flags":{"timeout":60000}}}"#;
    server.publish(REQUEST, pack(ask)).await;
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"e","type":6,"data":["slow"]}"#).await;
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"r","type":1}"#).await;
    server.hears(TO_NODE, |answer| answer["requestId"] == "r").await;
    let pending = || node.metric("carillon_cluster_answers_pending", None);
    assert_eq!(pending(), 2.0);
    let count = server.received(TO_NODE).remove(0);
    assert_eq!(
        (&count["type"], &count["clientCount"]),
        (&json!(8), &json!(2)),
        "counts come first"
    );
    node.let_answer(true);
    node.answer_servers(Some("[1]"));
    server.hear_all(TO_NODE, 2, |answer| answer["type"] == 9).await;
    server.hears(RESPONSE, |answer| answer["requestId"] == "e").await;
    eventually("the end of the work", async || pending() == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_events_than_can_be_handled_are_answered_with_null_and_hold_up_nothing() {
    const EVENTS_MAX: usize = 1024;
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(config(&redis.url())).await;
    node.answer_servers(None);
    for number in 0..EVENTS_MAX {
        let request =
            format!(r#"{{"uid":"25WDST","requestId":"e{number}","type":6,"data":["slow"]}}"#);
        server.publish(REQUEST, request).await;
    }
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"sse","type":6,"data":["slow"]}"#).await;
    let sse = server.hears(RESPONSE, |answer| answer["requestId"] == "sse").await;
    assert_eq!(sse["data"], Value::Null);
    assert_eq!(node.received("refused"), 1.0);
    assert_eq!(node.metric("carillon_cluster_answers_total", Some("refused")), 1.0);
    // Who asks for sockets takes what comes for all of them, so that must be whole.
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"fetch","type":5,"opts":{}}"#).await;
    let fetch = server.hears(TO_NODE, |answer| answer["requestId"] == "fetch").await;
    assert_ne!(fetch["sockets"], json!([]));
    node.answer_servers(Some("[true]"));
    let done = |answer: &Value| answer["data"] == true;
    assert_eq!(server.hear_all(RESPONSE, EVENTS_MAX, done).await.len(), EVENTS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_is_replaced_by_an_empty_one() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(AdapterConfig { cluster_frame_max: 2_000, ..config(&redis.url()) }).await;
    for number in 0..100 {
        node.add_socket(&format!("extra{number}"), &[], None);
    }
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"big","type":5,"opts":{}}"#).await;
    let answer = server.hears(TO_NODE, |answer| answer["requestId"] == "big").await;
    assert_eq!(answer["sockets"], json!([]));
    assert_eq!(node.metric("carillon_cluster_answers_total", Some("too_large")), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_still_owes_an_answer() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(config(&redis.url())).await;
    server
        .publish(REQUEST, r#"{"uid":"25WDST","requestId":"p","type":6,"data":["panic please"]}"#)
        .await;
    let answer = server.hears(RESPONSE, |answer| answer["requestId"] == "p").await;
    assert_eq!(answer["data"], Value::Null);
    settle(&server, REQUEST, &node, "settled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_broadcasts_than_can_wait_for_acknowledgements_are_still_delivered() {
    const ASKS_MAX: usize = 4096;
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(config(&redis.url())).await;
    node.let_answer(false);
    let ask = |name: &str| {
        pack(&format!(
            r#"{{"uid":"25WDST","requestId":"{name}","type":7,"packet":{{"type":2,"data":["ask","{name}"],"nsp":"/"}},"opts":{{"rooms":[],"except":[],"flags":{{"timeout":60000}}}}}}"#
        ))
    };
    for number in 0..ASKS_MAX {
        server.publish(REQUEST, ask(&format!("a{number}"))).await;
    }
    server.publish(REQUEST, ask("last")).await;
    let count = server.hears(TO_NODE, |answer| answer["requestId"] == "last").await;
    assert_eq!(count["clientCount"], 0, "nobody here will answer");
    node.recorded("the last one", |records| records.iter().any(|record| asks(record, "last")))
        .await;
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"fetch","type":5,"opts":{}}"#).await;
    let fetch = server.hears(TO_NODE, |answer| answer["requestId"] == "fetch").await;
    assert_ne!(fetch["sockets"], json!([]), "short answers are given all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_answers_what_it_owes_while_it_has_a_link() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let node = carillon(config(&redis.url())).await;
    node.answer_servers(None);
    server.publish(REQUEST, r#"{"uid":"25WDST","requestId":"e","type":6,"data":["slow"]}"#).await;
    let pending = || node.metric("carillon_cluster_answers_pending", None);
    eventually("the event at work", async || pending() == 1.0).await;
    node.stop().await;
    let answer = server.hears(RESPONSE, |answer| answer["requestId"] == "e").await;
    assert_eq!(answer["data"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_counted_still_delivers_what_it_cannot_acknowledge() {
    let redis = RedisServer::start().await;
    let server = classic(&redis).await;
    let participation = Participation::Commands;
    let node = carillon(AdapterConfig { participation, ..config(&redis.url()) }).await;
    let ask = r#"{"uid":"25WDST","requestId":"a","type":7,"packet":{"type":2,"data":["ask","q"],"nsp":"/"},"opts":{"rooms":[],"except":[],"flags":{}}}"#;
    server.publish(REQUEST, pack(ask)).await;
    node.recorded("the question", |records| records.iter().any(|record| asks(record, "q"))).await;
    settle(&server, REQUEST, &node, "settled").await;
    assert!(answers(&server, TO_NODE).is_empty() && answers(&server, RESPONSE).is_empty());
}

fn asks(record: &Record, text: &str) -> bool {
    matches!(record, Record::Ask { json, .. } if json.contains(&format!(r#""{text}""#)))
}
