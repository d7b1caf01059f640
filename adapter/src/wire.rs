//! The forms in which other nodes say things. Pure functions: no I/O, no state, no panic on any input.
//!
//! Both protocols of Node's adapter say the same things in different forms; what they say is [`Message`].

use crate::{ClientAnswer, Flags, RoomName, Selection, SocketDetail};
use protocol::{msgpack::TranscodeError, socket::EventData};
use std::time::Duration;
use thiserror::Error;

#[cfg(test)]
mod captures;
pub(crate) mod channel;
pub(crate) mod classic;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod msgpack;
pub(crate) mod sharded;
mod value;
mod write;

/// What a message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Our own message, which came back.
    Own,
    /// A message for a namespace with which this one shares a channel name.
    Foreign,
    /// Of a type that is unknown, or that means nothing here.
    Ignored,
    /// An event for the selected sockets.
    Broadcast { selection: Selection, flags: Flags, data: EventData },
    /// Something asked of every server.
    Request(Request),
    /// An answer, perhaps to a request of ours.
    Response(Response),
}

/// Something asked of every server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The uid of who asks; emitters give none, or `emitter`.
    pub(crate) from: Option<String>,
    /// Under which an answer is expected, if one is.
    pub(crate) id: Option<String>,
    pub(crate) body: RequestBody,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestBody {
    /// The selected sockets are to join rooms.
    Join { selection: Selection, rooms: Vec<RoomName> },
    /// The selected sockets are to leave rooms.
    Leave { selection: Selection, rooms: Vec<RoomName> },
    /// The selected sockets are to be disconnected.
    Disconnect { selection: Selection, close: bool },
    /// The ids of the sockets in these rooms are asked for; classic only, sent by adapters before version 8.
    Sockets { rooms: Vec<RoomName> },
    /// All rooms are asked for; classic only.
    Rooms,
    /// Descriptions of the selected sockets are asked for.
    Fetch { selection: Selection },
    /// An event for all servers.
    ServerEvent { data: EventData },
    /// An event for the selected sockets, whose acknowledgements are asked for.
    Ask { selection: Selection, flags: Flags, data: EventData, timeout: Option<Duration> },
}

/// An answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) request_id: String,
    /// The uid of who answers. Classic servers do not tell it; Carillon nodes do, in an extra key.
    pub(crate) from: Option<String>,
    pub(crate) body: ResponseBody,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResponseBody {
    /// Described sockets.
    Sockets(Vec<SocketDetail>),
    /// The ids of sockets; classic only, the answer to [`RequestBody::Sockets`].
    SocketIds(Vec<RoomName>),
    /// Rooms; classic only.
    Rooms(Vec<RoomName>),
    /// What a server answered to an event: a JSON array with one element or none.
    ServerEvent(EventData),
    /// How many clients were asked for an acknowledgement.
    ClientCount(u64),
    /// The acknowledgement of one client, with one argument or none.
    Ack(ClientAnswer),
    /// Without what was asked for; classic only. It counts as an answer all the same, and is the answer to a
    /// join, leave or disconnect in the form of older adapters, which carries an id.
    Empty,
}

/// Why something must not be published.
#[derive(Debug, Error)]
pub(crate) enum EncodeError {
    /// It is not what MessagePack or JSON can say.
    #[error(transparent)]
    Transcode(#[from] TranscodeError),
    /// Clients close their connection on more binaries than ten.
    #[error("more than {} attachments", event::ATTACHMENTS_MAX)]
    TooManyAttachments,
    /// Not an array that begins with a name, or a name that clients or servers do not bear.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The protocol has no word for it.
    #[error("this protocol cannot say that")]
    Unsupported,
}

/// Why a message was not understood.
#[derive(Debug, Error)]
pub(crate) enum DecodeError {
    /// A value is broken.
    #[error(transparent)]
    Transcode(#[from] TranscodeError),
    /// A value is not what it must be here.
    #[error("{0}")]
    Shape(&'static str),
    /// Something stands behind the message.
    #[error("trailing bytes")]
    TrailingBytes,
    /// It begins like JSON, but is none.
    #[error("invalid JSON")]
    Json,
    /// The data is no event.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Why data is no event.
#[derive(Debug, Error)]
#[error("no event, or one with a reserved name")]
pub(crate) struct EventError;
