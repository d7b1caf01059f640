//! The hand-made messages, with which the effect on Node servers was explored.

use super::{CLASSIC, Protocol, addressed, file, text, vector};
use crate::{
    ShardedMode,
    wire::{Message, channel::Addressed},
};
use protocol::socket::{EventData, inline_buffers};
use serde_json::Value;
use std::collections::BTreeMap;

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
