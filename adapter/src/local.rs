//! The trait through which an adapter sees the sockets of its node, and the values it passes.

use futures_util::stream::BoxStream;
use protocol::{id::NodeTag, socket::EventData};
use std::{borrow::Borrow, fmt, future::Future, ops::Deref, sync::Arc, time::Duration};

/// What an adapter sees of its node. The gateway's hub implements it.
///
/// Methods that take a selection apply it as Node does: the sockets in any of the rooms (all sockets
/// of the namespace if there is none) without those in any of the excepted rooms, each socket once.
///
/// For one namespace, what other nodes send is applied in the order in which it came in: `ready`, `deliver`, `join`,
/// `leave` and `disconnect` are called one after the other, the next when the one before has resolved. `rooms`,
/// `sockets`, `ask` and `server_event` are called in the same order and polled once before anything later is
/// applied; what they do after that runs beside everything else, many of them at once. What takes a look at
/// sockets should do so before it waits for the first time. What this node's own callers want of the adapter is
/// asked at any time, in no order with what others send.
pub trait Local: Send + Sync + 'static {
    /// Whether a socket of this node may be in the room.
    ///
    /// The answer may be true too often, but never false while a local socket is in the room: messages
    /// for rooms that nobody is in are dropped before they are decoded.
    fn has_room(&self, ns: &str, room: &str) -> bool;

    /// Waits for room in the fan-out queues. Called before each delivery of a remote message.
    fn ready(&self) -> impl Future<Output = ()> + Send;

    /// Hands an event of another node to the selected sockets of this node. Never waits.
    fn deliver(&self, ns: &str, selection: &Selection, flags: Flags, data: EventData);

    /// Lets the selected sockets join rooms. Resolves when that has been applied.
    fn join(
        &self,
        ns: &str,
        selection: &Selection,
        rooms: &[RoomName],
    ) -> impl Future<Output = ()> + Send;

    /// Lets the selected sockets leave rooms. Resolves when that has been applied.
    fn leave(
        &self,
        ns: &str,
        selection: &Selection,
        rooms: &[RoomName],
    ) -> impl Future<Output = ()> + Send;

    /// Disconnects the selected sockets from the namespace, or with `close` closes their connections.
    /// Resolves when that has been applied.
    fn disconnect(
        &self,
        ns: &str,
        selection: &Selection,
        close: bool,
    ) -> impl Future<Output = ()> + Send;

    /// All rooms of the namespace with a socket of this node in them, the sockets' own rooms (named by
    /// their ids) included, each once.
    fn rooms(&self, ns: &str) -> impl Future<Output = Vec<RoomName>> + Send;

    /// Describes the selected sockets of this node.
    fn sockets(
        &self,
        ns: &str,
        selection: &Selection,
    ) -> impl Future<Output = Vec<SocketDetail>> + Send;

    /// Sends an event to the selected sockets of this node and asks each for an acknowledgement. Resolves
    /// when all of them are known; answers follow until everybody has answered or left, or `timeout` is
    /// over. Dropping the answers ends the question.
    fn ask(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: EventData,
        timeout: Duration,
    ) -> impl Future<Output = Asked> + Send;

    /// Takes an event that another server sent to all servers (`serverSideEmit`), and gives what is to be
    /// answered: a JSON array with one element, or an empty one for an answer without a value. It is only
    /// sent if `is_answered`.
    ///
    /// A node that does nothing with such events answers `[null]`, so that no Node server waits for it.
    fn server_event(
        &self,
        ns: &str,
        event: EventData,
        is_answered: bool,
    ) -> impl Future<Output = EventData> + Send;

    /// How many sockets this node has, over all namespaces. Other nodes can read it.
    fn n_sockets(&self) -> usize;

    /// What the ids of all sockets of this node begin with, if they do.
    fn tag(&self) -> Option<NodeTag>;

    /// Asks for another tag, because another node has the same. Says whether it was changed: it cannot be
    /// once an id was given out.
    fn change_tag(&self) -> bool;

    /// Says that messages for this room (without a room: for any socket of the namespace) may have been
    /// lost. Never waits.
    fn gap(&self, ns: &str, room: Option<&str>, cause: GapCause);
}

/// A socket as it is described to other nodes, in the shape of Node's `RemoteSocket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketDetail {
    /// Its id.
    pub id: RoomName,
    /// The rooms it is in, its own included.
    pub rooms: Vec<RoomName>,
    /// A JSON object with the keys of Node's `handshake`: `headers`, `time`, `address`, `xdomain`, `secure`,
    /// `issued`, `url`, `query`, `auth`.
    pub handshake: Box<str>,
    /// A JSON value: what the application attached to the socket, an object on Node.
    pub data: Box<str>,
}

/// A question that was put to sockets of this node.
pub struct Asked {
    /// How many sockets were asked.
    pub n_asked: usize,
    /// The answers as they come, at most one of each socket. Ends when no more can come.
    pub answers: BoxStream<'static, ClientAnswer>,
}

/// What one client answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAnswer {
    /// The id of the socket; unknown if a Node server passed the answer on.
    pub socket: Option<RoomName>,
    /// The arguments of the acknowledgement as a JSON array. Other nodes get and send only the first one.
    pub args: EventData,
}

/// Why messages may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The node was too slow, or a message too large: a message was dropped on arrival. The sockets it
    /// could have selected must be closed at engine level.
    Overflow,
    /// The link to Redis was lost for a while. What that means for sockets is a setting of the node.
    LinkLost,
}

impl GapCause {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            GapCause::Overflow => "overflow",
            GapCause::LinkLost => "link_lost",
        }
    }
}

/// The name of a room. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RoomName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for RoomName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl Deref for RoomName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

// `str` and `RoomName` hash and compare alike, because the derived implementations see only the text.
impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for RoomName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which sockets of a namespace are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Sockets in any of these rooms; if empty, all sockets of the namespace.
    pub rooms: Vec<RoomName>,
    /// Without the sockets in any of these rooms.
    pub except: Vec<RoomName>,
}

/// How an event is to be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// May be dropped for sockets that cannot be written to at once.
    pub volatile: bool,
    /// Whether the sender wanted per-message compression.
    pub compress: Option<bool>,
    /// Only for the sockets of this node.
    pub local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_set_of_room_names_is_searched_by_text() {
        let rooms = HashSet::from([RoomName::from("a"), RoomName::from(String::from("b"))]);
        assert!(rooms.contains("a") && rooms.contains("b") && !rooms.contains("c"));
    }
}
