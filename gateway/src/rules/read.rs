//! Compiles rules from the tables of the configuration file, and says what is wrong with them.

use super::{
    RoomName, Rules, Target,
    action::{Effects, Emit, Room, Rule, To},
    arguments::{Reference, check_room},
    template::{Argument, Piece, Template},
};
use crate::config::fields::{Complaints, Fields, kind};
use protocol::{id::has_id_form, socket::RESERVED_NAMES};
use toml::Value;

/// Where a rule stands: it decides what the rule can refer to and do.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Moment {
    Event,
    Connect,
    Disconnect,
    /// An event of another server: it has arguments, and nobody who sent it.
    Server,
}

impl Moment {
    fn has_arguments(self) -> bool {
        matches!(self, Self::Event | Self::Server)
    }
}

impl Rules {
    /// Takes the rules out of a `[[namespace]]` table.
    pub fn read(namespace: &mut Fields<'_>, complaints: &mut Complaints) -> Self {
        let mut rules = Self::default();
        for (value, place) in namespace.one_or_more("on") {
            if let Some(fields) = Fields::of(value, place, complaints) {
                read_event_rule(fields, &mut rules, complaints);
            }
        }
        for (value, place) in namespace.one_or_more("on_server") {
            if let Some(fields) = Fields::of(value, place, complaints) {
                read_server_rule(fields, &mut rules, complaints);
            }
        }
        rules.on_connect = read_moments(namespace, "on_connect", Moment::Connect, complaints);
        rules.on_disconnect =
            read_moments(namespace, "on_disconnect", Moment::Disconnect, complaints);
        rules
    }
}

/// What comes with backends. Until then it is refused by name, here and nowhere else.
fn backend_keys(fields: &mut Fields<'_>, keys: &[&'static str], complaints: &mut Complaints) {
    for key in keys {
        if fields.get(key).is_some() {
            complaints.add(&fields.at(key), "comes with backends, which this release has not");
        }
    }
}

fn read_event_rule(mut fields: Fields<'_>, rules: &mut Rules, complaints: &mut Complaints) {
    let event = fields.text("event", complaints);
    if let Some(event) = event {
        fields.place = format!("{} (event `{event}`)", fields.place);
    } else if fields.get("event").is_none() {
        complaints.add(&fields.place, "has no `event`");
    }
    backend_keys(&mut fields, &["forward"], complaints);
    let refuse = fields.text("refuse", complaints);
    let ack = fields
        .get("ack")
        .map(|value| read_template(value, &fields.at("ack"), Moment::Event, complaints));
    let effects = read_effects(&mut fields, Moment::Event, complaints);
    let idle = effects.is_idle() && ack.is_none();
    let rule = match refuse {
        Some(message) => {
            if !idle {
                complaints
                    .add(&fields.place, "`refuse` refuses the event, so nothing else can be done");
            }
            Rule::Refuse(message.into())
        }
        None => {
            if idle && fields.get("forward").is_none() {
                complaints.add(
                    &fields.place,
                    "does nothing: write `emit`, `join`, `leave`, `ack` or `refuse`",
                );
            }
            Rule::Accept { effects, ack }
        }
    };
    if let Some(event) = event {
        check_event(event, &fields.at("event"), complaints);
        let twice = match event {
            "*" => rules.any_event.replace(rule).is_some(),
            _ => rules.events.insert(event, rule),
        };
        if twice {
            complaints.add(
                &fields.place,
                "there are two rules for this event; one rule may hold several emits",
            );
        }
    }
    fields.finish(complaints);
}

fn read_server_rule(mut fields: Fields<'_>, rules: &mut Rules, complaints: &mut Complaints) {
    let event = fields.text("event", complaints);
    if let Some(event) = event {
        fields.place = format!("{} (event `{event}`)", fields.place);
        check_server_event(event, &fields.at("event"), complaints);
    } else if fields.get("event").is_none() {
        complaints.add(&fields.place, "has no `event`");
    }
    for key in ["join", "leave", "allow", "refuse"] {
        if fields.get(key).is_some() {
            complaints.add(&fields.at(key), "is for events of clients");
        }
    }
    let mut emits = Vec::new();
    for (value, place) in fields.one_or_more("emit") {
        if let Some(emit) = Fields::of(value, place, complaints) {
            emits.extend(read_emit(emit, Moment::Server, complaints));
        }
    }
    let ack = fields
        .get("ack")
        .map(|value| read_template(value, &fields.at("ack"), Moment::Server, complaints));
    if ack.as_ref().is_some_and(|ack| ack.n_arguments() > 1) {
        complaints.add(&fields.at("ack"), "holds more than one value: servers get only the first");
    }
    let is_idle = ack.is_none() && fields.get("emit").is_none();
    if is_idle {
        complaints.add(&fields.place, "does nothing: write `emit` or `ack`");
    }
    if let Some(event) = event {
        let effects = Effects { emits, ..Effects::default() };
        let rule = Rule::Accept { effects, ack };
        let twice = match event {
            "*" => rules.any_server_event.replace(rule).is_some(),
            _ => rules.server_events.insert(event, rule),
        };
        if twice {
            complaints.add(
                &fields.place,
                "there are two rules for this event; one rule may hold several emits",
            );
        }
    }
    fields.finish(complaints);
}

/// Names that no server can send, because its library uses them itself. Those that clients cannot
/// send are left out here as well: a rule may pass the name on to clients.
const RESERVED_SERVER_NAMES: [&str; 2] = ["connection", "new_namespace"];

fn check_server_event(event: &str, place: &str, complaints: &mut Complaints) {
    if RESERVED_NAMES.contains(&event) || RESERVED_SERVER_NAMES.contains(&event) {
        complaints.add(place, format!("`{event}` is reserved by Socket.IO"));
    } else if event != "*" && event.contains('*') {
        complaints.add(place, "names one event, or all others with `*` alone");
    }
}

fn check_event(event: &str, place: &str, complaints: &mut Complaints) {
    if RESERVED_NAMES.contains(&event) {
        let instead = match event {
            "connect" => "; write `on_connect`",
            "disconnect" | "disconnecting" => "; write `on_disconnect`",
            _ => "",
        };
        complaints.add(place, format!("`{event}` is reserved by Socket.IO{instead}"));
    } else if event != "*" && event.contains('*') {
        complaints.add(place, "names one event, or all others with `*` alone");
    }
}

fn read_moments(
    namespace: &mut Fields<'_>,
    key: &'static str,
    moment: Moment,
    complaints: &mut Complaints,
) -> Vec<Effects> {
    let mut moments = Vec::new();
    for (value, place) in namespace.one_or_more(key) {
        let Some(mut fields) = Fields::of(value, place, complaints) else { continue };
        let place = fields.place.clone();
        let known = complaints.0.len();
        let effects = read_effects(&mut fields, moment, complaints);
        fields.finish(complaints);
        // What could not be read has been named already.
        if effects.is_idle() && complaints.0.len() == known {
            complaints.add(&place, "does nothing");
        }
        moments.push(effects);
    }
    moments
}

fn read_effects(fields: &mut Fields<'_>, moment: Moment, complaints: &mut Complaints) -> Effects {
    let mut effects = Effects::default();
    for (value, place) in fields.one_or_more("emit") {
        if let Some(emit) = Fields::of(value, place, complaints) {
            effects.emits.extend(read_emit(emit, moment, complaints));
        }
    }
    // A socket that is gone is in no room and enters none.
    if moment == Moment::Disconnect {
        return effects;
    }
    effects.allow = read_allow(fields, complaints);
    effects.joins = read_rooms(fields, "join", moment, complaints);
    check_allow(&effects.joins, &effects.allow, false, &fields.at("join"), complaints);
    for room in &effects.joins {
        check_own_room(room, &fields.at("join"), complaints);
    }
    if effects.joins.is_empty() && !effects.allow.is_empty() {
        complaints.add(&fields.at("allow"), "allows rooms to `join`, which the rule does not have");
    }
    if moment == Moment::Event {
        effects.leaves = read_rooms(fields, "leave", moment, complaints);
        for room in &effects.leaves {
            check_own_room(room, &fields.at("leave"), complaints);
        }
    }
    effects
}

impl Effects {
    fn is_idle(&self) -> bool {
        self.joins.is_empty() && self.emits.is_empty() && self.leaves.is_empty()
    }
}

/// Every socket is in the room of its own id, and nobody else may ever be.
fn check_own_room(room: &Room, place: &str, complaints: &mut Complaints) {
    match room {
        Room::Reference(Reference::Id) => {
            complaints.add(place, "every socket is in the room `$id` from connect to disconnect");
        }
        Room::Literal(name) if has_id_form(name) => {
            complaints.add(
                place,
                format!("`{name}` has the form of a socket id (20 base64url characters)"),
            );
        }
        _ => {}
    }
}

/// Whether some room name comes from the client with nothing to say which are allowed.
fn check_allow(
    rooms: &[Room],
    allow: &[Box<str>],
    member: bool,
    place: &str,
    complaints: &mut Complaints,
) {
    let free = rooms.iter().find_map(|room| match room {
        Room::Reference(Reference::Id) | Room::Literal(_) => None,
        Room::Reference(reference) => Some(reference),
    });
    if let (Some(reference), true, false) = (free, allow.is_empty(), member) {
        let or_member = if place.ends_with("rooms") { ", or `member = true`" } else { "" };
        complaints.add(
            place,
            format!("the client chooses `{reference}`, so say which rooms: `allow = [\"public-*\"]`{or_member}; `allow = [\"*\"]` is any room"),
        );
    }
}

fn read_allow(fields: &mut Fields<'_>, complaints: &mut Complaints) -> Vec<Box<str>> {
    let texts = fields.texts("allow", complaints);
    for text in &texts {
        check_claims(text, &fields.at("allow"), complaints);
    }
    texts.into_iter().map(Box::from).collect()
}

/// Claims such as `{sub}` stand in tokens, which are not read yet. Taken as a plain character, a
/// brace would turn a rule into another one when they are.
fn check_claims(text: &str, place: &str, complaints: &mut Complaints) {
    if text.contains('{') {
        complaints.add(
            place,
            format!(
                "`{text}`: claims (`{{…}}`) come with `auth = \"jwt\"`, which comes with backends"
            ),
        );
    }
}

fn read_rooms(
    fields: &mut Fields<'_>,
    key: &'static str,
    moment: Moment,
    complaints: &mut Complaints,
) -> Vec<Room> {
    let place = fields.at(key);
    let written = fields.get(key);
    let texts = fields.texts(key, complaints);
    if written.is_some_and(|value| value.as_array().is_some_and(Vec::is_empty)) {
        complaints.add(&place, "names no room");
    }
    texts.into_iter().filter_map(|text| read_room(text, &place, moment, complaints)).collect()
}

fn read_room(text: &str, place: &str, moment: Moment, complaints: &mut Complaints) -> Option<Room> {
    if text.starts_with('$') && !text.starts_with("$$") {
        return read_reference(text, place, moment, complaints).map(Room::Reference);
    }
    let name = text.strip_prefix('$').unwrap_or(text);
    if let Err(wrong) = check_room(name) {
        complaints.add(place, format!("`{name}` {wrong}"));
        return None;
    }
    if name.get(1..).is_some_and(|rest| rest.contains('$')) {
        complaints
            .add(place, format!("`{name}`: a reference is a whole room name, not a part of one"));
    }
    check_claims(name, place, complaints);
    Some(Room::Literal(RoomName::from(name)))
}

fn read_reference(
    text: &str,
    place: &str,
    moment: Moment,
    complaints: &mut Complaints,
) -> Option<Reference> {
    match Reference::parse(text) {
        Ok(Reference::Argument(..)) if !moment.has_arguments() => {
            complaints.add(place, format!("`{text}`: only events have arguments"));
            None
        }
        Ok(Reference::Id | Reference::Auth(_)) if moment == Moment::Server => {
            complaints.add(place, format!("`{text}`: a server has neither id nor `auth`"));
            None
        }
        Ok(reference) => Some(reference),
        Err(wrong) => {
            complaints.add(place, wrong);
            None
        }
    }
}

fn read_emit(mut fields: Fields<'_>, moment: Moment, complaints: &mut Complaints) -> Option<Emit> {
    let event = fields.text("event", complaints);
    match event {
        Some(event) => {
            check_event(event, &fields.at("event"), complaints);
            if event == "*" {
                complaints
                    .add(&fields.at("event"), "leave `event` out to keep the name that came in");
            }
        }
        None if !moment.has_arguments() => complaints.add(&fields.place, "has no `event`"),
        None => {}
    }
    let to = match fields.get("to") {
        Some(value) => read_target(value, &fields.at("to"), moment, complaints),
        None => {
            complaints.add(&fields.place, "has no `to`");
            None
        }
    };
    let except = read_rooms(&mut fields, "except", moment, complaints);
    let arguments = match fields.get("args") {
        Some(value) => read_template(value, &fields.at("args"), moment, complaints),
        None => Template::default(),
    };
    let volatile = fields.flag("volatile", complaints);
    fields.finish(complaints);
    let event = event.map(Value::from).map(|event| json_text(&event).into());
    Some(Emit { event, to: to?, except, arguments, volatile })
}

fn fixed_target(text: &str, moment: Moment) -> Result<Target, String> {
    match (text, moment) {
        ("everyone", _) => Ok(Target::Everyone),
        ("others" | "sender", Moment::Server) => Err(format!(
            "`{text}`: the sender is a server; its event reaches all sockets with `everyone`"
        )),
        ("others", _) => Ok(Target::Others),
        ("sender", Moment::Disconnect) => Err("the sender is gone".to_owned()),
        ("sender", _) => Ok(Target::Sender),
        _ => Err(format!("`{text}` is none of `everyone`, `others`, `sender`")),
    }
}

fn read_target(
    value: &Value,
    place: &str,
    moment: Moment,
    complaints: &mut Complaints,
) -> Option<To> {
    if let Some(text) = value.as_str() {
        return match fixed_target(text, moment) {
            Ok(target) => Some(To::Fixed(target)),
            Err(wrong) => {
                complaints.add(
                    place,
                    format!("{wrong}; rooms are `{{ rooms = [\"…\"] }}`, one socket is `{{ id = \"$0\" }}`"),
                );
                None
            }
        };
    }
    let mut fields = Fields::of(value, place.to_owned(), complaints)?;
    let id = fields.text("id", complaints);
    let has_rooms = fields.get("rooms").is_some();
    let to = match (id, has_rooms) {
        (Some(id), false) => match read_room(id, &fields.at("id"), moment, complaints) {
            Some(Room::Reference(reference)) => Some(To::Id(reference)),
            Some(Room::Literal(_)) => {
                complaints.add(&fields.at("id"), "socket ids are new at each connect, so this has to be a reference such as `$0`");
                None
            }
            None => None,
        },
        (None, true) => read_rooms_target(&mut fields, moment, complaints),
        _ => {
            complaints.add(place, "has to hold either `rooms` or `id`");
            None
        }
    };
    // With an `id` these would be read by nobody.
    fields.finish(complaints);
    to
}

fn read_rooms_target(
    fields: &mut Fields<'_>,
    moment: Moment,
    complaints: &mut Complaints,
) -> Option<To> {
    let rooms = read_rooms(fields, "rooms", moment, complaints);
    let mut allow = read_allow(fields, complaints);
    let member = fields.flag("member", complaints);
    if moment == Moment::Server {
        if member {
            complaints.add(&fields.at("member"), "a server is a member of no room");
        }
        // Other servers reach any room by themselves: rules need not protect rooms from them.
        if allow.is_empty() {
            allow.push("*".into());
        }
    }
    let otherwise = fields.text("else", complaints).and_then(|text| {
        fixed_target(text, moment).map_err(|wrong| complaints.add(&fields.at("else"), wrong)).ok()
    });
    check_allow(&rooms, &allow, member, &fields.at("rooms"), complaints);
    if otherwise.is_some() && !rooms.iter().any(|room| matches!(room, Room::Reference(_))) {
        complaints.add(&fields.at("else"), "can never apply: no room comes from an argument");
    }
    (!rooms.is_empty()).then_some(To::Rooms { rooms, allow, member, otherwise })
}

fn read_template(
    value: &Value,
    place: &str,
    moment: Moment,
    complaints: &mut Complaints,
) -> Template {
    let arguments = match value {
        Value::String(text) if text == "$*" => vec![read_all(place, moment, complaints)],
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(index, value)| match value {
                Value::String(text) if text == "$*" => read_all(place, moment, complaints),
                value => {
                    let mut pieces = Pieces(Vec::new());
                    pieces.read(value, &format!("{place}[{index}]"), moment, complaints);
                    Argument::Value(pieces.0)
                }
            })
            .collect(),
        value => {
            complaints
                .add(place, format!("is {}, not a list of arguments or `\"$*\"`", kind(value)));
            Vec::new()
        }
    };
    Template::new(arguments)
}

fn read_all(place: &str, moment: Moment, complaints: &mut Complaints) -> Argument {
    if !moment.has_arguments() {
        complaints.add(place, "`$*`: only events have arguments");
    }
    Argument::All
}

/// A value under construction; JSON text that follows JSON text is one piece.
struct Pieces(Vec<Piece>);

impl Pieces {
    fn json(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Json(json)) => json.push_str(text),
            _ => self.0.push(Piece::Json(text.to_owned())),
        }
    }

    fn read(&mut self, value: &Value, place: &str, moment: Moment, complaints: &mut Complaints) {
        match value {
            Value::String(text) if text == "$*" => {
                complaints.add(place, "`$*` stands alone or in the list of arguments, not deeper");
            }
            Value::String(text) => match text.strip_prefix('$') {
                Some(rest) if rest.starts_with('$') => self.json(&json_text(&rest.into())),
                Some(_) => {
                    let reference = read_reference(text, place, moment, complaints);
                    self.0.extend(reference.map(Piece::Reference));
                }
                None => self.json(&json_text(value)),
            },
            Value::Array(values) => {
                self.json("[");
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        self.json(",");
                    }
                    self.read(value, place, moment, complaints);
                }
                self.json("]");
            }
            Value::Table(table) => {
                self.json("{");
                for (index, (key, value)) in table.iter().enumerate() {
                    if key == "_placeholder" {
                        complaints.add(place, "`_placeholder` is how Socket.IO marks binary data");
                    }
                    if index > 0 {
                        self.json(",");
                    }
                    self.json(&json_text(&key.as_str().into()));
                    self.json(":");
                    self.read(value, place, moment, complaints);
                }
                self.json("}");
            }
            Value::Float(number) if !number.is_finite() => {
                complaints.add(place, "is no number that JSON can write");
            }
            Value::Datetime(date) => self.json(&json_text(&date.to_string().into())),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => self.json(&json_text(value)),
        }
    }
}

/// A TOML value that is neither a table, an array nor a date as JSON text.
fn json_text(value: &Value) -> String {
    match value {
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Float(number) => serde_json::Value::from(*number).to_string(),
        value => value.to_string(),
    }
}
