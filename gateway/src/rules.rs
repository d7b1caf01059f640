//! What a client event does, decided by configuration alone.
//!
//! [`Rules`] are compiled once from the `[[namespace]]` tables. [`Rules::decide`] is a pure
//! function of an event and its sender: it does nothing itself, it says what is to be done. What a
//! client sends is only ever used as a literal: an argument can name a room, it can never become a
//! pattern, a selection of everybody, or another argument.
//!
//! Events of other servers (`serverSideEmit`) have rules of their own, [`Rules::decide_server`].
//!
//! Rules that hand events to a backend (`forward`, claims such as `{sub}`) are refused in one place,
//! `read::backend_keys`.

mod action;
mod arguments;
mod glob;
mod read;
mod template;
#[cfg(test)]
mod tests;

pub use glob::glob;

use action::{Effects, Rule};
use adapter::RoomName;
use arguments::Source;
use bytes::Bytes;
use protocol::{
    json::RawJson,
    socket::{Event, EventData},
};
use smallvec::SmallVec;

/// The rules of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    events: action::EventRules,
    /// The rule for `event = "*"`: what no other rule is for.
    any_event: Option<Rule>,
    server_events: action::EventRules,
    /// The rule for `event = "*"` of other servers.
    any_server_event: Option<Rule>,
    on_connect: Vec<Effects>,
    on_disconnect: Vec<Effects>,
}

/// Whose event it is.
pub struct Context<'a> {
    /// The public id of the socket.
    pub socket_id: &'a str,
    /// What the client sent as `auth` when it connected.
    pub auth: Option<RawJson<'a>>,
    /// Whether the socket is in a room.
    pub is_member: &'a dyn Fn(&str) -> bool,
}

/// What is to be done, in this order, and what the client is told.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Joins come before emits, and leaves after them.
    pub actions: SmallVec<[Action; 2]>,
    /// The arguments of the ack; `None` is an ack without arguments (`[]`).
    pub ack: Option<EventData>,
}

/// What is done with an event of another server.
#[derive(Clone, Debug, Default)]
pub struct ServerDecision {
    /// What the sockets of this node get.
    pub emissions: Vec<Emission>,
    /// What the other server is answered, if it asked: a JSON array with one element or none.
    pub answer: Option<EventData>,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send an event.
    Emit(Emission),
    /// The sender joins a room.
    Join(RoomName),
    /// The sender leaves a room.
    Leave(RoomName),
}

/// An event on its way to others.
#[derive(Clone, Debug)]
pub struct Emission {
    /// Who gets it.
    pub target: Target,
    /// Rooms whose members do not get it.
    pub except: Vec<RoomName>,
    /// The event: its name and arguments.
    pub data: EventData,
    /// Whether it may be dropped for a socket that is not writable.
    pub volatile: bool,
}

/// Who gets an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// All sockets of the namespace.
    Everyone,
    /// All but the sender.
    Others,
    /// The sender alone.
    Sender,
    /// Whoever is in one of the rooms; there is at least one.
    Rooms(Vec<RoomName>),
    /// The socket with this id.
    Id(RoomName),
}

/// Why an event was not accepted. Nothing of it happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// For programs, and for the metric label.
    pub code: RefusalCode,
    /// For people. It holds nothing but what the client sent and what the rule says.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RefusalCode {
    /// There is no rule for the event.
    UnknownEvent,
    /// An argument is missing or of the wrong type.
    BadArgument,
    /// The rule does not allow this room.
    ForbiddenRoom,
    /// The rule wants the sender to be in the room.
    NotMember,
    /// The room has the form of a socket id, so it would read that socket's messages.
    ReservedRoom,
    /// The socket is in as many rooms as it may be.
    TooManyRooms,
    /// The rule refuses the event always.
    Refused,
}

impl RefusalCode {
    /// All of them, to resolve metric labels once.
    pub const ALL: [Self; 7] = [
        Self::UnknownEvent,
        Self::BadArgument,
        Self::ForbiddenRoom,
        Self::NotMember,
        Self::ReservedRoom,
        Self::TooManyRooms,
        Self::Refused,
    ];

    /// Its name, for clients and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownEvent => "unknown_event",
            Self::BadArgument => "bad_argument",
            Self::ForbiddenRoom => "forbidden_room",
            Self::NotMember => "not_member",
            Self::ReservedRoom => "reserved_room",
            Self::TooManyRooms => "too_many_rooms",
            Self::Refused => "refused",
        }
    }
}

impl Refusal {
    fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The arguments of the ack that tells the client: `[{"error":{"code":…,"message":…}}]`.
    pub fn to_ack_json(&self) -> String {
        let message = serde_json::Value::from(self.message.as_str());
        format!(r#"[{{"error":{{"code":"{}","message":{message}}}}}]"#, self.code.as_str())
    }
}

impl Rules {
    /// What an event of a client does.
    pub fn decide(
        &self,
        event: &Event<'_>,
        attachments: &[Bytes],
        context: &Context<'_>,
    ) -> Result<Decision, Refusal> {
        let rule = self.events.get(&event.name).or(self.any_event.as_ref());
        let source = Source { event: Some(&event.name), args: &event.args, attachments, context };
        match rule {
            None => Err(Refusal::new(RefusalCode::UnknownEvent, "no rule accepts this event")),
            Some(Rule::Refuse(message)) => {
                Err(Refusal::new(RefusalCode::Refused, message.as_ref()))
            }
            Some(Rule::Accept { effects, ack }) => {
                let mut decision = Decision::default();
                effects.decide(&source, &mut decision.actions)?;
                if let Some(ack) = ack {
                    decision.ack = Some(ack.compose(None, &source)?);
                }
                Ok(decision)
            }
        }
    }

    /// What an event of another server does here, to the sockets of this node alone: the event
    /// reaches every node. Nothing if there is no rule for it.
    pub fn decide_server(
        &self,
        event: &Event<'_>,
        attachments: &[Bytes],
    ) -> Result<Option<ServerDecision>, Refusal> {
        let rule = self.server_events.get(&event.name).or(self.any_server_event.as_ref());
        let Some(Rule::Accept { effects, ack }) = rule else { return Ok(None) };
        let context = Context { socket_id: "", auth: None, is_member: &|_| false };
        let source =
            Source { event: Some(&event.name), args: &event.args, attachments, context: &context };
        let emissions = effects.emissions(&source)?;
        let answer = ack.as_ref().map(|ack| ack.compose_first(&source)).transpose()?;
        Ok(Some(ServerDecision { emissions, answer }))
    }

    /// What happens when a client connects to the namespace. A refusal refuses the connection.
    pub fn on_connect(&self, context: &Context<'_>) -> Result<Decision, Refusal> {
        let source = Source { event: None, args: &[], attachments: &[], context };
        let mut decision = Decision::default();
        for effects in &self.on_connect {
            effects.decide(&source, &mut decision.actions)?;
        }
        Ok(decision)
    }

    /// What happens after a socket has left the namespace, also when its connection broke. Nobody
    /// could be told of a refusal any more: what cannot be done is left out.
    pub fn on_disconnect(&self, context: &Context<'_>) -> Decision {
        let source = Source { event: None, args: &[], attachments: &[], context };
        let mut decision = Decision::default();
        for effects in &self.on_disconnect {
            let done = decision.actions.len();
            if effects.decide(&source, &mut decision.actions).is_err() {
                decision.actions.truncate(done);
            }
        }
        decision
    }
}
