//! What must hold for every input, as one function per codec.
//!
//! `cargo +nightly fuzz run <name>` calls them with what the fuzzer finds, and the tests of the protocol crate with
//! seeded mutations of right input. They panic when something does not hold.

use std::str;

use bytes::Bytes;
use protocol::{
    engine,
    frame::{close_code, parse_header, unmask},
    msgpack::{
        TranscodeError, decode_packet, encode_packet, json_to_msgpack, msgpack_to_json, value_len,
    },
    socket::{self, Event, Packet, PacketError},
};
use serde_json::value::RawValue;

const ATTACHMENTS_MAX: usize = 10;

/// Packets and payloads read back as they were written.
pub fn engine(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(packet) = engine::Packet::parse_text(text) {
        let mut again = String::new();
        packet.encode(&mut again);
        assert_eq!(again, text);
    }
    let Ok(payload) = engine::payload_packets(text, 16) else { return };
    let mut body = String::new();
    let mut packets = Vec::new();
    for packet in payload.map_while(Result::ok) {
        engine::push_record(&mut body, &packet);
        packets.push(packet);
    }
    if !packets.is_empty() {
        let read = engine::payload_packets(&body, 16).expect("as many packets as before");
        assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(packets));
    }
}

/// A packet that is accepted reads back, and its data is JSON within the limits.
pub fn socket(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(packet) = Packet::parse(text, ATTACHMENTS_MAX) else { return };
    let mut again = String::new();
    let Packet { kind, attachments, namespace, id, data } = packet;
    socket::encode_packet(&mut again, kind, attachments, namespace, id, data);
    assert_eq!(Packet::parse(&again, ATTACHMENTS_MAX), Ok(packet));

    let args = socket::parse_args(data);
    let placeholders = socket::check_placeholders(data, attachments);
    if let Ok(event) = Event::parse(data) {
        assert!(!socket::RESERVED_NAMES.contains(&&*event.name));
        assert_eq!(args.as_ref().map(|args| args.len() - 1), Ok(event.args.len()));
    }
    // Two readers, serde_json and our own, agree on what is JSON.
    let is_array = serde_json::from_str::<Vec<&RawValue>>(data).is_ok();
    match &args {
        Ok(_) => assert!(is_array),
        Err(PacketError::TooDeep | PacketError::NumberRange) => {}
        Err(_) => assert!(!is_array),
    }
    if args.is_ok() {
        assert!(matches!(placeholders, Ok(()) | Err(PacketError::InvalidPlaceholder)));
        assert_eq!(json_to_msgpack(&mut Vec::new(), data, &[]), Ok(()));
    }
    let _ = socket::parse_auth(data);
}

/// What is known of a header does not change when more bytes come.
pub fn frame(data: &[u8]) {
    let whole = parse_header(data);
    for end in 0..data.len().min(16) {
        match parse_header(&data[..end]) {
            Ok(None) => {}
            known => assert_eq!(known, whole),
        }
    }
    if let Ok(Some(header)) = whole {
        assert!(header.header_len <= data.len());
        let mut payload = data[header.header_len..].to_vec();
        unmask(&mut payload, header.mask.unwrap_or_default());
        unmask(&mut payload, header.mask.unwrap_or_default());
        assert_eq!(payload, data[header.header_len..]);
    }
    let _ = close_code(data);
}

/// Our reader accepts the JSON that `serde_json` accepts, within the limits, and MessagePack keeps it.
pub fn json(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut bytes = Vec::new();
    let encoded = json_to_msgpack(&mut bytes, text, &[]);
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    match encoded {
        Ok(()) => assert!(is_json),
        Err(TranscodeError::InvalidJson) => assert!(!is_json),
        Err(error) => {
            assert!(matches!(error, TranscodeError::TooDeep | TranscodeError::NumberRange));
        }
    }
    if encoded.is_ok() {
        let decoded = msgpack_to_json(&bytes, 0).expect("what was encoded");
        let mut again = Vec::new();
        json_to_msgpack(&mut again, &decoded.json, &[]).expect("our JSON");
        assert_eq!(again, bytes);
    }
}

/// Whatever is read becomes right JSON, and from there on nothing changes any more.
pub fn msgpack(data: &[u8]) {
    let len = value_len(data);
    let Ok(decoded) = msgpack_to_json(data, ATTACHMENTS_MAX) else { return };
    assert_eq!(len, Ok(decoded.consumed));
    assert!(serde_json::from_str::<&RawValue>(&decoded.json).is_ok());
    if !decoded.attachments.is_empty() {
        let count = decoded.attachments.len();
        assert_eq!(socket::check_placeholders(&decoded.json, count), Ok(()));
    }
    let mut again = Vec::new();
    json_to_msgpack(&mut again, &decoded.json, &decoded.attachments).expect("our JSON");
    let stable = msgpack_to_json(&again, ATTACHMENTS_MAX).expect("our MessagePack");
    assert_eq!((stable.json, stable.attachments), (decoded.json, decoded.attachments));
}

/// A client packet reads back.
pub fn packet(data: &[u8]) {
    let Ok(packet) = decode_packet(data, ATTACHMENTS_MAX) else { return };
    let mut bytes = Vec::new();
    let (json, attachments) = (&packet.data.json, &packet.data.attachments);
    encode_packet(&mut bytes, packet.kind, packet.namespace, packet.id, json, attachments)
        .expect("our JSON");
    assert_eq!(decode_packet(&bytes, ATTACHMENTS_MAX).as_ref(), Ok(&packet));
    let _ = Event::parse(json);
}

/// What `renumber` returns refers to each of its attachments exactly once.
pub fn placeholders(data: &[u8]) {
    let Some((count, data)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(data) else { return };
    let attachments: Vec<Bytes> = (0..count % 5).map(|number| vec![number].into()).collect();
    let result = socket::renumber(text, &attachments);
    if attachments.is_empty() || json_to_msgpack(&mut Vec::new(), text, &[]).is_err() {
        assert_eq!((&*result.json, result.attachments.len()), (text, 0));
        return;
    }
    assert_eq!(socket::check_placeholders(&result.json, result.attachments.len()), Ok(()));
    let mut bytes = Vec::new();
    json_to_msgpack(&mut bytes, &result.json, &result.attachments).expect("right placeholders");
    let decoded = msgpack_to_json(&bytes, usize::MAX).expect("what was encoded");
    assert_eq!(decoded.attachments, result.attachments);
}
