//! Events, and who gets them.

use crate::{app::App, eventually, foreign, redis_server::RedisServer};
use socketioxide::socket::Sid;

async fn two_apps() -> (RedisServer, App, App) {
    let redis = RedisServer::start().await;
    let (a, b) = (App::start(&redis.url()).await, App::start(&redis.url()).await);
    (redis, a, b)
}

fn sid(id: &str) -> Sid {
    id.parse().expect("16 characters")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_the_sockets_of_both_applications() {
    let (_redis, a, b) = two_apps().await;
    let (here, there) = (a.client().await, b.client().await);
    a.io.emit("ev", &"first").await.expect("delivered");
    b.io.emit("ev", &"second").await.expect("delivered");
    for client in [&here, &there] {
        client.texts_until("first").await;
        client.texts_until("second").await;
    }
    // Each once: a later event shows that nothing else was under way.
    a.io.emit("ev", &"last").await.expect("delivered");
    assert_eq!(there.texts_until("last").await.len(), 3);
    assert_eq!(here.texts_until("last").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn binaries_and_all_kinds_of_values_cross_unchanged() {
    let (_redis, a, b) = two_apps().await;
    let (here, there) = (a.client().await, b.client().await);
    let value = serde_json::json!({"z": 1, "a": [null, true, 1.5, "é\u{1f600}"], "n": 9007199254740993_i64});
    let binary = bytes::Bytes::from_static(b"\0\xff");
    a.io.emit("bin", &(&value, binary)).await.expect("delivered");
    for client in [&here, &there] {
        let header = client.packet(|packet| packet.starts_with("45")).await;
        assert!(header.starts_with(r#"451-["bin",{"#), "{header}");
        let args: serde_json::Value = serde_json::from_str(&header[4..]).expect("JSON");
        assert_eq!(args[1], value);
        assert_eq!(args[2], serde_json::json!({"_placeholder": true, "num": 0}));
        client.packet(|packet| packet == "bAP8=").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_ids_and_exceptions_select_as_on_node() {
    let (_redis, a, b) = two_apps().await;
    let red = b.client_in_rooms(&["red"]).await;
    let both = b.client_in_rooms(&["red", "blue"]).await;
    let none = b.client().await;
    let near = a.client_in_rooms(&["red"]).await;
    a.io.to("red").emit("ev", &"red").await.expect("delivered");
    a.io.to(["red", "blue"]).emit("ev", &"red or blue").await.expect("delivered");
    a.io.to("red").except("blue").emit("ev", &"red not blue").await.expect("delivered");
    a.io.to(sid(&none.id)).emit("ev", &"direct").await.expect("delivered");
    a.io.to(sid(&near.id)).emit("ev", &"direct here").await.expect("delivered");
    a.io.except([red.id.clone(), near.id.clone()]).emit("ev", &"not red").await.expect("delivered");
    a.io.to("red").local().emit("ev", &"local").await.expect("delivered");
    a.io.emit("ev", &"end").await.expect("delivered");
    assert_eq!(red.texts_until("end").await, ["red", "red or blue", "red not blue", "end"]);
    assert_eq!(both.texts_until("end").await, ["red", "red or blue", "not red", "end"]);
    assert_eq!(none.texts_until("end").await, ["direct", "not red", "end"]);
    let here = ["red", "red or blue", "red not blue", "direct here", "local", "end"];
    assert_eq!(near.texts_until("end").await, here);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_emits_to_others_does_not_get_it_back() {
    let (_redis, a, b) = two_apps().await;
    let (sender, there) = (a.client().await, b.client().await);
    sender.emit(r#"["to-others","mine"]"#).await;
    there.texts_until("mine").await;
    b.io.emit("ev", &"end").await.expect("delivered");
    assert_eq!(sender.texts_until("end").await, ["end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_server_publishes_is_delivered_and_filtered() {
    let (redis, a, _b) = two_apps().await;
    let red = a.client_in_rooms(&["red"]).await;
    let none = a.client().await;
    let chat = a.client_in("/chat").await;
    foreign::publish(&redis, "/", &["red"], &[], "red").await;
    foreign::publish(&redis, "/", &["nobody"], &[], "nobody").await;
    foreign::publish(&redis, "/", &[&none.id], &[], "direct").await;
    foreign::publish(&redis, "/", &[], &[&none.id, "blue"], "not none").await;
    foreign::publish(&redis, "/", &["red", &none.id, &red.id], &[], "each once").await;
    foreign::publish(&redis, "/chat", &[], &[], "chat").await;
    foreign::publish(&redis, "/elsewhere", &[], &[], "elsewhere").await;
    foreign::publish(&redis, "/", &[], &[], "end").await;
    assert_eq!(red.texts_until("end").await, ["red", "not none", "each once", "end"]);
    assert_eq!(none.texts_until("end").await, ["direct", "each once", "end"]);
    assert_eq!(chat.texts_until("chat").await, ["chat"]);
    // The one for `/elsewhere` does not even come.
    let received = async || a.counter("carillon_cluster_received_total") == 7.0;
    eventually("the count", received).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_sockets_receive_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let a = App::start(&redis.url()).await;
    let here = a.client().await;
    redis.stop();
    a.io.emit("ev", &"alone").await.expect("Redis does not make it fail");
    here.texts_until("alone").await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_hears_nothing_and_may_come_again() {
    let redis = RedisServer::start().await;
    let a = App::start(&redis.url()).await;
    let patterns = async || redis.run::<i64>(&["PUBSUB", "NUMPAT"]).await;
    let before = patterns().await;
    a.io.delete_ns("/chat");
    eventually("the end of the subscription", async || patterns().await < before).await;
    a.io.ns("/chat", async || {});
    eventually("the subscription", async || patterns().await == before).await;
    let client = a.client_in("/chat").await;
    foreign::publish(&redis, "/chat", &[], &[], "again").await;
    client.texts_until("again").await;
}
