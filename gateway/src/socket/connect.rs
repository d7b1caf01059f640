//! How a client enters and leaves a namespace.

use std::sync::Arc;

use protocol::id::Id;
use protocol::socket::{EventData, Packet, PacketKind, parse_auth};
use serde_json::{Value, json};

use super::{Gateway, Turn};
use crate::engine::CloseReason;
use crate::hub::{Command, Namespace, NamespaceChange, Socket};
use crate::rules::{Context, Refusal};

/// CONNECTs that may be refused in a row before the connection is closed: a client retries on its own
/// only after a delay, so many refusals in a row are an attack or a broken loop.
const REFUSALS_MAX: u16 = 100;

/// Largest `auth` that is kept for other servers to see: it stays as long as the socket.
const SHARED_AUTH_BYTES_MAX: usize = 4096;

impl Turn<'_> {
    pub(super) fn connect(&mut self, packet: &Packet<'_>) -> Result<(), CloseReason> {
        let auth = parse_auth(packet.data).map_err(|_| CloseReason::ParseError)?;
        let name = packet.namespace;
        self.state.sockets.retain(|socket| !socket.is_gone());
        if self.find(name).is_some() {
            // It is connected already: a second CONNECT means nothing.
            return Ok(());
        }
        if self.state.sockets.len() >= self.gateway.config.namespaces_per_client_max {
            return self.refuse(name, "Too many namespaces", None);
        }
        let namespace = match self.gateway.enter_namespace(name) {
            Ok(namespace) => namespace,
            Err(error) => return self.refuse(name, &error.to_string(), None),
        };
        let lanes = self.gateway.hub.lanes();
        let id = Id::generate(lanes.tag().for_id(), self.session.id().lane());
        let context = Context { socket_id: id.as_str(), auth, is_member: &|_| false };
        let decision = match namespace.config().rules.on_connect(&context) {
            Ok(decision) => decision,
            Err(Refusal { code, message }) => {
                self.gateway.metrics.refused(code);
                self.gateway.leave_namespace(&namespace);
                return self.refuse(name, &message, Some(&json!({ "code": code.as_str() })));
            }
        };
        let shared_auth = auth.filter(|auth| {
            self.gateway.config.share_auth && auth.get().len() <= SHARED_AUTH_BYTES_MAX
        });
        let shared_auth = shared_auth.map(|auth| auth.get().into());
        let socket = Socket::new(id, namespace, self.session.clone(), shared_auth);
        let greeting = lanes.codec().connect(name, id.as_str());
        self.queueing();
        lanes.of(id).push(Command::Add { socket: socket.clone(), greeting });
        self.state.sockets.push(socket.clone());
        self.state.n_refused = 0;
        self.session.clear_deadline();
        self.act(&socket, decision.actions);
        Ok(())
    }

    fn refuse(
        &mut self,
        namespace: &str,
        message: &str,
        data: Option<&Value>,
    ) -> Result<(), CloseReason> {
        self.state.n_refused += 1;
        if self.state.n_refused > REFUSALS_MAX {
            return Err(CloseReason::Forced);
        }
        let mut error = json!({ "message": message });
        if let Some(data) = data {
            error["data"] = data.clone();
        }
        let data = EventData { json: error.to_string().into(), attachments: Vec::new() };
        self.answer(PacketKind::ConnectError, namespace, None, &data);
        Ok(())
    }

    pub(super) fn disconnect(&mut self, packet: &Packet<'_>) -> Result<(), CloseReason> {
        let name = packet.namespace;
        let at = self.state.sockets.iter().position(|socket| socket.namespace().name() == name);
        let at = at.ok_or(CloseReason::ParseError)?;
        let socket = self.state.sockets.remove(at);
        self.queueing();
        self.gateway.hub.lanes().of(socket.id()).push(Command::Remove(socket));
        if self.state.sockets.is_empty() {
            // As at the start: a connection without a namespace is closed after a while.
            self.session.set_deadline(self.gateway.connect_timeout, CloseReason::ClientDisconnect);
        }
        Ok(())
    }
}

impl Gateway {
    fn enter_namespace(&self, name: &str) -> Result<Arc<Namespace>, crate::hub::NamespaceError> {
        let namespaces = self.hub.lanes().namespaces();
        namespaces.enter(name, |name, change| self.follow(name, &change))
    }

    pub(super) fn leave_namespace(&self, namespace: &Namespace) {
        let namespaces = self.hub.lanes().namespaces();
        namespaces.leave(namespace, |name, change| self.follow(name, &change));
    }

    fn follow(&self, namespace: &str, change: &NamespaceChange) {
        match change {
            NamespaceChange::Opened => self.hub.adapter().open_namespace(namespace),
            NamespaceChange::Closed => self.hub.adapter().close_namespace(namespace),
        }
    }

    /// Runs the rules for a socket that has left its namespace.
    pub(super) fn run_disconnect_rules(&self, socket: &Arc<Socket>) {
        let id = socket.id();
        let context = Context { socket_id: id.as_str(), auth: None, is_member: &|_| false };
        let decision = socket.namespace().config().rules.on_disconnect(&context);
        for action in decision.actions {
            self.emit_for(socket, action);
        }
    }
}
