use super::*;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::{fs, path::Path};

/// A recorded or hand-made message.
struct Vector {
    name: String,
    channel: String,
    payload: Vec<u8>,
    meaning: Json,
}

fn file(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).expect("vectors are JSON")
}

fn vector(name: &Json, value: &Json) -> Option<Vector> {
    let text = |value: &Json| Some(value.as_str()?.to_owned());
    Some(Vector {
        name: text(name)?,
        channel: text(&value["channel"])?,
        payload: BASE64_STANDARD.decode(value["payload_base64"].as_str()?).expect("base64"),
        meaning: value["meaning"].clone(),
    })
}

/// What a request asks for; nothing if it is none.
fn asked(payload: &[u8], uid: &str) -> Result<Option<RequestBody>, DecodeError> {
    Ok(match decode_request(ClusterParser::MessagePack, payload, uid, "/")? {
        Message::Request(request) => Some(request.body),
        _ => None,
    })
}

/// The messages of a capture that were published on channels with this beginning.
fn captured(name: &str, channel: &str) -> Vec<Vector> {
    let file = file(name);
    let vectors = file["vectors"].as_array().expect("a list of vectors");
    let published = vectors.iter().filter(|vector| vector["command"] == "PUBLISH");
    let vectors = published.filter_map(|value| vector(&value["name"], value));
    vectors.filter(|vector| vector.channel.starts_with(channel)).collect()
}

fn decoded(vector: &Vector, ns: &str) -> (Selection, Flags, EventData) {
    match decode_broadcast(ClusterParser::MessagePack, &vector.payload, "nobody", ns) {
        Ok(Message::Broadcast { selection, flags, data }) => (selection, flags, data),
        other => panic!("{}: {other:?}", vector.name),
    }
}

/// The JSON that clients get for the meaning of a vector, binaries apart.
fn as_clients_see(meaning: &Json, attachments: &mut Vec<Bytes>) -> Json {
    match meaning {
        Json::Array(items) => items.iter().map(|item| as_clients_see(item, attachments)).collect(),
        Json::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Json::as_str);
            if let Some(bin) = text("$bin") {
                let num = attachments.len();
                attachments.push(BASE64_STANDARD.decode(bin).expect("base64").into());
                json!({"_placeholder": true, "num": num})
            } else if let Some(timestamp) = text("$timestamp") {
                json!(timestamp)
            } else if let Some(number) = text("$f64") {
                json!(number.parse::<f64>().expect("a number"))
            } else if let Some(number) = text("$u64") {
                json!(number.parse::<u64>().expect("a number"))
            } else {
                let entries = map.iter();
                entries
                    .map(|(key, value)| (key.clone(), as_clients_see(value, attachments)))
                    .collect()
            }
        }
        plain => plain.clone(),
    }
}

fn room_names(rooms: &Json) -> Vec<String> {
    let rooms = rooms.as_array().expect("a list of rooms");
    let name = |room: &Json| room.as_str().map_or_else(|| room.to_string(), str::to_owned);
    rooms.iter().map(name).collect()
}

fn check_meaning(vector: &Vector) {
    let [_, packet, opts] = vector.meaning.as_array().expect("three elements").as_slice() else {
        panic!("{}: not three elements", vector.name);
    };
    let ns = packet["nsp"].as_str().expect("a namespace");
    let (selection, flags, data) = decoded(vector, ns);
    let mut attachments = Vec::new();
    let expected = as_clients_see(&packet["data"], &mut attachments);
    let json: Json = serde_json::from_str(&data.json).expect("decoded data is JSON");
    assert_eq!(json, expected, "{}", vector.name);
    assert_eq!(data.attachments, attachments, "{}", vector.name);
    let names = |rooms: &[RoomName]| rooms.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&selection.rooms), room_names(&opts["rooms"]), "{}", vector.name);
    assert_eq!(names(&selection.except), room_names(&opts["except"]), "{}", vector.name);
    let expected = &opts["flags"];
    assert_eq!(flags.volatile, expected["volatile"] == true, "{}", vector.name);
    assert_eq!(flags.compress, expected["compress"].as_bool(), "{}", vector.name);
}

#[test]
fn broadcasts_of_node_servers_decode_to_their_meaning() {
    let vectors = captured("classic.json", "socket.io#");
    assert_eq!(vectors.len(), 38);
    vectors.iter().for_each(check_meaning);
    captured("classic-custom-key.json", "myapp#").iter().for_each(check_meaning);
    captured("classic-specific-response-channel.json", "socket.io#").iter().for_each(check_meaning);
}

#[test]
fn broadcasts_of_emitters_decode_to_their_meaning() {
    let vectors = captured("emitter-classic.json", "socket.io#");
    assert_eq!(vectors.len(), 15);
    vectors.iter().for_each(check_meaning);
}

#[test]
fn what_node_writes_is_written_byte_for_byte() {
    // What JSON cannot say, or what is not ours to say.
    const DIFFERENT: [&str; 9] = [
        "broadcast-date",
        "broadcast-date-with-binary",
        "broadcast-numeric-room",
        "broadcast-scalars",
        "broadcast-scalars-with-binary",
        "broadcast-timeout-flag-without-ack",
        "broadcast-undefined",
        "broadcast-undefined-with-binary",
        "remote-socket-ops.4",
    ];
    let mut different = Vec::new();
    for vector in captured("classic.json", "socket.io#") {
        let uid = vector.meaning[0].as_str().expect("a uid");
        let ns = vector.meaning[1]["nsp"].as_str().expect("a namespace");
        let (selection, flags, data) = decoded(&vector, ns);
        let encoded =
            encode_broadcast(ClusterParser::MessagePack, uid, ns, &selection, flags, &data)
                .expect("encodes");
        if encoded != vector.payload {
            different.push(vector.name.clone());
        }
        let channel =
            crate::wire::channel::Channels::classic("socket.io", ns, uid).broadcast(&selection);
        assert_eq!(channel, vector.channel, "{}", vector.name);
    }
    different.sort_unstable();
    different.retain(|name| !DIFFERENT.contains(&name.as_str()));
    assert_eq!(different, [""; 0]);
}

#[test]
fn broadcasts_in_json_are_seen_as_such() {
    for vector in captured("classic-json-parser.json", "socket.io#") {
        let decoded = decode_broadcast(ClusterParser::MessagePack, &vector.payload, "nobody", "/");
        assert!(matches!(decoded, Ok(Message::Ignored)), "{}", vector.name);
    }
}

/// What becomes of the hand-made messages here, where Node's own reaction is to crash, to disconnect clients,
/// or to answer what is not answered yet.
#[test]
fn hand_made_messages_are_treated_as_node_does_or_better() {
    let outcome = |vector: &Vector| {
        let own = ["wsJ9fr", "LiTjDf"].into_iter().find(|uid| {
            let (haystack, needle) = (&vector.payload, uid.as_bytes());
            haystack.windows(needle.len()).any(|window| window == needle)
        });
        let uid = own.unwrap_or("nobody");
        if vector.channel.starts_with("socket.io#") {
            match decode_broadcast(ClusterParser::MessagePack, &vector.payload, uid, "/") {
                Ok(Message::Broadcast { .. }) => "delivered",
                Ok(Message::Own) => "own",
                Ok(Message::Foreign) => "foreign",
                Ok(_) => "json",
                Err(_) => "malformed",
            }
        } else {
            match decode_request(ClusterParser::MessagePack, &vector.payload, uid, "/") {
                Ok(Message::Own) => "own",
                Ok(Message::Request(_)) => "applied",
                Ok(_) => "ignored",
                Err(_) => "malformed",
            }
        }
    };
    let mut outcomes: std::collections::BTreeMap<&str, Vec<String>> = Default::default();
    for entry in file("behaviour-classic.json").as_array().expect("a list") {
        let Some(vector) = vector(&entry["name"], &entry["inject"][0]) else { continue };
        if entry["client"] == "redis" && !vector.channel.starts_with("socket.io-response") {
            outcomes.entry(outcome(&vector)).or_default().push(vector.name);
        }
    }
    let applied = [
        "request-fetch-empty-opts",
        "request-fetch-as-msgpack",
        "request-fetch-no-match",
        "request-all-rooms",
        "request-all-rooms-no-id",
        "request-sockets-legacy",
        "request-remote-join-legacy",
        "request-join-rooms-string",
        "request-sse",
        "request-sse-msgpack-binary",
        "request-broadcast-ack-json",
        "request-disconnect",
        "sse-reserved-event",
    ];
    assert_eq!(outcomes["applied"], applied);
    let own =
        ["own-uid", "request-join-own-uid", "request-sse-own-uid", "request-broadcast-ack-own-uid"];
    assert_eq!(outcomes["own"], own);
    assert_eq!(outcomes["foreign"], ["packet-nsp-other", "nsp-as-bin"]);
    assert_eq!(outcomes["json"], ["json-on-broadcast-channel"]);
    let malformed = [
        "opts-missing",
        "packet-null",
        "garbage-text",
        "empty-payload",
        "msgpack-not-an-array",
        "trailing-bytes",
        "rooms-as-string",
        "request-garbage",
        "request-leading-space",
        "request-msgpack-null",
        "request-fetch-without-opts",
        "request-sse-no-data",
    ];
    assert_eq!(outcomes["malformed"], malformed);
    assert!(
        outcomes["ignored"]
            .iter()
            .all(|name| name.starts_with("request-") || name.starts_with("sse-"))
    );
    let delivered = &outcomes["delivered"];
    for name in ["valid", "uid-null", "no-flags", "opts-empty-map", "opts-rooms-null", "float-type"]
    {
        assert!(delivered.iter().any(|delivered| delivered == name), "{name}");
    }
    assert_eq!(outcomes.values().map(Vec::len).sum::<usize>(), 54);
}

#[test]
fn requests_of_node_servers_and_emitters_are_understood() {
    let read = |name: &str| {
        let all = captured("classic.json", "socket.io-request#");
        let emitted = captured("emitter-classic.json", "socket.io-request#");
        let vector = all.into_iter().chain(emitted).find(|vector| vector.name == name);
        asked(&vector.expect(name).payload, "nobody").expect(name).expect(name)
    };
    let names = |names: &[&str]| names.iter().map(|name| RoomName::from(*name)).collect::<Vec<_>>();
    let selection =
        |rooms: &[&str], except: &[&str]| Selection { rooms: names(rooms), except: names(except) };
    let join = |selection, rooms: &[&str]| RequestBody::Join { selection, rooms: names(rooms) };
    assert_eq!(read("sockets-join-all"), join(selection(&[], &[]), &["j1"]));
    let filtered = selection(&["room2"], &["room3"]);
    assert_eq!(read("sockets-join-filtered"), join(filtered, &["j2", "j3"]));
    let filtered = selection(&["room1"], &["room3"]);
    assert_eq!(read("emitter-sockets-join"), join(filtered, &["e1", "e2"]));
    let leave = |selection, rooms: &[&str]| RequestBody::Leave { selection, rooms: names(rooms) };
    assert_eq!(read("sockets-leave-filtered"), leave(selection(&["j2"], &[]), &["j2", "j3"]));
    assert_eq!(read("emitter-sockets-leave"), leave(selection(&["e1"], &[]), &["e1"]));
    let everybody = selection(&[], &[]);
    let disconnect = RequestBody::Disconnect { selection: everybody, close: true };
    assert_eq!(read("disconnect-all-close"), disconnect);
    assert_eq!(read("emitter-disconnect-close"), disconnect);
    assert_eq!(read("fetch-all.2"), RequestBody::Fetch { selection: selection(&[], &[]) });
    assert!(matches!(read("ack-binary.1"), RequestBody::Ask { .. }));
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

/// A small generator of the same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

#[test]
fn a_hundred_thousand_broken_messages_are_survived() {
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for name in ["classic.json", "emitter-classic.json"] {
        corpus.extend(captured(name, "socket.io").into_iter().map(|vector| vector.payload));
    }
    let mut numbers = Numbers(20_261_121);
    for _ in 0..100_000 {
        let mut payload = corpus[numbers.next(corpus.len())].clone();
        for _ in 0..=numbers.next(4) {
            let at = numbers.next(payload.len().max(1));
            match numbers.next(4) {
                0 => payload.truncate(at),
                1 if at < payload.len() => payload[at] = numbers.next(256) as u8,
                2 if at < payload.len() => drop(payload.remove(at)),
                _ => payload.insert(at.min(payload.len()), numbers.next(256) as u8),
            }
        }
        let _ = decode_broadcast(ClusterParser::MessagePack, &payload, "me", "/");
        let _ = asked(&payload, "me");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_broadcast(ClusterParser::MessagePack, &payload, "me", "/");
        let _ = asked(&payload, "me");
    }

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
