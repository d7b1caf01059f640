//! Every message that was recorded between Node servers, and every hand-made one whose effect on a Node server was
//! recorded, read and written here.
//!
//! The files `streams*.json`, `emitter-streams.json`, `behaviour-streams.json` and `csr-frames.json` are about the
//! streams adapter, a third protocol that shares no message with these two.

use super::{
    DecodeError, EncodeError, Message, RequestBody, ResponseBody,
    channel::{Addressed, Channels},
    classic, sharded,
};
use crate::{ClusterParser, RoomName, Selection, ShardedMode};
use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::socket::{EventData, inline_buffers};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// How the messages of a file are encoded.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Protocol {
    Classic(ClusterParser),
    Sharded(ShardedMode),
}

const CLASSIC: Protocol = Protocol::Classic(ClusterParser::MessagePack);

impl Protocol {
    pub(super) fn channels(self, key: &str, ns: &str, uid: &str) -> Channels {
        match self {
            Protocol::Classic(_) => Channels::classic(key, ns, uid),
            Protocol::Sharded(mode) => Channels::sharded(key, ns, uid, mode),
        }
    }

    /// Reads a message as what its channel says that it is.
    pub(super) fn decode(
        self,
        addressed: &Addressed<'_>,
        payload: &[u8],
        uid: &str,
        ns: &str,
    ) -> Result<Message, DecodeError> {
        match (self, addressed) {
            (Protocol::Sharded(_), _) => sharded::decode(payload, uid, ns),
            (Protocol::Classic(parser), Addressed::Request) => {
                classic::decode_request(parser, payload, uid, ns)
            }
            (Protocol::Classic(parser), Addressed::Response) => {
                classic::decode_response(parser, payload, uid)
            }
            (Protocol::Classic(parser), _) => classic::decode_broadcast(parser, payload, uid, ns),
        }
    }

    /// Writes what a message says.
    fn encode(self, message: &Message, uid: &str, ns: &str) -> Result<Vec<u8>, EncodeError> {
        match (self, message) {
            (Protocol::Classic(parser), Message::Broadcast { selection, flags, data }) => {
                classic::encode_broadcast(parser, uid, ns, selection, *flags, data)
            }
            (Protocol::Classic(parser), Message::Request(request)) => {
                classic::encode_request(parser, uid, ns, request.id.as_deref(), &request.body)
            }
            (Protocol::Classic(parser), Message::Response(response)) => {
                classic::encode_response(parser, uid, &response.request_id, &response.body)
            }
            (Protocol::Sharded(_), Message::Broadcast { selection, flags, data }) => {
                sharded::encode_broadcast(uid, ns, selection, *flags, data)
            }
            (Protocol::Sharded(_), Message::Request(request)) => {
                sharded::encode_request(uid, ns, request.id.as_deref(), &request.body)
            }
            (Protocol::Sharded(_), Message::Response(response)) => {
                sharded::encode_response(uid, ns, &response.request_id, &response.body)
            }
            _ => panic!("nothing that is written: {message:?}"),
        }
    }
}

/// A file of captures, and which of its messages come out in other bytes than Node's when they are written again,
/// because JSON has no such value or because it is not ours to say. All others are written byte for byte.
struct Capture {
    file: &'static str,
    key: &'static str,
    protocol: Protocol,
    n_vectors: usize,
    n_messages: usize,
    /// Groups of names, each with a word on the reason.
    different: &'static [(Reason, &'static [&'static str])],
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "reasons are for the reader")]
enum Reason {
    /// Dates, NaN and what notepack corrupts become what JSON has for them.
    NotJson,
    /// Rooms are texts here.
    NumericRoom,
    /// Flags that mean nothing to receivers, and so are not kept.
    Flags,
    /// Emitters give no uid with requests, and order their options differently.
    Emitter,
}

const SHARDED_DIFFERENT: &[(Reason, &[&str])] = &[
    (Reason::NotJson, &["broadcast-date-with-binary", "broadcast-scalars-with-binary"]),
    (Reason::NumericRoom, &["broadcast-numeric-room"]),
    (Reason::Flags, FLAGS_DIFFERENT),
];
const FLAGS_DIFFERENT: &[&str] = &[
    "broadcast-timeout-flag-without-ack",
    "remote-socket-ops.4",
    "remote-socket-ops.5",
    "remote-socket-ops.6",
    "remote-socket-ops.7",
];

const CAPTURES: [Capture; 8] = [
    Capture {
        file: "classic.json",
        key: "socket.io",
        protocol: CLASSIC,
        n_vectors: 127,
        n_messages: 92,
        different: &[
            (
                Reason::NotJson,
                &[
                    "broadcast-date",
                    "broadcast-date-with-binary",
                    "broadcast-scalars",
                    "broadcast-scalars-with-binary",
                ],
            ),
            (Reason::NumericRoom, &["broadcast-numeric-room"]),
            (
                Reason::Flags,
                &[
                    "broadcast-timeout-flag-without-ack",
                    "remote-socket-ops.4",
                    "remote-socket-ops.7",
                ],
            ),
        ],
    },
    Capture {
        file: "classic-custom-key.json",
        key: "myapp",
        protocol: CLASSIC,
        n_vectors: 15,
        n_messages: 11,
        different: &[],
    },
    Capture {
        file: "classic-json-parser.json",
        key: "socket.io",
        protocol: Protocol::Classic(ClusterParser::Json),
        n_vectors: 15,
        n_messages: 11,
        different: &[],
    },
    Capture {
        file: "classic-specific-response-channel.json",
        key: "socket.io",
        protocol: CLASSIC,
        n_vectors: 15,
        n_messages: 11,
        different: &[],
    },
    Capture {
        file: "emitter-classic.json",
        key: "socket.io",
        protocol: CLASSIC,
        n_vectors: 24,
        n_messages: 22,
        different: &[(
            Reason::Emitter,
            &[
                "emitter-all",
                "emitter-room",
                "emitter-two-rooms",
                "emitter-except",
                "emitter-room-except",
                "emitter-private-room",
                "emitter-string",
                "emitter-buffer",
                "emitter-buffer-room",
                "emitter-values",
                "emitter-values-with-binary",
                "emitter-volatile",
                "emitter-compress",
                "emitter-nsp",
                "emitter-nsp-no-slash",
                "emitter-sockets-join",
                "emitter-sockets-join-all",
                "emitter-sockets-leave",
                "emitter-disconnect",
                "emitter-disconnect-close",
            ],
        )],
    },
    Capture {
        file: "sharded-static.json",
        key: "socket.io",
        protocol: Protocol::Sharded(ShardedMode::Static),
        n_vectors: 119,
        n_messages: 87,
        different: SHARDED_DIFFERENT,
    },
    Capture {
        file: "sharded-dynamic.json",
        key: "socket.io",
        protocol: Protocol::Sharded(ShardedMode::Dynamic),
        n_vectors: 147,
        n_messages: 87,
        different: SHARDED_DIFFERENT,
    },
    Capture {
        file: "sharded-dynamic-private.json",
        key: "socket.io",
        protocol: Protocol::Sharded(ShardedMode::DynamicPrivate),
        n_vectors: 151,
        n_messages: 87,
        different: SHARDED_DIFFERENT,
    },
];

/// A recorded or hand-made message.
pub(super) struct Vector {
    name: String,
    pub(super) channel: String,
    pub(super) payload: Vec<u8>,
    meaning: Value,
}

pub(super) fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).expect("vectors are JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text expected: {value}"))
}

fn vector(name: &Value, value: &Value) -> Vector {
    Vector {
        name: text(name).to_owned(),
        channel: text(&value["channel"]).to_owned(),
        payload: BASE64_STANDARD.decode(text(&value["payload_base64"])).expect("base64"),
        meaning: value["meaning"].clone(),
    }
}

/// All messages of all captures of both protocols.
pub(super) fn captured_messages() -> Vec<(Protocol, Vector)> {
    let read = |capture: &Capture| {
        messages(&file(capture.file))
            .into_iter()
            .map(|vector| (capture.protocol, vector))
            .collect::<Vec<_>>()
    };
    CAPTURES.iter().flat_map(read).collect()
}

fn messages(file: &Value) -> Vec<Vector> {
    let vectors = file["vectors"].as_array().expect("a list of vectors");
    let published = vectors.iter().filter(|vector| vector["kind"] == "publish");
    published.map(|value| vector(&value["name"], value)).collect()
}

/// What the channel of a message says. The response channels of all servers say the same.
fn addressed<'a>(channels: &Channels, vector: &'a Vector) -> Addressed<'a> {
    match channels.addressed(vector.channel.as_bytes()) {
        Addressed::Foreign if vector.channel.starts_with(channels.response()) => {
            Addressed::Response
        }
        addressed => addressed,
    }
}

impl Vector {
    fn uid(&self) -> &str {
        let uid = if self.meaning.is_array() { &self.meaning[0] } else { &self.meaning["uid"] };
        uid.as_str().unwrap_or("x")
    }

    /// The namespace, which the channels of requests and responses name.
    fn ns(&self) -> &'static str {
        if self.channel.contains("#/admin#") { "/admin" } else { "/" }
    }
}

// What a message says, in a form that is made both from our message and from the meaning in the file.

fn view(message: &Message) -> Value {
    match message {
        Message::Broadcast { selection, flags, data } => json!({
            "is": "broadcast", "to": view_selection(selection), "data": view_data(data),
            "volatile": flags.volatile, "compress": flags.compress, "id": null,
        }),
        Message::Request(request) => {
            let mut view = match &request.body {
                RequestBody::Join { selection, rooms } => {
                    json!({"is": "join", "to": view_selection(selection), "rooms": names(rooms)})
                }
                RequestBody::Leave { selection, rooms } => {
                    json!({"is": "leave", "to": view_selection(selection), "rooms": names(rooms)})
                }
                RequestBody::Disconnect { selection, close } => {
                    json!({"is": "disconnect", "to": view_selection(selection), "close": close})
                }
                RequestBody::Sockets { rooms } => json!({"is": "sockets", "rooms": names(rooms)}),
                RequestBody::Rooms => json!({"is": "rooms"}),
                RequestBody::Fetch { selection } => {
                    json!({"is": "fetch", "to": view_selection(selection)})
                }
                RequestBody::ServerEvent { data } => {
                    json!({"is": "server event", "data": view_data(data)})
                }
                RequestBody::Ask { selection, flags, data, timeout } => json!({
                    "is": "broadcast", "to": view_selection(selection), "data": view_data(data),
                    "volatile": flags.volatile, "compress": flags.compress,
                    "timeout": timeout.map(|timeout| timeout.as_millis() as u64),
                }),
            };
            view["id"] = json!(request.id);
            view
        }
        Message::Response(response) => {
            let mut view = match &response.body {
                ResponseBody::Sockets(sockets) => {
                    let sockets = sockets.iter().map(|socket| {
                        let json = |text: &str| text.parse::<Value>().expect("JSON");
                        json!({
                            "id": &*socket.id, "rooms": names(&socket.rooms),
                            "handshake": json(&socket.handshake), "data": json(&socket.data),
                        })
                    });
                    json!({"sockets": sockets.collect::<Vec<_>>()})
                }
                ResponseBody::SocketIds(ids) => json!({"sockets": names(ids)}),
                ResponseBody::Rooms(rooms) => json!({"rooms": names(rooms)}),
                ResponseBody::ServerEvent(args) => json!({"answer": view_data(args)}),
                ResponseBody::ClientCount(count) => json!({"count": count}),
                ResponseBody::Ack(answer) => json!({"ack": view_data(&answer.args)}),
                ResponseBody::Empty => json!({}),
            };
            view["id"] = json!(response.request_id);
            view
        }
        other => json!(format!("{other:?}")),
    }
}

fn names(rooms: &[RoomName]) -> Vec<&str> {
    rooms.iter().map(RoomName::as_str).collect()
}

fn view_selection(selection: &Selection) -> Value {
    json!([names(&selection.rooms), names(&selection.except)])
}

fn view_data(data: &EventData) -> Value {
    let json: Value = data.json.parse().expect("decoded data is JSON");
    let binaries: Vec<_> = data.attachments.iter().map(|bin| BASE64_STANDARD.encode(bin)).collect();
    json!([json, binaries])
}

/// What the meaning in a file says.
fn expected(protocol: Protocol, meaning: &Value) -> Value {
    if let [_, packet, opts] = meaning.as_array().map_or(&[][..], Vec::as_slice) {
        return expected_broadcast(packet, opts, &Value::Null);
    }
    let (body, kinds) = match protocol {
        Protocol::Classic(_) => (
            meaning,
            [
                "sockets",
                "rooms",
                "join",
                "leave",
                "disconnect",
                "fetch",
                "server event",
                "broadcast",
                "count",
                "ack",
            ]
            .as_slice(),
        ),
        Protocol::Sharded(_) => (
            &meaning["data"],
            [
                "",
                "",
                "",
                "broadcast",
                "join",
                "leave",
                "disconnect",
                "fetch",
                "sockets",
                "server event",
                "answer",
                "count",
                "ack",
            ]
            .as_slice(),
        ),
    };
    let kind = meaning["type"].as_u64().map(|kind| kinds[kind as usize]);
    let is_answer = protocol == CLASSIC || protocol == Protocol::Classic(ClusterParser::Json);
    let is_answer = is_answer && meaning.get("uid").is_none() && body.get("opts").is_none();
    let rooms = || room_names(&body["rooms"]);
    let to = || expected_selection(&body["opts"]);
    let event = if body.get("data").is_some() { &body["data"] } else { &body["packet"] };
    // The one argument of an answer; what is left out is no argument.
    let answer = || {
        let value = body.get("packet").or(body.get("data"));
        expected_data(&value.map_or(json!([]), |value| json!([value])))
    };
    let mut view = match kind {
        Some("broadcast") => expected_broadcast(&body["packet"], &body["opts"], &body["requestId"]),
        Some(kind @ ("join" | "leave")) => json!({"is": kind, "to": to(), "rooms": rooms()}),
        Some("disconnect") => json!({"is": "disconnect", "to": to(), "close": body["close"]}),
        Some("fetch") => json!({"is": "fetch", "to": to()}),
        Some("rooms") => json!({"is": "rooms"}),
        Some("server event") if is_answer => json!({"answer": answer()}),
        Some("server event") => json!({"is": "server event", "data": expected_data(event)}),
        Some("answer") => json!({"answer": answer()}),
        Some("ack") => json!({"ack": answer()}),
        Some("count") => json!({"count": body["clientCount"]}),
        None | Some("sockets") if body.get("sockets").is_some() => {
            json!({"sockets": body["sockets"]})
        }
        None => json!({"rooms": rooms()}),
        Some(kind) => panic!("no capture is one of {kind}"),
    };
    view["id"] = body["requestId"].clone();
    view
}

fn expected_broadcast(packet: &Value, opts: &Value, id: &Value) -> Value {
    let flags = &opts["flags"];
    let mut view = json!({
        "is": "broadcast", "to": expected_selection(opts), "data": expected_data(&packet["data"]),
        "volatile": flags["volatile"] == true, "compress": flags["compress"], "id": id,
    });
    if !id.is_null() {
        view["timeout"] = flags["timeout"].clone();
    }
    view
}

fn expected_selection(opts: &Value) -> Value {
    json!([room_names(&opts["rooms"]), room_names(&opts["except"])])
}

fn room_names(rooms: &Value) -> Vec<String> {
    let rooms = rooms.as_array().expect("a list of rooms");
    let name = |room: &Value| room.as_str().map_or_else(|| room.to_string(), str::to_owned);
    rooms.iter().map(name).collect()
}

fn expected_data(meaning: &Value) -> Value {
    let mut binaries = Vec::new();
    let json = as_clients_see(meaning, &mut binaries);
    json!([json, binaries])
}

/// The JSON that clients get for the meaning of a vector, binaries apart.
fn as_clients_see(meaning: &Value, binaries: &mut Vec<String>) -> Value {
    match meaning {
        Value::Array(items) => items.iter().map(|item| as_clients_see(item, binaries)).collect(),
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str);
            if let Some(bin) = text("$bin") {
                binaries.push(bin.to_owned());
                json!({"_placeholder": true, "num": binaries.len() - 1})
            } else if let Some(timestamp) = text("$timestamp") {
                json!(timestamp)
            } else if let Some(number) = text("$f64") {
                json!(number.parse::<f64>().expect("a number"))
            } else if let Some(number) = text("$u64") {
                json!(number.parse::<u64>().expect("a number"))
            } else {
                let entries = map.iter();
                entries.map(|(key, value)| (key.clone(), as_clients_see(value, binaries))).collect()
            }
        }
        plain => plain.clone(),
    }
}

// The captures.

/// What Node wrote, with the uid that we add to classic answers: as the last key.
fn with_extra_uid(payload: &[u8], uid: &str) -> Vec<u8> {
    if payload[0] == b'{' {
        let without_end = &payload[..payload.len() - 1];
        [without_end, format!(r#","uid":"{uid}"}}"#).as_bytes()].concat()
    } else {
        let mut with_uid = vec![payload[0] + 1];
        with_uid.extend(&payload[1..]);
        super::msgpack::push_str(&mut with_uid, "uid");
        super::msgpack::push_str(&mut with_uid, uid);
        with_uid
    }
}

impl Capture {
    fn check(&self) {
        let file = file(self.file);
        let messages = messages(&file);
        assert_eq!(messages.len(), self.n_messages, "{}", self.file);
        let mut different = Vec::new();
        for vector in &messages {
            if !self.check_message(vector) {
                // A number tells apart what one operation made a server send; it differs from mode to mode.
                let name = &*vector.name;
                let numeric = "broadcast-numeric-room";
                different.push(if name.starts_with(numeric) { numeric } else { name });
            }
        }
        let mut listed: Vec<&str> =
            self.different.iter().flat_map(|(_, names)| *names).copied().collect();
        different.sort_unstable();
        listed.sort_unstable();
        assert_eq!(different, listed, "{}", self.file);

        let vectors = file["vectors"].as_array().expect("a list of vectors");
        assert_eq!(vectors.len(), self.n_vectors, "{}", self.file);
        for vector in vectors {
            match text(&vector["kind"]) {
                "publish" => {}
                "query" | "subscription" => self.check_names(&file, vector),
                // Nothing was sent: there is nothing to read.
                "none" => assert_eq!(vector["command"], Value::Null),
                kind => panic!("{kind} is not checked"),
            }
        }
    }

    /// Reads a message, writes it again, and says whether that gives the same bytes.
    fn check_message(&self, vector: &Vector) -> bool {
        let (name, ns, uid) = (&vector.name, vector.ns(), vector.uid());
        let channels = self.protocol.channels(self.key, ns, "nobody");
        let addressed = addressed(&channels, vector);
        let decode = |payload: &[u8], uid: &str| {
            let decoded = self.protocol.decode(&addressed, payload, uid, ns);
            decoded.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let message = decode(&vector.payload, "nobody");
        let mut expected = expected(self.protocol, &vector.meaning);
        assert_eq!(view(&message), expected, "{name}");
        self.check_channel(vector, &channels, &message);

        let written = self.protocol.encode(&message, uid, ns);
        let written = written.unwrap_or_else(|error| panic!("{name}: {error}"));
        // It means the same to everybody but who has sent it.
        let again = view(&decode(&written, "nobody"));
        assert_eq!(decode(&written, uid), Message::Own, "{name}");
        if let Message::Response(_) = message
            && matches!(self.protocol, Protocol::Classic(_))
        {
            expected["id"] = again["id"].clone();
            assert_eq!(again, expected, "{name}");
            return written == with_extra_uid(&vector.payload, uid);
        }
        assert_eq!(again, expected, "{name}");
        written == vector.payload
    }

    /// The channel is the one that we would choose.
    fn check_channel(&self, vector: &Vector, channels: &Channels, message: &Message) {
        let name = &vector.name;
        match message {
            Message::Broadcast { selection, .. } => {
                assert_eq!(channels.broadcast(selection), vector.channel, "{name}");
            }
            Message::Request(_) => assert_eq!(channels.request(), vector.channel, "{name}"),
            Message::Response(_) => {
                let uid =
                    vector.channel.strip_prefix(channels.response()).expect("a response channel");
                let is_shared = uid.is_empty();
                let is_classic = matches!(self.protocol, Protocol::Classic(_));
                assert!(is_classic || !is_shared, "{name}");
                let uid = uid.trim_end_matches('#');
                assert!(is_shared || channels.response_to(uid) == vector.channel, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The names in a subscription or a query for the number of subscribers are those that we would use.
    fn check_names(&self, file: &Value, vector: &Value) {
        let command = text(&vector["command"]);
        let args: Vec<&str> =
            vector["args"].as_array().expect("arguments").iter().map(text).collect();
        let ns = if args.iter().any(|arg| arg.contains("#/admin#")) { "/admin" } else { "/" };
        let node = text(&vector["sender"]).split('/').next().expect("a node");
        let key = if ns == "/" { "uid" } else { "uid_admin" };
        let uid = file["nodes"][node][key].as_str().unwrap_or("unknown");
        let channels = self.protocol.channels(self.key, ns, uid);
        for arg in args {
            let is_right = match command {
                "PUBSUB" => arg == channels.request() || arg.ends_with("NUMSUB"),
                "PSUBSCRIBE" | "PUNSUBSCRIBE" => arg == channels.broadcast_pattern(),
                "SUBSCRIBE" | "UNSUBSCRIBE" => {
                    arg == channels.request()
                        || arg == channels.response()
                        || arg == channels.own_response()
                }
                "SSUBSCRIBE" | "SUNSUBSCRIBE" => match channels.addressed(arg.as_bytes()) {
                    Addressed::Any | Addressed::Response => true,
                    Addressed::Room(room) => channels.room(&room) == arg,
                    _ => false,
                },
                _ => false,
            };
            assert!(is_right, "{}: {command} {arg}", vector["name"]);
        }
    }
}

#[test]
fn every_captured_message_is_read_and_written_as_node_does() {
    for capture in &CAPTURES {
        capture.check();
    }
}

// The hand-made messages.

/// What becomes of each message of a file, as names by outcome. What clients are to see is what a client of Node saw.
fn outcomes(file_name: &str, protocol: Protocol) -> BTreeMap<&'static str, Vec<String>> {
    let mut outcomes: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for entry in file(file_name).as_array().expect("a list") {
        let injected = entry["inject"].as_array().expect("a list");
        for value in injected {
            // What was done with a subscription in place of a message has nothing to decode.
            let Some(_) = value["payload_base64"].as_str() else {
                outcomes.entry("no message").or_default().push(text(&entry["name"]).to_owned());
                continue;
            };
            let vector = vector(&entry["name"], value);
            let own = match &*vector.name {
                name if name.contains("own-uid") => vector.uid(),
                "broadcast-on-response-channel" => "a2864951bc3e888e",
                _ => "me",
            };
            let channels = protocol.channels("socket.io", vector.ns(), own);
            let addressed = addressed(&channels, &vector);
            let decoded = protocol.decode(&addressed, &vector.payload, own, vector.ns());
            let outcome = match &decoded {
                // What the rest of the adapter does with the name of the channel.
                Ok(_) if protocol == CLASSIC && is_unknown_room(&addressed) => "no room",
                Ok(Message::Broadcast { .. }) if addressed == Addressed::Response => "no answer",
                Ok(Message::Broadcast { data, .. }) => {
                    check_observed(entry, data);
                    "delivered"
                }
                Ok(Message::Request(_)) => "request",
                Ok(Message::Response(_)) => "response",
                Ok(Message::Own) => "own",
                Ok(Message::Foreign) => "foreign",
                Ok(Message::Ignored) => "ignored",
                Err(_) => "malformed",
            };
            let names = outcomes.entry(outcome).or_default();
            if names.last() != Some(&vector.name) && !names.contains(&vector.name) {
                names.push(vector.name);
            }
        }
    }
    outcomes
}

fn is_unknown_room(addressed: &Addressed<'_>) -> bool {
    matches!(addressed, Addressed::Room(room) if room != "room1")
}

/// Compares the arguments of an event with those that a client of a Node server got.
fn check_observed(entry: &Value, data: &EventData) {
    let Some(event) = entry["observed"]["events"].as_array().and_then(|events| events.first())
    else {
        return;
    };
    let Some(args) = event.get("args").filter(|args| args[0] != "<ack>") else { return };
    let json = inline_buffers(&data.json, &data.attachments).expect("right placeholders");
    let json: Value = json.parse().expect("JSON");
    assert_eq!(json[0], event["ev"], "{}", entry["name"]);
    let seen = &json.as_array().expect("an array")[1..];
    assert_eq!(seen, args.as_array().expect("a list"), "{}", entry["name"]);
}

fn check_outcomes(outcomes: &BTreeMap<&str, Vec<String>>, expected: &[(&str, &[&str])]) {
    for (outcome, names) in outcomes {
        let expected = expected.iter().find(|(name, _)| name == outcome);
        let (_, expected) = expected.unwrap_or_else(|| panic!("{outcome}: {names:?}"));
        assert_eq!(names, expected, "{outcome}");
    }
    assert_eq!(outcomes.len(), expected.len());
}

#[test]
fn hand_made_classic_messages_are_treated_as_node_does_or_better() {
    let outcomes = outcomes("behaviour-classic.json", CLASSIC);
    let expected: &[(&str, &[&str])] = &[
        (
            "delivered",
            &[
                "valid",
                "uid-null",
                "no-flags",
                "opts-empty-map",
                "opts-rooms-null",
                "extra-element-and-keys",
                "packet-nsp-missing",
                // Clients of Node close their connection on it; ours get a right packet.
                "packet-type-5-binary-event",
                "packet-with-id",
                "room-channel-known",
                "room-channel-known-but-opts-rooms-empty",
                "base-channel-with-single-room",
                "flag-local-on-the-wire",
                "non-minimal-integers",
                "float-type",
                "unknown-ext",
                "legacy-ext-undefined-date",
                "float32",
            ],
        ),
        ("foreign", &["packet-nsp-other", "nsp-as-bin"]),
        (
            "ignored",
            &["json-on-broadcast-channel", "request-unknown-type", "request-type-as-string"],
        ),
        // Node ends, goes deaf, or ignores it.
        (
            "malformed",
            &[
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
                "response-garbage",
                "response-msgpack-null",
            ],
        ),
        (
            "no message",
            &["request-remote-join-legacy", "request-join-own-uid", "request-join-rooms-string"],
        ),
        (
            "no room",
            &["room-channel-unknown-room-known-opts", "room-channel-without-trailing-hash"],
        ),
        (
            "own",
            // Node applies its own joins when they come back; here they are applied before.
            &[
                "own-uid",
                "request-join-own-uid",
                "request-sse-own-uid",
                "request-broadcast-ack-own-uid",
            ],
        ),
        (
            "request",
            &[
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
            ],
        ),
        ("response", &["response-unknown-id"]),
    ];
    check_outcomes(&outcomes, expected);
}

#[test]
fn hand_made_sharded_messages_are_treated_as_node_does_or_better() {
    let outcomes = outcomes("behaviour-sharded.json", Protocol::Sharded(ShardedMode::Dynamic));
    let expected: &[(&str, &[&str])] = &[
        (
            "delivered",
            &[
                "valid-json",
                "valid-msgpack-without-binary",
                // Nothing is received of this one and of that on the channel of a private room: neither is
                // subscribed to.
                "plain-publish",
                "uid-missing",
                "packet-nsp-other",
                "no-flags",
                "opts-empty",
                "emitter-uid",
                "room-channel-dynamic",
                "room-channel-rooms-empty",
                "main-channel-single-room",
                "private-room-main-channel",
                "private-room-own-channel",
                // Clients of Node close their connection on it; ours get a right packet.
                "packet-type-5",
            ],
        ),
        ("foreign", &["nsp-missing"]),
        ("ignored", &["unknown-type", "heartbeats"]),
        // Node ends, goes deaf, or ignores it.
        (
            "malformed",
            &["opts-missing", "data-missing", "garbage", "msgpack-null", "response-without-data"],
        ),
        ("no answer", &["broadcast-on-response-channel"]),
        ("own", &["own-uid"]),
        ("request", &["fetch", "fetch-no-match", "sse-ack", "broadcast-ack"]),
    ];
    check_outcomes(&outcomes, expected);
}
