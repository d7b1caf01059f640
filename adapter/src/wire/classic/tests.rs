use super::*;
use crate::{ClientAnswer, SocketDetail};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::time::Duration;

const PARSERS: [ClusterParser; 2] = [ClusterParser::MessagePack, ClusterParser::Json];

/// What a request asks for; nothing if it is none.
fn asked(payload: &[u8], uid: &str) -> Result<Option<RequestBody>, DecodeError> {
    Ok(match decode_request(ClusterParser::MessagePack, payload, uid, "/")? {
        Message::Request(request) => Some(request.body),
        _ => None,
    })
}

fn rooms(names: &[&str]) -> Vec<RoomName> {
    names.iter().map(|name| RoomName::from(*name)).collect()
}

fn select(names: &[&str], except: &[&str]) -> Selection {
    Selection { rooms: rooms(names), except: rooms(except) }
}

fn request(id: Option<&str>, body: &RequestBody) -> Result<String, EncodeError> {
    let payload = encode_request(ClusterParser::Json, "me", "/", id, body)?;
    Ok(String::from_utf8(payload).expect("JSON"))
}

fn response(body: &ResponseBody) -> String {
    let payload = encode_response(ClusterParser::Json, "me", "q", body).expect("encodes");
    String::from_utf8(payload).expect("JSON")
}

#[test]
fn requests_have_the_keys_of_node_in_its_order() {
    let all = Selection::default;
    let check = |id, body: RequestBody, json: &str| {
        assert_eq!(request(id, &body).expect("encodes"), json);
        let read =
            decode_request(ClusterParser::Json, json.as_bytes(), "you", "/").expect("decodes");
        let id = id.map(String::from);
        assert_eq!(read, Message::Request(Request { from: Some("me".into()), id, body }));
    };
    let q = Some("q");
    let sockets = RequestBody::Sockets { rooms: rooms(&["a"]) };
    check(q, sockets, r#"{"uid":"me","requestId":"q","type":0,"rooms":["a"]}"#);
    check(q, RequestBody::Rooms, r#"{"uid":"me","requestId":"q","type":1}"#);
    let join = RequestBody::Join { selection: select(&["a"], &["b"]), rooms: rooms(&["c", "\n"]) };
    let opts = r#""opts":{"rooms":["a"],"except":["b"]}"#;
    check(None, join, &format!(r#"{{"uid":"me","type":2,{opts},"rooms":["c","\n"]}}"#));
    let leave = RequestBody::Leave { selection: select(&["a"], &["b"]), rooms: vec![] };
    check(None, leave, &format!(r#"{{"uid":"me","type":3,{opts},"rooms":[]}}"#));
    let disconnect = RequestBody::Disconnect { selection: all(), close: true };
    let opts = r#""opts":{"rooms":[],"except":[]}"#;
    check(None, disconnect, &format!(r#"{{"uid":"me","type":4,{opts},"close":true}}"#));
    let fetch = RequestBody::Fetch { selection: all() };
    check(q, fetch, &format!(r#"{{"uid":"me","requestId":"q","type":5,{opts}}}"#));
    let emit = || RequestBody::ServerEvent { data: event(r#"["a",1]"#, 0) };
    check(None, emit(), r#"{"uid":"me","type":6,"data":["a",1]}"#);
    check(q, emit(), r#"{"uid":"me","requestId":"q","type":6,"data":["a",1]}"#);
    let ask = RequestBody::Ask {
        selection: all(),
        flags: Flags { volatile: true, compress: Some(false), local: false },
        data: event(r#"["a"]"#, 0),
        timeout: Some(Duration::from_millis(700)),
    };
    let json = concat!(
        r#"{"uid":"me","requestId":"q","type":7,"packet":{"type":2,"data":["a"],"nsp":"/"},"#,
        r#""opts":{"rooms":[],"except":[],"flags":{"volatile":true,"compress":false,"timeout":700}}}"#
    );
    check(q, ask, json);
}

/// Node servers take the keys that they know, and count an answer by its id alone.
#[test]
fn answers_end_with_who_answers() {
    let check = |body: ResponseBody, json: &str| {
        assert_eq!(response(&body), json);
        for parser in PARSERS {
            let read = decode_response(parser, json.as_bytes(), "you").expect("decodes");
            let from = Some("me".into());
            let Message::Response(read) = read else { panic!("{read:?}") };
            assert_eq!((read.from, read.request_id.as_str()), (from, "q"));
            assert_eq!(format!("{:?}", read.body), format!("{body:?}"));
        }
        let own = decode_response(ClusterParser::Json, json.as_bytes(), "me");
        assert!(matches!(own, Ok(Message::Own)));
    };
    let rooms = rooms(&["a", "b"]);
    check(ResponseBody::Rooms(rooms.clone()), r#"{"requestId":"q","rooms":["a","b"],"uid":"me"}"#);
    check(
        ResponseBody::SocketIds(rooms.clone()),
        r#"{"requestId":"q","sockets":["a","b"],"uid":"me"}"#,
    );
    let socket = SocketDetail {
        id: "s".into(),
        rooms,
        handshake: r#"{"headers":{}}"#.into(),
        data: r#"{"x":1}"#.into(),
    };
    check(
        ResponseBody::Sockets(vec![socket]),
        concat!(
            r#"{"requestId":"q","sockets":[{"id":"s","handshake":{"headers":{}},"rooms":["a","b"],"#,
            r#""data":{"x":1}}],"uid":"me"}"#
        ),
    );
    check(ResponseBody::ClientCount(3), r#"{"type":8,"requestId":"q","clientCount":3,"uid":"me"}"#);
    check(ResponseBody::Empty, r#"{"requestId":"q","uid":"me"}"#);
    let args = || event("[7]", 0);
    check(ResponseBody::ServerEvent(args()), r#"{"type":6,"requestId":"q","data":7,"uid":"me"}"#);
    let ack = ClientAnswer { socket: Some("s".into()), args: args() };
    check(ResponseBody::Ack(ack), r#"{"type":9,"requestId":"q","packet":7,"sid":"s","uid":"me"}"#);
}

#[test]
fn an_empty_answer_is_an_answer() {
    assert_eq!(
        response(&ResponseBody::Rooms(vec![])),
        r#"{"requestId":"q","rooms":[],"uid":"me"}"#
    );
    let sockets = response(&ResponseBody::Sockets(vec![]));
    assert_eq!(sockets, r#"{"requestId":"q","sockets":[],"uid":"me"}"#);
    assert_eq!(sockets, response(&ResponseBody::SocketIds(vec![])));
}

#[test]
fn only_the_first_argument_of_an_answer_is_sent_and_none_is_left_out() {
    let answer = |json: &str| response(&ResponseBody::ServerEvent(event(json, 0)));
    assert_eq!(answer("[1,2,3]"), r#"{"type":6,"requestId":"q","data":1,"uid":"me"}"#);
    assert_eq!(answer("[null,2]"), r#"{"type":6,"requestId":"q","data":null,"uid":"me"}"#);
    assert_eq!(answer("[]"), r#"{"type":6,"requestId":"q","uid":"me"}"#);
    for parser in PARSERS {
        for (args, first) in [("[]", "[]"), ("[null]", "[null]"), (r#"["x",2]"#, r#"["x"]"#)] {
            let ack = ClientAnswer { socket: None, args: event(args, 0) };
            let payload =
                encode_response(parser, "me", "q", &ResponseBody::Ack(ack)).expect("encodes");
            let read = decode_response(parser, &payload, "you");
            let Ok(Message::Response(Response { body: ResponseBody::Ack(ack), .. })) = read else {
                panic!("{read:?}");
            };
            assert_eq!((&*ack.args.json, ack.socket), (first, None));
        }
    }
}

#[test]
fn an_answer_takes_along_the_binaries_of_its_first_argument() {
    let args = EventData {
        json: r#"[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#.into(),
        attachments: vec![Bytes::from_static(b"second"), Bytes::from_static(b"first")],
    };
    let ack = ResponseBody::Ack(ClientAnswer { socket: None, args });
    let payload = encode_response(ClusterParser::MessagePack, "me", "q", &ack).expect("encodes");
    assert_eq!(payload, b"\x84\xa4type\x09\xa9requestId\xa1q\xa6packet\xc4\x05first\xa3uid\xa2me");
}

/// JSON has no binaries; what Node makes of them stays what it is at the receiver.
#[test]
fn binaries_become_buffer_objects_in_json_and_stay_that() {
    let json = r#"["a",{"_placeholder":true,"num":0}]"#;
    let plain = r#"["a",{"type":"Buffer","data":[120]}]"#;
    let emit = RequestBody::ServerEvent { data: event(json, 1) };
    let text = request(None, &emit).expect("encodes");
    assert_eq!(text, format!(r#"{{"uid":"me","type":6,"data":{plain}}}"#));
    let read = asked(text.as_bytes(), "you").expect("decodes").expect("a request");
    assert_eq!(read, RequestBody::ServerEvent { data: event(plain, 0) });

    let answer =
        response(&ResponseBody::ServerEvent(event(r#"[{"_placeholder":true,"num":0}]"#, 1)));
    let expected = r#"{"type":6,"requestId":"q","data":{"type":"Buffer","data":[120]},"uid":"me"}"#;
    assert_eq!(answer, expected);

    let (all, flags) = (Selection::default(), Flags::default());
    let parser = ClusterParser::Json;
    let payload =
        encode_broadcast(parser, "me", "/", &all, flags, &event(json, 1)).expect("encodes");
    let expected = format!(
        r#"["me",{{"type":2,"data":{plain},"nsp":"/"}},{{"rooms":[],"except":[],"flags":{{}}}}]"#
    );
    assert_eq!(String::from_utf8(payload.clone()).expect("JSON"), expected);
    let read = decode_broadcast(parser, &payload, "you", "/").expect("decodes");
    assert_eq!(read, Message::Broadcast { selection: all, flags, data: event(plain, 0) });
}

#[test]
fn a_buffer_in_the_data_of_a_remote_socket_becomes_a_buffer_object() {
    let mut payload = b"\x82\xa9requestId\xa1q\xa7sockets\x91\x82\xa2id\xa1s\xa4data".to_vec();
    payload.extend(b"\x81\xa1b\xc4\x02\x01\x02");
    let read = decode_response(ClusterParser::MessagePack, &payload, "me");
    let Ok(Message::Response(Response { body: ResponseBody::Sockets(sockets), .. })) = read else {
        panic!("{read:?}");
    };
    assert_eq!(&*sockets[0].data, r#"{"b":{"type":"Buffer","data":[1,2]}}"#);
    assert_eq!(&*sockets[0].handshake, "{}");
}

#[test]
fn what_servers_reserve_is_not_sent_to_them() {
    let write = |json: &str| request(None, &RequestBody::ServerEvent { data: event(json, 0) });
    // Names that only clients do not bear are free.
    for json in [r#"["a"]"#, "[1]", r#"["disconnect",{}]"#, r#"["newListener"]"#] {
        write(json).expect(json);
    }
    for json in [
        r#"["connection",{}]"#,
        r#"["connect"]"#,
        r#"["conn\u0065ct"]"#,
        r#"["new_namespace"]"#,
        r#"["error"]"#,
        "[]",
        "[null]",
        "[[]]",
        "{}",
        "",
        r#"["a",1e999]"#,
        r#"["a""#,
    ] {
        write(json).expect_err(json);
    }
}

/// On Node, too, only senders look at the names.
#[test]
fn a_server_event_is_read_whatever_its_name() {
    let read = |json: &str| asked(format!(r#"{{"type":6,"data":{json}}}"#).as_bytes(), "me");
    for json in [r#"["connection",1]"#, r#"["a"]"#, "[5]"] {
        let expected = RequestBody::ServerEvent { data: event(json, 0) };
        assert_eq!(read(json).expect("decodes"), Some(expected));
    }
    for json in ["[]", "{}", "null", "[null]", "[{}]"] {
        read(json).expect_err(json);
    }
}

#[test]
fn what_is_not_in_the_encoding_of_the_parser_is_ignored() {
    let (all, flags, data) = (Selection::default(), Flags::default(), event(r#"["a"]"#, 0));
    let [packed, json] = PARSERS
        .map(|parser| encode_broadcast(parser, "you", "/", &all, flags, &data).expect("encodes"));
    let read =
        |parser, payload: &[u8]| decode_broadcast(parser, payload, "me", "/").expect("decodes");
    let broadcast = || Message::Broadcast { selection: all.clone(), flags, data: data.clone() };
    assert_eq!(read(ClusterParser::MessagePack, &packed), broadcast());
    assert_eq!(read(ClusterParser::Json, &json), broadcast());
    assert_eq!(read(ClusterParser::MessagePack, &json), Message::Ignored);
    assert_eq!(read(ClusterParser::Json, &packed), Message::Ignored);

    // Requests in JSON are for everybody.
    let request = br#"{"uid":"you","type":1,"requestId":"q"}"#;
    let packed = b"\x83\xa3uid\xa3you\xa4type\x01\xa9requestId\xa1q";
    for (parser, payload, is_read) in [
        (ClusterParser::MessagePack, &request[..], true),
        (ClusterParser::Json, request, true),
        (ClusterParser::MessagePack, packed, true),
        (ClusterParser::Json, packed, false),
    ] {
        let read = decode_request(parser, payload, "me", "/").expect("decodes");
        assert_eq!(matches!(read, Message::Request(_)), is_read);
        assert_eq!(read == Message::Ignored, !is_read);
    }
}

#[test]
fn the_first_byte_tells_the_encoding_of_a_request() {
    for payload in
        [&b" {\"type\":1}"[..], b"\xef\xbb\xbf{\"type\":1}", b"\n{}", b"", b"\xc0", b"\x7b"]
    {
        decode_request(ClusterParser::MessagePack, payload, "me", "/").expect_err("no request");
        decode_response(ClusterParser::MessagePack, payload, "me").expect_err("no response");
    }
}

/// As MessagePack this text would be the number 123.
#[test]
fn nothing_that_is_written_can_be_taken_for_the_other_encoding() {
    let (all, flags) = (Selection::default(), Flags::default());
    for data in [event(r#"["a"]"#, 0), event(r#"["a",{"_placeholder":true,"num":0}]"#, 1)] {
        let payload = encode_broadcast(ClusterParser::MessagePack, "{", "/", &all, flags, &data);
        assert_eq!(payload.expect("encodes")[0], 0x93);
        let ask = RequestBody::Ask { selection: all.clone(), flags, data, timeout: None };
        let payload = encode_request(ClusterParser::MessagePack, "{", "/", Some("q"), &ask);
        assert_eq!(payload.expect("encodes")[0], 0x85);
        assert_eq!(request(Some("q"), &ask).expect("encodes").as_bytes()[0], b'{');
    }
}

#[test]
fn messages_of_other_namespaces_are_foreign() {
    let (all, flags, data) = (Selection::default(), Flags::default(), event(r#"["a"]"#, 0));
    for parser in PARSERS {
        let payload = encode_broadcast(parser, "you", "/#x", &all, flags, &data).expect("encodes");
        let read = |ns: &str| decode_broadcast(parser, &payload, "me", ns).expect("decodes");
        assert_eq!(read("/"), Message::Foreign);
        assert!(matches!(read("/#x"), Message::Broadcast { .. }));
        let ask =
            RequestBody::Ask { selection: all.clone(), flags, data: data.clone(), timeout: None };
        let payload = encode_request(parser, "you", "/#x", Some("q"), &ask).expect("encodes");
        let read = |ns: &str| decode_request(parser, &payload, "me", ns).expect("decodes");
        assert_eq!(read("/"), Message::Foreign);
        assert!(matches!(read("/#x"), Message::Request(_)));
    }
}

#[test]
fn a_uid_is_compared_exactly() {
    let (all, flags, data) = (Selection::default(), Flags::default(), event(r#"["a"]"#, 0));
    for parser in PARSERS {
        let payload = encode_broadcast(parser, "Me", "/", &all, flags, &data).expect("encodes");
        let is_own = |uid: &str| {
            decode_broadcast(parser, &payload, uid, "/").expect("decodes") == Message::Own
        };
        assert!(is_own("Me") && !is_own("me") && !is_own("Me ") && !is_own("M"));
    }
}

#[test]
fn a_response_that_is_not_whole_counts_or_is_refused() {
    let read = |json: &str| decode_response(ClusterParser::MessagePack, json.as_bytes(), "me");
    let body = |json: &str| match read(json) {
        Ok(Message::Response(response)) => response.body,
        other => panic!("{other:?}"),
    };
    assert_eq!(body(r#"{"requestId":"q","sockets":7}"#), ResponseBody::Empty);
    assert_eq!(body(r#"{"requestId":"q","rooms":null}"#), ResponseBody::Empty);
    assert_eq!(body(r#"{"requestId":"q","type":99}"#), ResponseBody::Empty);
    for json in [
        r#"{"sockets":[]}"#,
        r#"{"requestId":1,"sockets":[]}"#,
        r#"{"requestId":"q","type":8}"#,
        r#"{"requestId":"q","type":8,"clientCount":-1}"#,
        r#"{"requestId":"q","type":8,"clientCount":1.5}"#,
        r#"{"requestId":"q","sockets":[{"rooms":[]}]}"#,
        r#"{"requestId":"q","rooms":[{}]}"#,
    ] {
        read(json).expect_err(json);
    }
    // Any form of a number is one.
    let float = r#"{"requestId":"q","type":8e0,"clientCount":2.0}"#;
    assert_eq!(body(float), ResponseBody::ClientCount(2));
}

/// `undefined` of notepack before version 3.
#[test]
fn an_undefined_answer_is_no_argument() {
    let payload = b"\x83\xa4type\x09\xa9requestId\xa1q\xa6packet\xd4\x00\x00";
    let read = decode_response(ClusterParser::MessagePack, payload, "me");
    let Ok(Message::Response(Response { body: ResponseBody::Ack(ack), .. })) = read else {
        panic!("{read:?}");
    };
    assert_eq!(&*ack.args.json, "[]");
}

#[test]
fn requests_of_older_adapters_are_understood() {
    let read = |text: &str| asked(text.as_bytes(), "me").expect(text).expect(text);
    let selection = || Selection { rooms: vec!["s".into()], except: vec![] };
    let rooms = || vec![RoomName::from("r")];
    assert_eq!(
        read(r#"{"requestId":"q","type":2,"sid":"s","room":"r"}"#),
        RequestBody::Join { selection: selection(), rooms: rooms() }
    );
    assert_eq!(
        read(r#"{"requestId":"q","type":3,"sid":"s","room":"r"}"#),
        RequestBody::Leave { selection: selection(), rooms: rooms() }
    );
    assert_eq!(
        read(r#"{"requestId":"q","type":4,"sid":"s","close":true}"#),
        RequestBody::Disconnect { selection: selection(), close: true }
    );
}

#[test]
fn rooms_that_are_no_texts_become_texts() {
    let request = br#"{"type":2,"opts":{"rooms":[1,1.5,2.0,null,true,"x"]},"rooms":[-7]}"#;
    let Ok(Some(RequestBody::Join { selection, rooms })) = asked(request, "me") else {
        panic!("a join expected");
    };
    assert_eq!(selection.rooms, ["1", "1.5", "2", "null", "true", "x"].map(RoomName::from));
    assert_eq!(rooms, [RoomName::from("-7")]);

    let mut value = vec![0x96];
    value.extend(b"\x01\xcb\x3f\xf8\0\0\0\0\0\0\xcb\x40\0\0\0\0\0\0\0\xc0\xc3\xa1x");
    let rooms = Value::Msgpack(&value).rooms().expect("all of these are rooms");
    assert_eq!(rooms, ["1", "1.5", "2", "null", "true", "x"].map(RoomName::from));
}

/// A request that could select more than was meant is worse than none.
#[test]
fn requests_of_which_the_selection_is_unclear_are_refused() {
    for request in [
        r#"{"type":4,"close":true}"#,
        r#"{"type":4,"opts":7}"#,
        r#"{"type":4,"opts":{"rooms":"a"}}"#,
        r#"{"type":4,"opts":{"rooms":[["a"]]}}"#,
        r#"{"type":2,"opts":{"rooms":[]}}"#,
        r#"{"type":2,"sid":1,"room":"a"}"#,
        r#"{"type":2"#,
    ] {
        assert!(asked(request.as_bytes(), "me").is_err(), "{request}");
    }
}

fn event(json: &str, n_attachments: usize) -> EventData {
    EventData { json: json.into(), attachments: vec![Bytes::from_static(b"x"); n_attachments] }
}

#[test]
fn what_would_hurt_node_or_its_clients_is_not_written() {
    let write = |data: &EventData| {
        encode_broadcast(
            ClusterParser::MessagePack,
            "me",
            "/",
            &Selection::default(),
            Flags::default(),
            data,
        )
        .is_ok()
    };
    for json in [r#"["a"]"#, "[1]", r#"["a",{"_placeholder":true,"num":0}]"#] {
        assert!(write(&event(json, 0)), "{json}");
    }
    for json in
        ["", "[]", "{}", "[null]", r#"[["a"]]"#, r#"["connect"]"#, r#"["a",NaN]"#, r#"["a",1e999]"#]
    {
        assert!(!write(&event(json, 0)), "{json}");
    }
    assert!(!write(&event(r#"["disconn\u0065cting"]"#, 0)));
    let binaries = |count: usize| {
        let placeholders: String =
            (0..count).map(|num| format!(r#",{{"_placeholder":true,"num":{num}}}"#)).collect();
        event(&format!(r#"["a"{placeholders}]"#), count)
    };
    assert!(write(&binaries(10)) && !write(&binaries(11)));
}

#[test]
fn events_that_clients_close_their_connection_on_are_refused() {
    let packed = |name: &[u8]| {
        let mut payload = b"\x93\xa1u\x83\xa4type\x02\xa4data\x91".to_vec();
        payload.extend(name);
        payload.extend(b"\xa3nsp\xa1/\x80");
        payload
    };
    let is_event = |name: &[u8]| {
        matches!(
            decode_broadcast(ClusterParser::MessagePack, &packed(name), "me", "/"),
            Ok(Message::Broadcast { .. })
        )
    };
    assert!(is_event(b"\xa2ev") && is_event(b"\x07"));
    assert!(!is_event(b"\xaadisconnect") && !is_event(b"\xc0") && !is_event(b"\x90"));
}

#[test]
fn long_lists_and_deep_values_do_no_harm() {
    let rooms: Vec<RoomName> = (0..100_000).map(|number| format!("room{number}").into()).collect();
    let selection = Selection { rooms, except: vec!["x".into()] };
    let data = event(r#"["ev",1]"#, 0);
    let payload = encode_broadcast(
        ClusterParser::MessagePack,
        "you",
        "/a",
        &selection,
        Flags::default(),
        &data,
    )
    .expect("encodes");
    match decode_broadcast(ClusterParser::MessagePack, &payload, "me", "/a") {
        Ok(Message::Broadcast { selection: read, data: event, .. }) => {
            assert_eq!((read, event), (selection, data));
        }
        other => panic!("{other:?}"),
    }
    let deep = |open: &[u8]| {
        let mut payload = b"\x93\xa1u\x82\xa4type\x02\xa4data".to_vec();
        payload.extend(open.repeat(10_000));
        payload
    };
    for payload in
        [deep(b"\x91"), deep(b"\x81\xa1a"), vec![0x91; 10_000], vec![0xdd, 255, 255, 255, 255]]
    {
        assert!(decode_broadcast(ClusterParser::MessagePack, &payload, "me", "/").is_err());
        assert!(asked(&payload, "me").is_err());
    }
    let json = [r#"{"type":2,"opts":"#, &"[".repeat(10_000)].concat();
    assert!(asked(json.as_bytes(), "me").is_err());
}

#[test]
fn unknown_keys_and_flags_and_other_forms_of_numbers_are_borne() {
    let json = r#"{"new":{},"uid":7,"requestId":"q","type":5.0,"opts":{"rooms":null,"x":1,"flags":{"y":2}}}"#;
    let expected = RequestBody::Fetch { selection: Selection::default() };
    assert_eq!(asked(json.as_bytes(), "me").expect("decodes"), Some(expected));
    let ask = concat!(
        r#"{"type":7,"packet":{"type":2,"data":["a"],"id":3},"opts":{"flags":{"volatile":1,"#,
        r#""timeout":7e2,"expectSingleResponse":true,"local":true}}}"#
    );
    let expected = RequestBody::Ask {
        selection: Selection::default(),
        flags: Flags::default(),
        data: event(r#"["a"]"#, 0),
        timeout: Some(Duration::from_millis(700)),
    };
    assert_eq!(asked(ask.as_bytes(), "me").expect("decodes"), Some(expected));
    // Flags without meaning here, or of another kind than they must be.
    for timeout in ["-1", "1.5", "null", r#""7""#, "1e300"] {
        let ask = ask.replace("7e2", timeout);
        let Ok(Some(RequestBody::Ask { timeout, .. })) = asked(ask.as_bytes(), "me") else {
            panic!("{ask}");
        };
        assert_eq!(timeout, None);
    }
}

#[test]
fn megabytes_are_one_message() {
    let (selection, flags) = (Selection::default(), Flags::default());
    let text = event(&format!(r#"["a","{}"]"#, "x".repeat(3 << 20)), 0);
    let mut binary = event(r#"["a",{"_placeholder":true,"num":0}]"#, 1);
    binary.attachments = vec![Bytes::from(vec![7; 3 << 20])];
    for data in [text, binary] {
        let payload =
            encode_broadcast(ClusterParser::MessagePack, "you", "/", &selection, flags, &data)
                .expect("encodes");
        assert!(((3 << 20)..(3 << 20) + 200).contains(&payload.len()));
        let read = decode_broadcast(ClusterParser::MessagePack, &payload, "me", "/");
        let expected = Message::Broadcast { selection: selection.clone(), flags, data };
        assert!(read.expect("decodes") == expected);
    }
}

#[test]
fn large_whole_numbers_stay_what_they_are() {
    let json = r#"["a",18446744073709551616,1e300,9007199254740993,18446744073709551615]"#;
    let (all, flags) = (Selection::default(), Flags::default());
    let payload =
        encode_broadcast(ClusterParser::MessagePack, "you", "/", &all, flags, &event(json, 0))
            .expect("encodes");
    let has = |bytes: &[u8]| payload.windows(bytes.len()).any(|window| window == bytes);
    // 2^64 and what is larger as doubles, smaller ones as integers.
    assert!(has(b"\xcb\x43\xf0\0\0\0\0\0\0"));
    assert!(has(&[&[0xcb][..], &1e300_f64.to_be_bytes()].concat()));
    assert!(has(&[&[0xcf][..], &9_007_199_254_740_993_u64.to_be_bytes()].concat()));
    assert!(has(&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]));
}

#[test]
fn an_event_of_the_greatest_depth_fits_into_its_envelope() {
    let depth = protocol::DEPTH_MAX - 1;
    let json = format!(r#"["a",{}1{}]"#, "[".repeat(depth), "]".repeat(depth));
    let (selection, flags, data) = (Selection::default(), Flags::default(), event(&json, 0));
    for parser in PARSERS {
        let payload =
            encode_broadcast(parser, "you", "/", &selection, flags, &data).expect("encodes");
        let read = decode_broadcast(parser, &payload, "me", "/").expect("decodes");
        let expected =
            Message::Broadcast { selection: selection.clone(), flags, data: data.clone() };
        assert_eq!(read, expected);
        let ask = || RequestBody::Ask {
            selection: selection.clone(),
            flags,
            data: data.clone(),
            timeout: None,
        };
        let payload = encode_request(parser, "you", "/", Some("q"), &ask()).expect("encodes");
        let read = decode_request(parser, &payload, "me", "/").expect("decodes");
        assert!(matches!(read, Message::Request(Request { body, .. }) if body == ask()));
        let too_deep = event(&format!(r#"["a",[{}]]"#, &json[5..json.len() - 1]), 0);
        encode_broadcast(parser, "you", "/", &selection, flags, &too_deep).expect_err("too deep");
    }
    // As a binary it is as deep as it may be; as an object of JSON it would be too deep.
    let depth = protocol::DEPTH_MAX - 2;
    let json = format!(
        r#"["a",{}{{"_placeholder":true,"num":0}}{}]"#,
        "[".repeat(depth),
        "]".repeat(depth)
    );
    let [packed, json] = PARSERS
        .map(|parser| encode_broadcast(parser, "you", "/", &selection, flags, &event(&json, 1)));
    packed.expect("encodes");
    json.expect_err("too deep");
}

proptest! {
    #[test]
    fn a_broadcast_is_read_back(
        rooms in prop::collection::vec(".{0,40}", 0..20),
        except in prop::collection::vec(".{0,40}", 0..3),
        volatile: bool,
        compress: Option<bool>,
        text in ".{0,300}",
        binary in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let names = |names: Vec<String>| names.into_iter().map(RoomName::from).collect::<Vec<_>>();
        let selection = Selection { rooms: names(rooms), except: names(except) };
        let flags = Flags { volatile, compress, local: false };
        let json = json!(["ev", text, {"_placeholder": true, "num": 0}]).to_string();
        let data = EventData { json: json.into(), attachments: vec![binary.into()] };
        let payload = encode_broadcast(ClusterParser::MessagePack, "you", "/ns", &selection, flags, &data).expect("encodes");
        match decode_broadcast(ClusterParser::MessagePack, &payload, "me", "/ns") {
            Ok(Message::Broadcast { selection: read, flags: read_flags, data: read_data }) => {
                // A character has more than one form in JSON text.
                let value = |data: &EventData| -> Json { data.json.parse().expect("JSON") };
                prop_assert_eq!(value(&read_data), value(&data));
                prop_assert_eq!(read_data.attachments, data.attachments);
                prop_assert_eq!((read, read_flags), (selection, flags));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
