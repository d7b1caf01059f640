//! JSON values as the text they were written in.

use std::{borrow::Cow, ops::Deref};

use super::{JsonError, Reader};
use crate::MESSAGE_DEPTH_MAX;

/// The text of one JSON value, without white space around it.
///
/// It has been checked: its syntax, its depth, and that a double can hold each of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawJson<'a>(&'a str);

/// The value is neither an object nor an array, so it has no parts; or not the one of them that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoParts;

impl<'a> RawJson<'a> {
    /// Checks a text that holds one value and nothing else. `None` if it does not.
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::read(text).ok()
    }

    /// Checks a text as [`parse`](Self::parse) does, but it may be as deep as a message between servers.
    pub fn parse_message(text: &'a str) -> Option<Self> {
        Self::read_with(Reader::within(text, MESSAGE_DEPTH_MAX)).ok()
    }

    /// Checks a text as [`parse_message`](Self::parse_message) does, and on the way calls `each` for the members
    /// of the object that it must be. What `each` was called for counts for nothing if the text is wrong behind it.
    pub fn read_message(
        text: &'a str,
        mut each: impl FnMut(&str, RawJson<'a>),
    ) -> Result<(), NoParts> {
        let mut reader = Reader::within(text, MESSAGE_DEPTH_MAX);
        let mut read = || -> Result<(), JsonError> {
            if reader.peek()? != b'{' {
                return Err(JsonError::Syntax);
            }
            let mut more = reader.open(b'}')?;
            while more {
                let key = reader.key()?;
                let value = reader.value()?;
                each(&key.unescape(), value);
                more = reader.more(b'}')?;
            }
            reader.end()
        };
        read().map_err(|_| NoParts)
    }

    pub(crate) fn read(text: &'a str) -> Result<Self, JsonError> {
        Self::read_with(Reader::new(text))
    }

    fn read_with(mut reader: Reader<'a>) -> Result<Self, JsonError> {
        let value = reader.value()?;
        reader.end()?;
        Ok(value)
    }

    /// Reads what has been checked already, its depth too.
    fn reader(self) -> Reader<'a> {
        Reader::within(self.0, usize::MAX)
    }

    /// Takes a text that a [`Reader`] has just gone over.
    pub(super) fn of(text: &'a str) -> Self {
        RawJson(text)
    }

    /// The text.
    pub fn get(self) -> &'a str {
        self.0
    }

    /// The value of `key` in an object, or at that index of an array. `null` holds nothing.
    pub fn part(self, key: &str) -> Result<Option<Self>, NoParts> {
        let found = match self.0.as_bytes().first() {
            Some(b'{') => self.member(key),
            Some(b'[') => key.parse().map_or(Ok(None), |index| self.element(index)),
            Some(b'n') => Ok(None),
            _ => return Err(NoParts),
        };
        // The text has been checked before.
        found.map_err(|_| NoParts)
    }

    /// The text of a string; `None` if the value is something else.
    pub fn text(self) -> Option<Cow<'a, str>> {
        let mut reader = self.reader();
        match reader.peek() {
            Ok(b'"') => Some(reader.string().ok()?.unescape()),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn elements(self) -> Result<RawValues<'a>, NoParts> {
        if !self.0.starts_with('[') {
            return Err(NoParts);
        }
        let mut values = RawValues::default();
        let mut reader = self.reader();
        let mut read = || -> Result<(), JsonError> {
            let mut more = reader.open(b']')?;
            while more {
                values.push(reader.value()?);
                more = reader.more(b']')?;
            }
            Ok(())
        };
        // The text has been checked before.
        read().map_err(|_| NoParts)?;
        Ok(values)
    }

    /// Calls `each` for the members of an object in their order, until it fails.
    pub fn each_member<E: From<NoParts>>(
        self,
        mut each: impl FnMut(&str, RawJson<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.0.starts_with('{') {
            return Err(NoParts.into());
        }
        let mut reader = self.reader();
        // The text has been checked before.
        let mut more = reader.open(b'}').map_err(|_| NoParts)?;
        while more {
            let key = reader.key().map_err(|_| NoParts)?;
            let value = reader.value().map_err(|_| NoParts)?;
            each(&key.unescape(), value)?;
            more = reader.more(b'}').map_err(|_| NoParts)?;
        }
        Ok(())
    }

    fn member(self, name: &str) -> Result<Option<Self>, JsonError> {
        let mut reader = self.reader();
        let mut found = None;
        let mut more = reader.open(b'}')?;
        while more {
            let key = reader.key()?;
            let value = reader.value()?;
            // The last of several equal keys counts, as in JavaScript.
            if key.is(name) {
                found = Some(value);
            }
            more = reader.more(b'}')?;
        }
        Ok(found)
    }

    fn element(self, index: usize) -> Result<Option<Self>, JsonError> {
        let mut reader = self.reader();
        let mut more = reader.open(b']')?;
        let mut at = 0;
        while more {
            let value = reader.value()?;
            if at == index {
                return Ok(Some(value));
            }
            at += 1;
            more = reader.more(b']')?;
        }
        Ok(None)
    }
}

/// How many values [`RawValues`] holds without an allocation.
const INLINE: usize = 4;

/// The values of an array; few events have more than four arguments.
#[derive(Clone, Debug)]
pub struct RawValues<'a> {
    inline: [RawJson<'a>; INLINE],
    n_inline: usize,
    /// All values, as soon as there are more than have room in `inline`.
    spilled: Vec<RawJson<'a>>,
}

impl<'a> RawValues<'a> {
    pub(crate) fn push(&mut self, value: RawJson<'a>) {
        if let Some(place) = self.inline.get_mut(self.n_inline) {
            *place = value;
            self.n_inline += 1;
            return;
        }
        if self.spilled.is_empty() {
            self.spilled.extend(self.inline);
        }
        self.spilled.push(value);
    }
}

impl Default for RawValues<'_> {
    fn default() -> Self {
        RawValues { inline: [RawJson(""); INLINE], n_inline: 0, spilled: Vec::new() }
    }
}

impl<'a> Deref for RawValues<'a> {
    type Target = [RawJson<'a>];

    fn deref(&self) -> &Self::Target {
        if self.spilled.is_empty() { &self.inline[..self.n_inline] } else { &self.spilled }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::DEPTH_MAX;

    /// The reader looks at long strings in words and in chunks: each byte is put at each place.
    #[test]
    fn what_may_not_stand_in_a_string_is_found_at_every_place() {
        for len in 0..90 {
            for at in 0..len {
                for byte in (0..0x80).chain([0xff]) {
                    let mut inner = vec!["x"; len];
                    let special = char::from(byte).to_string();
                    inner[at] = &special;
                    let text = format!("[\"{}\"]", inner.concat());
                    let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
                    assert_eq!(RawJson::parse(&text).is_some(), is_json, "{text:?}");
                }
            }
        }
    }

    fn part<'a>(value: RawJson<'a>, key: &str) -> Result<Option<&'a str>, NoParts> {
        Ok(value.part(key)?.map(RawJson::get))
    }

    #[test]
    fn parts_are_found_by_key_and_by_index() {
        let value =
            RawJson::parse(r#" {"a":1,"\u0062":[{"c":2},3],"a":{"d":null}} "#).expect("JSON");
        assert_eq!(part(value, "a"), Ok(Some("{\"d\":null}")), "the last of equal keys counts");
        assert_eq!(part(value, "b"), Ok(Some("[{\"c\":2},3]")), "escapes in keys are resolved");
        assert_eq!(part(value, "c"), Ok(None));
        let list = value.part("b").expect("an object").expect("a value");
        assert_eq!(part(list, "1"), Ok(Some("3")));
        assert_eq!((part(list, "2"), part(list, "x")), (Ok(None), Ok(None)));
        assert_eq!(part(RawJson("null"), "a"), Ok(None));
        assert_eq!(part(RawJson("3"), "a"), Err(NoParts));
    }

    #[test]
    fn elements_and_members_are_gone_through_in_order() {
        let value = RawJson::parse(r#"{"a":[1,"x",{}],"\u0062":null,"a":2}"#).expect("JSON");
        let mut seen = Vec::new();
        let walked = value.each_member(|key, value| {
            seen.push((key.to_owned(), value.get()));
            Ok::<(), NoParts>(())
        });
        assert_eq!(walked, Ok(()));
        let expected = [("a", "[1,\"x\",{}]"), ("b", "null"), ("a", "2")];
        assert_eq!(seen, expected.map(|(key, value)| (key.to_owned(), value)));
        let elements = RawJson("[1,\"x\",{}]").elements().expect("an array");
        assert_eq!(
            elements.iter().map(|value| value.get()).collect::<Vec<_>>(),
            ["1", "\"x\"", "{}"]
        );
        assert!(RawJson("{}").elements().is_err() && RawJson("[]").elements().is_ok());
        assert_eq!(RawJson("[]").each_member(|_, _| Ok(())), Err(NoParts));
        let mut read = Vec::new();
        let text = r#"{"a":[1,"x",{}],"\u0062":null,"a":2}"#;
        let result =
            RawJson::read_message(text, |key, value| read.push((key.to_owned(), value.get())));
        assert_eq!((result, read), (Ok(()), seen));
        for wrong in ["", "[]", "1", "{", "{}x", "{\"a\":}", "{\"a\":1,}"] {
            assert_eq!(RawJson::read_message(wrong, |_, _| {}), Err(NoParts), "{wrong}");
        }
        // What fails ends the walk.
        assert_eq!(value.each_member(|_, _| Err(NoParts)), Err(NoParts));
    }

    #[test]
    fn only_strings_have_a_text() {
        assert_eq!(RawJson(r#""a\n\u00e9""#).text().as_deref(), Some("a\n\u{e9}"));
        for other in ["1", "null", "[\"a\"]", "{}"] {
            assert_eq!(RawJson(other).text(), None);
        }
    }

    #[test]
    fn a_message_may_be_deeper_than_an_event() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let texts = [DEPTH_MAX, DEPTH_MAX + 1, MESSAGE_DEPTH_MAX, MESSAGE_DEPTH_MAX + 1].map(deep);
        let are_events = texts.each_ref().map(|text| RawJson::parse(text).is_some());
        let are_messages = texts.each_ref().map(|text| RawJson::parse_message(text).is_some());
        let as_members = texts.each_ref().map(|text| {
            // The object is one level of the depth.
            RawJson::read_message(&format!("{{\"a\":{}}}", &text[1..text.len() - 1]), |_, _| {})
                .is_ok()
        });
        assert_eq!(as_members, are_messages);
        assert_eq!(are_events, [true, false, false, false]);
        assert_eq!(are_messages, [true, true, true, false]);
        // What has been read once can be walked through.
        let inner = RawJson::parse_message(&texts[2]).expect("JSON").elements().expect("an array");
        assert_eq!(inner[0].get(), deep(MESSAGE_DEPTH_MAX - 1));
    }

    #[test]
    fn values_stay_in_order_when_there_are_many() {
        for n in 0..10 {
            let texts: Vec<String> = (0..n).map(|number| number.to_string()).collect();
            let mut values = RawValues::default();
            for text in &texts {
                values.push(RawJson(text));
            }
            let read: Vec<&str> = values.iter().map(|value| value.get()).collect();
            assert_eq!(read, texts);
        }
    }
}
