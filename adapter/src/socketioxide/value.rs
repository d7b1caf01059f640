//! Event data as socketioxide's parsers keep it, and as it travels inside of this crate.

use bytes::Bytes;
use protocol::{
    msgpack::{TranscodeError, json_to_msgpack, msgpack_to_json},
    socket::{EventData, PacketError, check_placeholders, parse_args, renumber},
};
use socketioxide_core::{Str, Value};
use thiserror::Error;

/// Why data could not be converted.
#[derive(Debug, Error)]
pub(super) enum ValueError {
    #[error(transparent)]
    Transcode(#[from] TranscodeError),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("bytes behind the value")]
    TrailingBytes,
}

/// What a parser keeps data as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// JSON text with the binaries beside it.
    Json,
    /// MessagePack.
    MessagePack,
}

/// Reads data that the parser of this application made, or took from a client without checking all of it.
pub(super) fn to_event_data(value: &Value) -> Result<EventData, ValueError> {
    match value {
        Value::Str(json, attachments) => {
            let attachments: Vec<Bytes> = attachments.iter().flatten().cloned().collect();
            parse_args(json)?;
            if !attachments.is_empty() {
                check_placeholders(json, attachments.len())?;
            }
            Ok(EventData { json: json.as_str().into(), attachments })
        }
        Value::Bytes(bytes) => {
            let decoded = msgpack_to_json(bytes, usize::MAX)?;
            if decoded.consumed != bytes.len() {
                return Err(ValueError::TrailingBytes);
            }
            parse_args(&decoded.json)?;
            Ok(EventData { json: decoded.json.into(), attachments: decoded.attachments })
        }
    }
}

/// Gives data to the parser of this application.
pub(super) fn from_event_data(data: EventData, kind: ValueKind) -> Result<Value, ValueError> {
    match kind {
        ValueKind::Json => {
            // The parser takes binaries in the order of the text, whatever their numbers say.
            let EventData { json, attachments } = if data.attachments.is_empty() {
                data
            } else {
                renumber(&data.json, &data.attachments)
            };
            let attachments = (!attachments.is_empty()).then(|| attachments.into());
            Ok(Value::Str(Str::from(String::from(json)), attachments))
        }
        ValueKind::MessagePack => {
            let mut out = Vec::with_capacity(data.json.len());
            json_to_msgpack(&mut out, &data.json, &data.attachments)?;
            Ok(Value::Bytes(out.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str, attachments: &[&'static [u8]]) -> EventData {
        let attachments = attachments.iter().copied().map(Bytes::from_static).collect();
        EventData { json: json.into(), attachments }
    }

    #[test]
    fn data_survives_both_parsers() {
        let events = [
            data(r#"["ev",1,"two",{"three":[3.5,null,true]}]"#, &[]),
            data(
                r#"["bin",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#,
                &[&[1, 2], &[]],
            ),
        ];
        for event in events {
            for kind in [ValueKind::Json, ValueKind::MessagePack] {
                let value = from_event_data(event.clone(), kind).expect("valid");
                assert_eq!(to_event_data(&value).expect("valid"), event, "{kind:?}");
            }
        }
    }

    #[test]
    fn binaries_come_in_the_order_of_the_text() {
        let event = data(
            r#"["ev",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#,
            &[b"second", b"first"],
        );
        let value = from_event_data(event, ValueKind::Json).expect("valid");
        let expected = data(
            r#"["ev",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
            &[b"first", b"second"],
        );
        assert_eq!(to_event_data(&value).expect("valid"), expected);
    }

    #[test]
    fn what_a_client_may_have_written_is_checked() {
        for json in ["", "{}", "[1", "[1]x", r#"[{"_placeholder":true,"num":1}]"#] {
            let value = Value::Str(Str::from(json.to_owned()), Some([Bytes::new()].into()));
            to_event_data(&value).expect_err(json);
        }
        for bytes in [&[][..], &[0xc1], &[0x91], &[0x90, 0x00], &[0x80]] {
            to_event_data(&Value::Bytes(Bytes::copy_from_slice(bytes))).expect_err("no array");
        }
    }
}
