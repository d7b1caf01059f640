//! WebSocket frames that are wrong themselves.

use super::*;
use crate::support::websocket::{
    BINARY, CLOSE, CONTINUATION, PING, TEXT, control, fragment, frame,
};

const FIN: u8 = 0x80;

/// A header that announces `len` bytes in the given form, masked.
fn header(first_byte: u8, form: u8, len: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte, 0x80 | form];
    bytes.extend_from_slice(len);
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

fn with_payload(mut header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    header.extend_from_slice(payload);
    header
}

/// W52 to W55: single frames.
#[tokio::test]
async fn broken_frames() {
    let event = br#"42["a"]"#;
    let reason: Vec<u8> = [&1000_u16.to_be_bytes()[..], &[0xff; 124]].concat();
    let invalid_reason: Vec<u8> = [&1000_u16.to_be_bytes()[..], &[0xff; 20]].concat();
    let rows = [
        raw("W52", frame(FIN | TEXT, true, &[0xff, 0xfe]), ClosedWith(1007)),
        raw("W53 unmasked", frame(FIN | TEXT, false, event), ClosedWith(1002)),
        raw("W53 RSV1", frame(FIN | 0x40 | TEXT, true, event), ClosedWith(1002)),
        raw("W53 RSV2", frame(FIN | 0x20 | TEXT, true, event), ClosedWith(1002)),
        raw("W53 RSV3", frame(FIN | 0x10 | TEXT, true, event), ClosedWith(1002)),
        raw("W53 opcode 3", frame(FIN | 3, true, event), ClosedWith(1002)),
        raw("W53 continuation first", fragment(true, CONTINUATION, event), ClosedWith(1002)),
        raw("W53 fragmented ping", fragment(false, PING, b"x"), ClosedWith(1002)),
        raw("W53 ping of 126 bytes", control(PING, &[0; 126]), ClosedWith(1002)),
        raw("W54 1 byte", control(CLOSE, &[3]), Closed),
        raw("W54 1005", control(CLOSE, &1005_u16.to_be_bytes()), Closed),
        raw("W54 65535", control(CLOSE, &65_535_u16.to_be_bytes()), Closed),
        raw("W54 124 bytes of reason", control(CLOSE, &reason), Closed),
        raw("W54 reason without UTF-8", control(CLOSE, &invalid_reason), Closed),
        raw("W55 2^63", header(FIN | TEXT, 127, &(1_u64 << 63).to_be_bytes()), ClosedWith(1009)),
        raw("W55 17 MiB", header(FIN | TEXT, 127, &(17_u64 << 20).to_be_bytes()), ClosedWith(1009)),
        raw(
            "W55 64-bit length for 5 bytes",
            with_payload(header(FIN | TEXT, 127, &5_u64.to_be_bytes()), b"hello"),
            Closed,
        ),
        raw(
            "W55 16-bit length for 5 bytes",
            with_payload(header(FIN | TEXT, 126, &5_u16.to_be_bytes()), b"hello"),
            Closed,
        ),
    ];
    let node = node().await;
    check(&node, &rows).await;
    node.finish().await;
}

/// A message of `n_frames` frames, all but the first of them without payload.
fn in_frames(payload: &[u8], n_frames: usize) -> Vec<u8> {
    let mut bytes = fragment(false, TEXT, payload);
    bytes.extend(fragment(false, CONTINUATION, b"").repeat(n_frames - 2));
    bytes.extend(fragment(true, CONTINUATION, b""));
    bytes
}

/// W56 to W58: messages in fragments.
#[tokio::test]
async fn fragments() {
    let event = br#"42["a",1]"#;
    let interleaved = [fragment(false, TEXT, &event[..4]), frame(FIN | TEXT, true, event)].concat();
    let with_ping = [
        fragment(false, TEXT, &event[..4]),
        control(PING, b"hi"),
        fragment(true, CONTINUATION, &event[4..]),
    ]
    .concat();
    let rows = [
        raw("W56 1,000 frames", in_frames(event, 1_000), echoed(r#"42["a",1]"#)),
        raw("W56 1,001 frames", in_frames(event, 1_001), ClosedWith(1008)),
        raw("W56 a million frames", in_frames(event, 1_000_000), Closed),
        raw(
            "W57 in small fragments",
            {
                let first = fragment(false, BINARY, &[7; 100_000]);
                [first, fragment(false, CONTINUATION, &[7; 100_000]).repeat(11)].concat()
            },
            Closed,
        ),
        raw("W58", interleaved, ClosedWith(1002)),
        raw(
            "a ping between fragments",
            with_ping,
            Delivered(vec![
                Received::Pong(b"hi".to_vec()),
                Received::Text(r#"42["a",1]"#.to_owned()),
            ]),
        ),
    ];
    let node = node().await;
    check(&node, &rows).await;
    node.finish().await;
}

/// W57: 45 MiB in three fragments of a message that never ends, and what that costs.
#[tokio::test]
async fn huge_fragments_are_not_held() {
    let third = vec![7; 15 << 20];
    let sent = [
        fragment(false, BINARY, &third),
        fragment(false, CONTINUATION, &third),
        fragment(false, CONTINUATION, &third),
    ]
    .concat();
    let node = node().await;
    let rows = [raw("W57", sent, Closed)];
    check_growth(&node, &rows, 5, 8 << 20).await;
    node.finish().await;
}

/// The same message, one byte at a time: nothing depends on how bytes arrive.
#[tokio::test]
async fn a_message_may_arrive_byte_by_byte() {
    let node = node().await;
    let mut ws = Ws::connect(node.public).await;
    for byte in text(r#"42["a","ü"]"#) {
        assert!(ws.write(&[byte]).await);
    }
    assert_eq!(ws.text().await, r#"42["a","ü"]"#);
    node.finish().await;
}
