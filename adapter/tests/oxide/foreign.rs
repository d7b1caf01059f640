//! What a Node server and an emitter put on Redis, written by hand.

use crate::redis_server::RedisServer;
use rmp::encode;

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
