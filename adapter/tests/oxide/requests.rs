//! What applications ask of each other's sockets and servers.

use crate::{
    app::{App, Server, config},
    eventually,
    foreign::{NODE_ID, NodeServer},
    redis_server::RedisServer,
    soon,
};
use adapter::{
    AdapterConfig, Selection,
    socketioxide::{Description, Handshake, ServerEvent, event_data},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use socketioxide::{
    AckError,
    socket::{RemoteSocket, Sid},
};
use std::{collections::BTreeSet, time::Duration};

async fn two_apps() -> (RedisServer, App, App) {
    let redis = RedisServer::start().await;
    let (a, b) = (App::start(&redis.url()).await, App::start(&redis.url()).await);
    (redis, a, b)
}

fn ids(sockets: &[RemoteSocket<Server>]) -> BTreeSet<String> {
    sockets.iter().map(|socket| socket.data().id.to_string()).collect()
}

fn set<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}

fn find(sockets: Vec<RemoteSocket<Server>>, id: &str) -> RemoteSocket<Server> {
    let mut sockets = sockets.into_iter();
    sockets.find(|socket| socket.data().id.as_str() == id).expect("it is among them")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_of_both_applications_are_fetched() {
    let (_redis, a, b) = two_apps().await;
    let here = a.client_in_rooms(&["red"]).await;
    let there = b.client_in_rooms(&["red", "blue"]).await;
    let other = b.client().await;
    let all = a.io.fetch_sockets().await.expect("all answer");
    assert_eq!(ids(&all), set([&here.id, &there.id, &other.id]));
    let red = a.io.to("red").fetch_sockets().await.expect("all answer");
    assert_eq!(ids(&red), set([&here.id, &there.id]));
    let not_blue = a.io.to("red").except("blue").fetch_sockets().await.expect("all answer");
    assert_eq!(ids(&not_blue), set([&here.id]));
    let by_id = a.io.to(there.id.clone()).fetch_sockets().await.expect("all answer");
    assert_eq!(ids(&by_id), set([&there.id]));
    let local = a.io.local().fetch_sockets().await.expect("nobody is asked");
    assert_eq!(ids(&local), set([&here.id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_socket_can_be_used_like_one_of_its_own() {
    let (_redis, a, b) = two_apps().await;
    let there = b.client_in_rooms(&["red"]).await;
    let fetch = async || find(a.io.fetch_sockets().await.expect("all answer"), &there.id);
    let remote = fetch().await;
    remote.join(["blue", "green"]).await.expect("published");
    remote.leave("green").await.expect("published");
    remote.emit("ev", "for you").await.expect("published");
    there.texts_until("for you").await;
    // What was published before it has been applied before it.
    let rooms = remote.rooms().await.expect("all answer");
    let rooms: BTreeSet<_> = rooms.iter().map(ToString::to_string).collect();
    assert_eq!(rooms, set([&there.id, "red", "blue"]));
    let ack = remote.emit_with_ack::<_, (String,)>("question", &1).await.expect("published");
    let question = there.packet(|packet| packet.ends_with(r#"["question",1]"#)).await;
    there.answer(&question, r#"["answer","second argument"]"#).await;
    let (answer,) = soon("the answer", ack).await.expect("an answer");
    assert_eq!(answer, "answer");
    fetch().await.disconnect().await.expect("published");
    there.packet(|packet| packet == "41").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selections_join_leave_and_are_disconnected_everywhere() {
    let (_redis, a, b) = two_apps().await;
    let here = a.client_in_rooms(&["red"]).await;
    let there = b.client_in_rooms(&["red"]).await;
    let other = b.client().await;
    let members =
        async |room: &'static str| ids(&a.io.to(room).fetch_sockets().await.expect("all answer"));
    a.io.to("red").join("blue").await.expect("published");
    assert_eq!(members("blue").await, set([&here.id, &there.id]));
    a.io.except("red").join("green").await.expect("published");
    assert_eq!(members("green").await, set([&other.id]));
    a.io.to("red").leave("blue").await.expect("published");
    assert_eq!(members("blue").await, set([]));
    let rooms = a.io.rooms().await.expect("all answer");
    let rooms: BTreeSet<_> = rooms.iter().map(ToString::to_string).collect();
    assert_eq!(rooms, set(["red", "green", &here.id, &there.id, &other.id]));
    a.io.to("red").disconnect().await.expect("published");
    for client in [&here, &there] {
        client.packet(|packet| packet == "41").await;
    }
    eventually("the end of both", async || {
        ids(&a.io.fetch_sockets().await.expect("all answer")) == set([&other.id])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_ends_a_socket_in_all_namespaces_of_its_connection() {
    let (_redis, a, b) = two_apps().await;
    let [closed, kept] = [b.client_in_rooms(&["red"]).await, b.client_in_rooms(&["blue"]).await];
    for client in [&closed, &kept] {
        client.join_namespace("/chat").await;
    }
    let disconnect = async |room: &str, close| {
        let selection = Selection { rooms: vec![room.into()], except: Vec::new() };
        a.cluster.adapter().disconnect("/", &selection, close).await;
    };
    disconnect("red", true).await;
    disconnect("blue", false).await;
    closed.packet(|packet| packet == "41").await;
    closed.packet(|packet| packet == "41/chat,").await;
    kept.packet(|packet| packet == "41").await;
    b.io.of("/chat").expect("it is served").emit("ev", "still here").await.expect("delivered");
    kept.packet(|packet| packet == r#"42/chat,["ev","still here"]"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_with_other_ids_are_left_out_only_where_they_do_not_fit() {
    let (redis, a, b) = two_apps().await;
    let _node = NodeServer::start(&redis).await;
    let there = b.client_in_rooms(&["red"]).await;
    b.cluster.describe_with(|ns, _id| {
        let address = String::from("192.0.2.7");
        let data = [("ns".to_owned(), Value::from(ns))].into_iter().collect();
        Some(Description { handshake: Handshake { address, ..Handshake::default() }, data })
    });
    let fetched = a.io.to("red").fetch_sockets().await.expect("all answer");
    assert_eq!(ids(&fetched), set([&there.id]));
    assert_eq!(a.counter("carillon_socketioxide_left_out_sockets_total"), 1.0);
    let red = Selection { rooms: vec!["red".into()], except: Vec::new() };
    let whole = a.cluster.adapter().fetch_sockets("/", &red).await.expect("all answer");
    let find = |id: &str| whole.iter().find(|socket| &*socket.id == id).expect("it is there");
    assert_eq!((whole.len(), &*find(NODE_ID).data), (2, r#"{"from":"node"}"#));
    let described = find(&there.id);
    assert_eq!(&*described.data, r#"{"ns":"/"}"#);
    let handshake: Value = serde_json::from_str(&described.handshake).expect("JSON");
    assert_eq!(handshake["address"], "192.0.2.7");
    assert_eq!(handshake["headers"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_come_from_both_applications() {
    let (_redis, a, b) = two_apps().await;
    let (here, there) = (a.client().await, b.client().await);
    let stream = a.io.emit_with_ack::<_, String>("question", &()).await.expect("asked");
    for (client, answer) in [(&here, "one"), (&there, "two")] {
        let question = client.packet(|packet| packet.contains("question")).await;
        client.answer(&question, &format!(r#"["{answer}"]"#)).await;
    }
    let answers: Vec<_> = soon("the answers", stream.collect::<Vec<_>>()).await;
    let mut answers: Vec<_> = answers.into_iter().map(|(id, answer)| (id, answer.ok())).collect();
    answers.sort_by_key(|(_, answer)| answer.clone());
    let id = |id: &str| id.parse::<Sid>().expect("16 characters");
    let expected =
        [(id(&here.id), Some("one".to_owned())), (id(&there.id), Some("two".to_owned()))];
    assert_eq!(answers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_acknowledgement_is_an_error_behind_those_that_came() {
    let (_redis, a, b) = two_apps().await;
    let (here, there) = (a.client().await, b.client().await);
    let asking = a.io.timeout(Duration::from_millis(300));
    let stream = asking.emit_with_ack::<_, String>("question", &()).await.expect("asked");
    let question = here.packet(|packet| packet.contains("question")).await;
    here.answer(&question, r#"["one"]"#).await;
    there.packet(|packet| packet.contains("question")).await;
    let answers: Vec<_> = soon("the end", stream.collect::<Vec<_>>()).await;
    let (missing, came) = answers.split_last().expect("two items");
    assert!(matches!(missing, (Sid::ZERO, Err(AckError::Timeout))), "{missing:?}");
    let came: Vec<_> = came.iter().map(|(_, answer)| answer.as_deref().ok()).collect();
    assert!(came.iter().all(|answer| *answer == Some("one")), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_servers_are_answered_by_their_handler_or_with_null() {
    let (_redis, a, b) = two_apps().await;
    let (took, mut taken) = tokio::sync::mpsc::unbounded_channel();
    a.cluster.on_server_event(async |_event| panic!("a server does not tell itself"));
    let ask = async |data| {
        let answers = a.cluster.adapter().server_side_emit_with_ack("/", &data).await;
        let answers = answers.expect("all answer");
        answers.into_iter().map(|answer| String::from(answer.json)).collect::<Vec<_>>()
    };
    let question = event_data(&("sum", 1, 2)).expect("JSON");
    assert_eq!(ask(question.clone()).await, ["[null]"]);
    b.cluster.on_server_event(move |event: ServerEvent| {
        took.send((event.ns.clone(), event.name(), event.is_answered)).expect("it is read");
        let sum = event.args::<(u8, u8)>().map(|(one, two)| one + two);
        async move { event_data(&[sum.ok()?]).ok() }
    });
    assert_eq!(ask(question).await, ["[3]"]);
    let news = event_data(&["news"]).expect("JSON");
    a.cluster.adapter().server_side_emit("/chat", &news);
    let expected = [("/", "sum", true), ("/chat", "news", false)];
    for (ns, name, is_answered) in expected {
        let seen = soon("the event", taken.recv()).await.expect("the handler lives");
        assert_eq!(seen, (ns.to_owned(), name.to_owned(), is_answered));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_told_to_who_fetches() {
    let redis = RedisServer::start().await;
    let requests_timeout = Duration::from_millis(300);
    let a = App::start_with(AdapterConfig { requests_timeout, ..config(&redis.url()) }).await;
    let _b = App::start(&redis.url()).await;
    // Counted, and silent.
    let client = redis::Client::open(redis.url()).expect("a valid address");
    let mut silent = client.get_async_pubsub().await.expect("Redis runs");
    silent.subscribe("socket.io-request#/#").await.expect("Redis runs");
    let error = a.io.fetch_sockets().await.expect_err("one is missing");
    assert_eq!(error.kind(), "timeout");
    assert_eq!(error.to_string(), "not everybody answered in time, 1 other servers answered");
}
