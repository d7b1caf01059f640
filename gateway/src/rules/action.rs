//! Compiled effects of a rule, and how they become actions.

use super::{
    Action, Emission, Refusal, RefusalCode, RoomName, Target,
    arguments::{Reference, Source},
    glob,
    template::Template,
};
use protocol::id::has_id_form;
use smallvec::SmallVec;

type Actions = SmallVec<[Action; 2]>;

/// What is done with one event.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// It is refused with this message.
    Refuse(Box<str>),
    /// It has effects, and perhaps an ack with arguments.
    Accept { effects: Effects, ack: Option<Template> },
}

/// The rules for named events, in the order of their names' lengths: a name from a client is found
/// among a few rules, and among many, without a hash, mostly by comparing lengths.
#[derive(Clone, Debug, Default)]
pub(super) struct EventRules(Vec<(Box<str>, Rule)>);

impl EventRules {
    pub(super) fn get(&self, event: &str) -> Option<&Rule> {
        self.place(event).ok().map(|at| &self.0[at].1)
    }

    /// Adds the rule for an event. Tells whether there was one already.
    pub(super) fn insert(&mut self, event: &str, rule: Rule) -> bool {
        match self.place(event) {
            Ok(at) => {
                self.0[at].1 = rule;
                true
            }
            Err(at) => {
                self.0.insert(at, (event.into(), rule));
                false
            }
        }
    }

    fn place(&self, event: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| {
            name.len().cmp(&event.len()).then_with(|| name.as_bytes().cmp(event.as_bytes()))
        })
    }
}

/// Joins, then emits, then leaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Effects {
    pub joins: Vec<Room>,
    /// Patterns of which a room name from the client has to match one before it is joined.
    pub allow: Vec<Box<str>>,
    pub emits: Vec<Emit>,
    pub leaves: Vec<Room>,
}

/// A room: its name, or where its name stands.
#[derive(Clone, Debug)]
pub(super) enum Room {
    Literal(RoomName),
    Reference(Reference),
}

/// An event that a rule emits.
#[derive(Clone, Debug)]
pub(super) struct Emit {
    /// The name as JSON text; `None` is the name of the event that came in.
    pub event: Option<Box<str>>,
    pub to: To,
    pub except: Vec<Room>,
    pub arguments: Template,
    pub volatile: bool,
}

/// Whom a rule emits to.
#[derive(Clone, Debug)]
pub(super) enum To {
    /// Everyone, others or sender.
    Fixed(Target),
    Id(Reference),
    Rooms {
        rooms: Vec<Room>,
        /// Patterns of which a room name from the client has to match one.
        allow: Vec<Box<str>>,
        /// Whether being in the room is enough instead.
        member: bool,
        /// Who gets it when no argument names a room.
        otherwise: Option<Target>,
    },
}

impl Effects {
    pub(super) fn decide(&self, source: &Source<'_>, actions: &mut Actions) -> Result<(), Refusal> {
        for room in &self.joins {
            let name = room.required(source)?;
            if matches!(room, Room::Reference(_)) {
                not_reserved(&name)?;
                if !allowed(&self.allow, &name) {
                    return Err(forbidden(&name));
                }
            }
            actions.push(Action::Join(name));
        }
        for emit in &self.emits {
            actions.push(Action::Emit(emit.decide(source)?));
        }
        for room in &self.leaves {
            let name = room.required(source)?;
            not_reserved(&name)?;
            actions.push(Action::Leave(name));
        }
        Ok(())
    }
}

impl Effects {
    /// The emits alone, for an event that no socket sent.
    pub(super) fn emissions(&self, source: &Source<'_>) -> Result<Vec<Emission>, Refusal> {
        self.emits.iter().map(|emit| emit.decide(source)).collect()
    }
}

impl Emit {
    fn decide(&self, source: &Source<'_>) -> Result<Emission, Refusal> {
        let target = self.to.decide(source)?;
        let except =
            self.except.iter().map(|room| room.required(source)).collect::<Result<_, _>>()?;
        let own_name;
        let name = match (&self.event, source.event) {
            (Some(name), _) => name.as_ref(),
            (None, event) => {
                // Text can always be written as JSON.
                own_name = serde_json::to_string(event.unwrap_or_default()).unwrap_or_default();
                &own_name
            }
        };
        let data = self.arguments.compose(Some(name), source)?;
        Ok(Emission { target, except, data, volatile: self.volatile })
    }
}

impl To {
    fn decide(&self, source: &Source<'_>) -> Result<Target, Refusal> {
        match self {
            Self::Fixed(target) => Ok(target.clone()),
            Self::Id(reference) => match reference.room(source)? {
                Some(id) if has_id_form(&id) => Ok(Target::Id(id)),
                Some(_) => Err(reference.bad("is not a socket id")),
                None => Err(reference.missing()),
            },
            Self::Rooms { rooms, allow, member, otherwise } => {
                let mut names = Vec::with_capacity(rooms.len());
                for room in rooms {
                    let name = match (room.find(source)?, otherwise) {
                        (Some(name), _) => name,
                        (None, Some(_)) => continue,
                        (None, None) => return Err(room.missing()),
                    };
                    room.check(&name, allow, *member, source)?;
                    names.push(name);
                }
                match (names.is_empty(), otherwise) {
                    (false, _) => Ok(Target::Rooms(names)),
                    (true, Some(target)) => Ok(target.clone()),
                    // Without `else` each room was found or refused, and a rule names at least one.
                    (true, None) => Err(Refusal::new(RefusalCode::BadArgument, "names no room")),
                }
            }
        }
    }
}

impl Room {
    fn find(&self, source: &Source<'_>) -> Result<Option<RoomName>, Refusal> {
        match self {
            Self::Literal(name) => Ok(Some(name.clone())),
            Self::Reference(reference) => reference.room(source),
        }
    }

    fn required(&self, source: &Source<'_>) -> Result<RoomName, Refusal> {
        self.find(source)?.ok_or_else(|| self.missing())
    }

    fn missing(&self) -> Refusal {
        match self {
            Self::Reference(reference) => reference.missing(),
            Self::Literal(_) => Refusal::new(RefusalCode::BadArgument, "names no room"),
        }
    }

    /// Whether the sender may emit to this room.
    fn check(
        &self,
        name: &RoomName,
        allow: &[Box<str>],
        member: bool,
        source: &Source<'_>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Reference(Reference::Id) => Ok(()),
            Self::Literal(_) if !member => Ok(()),
            _ if allowed(allow, name) => Ok(()),
            _ if !member => Err(forbidden(name)),
            _ if (source.context.is_member)(name) => Ok(()),
            _ => Err(Refusal::new(
                RefusalCode::NotMember,
                format!("only members may send to the room {:?}", &**name),
            )),
        }
    }
}

fn allowed(patterns: &[Box<str>], name: &str) -> bool {
    patterns.iter().any(|pattern| glob(pattern, name))
}

fn forbidden(name: &str) -> Refusal {
    Refusal::new(RefusalCode::ForbiddenRoom, format!("the room {name:?} is not allowed"))
}

/// A room with the form of a socket id is that socket's own: who joined it would read what is
/// meant for that socket alone.
fn not_reserved(name: &str) -> Result<(), Refusal> {
    if has_id_form(name) {
        let message = format!("the room {name:?} has the form of a socket id");
        return Err(Refusal::new(RefusalCode::ReservedRoom, message));
    }
    Ok(())
}
