//! The Engine.IO v4 server: it holds sessions over polling and WebSocket and knows nothing of
//! Socket.IO.
//!
//! [`Engine::handle`] answers the HTTP requests of one path. A request that becomes a WebSocket
//! leaves a [`Takeover`] behind; the owner of the TCP connection passes it back with the stream to
//! [`Engine::take_over`] once the 101 has been written. Whatever the sessions carry goes to a
//! [`Handler`].

pub mod close;
pub mod error;
pub mod first_request;
pub mod frame;
mod handshake;
mod origin;
pub mod outbox;
mod polling;
pub mod registry;
pub mod session;
pub mod timer;
mod upgrade;
mod websocket;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request};
use protocol::engine::Packet;
use protocol::id::Id;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use self::close::CloseReason;
use self::error::{RequestError, Response};
pub use self::first_request::{FirstRequest, Requester};
pub use self::frame::Frame;
use self::handshake::{OpenPackets, Query};
use self::registry::Registry;
pub use self::session::Session;
use self::session::Transport;
use self::timer::Timer;
pub use self::upgrade::Probe;
pub use self::websocket::Connection;
use self::websocket::{Input, Limits};
use crate::config::EngineConfig;
use crate::limit::AddressLimit;
use crate::metrics::EngineMetrics;
use crate::tag::OwnTag;

/// A message of a client, as the engine hands it on.
pub enum Message<'a> {
    /// A text message, without its Engine.IO type.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// A future behind a pointer, for waits that are rare.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The application above the engine.
pub trait Handler: Send + Sync + 'static {
    /// A session was opened. Nothing has been received on it yet.
    fn open(&self, session: &Arc<Session>) -> Box<dyn Inbound>;
}

/// The application's side of one session.
pub trait Inbound: Send + Sync {
    /// Takes a message. Answers go into `replies` as WebSocket frames ([`frame::append_text`]);
    /// they are sent together once the input at hand is used up. Must neither wait nor close
    /// `session` itself: an error closes it.
    fn message(
        &self,
        session: &Arc<Session>,
        message: Message<'_>,
        replies: &mut Vec<u8>,
    ) -> Result<(), CloseReason>;

    /// A server is about to close the session for [`CloseReason::ServerDisconnect`]: what is pushed now
    /// still reaches the client. Called from any thread.
    fn parting(&self, _session: &Arc<Session>) {}

    /// The session is over. Called exactly once, from any thread.
    fn closed(&self, session: &Arc<Session>, reason: CloseReason);

    /// Whether the next message can be taken.
    fn ready(&self) -> bool {
        true
    }

    /// Waits until [`Inbound::ready`] may hold.
    fn wait_ready(&self) -> Waiting<'_> {
        Box::pin(std::future::ready(()))
    }
}

/// Limits that belong to other sections of the configuration but act in the engine.
#[derive(Clone, Debug)]
pub struct EngineLimits {
    /// How long a request body may take.
    pub body_timeout: Duration,
    /// How long a session may wait for [`Inbound::ready`].
    pub overload_timeout: Duration,
    /// Open sessions of the node; more handshakes are refused.
    pub sessions_max: Option<usize>,
    /// Fan-out lanes; a session's id names the one it belongs to.
    pub lanes: u8,
    /// The headers of a session's first request that are kept.
    pub shared_headers: Vec<HeaderName>,
}

/// An Engine.IO server without a listener of its own.
pub struct Engine {
    core: Arc<Core>,
    handler: Arc<dyn Handler>,
}

/// What all sessions of a node share.
pub struct Core {
    config: EngineConfig,
    limits: EngineLimits,
    open_packets: OpenPackets,
    tag: Arc<OwnTag>,
    addresses: AddressLimit,
    pub(crate) metrics: EngineMetrics,
    pub(crate) registry: Registry,
    pub(crate) timer: Arc<Timer>,
}

impl Core {
    pub(crate) fn config(&self) -> &EngineConfig {
        &self.config
    }

    fn reader_limits(&self) -> Limits {
        Limits {
            max_payload: self.config.max_payload,
            frames_per_message_max: self.config.frames_per_message_max,
        }
    }
}

/// What becomes of a TCP connection whose request was answered with 101.
pub enum Takeover {
    /// A new session.
    Open {
        /// What asked for it.
        first_request: FirstRequest,
        /// Its place among the sessions of this address, if these are limited.
        permit: Option<crate::limit::AddressPermit>,
    },
    /// The WebSocket of a session that began with polling.
    Upgrade(Probe),
}

/// The answer to a request, and what follows it on the same connection.
pub struct Answer {
    /// The HTTP response.
    pub response: Response,
    /// Set if and only if the response is a 101.
    pub takeover: Option<Takeover>,
}

/// How far a request has come.
pub enum Begun {
    /// It is answered.
    Answered(Answer),
    /// It belongs to this session, and its answer takes time.
    Polling(Arc<Session>),
}

impl From<Answer> for Begun {
    fn from(answer: Answer) -> Self {
        Self::Answered(answer)
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, takeover: None }
    }
}

impl Engine {
    /// An engine whose sessions are handled by `handler`.
    pub fn new(
        config: EngineConfig,
        limits: EngineLimits,
        tag: Arc<OwnTag>,
        addresses: AddressLimit,
        metrics: EngineMetrics,
        handler: Arc<dyn Handler>,
    ) -> Self {
        let core = Core {
            open_packets: OpenPackets::new(&config),
            config,
            limits,
            tag,
            addresses,
            metrics,
            registry: Registry::default(),
            timer: Arc::new(Timer::new()),
        };
        Self { core: Arc::new(core), handler }
    }

    /// Turns the timer wheel until `shutdown`. Without it no session is pinged or timed out.
    pub async fn run(&self, shutdown: CancellationToken) {
        self.core.timer.clone().run(shutdown).await;
    }

    /// Open sessions.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.core.registry.sessions()
    }

    /// How many sessions are open.
    pub fn n_sessions(&self) -> usize {
        self.core.registry.len()
    }

    /// Whether `path` is the engine's.
    pub fn serves(&self, path: &str) -> bool {
        let own = self.core.config.path.as_str();
        path == own || (self.core.config.add_trailing_slash && own.strip_suffix('/') == Some(path))
    }

    /// Answers a request of a client.
    pub async fn handle<B>(&self, request: Request<B>, requester: Requester) -> Answer
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.begin(&request, requester) {
            Begun::Answered(answer) => answer,
            Begun::Polling(session) => self.finish(session, request).await,
        }
    }

    /// Answers a request if that needs no wait. Kept apart from [`Engine::finish`] because most
    /// connections of a busy node begin with a request of this kind, and a future for all the others
    /// is large.
    pub fn begin<B>(&self, request: &Request<B>, requester: Requester) -> Begun {
        let verdict = origin::check(&self.core.config, request.headers());
        let mut answer = if verdict == origin::Verdict::Refused {
            self.refuse(RequestError::Forbidden, request)
        } else if request.method() == Method::OPTIONS {
            let requested = request.headers().get(http::header::ACCESS_CONTROL_REQUEST_HEADERS);
            origin::preflight(requested).into()
        } else {
            match self.route(request, requester) {
                Begun::Answered(answer) => answer,
                polling => return polling,
            }
        };
        origin::apply(&self.core.config, &verdict, &mut answer.response);
        Begun::Answered(answer)
    }

    /// Serves a request of a session that is on polling, as [`Engine::begin`] asked for.
    pub async fn finish<B>(&self, session: Arc<Session>, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let verdict = origin::check(&self.core.config, request.headers());
        let mut response = match *request.method() {
            Method::GET => polling::poll(&session).await,
            _ => polling::post(&session, request).await,
        };
        origin::apply(&self.core.config, &verdict, &mut response);
        response.into()
    }

    fn route<B>(&self, request: &Request<B>, requester: Requester) -> Begun {
        let query = match Query::parse(request, &self.core.config) {
            Ok(query) => query,
            Err(error) => return self.refuse(error, request).into(),
        };
        match (&query.sid, query.websocket) {
            (None, false) => self.open_polling(request, requester).into(),
            (None, true) => self.open_websocket(request, requester).into(),
            (Some(sid), websocket) => {
                let session = Id::parse(sid).and_then(|id| self.core.registry.get(id));
                match session {
                    None => self.refuse(RequestError::UnknownSession, request).into(),
                    Some(session) if websocket => self.upgrade(request, &session).into(),
                    Some(session) => self.check_polling(request, session),
                }
            }
        }
    }

    fn check_polling<B>(&self, request: &Request<B>, session: Arc<Session>) -> Begun {
        if !matches!(session.lock().transport, Transport::Polling(_)) {
            return self.refuse(RequestError::BadRequest, request).into();
        }
        match *request.method() {
            Method::GET | Method::POST => Begun::Polling(session),
            _ => self.refuse(RequestError::Method, request).into(),
        }
    }

    fn refuse<B>(&self, error: RequestError, request: &Request<B>) -> Answer {
        self.core.metrics.refused(error);
        let mut response = error.response();
        if request.headers().contains_key(http::header::UPGRADE) {
            // A client that asked for another protocol must not go on in this one.
            let close = http::HeaderValue::from_static("close");
            response.headers_mut().insert(http::header::CONNECTION, close);
        }
        response.into()
    }

    fn open_polling<B>(&self, request: &Request<B>, requester: Requester) -> Answer {
        if request.method() != Method::GET {
            return self.refuse(RequestError::HandshakeMethod, request);
        }
        let permit = match self.admit(requester.address) {
            Ok(permit) => permit,
            Err(error) => return self.refuse(error, request),
        };
        let transport = Transport::Polling(Box::default());
        let session = self.open(self.keep(request, requester), permit, transport);
        let open = self.core.open_packets.polling(session.id());
        let mut response = error::payload_response(open);
        handshake::set_cookie(&self.core.config, session.id(), &mut response);
        response.into()
    }

    fn open_websocket<B>(&self, request: &Request<B>, requester: Requester) -> Answer {
        let admitted = handshake::websocket_accept(request)
            .and_then(|accept| Ok((accept, self.admit(requester.address)?)));
        match admitted {
            Ok((accept, permit)) => {
                let first_request = self.keep(request, requester);
                let takeover = Some(Takeover::Open { first_request, permit });
                Answer {
                    response: handshake::switching_protocols(&accept, request.headers()),
                    takeover,
                }
            }
            Err(error) => self.refuse(error, request),
        }
    }

    fn upgrade<B>(&self, request: &Request<B>, session: &Arc<Session>) -> Answer {
        let accept = match handshake::websocket_accept(request) {
            Ok(accept) if self.core.config.allow_upgrades => accept,
            Ok(_) => return self.refuse(RequestError::BadRequest, request),
            Err(error) => return self.refuse(error, request),
        };
        let Some(probe) = Probe::claim(session) else {
            return self.refuse(RequestError::BadRequest, request);
        };
        let takeover = Some(Takeover::Upgrade(probe));
        Answer { response: handshake::switching_protocols(&accept, request.headers()), takeover }
    }

    fn admit(&self, address: IpAddr) -> Result<Option<crate::limit::AddressPermit>, RequestError> {
        if self.core.limits.sessions_max.is_some_and(|max| self.core.registry.len() >= max) {
            return Err(RequestError::Limit);
        }
        self.core.addresses.acquire(address).map_err(|_| RequestError::Limit)
    }

    fn keep<B>(&self, request: &Request<B>, requester: Requester) -> FirstRequest {
        FirstRequest::new(request, requester, &self.core.limits.shared_headers)
    }

    fn open(
        &self,
        first_request: FirstRequest,
        permit: Option<crate::limit::AddressPermit>,
        transport: Transport,
    ) -> Arc<Session> {
        let lane = rand::random_range(0..self.core.limits.lanes);
        let id = Id::generate(self.core.tag.for_id(), lane);
        let polling = matches!(transport, Transport::Polling(_));
        let session = Session::new(self.core.clone(), id, first_request, transport, permit);
        self.core.metrics.opened(if polling { "polling" } else { "websocket" });
        session.bind(self.handler.open(&session));
        self.core.registry.insert(session.clone());
        session
    }

    /// Makes a session's connection of a stream whose request was answered with 101. `received` are
    /// bytes that came after the request. Answers nothing if the client failed to upgrade.
    pub async fn take_over(
        &self,
        takeover: Takeover,
        stream: TcpStream,
        received: Bytes,
    ) -> Option<Connection> {
        // A copy, because these bytes are a view of the 8 KB buffer from which HTTP was read, and a
        // connection that kept it would keep it for its whole life.
        let received = received.to_vec();
        match takeover {
            Takeover::Open { first_request, permit } => {
                let stream = Arc::new(stream);
                let transport = Transport::WebSocket(stream.clone());
                let session = self.open(first_request, permit, transport);
                let open = self.core.open_packets.websocket(session.id());
                session.send(&Frame::text(&open));
                Some(Connection::new(session, stream, received))
            }
            Takeover::Upgrade(probe) => upgrade::run(probe, stream, received).await,
        }
    }
}

/// Hands one WebSocket message of a session on.
fn handle_input(
    session: &Arc<Session>,
    input: &Input<'_>,
    replies: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    match input {
        Input::Binary(bytes) => session.inbound().message(session, Message::Binary(bytes), replies),
        Input::Text(text) => match Packet::parse_text(text) {
            Ok(Packet::Message(text)) => {
                session.inbound().message(session, Message::Text(text), replies)
            }
            Ok(Packet::Pong(_)) => {
                session.on_pong();
                Ok(())
            }
            Ok(Packet::Close) => Err(CloseReason::TransportClose),
            Ok(_) | Err(_) => Err(CloseReason::ParseError),
        },
    }
}
