//! What a Node server and an emitter put on Redis, written by hand.

use crate::{redis_server::RedisServer, soon};
use futures_util::StreamExt;
use rmp::encode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The id of a socket of a Node server.
pub const NODE_ID: &str = "sSxN1zkG0hG1cUVFAAAB";

/// A Node server in `/` with one socket, which is in the room `red`. Answers those who fetch sockets, and nothing else,
/// until it is dropped.
pub struct NodeServer {
    _running: JoinSet<()>,
}

impl NodeServer {
    /// Starts it. When this returns it is counted.
    pub async fn start(redis: &RedisServer) -> Self {
        let client = redis::Client::open(redis.url()).expect("a valid address");
        let mut requests = soon("Redis", client.get_async_pubsub()).await.expect("Redis runs");
        let subscribed = requests.subscribe("socket.io-request#/#");
        soon("the subscription", subscribed).await.expect("Redis runs");
        let mut answers = redis.connection().await;
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut requests = requests.into_on_message();
            while let Some(request) = requests.next().await {
                let request: Value =
                    serde_json::from_slice(request.get_payload_bytes()).unwrap_or_default();
                if request["type"] != 5 {
                    continue;
                }
                let socket = json!({
                    "id": NODE_ID,
                    "rooms": [NODE_ID, "red"],
                    "handshake": {"headers": {}, "query": {}},
                    "data": {"from": "node"},
                });
                let answer = json!({"requestId": request["requestId"], "sockets": [socket]});
                let mut publish = redis::cmd("PUBLISH");
                publish.arg("socket.io-response#/#").arg(answer.to_string());
                let _: i64 = publish.query_async(&mut answers).await.expect("Redis runs");
            }
        });
        Self { _running: running }
    }
}

/// Publishes `[event, text]` as a Node server does.
pub async fn publish(redis: &RedisServer, ns: &str, rooms: &[&str], except: &[&str], text: &str) {
    let mut out = Vec::new();
    encode::write_array_len(&mut out, 3).expect("memory");
    write_str(&mut out, "foreign");
    encode::write_map_len(&mut out, 3).expect("memory");
    write_str(&mut out, "type");
    encode::write_uint(&mut out, 2).expect("memory");
    write_str(&mut out, "data");
    write_strs(&mut out, &["ev", text]);
    write_str(&mut out, "nsp");
    write_str(&mut out, ns);
    encode::write_map_len(&mut out, 3).expect("memory");
    write_str(&mut out, "rooms");
    write_strs(&mut out, rooms);
    write_str(&mut out, "except");
    write_strs(&mut out, except);
    write_str(&mut out, "flags");
    encode::write_map_len(&mut out, 0).expect("memory");
    let channel = match rooms {
        [room] => format!("socket.io#{ns}#{room}#"),
        _ => format!("socket.io#{ns}#"),
    };
    redis.publish(&channel, &out).await;
}

fn write_str(out: &mut Vec<u8>, text: &str) {
    encode::write_str(out, text).expect("memory");
}

fn write_strs(out: &mut Vec<u8>, texts: &[&str]) {
    encode::write_array_len(out, texts.len() as u32).expect("memory");
    texts.iter().for_each(|text| write_str(out, text));
}
