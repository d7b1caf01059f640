//! Engine.IO packets and payloads.

use std::time::Duration;

use protocol::engine::{EngineError, OpenPacket, Packet, payload_packets, push_record};

fn packets(body: &str) -> Vec<Result<Packet<'_>, EngineError>> {
    payload_packets(body, 1000).expect("a payload of few packets").collect()
}

#[test]
fn a_payload_keeps_text_and_binaries_in_order() {
    let sent = [
        Packet::Message("2[\"a\"]"),
        Packet::Binary(vec![1, 2, 3].into()),
        Packet::Pong("probe"),
        Packet::Binary(vec![].into()),
        Packet::Close,
    ];
    let mut body = String::new();
    for packet in &sent {
        push_record(&mut body, packet);
    }
    assert_eq!(body, "42[\"a\"]\u{1e}bAQID\u{1e}3probe\u{1e}b\u{1e}1");
    assert_eq!(packets(&body), sent.map(Ok));
}

#[test]
fn base64_may_lack_its_padding_but_not_its_alphabet() {
    assert_eq!(
        packets("bAQ==\u{1e}bAQ"),
        [Ok(Packet::Binary(vec![1].into())), Ok(Packet::Binary(vec![1].into()))]
    );
    for body in ["b!!!", "b_-8=", "bA", "bAQ= ", "b\u{e9}"] {
        assert_eq!(packets(body), [Err(EngineError::InvalidBase64)], "{body}");
    }
}

#[test]
fn packets_before_a_wrong_one_come_out_and_none_behind_it() {
    assert_eq!(
        packets("4a\u{1e}zzz\u{1e}4b"),
        [Ok(Packet::Message("a")), Err(EngineError::UnknownType)]
    );
    assert_eq!(packets("\u{1e}4a"), [Err(EngineError::Empty)]);
    assert_eq!(packets("4a\u{1e}"), [Ok(Packet::Message("a")), Err(EngineError::Empty)]);
    assert_eq!(packets("1x"), [Err(EngineError::UnexpectedData)]);
}

#[test]
fn a_payload_has_a_limit_of_packets_without_a_message() {
    let body = "3\u{1e}4a\u{1e}bAQ==\u{1e}3";
    assert_eq!(payload_packets(body, 1).err(), Some(EngineError::TooManyPackets));
    assert_eq!(payload_packets(body, 2).map(Iterator::count), Ok(4));
    assert_eq!(payload_packets("4a\u{1e}4b", 0).map(Iterator::count), Ok(2));
    assert_eq!(payload_packets("", 3).err(), Some(EngineError::Empty));
}

#[test]
fn the_open_packet_reads_as_on_node() {
    let open = OpenPacket {
        sid: "abcdefghijklmnopqrst",
        upgrades: vec!["websocket"],
        ping_interval: Duration::from_secs(25),
        ping_timeout: Duration::from_secs(20),
        max_payload: 1_000_000,
    };
    let json = open.to_json();
    assert_eq!(
        json,
        r#"{"sid":"abcdefghijklmnopqrst","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
    );
    assert!(OpenPacket::parse(&json).is_ok_and(|parsed| parsed == open));
    assert_eq!(OpenPacket::parse("{}").err(), Some(EngineError::InvalidOpen));
}
