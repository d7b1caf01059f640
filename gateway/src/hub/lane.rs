//! One lane: its queue, and the task that owns the sockets behind it.
//!
//! A lane takes everything that waits before it writes anything, so that a burst of messages to a
//! socket becomes one write. Order is first in, first out.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use adapter::{Follow, RoomName, Selection};
use futures_util::task::AtomicWaker;
use protocol::id::Id;
use tokio::sync::{Notify, mpsc};

use super::ack::Questions;
use super::namespace::Namespace;
use super::room::{Member, Members, Socket};
use crate::engine::{CloseReason, Frame, Session};
use crate::hash::OwnKeyMap;
use crate::metrics::HubMetrics;

/// Commands that may wait before senders are asked to wait.
pub const QUEUE_COMMANDS_MAX: usize = 8_192;

/// Bytes of frames that may wait before senders are asked to wait.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Largest frame that is made of several, so that an outbox's limit keeps its meaning.
const MERGED_BYTES_MAX: usize = 128 << 10;

/// What a lane can be told. Commands that concern one socket go to the lane its id names.
pub enum Command {
    /// Takes a socket in, after its client was told so by `greeting`.
    Add {
        /// The socket.
        socket: Arc<Socket>,
        /// The CONNECT packet.
        greeting: Frame,
    },
    /// Forgets a socket.
    Remove(Arc<Socket>),
    /// Changes a socket's rooms.
    Change(Arc<Socket>, Membership),
    /// Sends to one session, after everything that was queued before.
    Send(Arc<Session>, Frame),
    /// Sends to the socket with this id, if it is here.
    Direct {
        /// The namespace.
        namespace: Arc<Namespace>,
        /// The socket id.
        id: Id,
        /// What to send.
        frame: Frame,
        /// Whether it may be dropped.
        volatile: bool,
    },
    /// Sends to all selected sockets.
    Broadcast(Broadcast),
    /// Sends to all selected sockets and asks for their acknowledgement.
    Ask(Ask),
    /// Shows the selected sockets.
    Show {
        /// The namespace.
        namespace: Arc<Namespace>,
        /// Which sockets.
        selection: Arc<Selection>,
        /// Gets them; has room for one message of each lane.
        shown: mpsc::Sender<Vec<Shown>>,
    },
    /// Names the rooms that have members.
    NameRooms {
        /// The namespace.
        namespace: Arc<Namespace>,
        /// Gets them; has room for one message of each lane.
        named: mpsc::Sender<NamedRooms>,
    },
    /// Nothing; dropped once everything queued before is done.
    Settle(mpsc::Sender<()>),
    /// Does something to all selected sockets.
    Each {
        /// The namespace.
        namespace: Arc<Namespace>,
        /// Which sockets.
        selection: Arc<Selection>,
        /// What to do.
        action: Action,
        /// Dropped when it is done.
        done: Option<mpsc::Sender<()>>,
    },
}

/// A fan-out.
#[derive(Clone)]
pub struct Broadcast {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// Which sockets.
    pub selection: Arc<Selection>,
    /// What to send.
    pub frame: Frame,
    /// Whether it may be dropped for a socket that is not writable.
    pub volatile: bool,
}

/// A fan-out that asks for acknowledgements.
pub struct Ask {
    /// What is sent to whom.
    pub broadcast: Broadcast,
    /// The open question.
    pub question: u64,
    /// Gets the number of sockets asked; has room for one message of each lane.
    pub asked: mpsc::Sender<usize>,
}

/// A selected socket.
pub struct Shown {
    /// The socket.
    pub socket: Arc<Socket>,
    /// Whether it is in the room of its own id.
    pub own_room: bool,
}

/// The rooms of one lane.
#[derive(Default)]
pub struct NamedRooms {
    /// Those that sockets joined.
    pub joined: Vec<RoomName>,
    /// Those that sockets have by their id.
    pub own: Vec<Id>,
}

/// A change of one socket's rooms.
pub enum Membership {
    /// Joins a room.
    Join(RoomName),
    /// Leaves a room.
    Leave(RoomName),
}

/// What is done to all selected sockets.
#[derive(Clone)]
pub enum Action {
    /// They join rooms.
    Join(Arc<[RoomName]>),
    /// They leave rooms.
    Leave(Arc<[RoomName]>),
    /// They leave the namespace, told so by this packet; with `close` their sessions end as well.
    Disconnect(Frame, bool),
    /// Their sessions are closed: something for them was lost.
    Gap,
}

/// Hears of what happens on the lanes. It is called on their tasks, so it must not wait.
pub trait Observer: Send + Sync {
    /// Called once for each socket that was added, after it has been forgotten.
    fn departed(&self, socket: &Arc<Socket>);

    /// Of which rooms it wants to hear. Always the same.
    fn follows(&self) -> Follow;

    /// A room of a namespace has its first member on this node.
    fn room_opened(&self, namespace: &Namespace, room: &str);

    /// A room of a namespace has lost its last member on this node. For one room this and
    /// [`Observer::room_opened`] are called one after the other.
    fn room_closed(&self, namespace: &Namespace, room: &str);
}

/// The side of a lane that others hold.
pub struct LaneQueue {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    full: AtomicBool,
    space: Notify,
    queued: AtomicU64,
    done: AtomicU64,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    bytes: usize,
    closed: bool,
}

impl LaneQueue {
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            full: AtomicBool::new(false),
            space: Notify::new(),
            queued: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// Queues a command. Never waits and never fails: whoever produces commands asks
    /// [`LaneQueue::is_ready`] before each unit of work, so the queue exceeds its limit by at most
    /// what the threads of the node produce in one unit each.
    pub fn push(&self, command: Command) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return;
        }
        let first = queue.commands.is_empty();
        queue.bytes += command.bytes();
        queue.commands.push(command);
        self.queued.fetch_add(1, Ordering::Relaxed);
        if queue.commands.len() >= QUEUE_COMMANDS_MAX || queue.bytes >= QUEUE_BYTES_MAX {
            self.full.store(true, Ordering::Release);
        }
        drop(queue);
        if first {
            self.waker.wake();
        }
    }

    /// Whether more may be queued.
    pub fn is_ready(&self) -> bool {
        !self.full.load(Ordering::Acquire)
    }

    /// Waits until more may be queued.
    pub async fn ready(&self) {
        while !self.is_ready() {
            let space = self.space.notified();
            tokio::pin!(space);
            space.as_mut().enable();
            if !self.is_ready() {
                space.await;
            }
        }
    }

    /// Whether everything that was queued is done: an answer sent past the lane now is not early.
    pub fn is_idle(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.queued.load(Ordering::Acquire)
    }

    /// Commands that wait.
    pub fn depth(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).commands.len()
    }

    /// Makes the lane end once it has done what is queued.
    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.waker.wake();
    }

    /// Takes everything that waits; nothing once the lane is closed and empty.
    async fn take(&self, commands: &mut Vec<Command>) -> bool {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.commands.is_empty() {
                return if queue.closed { Poll::Ready(false) } else { Poll::Pending };
            }
            std::mem::swap(&mut queue.commands, commands);
            queue.bytes = 0;
            Poll::Ready(true)
        })
        .await
    }

    fn taken(&self, n_commands: usize) {
        self.done.fetch_add(n_commands as u64, Ordering::Release);
        if self.full.swap(false, Ordering::AcqRel) {
            self.space.notify_waiters();
        }
    }
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Self::Broadcast(Broadcast { frame, .. })
            | Self::Ask(Ask { broadcast: Broadcast { frame, .. }, .. })
            | Self::Direct { frame, .. }
            | Self::Send(_, frame) => frame.websocket().len(),
            _ => 0,
        }
    }
}

/// The task of one lane.
pub struct Lane {
    queue: Arc<LaneQueue>,
    namespaces: OwnKeyMap<u32, Members>,
    observer: Arc<dyn Observer>,
    /// Of which rooms the observer is told.
    follow: Follow,
    questions: Arc<Questions>,
    metrics: HubMetrics,
    epoch: u64,
    /// Sessions with frames that were pushed and not yet flushed.
    dirty: Vec<Arc<Session>>,
    deliveries: u64,
    /// Bytes handed to sessions since the last report.
    bytes: usize,
}

impl Lane {
    pub(super) fn new(
        queue: Arc<LaneQueue>,
        observer: Arc<dyn Observer>,
        questions: Arc<Questions>,
        metrics: HubMetrics,
    ) -> Self {
        Self {
            queue,
            namespaces: OwnKeyMap::default(),
            follow: observer.follows(),
            observer,
            questions,
            metrics,
            epoch: 0,
            dirty: Vec::new(),
            deliveries: 0,
            bytes: 0,
        }
    }

    /// Runs until the queue is closed and empty.
    pub async fn run(mut self) {
        let queue = self.queue.clone();
        let mut commands = Vec::new();
        while queue.take(&mut commands).await {
            let n_commands = commands.len();
            self.carry_out(&mut commands);
            self.flush();
            let bytes = std::mem::take(&mut self.bytes);
            self.metrics.fanned_out(std::mem::take(&mut self.deliveries), bytes);
            queue.taken(n_commands);
            if commands.capacity() > QUEUE_COMMANDS_MAX {
                commands = Vec::new();
            }
            // One lane must not starve the connections of its thread while a flood lasts.
            tokio::task::consume_budget().await;
        }
    }

    fn carry_out(&mut self, commands: &mut Vec<Command>) {
        let mut rest = commands.drain(..).peekable();
        let mut first = true;
        while let Some(command) = rest.next() {
            let more = take_same(&command, &mut rest);
            // What is alone in its batch is written directly, the rest once all of it is queued.
            let alone = first && rest.peek().is_none();
            self.one(command, &more, alone);
            first = false;
        }
    }

    /// Carries out one command. `more` are the frames of broadcasts that were joined to it.
    fn one(&mut self, command: Command, more: &[Frame], alone: bool) {
        match command {
            Command::Broadcast(broadcast) => self.broadcast(&broadcast, more, alone),
            Command::Ask(ask) => self.ask(&ask, alone),
            // Whoever asked may have given up meanwhile.
            Command::Show { namespace, selection, shown } => {
                let _ = shown.try_send(self.show(&namespace, &selection));
            }
            Command::NameRooms { namespace, named } => {
                let _ = named.try_send(self.name_rooms(&namespace));
            }
            Command::Send(session, frame) => self.send(&session, &frame, alone),
            Command::Direct { namespace, id, frame, volatile } => {
                let members = self.namespaces.get(&namespace.index());
                let member = members.and_then(|members| members.by_own_room(id));
                if let Some(session) = member.map(|member| member.session.clone()) {
                    if volatile && !session.send_volatile(&frame) {
                        self.metrics.volatile_dropped();
                        return;
                    }
                    if !volatile {
                        self.send(&session, &frame, alone);
                    }
                    self.deliveries += 1;
                }
            }
            Command::Add { socket, greeting } => {
                self.send(socket.session(), &greeting, alone);
                self.metrics.socket_added(socket.namespace());
                if self.follow == Follow::AllRooms {
                    self.follow_room(socket.namespace(), &RoomName::from(socket.id().as_str()));
                }
                self.namespaces.entry(socket.namespace().index()).or_default().add(socket);
            }
            Command::Remove(socket) => self.remove(&socket),
            Command::Settle(done) => drop(done),
            Command::Change(socket, membership) => self.change(&socket, &membership),
            Command::Each { namespace, selection, action, done } => {
                self.each(&namespace, &selection, &action);
                drop(done);
            }
        }
    }

    fn send(&mut self, session: &Arc<Session>, frame: &Frame, alone: bool) {
        self.bytes += frame.websocket().len();
        if alone {
            session.send(frame);
        } else if session.push(frame) {
            self.dirty.push(session.clone());
        }
    }

    fn flush(&mut self) {
        for session in self.dirty.drain(..) {
            session.flush();
        }
        if self.dirty.capacity() > QUEUE_COMMANDS_MAX {
            self.dirty = Vec::new();
        }
    }

    fn broadcast(&mut self, broadcast: &Broadcast, more: &[Frame], alone: bool) {
        let Some(members) = self.namespaces.get_mut(&broadcast.namespace.index()) else { return };
        let n_packets = 1 + more.len() as u64;
        let frame = if more.is_empty() {
            broadcast.frame.clone()
        } else {
            Frame::concat(std::iter::once(&broadcast.frame).chain(more))
        };
        let Self { dirty, deliveries, bytes, metrics, epoch, .. } = self;
        members.select(&broadcast.selection, epoch, |member: &Member| {
            if broadcast.volatile {
                if !member.session.send_volatile(&frame) {
                    metrics.volatile_dropped();
                    return;
                }
            } else if alone {
                member.session.send(&frame);
            } else if member.session.push(&frame) {
                dirty.push(member.session.clone());
            }
            *deliveries += n_packets;
            *bytes += frame.websocket().len();
        });
    }

    fn ask(&mut self, ask: &Ask, alone: bool) {
        let Broadcast { namespace, selection, frame, volatile } = &ask.broadcast;
        let mut sockets = self.show(namespace, selection);
        self.questions.ask(ask.question, sockets.iter().map(|shown| shown.socket.id()));
        sockets.retain(|Shown { socket, .. }| {
            if !volatile {
                self.send(socket.session(), frame, alone);
            } else if !socket.session().send_volatile(frame) {
                self.metrics.volatile_dropped();
                self.questions.excuse(ask.question, socket.id());
                return false;
            }
            true
        });
        self.deliveries += sockets.len() as u64;
        let _ = ask.asked.try_send(sockets.len());
    }

    fn show(&mut self, namespace: &Namespace, selection: &Selection) -> Vec<Shown> {
        let mut shown = Vec::new();
        if let Some(members) = self.namespaces.get_mut(&namespace.index()) {
            members.select(selection, &mut self.epoch, |member| {
                shown.push(Shown { socket: member.socket.clone(), own_room: member.own_room });
            });
        }
        shown
    }

    fn name_rooms(&self, namespace: &Namespace) -> NamedRooms {
        let Some(members) = self.namespaces.get(&namespace.index()) else {
            return NamedRooms::default();
        };
        let own = members.slots.iter().filter(|(_, member)| member.own_room);
        NamedRooms {
            joined: members.rooms.keys().cloned().collect(),
            own: own.map(|(_, member)| member.socket.id()).collect(),
        }
    }

    fn remove(&mut self, socket: &Arc<Socket>) {
        let index = socket.namespace().index();
        let Some(members) = self.namespaces.get_mut(&index) else { return };
        if !members.has(socket) {
            return;
        }
        socket.set_gone();
        let emptied = members.remove(socket);
        if members.slots.is_empty() {
            self.namespaces.remove(&index);
        }
        for room in emptied {
            self.room_removed(socket.namespace(), &room);
        }
        if self.follow == Follow::AllRooms {
            // Also if a server has taken it out of this room meanwhile: that is rare, and all it
            // costs is what is received for nobody.
            self.unfollow_room(socket.namespace(), socket.id().as_str());
        }
        self.questions.left(socket.id());
        self.metrics.socket_removed(socket.namespace());
        self.observer.departed(socket);
    }

    fn change(&mut self, socket: &Arc<Socket>, membership: &Membership) {
        let namespace = socket.namespace();
        let Some(members) = self.namespaces.get_mut(&namespace.index()) else { return };
        if !members.has(socket) {
            return;
        }
        match membership {
            Membership::Join(room) => {
                if members.join(socket.slot(), room) {
                    self.room_added(namespace, room);
                }
            }
            Membership::Leave(room) => {
                if members.leave(socket.slot(), room) {
                    self.room_removed(namespace, room);
                }
            }
        }
    }

    fn room_added(&self, namespace: &Namespace, room: &RoomName) {
        namespace.room_added(room);
        if self.follow != Follow::Nothing {
            self.follow_room(namespace, room);
        }
    }

    fn room_removed(&self, namespace: &Namespace, room: &str) {
        namespace.room_removed(room);
        if self.follow != Follow::Nothing {
            self.unfollow_room(namespace, room);
        }
    }

    fn follow_room(&self, namespace: &Namespace, room: &RoomName) {
        namespace.follow(room, || self.observer.room_opened(namespace, room));
    }

    fn unfollow_room(&self, namespace: &Namespace, room: &str) {
        namespace.unfollow(room, || self.observer.room_closed(namespace, room));
    }

    fn each(&mut self, namespace: &Arc<Namespace>, selection: &Selection, action: &Action) {
        for Shown { socket, .. } in self.show(namespace, selection) {
            match action {
                Action::Join(rooms) => {
                    for room in &**rooms {
                        self.change(&socket, &Membership::Join(room.clone()));
                    }
                }
                Action::Leave(rooms) => {
                    for room in &**rooms {
                        self.change(&socket, &Membership::Leave(room.clone()));
                    }
                }
                Action::Disconnect(frame, close) => {
                    // What was pushed before belongs before the farewell.
                    socket.session().push(frame);
                    socket.session().flush();
                    self.remove(&socket);
                    if *close {
                        socket.session().close(CloseReason::ServerDisconnect);
                    }
                }
                Action::Gap => socket.session().close(CloseReason::Gap),
            }
        }
    }
}

/// Takes the broadcasts that follow `command` and go to the same sockets: each member gets all of
/// them in one write.
fn take_same(
    command: &Command,
    rest: &mut std::iter::Peekable<std::vec::Drain<'_, Command>>,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Command::Broadcast(broadcast) = command else { return frames };
    let mut bytes = broadcast.frame.websocket().len();
    while let Some(Command::Broadcast(next)) = rest.peek()
        && broadcast.merges_with(next)
        && bytes + next.frame.websocket().len() <= MERGED_BYTES_MAX
    {
        bytes += next.frame.websocket().len();
        frames.push(next.frame.clone());
        rest.next();
    }
    frames
}

impl Broadcast {
    fn merges_with(&self, next: &Self) -> bool {
        !self.volatile
            && !next.volatile
            && self.namespace.index() == next.namespace.index()
            && (Arc::ptr_eq(&self.selection, &next.selection) || self.selection == next.selection)
    }
}
