//! Events between servers.

use protocol::socket::{Event, EventData};
use serde::{Serialize, de::DeserializeOwned};

/// An event that another server sent to all servers of a namespace.
#[derive(Clone, Debug)]
pub struct ServerEvent {
    /// The namespace.
    pub ns: String,
    /// The event: its name and arguments.
    pub data: EventData,
    /// Whether the sender waits for an answer.
    pub is_answered: bool,
}

impl ServerEvent {
    /// The name of the event.
    pub fn name(&self) -> String {
        // The adapter lets only such data through that begins with a name.
        Event::parse(&self.data.json).map(|event| event.name.into_owned()).unwrap_or_default()
    }

    /// The arguments, as a tuple or a `Vec`. Binaries are placeholders for those in `data.attachments`.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let args = match Event::parse(&self.data.json) {
            Ok(event) => event.args.iter().map(|arg| arg.get().to_owned()).collect(),
            Err(_) => Vec::new(),
        };
        serde_json::from_str(&format!("[{}]", args.join(",")))
    }
}

/// Makes event data of a tuple, an array or a `Vec`: the name of an event and its arguments, or the one argument of
/// an answer.
///
/// ```
/// use adapter::socketioxide::event_data;
///
/// let data = event_data(&("hello", 1, ["two"])).expect("serializable");
/// assert_eq!(&*data.json, r#"["hello",1,["two"]]"#);
/// ```
pub fn event_data<T: Serialize + ?Sized>(args: &T) -> Result<EventData, serde_json::Error> {
    Ok(EventData { json: serde_json::to_string(args)?.into(), attachments: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_apart_as_it_was_made() {
        let data = event_data(&("hello", 1, ["two"])).expect("serializable");
        let event = ServerEvent { ns: "/".to_owned(), data, is_answered: false };
        assert_eq!(event.name(), "hello");
        let args: (u8, Vec<String>) = event.args().expect("two arguments");
        assert_eq!(args, (1, vec!["two".to_owned()]));
        event.args::<(String,)>().expect_err("the first argument is a number");
    }
}
