//! What notepack.io 3.0.1 and the Node adapters wrote, byte by byte.

use std::{fs, path::Path};

use bytes::Bytes;
use protocol::msgpack::{json_to_msgpack, msgpack_to_json};
use serde_json::{Value, json};

fn vectors(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../adapter/tests/vectors");
    let text = fs::read_to_string(folder.join(name)).expect("the vectors of the adapter crate");
    serde_json::from_str(&text).expect("vectors are JSON")
}

fn bytes_of(hex: &Value) -> Option<Vec<u8>> {
    let hex = hex.as_str()?;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

fn encode(json: &str, attachments: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    json_to_msgpack(&mut out, json, attachments).expect("right JSON");
    out
}

/// The notation of the vectors for what JSON lacks, turned into what we make of it; numbers become doubles.
fn expected(decoded: &Value) -> Value {
    let number = |text: &str| text.parse::<f64>().map_or(Value::Null, |number| json!(number));
    match decoded {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(expected).collect(),
        Value::Object(entries) => {
            if let Some(text) = ["$u64", "$i64", "$f64"].iter().find_map(|key| entries.get(*key)) {
                return number(text.as_str().expect("numbers are kept as text"));
            }
            if entries.contains_key("$bin") {
                return json!({"_placeholder": true, "num": 0.0});
            }
            if let Some(date) = entries.get("$timestamp") {
                return date.clone();
            }
            entries.iter().map(|(key, value)| (key.clone(), expected(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn every_notepack_encoding_decodes() {
    let mut count = 0;
    for vector in vectors("value-encodings.json").as_array().expect("a list") {
        for library in ["notepack", "msgpack"] {
            let Some(bytes) = bytes_of(&vector[library]["hex"]) else { continue };
            let decoded = msgpack_to_json(&bytes, 10).expect("what a library wrote");
            let value: Value = serde_json::from_str(&decoded.json).expect("JSON");
            let name = &vector["name"];
            assert_eq!(expected(&value), expected(&vector[library]["decoded"]), "{name}");
            assert_eq!(decoded.consumed, bytes.len(), "{name}");
            count += 1;
        }
    }
    assert!(count > 100, "{count} encodings");
}

#[test]
fn json_is_encoded_as_notepack_encodes_the_same_value() {
    // JSON has no such value, or `JSON.stringify` writes something else for it.
    const NOT_JSON: [&str; 16] = [
        "NaN",
        "Infinity",
        "-Infinity",
        "undefined",
        "Buffer",
        "empty Buffer",
        "Buffer(256)",
        "Uint8Array",
        "Uint16Array [1, 258]",
        "Float64Array [1]",
        "DataView(2)",
        "ArrayBuffer(2)",
        "Date 1700000000000",
        "Date 1700000000123",
        "Date -1000",
        "Date 2^34 s",
    ];
    // notepack writes the low 64 bits of these; a double, as @msgpack/msgpack writes it, keeps the value.
    const TOO_LARGE: [&str; 4] = ["2^64", "1e20", "1e300", "-1e300"];

    let mut count = 0;
    for vector in vectors("value-encodings.json").as_array().expect("a list") {
        let name = vector["name"].as_str().expect("a name");
        let (Some(json), false) = (vector["json"].as_str(), NOT_JSON.contains(&name)) else {
            continue;
        };
        // JavaScript prints 2^63 with as many digits as tell it from its neighbours; we keep all that we read.
        let json = if name == "2^63" { "9223372036854775808" } else { json };
        let library = if TOO_LARGE.contains(&name) { "msgpack" } else { "notepack" };
        let Some(bytes) = bytes_of(&vector[library]["hex"]) else { continue };
        assert_eq!(encode(json, &[]), bytes, "{name}");
        count += 1;
    }
    assert!(count > 45, "{count} encodings");
}

#[test]
fn captured_messages_survive_the_way_through_json() {
    // Dates, NaN and a corrupted large number come back as the values that JSON has for them.
    const CHANGED: [&str; 6] = [
        "broadcast-scalars",
        "broadcast-scalars-with-binary",
        "broadcast-date",
        "broadcast-date-with-binary",
        "emitter-values",
        "emitter-values-with-binary",
    ];

    let mut count = 0;
    for file in ["classic.json", "classic-custom-key.json", "emitter-classic.json"] {
        for vector in vectors(file)["vectors"].as_array().expect("a list") {
            if vector["encoding"] != "msgpack" {
                continue;
            }
            let name = &vector["name"];
            let bytes = bytes_of(&vector["payload_hex"]).expect("hexadecimal digits");
            let decoded = msgpack_to_json(&bytes, 100).expect("what Node wrote");
            let again = encode(&decoded.json, &decoded.attachments);
            if CHANGED.iter().any(|changed| name == changed) {
                let stable = msgpack_to_json(&again, 100).map(|decoded| decoded.json);
                assert_eq!(stable.as_deref(), Ok(decoded.json.as_str()), "{name}");
                assert_ne!(again, bytes, "{name} needs no exception");
            } else {
                assert_eq!(again, bytes, "{name}: {}", decoded.json);
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count} messages");
}
