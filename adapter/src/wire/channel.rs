//! Channel names: the only place that builds or takes apart one.
//!
//! Namespaces and rooms stand in channel names as they are, never escaped: `#` may be part of either. So a
//! channel is never split; what is known is cut off at both ends. And so one name may mean two things: the base
//! channel of the namespace `/#x` is also that of the room `x` in `/`, a room may be named like a server. What is
//! in the message decides, where Node looks into it.

use crate::{RoomName, Selection, ShardedMode};
use protocol::id::NodeTag;
use std::borrow::Cow;

/// The length of Node's socket ids.
const ID_UNITS: usize = 20;

/// The channels of one namespace, in the eyes of one server.
///
/// With `P` for the prefix, `N` for the namespace, `U` for the uid of a server and `R` for a room:
///
/// | | classic | sharded |
/// |---|---|---|
/// | broadcasts | `P#N#` | `P#N#` |
/// | those to one room | `P#N#R#` | `P#N#R#` or `P#N#`, see [`ShardedMode`] |
/// | requests; counted | `P-request#N#` | `P#N#` |
/// | responses to all | `P-response#N#` | `P#N#`, which Node reads but never uses |
/// | responses to one | `P-response#N#U#` | `P#N#U#` |
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    protocol: Protocol,
    base: String,
    request: String,
    response: String,
    own_response: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Classic,
    Sharded(ShardedMode),
}

/// What the name of a channel says about a message, before it is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Addressed<'a> {
    /// A broadcast that may be for any socket of the namespace.
    Everyone,
    /// A broadcast to one room. Classic servers that have nobody in it need not decode the message.
    Room(Cow<'a, str>),
    /// A request.
    Request,
    /// A response.
    Response,
    /// Anything: the one channel that all servers of the sharded protocol share.
    Any,
    /// Nothing of this namespace.
    Foreign,
}

impl Channels {
    /// The channels of the classic protocol.
    pub(crate) fn classic(key: &str, ns: &str, uid: &str) -> Self {
        Self {
            protocol: Protocol::Classic,
            base: format!("{key}#{ns}#"),
            request: format!("{key}-request#{ns}#"),
            response: format!("{key}-response#{ns}#"),
            own_response: format!("{key}-response#{ns}#{uid}#"),
        }
    }

    /// The channels of the sharded protocol.
    pub(crate) fn sharded(prefix: &str, ns: &str, uid: &str, mode: ShardedMode) -> Self {
        let base = format!("{prefix}#{ns}#");
        Self {
            protocol: Protocol::Sharded(mode),
            request: base.clone(),
            response: base.clone(),
            own_response: format!("{base}{uid}#"),
            base,
        }
    }

    /// The channel of broadcasts to everybody or several rooms.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The channel of broadcasts to one room, whether or not publishers use it.
    pub(crate) fn room(&self, room: &str) -> String {
        format!("{}{room}#", self.base)
    }

    /// The channel on which a broadcast that nobody acknowledges is published.
    pub(crate) fn broadcast(&self, selection: &Selection) -> String {
        match selection.rooms.as_slice() {
            [room] if self.has_channel(room) => self.room(room),
            _ => self.base.clone(),
        }
    }

    /// Whether publishers use the channel of a room.
    ///
    /// In the mode `dynamic` what is as long as a socket id is taken for one, and nobody subscribes to the
    /// channels of those. JavaScript counts UTF-16 units.
    pub(crate) fn has_channel(&self, room: &str) -> bool {
        match self.protocol {
            Protocol::Classic | Protocol::Sharded(ShardedMode::DynamicPrivate) => true,
            Protocol::Sharded(ShardedMode::Static) => false,
            Protocol::Sharded(ShardedMode::Dynamic) => room.encode_utf16().count() != ID_UNITS,
        }
    }

    /// The channel on which requests are published, broadcasts with acknowledgement included. Servers count
    /// its subscribers to learn how many answers to expect.
    pub(crate) fn request(&self) -> &str {
        &self.request
    }

    /// The channel on which all servers listen for responses.
    pub(crate) fn response(&self) -> &str {
        &self.response
    }

    /// The channel on which only this server listens for responses.
    pub(crate) fn own_response(&self) -> &str {
        &self.own_response
    }

    /// The channel on which the server with this uid listens for responses.
    pub(crate) fn response_to(&self, uid: &str) -> String {
        format!("{}{uid}#", self.response)
    }

    /// The pattern for all broadcasts, as every classic Node server subscribes to it.
    pub(crate) fn broadcast_pattern(&self) -> String {
        let mut pattern = escape_glob(&self.base);
        pattern.push('*');
        pattern
    }

    /// The pattern for the broadcasts to sockets whose ids begin with this tag. With the base channel, and those
    /// of the rooms that are not [covered](Self::is_covered) by it, it takes the place of the pattern for all
    /// broadcasts of the classic protocol.
    pub(crate) fn tag_pattern(&self, tag: NodeTag) -> String {
        format!("{}{tag}*", escape_glob(&self.base))
    }

    /// Whether broadcasts to this room come by the [pattern for the tag](Self::tag_pattern): a subscription to
    /// the room's channel would bring them once more.
    pub(crate) fn is_covered(room: &str, tag: NodeTag) -> bool {
        room.starts_with(tag.as_str())
    }

    /// A pattern that only the request channel of the classic protocol matches.
    ///
    /// Node servers count the subscribers of the request channel to learn how many answers they will get.
    /// A pattern is not counted: with it a server hears requests, and nobody waits for its answers.
    pub(crate) fn request_pattern(&self) -> String {
        escape_glob(&self.request)
    }

    /// What the name of the channel says. As on Node the last character is cut off without a look at it,
    /// and a room with an empty name is not filtered by.
    pub(crate) fn addressed<'a>(&self, channel: &'a [u8]) -> Addressed<'a> {
        let is_classic = self.protocol == Protocol::Classic;
        if channel == self.own_response.as_bytes() {
            return Addressed::Response;
        }
        if is_classic && channel == self.request.as_bytes() {
            return Addressed::Request;
        }
        if is_classic && channel == self.response.as_bytes() {
            return Addressed::Response;
        }
        let Some(suffix) = channel.strip_prefix(self.base.as_bytes()) else {
            return Addressed::Foreign;
        };
        let mut suffix = String::from_utf8_lossy(suffix);
        match &mut suffix {
            Cow::Borrowed(text) => {
                let end = text.char_indices().next_back().map_or(0, |(at, _)| at);
                *text = &text[..end];
            }
            Cow::Owned(text) => drop(text.pop()),
        }
        match (suffix.is_empty(), is_classic) {
            (false, _) => Addressed::Room(suffix),
            (true, true) => Addressed::Everyone,
            (true, false) => Addressed::Any,
        }
    }

    /// The room that a channel is for, if it is for one.
    pub(crate) fn addressed_room(&self, channel: &[u8]) -> Option<RoomName> {
        match self.addressed(channel) {
            Addressed::Room(room) => Some(RoomName::from(&*room)),
            _ => None,
        }
    }
}

/// The channel of what Carillon nodes say among themselves; Node servers do not listen to it.
pub(crate) fn own(key: &str) -> String {
    format!("{key}-carillon#")
}

/// Writes a text as a Redis pattern that matches only this text.
pub(crate) fn escape_glob(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 1);
    for char in text.chars() {
        // A closing bracket alone has no meaning.
        if matches!(char, '*' | '?' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selection(rooms: &[&str]) -> Selection {
        Selection {
            rooms: rooms.iter().map(|room| RoomName::from(*room)).collect(),
            except: vec![],
        }
    }

    fn room(name: &str) -> Addressed<'_> {
        Addressed::Room(name.into())
    }

    fn classic(key: &str, ns: &str) -> Channels {
        Channels::classic(key, ns, "me")
    }

    fn sharded(ns: &str, mode: ShardedMode) -> Channels {
        Channels::sharded("socket.io", ns, "me", mode)
    }

    const MODES: [ShardedMode; 3] =
        [ShardedMode::Static, ShardedMode::Dynamic, ShardedMode::DynamicPrivate];

    #[test]
    fn one_room_has_a_channel_of_its_own() {
        let channel = |rooms: &[&str]| classic("socket.io", "/").broadcast(&selection(rooms));
        assert_eq!(channel(&[]), "socket.io#/#");
        assert_eq!(channel(&["a#b"]), "socket.io#/#a#b#");
        assert_eq!(channel(&[""]), "socket.io#/##");
        assert_eq!(channel(&["a", "b"]), "socket.io#/#");
        assert_eq!(channel(&["abcdefghij0123456789"]), "socket.io#/#abcdefghij0123456789#");
    }

    #[test]
    fn the_sharded_mode_says_which_rooms_have_a_channel() {
        let channels = |rooms: &[&str]| {
            MODES.map(|mode| {
                sharded("/", mode).broadcast(&selection(rooms)).replace("socket.io#/#", "")
            })
        };
        assert_eq!(channels(&["a"]), ["", "a#", "a#"]);
        assert_eq!(channels(&[""]), ["", "#", "#"]);
        assert_eq!(channels(&["a", "b"]), ["", "", ""]);
        assert_eq!(channels(&[]), ["", "", ""]);
    }

    #[test]
    fn twenty_utf16_units_look_like_a_socket_id() {
        let has_own = |room: &str| {
            let channel = sharded("/", ShardedMode::Dynamic).broadcast(&selection(&[room]));
            assert!(
                sharded("/", ShardedMode::DynamicPrivate).broadcast(&selection(&[room]))
                    != "socket.io#/#"
            );
            channel != "socket.io#/#"
        };
        assert!(!has_own("abcdefghij0123456789") && !has_own(&"😀".repeat(10)));
        assert!(!has_own(&"é".repeat(20)));
        assert!(has_own(&"😀".repeat(20)) && has_own(&"é".repeat(10)));
        assert!(
            has_own("sixteen-chars-id") && has_own(&"x".repeat(19)) && has_own(&"x".repeat(21))
        );
    }

    #[test]
    fn requests_and_responses_have_the_channels_of_node() {
        let channels = classic("socket.io", "/admin");
        assert_eq!(channels.request(), "socket.io-request#/admin#");
        assert_eq!(channels.response(), "socket.io-response#/admin#");
        assert_eq!(channels.own_response(), "socket.io-response#/admin#me#");
        assert_eq!(channels.response_to("25WDST"), "socket.io-response#/admin#25WDST#");
        let channels = sharded("/admin", ShardedMode::Dynamic);
        assert_eq!(channels.base(), "socket.io#/admin#");
        assert_eq!(channels.request(), channels.base());
        assert_eq!(channels.response(), channels.base());
        assert_eq!(channels.own_response(), "socket.io#/admin#me#");
        assert_eq!(channels.response_to("you"), "socket.io#/admin#you#");
    }

    #[test]
    fn the_name_says_who_is_meant() {
        let channels = classic("socket.io", "/");
        let addressed = |channel: &'static str| channels.addressed(channel.as_bytes());
        assert_eq!(addressed("socket.io#/#"), Addressed::Everyone);
        assert_eq!(addressed("socket.io#/##"), Addressed::Everyone);
        assert_eq!(addressed("socket.io#/#x"), Addressed::Everyone);
        assert_eq!(addressed("socket.io#/#a#b#"), room("a#b"));
        assert_eq!(addressed("socket.io#/#room1"), room("room"));
        assert_eq!(addressed("socket.io#/#salle é😀#"), room("salle é😀"));
        assert_eq!(addressed("socket.io-request#/#"), Addressed::Request);
        assert_eq!(addressed("socket.io-request#/#x"), Addressed::Foreign);
        assert_eq!(addressed("socket.io-response#/#"), Addressed::Response);
        assert_eq!(addressed("socket.io-response#/#me#"), Addressed::Response);
        assert_eq!(addressed("socket.io-response#/#you#"), Addressed::Foreign);
        assert_eq!(addressed("socket.io#/#me#"), room("me"));
        assert_eq!(addressed("socket.io#/admin#"), Addressed::Foreign);
        assert_eq!(addressed("socket.io"), Addressed::Foreign);
        assert_eq!(channels.addressed(b"socket.io#/#\xff#"), room("\u{fffd}"));
    }

    #[test]
    fn sharded_servers_share_one_channel_for_everything_but_answers() {
        for mode in MODES {
            let channels = sharded("/", mode);
            let addressed = |channel: &'static str| channels.addressed(channel.as_bytes());
            assert_eq!(addressed("socket.io#/#"), Addressed::Any);
            assert_eq!(addressed("socket.io#/##"), Addressed::Any);
            assert_eq!(addressed("socket.io#/#a#b#"), room("a#b"));
            assert_eq!(addressed("socket.io#/#me#"), Addressed::Response);
            assert_eq!(addressed("socket.io#/admin#"), Addressed::Foreign);
            assert_eq!(addressed("socket.io-request#/#"), Addressed::Foreign);
        }
    }

    #[test]
    fn the_base_channel_of_a_namespace_may_be_that_of_a_room_in_another() {
        let base = classic("socket.io", "/#x").broadcast(&selection(&[]));
        assert_eq!(base, classic("socket.io", "/").room("x"));
        assert_eq!(classic("socket.io", "/").addressed(base.as_bytes()), room("x"));
        assert_eq!(classic("socket.io", "/#x").addressed(base.as_bytes()), Addressed::Everyone);
    }

    #[test]
    fn a_tag_stands_for_all_sockets_of_a_node() {
        let tag = NodeTag::parse("a-_9").expect("a tag");
        let channels = classic("so*", "/");
        assert_eq!(channels.tag_pattern(tag), r"so\*#/#a-_9*");
        for (name, is_covered) in
            [("a-_9xyz", true), ("a-_9", true), ("a-_8xyz", false), ("", false)]
        {
            assert_eq!(Channels::is_covered(name, tag), is_covered, "{name}");
            let channel = channels.room(name);
            let matches = glob_matches(channels.tag_pattern(tag).as_bytes(), channel.as_bytes());
            assert_eq!(matches, is_covered, "{name}");
        }
    }

    #[test]
    fn names_are_taken_literally_in_patterns() {
        let channels = classic("a*", "/[x]?\\");
        assert_eq!(channels.broadcast_pattern(), r"a\*#/\[x]\?\\#*");
        assert_eq!(channels.request_pattern(), r"a\*-request#/\[x]\?\\#");
    }

    /// What Redis does with a pattern, without character classes, which an escaped text does not have.
    fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|at| glob_matches(rest, &text[at..])),
            [b'?', rest @ ..] => !text.is_empty() && glob_matches(rest, &text[1..]),
            [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
                text.first() == Some(literal) && glob_matches(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn an_escaped_text_matches_only_itself(
            text in r"[ab*?\[\]\\#/]{0,8}",
            other in r"[ab*?\[\]\\#/]{0,8}",
        ) {
            let pattern = escape_glob(&text);
            prop_assert!(glob_matches(pattern.as_bytes(), text.as_bytes()));
            prop_assert_eq!(glob_matches(pattern.as_bytes(), other.as_bytes()), text == other);
        }

        #[test]
        fn a_room_is_read_back_from_its_channel(ns in "/.{0,8}", name in ".{1,12}") {
            let channels = classic("socket.io", &ns);
            let channel = channels.broadcast(&selection(&[&name]));
            let read = channels.addressed_room(channel.as_bytes());
            prop_assert_eq!(read.as_deref(), Some(name.as_str()));
            let pattern = channels.broadcast_pattern();
            prop_assert!(glob_matches(pattern.as_bytes(), channel.as_bytes()));
        }
    }
}
