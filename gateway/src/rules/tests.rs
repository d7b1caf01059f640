//! What rules decide, event by event, and what is said about wrong ones.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::{Action, Context, Decision, Refusal, RefusalCode, Rules, Target, glob};
use crate::config::fields::{Complaints, Fields};
use bytes::Bytes;
use proptest::prelude::*;
use protocol::{json::RawJson, socket::Event};
use serde_json::json;

const ID: &str = "abcdAbcdefghijklmnop";
const OTHER_ID: &str = "abcdZbcdefghijklmnop";

fn compile(toml: &str) -> Result<Rules, Vec<String>> {
    let table: toml::Table = toml.parse().unwrap();
    let mut complaints = Complaints::default();
    let mut fields = Fields::new(&table, "ns");
    let rules = Rules::read(&mut fields, &mut complaints);
    fields.finish(&mut complaints);
    if complaints.0.is_empty() { Ok(rules) } else { Err(complaints.0) }
}

/// Rules with one rule for the event `e`.
fn one(rule: &str) -> Rules {
    compile(&format!("[[on]]\nevent = \"e\"\n{rule}")).unwrap()
}

/// What happens to an event of a socket that is in the rooms `in` and `in too`.
fn decide(rules: &Rules, event: &str, attachments: &[Bytes]) -> Result<Decision, Refusal> {
    let auth = RawJson::parse(r#"{"name":"Ann","room":"vip"}"#).unwrap();
    let is_member = |room: &str| room == "in" || room == "in too";
    let context = Context { socket_id: ID, auth: Some(auth), is_member: &is_member };
    rules.decide(&Event::parse(event).unwrap(), attachments, &context)
}

/// One line for each action, and for the ack.
fn outcome(rules: &Rules, event: &str) -> String {
    let decision = match decide(rules, event, &[]) {
        Ok(decision) => decision,
        Err(refusal) => return format!("{}: {}", refusal.code.as_str(), refusal.message),
    };
    let mut lines: Vec<String> = decision.actions.iter().map(line).collect();
    lines.extend(decision.ack.map(|ack| format!("ack {}", ack.json)));
    lines.join("; ")
}

fn line(action: &Action) -> String {
    match action {
        Action::Join(room) => format!("join {room}"),
        Action::Leave(room) => format!("leave {room}"),
        Action::Emit(emission) => {
            let to = match &emission.target {
                Target::Everyone => "everyone".to_owned(),
                Target::Others => "others".to_owned(),
                Target::Sender => "sender".to_owned(),
                Target::Rooms(rooms) => {
                    assert!(!rooms.is_empty(), "no rooms would mean everybody");
                    format!(
                        "rooms {}",
                        rooms.iter().map(|room| &**room).collect::<Vec<_>>().join("|")
                    )
                }
                Target::Id(id) => format!("id {id}"),
            };
            let except: String =
                emission.except.iter().map(|room| format!(" except {room}")).collect();
            let volatile = if emission.volatile { " volatile" } else { "" };
            format!("emit{volatile} to {to}{except} {}", emission.data.json)
        }
    }
}

#[test]
fn arguments_are_addressed_and_passed_on_as_they_came() {
    let cases = [
        (
            "ack = '$*'",
            r#"["e",1.50,"\u00e4",{"b":1,"a":[]}]"#,
            r#"ack [1.50,"\u00e4",{"b":1,"a":[]}]"#,
        ),
        ("ack = '$*'", r#"["e"]"#, "ack []"),
        ("ack = ['$id', '$*', 7]", r#"["e"]"#, r#"ack ["abcdAbcdefghijklmnop",7]"#),
        ("ack = ['$*', '$0']", r#"["e",1,2]"#, "ack [1,2,1]"),
        ("ack = ['$0.a.b', '$1.1.x']", r#"["e",{"a":{"b":null}},[0,{"x":2}]]"#, "ack [null,2]"),
        ("ack = ['$0.a']", r#"["e",{"a":1,"b":{"a":3},"\u0061":2}]"#, "ack [2]"),
        (
            "ack = ['$auth', '$auth.name', '$auth.none']",
            r#"["e"]"#,
            r#"ack [{"name":"Ann","room":"vip"},"Ann",null]"#,
        ),
        (
            "ack = ['$$0', 'a$', 1.5, true, [1, '$0'], { k = '$0', l = \"q\\\"\" }]",
            r#"["e",9]"#,
            r#"ack ["$0","a$",1.5,true,[1,9],{"k":9,"l":"q\""}]"#,
        ),
        ("ack = []", r#"["e",9]"#, "ack []"),
        ("ack = ['$0']", r#"["e"]"#, "bad_argument: $0 is missing"),
        ("ack = ['$0.a']", r#"["e",{"b":1}]"#, "bad_argument: $0.a is missing"),
        ("ack = ['$0.a']", r#"["e","text"]"#, "bad_argument: $0.a is not an object"),
        ("ack = ['$0.a']", r#"["e",null]"#, "bad_argument: $0.a is missing"),
    ];
    for (rule, event, expected) in cases {
        assert_eq!(outcome(&one(rule), event), expected, "{rule} with {event}");
    }
}

#[test]
fn emits_reach_whom_the_rule_names() {
    let cases = [
        (
            "{ event = 'x', to = 'everyone', args = '$*' }",
            r#"["e",1,2]"#,
            r#"emit to everyone ["x",1,2]"#,
        ),
        ("{ to = 'others' }", r#"["e",1]"#, r#"emit to others ["e"]"#),
        (
            "{ event = 'x', to = 'sender', volatile = true, args = ['$0'] }",
            r#"["e",1]"#,
            r#"emit volatile to sender ["x",1]"#,
        ),
        (
            "{ event = 'a\"b', to = { id = '$0.id' }, args = ['$0.p'] }",
            r#"["e",{"id":"abcdZbcdefghijklmnop","p":{}}]"#,
            r#"emit to id abcdZbcdefghijklmnop ["a\"b",{}]"#,
        ),
        (
            "{ event = 'x', to = { id = '$0' } }",
            r#"["e","short"]"#,
            "bad_argument: $0 is not a socket id",
        ),
        ("{ event = 'x', to = { id = '$0' } }", r#"["e"]"#, "bad_argument: $0 is missing"),
        (
            "{ event = 'x', to = { rooms = ['a', 'b'] }, except = ['$id', '$0'] }",
            r#"["e","c"]"#,
            r#"emit to rooms a|b except abcdAbcdefghijklmnop except c ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], member = true } }",
            r#"["e","in"]"#,
            r#"emit to rooms in ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], member = true } }",
            r#"["e","out"]"#,
            r#"not_member: only members may send to the room "out""#,
        ),
        (
            "{ event = 'x', to = { rooms = ['out'], member = true } }",
            r#"["e"]"#,
            r#"not_member: only members may send to the room "out""#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], allow = ['pub-*'] } }",
            r#"["e","pub-1"]"#,
            r#"emit to rooms pub-1 ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], allow = ['pub-*'] } }",
            r#"["e","in"]"#,
            r#"forbidden_room: the room "in" is not allowed"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0', '$1'], allow = ['pub-*'], member = true } }",
            r#"["e","in","pub-"]"#,
            r#"emit to rooms in|pub- ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$auth.room'], allow = ['*'] } }",
            r#"["e"]"#,
            r#"emit to rooms vip ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], allow = ['*'] } }",
            r#"["e",null]"#,
            "bad_argument: $0 is missing",
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], allow = ['*'] } }",
            r#"["e",[]]"#,
            "bad_argument: $0 is not a string",
        ),
        (
            "{ event = 'x', to = { rooms = ['$0'], allow = ['*'] } }",
            r#"["e",{"length":1}]"#,
            "bad_argument: $0 is not a string",
        ),
        (
            "{ event = 'x', to = { rooms = ['$0.room'], allow = ['*'], else = 'everyone' } }",
            r#"["e",{"payload":1}]"#,
            r#"emit to everyone ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0.room'], allow = ['*'], else = 'others' } }",
            r#"["e",{"room":null}]"#,
            r#"emit to others ["x"]"#,
        ),
        (
            "{ event = 'x', to = { rooms = ['$0.room'], allow = ['*'], else = 'everyone' } }",
            r#"["e",{"room":""}]"#,
            "bad_argument: $0.room is an empty room name",
        ),
        (
            "{ event = 'x', to = { rooms = ['$0.room'], allow = ['*'], else = 'everyone' } }",
            r#"["e",{"room":false}]"#,
            "bad_argument: $0.room is not a string",
        ),
        (
            "{ event = 'x', to = { rooms = ['$0.room'], allow = ['*'], else = 'everyone' } }",
            r#"["e","text"]"#,
            "bad_argument: $0.room is not an object",
        ),
        (
            "{ event = 'x', to = { rooms = ['$0', '$1'], allow = ['*'], else = 'everyone' } }",
            r#"["e",null,"b"]"#,
            r#"emit to rooms b ["x"]"#,
        ),
        (
            "[{ event = 'x', to = 'sender' }, { event = 'y', to = 'others' }]",
            r#"["e"]"#,
            r#"emit to sender ["x"]; emit to others ["y"]"#,
        ),
    ];
    for (emit, event, expected) in cases {
        assert_eq!(
            outcome(&one(&format!("emit = {emit}")), event),
            expected,
            "{emit} with {event}"
        );
    }
}

#[test]
fn rooms_are_joined_and_left_within_the_rule() {
    let any = "join = '$0'\nallow = ['*']\nack = ['ok']";
    let cases = [
        (any, r#"["e","a*b [?]"]"#, "join a*b [?]; ack [\"ok\"]"),
        (any, r#"["e",5]"#, "join 5; ack [\"ok\"]"),
        (any, r#"["e",-0]"#, "join 0; ack [\"ok\"]"),
        (any, r#"["e","\u0061\n"]"#, "bad_argument: $0 holds a control character"),
        (any, r#"["e","\ud800"]"#, "bad_argument: $0 is not a string"),
        (any, r##"["e","x#/admin#"]"##, "bad_argument: $0 holds a `#`"),
        (any, r##"["e","x\u0023y"]"##, "bad_argument: $0 holds a `#`"),
        (any, r#"["e",1.5]"#, "bad_argument: $0 is not a string"),
        (any, r#"["e",9007199254740992]"#, "bad_argument: $0 is not a string"),
        (any, r#"["e",true]"#, "bad_argument: $0 is not a string"),
        (
            any,
            r#"["e","abcdZbcdefghijklmnop"]"#,
            r#"reserved_room: the room "abcdZbcdefghijklmnop" has the form of a socket id"#,
        ),
        (
            any,
            r#"["e","\u0061bcdZbcdefghijklmnop"]"#,
            r#"reserved_room: the room "abcdZbcdefghijklmnop" has the form of a socket id"#,
        ),
        (any, r#"["e",12345678901234567890]"#, "bad_argument: $0 is not a string"),
        ("join = '$0'\nallow = ['public-*']", r#"["e","public-a"]"#, "join public-a"),
        (
            "join = '$0'\nallow = ['public-*']",
            r#"["e","*"]"#,
            r#"forbidden_room: the room "*" is not allowed"#,
        ),
        ("join = ['lobby', 'hall']", r#"["e"]"#, "join lobby; join hall"),
        ("leave = '$0'", r#"["e","room"]"#, "leave room"),
        (
            "leave = '$0'",
            r#"["e","abcdAbcdefghijklmnop"]"#,
            r#"reserved_room: the room "abcdAbcdefghijklmnop" has the form of a socket id"#,
        ),
        (
            "leave = 'old'\njoin = 'new'\nemit = { event = 'x', to = 'others' }",
            r#"["e"]"#,
            r#"join new; emit to others ["x"]; leave old"#,
        ),
        ("refuse = 'not today'", r#"["e"]"#, "refused: not today"),
    ];
    for (rule, event, expected) in cases {
        assert_eq!(outcome(&one(rule), event), expected, "{rule} with {event}");
    }
    let long = format!(r#"["e","{}"]"#, "é".repeat(101));
    assert_eq!(outcome(&one(any), &long), "bad_argument: $0 is longer than 200 bytes");
}

#[test]
fn unlisted_events_are_refused_unless_a_rule_takes_all_others() {
    let strict = one("ack = []");
    assert_eq!(outcome(&strict, r#"["other"]"#), "unknown_event: no rule accepts this event");
    let open = compile("[[on]]\nevent = 'e'\nack = [1]\n[[on]]\nevent = '*'\nemit = { to = 'others', args = '$*' }").unwrap();
    assert_eq!(outcome(&open, r#"["e"]"#), "ack [1]");
    assert_eq!(outcome(&open, r#"["say \"hi\"",2]"#), r#"emit to others ["say \"hi\"",2]"#);
    assert_eq!(outcome(&open, r#"["*"]"#), r#"emit to others ["*"]"#);
}

#[test]
fn refusals_are_acks_that_programs_and_people_can_read() {
    let refusal = decide(&one("ack = []"), r#"["other"]"#, &[]).unwrap_err();
    assert_eq!(
        refusal.to_ack_json(),
        r#"[{"error":{"code":"unknown_event","message":"no rule accepts this event"}}]"#
    );
    let quoted = Refusal::new(RefusalCode::Refused, "say \"please\"");
    let ack: serde_json::Value = serde_json::from_str(&quoted.to_ack_json()).unwrap();
    assert_eq!(ack, json!([{"error": {"code": "refused", "message": "say \"please\""}}]));
}

#[test]
fn attachments_follow_the_arguments_that_refer_to_them() {
    let rules = one("emit = { event = 'x', to = 'everyone', args = ['$1'] }\nack = '$*'");
    let event = r#"["e",{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1}}]"#;
    let attachments = [Bytes::from_static(b"zero"), Bytes::from_static(b"one")];
    let decision = decide(&rules, event, &attachments).unwrap();
    let Action::Emit(emission) = &decision.actions[0] else { panic!("an emit") };
    assert_eq!(&*emission.data.json, r#"["x",{"b":{"_placeholder":true,"num":0}}]"#);
    assert_eq!(emission.data.attachments, [attachments[1].clone()]);
    assert_eq!(decision.ack.unwrap().attachments, attachments);
}

#[test]
fn connecting_and_leaving_have_rules_of_their_own() {
    let rules = compile(
        r#"
        on_connect = [
          { join = "lobby" },
          { emit = { event = "hello", to = "sender", args = ["$id", "$auth"] }, join = "$auth.room", allow = ["v*"] },
        ]
        on_disconnect = [
          { emit = { event = "left", to = { rooms = ["$auth.room"], member = true }, args = ["$id"] } },
          { emit = { event = "left", to = "everyone", args = ["$id", "$auth.name"] } },
        ]
        "#,
    )
    .unwrap();
    let auth = RawJson::parse(r#"{"room":"vip"}"#).unwrap();
    let nowhere = |_: &str| false;
    let mut context = Context { socket_id: ID, auth: Some(auth), is_member: &nowhere };
    let lines = |decision: &Decision| decision.actions.iter().map(line).collect::<Vec<_>>();
    assert_eq!(
        lines(&rules.on_connect(&context).unwrap()),
        [
            "join lobby",
            "join vip",
            r#"emit to sender ["hello","abcdAbcdefghijklmnop",{"room":"vip"}]"#,
        ]
    );
    let left = r#"emit to everyone ["left","abcdAbcdefghijklmnop",null]"#;
    assert_eq!(lines(&rules.on_disconnect(&context)), [left]);
    context.auth = None;
    assert_eq!(rules.on_connect(&context).unwrap_err().code, RefusalCode::BadArgument);
    assert_eq!(lines(&rules.on_disconnect(&context)), [left]);
}

#[test]
fn wrong_rules_are_named() {
    let complaints = compile(
        r#"
        on_connect = [{ emit = { event = "x", to = "sender", args = ["$0", "$*"] } }, { join = "$id" }, { leave = "a" }]
        on_disconnect = [{ emit = { event = "x", to = "sender" } }, { join = "a" }]
        [[on]]
        event = "orders"
        forward = "orders"
        [[on]]
        event = "join"
        join = "$0"
        [[on]]
        event = "join"
        join = ["$0", "room-$0", "a#b", "", "user:{sub}"]
        allow = ["user:{sub}"]
        [[on]]
        event = "disconnect"
        leave = "this-is-20-chars-ok-"
        [[on]]
        event = "chat:*"
        emit = [
          { event = "x", to = "room" },
          { event = "x", to = { rooms = ["$0"] } },
          { event = "x", to = { rooms = [] } },
          { event = "x", to = { rooms = ["a"], else = "everyone" } },
          { event = "x", to = { id = "abc" } },
          { event = "x", to = { id = "$0", rooms = ["a"] } },
          { event = "connect", to = "everyone" },
          { event = "x" },
          { event = "x", to = "others", args = ["$x", "$0..a", ["$*"], { _placeholder = true }, nan], arsg = 1 },
          { event = "x", to = "others", args = "$0" },
        ]
        [[on]]
        event = "idle"
        [[on]]
        event = "both"
        refuse = "no"
        ack = []
        [[on]]
        ack = []
        "#,
    )
    .unwrap_err();
    insta::assert_snapshot!(complaints.join("\n"), @r#"
    ns.on[0] (event `orders`).forward: comes with backends, which this release has not
    ns.on[1] (event `join`).join: the client chooses `$0`, so say which rooms: `allow = ["public-*"]`; `allow = ["*"]` is any room
    ns.on[2] (event `join`).allow: `user:{sub}`: claims (`{…}`) come with `auth = "jwt"`, which comes with backends
    ns.on[2] (event `join`).join: `room-$0`: a reference is a whole room name, not a part of one
    ns.on[2] (event `join`).join: `a#b` holds a `#`
    ns.on[2] (event `join`).join: `` is an empty room name
    ns.on[2] (event `join`).join: `user:{sub}`: claims (`{…}`) come with `auth = "jwt"`, which comes with backends
    ns.on[2] (event `join`): there are two rules for this event; one rule may hold several emits
    ns.on[3] (event `disconnect`).leave: `this-is-20-chars-ok-` has the form of a socket id (20 base64url characters)
    ns.on[3] (event `disconnect`).event: `disconnect` is reserved by Socket.IO; write `on_disconnect`
    ns.on[4] (event `chat:*`).emit[0].to: `room` is none of `everyone`, `others`, `sender`; rooms are `{ rooms = ["…"] }`, one socket is `{ id = "$0" }`
    ns.on[4] (event `chat:*`).emit[1].to.rooms: the client chooses `$0`, so say which rooms: `allow = ["public-*"]`, or `member = true`; `allow = ["*"]` is any room
    ns.on[4] (event `chat:*`).emit[2].to.rooms: names no room
    ns.on[4] (event `chat:*`).emit[3].to.else: can never apply: no room comes from an argument
    ns.on[4] (event `chat:*`).emit[4].to.id: socket ids are new at each connect, so this has to be a reference such as `$0`
    ns.on[4] (event `chat:*`).emit[5].to: has to hold either `rooms` or `id`
    ns.on[4] (event `chat:*`).emit[6].event: `connect` is reserved by Socket.IO; write `on_connect`
    ns.on[4] (event `chat:*`).emit[7]: has no `to`
    ns.on[4] (event `chat:*`).emit[8].args[0]: `$x` is no reference: there are `$0`, `$0.key`, `$*`, `$auth`, `$auth.key` and `$id` (`$$` writes a dollar sign)
    ns.on[4] (event `chat:*`).emit[8].args[1]: `$0..a` is no reference: there are `$0`, `$0.key`, `$*`, `$auth`, `$auth.key` and `$id` (`$$` writes a dollar sign)
    ns.on[4] (event `chat:*`).emit[8].args[2]: `$*` stands alone or in the list of arguments, not deeper
    ns.on[4] (event `chat:*`).emit[8].args[3]: `_placeholder` is how Socket.IO marks binary data
    ns.on[4] (event `chat:*`).emit[8].args[4]: is no number that JSON can write
    ns.on[4] (event `chat:*`).emit[8].arsg: unknown key; the nearest known one is `args`
    ns.on[4] (event `chat:*`).emit[9].args: is a string, not a list of arguments or `"$*"`
    ns.on[4] (event `chat:*`).event: names one event, or all others with `*` alone
    ns.on[5] (event `idle`): does nothing: write `emit`, `join`, `leave`, `ack` or `refuse`
    ns.on[6] (event `both`): `refuse` refuses the event, so nothing else can be done
    ns.on[7]: has no `event`
    ns.on_connect[0].emit.args[0]: `$0`: only events have arguments
    ns.on_connect[0].emit.args: `$*`: only events have arguments
    ns.on_connect[1].join: every socket is in the room `$id` from connect to disconnect
    ns.on_connect[2].leave: unknown key
    ns.on_disconnect[0].emit.to: the sender is gone; rooms are `{ rooms = ["…"] }`, one socket is `{ id = "$0" }`
    ns.on_disconnect[1].join: unknown key
    "#);
}

/// What an event of another server does: one line for each emission, and the answer.
fn server_outcome(rules: &Rules, event: &str, attachments: &[Bytes]) -> String {
    let decision = match rules.decide_server(&Event::parse(event).unwrap(), attachments) {
        Ok(Some(decision)) => decision,
        Ok(None) => return "no rule".to_owned(),
        Err(refusal) => return format!("{}: {}", refusal.code.as_str(), refusal.message),
    };
    let emissions = decision.emissions.into_iter().map(Action::Emit);
    let mut lines: Vec<String> = emissions.map(|action| line(&action)).collect();
    lines.extend(decision.answer.map(|answer| format!("answer {}", answer.json)));
    lines.join("; ")
}

#[test]
fn events_of_servers_are_emitted_and_answered() {
    let rules = compile(
        r#"
        [[on_server]]
        event = "news"
        emit = [
          { event = "told", to = "everyone", args = "$*" },
          { to = { rooms = ["$0.room", "fixed"] }, args = ["$1"] },
          { event = "you", to = { id = "$2" } },
        ]
        [[on_server]]
        event = "ask"
        ack = [{ was = "$0" }]
        [[on_server]]
        event = "first"
        ack = "$*"
        [[on_server]]
        event = "silent"
        ack = []
        [[on_server]]
        event = "*"
        ack = ["any"]
        "#,
    )
    .unwrap();
    let news = format!(r#"["news",{{"room":"r"}},2,"{OTHER_ID}"]"#);
    assert_eq!(
        server_outcome(&rules, &news, &[]),
        format!(
            r#"emit to everyone ["told",{{"room":"r"}},2,"{OTHER_ID}"]; emit to rooms r|fixed ["news",2]; emit to id {OTHER_ID} ["you"]"#
        )
    );
    assert_eq!(server_outcome(&rules, r#"["ask",[1]]"#, &[]), r#"answer [{"was":[1]}]"#);
    assert_eq!(server_outcome(&rules, r#"["first",1,2,3]"#, &[]), "answer [1]");
    assert_eq!(server_outcome(&rules, r#"["first"]"#, &[]), "answer []");
    assert_eq!(server_outcome(&rules, r#"["silent",1]"#, &[]), "answer []");
    assert_eq!(server_outcome(&rules, r#"["other"]"#, &[]), r#"answer ["any"]"#);
    // All of a rule or nothing.
    assert_eq!(server_outcome(&rules, r#"["news",{}]"#, &[]), "bad_argument: $0.room is missing");
    assert_eq!(server_outcome(&Rules::default(), r#"["news"]"#, &[]), "no rule");
    // Rules for servers are for nobody else.
    assert_eq!(outcome(&rules, r#"["ask",1]"#), "unknown_event: no rule accepts this event");
    let binary = [Bytes::from_static(b"binary")];
    let echo = rules.decide_server(
        &Event::parse(r#"["first",{"_placeholder":true,"num":0}]"#).unwrap(),
        &binary,
    );
    assert_eq!(echo.unwrap().unwrap().answer.unwrap().attachments, binary);
}

#[test]
fn wrong_rules_for_servers_are_named() {
    let complaints = compile(
        r#"
        [[on_server]]
        event = "sender"
        emit = [
          { event = "x", to = "others" },
          { event = "x", to = "sender" },
          { event = "x", to = { rooms = ["$0"], member = true } },
          { event = "x", to = { rooms = ["$id"] }, args = ["$auth.name"] },
        ]
        [[on_server]]
        event = "does nothing"
        [[on_server]]
        event = "like a client"
        join = "$0"
        refuse = "no"
        ack = [1, 2]
        [[on_server]]
        event = "twice"
        ack = []
        [[on_server]]
        event = "twice"
        ack = []
        [[on_server]]
        event = "connection"
        ack = []
        [[on_server]]
        ack = []
        more = 1
        "#,
    )
    .unwrap_err();
    insta::assert_snapshot!(complaints.join("\n"), @r#"
    ns.on_server[0] (event `sender`).emit[0].to: `others`: the sender is a server; its event reaches all sockets with `everyone`; rooms are `{ rooms = ["…"] }`, one socket is `{ id = "$0" }`
    ns.on_server[0] (event `sender`).emit[1].to: `sender`: the sender is a server; its event reaches all sockets with `everyone`; rooms are `{ rooms = ["…"] }`, one socket is `{ id = "$0" }`
    ns.on_server[0] (event `sender`).emit[2].to.member: a server is a member of no room
    ns.on_server[0] (event `sender`).emit[3].to.rooms: `$id`: a server has neither id nor `auth`
    ns.on_server[0] (event `sender`).emit[3].args[0]: `$auth.name`: a server has neither id nor `auth`
    ns.on_server[1] (event `does nothing`): does nothing: write `emit` or `ack`
    ns.on_server[2] (event `like a client`).join: is for events of clients
    ns.on_server[2] (event `like a client`).refuse: is for events of clients
    ns.on_server[2] (event `like a client`).ack: holds more than one value: servers get only the first
    ns.on_server[4] (event `twice`): there are two rules for this event; one rule may hold several emits
    ns.on_server[5] (event `connection`).event: `connection` is reserved by Socket.IO
    ns.on_server[6]: has no `event`
    ns.on_server[6].more: unknown key
    "#);
}

#[test]
fn globs_are_patterns_on_one_side_only() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("*", "", true),
        ("*", "any", true),
        ("a*", "a", true),
        ("a*", "ba", false),
        ("*a*b", "xaxbxb", true),
        ("a*b*c", "abcb", false),
        ("a", "a*", false),
        ("a?", "ab", false),
        ("[ab]", "a", false),
    ] {
        assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
    }
}

proptest! {
    /// Whatever a client sends: it names exactly the room it spells, or it is refused.
    #[test]
    fn no_argument_becomes_another_room_or_a_pattern(name in ".{0,220}|[-a-z*#$\\[\\]?{}.:]{1,24}|[A-Za-z0-9_-]{20}") {
        let event = json!(["e", name]).to_string();
        let joins = one("join = '$0'\nallow = ['*']");
        match decide(&joins, &event, &[]) {
            Ok(decision) => {
                let [Action::Join(room)] = decision.actions.as_slice() else { panic!("one join") };
                prop_assert_eq!(&**room, name.as_str());
                prop_assert!(!name.is_empty() && name.len() <= 200 && !name.contains('#'));
                prop_assert!(!protocol::id::has_id_form(room));
            }
            Err(refusal) => prop_assert!(matches!(
                refusal.code,
                RefusalCode::BadArgument | RefusalCode::ReservedRoom
            )),
        }
        let emits = one("emit = { event = 'x', to = { rooms = ['$0'], allow = ['pub-*'], else = 'everyone' } }");
        if let Ok(decision) = decide(&emits, &event, &[]) {
            let [Action::Emit(emission)] = decision.actions.as_slice() else { panic!("one emit") };
            let Target::Rooms(rooms) = &emission.target else { panic!("a text is never everybody") };
            prop_assert_eq!(rooms.len(), 1);
            prop_assert_eq!(&*rooms[0], name.as_str());
            prop_assert!(name.starts_with("pub-"));
        }
    }

    /// Whatever the arguments are, what goes out is a JSON array that holds them unchanged.
    #[test]
    fn arguments_pass_through_unchanged(texts in prop::collection::vec(".{0,20}", 0..5), number in any::<i32>()) {
        let event = json!(["e", texts, number, { "k": texts }]).to_string();
        let decision = decide(&one("ack = [['$0'], '$*', { a = '$2.k' }]"), &event, &[]).unwrap();
        let ack: serde_json::Value = serde_json::from_str(&decision.ack.unwrap().json).unwrap();
        prop_assert_eq!(ack, json!([[texts], texts, number, { "k": texts }, { "a": texts }]));
    }
}

#[test]
fn a_direct_message_goes_to_an_id_only() {
    let rules = one("emit = { event = 'x', to = { id = '$0' } }");
    let event = json!(["e", OTHER_ID]).to_string();
    let decision = decide(&rules, &event, &[]).unwrap();
    let Action::Emit(emission) = &decision.actions[0] else { panic!("an emit") };
    assert_eq!(emission.target, Target::Id(OTHER_ID.into()));
}

#[test]
fn a_value_that_is_too_deep_inside_of_another_is_refused() {
    let rules = one("ack = [{ inner = \"$0\" }]");
    let nested = |depth: usize| format!(r#"["e",{}{}]"#, "[".repeat(depth), "]".repeat(depth));
    assert!(decide(&rules, &nested(62), &[]).is_ok());
    let refusal = decide(&rules, &nested(63), &[]).expect_err("one level too many");
    assert_eq!(refusal.code, RefusalCode::BadArgument);
}
