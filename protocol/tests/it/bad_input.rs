//! The corpus of bad and borderline input: each row names what a client sends and what becomes of it.
//!
//! The row numbers are those of the project's corpus of WebSocket (W) and msgpack (M) input; the tests on a
//! running node use the same ones. Rows that need a session to be decided are not here.

use std::borrow::Cow;

use protocol::{
    engine, frame,
    msgpack::{TranscodeError, decode_packet},
    socket::{self, Event, Packet, PacketKind},
};

const ATTACHMENTS_MAX: usize = 10;

/// What the layers up to the event's name and arguments make of one WebSocket text message.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// An event or acknowledgement with its name or its number of arguments.
    Delivered(String),
    /// A packet that only a session can judge.
    Passed(PacketKind),
    /// An Engine.IO packet that is no message.
    Engine,
    /// Refused with this error kind: the connection closes.
    Closed(&'static str),
}

fn outcome(text: &str) -> Outcome {
    let message = match engine::Packet::parse_text(text) {
        Ok(engine::Packet::Message(message)) => message,
        Ok(_) => return Outcome::Engine,
        Err(error) => return Outcome::Closed(error.kind()),
    };
    decide(message).unwrap_or_else(|error| Outcome::Closed(error.kind()))
}

fn decide(message: &str) -> Result<Outcome, socket::PacketError> {
    let packet = Packet::parse(message, ATTACHMENTS_MAX)?;
    if packet.kind.is_binary() {
        socket::check_placeholders(packet.data, packet.attachments)?;
    }
    Ok(match packet.kind {
        PacketKind::Event | PacketKind::BinaryEvent => {
            Outcome::Delivered(Event::parse(packet.data)?.name.into_owned())
        }
        PacketKind::Ack | PacketKind::BinaryAck => {
            Outcome::Delivered(format!("{} arguments", socket::parse_args(packet.data)?.len()))
        }
        PacketKind::Connect => {
            socket::parse_auth(packet.data)?;
            Outcome::Passed(packet.kind)
        }
        kind => Outcome::Passed(kind),
    })
}

fn delivered(what: &str) -> Outcome {
    Outcome::Delivered(what.to_owned())
}

#[test]
fn text_messages_come_out_as_listed() {
    use Outcome::{Closed, Engine, Passed};

    let nested = |depth: usize| format!(r#"42["a",{}{}]"#, "[".repeat(depth), "]".repeat(depth));
    let rows: &[(&str, Cow<'_, str>, Outcome)] = &[
        ("W1", r#"42["a\"b",1]"#.into(), delivered("a\"b")),
        ("W2", r#"42["\u00e9",1]"#.into(), delivered("é")),
        ("W3", r#"42["a\nb",1]"#.into(), delivered("a\nb")),
        ("W4", "42[1,2]".into(), delivered("1")),
        ("W4 as a float", "42[1.0]".into(), delivered("1")),
        ("W4 with an exponent", "42[1e3]".into(), delivered("1000")),
        ("W5", r#"42["a",1]xyz"#.into(), Closed("invalid_data")),
        ("W6", r#"42["a",1],"evil"]"#.into(), Closed("invalid_data")),
        ("W7", "42[]".into(), Closed("invalid_data")),
        ("W8", r#"42{"a":1}"#.into(), Closed("invalid_data")),
        ("W9", "42[null]".into(), Closed("invalid_name")),
        ("W10", r#"42[{"toString":"x"}]"#.into(), Closed("invalid_name")),
        ("W11", "42".into(), Closed("invalid_data")),
        ("W12", "42123".into(), Closed("invalid_data")),
        ("W13", r#"42["disconnect",1]"#.into(), Closed("reserved_name")),
        ("W14", r#"42["connect"]"#.into(), Closed("reserved_name")),
        ("W14 error", r#"42["connect_error"]"#.into(), Closed("reserved_name")),
        ("W14 leaving", r#"42["disconnecting"]"#.into(), Closed("reserved_name")),
        ("W14 listener", r#"42["newListener"]"#.into(), Closed("reserved_name")),
        ("W14 removal", r#"42["removeListener"]"#.into(), Closed("reserved_name")),
        ("W14 escaped", r#"42["\u0063onnect"]"#.into(), Closed("reserved_name")),
        ("W15", nested(200).into(), Closed("too_deep")),
        ("W15 at the limit", nested(63).into(), delivered("a")),
        ("W15 above the limit", nested(64).into(), Closed("too_deep")),
        ("W16", nested(100_000).into(), Closed("too_deep")),
        ("W17", "40".into(), Passed(PacketKind::Connect)),
        ("W18", r#"42/nope,["a"]"#.into(), delivered("a")),
        ("W21", r#"44{"message":"x"}"#.into(), Passed(PacketKind::ConnectError)),
        ("W22", r#"41["x"]"#.into(), Closed("invalid_data")),
        ("W23", "43999[]".into(), delivered("0 arguments")),
        ("W24", "43[]".into(), Closed("invalid_id")),
        ("W25", "4399999999999999999999[]".into(), Closed("invalid_id")),
        ("W26", r#"4299999999999999999999["a",1]"#.into(), Closed("invalid_id")),
        (
            "W27",
            r#"45-1-["a",{"_placeholder":true,"num":0}]"#.into(),
            Closed("invalid_attachments"),
        ),
        ("W28", r#"450-["a"]"#.into(), Closed("invalid_attachments")),
        ("W29", r#"4510001-["a"]"#.into(), Closed("too_many_attachments")),
        ("W30", r#"4511-["a"]"#.into(), Closed("too_many_attachments")),
        ("W31", r#"451.5-["a"]"#.into(), Closed("invalid_attachments")),
        ("W31 without", r#"451["a"]"#.into(), Closed("invalid_attachments")),
        ("W31 a letter", r#"45x-["a"]"#.into(), Closed("invalid_attachments")),
        ("W32", r#"459999-["a"]"#.into(), Closed("too_many_attachments")),
        ("W35", r#"451-["a",{"_placeholder":true,"num":0}]"#.into(), delivered("a")),
        (
            "W36",
            r#"451-["a",{"_placeholder":true,"num":99}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        (
            "W36 negative",
            r#"451-["a",{"_placeholder":true,"num":-1}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        (
            "W36 text",
            r#"451-["a",{"_placeholder":true,"num":"0"}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        (
            "W36 name",
            r#"451-["a",{"_placeholder":true,"num":"splice"}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        (
            "W36 fraction",
            r#"451-["a",{"_placeholder":true,"num":0.5}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        (
            "W36 twice",
            r#"451-["a",{"_placeholder":true,"num":0,"num":1}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        ("W36 missing", r#"451-["a",{"_placeholder":true}]"#.into(), Closed("invalid_placeholder")),
        (
            "W36 escaped",
            r#"451-["a",{"\u005fplaceholder":true,"num":9}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        (
            "W37",
            r#"452-["a",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#.into(),
            delivered("a"),
        ),
        (
            "W38",
            r#"451-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#.into(),
            Closed("invalid_placeholder"),
        ),
        ("W39", r#"42["a",{"_placeholder":true,"num":0}]"#.into(), delivered("a")),
        ("W40", "47".into(), Closed("unknown_kind")),
        ("W40 nine", r#"49["a"]"#.into(), Closed("unknown_kind")),
        ("W40 nothing", "4".into(), Closed("unknown_kind")),
        ("W40 zero byte", "4\x002".into(), Closed("unknown_kind")),
        ("W41", r#"42["a","\ud800"]"#.into(), delivered("a")),
        ("W41 as the name", r#"42["\ud800"]"#.into(), delivered("\u{fffd}")),
        ("W42", r#"42["a","\x"]"#.into(), Closed("invalid_data")),
        ("W42 NaN", r#"42["a",NaN]"#.into(), Closed("invalid_data")),
        ("W42 infinite", r#"42["a",1e999]"#.into(), Closed("number_range")),
        (
            "W42 infinite and long",
            format!(r#"42["a",{}]"#, "9".repeat(400)).into(),
            Closed("number_range"),
        ),
        ("W42 exponent", r#"42["a",1e5,-1.5E-7]"#.into(), delivered("a")),
        ("W42 digits", format!(r#"42["a",{}]"#, "9".repeat(308)).into(), delivered("a")),
        ("W42 raw control", "42[\"a\",\"\u{1}\"]".into(), Closed("invalid_data")),
        ("W43", "\u{feff}42[\"a\"]".into(), Closed("unknown_type")),
        ("W44", "".into(), Closed("empty")),
        ("W45", "zzz".into(), Closed("unknown_type")),
        ("W45 wide", "é".into(), Closed("unknown_type")),
        ("W45 wide and long", "éabcd".into(), Closed("unknown_type")),
        ("W46", "2".into(), Engine),
        ("W47", "3x".into(), Engine),
        ("W48", "0{}".into(), Engine),
        ("W48 upgrade", "5".into(), Engine),
        ("W48 noop", "6".into(), Engine),
        ("W49", "1".into(), Engine),
        ("W50", "bAQID".into(), Closed("unexpected_binary")),
        ("W50 garbage", "b!!!!".into(), Closed("unexpected_binary")),
        ("W51", "2probe".into(), Engine),
        ("W51 answer", "3probe".into(), Engine),
        ("W59", "40[]".into(), Closed("invalid_data")),
        ("W59 text", r#"40"x""#.into(), Closed("invalid_data")),
        ("W59 open", "40{".into(), Closed("invalid_data")),
        (
            "W59 object",
            format!(r#"40{{"token":"{}"}}"#, "x".repeat(900_000)).into(),
            Passed(PacketKind::Connect),
        ),
        ("W60", "40/ns?x=1,".into(), Passed(PacketKind::Connect)),
        ("W60 slashes", "40//,".into(), Passed(PacketKind::Connect)),
        ("W60 long", format!("40/{}", "a".repeat(5000)).into(), Passed(PacketKind::Connect)),
        ("W60 hash", "40/a#b,".into(), Passed(PacketKind::Connect)),
        ("W60 star", "40/*,".into(), Passed(PacketKind::Connect)),
        ("W60 control", "40/a\u{1e}b,".into(), Closed("invalid_namespace")),
    ];
    let wrong: Vec<_> = rows
        .iter()
        .map(|(row, text, expected)| (row, outcome(text), expected))
        .filter(|(_, got, expected)| got != *expected)
        .collect();
    assert!(wrong.is_empty(), "row, got, expected: {wrong:#?}");
}

#[test]
fn frame_headers_come_out_as_listed() {
    use frame::FrameError::{
        FragmentedControl, InvalidClose, InvalidLength, LongControl, ReservedBits, UnknownOpcode,
    };

    let header = |bytes: &[u8]| frame::parse_header(bytes).map(|header| header.is_some());
    let close = |bytes: &[u8]| frame::close_code(bytes).map(|_| true);
    let mut long_reason = vec![3, 0xe8];
    long_reason.extend_from_slice(&[0xff; 124]);
    let rows = [
        ("W53 unmasked", header(&[0x81, 0x01]), Ok(true)),
        ("W53 reserved bit", header(&[0xc1]), Err(ReservedBits)),
        ("W53 opcode 3", header(&[0x83]), Err(UnknownOpcode)),
        ("W53 fragmented ping", header(&[0x09]), Err(FragmentedControl)),
        ("W53 ping of 126 bytes", header(&[0x89, 0xfe]), Err(LongControl)),
        ("W54 one byte", close(&[3]), Err(InvalidClose)),
        ("W54 code 1005", close(&1005_u16.to_be_bytes()), Err(InvalidClose)),
        ("W54 code 65535", close(&65535_u16.to_be_bytes()), Err(InvalidClose)),
        ("W54 long reason", close(&long_reason), Err(InvalidClose)),
        ("W54 reason", close(&[3, 0xe8, 0xff]), Err(InvalidClose)),
        ("W55 2^63", header(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(InvalidLength)),
        ("W55 17 MiB", header(&[0x82, 0x7f, 0, 0, 0, 0, 1, 0x10, 0, 0]), Ok(true)),
        ("W55 64 bits for 5", header(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5]), Err(InvalidLength)),
        ("W55 16 bits for 5", header(&[0x82, 0xfe, 0, 5]), Err(InvalidLength)),
    ];
    for (row, got, expected) in rows {
        assert_eq!(got, expected, "{row}");
    }
}

/// A map of these entries, given as the bytes of its values.
fn packet(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0x80 | u8::try_from(entries.len()).expect("at most 15 entries")];
    for (key, value) in entries {
        bytes.push(0xa0 | u8::try_from(key.len()).expect("a short key"));
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

#[test]
fn msgpack_packets_come_out_as_listed() {
    const NSP: (&str, &[u8]) = ("nsp", b"\xa1/");
    const EVENT: (&str, &[u8]) = ("type", &[2]);
    const DATA: (&str, &[u8]) = ("data", b"\x91\xa1a");

    let nested = |depth: usize| {
        let mut data = b"\x92\xa1a".to_vec();
        data.resize(data.len() + depth, 0x91);
        data.push(0xc0);
        data
    };
    let whole = packet(&[EVENT, DATA, NSP]);
    let mut trailing = whole.clone();
    trailing.push(0xc0);
    let mut many_keys = vec![0xde, 0, 21];
    for key in 0..21 {
        many_keys.extend_from_slice(&[0xa1, b'a' + key, 0xc0]);
    }
    let rows: &[(&str, Vec<u8>, Result<(), &str>)] = &[
        ("an event", whole, Ok(())),
        (
            "the id as a float",
            packet(&[EVENT, DATA, NSP, ("id", &[0xcb, 0x40, 0, 0, 0, 0, 0, 0, 0])]),
            Ok(()),
        ),
        (
            "an unknown key",
            packet(&[EVENT, DATA, NSP, ("options", b"\x81\xa8compress\xc3")]),
            Ok(()),
        ),
        ("M1", vec![0x80], Err("invalid_packet")),
        ("M2", vec![0xdf, 0xff, 0xff, 0xff, 0xff], Err("invalid_packet")),
        ("M3", many_keys, Err("invalid_packet")),
        ("M4", packet(&[("type", &[0xcc])]), Err("truncated")),
        ("M5 63", packet(&[EVENT, ("data", &nested(63)), NSP]), Ok(())),
        ("M5 64", packet(&[EVENT, ("data", &nested(64)), NSP]), Err("too_deep")),
        ("M5 127", packet(&[EVENT, ("data", &nested(127)), NSP]), Err("too_deep")),
        ("M5 unknown key", packet(&[EVENT, DATA, NSP, ("x", &nested(100_000))]), Err("too_deep")),
        ("M6", packet(&[EVENT, ("data", &[0xdb, 0xff, 0xff, 0xff, 0xff])]), Err("truncated")),
        ("M6 array", packet(&[EVENT, ("data", &[0xdd, 0xff, 0xff, 0xff, 0xff])]), Err("truncated")),
        ("M7", packet(&[EVENT, DATA, NSP, ("id", &[])]), Err("truncated")),
        ("M8 -1", packet(&[EVENT, DATA, NSP, ("id", &[0xff])]), Err("invalid_packet")),
        (
            "M8 2^64",
            packet(&[EVENT, DATA, NSP, ("id", &[0xcb, 0x43, 0xf0, 0, 0, 0, 0, 0, 0])]),
            Err("invalid_packet"),
        ),
        ("M8 nil", packet(&[EVENT, DATA, NSP, ("id", &[0xc0])]), Err("invalid_packet")),
        ("M9", packet(&[EVENT, EVENT, DATA, NSP]), Err("invalid_packet")),
        ("M10", packet(&[EVENT, DATA]), Err("invalid_packet")),
        ("M11", packet(&[EVENT, DATA, ("nsp", &[0xa2, b'/', 0xff])]), Err("invalid_utf8")),
        ("M11 no slash", packet(&[EVENT, DATA, ("nsp", b"\xa1a")]), Err("invalid_packet")),
        ("M12 ext8", packet(&[("type", &[0xc7, 1, 2, 2])]), Err("invalid_packet")),
        ("M12 ext16", packet(&[("nsp", &[0xc8, 0, 1, 2, b'/'])]), Err("invalid_packet")),
        ("M12 ext32", packet(&[("id", &[0xc9, 0xff, 0xff, 0xff, 0xff, 0])]), Err("truncated")),
        ("M13", br#"2["a"]"#.to_vec(), Err("invalid_packet")),
        ("M14", packet(&[("type", &[4]), NSP, ("id", &[1])]), Err("invalid_packet")),
        ("M14 event", packet(&[EVENT, ("data", b"\xa1a"), NSP]), Err("invalid_packet")),
        ("M14 kind 5", packet(&[("type", &[5]), DATA, NSP]), Err("invalid_packet")),
        (
            "M14 binary auth",
            packet(&[("type", &[0]), ("data", b"\x81\xa1a\xc4\0"), NSP]),
            Err("invalid_packet"),
        ),
        ("M15", trailing, Err("trailing_bytes")),
        ("nothing", vec![], Err("truncated")),
        ("c1", vec![0xc1], Err("unknown_marker")),
    ];
    for (row, bytes, expected) in rows {
        let got = decode_packet(bytes, ATTACHMENTS_MAX).map(drop).map_err(TranscodeError::kind);
        assert_eq!(got, *expected, "{row}");
    }
}
