//! A member of the cluster that is not ours: it publishes bytes and writes down what it receives.

use crate::{PATIENCE, redis_server::RedisServer, soon};
use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::sync::watch;

/// What it received: channel and payload.
pub type Message = (String, Vec<u8>);

/// Subscribed and connected until it is dropped.
pub struct Foreign {
    connection: MultiplexedConnection,
    messages: watch::Receiver<Vec<Message>>,
    is_sharded: bool,
}

impl Foreign {
    /// Subscribes to channels as a classic Node server does. It is counted if the request channel is among them.
    pub async fn classic(redis: &RedisServer, channels: &[&str]) -> Self {
        Self::start(redis, "SUBSCRIBE", channels).await
    }

    /// Subscribes to channels of sharded pub/sub.
    pub async fn sharded(redis: &RedisServer, channels: &[&str]) -> Self {
        Self::start(redis, "SSUBSCRIBE", channels).await
    }

    async fn start(redis: &RedisServer, command: &str, channels: &[&str]) -> Self {
        let sender = watch::Sender::<Vec<Message>>::default();
        let messages = sender.subscribe();
        let on_push = move |push: PushInfo| {
            let is_message = matches!(push.kind, PushKind::Message | PushKind::SMessage);
            if let [Value::BulkString(channel), Value::BulkString(payload)] = &push.data[..]
                && is_message
            {
                let channel = String::from_utf8_lossy(channel).into_owned();
                sender.send_modify(|messages| messages.push((channel, payload.clone())));
            }
            Ok::<_, redis::aio::SendError>(())
        };
        let url = format!("{}/?protocol=resp3", redis.url());
        let client = redis::Client::open(url).expect("a valid address");
        let config = redis::AsyncConnectionConfig::new()
            .set_push_sender(on_push)
            .set_response_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = soon("a connection", connecting).await.expect("Redis runs");
        for channel in channels {
            let subscribe = redis::cmd(command).arg(channel).to_owned();
            let _: Value = subscribe.query_async(&mut connection).await.expect("subscribed");
        }
        let is_sharded = command == "SSUBSCRIBE";
        // What was asked for on one connection and confirmed there is counted, whoever asks.
        let count = if is_sharded { "SHARDNUMSUB" } else { "NUMSUB" };
        for channel in channels {
            crate::eventually("the foreign subscription", async || {
                let (_, n): (String, i64) = redis.run(&["PUBSUB", count, channel]).await;
                n > 0
            })
            .await;
        }
        Self { connection, messages, is_sharded }
    }

    /// Publishes bytes, by the kind of pub/sub it listens to.
    pub async fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) {
        let command = if self.is_sharded { "SPUBLISH" } else { "PUBLISH" };
        let publish = redis::cmd(command).arg(channel).arg(payload.as_ref()).to_owned();
        let mut connection = self.connection.clone();
        let _: i64 = publish.query_async(&mut connection).await.expect("published");
    }

    /// Everything received on a channel so far, as JSON.
    pub fn received(&self, channel: &str) -> Vec<serde_json::Value> {
        let messages = self.messages.borrow();
        let here = messages.iter().filter(|(at, _)| at == channel);
        here.map(|(_, payload)| read(payload)).collect()
    }

    /// Waits until a message on a channel is as it should be, and gives it.
    pub async fn hears(
        &self,
        channel: &str,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        self.hear_all(channel, 1, is_it).await.remove(0)
    }

    /// Waits for so many of them.
    pub async fn hear_all(
        &self,
        channel: &str,
        count: usize,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> Vec<serde_json::Value> {
        let mut messages = self.messages.clone();
        let looking = messages.wait_for(|messages| {
            let here =
                messages.iter().filter(|(at, payload)| at == channel && is_it(&read(payload)));
            here.count() >= count
        });
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(messages) => {
                let messages = messages.expect("the connection lives");
                let here = messages.iter().filter(|(at, _)| at == channel);
                here.map(|(_, payload)| read(payload)).filter(is_it).collect()
            }
            Err(_) => panic!("nothing on {channel}; {:?}", self.received(channel)),
        }
    }
}

/// Reads a message by its first byte, as all members do.
pub fn read(payload: &[u8]) -> serde_json::Value {
    let text = match payload.first() {
        Some(b'{') => String::from_utf8_lossy(payload).into_owned(),
        _ => match protocol::msgpack::msgpack_to_json(payload, usize::MAX) {
            Ok(decoded) => decoded.json,
            Err(_) => return serde_json::Value::Null,
        },
    };
    serde_json::from_str(&text).unwrap_or_default()
}

/// Writes MessagePack.
pub fn pack(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    protocol::msgpack::json_to_msgpack(&mut out, json, &[]).expect("valid JSON");
    out
}
