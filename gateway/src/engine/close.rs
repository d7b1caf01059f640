//! Why a session ended.

/// Reasons for the end of a session, a closed set: they are metric labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CloseReason {
    /// The connection ended from the client's side.
    TransportClose,
    /// Reading or writing failed, or the client broke a rule of the transport.
    TransportError,
    /// No pong within `ping_timeout`.
    PingTimeout,
    /// A packet that no Socket.IO client sends.
    ParseError,
    /// No namespace within `connect_timeout`, or attachments that never came.
    Forced,
    /// The last namespace was disconnected by a server with `close`.
    ServerDisconnect,
    /// The client left its last namespace and closed.
    ClientDisconnect,
    /// The outbox was full, or the peer took nothing for too long.
    SlowConsumer,
    /// The node could not take this client's events in time.
    Overload,
    /// Messages between nodes were lost that this session might have had to get.
    Gap,
    /// The node is being stopped.
    Drain,
}

impl CloseReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 11] = [
        Self::TransportClose,
        Self::TransportError,
        Self::PingTimeout,
        Self::ParseError,
        Self::Forced,
        Self::ServerDisconnect,
        Self::ClientDisconnect,
        Self::SlowConsumer,
        Self::Overload,
        Self::Gap,
        Self::Drain,
    ];

    /// The label of metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport_close",
            Self::TransportError => "transport_error",
            Self::PingTimeout => "ping_timeout",
            Self::ParseError => "parse_error",
            Self::Forced => "forced",
            Self::ServerDisconnect => "server_disconnect",
            Self::ClientDisconnect => "client_disconnect",
            Self::SlowConsumer => "slow_consumer",
            Self::Overload => "overload",
            Self::Gap => "gap",
            Self::Drain => "drain",
        }
    }

    /// Whether what was queued before the close still reaches the client. After a hole or an
    /// error it must not: the client would take what follows the hole for complete.
    pub fn hands_over_backlog(self) -> bool {
        matches!(self, Self::Forced | Self::ServerDisconnect | Self::ClientDisconnect | Self::Drain)
    }

    /// The status of the WebSocket close frame, if one is sent with a status. Node's server sends
    /// none (1005) when it closes a session.
    pub fn websocket_code(self) -> Option<u16> {
        match self {
            Self::Overload => Some(1013),
            _ => None,
        }
    }
}
