//! Modes in which a server receives only what its rooms need, whether or not anybody waits for it.

use crate::{
    app::{App, config},
    client::Client,
    eventually,
    redis_server::RedisServer,
};
use adapter::{AdapterConfig, Mode, ShardedMode, Subscribe};

fn modes(url: &str) -> Vec<(&'static str, AdapterConfig)> {
    let sharded = |mode| AdapterConfig { mode: Mode::RedisSharded, sharded: mode, ..config(url) };
    vec![
        ("static", sharded(ShardedMode::Static)),
        ("dynamic", sharded(ShardedMode::Dynamic)),
        ("dynamic-private", sharded(ShardedMode::DynamicPrivate)),
        ("interest", AdapterConfig { subscribe: Subscribe::Interest, ..config(url) }),
    ]
}

async fn has(client: &Client, text: &str) -> bool {
    client.packets().contains(&format!(r#"42["ev","{text}"]"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_and_ids_are_reached_where_channels_follow_them() {
    let redis = RedisServer::start().await;
    for (name, config) in modes(&redis.url()) {
        let key = format!("{name}-cluster");
        let config = AdapterConfig { key, ..config };
        let a = App::start_with(config.clone()).await;
        let b = App::start_with(config).await;
        let there = b.client_in_rooms(&["red"]).await;
        let none = b.client().await;
        // Nobody waited for the subscriptions.
        let texts = |text: &str| (text.to_owned(), format!("{text} in {name}"));
        for (target, (room, text)) in
            [(&there, texts("red")), (&none, (none.id.clone(), format!("direct in {name}")))]
        {
            eventually(&text, async || {
                a.io.to(room.clone()).emit("ev", &text).await.expect("delivered");
                has(target, &text).await
            })
            .await;
        }
        a.io.emit("ev", "end").await.expect("delivered");
        assert!(there.texts_until("end").await.iter().all(|text| !text.starts_with("direct")));
        assert!(none.texts_until("end").await.iter().all(|text| !text.starts_with("red")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_room_gets_what_is_sent_right_behind() {
    let redis = RedisServer::start().await;
    for (name, config) in modes(&redis.url()) {
        let key = format!("{name}-cluster");
        let config = AdapterConfig { key, ..config };
        let a = App::start_with(config.clone()).await;
        let b = App::start_with(config).await;
        for number in 0..20 {
            let room = format!("room {number}");
            let there = b.client().await;
            b.cluster.follow("/", &room).await;
            b.io.get_socket(there.id.parse().expect("an id")).expect("here").join(room.clone());
            a.io.to(room).emit("ev", &format!("{number}")).await.expect("delivered");
            there.texts_until(&number.to_string()).await;
        }
    }
}
