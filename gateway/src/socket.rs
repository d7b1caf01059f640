//! The Socket.IO edge: it reads packets of clients, lets the rules decide, and acts.
//!
//! A [`Gateway`] is the engine's handler. Each session gets a `Client`, which knows the
//! namespaces the session is connected to. All of this runs on the connection's own task and never
//! waits; what concerns other sockets is queued to their lanes.

mod connect;
mod event;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adapter::{Follow, RoomName};
use bytes::Bytes;
use protocol::msgpack;
use protocol::socket::{EventData, Packet, PacketKind};
use smallvec::SmallVec;

use crate::config::{Parser, SocketConfig};
use crate::engine::{CloseReason, Handler, Inbound, Message, Session, Waiting, frame::Frame};
use crate::hub::{Command, Hub, Lanes, Namespace, Observer, Socket};
use crate::metrics::SocketMetrics;

/// What all clients of this node share.
pub struct Gateway {
    hub: Hub,
    /// Whether messages for a room arrive only once the adapter follows it.
    rooms_are_followed: bool,
    config: SocketConfig,
    connect_timeout: std::time::Duration,
    metrics: SocketMetrics,
}

impl Gateway {
    /// A gateway over `hub`.
    pub fn new(
        hub: Hub,
        config: SocketConfig,
        connect_timeout: std::time::Duration,
        metrics: SocketMetrics,
    ) -> Self {
        let rooms_are_followed = hub.adapter().follows() != Follow::Nothing;
        Self { hub, rooms_are_followed, config, connect_timeout, metrics }
    }

    /// The sockets of this node, and the way to all others.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

/// The engine's handler.
pub struct GatewayHandler(pub Arc<Gateway>);

impl Handler for GatewayHandler {
    fn open(&self, session: &Arc<Session>) -> Box<dyn Inbound> {
        session.set_deadline(self.0.connect_timeout, CloseReason::Forced);
        Box::new(Client { gateway: self.0.clone(), state: Mutex::default() })
    }
}

impl Observer for Gateway {
    fn departed(&self, socket: &Arc<Socket>) {
        self.run_disconnect_rules(socket);
        self.leave_namespace(socket.namespace());
    }

    fn follows(&self) -> Follow {
        self.hub.adapter().follows()
    }

    fn room_opened(&self, namespace: &Namespace, room: &str) {
        self.hub.adapter().room_opened(namespace.name(), room);
    }

    fn room_closed(&self, namespace: &Namespace, room: &str) {
        self.hub.adapter().room_closed(namespace.name(), room);
    }
}

/// One session's Socket.IO state.
struct Client {
    gateway: Arc<Gateway>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The session is over: nothing may be joined any more.
    closed: bool,
    /// Something of this client was queued to its lane: answers may have to follow it there.
    queued: bool,
    /// CONNECTs that were refused; a client that only collects refusals is closed.
    n_refused: u16,
    sockets: SmallVec<[Arc<Socket>; 1]>,
    /// A packet whose attachments are still on their way.
    pending: Option<Box<Pending>>,
}

/// A binary packet that is not complete.
struct Pending {
    text: Box<str>,
    n_attachments: usize,
    attachments: Vec<Bytes>,
}

impl Inbound for Client {
    fn message(
        &self,
        session: &Arc<Session>,
        message: Message<'_>,
        replies: &mut Vec<u8>,
    ) -> Result<(), CloseReason> {
        let mut state = self.state();
        if state.closed {
            return Ok(());
        }
        self.gateway.metrics.received(&message);
        let mut turn = Turn { gateway: &self.gateway, session, state: &mut state, replies };
        match (self.gateway.hub.lanes().codec().parser(), message) {
            (Parser::Json, Message::Text(text)) => turn.on_text(text),
            (Parser::Json, Message::Binary(bytes)) => turn.on_attachment(bytes),
            (Parser::Msgpack, Message::Binary(bytes)) => turn.on_msgpack(bytes),
            (Parser::Msgpack, Message::Text(_)) => Err(CloseReason::ParseError),
        }
    }

    /// Its other namespaces are disconnected by the server too: a client that only saw the connection end
    /// would come back to them by itself.
    fn parting(&self, session: &Arc<Session>) {
        let state = self.state();
        let sockets: SmallVec<[_; 1]> =
            state.sockets.iter().filter(|socket| !socket.is_gone()).cloned().collect();
        drop(state);
        let codec = self.gateway.hub.lanes().codec();
        for socket in sockets {
            session.push(&codec.disconnect(socket.namespace().name()));
        }
        session.flush();
    }

    fn closed(&self, _session: &Arc<Session>, _reason: CloseReason) {
        let mut state = self.state();
        state.closed = true;
        state.pending = None;
        for socket in std::mem::take(&mut state.sockets) {
            let lane = self.gateway.hub.lanes().of(socket.id());
            lane.push(Command::Remove(socket));
        }
    }

    fn ready(&self) -> bool {
        self.gateway.hub.lanes().is_ready()
    }

    fn wait_ready(&self) -> Waiting<'_> {
        Box::pin(self.gateway.hub.lanes().wait_ready())
    }
}

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in the middle of a packet ends its session; the state is not used again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is sent once every room of a rule that joins is followed.
struct LateAnswer {
    lanes: Arc<Lanes>,
    session: Arc<Session>,
    frame: Frame,
    n_rooms: AtomicUsize,
}

impl LateAnswer {
    /// One more room is followed. The answer goes through the lane, behind what the event caused.
    fn followed(&self) {
        if self.n_rooms.fetch_sub(1, Ordering::AcqRel) == 1 {
            let lane = self.lanes.of(self.session.id());
            lane.push(Command::Send(self.session.clone(), self.frame.clone()));
        }
    }
}

/// The handling of one message of one client.
struct Turn<'a> {
    gateway: &'a Arc<Gateway>,
    session: &'a Arc<Session>,
    state: &'a mut State,
    replies: &'a mut Vec<u8>,
}

impl Turn<'_> {
    fn on_text(&mut self, text: &str) -> Result<(), CloseReason> {
        if self.state.pending.is_some() {
            return Err(CloseReason::ParseError);
        }
        let packet = Packet::parse(text, self.gateway.config.attachments_max)
            .map_err(|_| CloseReason::ParseError)?;
        if packet.attachments == 0 {
            return self.on_packet(&packet, &[]);
        }
        // Attachments are kept only for a client that may send them.
        self.find(packet.namespace).ok_or(CloseReason::ParseError)?;
        let pending = Pending {
            text: text.into(),
            n_attachments: packet.attachments,
            attachments: Vec::new(),
        };
        self.state.pending = Some(Box::new(pending));
        self.session.set_deadline(self.gateway.config.attachments_timeout, CloseReason::ParseError);
        Ok(())
    }

    fn on_attachment(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let pending = self.state.pending.as_mut().ok_or(CloseReason::ParseError)?;
        pending.attachments.push(Bytes::copy_from_slice(bytes));
        if pending.attachments.len() < pending.n_attachments {
            return Ok(());
        }
        let Some(pending) = self.state.pending.take() else { return Ok(()) };
        self.session.clear_deadline();
        let packet = Packet::parse(&pending.text, self.gateway.config.attachments_max)
            .map_err(|_| CloseReason::ParseError)?;
        self.on_packet(&packet, &pending.attachments)
    }

    fn on_msgpack(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let packet = msgpack::decode_packet(bytes, self.gateway.config.attachments_max)
            .map_err(|_| CloseReason::ParseError)?;
        self.on_packet(&packet.as_packet(), &packet.data.attachments)
    }

    fn on_packet(&mut self, packet: &Packet<'_>, attachments: &[Bytes]) -> Result<(), CloseReason> {
        match packet.kind {
            PacketKind::Connect => self.connect(packet),
            PacketKind::Disconnect => self.disconnect(packet),
            PacketKind::Event | PacketKind::BinaryEvent => self.event(packet, attachments),
            PacketKind::Ack | PacketKind::BinaryAck => self.ack(packet, attachments),
            PacketKind::ConnectError => Err(CloseReason::ParseError),
        }
    }

    fn find(&self, namespace: &str) -> Option<&Arc<Socket>> {
        self.state.sockets.iter().find(|socket| socket.namespace().name() == namespace)
    }

    /// Called before anything of this client is queued to a lane: answers that are written but not
    /// sent yet go first, or what the lane sends would overtake them.
    fn queueing(&mut self) {
        self.state.queued = true;
        if self.replies.is_empty() {
            return;
        }
        let answers = Frame::from_websocket(self.replies.as_slice());
        self.replies.clear();
        let lane = self.gateway.hub.lanes().of(self.session.id());
        lane.push(Command::Send(self.session.clone(), answers));
    }

    /// Sends an answer after whatever this client caused before: directly if its lane has nothing
    /// to do, which is the usual case, else through the lane.
    fn answer(&mut self, kind: PacketKind, namespace: &str, id: Option<u64>, data: &EventData) {
        let lanes = self.gateway.hub.lanes();
        self.gateway.metrics.answered();
        if self.state.queued {
            let lane = lanes.of(self.session.id());
            if !lane.is_idle() {
                let mut bytes = Vec::new();
                lanes.codec().append(&mut bytes, kind, namespace, id, data);
                lane.push(Command::Send(self.session.clone(), Frame::from_websocket(bytes)));
                return;
            }
            self.state.queued = false;
        }
        lanes.codec().append(self.replies, kind, namespace, id, data);
    }

    /// The same once messages for `rooms`, at least one, arrive at this node. Nothing waits.
    fn answer_when_followed(
        &self,
        rooms: &[RoomName],
        namespace: &str,
        id: Option<u64>,
        data: &EventData,
    ) {
        let hub = &self.gateway.hub;
        let mut bytes = Vec::new();
        hub.lanes().codec().append(&mut bytes, PacketKind::Ack, namespace, id, data);
        self.gateway.metrics.answered();
        let answer = Arc::new(LateAnswer {
            lanes: hub.lanes().clone(),
            session: self.session.clone(),
            frame: Frame::from_websocket(bytes),
            n_rooms: AtomicUsize::new(rooms.len()),
        });
        for room in rooms {
            let answer = answer.clone();
            hub.adapter().when_followed(namespace, room, move || answer.followed());
        }
    }
}
