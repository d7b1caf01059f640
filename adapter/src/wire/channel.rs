//! Channel names: the only place that builds or takes apart one.
//!
//! Namespaces and rooms stand in channel names as they are, never escaped: `#` may be part of either. So a
//! channel is never split; what is known is cut off at both ends.

use crate::{RoomName, Selection};
use std::borrow::Cow;

/// The channels of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    /// `key#ns#`: broadcasts to everybody or several rooms; with a room behind it, those to that room.
    base: String,
    /// `key-request#ns#`: what is asked of other nodes.
    request: String,
}

/// What the name of a channel says about a message, before it is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Addressed<'a> {
    /// A broadcast that may be for any socket of the namespace.
    Everyone,
    /// A broadcast to one room.
    Room(Cow<'a, str>),
    /// A request.
    Request,
    /// Nothing of this namespace.
    Foreign,
}

impl Channels {
    pub(crate) fn new(key: &str, ns: &str) -> Self {
        Self { base: format!("{key}#{ns}#"), request: format!("{key}-request#{ns}#") }
    }

    /// The channel on which a broadcast is published.
    pub(crate) fn broadcast(mut self, selection: &Selection) -> String {
        if let [room] = selection.rooms.as_slice() {
            self.base.push_str(room);
            self.base.push('#');
        }
        self.base
    }

    /// The pattern for all broadcasts, as every Node server subscribes to it.
    pub(crate) fn broadcast_pattern(&self) -> String {
        let mut pattern = escape_glob(&self.base);
        pattern.push('*');
        pattern
    }

    /// A pattern that only the request channel matches.
    ///
    /// Node servers count the subscribers of the request channel to learn how many answers they will get.
    /// A pattern is not counted, and as long as nothing here answers, nobody may wait for it.
    pub(crate) fn request_pattern(&self) -> String {
        escape_glob(&self.request)
    }

    /// What the name of the channel says. As on Node the last character is cut off without a look at it,
    /// and a room with an empty name is not filtered by.
    pub(crate) fn addressed<'a>(&self, channel: &'a [u8]) -> Addressed<'a> {
        if channel == self.request.as_bytes() {
            return Addressed::Request;
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
        if suffix.is_empty() { Addressed::Everyone } else { Addressed::Room(suffix) }
    }

    /// The room that a channel is for, if it is for one.
    pub(crate) fn room(&self, channel: &[u8]) -> Option<RoomName> {
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
fn escape_glob(text: &str) -> String {
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

    #[test]
    fn one_room_has_a_channel_of_its_own() {
        let channel = |rooms: &[&str]| Channels::new("socket.io", "/").broadcast(&selection(rooms));
        assert_eq!(channel(&[]), "socket.io#/#");
        assert_eq!(channel(&["a#b"]), "socket.io#/#a#b#");
        assert_eq!(channel(&[""]), "socket.io#/##");
        assert_eq!(channel(&["a", "b"]), "socket.io#/#");
    }

    #[test]
    fn the_name_says_who_is_meant() {
        let channels = Channels::new("socket.io", "/");
        let addressed = |channel: &'static str| channels.addressed(channel.as_bytes());
        assert_eq!(addressed("socket.io#/#"), Addressed::Everyone);
        assert_eq!(addressed("socket.io#/##"), Addressed::Everyone);
        assert_eq!(addressed("socket.io#/#x"), Addressed::Everyone);
        assert_eq!(addressed("socket.io#/#a#b#"), room("a#b"));
        assert_eq!(addressed("socket.io#/#room1"), room("room"));
        assert_eq!(addressed("socket.io#/#salle é😀#"), room("salle é😀"));
        assert_eq!(addressed("socket.io-request#/#"), Addressed::Request);
        assert_eq!(addressed("socket.io-request#/#x"), Addressed::Foreign);
        assert_eq!(addressed("socket.io#/admin#"), Addressed::Foreign);
        assert_eq!(addressed("socket.io"), Addressed::Foreign);
        assert_eq!(channels.addressed(b"socket.io#/#\xff#"), room("\u{fffd}"));
    }

    #[test]
    fn names_are_taken_literally_in_patterns() {
        let channels = Channels::new("a*", "/[x]?\\");
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
            let channels = Channels::new("socket.io", &ns);
            let channel = channels.clone().broadcast(&selection(&[&name]));
            let read = channels.room(channel.as_bytes());
            prop_assert_eq!(read.as_deref(), Some(name.as_str()));
            let pattern = channels.broadcast_pattern();
            prop_assert!(glob_matches(pattern.as_bytes(), channel.as_bytes()));
        }
    }
}
