//! Arguments of any kind, binaries and the order of keys included.

use adapter::socketioxide::event_data;
use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::socket::EventData;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeTuple},
};
use std::fmt;

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Binary(Vec<u8>),
    List(Vec<Arg>),
    Map(Vec<(String, Arg)>),
}

/// All arguments of an event or of an answer. As a tuple, because socketioxide takes anything else for one argument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args(pub Vec<Arg>);

impl Args {
    /// Arguments of a console line: placeholders stand for binaries in Base64.
    pub fn new(args: Vec<Arg>, attachments: &[String]) -> Result<Self, base64::DecodeError> {
        let attachments: Result<Vec<_>, _> =
            attachments.iter().map(|text| BASE64_STANDARD.decode(text)).collect();
        let mut args = Self(args);
        let attachments = attachments?;
        args.0.iter_mut().for_each(|arg| arg.fill(&attachments));
        Ok(args)
    }

    /// Arguments, with the name in front, of an event of another server.
    pub fn of(data: &EventData) -> Option<Self> {
        let mut args: Self = serde_json::from_str(&data.json).ok()?;
        let attachments: Vec<_> = data.attachments.iter().map(|binary| binary.to_vec()).collect();
        args.0.iter_mut().for_each(|arg| arg.fill(&attachments));
        Some(args)
    }

    /// As data of the adapter.
    pub fn to_data(&self) -> Result<EventData, serde_json::Error> {
        let mut attachments = Vec::new();
        let lifted: Vec<_> = self.0.iter().map(|arg| arg.lift(&mut attachments)).collect();
        let mut data = event_data(&lifted)?;
        data.attachments = attachments.into_iter().map(Into::into).collect();
        Ok(data)
    }
}

impl Arg {
    /// Puts binaries in the place of their placeholders.
    fn fill(&mut self, attachments: &[Vec<u8>]) {
        if let Some(binary) = self.placeholder().and_then(|num| attachments.get(num)) {
            *self = Arg::Binary(binary.clone());
            return;
        }
        match self {
            Arg::List(list) => list.iter_mut().for_each(|arg| arg.fill(attachments)),
            Arg::Map(map) => map.iter_mut().for_each(|(_, arg)| arg.fill(attachments)),
            _ => {}
        }
    }

    /// The same with placeholders for the binaries.
    fn lift(&self, attachments: &mut Vec<Vec<u8>>) -> Self {
        match self {
            Arg::Binary(binary) => {
                attachments.push(binary.clone());
                Arg::Map(vec![
                    (String::from("_placeholder"), Arg::Bool(true)),
                    (String::from("num"), Arg::Unsigned(attachments.len() as u64 - 1)),
                ])
            }
            Arg::List(list) => Arg::List(list.iter().map(|arg| arg.lift(attachments)).collect()),
            Arg::Map(map) => Arg::Map(
                map.iter().map(|(key, arg)| (key.clone(), arg.lift(attachments))).collect(),
            ),
            other => other.clone(),
        }
    }

    fn placeholder(&self) -> Option<usize> {
        let Arg::Map(map) = self else { return None };
        match &map[..] {
            [(mark, Arg::Bool(true)), (num, Arg::Unsigned(index))]
                if mark == "_placeholder" && num == "num" =>
            {
                usize::try_from(*index).ok()
            }
            _ => None,
        }
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|arg| tuple.serialize_element(arg))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArgsVisitor;

        impl<'de> Visitor<'de> for ArgsVisitor {
            type Value = Args;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
                let mut args = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    args.push(arg);
                }
                Ok(Args(args))
            }
        }

        // The length is only a hint; there are as many as came.
        deserializer.deserialize_tuple(0, ArgsVisitor)
    }
}

impl Serialize for Arg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Arg::Null => serializer.serialize_unit(),
            Arg::Bool(value) => serializer.serialize_bool(*value),
            Arg::Unsigned(value) => serializer.serialize_u64(*value),
            Arg::Signed(value) => serializer.serialize_i64(*value),
            Arg::Float(value) => serializer.serialize_f64(*value),
            Arg::Text(value) => serializer.serialize_str(value),
            Arg::Binary(value) => serializer.serialize_bytes(value),
            Arg::List(list) => serializer.collect_seq(list),
            Arg::Map(map) => {
                let mut out = serializer.serialize_map(Some(map.len()))?;
                map.iter().try_for_each(|(key, arg)| out.serialize_entry(key, arg))?;
                out.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Arg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ArgVisitor)
    }
}

struct ArgVisitor;

impl<'de> Visitor<'de> for ArgVisitor {
    type Value = Arg;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Arg, E> {
        Ok(Arg::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Arg, E> {
        Ok(Arg::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Arg, E> {
        Ok(Arg::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Arg, E> {
        Ok(Arg::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Arg, E> {
        Ok(Arg::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Arg, E> {
        Ok(Arg::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Arg, E> {
        Ok(Arg::Binary(value.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Arg, A::Error> {
        let mut list = Vec::new();
        while let Some(arg) = seq.next_element()? {
            list.push(arg);
        }
        Ok(Arg::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Arg, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Arg::Map(map))
    }
}
