//! JSON to MessagePack, back, and client packets.

use bytes::Bytes;
use protocol::{
    DEPTH_MAX, MESSAGE_DEPTH_MAX,
    msgpack::{
        TranscodeError, decode_packet, encode_packet, json_to_msgpack, msgpack_to_json, value_len,
    },
    socket::PacketKind,
};

fn encode(json: &str, attachments: &[Bytes]) -> Result<Vec<u8>, TranscodeError> {
    let mut out = b"before".to_vec();
    let result = json_to_msgpack(&mut out, json, attachments);
    assert!(out.starts_with(b"before"));
    if result.is_err() {
        assert_eq!(out.len(), 6, "an error leaves nothing behind");
    }
    result.map(|()| out.split_off(6))
}

fn decode(bytes: &[u8]) -> Result<String, TranscodeError> {
    msgpack_to_json(bytes, 10).map(|decoded| {
        assert_eq!(decoded.consumed, bytes.len());
        assert_eq!(value_len(bytes), Ok(bytes.len()));
        decoded.json
    })
}

#[test]
fn numbers_are_encoded_as_javascript_means_them() {
    let rows: &[(&str, &[u8])] = &[
        ("2.0", &[2]),
        ("1e3", &[0xcd, 3, 0xe8]),
        ("-0", &[0]),
        ("-0.0", &[0]),
        ("-1e0", &[0xff]),
        ("-33", &[0xd0, 0xdf]),
        ("18446744073709551615", &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("18446744073709551616", &[0xcb, 0x43, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("-9223372036854775808", &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("-9223372036854775809", &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("-1e19", &[0xcb, 0xc3, 0xe1, 0x58, 0xe4, 0x60, 0x91, 0x3d, 0]),
        ("0.5", &[0xcb, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0]),
    ];
    for (json, bytes) in rows {
        assert_eq!(encode(json, &[]).as_deref(), Ok(*bytes), "{json}");
    }
}

#[test]
fn numbers_are_printed_as_javascript_prints_them() {
    let float = |number: f64| [&[0xcb][..], &number.to_be_bytes()].concat();
    let rows = [
        (float(2.0), "2"),
        (float(-0.0), "0"),
        (float(1e20), "100000000000000000000"),
        (float(1e21), "1e+21"),
        (float(-1.5e300), "-1.5e+300"),
        (float(1e-6), "0.000001"),
        (float(1.5e-7), "1.5e-7"),
        (float(0.1), "0.1"),
        (float(f64::NAN), "null"),
        (float(f64::NEG_INFINITY), "null"),
        ([&[0xca][..], &0.1_f32.to_be_bytes()].concat(), "0.10000000149011612"),
        ([&[0xcf][..], &u64::MAX.to_be_bytes()].concat(), "18446744073709551615"),
        ([&[0xd3][..], &i64::MIN.to_be_bytes()].concat(), "-9223372036854775808"),
    ];
    for (bytes, json) in rows {
        assert_eq!(decode(&bytes).as_deref(), Ok(json));
    }
}

#[test]
fn escapes_are_resolved() {
    let rows = [
        (r#""a\"\\\/\b\f\n\r\tz""#, "a\"\\/\u{8}\u{c}\n\r\tz"),
        (r#""\u00e9\u20AC""#, "é€"),
        (r#""\ud83d\ude00!""#, "😀!"),
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83dx\u0041""#, "\u{fffd}xA"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83dé""#, "\u{fffd}é"),
    ];
    for (json, text) in rows {
        let bytes = encode(json, &[]).expect("a right string");
        assert_eq!(&bytes[1..], text.as_bytes(), "{json}");
    }
    assert_eq!(encode(r#"{"\u0061":1}"#, &[]).as_deref(), Ok(&[0x81, 0xa1, b'a', 1][..]));
    let control = decode(b"\xa5\x00\x1f\"\\\n").expect("a right string");
    assert_eq!(control, r#""\u0000\u001f\"\\\n""#);
}

#[test]
fn wrong_json_is_refused() {
    let deep = "[".repeat(DEPTH_MAX + 1);
    for json in [
        "",
        " ",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{1:1}",
        "{a:1}",
        "01",
        "1.",
        ".1",
        "1e",
        "1e+",
        "-",
        "+1",
        "0x1",
        "nul",
        "nulll",
        "True",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "1 2",
        "[1}",
        "{\"a\":1]",
        "\u{feff}1",
    ] {
        assert_eq!(encode(json, &[]), Err(TranscodeError::InvalidJson), "{json}");
    }
    assert_eq!(encode(&deep, &[]), Err(TranscodeError::TooDeep));
    assert_eq!(encode("[1e999]", &[]), Err(TranscodeError::NumberRange));
}

#[test]
fn headers_have_the_size_of_their_counts() {
    for count in [0, 1, 15, 16, 65_535, 65_536] {
        let array = format!("[{}]", vec!["1"; count].join(","));
        let entries: Vec<String> = (0..count).map(|key| format!("\"{key}\":0")).collect();
        let map = format!("{{{}}}", entries.join(","));
        for json in [array, map] {
            let bytes = encode(&json, &[]).expect("right JSON");
            let expected = match count {
                0..16 => 1,
                16..65_536 => 3,
                _ => 5,
            };
            let minimal = rmp_header_len(bytes[0]);
            assert_eq!(minimal, expected, "{count} elements");
            assert_eq!(decode(&bytes).as_deref(), Ok(json.as_str()));
        }
    }
}

fn rmp_header_len(first: u8) -> usize {
    match first {
        0x80..=0x9f => 1,
        0xdc | 0xde => 3,
        0xdd | 0xdf => 5,
        other => panic!("{other:x} starts neither an array nor a map"),
    }
}

#[test]
fn binaries_go_inline_and_come_out_numbered() {
    let attachments = [Bytes::from_static(b"\x01"), Bytes::from(vec![7; 300])];
    let json = r#"["a",{"_placeholder":true,"num":1},{"b":{"num":0,"_placeholder":true}}]"#;
    let bytes = encode(json, &attachments).expect("each attachment once");
    let decoded = msgpack_to_json(&bytes, 2).expect("what was encoded");
    assert_eq!(
        decoded.json,
        r#"["a",{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1}}]"#
    );
    assert_eq!(decoded.attachments, [attachments[1].clone(), attachments[0].clone()]);
    assert_eq!(msgpack_to_json(&bytes, 1), Err(TranscodeError::TooManyAttachments));
}

#[test]
fn an_attachment_is_never_multiplied_nor_missing() {
    let attachments = [Bytes::from_static(b"\x01")];
    for json in [
        r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
        r#"[{"_placeholder":true,"num":1}]"#,
        r#"[{"_placeholder":true,"num":"0"}]"#,
        r#"[{"_placeholder":true}]"#,
    ] {
        assert_eq!(encode(json, &attachments), Err(TranscodeError::InvalidPlaceholder), "{json}");
    }
    // Without attachments it is an object that happens to look like one.
    let json = r#"[{"_placeholder":true,"num":1}]"#;
    let bytes = encode(json, &[]).expect("an ordinary object");
    assert_eq!(decode(&bytes).as_deref(), Ok(json));
}

#[test]
fn a_literal_placeholder_next_to_a_binary_is_refused() {
    let literal = encode(r#"{"_placeholder":true,"num":9}"#, &[]).expect("an ordinary object");
    let mut both = vec![0x92];
    both.extend_from_slice(&literal);
    both.extend_from_slice(&[0xc4, 1, 1]);
    assert_eq!(decode(&both), Err(TranscodeError::InvalidPlaceholder));
}

#[test]
fn extensions_read_as_node_reads_them() {
    let rows: &[(&[u8], &str)] = &[
        (&[0xd4, 0, 0], "null"),
        (&[0xd7, 0, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0x7b], r#""2023-11-14T22:13:20.123Z""#),
        (&[0xc7, 2, 0, 1, 2], r#"{"_placeholder":true,"num":0}"#),
        (&[0xd5, 5, 1, 2], r#"[5,{"_placeholder":true,"num":0}]"#),
        (&[0xd4, 0xff, 1], r#"[-1,{"_placeholder":true,"num":0}]"#),
        (&[0xd6, 0xff, 0, 0, 0, 0], r#""1970-01-01T00:00:00.000Z""#),
        (&[0xd6, 0xff, 255, 255, 255, 255], r#""2106-02-07T06:28:15.000Z""#),
        (&[0xc7, 12, 0xff, 0, 0, 0, 0, 127, 255, 255, 255, 255, 255, 255, 255], "null"),
        (&[0xd7, 0, 0, 0x1e, 0xb2, 0x08, 0xc2, 0xdc, 0, 0], r#""+275760-09-13T00:00:00.000Z""#),
        (
            &[0xd7, 0, 0xff, 0xff, 0xc7, 0x75, 0x90, 0xfb, 0x9e, 0],
            r#""-000001-12-31T23:59:59.488Z""#,
        ),
        (&[0xd7, 0, 0, 0, 0, 0xdd, 0x9a, 0xa6, 0xe0, 0], r#""2000-02-29T00:00:00.000Z""#),
        (&[0xd7, 0, 0xff, 0xff, 0xfd, 0xfe, 0xd8, 0xb2, 0xb4, 0], r#""1900-02-28T00:00:00.000Z""#),
        (&[0xd7, 0, 0, 0, 3, 0xbc, 0x5c, 0x9b, 0x0c, 0], r#""2100-03-01T00:00:00.000Z""#),
        (&[0xd7, 0, 0xff, 0xe1, 0x4d, 0xf7, 0x3d, 0x24, 0, 0], r#""-271821-04-20T00:00:00.000Z""#),
    ];
    for (bytes, json) in rows {
        assert_eq!(decode(bytes).as_deref(), Ok(*json), "{bytes:x?}");
    }
}

#[test]
fn keys_are_strings_or_integers() {
    assert_eq!(decode(b"\x82\x01\xc0\xff\xc3").as_deref(), Ok(r#"{"1":null,"-1":true}"#));
    for bytes in [&b"\x81\xc0\xc0"[..], b"\x81\xc4\x01a\xc0", b"\x81\x90\xc0", b"\x81\xc3\xc0"] {
        assert_eq!(decode(bytes), Err(TranscodeError::InvalidKey), "{bytes:x?}");
    }
}

#[test]
fn announced_lengths_are_not_believed() {
    for bytes in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffabc",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdc\xff\xff\xc0",
        b"\xd9",
        b"",
    ] {
        assert_eq!(msgpack_to_json(bytes, 10), Err(TranscodeError::Truncated), "{bytes:x?}");
        assert_eq!(value_len(bytes), Err(TranscodeError::Truncated), "{bytes:x?}");
    }
    assert_eq!(decode(&[0xc1]), Err(TranscodeError::UnknownMarker));
    assert_eq!(decode(&[0xa1, 0xff]), Err(TranscodeError::InvalidUtf8));
}

#[test]
fn nesting_has_the_same_limit_in_both_directions() {
    // A binary is one level deeper, because it becomes an object.
    for (depth, is_legal) in [(DEPTH_MAX - 1, true), (DEPTH_MAX, false)] {
        let mut bytes = vec![0x91; depth];
        bytes.extend_from_slice(&[0xc4, 1, 1]);
        assert_eq!(decode(&bytes).is_ok(), is_legal, "{depth}");
    }
    for (depth, is_legal) in [
        (DEPTH_MAX, true),
        (DEPTH_MAX + 1, false),
        (MESSAGE_DEPTH_MAX + 1, false),
        (100_000, false),
    ] {
        let mut bytes = vec![0x91; depth];
        bytes.push(0xc0);
        assert_eq!(decode(&bytes).is_ok(), is_legal, "{depth}");
        assert_eq!(value_len(&bytes).is_ok(), depth <= MESSAGE_DEPTH_MAX, "{depth}");
        let json = format!("{}null{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(encode(&json, &[]).is_ok(), is_legal, "{depth}");
    }
}

#[test]
fn a_client_packet_reads_back() {
    let attachments = [Bytes::from_static(b"\x01\x02")];
    let json = r#"["a",{"_placeholder":true,"num":0}]"#;
    let mut bytes = Vec::new();
    encode_packet(&mut bytes, PacketKind::BinaryEvent, "/admin", Some(300), json, &attachments)
        .expect("right data");
    let packet = decode_packet(&bytes, 10).expect("what was encoded");
    assert_eq!(packet.kind, PacketKind::BinaryEvent);
    assert_eq!((packet.namespace, packet.id), ("/admin", Some(300)));
    assert_eq!((&*packet.data.json, &packet.data.attachments[..]), (json, &attachments[..]));
    assert_eq!(packet.as_packet().attachments, 1);

    bytes.clear();
    encode_packet(&mut bytes, PacketKind::Disconnect, "/", None, "", &[]).expect("no data");
    assert_eq!(bytes, b"\x82\xa4type\x01\xa3nsp\xa1/");
    let packet = decode_packet(&bytes, 10).expect("what was encoded");
    assert_eq!((packet.kind, &*packet.data.json), (PacketKind::Disconnect, ""));

    bytes.clear();
    let wrong = encode_packet(&mut bytes, PacketKind::Event, "/", None, "[", &[]);
    assert_eq!((wrong, bytes.len()), (Err(TranscodeError::InvalidJson), 0));
}

/// As `socket.io-msgpack-parser` writes it: `auth` is `undefined`, an extension in notepack's form.
#[test]
fn a_connect_without_auth_has_no_data() {
    let bytes = b"\x83\xa4type\x00\xa4data\xd4\x00\x00\xa3nsp\xa1/";
    let packet = decode_packet(bytes, 10).expect("a packet");
    assert_eq!((packet.kind, &*packet.data.json), (PacketKind::Connect, ""));
}
