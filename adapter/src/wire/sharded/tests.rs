use super::*;
use crate::{ClientAnswer, RoomName, SocketDetail};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

fn event(json: &str, n_attachments: usize) -> EventData {
    EventData { json: json.into(), attachments: vec![Bytes::from_static(b"x"); n_attachments] }
}

const WITH_BINARY: &str = r#"["a",{"_placeholder":true,"num":0}]"#;

fn rooms(names: &[&str]) -> Vec<RoomName> {
    names.iter().map(|name| RoomName::from(*name)).collect()
}

fn select(names: &[&str], except: &[&str]) -> Selection {
    Selection { rooms: rooms(names), except: rooms(except) }
}

fn text(payload: Vec<u8>) -> String {
    String::from_utf8(payload).expect("JSON")
}

fn enveloped(kind: u64, data: &str) -> String {
    format!(r#"{{"type":{kind},"data":{data},"uid":"me","nsp":"/"}}"#)
}

fn read(payload: &[u8]) -> Message {
    decode(payload, "you", "/").expect("decodes")
}

#[test]
fn requests_have_the_keys_of_node_in_its_order() {
    let check = |id: Option<&str>, body: RequestBody, kind, data: &str| {
        let written = encode_request("me", "/", id, &body).expect("encodes");
        assert_eq!(text(written.clone()), enveloped(kind, data));
        let id = id.map(String::from);
        let expected = Message::Request(Request { from: Some("me".into()), id, body });
        assert_eq!(read(&written), expected);
    };
    let opts = r#""opts":{"rooms":["a"],"except":["b"],"flags":{}}"#;
    let selection = || select(&["a"], &["b"]);
    let join = RequestBody::Join { selection: selection(), rooms: rooms(&["c"]) };
    check(None, join, 4, &format!(r#"{{{opts},"rooms":["c"]}}"#));
    let leave = RequestBody::Leave { selection: selection(), rooms: rooms(&["c", "d"]) };
    check(None, leave, 5, &format!(r#"{{{opts},"rooms":["c","d"]}}"#));
    let disconnect = RequestBody::Disconnect { selection: selection(), close: false };
    check(None, disconnect, 6, &format!(r#"{{{opts},"close":false}}"#));
    let fetch = RequestBody::Fetch { selection: selection() };
    check(Some("q"), fetch, 7, &format!(r#"{{{opts},"requestId":"q"}}"#));
    let emit = || RequestBody::ServerEvent { data: event(r#"["a",1]"#, 0) };
    check(None, emit(), 9, r#"{"packet":["a",1]}"#);
    check(Some("q"), emit(), 9, r#"{"requestId":"q","packet":["a",1]}"#);
    let ask = RequestBody::Ask {
        selection: Selection::default(),
        flags: Flags { volatile: false, compress: Some(true), local: false },
        data: event(r#"["a"]"#, 0),
        timeout: Some(Duration::from_millis(800)),
    };
    let opts = r#""opts":{"rooms":[],"except":[],"flags":{"compress":true,"timeout":800}}"#;
    let packet = r#""packet":{"type":2,"data":["a"]}"#;
    check(Some("q"), ask, 3, &format!(r#"{{{packet},"requestId":"q",{opts}}}"#));
}

#[test]
fn answers_have_the_keys_of_node_and_acknowledgements_name_their_socket() {
    let check = |body: ResponseBody, kind, data: &str| {
        let written = encode_response("me", "/", "q", &body).expect("encodes");
        assert_eq!(text(written.clone()), enveloped(kind, data));
        let (request_id, from) = ("q".into(), Some("me".into()));
        assert_eq!(read(&written), Message::Response(Response { request_id, from, body }));
    };
    let socket = SocketDetail {
        id: "s".into(),
        rooms: rooms(&["s", "a"]),
        handshake: r#"{"headers":{}}"#.into(),
        data: "{}".into(),
    };
    check(
        ResponseBody::Sockets(vec![socket]),
        8,
        concat!(
            r#"{"requestId":"q","sockets":[{"id":"s","handshake":{"headers":{}},"#,
            r#""rooms":["s","a"],"data":{}}]}"#
        ),
    );
    check(ResponseBody::Sockets(vec![]), 8, r#"{"requestId":"q","sockets":[]}"#);
    let answer = |json: &str| ResponseBody::ServerEvent(event(json, 0));
    check(answer("[1]"), 10, r#"{"requestId":"q","packet":1}"#);
    check(answer("[null]"), 10, r#"{"requestId":"q","packet":null}"#);
    check(answer("[]"), 10, r#"{"requestId":"q"}"#);
    check(ResponseBody::ClientCount(0), 11, r#"{"requestId":"q","clientCount":0}"#);
    let ack = |socket: Option<&str>, json| {
        let socket = socket.map(RoomName::from);
        ResponseBody::Ack(ClientAnswer { socket, args: event(json, 0) })
    };
    check(ack(None, "[1]"), 12, r#"{"requestId":"q","packet":1}"#);
    check(ack(None, "[]"), 12, r#"{"requestId":"q"}"#);
    check(ack(Some("s"), "[1]"), 12, r#"{"requestId":"q","packet":1,"sid":"s"}"#);
}

#[test]
fn what_holds_binaries_is_messagepack_and_all_else_json() {
    let (all, flags) = (Selection::default(), Flags::default());
    let plain = || event(r#"["a"]"#, 0);
    let binary = || event(WITH_BINARY, 1);
    let is_json = |written: Result<Vec<u8>, EncodeError>| match written.expect("encodes").first() {
        Some(b'{') => true,
        Some(0x84) => false,
        other => panic!("{other:?}"),
    };
    let broadcast = |data: EventData| is_json(encode_broadcast("me", "/", &all, flags, &data));
    assert!(broadcast(plain()) && !broadcast(binary()));
    let request = |body: RequestBody| is_json(encode_request("me", "/", Some("q"), &body));
    let ask = |data| RequestBody::Ask { selection: all.clone(), flags, data, timeout: None };
    assert!(request(ask(plain())) && !request(ask(binary())));
    let emit = |data| RequestBody::ServerEvent { data };
    assert!(request(emit(plain())) && !request(emit(binary())));
    let response = |body: ResponseBody| is_json(encode_response("me", "/", "q", &body));
    let first = || event(r#"[{"_placeholder":true,"num":0},1]"#, 1);
    // Of the answer only the first argument is sent, and that decides.
    let second = binary;
    assert!(!response(ResponseBody::ServerEvent(first())));
    assert!(response(ResponseBody::ServerEvent(second())));
    let ack = |args| ResponseBody::Ack(ClientAnswer { socket: None, args });
    assert!(!response(ack(first())) && response(ack(second())));
}

#[test]
fn binaries_survive_in_every_type_that_has_any() {
    let (selection, flags) = (select(&["a"], &[]), Flags::default());
    let data = || event(WITH_BINARY, 1);
    let written = encode_broadcast("me", "/", &selection, flags, &data()).expect("encodes");
    let expected = Message::Broadcast { selection: selection.clone(), flags, data: data() };
    assert_eq!(read(&written), expected);
    for body in [
        || RequestBody::ServerEvent { data: event(WITH_BINARY, 1) },
        || RequestBody::Ask {
            selection: Selection::default(),
            flags: Flags::default(),
            data: event(WITH_BINARY, 1),
            timeout: Some(Duration::from_secs(1)),
        },
    ] {
        let written = encode_request("me", "/", Some("q"), &body()).expect("encodes");
        let (from, id) = (Some("me".into()), Some("q".into()));
        assert_eq!(read(&written), Message::Request(Request { from, id, body: body() }));
    }
    let one = || event(r#"[{"_placeholder":true,"num":0}]"#, 1);
    for body in [
        ResponseBody::ServerEvent(one()),
        ResponseBody::Ack(ClientAnswer { socket: Some("s".into()), args: one() }),
    ] {
        let written = encode_response("me", "/", "q", &body).expect("encodes");
        let (request_id, from) = ("q".into(), Some("me".into()));
        assert_eq!(read(&written), Message::Response(Response { request_id, from, body }));
    }
}

/// Node sends none of these in this protocol: there is no word for them.
#[test]
fn what_only_the_classic_protocol_knows_cannot_be_said() {
    for body in [RequestBody::Rooms, RequestBody::Sockets { rooms: vec![] }] {
        let written = encode_request("me", "/", Some("q"), &body);
        assert!(matches!(written, Err(EncodeError::Unsupported)));
    }
    for body in [ResponseBody::Rooms(vec![]), ResponseBody::SocketIds(vec![]), ResponseBody::Empty]
    {
        let written = encode_response("me", "/", "q", &body);
        assert!(matches!(written, Err(EncodeError::Unsupported)));
    }
}

#[test]
fn what_would_hurt_node_or_its_clients_is_not_written() {
    let (all, flags) = (Selection::default(), Flags::default());
    let binaries = |count: usize| {
        let placeholders: String =
            (0..count).map(|num| format!(r#",{{"_placeholder":true,"num":{num}}}"#)).collect();
        event(&format!(r#"["a"{placeholders}]"#), count)
    };
    let ask = |data: &EventData| {
        let data = data.clone();
        let body = RequestBody::Ask { selection: all.clone(), flags, data, timeout: None };
        encode_request("me", "/", Some("q"), &body)
    };
    for data in [event("[]", 0), event(r#"["connect"]"#, 0), event("{}", 0), binaries(11)] {
        encode_broadcast("me", "/", &all, flags, &data).expect_err(&data.json);
        ask(&data).expect_err(&data.json);
    }
    ask(&binaries(10)).expect("encodes");
    let emit = |data| encode_request("me", "/", None, &RequestBody::ServerEvent { data });
    emit(event(r#"["connection"]"#, 0)).expect_err("reserved");
    // Between servers nobody counts binaries.
    emit(binaries(11)).expect("encodes");
}

#[test]
fn a_namespace_must_be_named() {
    let payload = |nsp: &str| {
        format!(r#"{{"type":7,"data":{{"opts":{{}},"requestId":"q"}},"uid":"me"{nsp}}}"#)
    };
    assert_eq!(read(payload("").as_bytes()), Message::Foreign);
    assert_eq!(read(payload(r#","nsp":null"#).as_bytes()), Message::Foreign);
    assert_eq!(read(payload(r#","nsp":"/x""#).as_bytes()), Message::Foreign);
    assert!(matches!(read(payload(r#","nsp":"/""#).as_bytes()), Message::Request(_)));
}

#[test]
fn own_messages_come_back_and_end_here() {
    let written = encode_response("me", "/", "q", &ResponseBody::ClientCount(1)).expect("encodes");
    assert_eq!(decode(&written, "me", "/").expect("decodes"), Message::Own);
    // Also in a namespace that shares the channel.
    assert_eq!(decode(&written, "me", "/x").expect("decodes"), Message::Own);
    assert_eq!(decode(&written, "you", "/x").expect("decodes"), Message::Foreign);
}

#[test]
fn who_gives_no_uid_is_heard() {
    let payload = br#"{"type":3,"data":{"packet":{"type":2,"data":["a"]},"opts":{}},"nsp":"/"}"#;
    let expected = Message::Broadcast {
        selection: Selection::default(),
        flags: Flags::default(),
        data: event(r#"["a"]"#, 0),
    };
    assert_eq!(read(payload), expected);
}

#[test]
fn types_of_other_adapters_are_ignored() {
    for kind in [0, 1, 2, 13, 14, 99] {
        assert_eq!(read(enveloped(kind, "{}").as_bytes()), Message::Ignored, "{kind}");
    }
    for kind in [r#""3""#, "-1", "3.5", "null", "[]"] {
        let payload = format!(r#"{{"type":{kind},"data":{{}},"nsp":"/"}}"#);
        assert_eq!(read(payload.as_bytes()), Message::Ignored, "{kind}");
    }
}

#[test]
fn what_node_ends_on_is_an_error_here() {
    let refused = |payload: &[u8]| decode(payload, "you", "/").expect_err("must be refused");
    for kind in 3..=12 {
        refused(format!(r#"{{"type":{kind},"nsp":"/"}}"#).as_bytes());
        refused(enveloped(kind, "null").as_bytes());
        refused(enveloped(kind, "{}").as_bytes());
    }
    for payload in
        [&b""[..], b"\xc0", b"{", b"garbage", b" {}", b"[]", b"\x80\x80", b"\xdd\xff\xff\xff\xff"]
    {
        refused(payload);
    }
    refused(enveloped(3, r#"{"packet":{"type":2,"data":["connect"]},"opts":{}}"#).as_bytes());
    refused(enveloped(3, r#"{"packet":{"type":3,"data":["a"]},"opts":{}}"#).as_bytes());
    refused(enveloped(6, r#"{"opts":{"rooms":"a"},"close":true}"#).as_bytes());
}

#[test]
fn unknown_keys_and_flags_and_other_forms_of_numbers_are_borne() {
    let payload = concat!(
        r#"{"new":1,"type":3.0,"data":{"packet":{"type":2e0,"data":["a"],"id":7,"nsp":"/other"},"#,
        r#""requestId":"q","opts":{"rooms":null,"x":{},"flags":{"volatile":true,"timeout":5e2,"#,
        r#""expectSingleResponse":true,"local":true,"compress":null}},"y":[]},"uid":null,"nsp":"/"}"#
    );
    let body = RequestBody::Ask {
        selection: Selection::default(),
        flags: Flags { volatile: true, compress: None, local: false },
        data: event(r#"["a"]"#, 0),
        timeout: Some(Duration::from_millis(500)),
    };
    let expected = Request { from: None, id: Some("q".into()), body };
    assert_eq!(read(payload.as_bytes()), Message::Request(expected));
    // The same as MessagePack, in forms that no sender needs.
    let mut packed = vec![0xdf, 0, 0, 0, 3];
    packed.extend(b"\xd9\x04type\xcb\x40\x26\0\0\0\0\0\0\xda\0\x03nsp\xdb\0\0\0\x01/");
    packed.extend(
        b"\xa4data\xde\0\x03\x07\x08\xa9requestId\xa1q\xabclientCount\xcf\0\0\0\0\0\0\0\x02",
    );
    let (request_id, body) = ("q".into(), ResponseBody::ClientCount(2));
    assert_eq!(read(&packed), Message::Response(Response { request_id, from: None, body }));
}

#[test]
fn megabytes_are_one_message() {
    let (selection, flags) = (Selection::default(), Flags::default());
    let text = event(&format!(r#"["a","{}"]"#, "x".repeat(3 << 20)), 0);
    let mut binary = event(WITH_BINARY, 1);
    binary.attachments = vec![Bytes::from(vec![7; 3 << 20])];
    for data in [text, binary] {
        let written = encode_broadcast("me", "/", &selection, flags, &data).expect("encodes");
        assert!(((3 << 20)..(3 << 20) + 200).contains(&written.len()));
        let expected = Message::Broadcast { selection: selection.clone(), flags, data };
        assert!(read(&written) == expected);
    }
}

#[test]
fn an_event_of_the_greatest_depth_fits_into_its_envelope() {
    let depth = protocol::DEPTH_MAX - 2;
    let deep = |inner: &str| format!(r#"["a",{}{inner}{}]"#, "[".repeat(depth), "]".repeat(depth));
    let (selection, flags) = (Selection::default(), Flags::default());
    for data in [event(&deep("[1]"), 0), event(&deep(r#"{"_placeholder":true,"num":0}"#), 1)] {
        let written = encode_broadcast("me", "/", &selection, flags, &data).expect("encodes");
        let expected = Message::Broadcast { selection: selection.clone(), flags, data };
        assert_eq!(read(&written), expected);
    }
    encode_broadcast("me", "/", &selection, flags, &event(&deep("[[1]]"), 0))
        .expect_err("too deep");
}

proptest! {
    #[test]
    fn a_broadcast_is_read_back(
        rooms in prop::collection::vec(".{0,40}", 0..20),
        except in prop::collection::vec(".{0,40}", 0..3),
        ns in "/.{0,10}",
        volatile: bool,
        compress: Option<bool>,
        text in ".{0,300}",
        binary in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        let names = |names: Vec<String>| names.into_iter().map(RoomName::from).collect::<Vec<_>>();
        let selection = Selection { rooms: names(rooms), except: names(except) };
        let flags = Flags { volatile, compress, local: false };
        let last = if binary.is_some() { json!({"_placeholder": true, "num": 0}) } else { json!(1) };
        let json = json!(["ev", text, last]).to_string();
        let attachments = binary.into_iter().map(Bytes::from).collect();
        let data = EventData { json: json.into(), attachments };
        let written = encode_broadcast("me", &ns, &selection, flags, &data).expect("encodes");
        match decode(&written, "you", &ns) {
            Ok(Message::Broadcast { selection: read, flags: read_flags, data: read_data }) => {
                // A character has more than one form in JSON text.
                let value = |data: &EventData| -> Value { data.json.parse().expect("JSON") };
                prop_assert_eq!(value(&read_data), value(&data));
                prop_assert_eq!(read_data.attachments, data.attachments);
                prop_assert_eq!((read, read_flags), (selection, flags));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
