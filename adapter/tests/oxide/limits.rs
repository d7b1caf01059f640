//! What does not fit, is not read, or cannot be said.

use crate::{
    app::{App, config},
    eventually, foreign,
    redis_server::RedisServer,
};
use adapter::AdapterConfig;

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_missed_a_message_is_made_to_connect_anew() {
    let redis = RedisServer::start().await;
    let config = AdapterConfig { cluster_frame_max: 2000, ..config(&redis.url()) };
    let a = App::start_with(config).await;
    let red = a.client_in_rooms(&["red"]).await;
    let blue = a.client_in_rooms(&["blue"]).await;
    foreign::publish(&redis, "/", &["red"], &[], &"x".repeat(3000)).await;
    foreign::publish(&redis, "/", &[], &[], "end").await;
    red.texts_until("end").await;
    blue.texts_until("end").await;
    // No JSON array: official clients give up their connection on it.
    assert!(red.packets().contains(&"42[".to_owned()), "{:?}", red.packets());
    assert!(!blue.packets().contains(&"42[".to_owned()), "{:?}", blue.packets());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_socket_without_room_does_not_get_is_counted() {
    let redis = RedisServer::start().await;
    let a = App::start(&redis.url()).await;
    let mut idle = a.client().await;
    idle.stop_polling().await;
    // A packet each; 128 fit.
    for number in 0..200 {
        foreign::publish(&redis, "/", &[], &[], &number.to_string()).await;
    }
    let lost = async || a.counter("carillon_socketioxide_undelivered_total") >= 60.0;
    eventually("the count", lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_servers_cannot_get_is_delivered_here_and_counted() {
    let redis = RedisServer::start().await;
    let (a, b) = (App::start(&redis.url()).await, App::start(&redis.url()).await);
    let (here, there) = (a.client().await, b.client().await);
    let mut deep = serde_json::json!("bottom");
    for _ in 0..80 {
        deep = serde_json::json!([deep]);
    }
    a.io.emit("deep", &(deep,)).await.expect("delivered");
    here.packet(|packet| packet.contains("bottom")).await;
    assert_eq!(a.counter("carillon_socketioxide_unpublishable_total"), 1.0);
    a.io.emit("ev", "end").await.expect("delivered");
    assert_eq!(there.texts_until("end").await, ["end"]);
    assert!(there.packets().iter().all(|packet| !packet.contains("deep")));
}
