//! Arguments as a rule writes them, and how they become the JSON text of an event or an ack.

use super::{
    Refusal, RefusalCode,
    arguments::{Found, Reference, Source},
};
use protocol::socket::{EventData, is_within_limits, renumber};
use smallvec::SmallVec;

/// The arguments of an event or an ack.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    arguments: Vec<Argument>,
    /// Whether what it makes can be nested deeper than what came in.
    deepens: bool,
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
    pub(super) fn new(arguments: Vec<Argument>) -> Self {
        let deepens = arguments.iter().any(Argument::deepens);
        Self { arguments, deepens }
    }

    /// How many entries were written for it.
    pub(super) fn n_arguments(&self) -> usize {
        self.arguments.len()
    }

    /// Writes `["name",arg,…]`, or `[arg,…]` for an ack. `name` is JSON text. Attachments that are
    /// not referred to stay behind.
    pub(super) fn compose(
        &self,
        name: Option<&str>,
        source: &Source<'_>,
    ) -> Result<EventData, Refusal> {
        let json = self.write(name, source)?;
        if self.deepens && !is_within_limits(&json) {
            let message = "the event is nested too deep for this rule";
            return Err(Refusal::new(RefusalCode::BadArgument, message));
        }
        Ok(if source.attachments.is_empty() {
            EventData { json: json.into_boxed_str(), attachments: Vec::new() }
        } else {
            renumber(&json, source.attachments)
        })
    }

    /// Writes `[arg]` for an ack of which only the first argument is wanted.
    pub(super) fn compose_first(&self, source: &Source<'_>) -> Result<EventData, Refusal> {
        let args = match self.arguments.as_slice() {
            [Argument::All] => &source.args[..source.args.len().min(1)],
            _ => source.args,
        };
        self.compose(None, &Source { args, ..*source })
    }

    /// All parts are collected first, so that the text is allocated once, with the size it has.
    fn write<'a>(&'a self, name: Option<&'a str>, source: &Source<'a>) -> Result<String, Refusal> {
        let mut parts = Parts::new();
        parts.push("[");
        parts.extend(name);
        for argument in &self.arguments {
            match argument {
                Argument::All => {
                    for value in source.args {
                        separate(&mut parts);
                        parts.push(value.get());
                    }
                }
                Argument::Value(pieces) => {
                    separate(&mut parts);
                    for piece in pieces {
                        piece.find(&mut parts, source)?;
                    }
                }
            }
        }
        parts.push("]");
        let mut json = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            json.push_str(part);
        }
        Ok(json)
    }
}

type Parts<'a> = SmallVec<[&'a str; 8]>;

fn separate(parts: &mut Parts<'_>) {
    if parts.len() > 1 {
        parts.push(",");
    }
}

impl Argument {
    /// A value that an event brought may stand at the top, where it has been, or rise to it.
    fn deepens(&self) -> bool {
        match self {
            Self::All => false,
            Self::Value(pieces) => match pieces.as_slice() {
                // The whole `auth` was not inside of an array.
                [Piece::Reference(reference)] => matches!(reference, Reference::Auth(_)),
                [Piece::Json(text)] => text.starts_with(['[', '{']),
                _ => true,
            },
        }
    }
}

impl Piece {
    fn find<'a>(&'a self, parts: &mut Parts<'a>, source: &Source<'a>) -> Result<(), Refusal> {
        match self {
            Self::Json(text) => parts.push(text),
            Self::Reference(reference) => match reference.find(source)? {
                Found::Value(value) => parts.push(value.get()),
                Found::Id(id) => parts.extend(["\"", id, "\""]),
                // A client may connect without `auth`; that is not an error of the event.
                Found::Missing if matches!(reference, Reference::Auth(_)) => parts.push("null"),
                Found::Missing => return Err(reference.missing()),
            },
        }
        Ok(())
    }
}
