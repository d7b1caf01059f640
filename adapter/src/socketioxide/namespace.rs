//! The sockets of one namespace, as socketioxide keeps them, seen as Node would see them.

use super::value::{self, ValueError, ValueKind};
use crate::{Flags, RoomName, Selection};
use protocol::socket::EventData;
use socketioxide_core::{
    Sid, Str, Value,
    adapter::{BroadcastFlags, BroadcastOptions, CoreLocalAdapter, Room, SocketEmitter},
    packet::Packet,
    parser::Parse,
};
use std::collections::HashSet;

/// Whom options of socketioxide mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Sockets of this server only.
    Local,
    /// Sockets of any server.
    Cluster(Selection),
}

/// The sockets of one namespace.
///
/// A socket of socketioxide is in no room named like its id, on Node it is. Instead of treating such names apart
/// everywhere, [`options`](Self::options) and [`admit`](Self::admit) let a socket join its own room when that room
/// is named for the first time.
pub(super) struct Namespace<E> {
    pub(super) core: CoreLocalAdapter<E>,
    kind: ValueKind,
}

impl<E: SocketEmitter> Namespace<E> {
    pub(super) fn new(core: CoreLocalAdapter<E>) -> Self {
        // A parser does not say what it makes. It shows.
        let kind = match core.parser().encode_default(&()) {
            Ok(Value::Bytes(_)) => ValueKind::MessagePack,
            _ => ValueKind::Json,
        };
        Self { core, kind }
    }

    pub(super) fn path(&self) -> &str {
        self.core.path()
    }

    pub(super) fn kind(&self) -> ValueKind {
        self.kind
    }

    /// Whether a socket is here.
    pub(super) fn has(&self, id: Sid) -> bool {
        !self.core.fetch_sockets(BroadcastOptions::new(id)).is_empty()
    }

    /// Whether somebody is in the room, or is the room.
    pub(super) fn has_room(&self, room: &str) -> bool {
        let mut options = BroadcastOptions::default();
        options.rooms.push(Room::Owned(room.to_owned()));
        self.owner(room).is_some() || !self.core.sockets(options).is_empty()
    }

    /// The ids of all sockets.
    pub(super) fn ids(&self) -> Vec<Sid> {
        self.core.sockets(everybody())
    }

    /// All rooms, ids included, each once.
    pub(super) fn rooms(&self) -> HashSet<String> {
        let mut rooms: HashSet<String> =
            self.core.rooms(everybody()).into_iter().map(Room::into_owned).collect();
        rooms.extend(self.ids().iter().map(Sid::to_string));
        rooms
    }

    /// Options that select what the selection does.
    pub(super) fn options(&self, selection: &Selection, flags: Flags) -> BroadcastOptions {
        let mut options = BroadcastOptions::default();
        options.rooms.extend(selection.rooms.iter().map(to_room));
        options.except.extend(selection.except.iter().map(to_room));
        if selection.rooms.is_empty() {
            // Without it, no rooms mean nobody.
            options.add_flag(BroadcastFlags::Broadcast);
        }
        if flags.volatile {
            options.add_flag(BroadcastFlags::Volatile);
        }
        self.admit(&options);
        options
    }

    /// Lets sockets join their own rooms, as far as the options name them.
    pub(super) fn admit(&self, options: &BroadcastOptions) {
        for room in options.rooms.iter().chain(&options.except) {
            let Some(id) = self.owner(room) else { continue };
            self.core.add_all(id, id);
            // It may have left meanwhile. Whether it is still here is asked behind the join, so that either this
            // removes it or the removal of the socket, which comes later, does.
            if !self.has(id) {
                self.core.del_all(id);
            }
        }
    }

    /// The socket whose own room this is.
    fn owner(&self, room: &str) -> Option<Sid> {
        room.parse().ok().filter(|id| self.has(*id))
    }

    /// Whom options of the application mean, if anybody.
    pub(super) fn target(&self, options: &BroadcastOptions) -> Option<Target> {
        let is_broadcast = options.has_flag(BroadcastFlags::Broadcast);
        if options.is_local(self.core.server_id()) {
            return Some(Target::Local);
        }
        if options.rooms.is_empty() && !is_broadcast {
            let id = options.sid?;
            if self.has(id) {
                return Some(Target::Local);
            }
            let rooms = vec![RoomName::from(id.as_str())];
            return Some(Target::Cluster(Selection { rooms, except: Vec::new() }));
        }
        let mut except: Vec<_> = options.except.iter().map(to_room_name).collect();
        // Who emits to others is left out, wherever this is delivered.
        except.extend(options.sid.filter(|_| is_broadcast).map(|id| RoomName::from(id.as_str())));
        let rooms = options.rooms.iter().map(to_room_name).collect();
        Some(Target::Cluster(Selection { rooms, except }))
    }

    /// The packet of an event.
    pub(super) fn packet(&self, data: EventData) -> Result<Packet, ValueError> {
        Ok(Packet::event(self.path_text(), value::from_event_data(data, self.kind)?))
    }

    /// A packet on which the official clients give up their connection and connect anew.
    pub(super) fn unreadable_packet(&self) -> Packet {
        let value = match self.kind {
            ValueKind::Json => Value::Str(Str::from("["), None),
            // The byte that begins no value.
            ValueKind::MessagePack => Value::Bytes(bytes::Bytes::from_static(&[0xc1])),
        };
        Packet::event(self.path_text(), value)
    }

    fn path_text(&self) -> Str {
        self.core.path().clone()
    }
}

/// Options that select everybody.
fn everybody() -> BroadcastOptions {
    let mut options = BroadcastOptions::default();
    options.add_flag(BroadcastFlags::Broadcast);
    options
}

fn to_room(name: &RoomName) -> Room {
    Room::Owned(name.as_str().to_owned())
}

pub(super) fn to_room_name(room: &Room) -> RoomName {
    RoomName::from(room.as_ref())
}
