//! What this node counts. Names carry the prefix `carillon_` and their unit; labels are closed sets:
//! never a room, an id, a user or an event name that a client made up.

use prometheus::{IntCounter, Registry};

use crate::engine::Message;
use crate::engine::close::CloseReason;
use crate::engine::error::RequestError;
use crate::hub::Namespace;
use crate::rules::RefusalCode;

adapter::metrics! {
    /// Engine.IO sessions.
    pub struct EngineFamilies {
        /// Open Engine.IO sessions by transport.
        pub sessions: IntGaugeVec = "carillon_sessions", ["transport"];
        /// Sessions opened by the transport they began with.
        pub opened: IntCounterVec = "carillon_sessions_opened_total", ["transport"];
        /// Sessions that went from polling to WebSocket.
        pub upgraded: IntCounter = "carillon_sessions_upgraded_total";
        /// Sessions closed by reason; slow_consumer, overload and gap are closed by this node.
        pub closed: IntCounterVec = "carillon_sessions_closed_total", ["reason"];
        /// Engine.IO requests refused by reason.
        pub refused: IntCounterVec = "carillon_requests_refused_total", ["reason"];
        /// Bytes of answers that connections sent by themselves, past the lanes.
        pub bytes_sent: IntCounter = "carillon_answers_sent_bytes_total";
    }
}

adapter::metrics! {
    /// The Socket.IO edge.
    pub struct SocketFamilies {
        /// Messages received from clients by kind; an attachment is one message.
        pub received: IntCounterVec = "carillon_messages_received_total", ["kind"];
        /// Bytes of messages received from clients.
        pub received_bytes: IntCounter = "carillon_received_bytes_total";
        /// Client events and connects refused by the rules, by reason.
        pub events_refused: IntCounterVec = "carillon_events_refused_total", ["reason"];
        /// Answers sent to clients: acknowledgements and refused connects.
        pub answered: IntCounter = "carillon_answers_sent_total";
        /// Events emitted by rules.
        pub emitted: IntCounter = "carillon_events_emitted_total";
    }
}

adapter::metrics! {
    /// Fan-out on this node.
    pub struct HubMetrics {
        /// Sockets connected by configured namespace.
        pub sockets: IntGaugeVec = "carillon_sockets", ["namespace"];
        /// Bytes of events and answers that lanes handed to sessions, as WebSocket frames.
        pub sent_bytes: IntCounter = "carillon_fan_out_sent_bytes_total";
        /// Packets handed to sockets by fan-out.
        pub deliveries: IntCounter = "carillon_deliveries_total";
        /// Volatile packets dropped because a socket was not writable.
        pub volatile_drops: IntCounter = "carillon_volatile_dropped_total";
        /// Acknowledgements of clients dropped because too many waited to be taken.
        pub answers_dropped: IntCounter = "carillon_acknowledgements_dropped_total";
        /// Events of other servers by what the rules made of them.
        pub server_events: IntCounterVec = "carillon_server_events_total", ["result"];
        /// Commands that wait in the lanes.
        pub lane_depth: IntGauge = "carillon_lane_queue_commands";
        /// Commands at which producers are asked to wait, over all lanes.
        pub lane_limit: IntGauge = "carillon_lane_queue_limit_commands";
    }
}

adapter::metrics! {
    /// The process as a whole.
    pub struct NodeMetrics {
        /// Constant 1, labelled with the version.
        pub build_info: IntGaugeVec = "carillon_build_info", ["version"];
        /// TCP connections on the public listener.
        pub connections: IntGauge = "carillon_connections";
        /// TCP connections refused before a request was read, by reason.
        pub connections_refused: IntCounterVec = "carillon_connections_refused_total", ["reason"];
        /// Configuration reloads by result.
        pub reloads: IntCounterVec = "carillon_config_reloads_total", ["result"];
        /// 1 while the node is draining.
        pub draining: IntGauge = "carillon_draining";
        /// Log lines dropped because nobody took them.
        pub log_lines_dropped: IntGauge = "carillon_log_lines_dropped";
    }
}

/// [`EngineFamilies`] with their children resolved.
pub struct EngineMetrics {
    families: EngineFamilies,
    closed: [IntCounter; CloseReason::ALL.len()],
}

impl EngineMetrics {
    /// Registers the families.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let families = EngineFamilies::register(registry)?;
        for reason in RequestError::LABELS {
            families.refused.with_label_values(&[reason]);
        }
        for transport in ["polling", "websocket"] {
            families.sessions.with_label_values(&[transport]);
            families.opened.with_label_values(&[transport]);
        }
        let closed =
            CloseReason::ALL.map(|reason| families.closed.with_label_values(&[reason.as_str()]));
        Ok(Self { families, closed })
    }

    pub(crate) fn opened(&self, transport: &str) {
        self.families.opened.with_label_values(&[transport]).inc();
        self.families.sessions.with_label_values(&[transport]).inc();
    }

    pub(crate) fn upgraded(&self) {
        self.families.upgraded.inc();
        self.families.sessions.with_label_values(&["polling"]).dec();
        self.families.sessions.with_label_values(&["websocket"]).inc();
    }

    pub(crate) fn closed(&self, reason: CloseReason, transport: &str) {
        self.families.sessions.with_label_values(&[transport]).dec();
        if let Some(at) = CloseReason::ALL.iter().position(|other| *other == reason) {
            self.closed[at].inc();
        }
    }

    pub(crate) fn refused(&self, error: RequestError) {
        self.families.refused.with_label_values(&[error.as_str()]).inc();
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.families.bytes_sent.inc_by(bytes as u64);
    }
}

/// [`SocketFamilies`] with their children resolved.
pub struct SocketMetrics {
    families: SocketFamilies,
    text: IntCounter,
    binary: IntCounter,
}

impl SocketMetrics {
    /// Registers the families.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let families = SocketFamilies::register(registry)?;
        for code in RefusalCode::ALL {
            families.events_refused.with_label_values(&[code.as_str()]);
        }
        let text = families.received.with_label_values(&["text"]);
        let binary = families.received.with_label_values(&["binary"]);
        Ok(Self { families, text, binary })
    }

    pub(crate) fn received(&self, message: &Message<'_>) {
        let (counter, bytes) = match message {
            Message::Text(text) => (&self.text, text.len()),
            Message::Binary(bytes) => (&self.binary, bytes.len()),
        };
        counter.inc();
        self.families.received_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn refused(&self, code: RefusalCode) {
        self.families.events_refused.with_label_values(&[code.as_str()]).inc();
    }

    pub(crate) fn answered(&self) {
        self.families.answered.inc();
    }

    pub(crate) fn emitted(&self) {
        self.families.emitted.inc();
    }
}

impl HubMetrics {
    pub(crate) fn socket_added(&self, namespace: &Namespace) {
        self.sockets.with_label_values(&[namespace.config().path.as_str()]).inc();
    }

    pub(crate) fn socket_removed(&self, namespace: &Namespace) {
        self.sockets.with_label_values(&[namespace.config().path.as_str()]).dec();
    }

    pub(crate) fn fanned_out(&self, deliveries: u64, bytes: usize) {
        self.deliveries.inc_by(deliveries);
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn volatile_dropped(&self) {
        self.volatile_drops.inc();
    }
}
