//! Arguments as a rule writes them, and how they become the JSON text of an event or an ack.

use super::{
    Refusal, RefusalCode,
    arguments::{Found, Reference, Source},
};
use protocol::socket::{EventData, is_within_limits, renumber};

/// The arguments of an event or an ack.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub arguments: Vec<Argument>,
}

/// One entry of `args` or `ack`.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    /// `$*`: all arguments of the event, one after the other.
    All,
    /// A value: JSON text with references between.
    Value(Vec<Piece>),
}

/// A part of a value.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Json(String),
    Reference(Reference),
}

impl Template {
    /// Writes `["name",arg,…]`, or `[arg,…]` for an ack. `name` is JSON text. Attachments that are
    /// not referred to stay behind.
    pub(super) fn compose(
        &self,
        name: Option<&str>,
        source: &Source<'_>,
    ) -> Result<EventData, Refusal> {
        let mut json = String::with_capacity(self.capacity(name, source));
        json.push('[');
        if let Some(name) = name {
            json.push_str(name);
        }
        for argument in &self.arguments {
            match argument {
                Argument::All => {
                    for value in source.event.iter().flat_map(|event| event.args.iter()) {
                        separate(&mut json);
                        json.push_str(value.get());
                    }
                }
                Argument::Value(pieces) => {
                    separate(&mut json);
                    for piece in pieces {
                        piece.write(&mut json, source)?;
                    }
                }
            }
        }
        json.push(']');
        if !is_within_limits(&json) {
            let message = "the event is nested too deep for this rule";
            return Err(Refusal::new(RefusalCode::BadArgument, message));
        }
        Ok(if source.attachments.is_empty() {
            EventData { json: json.into_boxed_str(), attachments: Vec::new() }
        } else {
            renumber(&json, source.attachments)
        })
    }

    /// Enough for every value once: what is read twice may make the text grow.
    fn capacity(&self, name: Option<&str>, source: &Source<'_>) -> usize {
        let values: usize = source
            .event
            .iter()
            .flat_map(|event| event.args.iter())
            .map(|value| value.get().len() + 1)
            .sum();
        name.map_or(0, str::len) + values + 8
    }
}

fn separate(json: &mut String) {
    if json.len() > 1 {
        json.push(',');
    }
}

impl Piece {
    fn write(&self, json: &mut String, source: &Source<'_>) -> Result<(), Refusal> {
        match self {
            Self::Json(text) => json.push_str(text),
            Self::Reference(reference) => match reference.find(source)? {
                Found::Value(value) => json.push_str(value.get()),
                Found::Id(id) => {
                    json.push('"');
                    json.push_str(id);
                    json.push('"');
                }
                // A client may connect without `auth`; that is not an error of the event.
                Found::Missing if matches!(reference, Reference::Auth(_)) => json.push_str("null"),
                Found::Missing => return Err(reference.missing()),
            },
        }
        Ok(())
    }
}
