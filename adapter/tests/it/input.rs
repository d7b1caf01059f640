//! Whatever is published on the channels, the node goes on.

use crate::{
    eventually,
    foreign::{Foreign, pack},
    node::{Node, config},
    redis_server::RedisServer,
};
use adapter::{AdapterConfig, Mode};

/// `[uid, packet, opts]` around what is to be tried.
fn message(packet: &[u8], opts: &[u8]) -> Vec<u8> {
    [b"\x93\xa1u", packet, opts].concat()
}

const PACKET: &[u8] = b"\x83\xa4type\x02\xa4data\x92\xa2ev\xa3bad\xa3nsp\xa1/";
const OPTS: &[u8] = b"\x82\xa5rooms\x90\xa6except\x90";

/// The R rows of the corpus of bad inputs: channel, payload, and what becomes of it.
fn corpus() -> Vec<(&'static str, &'static str, Vec<u8>, &'static str)> {
    let base = "socket.io#/#";
    let (request, response) = ("socket.io-request#/#", "socket.io-response#/#");
    let good = message(PACKET, OPTS);
    let truncated = good[..good.len() - 3].to_vec();
    let depth = [&b"\x93\xa1u\x82\xa4type\x02\xa4data"[..], &b"\x91".repeat(10_000)].concat();
    let other_ns = b"\x83\xa4type\x02\xa4data\x91\xa2ev\xa3nsp\xa6/other";
    let list = |text: &str| text.as_bytes().to_vec();
    vec![
        ("R1 empty", base, Vec::new(), "malformed"),
        ("R2 reserved byte", base, vec![0xc1], "malformed"),
        ("R3 truncated", base, truncated, "malformed"),
        ("R4 wrong arity", base, b"\x91\xa1u".to_vec(), "malformed"),
        ("R5 rooms is a number", base, message(PACKET, b"\x81\xa5rooms\x05"), "malformed"),
        (
            "R6 length without rooms",
            base,
            message(PACKET, b"\x81\xa5rooms\xdd\xff\xff\xff\xff"),
            "malformed",
        ),
        ("R9 another namespace", base, message(other_ns, OPTS), "foreign"),
        ("R11 deep", base, depth, "malformed"),
        ("R12 twenty megabytes", base, vec![0xc0; 20 << 20], "too_large"),
        ("R13 unknown type", request, list(r#"{"uid":"x","type":99}"#), "ignored"),
        ("R13 no requestId", request, list(r#"{"uid":"x","type":1}"#), "ignored"),
        ("R14 answer to nobody", response, list(r#"{"requestId":"r","rooms":[]}"#), "ignored"),
        ("R15 the same again", response, list(r#"{"requestId":"r","rooms":[]}"#), "ignored"),
        ("R14 answer without id", response, list(r#"{"rooms":[]}"#), "malformed"),
        ("R2 as an answer", response, vec![0xc1], "malformed"),
        ("nil as a question", request, vec![0xc0], "malformed"),
        ("nil as an answer", response, vec![0xc0], "malformed"),
        (
            "a question as an answer",
            response,
            list(r#"{"uid":"x","type":4,"opts":{}}"#),
            "malformed",
        ),
        ("R13 __proto__", request, list(r#"{"__proto__":{"type":4},"constructor":1}"#), "ignored"),
        ("R13 no JSON", request, list("{"), "malformed"),
        ("R13 disconnect nobody knows whom", request, list(r#"{"type":4}"#), "malformed"),
        ("R19 no final sign", "socket.io#/#nobody", message(PACKET, OPTS), "no_room"),
        ("R20 glob in channel", "socket.io#/#*#", message(PACKET, OPTS), "no_room"),
        ("JSON on a broadcast channel", base, list(r#"["u",{"type":2},{}]"#), "ignored"),
        ("not an event", base, message(b"\x82\xa4type\x03\xa4data\x91\xa2ev", OPTS), "malformed"),
        (
            "reserved name",
            base,
            message(b"\x82\xa4type\x02\xa4data\x91\xa7connect", OPTS),
            "malformed",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_bad_message_the_next_good_one_is_delivered() {
    let redis = RedisServer::start_with(&["--client-output-buffer-limit", "pubsub 0 0 0"]).await;
    let (a, b) = (Node::start(&redis.url()).await, Node::start(&redis.url()).await);
    b.set_rooms(&["room"]);
    for (number, (name, channel, payload, result)) in corpus().into_iter().enumerate() {
        let before = b.received(result);
        redis.publish(channel, &payload).await;
        eventually(name, async || b.received(result) > before).await;
        let text = number.to_string();
        a.emit_to("/", &["room"], &text);
        b.hears(&text).await;
    }
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<_> = (0..corpus().len()).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected, "nothing bad was delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_that_node_accepts_are_delivered() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis.url()).await;
    let base = "socket.io#/#";
    let without_ns = b"\x82\xa4type\x02\xa4data\x92\xa2ev\xa1a";
    redis.publish(base, &message(without_ns, OPTS)).await;
    node.hears("a").await;
    // A date, a binary, an extension and a nested one, as other libraries write them.
    let values = b"\x82\xa4type\x05\xa4data\x95\xa2ev\xd6\xff\x65\x53\xf1\x00\xc4\x01\x07\xd4\x05\x09\xd9\x01b";
    redis.publish(base, &message(values, b"\x81\xa5rooms\x93\x7b\xc0\xa1r")).await;
    let records = node.recorded("the second", |records| records.len() == 2).await;
    let text = format!("{:?}", records[1]);
    assert!(
        text.contains("2023-11-14T22:13:20.000Z") && text.contains("n_attachments: 2"),
        "{text}"
    );
    assert!(text.contains(r#"["123", "null", "r"]"#), "{text}");
}

/// The same rows for sharded pub/sub, where everything is `{type, data, uid, nsp}`.
fn sharded_corpus() -> Vec<(&'static str, &'static str, Vec<u8>, &'static str)> {
    let (base, room) = ("socket.io#/#", "socket.io#/#room#");
    let list = |text: &str| text.as_bytes().to_vec();
    let good = pack(GOOD);
    let deep = format!(r#"{{"type":3,"data":{}"#, "[".repeat(10_000));
    let packed_depth = [&b"\x81\xa4data"[..], &b"\x91".repeat(10_000)].concat();
    vec![
        ("R1 empty", base, Vec::new(), "malformed"),
        ("R2 reserved byte", base, vec![0xc1], "malformed"),
        ("R3 truncated", base, good[..good.len() - 3].to_vec(), "malformed"),
        ("R3 truncated JSON", room, list(&GOOD[..GOOD.len() - 3]), "malformed"),
        ("R4 an array", base, b"\x91\xa1u".to_vec(), "malformed"),
        ("nil", base, vec![0xc0], "malformed"),
        (
            "R5 rooms is a number",
            base,
            list(&GOOD.replace(r#""rooms":[]"#, r#""rooms":5"#)),
            "malformed",
        ),
        (
            "R6 length without rooms",
            base,
            b"\x81\xa4data\xdd\xff\xff\xff\xff".to_vec(),
            "malformed",
        ),
        ("R8 no namespace", base, list(&GOOD.replace(r#","nsp":"/""#, "")), "foreign"),
        (
            "R9 another namespace",
            base,
            list(&GOOD.replace(r#""nsp":"/""#, r#""nsp":"/x""#)),
            "foreign",
        ),
        ("R11 deep", base, list(&deep), "malformed"),
        ("R11 deep MessagePack", base, packed_depth, "malformed"),
        ("R12 twenty megabytes", base, vec![0xc0; 20 << 20], "too_large"),
        ("R13 unknown type", base, list(r#"{"type":99,"data":{},"uid":"x","nsp":"/"}"#), "ignored"),
        ("a heartbeat", base, list(r#"{"type":2,"uid":"x","nsp":"/"}"#), "ignored"),
        (
            "R13 no requestId",
            base,
            list(r#"{"type":7,"data":{"opts":{}},"uid":"x","nsp":"/"}"#),
            "ignored",
        ),
        ("R13 __proto__", base, list(r#"{"__proto__":{"type":6},"nsp":"/"}"#), "ignored"),
        ("R13 no data", base, list(r#"{"type":3,"uid":"x","nsp":"/"}"#), "malformed"),
        (
            "R14 answer to nobody",
            base,
            list(r#"{"type":8,"data":{"requestId":"r","sockets":[]},"uid":"x","nsp":"/"}"#),
            "ignored",
        ),
        (
            "reserved name",
            base,
            list(&GOOD.replace("bad", "x").replace("ev", "connect")),
            "malformed",
        ),
    ]
}

const GOOD: &str = r#"{"type":3,"data":{"packet":{"type":2,"data":["ev","bad"]},"opts":{"rooms":[],"except":[],"flags":{}}},"uid":"x","nsp":"/"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn after_each_bad_sharded_message_the_next_good_one_is_delivered() {
    let redis = RedisServer::start_with(&["--client-output-buffer-limit", "pubsub 0 0 0"]).await;
    let sharded = AdapterConfig { mode: Mode::RedisSharded, ..config(&redis.url()) };
    let (a, b) = (Node::start_with(sharded.clone()).await, Node::start_with(sharded).await);
    b.adapter.room_opened("/", "room");
    let stranger = Foreign::sharded(&redis, &[]).await;
    for (number, (name, channel, payload, result)) in sharded_corpus().into_iter().enumerate() {
        let before = b.received(result);
        stranger.publish(channel, &payload).await;
        eventually(name, async || b.received(result) > before).await;
        let text = number.to_string();
        a.emit(&text);
        b.hears(&text).await;
    }
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    let expected: Vec<_> = (0..sharded_corpus().len()).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected, "nothing bad was delivered");
}
