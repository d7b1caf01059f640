//! Every message that was recorded between Node servers, and every hand-made one whose effect on a Node server was
//! recorded, read and written here.
//!
//! The files `streams*.json`, `emitter-streams.json`, `behaviour-streams.json` and `csr-frames.json` are about the
//! streams adapter, a third protocol that shares no message with these two.

mod hand_made;
mod view;

use self::view::{expected, view};
use super::{
    DecodeError, EncodeError, Message,
    channel::{Addressed, Channels},
    classic, sharded,
};
use crate::{ClusterParser, ShardedMode};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use std::{fs, path::Path};

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

#[derive(Clone, Copy)]
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
