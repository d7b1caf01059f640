//! The long-polling transport: held GETs carry packets to the client, POSTs carry them back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::engine::{self as packets, Packet};

use super::Message;
use super::close::CloseReason;
use super::error::{RequestError, Response, payload_response, status_response, text_response};
use super::session::{Phase, Session, Transport, WaitingPoll};

/// How long a poll is held while the client upgrades: long enough not to spin, short enough that
/// the upgrade, which waits for the poll to end, is not felt.
const POLL_WHILE_UPGRADING: Duration = Duration::from_millis(100);

/// The packet that ends a session.
const CLOSE: &str = "1";

/// The packet that ends a held poll and says nothing.
const NOOP: &str = "6";

/// What the two directions of a polling session are doing.
#[derive(Default)]
pub struct Polling {
    waiting: Option<WaitingPoll>,
    polls: u64,
    posting: bool,
    /// A WebSocket connection for this session exists.
    pub(super) probing: bool,
    /// That connection has been probed: polls are answered soon, so that the client can switch.
    pub(super) probed: bool,
}

impl Polling {
    /// Whether a poll is held.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Wakes the held poll, if there is one.
    pub fn wake(&mut self) -> bool {
        self.waiting.as_ref().inspect(|poll| poll.waker.wake_by_ref()).is_some()
    }
}

/// The client broke the rule of one request at a time and direction.
#[derive(Debug)]
struct Overlap;

/// What a held poll ends with.
enum Polled {
    Payload(String),
    /// The session went on to WebSocket.
    Upgraded,
    /// The session is over.
    Gone,
}

/// Answers a GET: waits until there is something to send.
pub async fn poll(session: &Arc<Session>) -> Response {
    let Ok(guard) = PollGuard::begin(session) else {
        session.close(CloseReason::TransportError);
        return status_response(http::StatusCode::BAD_REQUEST);
    };
    match guard.wait().await {
        Polled::Payload(payload) => payload_response(payload),
        Polled::Upgraded => payload_response(NOOP.to_owned()),
        Polled::Gone => RequestError::UnknownSession.response(),
    }
}

/// Holds the one place for a poll. Dropped when the client aborts: the session lives on, and what
/// was not yet put into a response stays queued.
struct PollGuard {
    session: Arc<Session>,
    number: u64,
}

impl PollGuard {
    fn begin(session: &Arc<Session>) -> Result<Self, Overlap> {
        let mut inner = session.lock();
        let Transport::Polling(polling) = &mut inner.transport else {
            return Ok(Self { session: session.clone(), number: 0 });
        };
        if polling.is_waiting() {
            return Err(Overlap);
        }
        polling.polls += 1;
        let number = polling.polls;
        polling.waiting = Some(WaitingPoll { number, waker: std::task::Waker::noop().clone() });
        drop(inner);
        Ok(Self { session: session.clone(), number })
    }

    async fn wait(self) -> Polled {
        if self.session.is_probed() {
            let held = poll_fn(|cx| self.take(cx.waker(), false));
            if let Ok(polled) = tokio::time::timeout(POLL_WHILE_UPGRADING, held).await {
                return polled;
            }
        }
        poll_fn(|cx| self.take(cx.waker(), self.session.is_probed())).await
    }

    /// Takes what waits. With `end` an empty outbox ends the poll as well.
    fn take(&self, waker: &std::task::Waker, end: bool) -> Poll<Polled> {
        let mut inner = self.session.lock();
        let phase = inner.phase;
        let empty = inner.outbox.is_empty();
        let Transport::Polling(polling) = &mut inner.transport else {
            return Poll::Ready(if phase == Phase::Open { Polled::Upgraded } else { Polled::Gone });
        };
        if !empty {
            polling.waiting = None;
            Session::unblocked(&mut inner);
            return Poll::Ready(Polled::Payload(inner.outbox.take_payload()));
        }
        if phase == Phase::Closing {
            // Alone in its payload: clients act on it before they have handed on what came with it.
            polling.waiting = None;
            drop(inner);
            self.session.finish();
            return Poll::Ready(Polled::Payload(CLOSE.to_owned()));
        }
        if end {
            polling.waiting = None;
            return Poll::Ready(Polled::Upgraded);
        }
        if let Some(waiting) = &mut polling.waiting {
            waiting.waker.clone_from(waker);
        }
        Poll::Pending
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        let mut inner = self.session.lock();
        if let Transport::Polling(polling) = &mut inner.transport
            && polling.waiting.as_ref().is_some_and(|poll| poll.number == self.number)
        {
            polling.waiting = None;
        }
    }
}

impl Session {
    fn is_probed(&self) -> bool {
        matches!(&self.lock().transport, Transport::Polling(polling) if polling.probed)
    }
}

/// Answers a POST: hands its packets to the application, in order.
pub async fn post<B>(session: &Arc<Session>, request: Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Ok(_guard) = PostGuard::begin(session) else {
        session.close(CloseReason::TransportError);
        return status_response(http::StatusCode::BAD_REQUEST);
    };
    match receive(session, request).await {
        Ok(()) => text_response("ok"),
        Err(error) => {
            session.close(error.close_reason());
            error.response()
        }
    }
}

async fn receive<B>(session: &Arc<Session>, request: Request<B>) -> Result<(), RequestError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    check_headers(request.headers(), session.core.config().max_payload)?;
    let body = read_body(session, request).await?;
    let text = std::str::from_utf8(&body).map_err(|_| RequestError::InvalidPayload)?;
    let idle_max = session.core.config().packets_per_payload_max;
    let parsed =
        packets::payload_packets(text, idle_max).map_err(|_| RequestError::InvalidPayload)?;
    let mut replies = Vec::new();
    for packet in parsed {
        let packet = packet.map_err(|_| RequestError::InvalidPayload)?;
        if !session.is_open() {
            return Ok(());
        }
        wait_for_room(session).await?;
        let handled = handle_packet(session, packet, &mut replies);
        session.send_replies(&mut replies);
        match handled {
            Ok(()) => {}
            // A client that takes its leave is no error, and its request is answered as usual.
            Err(reason @ (CloseReason::TransportClose | CloseReason::ClientDisconnect)) => {
                session.close(reason);
                return Ok(());
            }
            Err(reason) => return Err(RequestError::Refused(reason)),
        }
    }
    Ok(())
}

fn check_headers(headers: &HeaderMap, max_payload: usize) -> Result<(), RequestError> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(RequestError::Encoded);
    }
    // Engine.IO 4 sends binary as base64 text; Node refuses this type as well.
    if headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/octet-stream") {
        return Err(RequestError::InvalidPayload);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > max_payload as u64) {
        return Err(RequestError::TooLarge);
    }
    Ok(())
}

async fn read_body<B>(session: &Session, request: Request<B>) -> Result<Bytes, RequestError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let config = session.core.config();
    let body = Limited::new(request.into_body(), config.max_payload).collect();
    match tokio::time::timeout(session.core.limits.body_timeout, body).await {
        Err(_) => Err(RequestError::BodyTimeout),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(RequestError::TooLarge),
        Ok(Err(_)) => Err(RequestError::InvalidPayload),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

async fn wait_for_room(session: &Session) -> Result<(), RequestError> {
    let inbound = session.inbound();
    if inbound.ready() {
        return Ok(());
    }
    let timeout = session.core.limits.overload_timeout;
    session.pause();
    let waited = tokio::time::timeout(timeout, inbound.wait_ready()).await;
    session.resume();
    waited.map_err(|_| RequestError::Refused(CloseReason::Overload))
}

fn handle_packet(
    session: &Arc<Session>,
    packet: Packet<'_>,
    replies: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    match packet {
        Packet::Message(text) => session.inbound().message(session, Message::Text(text), replies),
        Packet::Binary(bytes) => {
            session.inbound().message(session, Message::Binary(&bytes), replies)
        }
        Packet::Pong(_) => {
            session.on_pong();
            Ok(())
        }
        Packet::Close => Err(CloseReason::TransportClose),
        _ => Err(CloseReason::ParseError),
    }
}

/// Holds the one place for a POST.
struct PostGuard(Arc<Session>);

impl PostGuard {
    fn begin(session: &Arc<Session>) -> Result<Self, Overlap> {
        if let Transport::Polling(polling) = &mut session.lock().transport {
            if polling.posting {
                return Err(Overlap);
            }
            polling.posting = true;
        }
        Ok(Self(session.clone()))
    }
}

impl Drop for PostGuard {
    fn drop(&mut self) {
        if let Transport::Polling(polling) = &mut self.0.lock().transport {
            polling.posting = false;
        }
    }
}
