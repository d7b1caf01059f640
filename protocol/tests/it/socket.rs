//! Socket.IO packets, event arguments and placeholders.

use bytes::Bytes;
use protocol::socket::{
    Event, Packet, PacketError, PacketKind, check_placeholders, encode_packet, inline_buffers,
    parse_args, parse_auth, renumber,
};

fn attachments(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

#[test]
fn a_packet_names_its_parts() {
    let packet = Packet::parse("52-/admin?x=1,7[\"a\"]", 10).expect("a right packet");
    let expected = Packet {
        kind: PacketKind::BinaryEvent,
        attachments: 2,
        namespace: "/admin?x=1",
        id: Some(7),
        data: "[\"a\"]",
    };
    assert_eq!(packet, expected);
    let mut text = String::new();
    encode_packet(&mut text, packet.kind, 2, packet.namespace, packet.id, packet.data);
    assert_eq!(text, "52-/admin?x=1,7[\"a\"]");

    let connect = Packet::parse("0/admin", 10).expect("a right packet");
    assert_eq!((connect.namespace, connect.data), ("/admin", ""));
    assert_eq!(Packet::parse("0", 10).map(|packet| packet.namespace), Ok("/"));
}

#[test]
fn ids_go_up_to_what_javascript_counts_exactly() {
    let parse = |text| Packet::parse(text, 10).map(|packet| packet.id);
    assert_eq!(parse("20[\"a\"]"), Ok(Some(0)));
    assert_eq!(parse("29007199254740991[\"a\"]"), Ok(Some((1 << 53) - 1)));
    assert_eq!(parse("29007199254740992[\"a\"]"), Err(PacketError::InvalidId));
    assert_eq!(parse("05{}"), Err(PacketError::InvalidId));
    assert_eq!(parse("2 [\"a\"]"), Err(PacketError::InvalidData));
}

#[test]
fn an_event_gives_its_arguments_as_they_were_written() {
    let event =
        Event::parse("[\"say\" , 1.50,{\"b\":1, \"a\":[2]}, \"\\u00e9\"] ").expect("an event");
    let args: Vec<&str> = event.args.iter().map(|arg| arg.get()).collect();
    assert_eq!(event.name, "say");
    assert_eq!(args, ["1.50", "{\"b\":1, \"a\":[2]}", "\"\\u00e9\""]);
    assert_eq!(parse_args("[]").map(|args| args.len()), Ok(0));
    assert_eq!(parse_args("[1]]").err(), Some(PacketError::InvalidData));
}

#[test]
fn brackets_inside_of_strings_are_no_depth() {
    let text = format!("[\"a\",\"{}\",\"1e999\"]", "[{".repeat(1000));
    assert!(Event::parse(&text).is_ok());
    let wide = format!("[\"a\"{}]", ",[]".repeat(1000));
    assert!(Event::parse(&wide).is_ok());
}

#[test]
fn numbers_out_of_range_are_found_anywhere() {
    for filler in [0, 10, 250, 251, 255, 256, 300, 511, 512, 5000] {
        let fill = "x".repeat(filler);
        for number in ["1e999".to_owned(), "-1E+400".to_owned(), "7".repeat(310)] {
            let text = format!("[\"{fill}\",{number}]");
            assert_eq!(Event::parse(&text).err(), Some(PacketError::NumberRange), "{text}");
        }
        let text = format!("[\"{fill}\",{}]", "7".repeat(300));
        assert!(Event::parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn auth_is_an_object_or_nothing() {
    assert_eq!(parse_auth("").map(|auth| auth.is_none()), Ok(true));
    let auth = parse_auth("{\"token\":\"x\"}").expect("an object").expect("not nothing");
    assert_eq!(auth.get(), "{\"token\":\"x\"}");
    for data in ["[]", "null", "\"x\"", "{", "{}x", "1"] {
        assert_eq!(parse_auth(data).err(), Some(PacketError::InvalidData), "{data}");
    }
}

#[test]
fn renumber_keeps_only_what_the_text_refers_to() {
    let json = r#"["a",{"num":2,"_placeholder":true},{"x":[{"_placeholder":true,"num":0}]},1]"#;
    let data = renumber(json, &attachments(&["zero", "one", "two"]));
    assert_eq!(
        &*data.json,
        r#"["a",{"_placeholder":true,"num":0},{"x":[{"_placeholder":true,"num":1}]},1]"#
    );
    assert_eq!(data.attachments, attachments(&["two", "zero"]));
    assert_eq!(check_placeholders(&data.json, 2), Ok(()));
}

#[test]
fn renumber_leaves_nothing_that_a_receiver_could_stumble_over() {
    let json = r#"[{"_placeholder":true,"num":9},{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#;
    let data = renumber(json, &attachments(&["zero"]));
    assert_eq!(
        &*data.json,
        r#"[null,{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#
    );
    assert_eq!(data.attachments, attachments(&["zero", "zero"]));

    let nested = r#"[{"_placeholder":true,"num":0,"x":{"_placeholder":true,"num":1}}]"#;
    let data = renumber(nested, &attachments(&["zero", "one"]));
    assert_eq!(&*data.json, r#"[{"_placeholder":true,"num":0}]"#);
    assert_eq!(data.attachments, attachments(&["zero"]));
}

#[test]
fn without_attachments_a_placeholder_is_an_object_like_any_other() {
    let json = r#"["a",{"_placeholder":true,"num":5}]"#;
    let data = renumber(json, &[]);
    assert_eq!((&*data.json, data.attachments.len()), (json, 0));
}

#[test]
fn placeholders_are_what_javascript_takes_for_them() {
    let check = |text: &str| check_placeholders(text, 1);
    for text in [
        r#"[{"_placeholder":true,"num":0}]"#,
        r#"[{"_placeholder":true,"num":0.0}]"#,
        r#"[{"_placeholder":true,"num":-0}]"#,
        r#"[{"_placeholder":true,"num":0e5}]"#,
        r#"[{"_placeholder":true,"num":9,"num":0}]"#,
        r#"[{"_placeholder":"true","num":9}]"#,
        r#"[{"_placeholder":true,"_placeholder":false,"num":9}]"#,
        r#"["_placeholder",{"num":9}]"#,
        "[]",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
    for text in [
        r#"[{"_placeholder":true,"num":1}]"#,
        r#"[{"_placeholder":false,"_placeholder":true,"num":9}]"#,
        r#"[{"_placeholder":true,"num":4294967296}]"#,
        r#"[{"_placeholder":true,"num":[0]}]"#,
    ] {
        assert_eq!(check(text), Err(PacketError::InvalidPlaceholder), "{text}");
    }
}

#[test]
fn binaries_in_json_look_as_those_of_node() {
    let inlined = |json: &str, texts: &[&'static str]| inline_buffers(json, &attachments(texts));
    let json = r#"["a",{"_placeholder":true,"num":1},{"x":{"num":0,"_placeholder":true}}]"#;
    let expected = r#"["a",{"type":"Buffer","data":[49,48]},{"x":{"type":"Buffer","data":[]}}]"#;
    assert_eq!(inlined(json, &["", "10"]).as_deref(), Ok(expected));
    // Without binaries a placeholder is an object like any other.
    assert_eq!(inlined(json, &[]).as_deref(), Ok(json));
    // One binary many times would make a huge text out of a small one.
    for wrong in [
        r#"[{"_placeholder":true,"num":2}]"#,
        r#"[{"_placeholder":true}]"#,
        r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
    ] {
        assert_eq!(inlined(wrong, &["", "10"]), Err(PacketError::InvalidPlaceholder), "{wrong}");
    }
    assert_eq!(inlined("[", &[""]), Err(PacketError::InvalidData));
}
