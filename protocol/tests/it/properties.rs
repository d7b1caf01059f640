//! Round trips of generated values.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use protocol::{
    engine::{self, payload_packets, push_record},
    frame::{Opcode, encode_masked_header, parse_header, unmask},
    msgpack::{decode_packet, encode_packet, json_to_msgpack, msgpack_to_json, value_len},
    socket::{
        ACK_ID_MAX, Event, Packet, PacketKind, check_placeholders, encode_packet as encode_text,
        renumber,
    },
};
use serde_json::{Map, Value, json};

/// A JSON value in which each `null` of [`Shape::Binary`] stands for an attachment.
#[derive(Clone, Debug)]
enum Shape {
    Plain(Value),
    Binary(Vec<u8>),
    Array(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

impl Shape {
    /// Builds the value, putting placeholders where binaries are.
    fn build(&self, attachments: &mut Vec<Bytes>) -> Value {
        match self {
            Shape::Plain(value) => value.clone(),
            Shape::Binary(data) => {
                attachments.push(data.clone().into());
                json!({"_placeholder": true, "num": attachments.len() - 1})
            }
            Shape::Array(shapes) => shapes.iter().map(|shape| shape.build(attachments)).collect(),
            Shape::Object(entries) => {
                // A map orders its keys, and so do the binaries have to be numbered.
                let ordered: std::collections::BTreeMap<_, _> = entries.iter().cloned().collect();
                let build =
                    |(key, shape): (&String, &Shape)| (key.clone(), shape.build(attachments));
                Value::Object(ordered.iter().map(build).collect::<Map<_, _>>())
            }
        }
    }
}

fn plain() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000..1000_i64).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |number| number.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        4 => plain().prop_map(Shape::Plain),
        1 => vec(any::<u8>(), 0..300).prop_map(Shape::Binary),
    ];
    leaf.prop_recursive(5, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Shape::Array),
            vec((any::<String>(), inner), 0..20).prop_map(Shape::Object),
        ]
    })
}

/// Events and what they carry: the JSON text of the array and its attachments.
fn event() -> impl Strategy<Value = (String, Vec<Bytes>)> {
    ("[a-z]{1,8}é?", vec(shape(), 0..4)).prop_map(|(name, args)| {
        let mut attachments = Vec::new();
        let mut values = vec![Value::from(format!("_{name}"))];
        values.extend(args.iter().map(|arg| arg.build(&mut attachments)));
        (Value::Array(values).to_string(), attachments)
    })
}

/// Integral doubles are integers after a round trip, as in JavaScript. serde_json reads some doubles one unit too
/// high or low, so here they only have to be close; [`doubles_keep_all_their_bits`] is exact.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap_or(0.0), other.as_f64().unwrap_or(0.0));
            (one - other).abs() <= one.abs() * 1e-15
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one.0 == other.0 && same(one.1, other.1))
        }
        _ => one == other,
    }
}

fn packet() -> impl Strategy<Value = engine::Packet<'static>> {
    let text = || "[^\u{1e}]{0,20}".prop_map(|text| &*text.leak());
    prop_oneof![
        text().prop_map(engine::Packet::Message),
        text().prop_map(engine::Packet::Ping),
        text().prop_map(engine::Packet::Pong),
        Just(engine::Packet::Close),
        Just(engine::Packet::Upgrade),
        Just(engine::Packet::Noop),
        vec(any::<u8>(), 0..50).prop_map(|data| engine::Packet::Binary(data.into())),
    ]
}

/// Reads frames as a connection does: what is there is parsed, what is incomplete waits for the next chunk.
fn read_frames(chunks: &[&[u8]]) -> Vec<(Opcode, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut buffer = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while let Some(header) = parse_header(&buffer).expect("right headers") {
            let end =
                header.header_len + usize::try_from(header.payload_len).expect("small frames");
            if buffer.len() < end {
                break;
            }
            let mut payload = buffer[header.header_len..end].to_vec();
            unmask(&mut payload, header.mask.expect("client frames are masked"));
            frames.push((header.opcode, payload));
            buffer.drain(..end);
        }
    }
    assert!(buffer.is_empty());
    frames
}

proptest! {
    #[test]
    fn json_survives_the_way_through_msgpack((json, attachments) in event()) {
        let mut bytes = Vec::new();
        json_to_msgpack(&mut bytes, &json, &attachments).expect("right JSON");
        let decoded = msgpack_to_json(&bytes, attachments.len()).expect("what was encoded");
        let (before, after): (Value, Value) = (
            serde_json::from_str(&json).expect("generated JSON"),
            serde_json::from_str(&decoded.json).expect("our JSON"),
        );
        prop_assert!(same(&before, &after), "{json} became {}", decoded.json);
        prop_assert_eq!(&decoded.attachments, &attachments);
        prop_assert_eq!(decoded.consumed, bytes.len());
        prop_assert_eq!(value_len(&bytes), Ok(bytes.len()));
        // The form is stable from here on, and another library reads the same.
        let mut again = Vec::new();
        json_to_msgpack(&mut again, &decoded.json, &decoded.attachments).expect("our JSON");
        prop_assert_eq!(&again, &bytes);
        let mut rest = &bytes[..];
        prop_assert!(rmpv::decode::read_value(&mut rest).is_ok() && rest.is_empty());
    }

    #[test]
    fn doubles_keep_all_their_bits(number in any::<f64>()) {
        prop_assume!(number.is_finite());
        let mut bytes = vec![0xcb];
        bytes.extend_from_slice(&number.to_be_bytes());
        let json = msgpack_to_json(&bytes, 0).expect("a double").json;
        prop_assert_eq!(json.parse(), Ok(number));
        let mut again = Vec::new();
        json_to_msgpack(&mut again, &format!("{number:e}"), &[]).expect("a number");
        let text = msgpack_to_json(&again, 0).expect("what was encoded").json;
        prop_assert_eq!(text.parse(), Ok(number));
    }

    #[test]
    fn truncated_msgpack_is_an_error((json, attachments) in event(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        json_to_msgpack(&mut bytes, &json, &attachments).expect("right JSON");
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(msgpack_to_json(&bytes, 1000).is_err());
        prop_assert!(value_len(&bytes).is_err());
    }

    #[test]
    fn socket_packets_read_back(
        (json, attachments) in event(),
        namespace in "/[^,\\p{Cc}]{0,10}",
        id in prop::option::of(0..=ACK_ID_MAX),
    ) {
        let kind = PacketKind::Event.with_attachments(attachments.len());
        let mut text = String::new();
        encode_text(&mut text, kind, attachments.len(), &namespace, id, &json);
        let packet = Packet::parse(&text, attachments.len()).expect("what was encoded");
        let expected =
            Packet { kind, attachments: attachments.len(), namespace: &namespace, id, data: &json };
        prop_assert_eq!(packet, expected);
        prop_assert_eq!(check_placeholders(&json, attachments.len()), Ok(()));
        let data = renumber(&json, &attachments);
        prop_assert_eq!((&*data.json, &data.attachments), (&*json, &attachments));
        let event = Event::parse(&json).expect("an event");
        let args: Vec<&str> = event.args.iter().map(|arg| arg.get()).collect();
        let name = Value::from(event.name).to_string();
        let rebuilt = std::iter::once(name.as_str()).chain(args).collect::<Vec<_>>().join(",");
        prop_assert_eq!(format!("[{rebuilt}]"), json);
    }

    #[test]
    fn msgpack_packets_read_back(
        (json, attachments) in event(),
        namespace in "/[^\\p{Cc}]{0,40}",
        id in prop::option::of(0..=ACK_ID_MAX),
    ) {
        let kind = PacketKind::Event.with_attachments(attachments.len());
        let mut bytes = Vec::new();
        encode_packet(&mut bytes, kind, &namespace, id, &json, &attachments).expect("right data");
        let packet = decode_packet(&bytes, attachments.len()).expect("what was encoded");
        prop_assert_eq!((packet.kind, packet.namespace, packet.id), (kind, namespace.as_str(), id));
        prop_assert_eq!(packet.data.attachments, attachments);
    }

    #[test]
    fn engine_payloads_read_back(packets in vec(packet(), 1..10)) {
        let mut body = String::new();
        for packet in &packets {
            push_record(&mut body, packet);
        }
        let read: Result<Vec<_>, _> = payload_packets(&body, 10).expect("few packets").collect();
        prop_assert_eq!(read, Ok(packets));
    }

    #[test]
    fn frames_do_not_depend_on_where_the_chunks_end(
        messages in vec((vec(any::<u8>(), 0..400), any::<[u8; 4]>()), 1..6),
        mut cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut stream = Vec::new();
        for (payload, mask) in &messages {
            encode_masked_header(&mut stream, Opcode::Binary, payload.len(), *mask);
            let start = stream.len();
            stream.extend_from_slice(payload);
            unmask(&mut stream[start..], *mask);
        }
        let mut ends: Vec<usize> = cuts.drain(..).map(|cut| cut.index(stream.len())).collect();
        ends.push(0);
        ends.push(stream.len());
        ends.sort_unstable();
        let chunks: Vec<&[u8]> = ends.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        let frames = read_frames(&chunks);
        let expected: Vec<_> =
            messages.into_iter().map(|(payload, _)| (Opcode::Binary, payload)).collect();
        prop_assert_eq!(frames, expected);
    }
}
