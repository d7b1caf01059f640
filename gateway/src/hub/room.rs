//! A socket in a namespace, and the members of rooms on one lane.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter::{RoomName, SocketDetail};
use protocol::id::Id;

use super::namespace::Namespace;
use crate::engine::{Session, first_request::now_ms};
use crate::hash::OwnKeyMap;

/// One client in one namespace.
pub struct Socket {
    id: Id,
    namespace: Arc<Namespace>,
    session: Arc<Session>,
    /// The rooms it is in or was told to join, its own left out. Read by rules that ask for
    /// membership; the lane's index follows in the order of its queue.
    rooms: Mutex<Vec<RoomName>>,
    /// Set when a server disconnected it: the client's further packets for it mean nothing.
    gone: AtomicBool,
    /// Its place in the lane's index; set by the lane when it takes the socket in.
    slot: AtomicU32,
    /// When it connected, in milliseconds since 1970.
    issued_ms: u64,
    /// The JSON object it connected with, if other servers may see it.
    auth: Option<Box<str>>,
}

impl Socket {
    /// A socket that no lane knows yet. Other servers are shown `auth`.
    pub fn new(
        id: Id,
        namespace: Arc<Namespace>,
        session: Arc<Session>,
        auth: Option<Box<str>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            namespace,
            session,
            rooms: Mutex::default(),
            gone: AtomicBool::new(false),
            slot: AtomicU32::new(u32::MAX),
            issued_ms: now_ms(),
            auth,
        })
    }

    /// The public socket id.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The namespace it is connected to.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The session that carries it.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed) as usize
    }

    pub(super) fn set_slot(&self, slot: usize) {
        let slot = u32::try_from(slot).expect("a lane holds fewer than 2^32 sockets");
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Whether the socket has left its namespace for good.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Says whether this call was the first.
    pub(super) fn set_gone(&self) -> bool {
        !self.gone.swap(true, Ordering::AcqRel)
    }

    fn rooms(&self) -> MutexGuard<'_, Vec<RoomName>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is in `room` or was told to join it.
    pub fn is_member(&self, room: &str) -> bool {
        room == self.id.as_str() || self.rooms().iter().any(|name| &**name == room)
    }

    /// How many rooms it is in besides its own.
    pub fn n_rooms(&self) -> usize {
        self.rooms().len()
    }

    /// Notes a membership.
    pub fn note_join(&self, room: &RoomName) {
        let mut rooms = self.rooms();
        match rooms.iter_mut().find(|name| *name == room) {
            // Noted by whoever asked for it; from here on all members share one copy of the name.
            Some(name) => *name = room.clone(),
            None => rooms.push(room.clone()),
        }
    }

    /// Notes the end of a membership.
    pub fn note_leave(&self, room: &str) {
        let mut rooms = self.rooms();
        if let Some(at) = rooms.iter().position(|name| &**name == room) {
            rooms.swap_remove(at);
        }
        if rooms.is_empty() {
            *rooms = Vec::new();
        }
    }
}

impl Socket {
    /// What other nodes are told about it.
    pub(super) fn describe(&self, own_room: bool) -> SocketDetail {
        let id = RoomName::from(self.id.as_str());
        let joined = self.rooms();
        let mut rooms = Vec::with_capacity(joined.len() + 1);
        rooms.extend(own_room.then(|| id.clone()));
        rooms.extend_from_slice(&joined);
        drop(joined);
        let auth = self.auth.as_deref().unwrap_or("{}");
        let handshake = self.session.first_request().handshake(self.issued_ms, auth);
        SocketDetail { id, rooms, handshake, data: "{}".into() }
    }
}

/// The members of one room on one lane, in a dense vector: fan-out is a walk over it.
#[derive(Default)]
pub(super) struct Room {
    pub(super) members: Vec<u32>,
}

/// One socket as its lane sees it.
pub(super) struct Member {
    pub(super) socket: Arc<Socket>,
    /// The socket's session, once more: fan-out reaches it with one step less.
    pub(super) session: Arc<Session>,
    /// Its rooms, and its place in each of them.
    pub(super) rooms: Vec<(RoomName, u32)>,
    /// The last delivery that saw this member, so that one in several rooms is served once.
    pub(super) seen: u64,
    /// Whether it is in the room of its own id; only a server's `leave` can end that.
    pub(super) own_room: bool,
}

/// The sockets of one namespace on one lane.
#[derive(Default)]
pub(super) struct Members {
    pub(super) slots: slab::Slab<Member>,
    pub(super) rooms: HashMap<RoomName, Room>,
    pub(super) by_id: OwnKeyMap<Id, u32>,
}

impl Members {
    pub(super) fn add(&mut self, socket: Arc<Socket>) {
        let id = socket.id();
        let entry = self.slots.vacant_entry();
        socket.set_slot(entry.key());
        self.by_id.insert(id, entry.key() as u32);
        let session = socket.session().clone();
        entry.insert(Member { socket, session, rooms: Vec::new(), seen: 0, own_room: true });
    }

    /// Removes a socket from everything. Answers the rooms that are empty now.
    pub(super) fn remove(&mut self, socket: &Socket) -> Vec<RoomName> {
        let Some(slot) = self.by_id.remove(&socket.id()) else { return Vec::new() };
        let member = self.slots.remove(slot as usize);
        let mut emptied = Vec::new();
        for (name, place) in member.rooms {
            if self.take_out(&name, place) {
                emptied.push(name);
            }
        }
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to_fit();
            self.by_id.shrink_to_fit();
        }
        emptied
    }

    /// Adds a member to a room. Answers whether the room is new.
    pub(super) fn join(&mut self, slot: usize, room: &RoomName) -> bool {
        let Some(member) = self.slots.get_mut(slot) else { return false };
        if **room == *member.socket.id().as_str() {
            member.own_room = true;
            return false;
        }
        if member.rooms.iter().any(|(name, _)| name == room) {
            return false;
        }
        let (name, members, new) = match self.rooms.get_key_value(room) {
            // The index's own copy of the name is shared by all members.
            Some((name, _)) => {
                let name = name.clone();
                (name, self.rooms.get_mut(room).expect("just found"), false)
            }
            None => (room.clone(), self.rooms.entry(room.clone()).or_default(), true),
        };
        member.rooms.push((name.clone(), members.members.len() as u32));
        members.members.push(slot as u32);
        member.socket.note_join(&name);
        new
    }

    /// Takes a member out of a room. Answers whether the room is empty now.
    pub(super) fn leave(&mut self, slot: usize, room: &str) -> bool {
        let Some(member) = self.slots.get_mut(slot) else { return false };
        if room == member.socket.id().as_str() {
            member.own_room = false;
        }
        member.socket.note_leave(room);
        let Some(at) = member.rooms.iter().position(|(name, _)| &**name == room) else {
            return false;
        };
        let (name, place) = member.rooms.swap_remove(at);
        self.take_out(&name, place)
    }

    fn take_out(&mut self, name: &RoomName, place: u32) -> bool {
        let room = self.rooms.get_mut(name).expect("a member's rooms exist");
        room.members.swap_remove(place as usize);
        if let Some(moved) = room.members.get(place as usize) {
            let moved = &mut self.slots[*moved as usize];
            let entry = moved.rooms.iter_mut().find(|(room, _)| room == name);
            entry.expect("a room's members know it").1 = place;
        }
        if room.members.is_empty() {
            self.rooms.remove(name);
            return true;
        }
        false
    }

    /// The member that is in the room of its own id.
    pub(super) fn by_own_room(&self, id: Id) -> Option<&Member> {
        let member = &self.slots[*self.by_id.get(&id)? as usize];
        member.own_room.then_some(member)
    }

    /// The slot of the socket whose own room this is.
    fn own_room(&self, room: &str) -> Option<u32> {
        self.by_own_room(Id::parse(room)?).map(|member| member.socket.slot() as u32)
    }

    /// Whether `socket` is here; its slot may belong to another one by now.
    pub(super) fn has(&self, socket: &Arc<Socket>) -> bool {
        let member = self.slots.get(socket.slot());
        member.is_some_and(|member| Arc::ptr_eq(&member.socket, socket))
    }

    /// Calls `each` once for every selected member.
    pub(super) fn select(
        &mut self,
        selection: &adapter::Selection,
        epoch: &mut u64,
        mut each: impl FnMut(&Member),
    ) {
        *epoch += 1;
        let Self { slots, rooms, .. } = self;
        if selection.except.is_empty() && selection.rooms.is_empty() {
            return slots.iter().for_each(|(_, member)| each(member));
        }
        let single = selection.except.is_empty() && selection.rooms.len() == 1;
        if single && !protocol::id::has_id_form(&selection.rooms[0]) {
            // The usual case: one room, nobody left out, nobody twice.
            let Some(room) = rooms.get(&selection.rooms[0]) else { return };
            return room.members.iter().for_each(|slot| each(&slots[*slot as usize]));
        }
        for name in &selection.except {
            self.mark(name, *epoch);
        }
        if selection.rooms.is_empty() {
            let unseen = self.slots.iter().filter(|(_, member)| member.seen != *epoch);
            return unseen.for_each(|(_, member)| each(member));
        }
        for name in &selection.rooms {
            if let Some(slot) = self.own_room(name) {
                visit(&mut self.slots[slot as usize], *epoch, &mut each);
            }
            let Some(room) = self.rooms.get(name) else { continue };
            for slot in &room.members {
                visit(&mut self.slots[*slot as usize], *epoch, &mut each);
            }
        }
    }

    /// Marks the members of a room as seen, so that the walk that follows leaves them out.
    fn mark(&mut self, name: &RoomName, epoch: u64) {
        if let Some(slot) = self.own_room(name) {
            self.slots[slot as usize].seen = epoch;
        }
        if let Some(room) = self.rooms.get(name) {
            for slot in &room.members {
                self.slots[*slot as usize].seen = epoch;
            }
        }
    }
}

fn visit(member: &mut Member, epoch: u64, each: &mut impl FnMut(&Member)) {
    if member.seen != epoch {
        member.seen = epoch;
        each(member);
    }
}
