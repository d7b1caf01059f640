//! What is written into a published message, so that it can be recognised wherever it comes out.

use super::history::Target;

/// What a received message says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// As in the publication.
    pub publisher: u32,
    /// As in the publication.
    pub number: u32,
    /// As in the publication.
    pub target: Target,
}

/// The name of a room.
pub fn room(room: u16) -> String {
    format!("room-{room}")
}

/// The only argument of the event `msg`; it needs no escapes in JSON.
pub fn text(publisher: u32, number: u32, target: &Target, padding: usize) -> String {
    format!("{publisher}.{number}.{target}.{padding}.{}", "x".repeat(padding))
}

/// Reads the arguments of an event; none if it is not a whole `msg`.
pub fn parse(event: &str) -> Option<Message> {
    let text = event.strip_prefix(r#"["msg",""#)?.strip_suffix(r#""]"#)?;
    let mut parts = text.splitn(5, '.');
    let publisher = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    let target = match parts.next()? {
        "all" => Target::Everyone,
        rooms => Target::Rooms(rooms.split('+').map(str::parse).collect::<Result<_, _>>().ok()?),
    };
    let padding: usize = parts.next()?.parse().ok()?;
    let is_whole = parts.next()? == "x".repeat(padding);
    is_whole.then_some(Message { publisher, number, target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_it_is() {
        for target in [Target::Everyone, Target::Rooms(vec![7]), Target::Rooms(vec![1, 12])] {
            let text = text(3, 14, &target, 20);
            let message = parse(&format!(r#"["msg","{text}"]"#)).expect("a whole message");
            assert_eq!(message, Message { publisher: 3, number: 14, target });
        }
    }

    #[test]
    fn a_message_that_was_changed_is_not_recognised() {
        let whole = format!(r#"["msg","{}"]"#, text(3, 14, &Target::Everyone, 20));
        for changed in [
            whole.replace("xx\"", "x\""),
            whole.replace("msg", "message"),
            whole.replace("3.", "."),
            whole.replace("xxx", "xyx"),
            whole.replace("\"]", "\",1]"),
        ] {
            assert_ne!(changed, whole);
            assert_eq!(parse(&changed), None, "{changed}");
        }
    }
}
