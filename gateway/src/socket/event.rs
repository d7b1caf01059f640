//! A client's event: decided by the rules, then carried out.

use std::sync::Arc;

use adapter::{Flags, RoomName, Selection};
use bytes::Bytes;
use protocol::socket::{Event, EventData, Packet, PacketKind, check_placeholders, parse_args};
use smallvec::SmallVec;

use super::{Gateway, Turn};
use crate::engine::CloseReason;
use crate::hub::{Command, Membership, Socket};
use crate::rules::{Action, Context, Decision, Emission, Refusal, RefusalCode, Target};

impl Turn<'_> {
    pub(super) fn event(
        &mut self,
        packet: &Packet<'_>,
        attachments: &[Bytes],
    ) -> Result<(), CloseReason> {
        let socket = self.find(packet.namespace).ok_or(CloseReason::ParseError)?.clone();
        let event = Event::parse(packet.data).map_err(|_| CloseReason::ParseError)?;
        if packet.kind == PacketKind::BinaryEvent {
            check_placeholders(packet.data, attachments.len())
                .map_err(|_| CloseReason::ParseError)?;
        }
        if socket.is_gone() {
            // The server has just disconnected it; the client does not know yet.
            return Ok(());
        }
        let config = socket.namespace().config();
        let id = socket.id();
        let context = Context {
            socket_id: id.as_str(),
            auth: None,
            is_member: &|room| socket.is_member(room),
        };
        let decided = config.rules.decide(&event, attachments, &context);
        let checked = decided.and_then(|decision| {
            self.check_rooms(&socket, &decision)?;
            Ok(decision)
        });
        match checked {
            Ok(decision) => {
                let joined = match packet.id {
                    Some(_) if self.gateway.rooms_are_followed => joined(&decision.actions),
                    _ => Vec::new(),
                };
                self.act(&socket, decision.actions);
                if packet.id.is_some() {
                    let ack = decision.ack.unwrap_or_else(empty_ack);
                    if joined.is_empty() {
                        self.answer(PacketKind::Ack, packet.namespace, packet.id, &ack);
                    } else {
                        self.answer_when_followed(&joined, packet.namespace, packet.id, &ack);
                    }
                }
            }
            Err(refusal) => {
                self.gateway.metrics.refused(refusal.code);
                if let Some(id) = packet.id {
                    let json = refusal.to_ack_json().into();
                    let ack = EventData { json, attachments: Vec::new() };
                    self.answer(PacketKind::Ack, packet.namespace, Some(id), &ack);
                }
            }
        }
        Ok(())
    }

    /// Takes a client's answer. One to a question that nobody asked, or not any more, is ignored.
    pub(super) fn ack(
        &mut self,
        packet: &Packet<'_>,
        attachments: &[Bytes],
    ) -> Result<(), CloseReason> {
        let socket = self.find(packet.namespace).ok_or(CloseReason::ParseError)?;
        let id = packet.id.ok_or(CloseReason::ParseError)?;
        parse_args(packet.data).map_err(|_| CloseReason::ParseError)?;
        if packet.kind == PacketKind::BinaryAck {
            check_placeholders(packet.data, attachments.len())
                .map_err(|_| CloseReason::ParseError)?;
        }
        let answer = EventData { json: packet.data.into(), attachments: attachments.to_vec() };
        self.gateway.hub.lanes().questions().answer(id, socket.id(), answer);
        Ok(())
    }

    /// Refuses joins beyond the cap, before any part of the decision takes effect.
    fn check_rooms(&self, socket: &Socket, decision: &Decision) -> Result<(), Refusal> {
        let joins = decision.actions.iter().filter(|action| match action {
            Action::Join(room) => !socket.is_member(room),
            _ => false,
        });
        let n_joins = joins.count();
        let rooms_max = self.gateway.config.rooms_per_socket_max;
        if n_joins > 0 && socket.n_rooms() + n_joins > rooms_max {
            let message = format!("a socket may be in at most {rooms_max} rooms");
            return Err(Refusal { code: RefusalCode::TooManyRooms, message });
        }
        Ok(())
    }

    pub(super) fn act(&mut self, socket: &Arc<Socket>, actions: SmallVec<[Action; 2]>) {
        for action in actions {
            self.queueing();
            match action {
                Action::Join(room) => {
                    socket.note_join(&room);
                    self.change(socket, Membership::Join(room));
                }
                Action::Leave(room) => {
                    socket.note_leave(&room);
                    self.change(socket, Membership::Leave(room));
                }
                emit @ Action::Emit(_) => self.gateway.emit_for(socket, emit),
            }
        }
    }

    fn change(&self, socket: &Arc<Socket>, membership: Membership) {
        let lane = self.gateway.hub.lanes().of(socket.id());
        lane.push(Command::Change(socket.clone(), membership));
    }
}

impl Gateway {
    /// Sends what a rule emits on behalf of `socket`.
    pub(super) fn emit_for(&self, socket: &Arc<Socket>, action: Action) {
        let Action::Emit(Emission { target, mut except, data, volatile }) = action else { return };
        let namespace = socket.namespace();
        let own_id = || RoomName::from(socket.id().as_str());
        let mut flags = Flags { volatile, ..Flags::default() };
        let rooms = match target {
            Target::Everyone => Vec::new(),
            Target::Others => {
                except.push(own_id());
                Vec::new()
            }
            Target::Sender => {
                // Only this node has the sender.
                flags.local = true;
                vec![own_id()]
            }
            Target::Rooms(rooms) => rooms,
            Target::Id(id) => vec![id],
        };
        self.metrics.emitted();
        self.hub.publish(namespace, &Selection { rooms, except }, flags, &data);
    }
}

/// The rooms that are joined.
fn joined(actions: &[Action]) -> Vec<RoomName> {
    let rooms = actions.iter().filter_map(|action| match action {
        Action::Join(room) => Some(room.clone()),
        _ => None,
    });
    rooms.collect()
}

fn empty_ack() -> EventData {
    EventData { json: "[]".into(), attachments: Vec::new() }
}
