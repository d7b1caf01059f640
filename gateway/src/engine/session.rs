//! One Engine.IO session: its transport, its outbox, its heartbeat, and its end.
//!
//! A session outlives the HTTP requests of polling and the one change of transport. Whoever has
//! something to send writes it directly under the session's lock; the connection's own task takes
//! over only while the kernel does not take more.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use protocol::id::Id;
use tokio::net::TcpStream;

use super::close::CloseReason;
use super::first_request::FirstRequest;
use super::frame::{self, Frame};
use super::outbox::{Outbox, Overflow, Written};
use super::polling::Polling;
use super::timer::Millis;
use super::{Core, Inbound};
use crate::limit::AddressPermit;

/// How long a closing session may take to hand over what it still holds.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// An Engine.IO session.
pub struct Session {
    id: Id,
    first_request: FirstRequest,
    pub(super) core: Arc<Core>,
    /// Wakes the task of the WebSocket connection: a write is blocked, or the session is over.
    pub(super) waker: AtomicWaker,
    inner: Mutex<Inner>,
    inbound: OnceLock<Box<dyn Inbound>>,
    _permit: Option<Box<AddressPermit>>,
}

pub(super) struct Inner {
    pub(super) outbox: Outbox,
    pub(super) transport: Transport,
    pub(super) phase: Phase,
    /// When the wheel asks next; entries of the wheel with another time are out of date.
    timer_due: Millis,
    ping_due: Millis,
    /// When the pong is overdue; 0 while none is expected.
    pong_due: Millis,
    /// Since when the peer has taken nothing of a waiting outbox; 0 while nothing waits.
    stalled_since: Millis,
    /// Since when reading is paused because the node is busy; 0 while it is not.
    paused_since: Millis,
    /// The outbox was given up in the middle of a frame: nothing may follow it on this connection.
    cut: bool,
    /// Frames were pushed whose flush is still owed.
    dirty: bool,
    deadline: Option<(Millis, CloseReason)>,
}

/// What carries a session's packets.
pub(super) enum Transport {
    Polling(Box<Polling>),
    WebSocket(Arc<TcpStream>),
    /// The session is over and its transport given up.
    None,
}

impl Transport {
    fn name(&self) -> &'static str {
        match self {
            Self::Polling(_) => "polling",
            Self::WebSocket(_) | Self::None => "websocket",
        }
    }

    /// Bytes that may wait. A held poll takes all of them as soon as its task runs, so more of them
    /// may come together until then.
    fn backlog_max(&self, bytes_max: usize) -> usize {
        match self {
            Self::Polling(polling) if polling.is_waiting() => bytes_max.saturating_mul(4),
            _ => bytes_max,
        }
    }
}

impl Inner {
    fn give_up_outbox(&mut self) {
        self.cut |= self.outbox.is_cut();
        self.outbox.clear();
    }
}

/// How far the end of a session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Open,
    /// Over for the application; what was queued before is still handed to the client.
    Closing,
    Closed,
}

impl Session {
    pub(super) fn new(
        core: Arc<Core>,
        id: Id,
        first_request: FirstRequest,
        transport: Transport,
        permit: Option<AddressPermit>,
    ) -> Arc<Self> {
        let now = core.timer.now();
        let ping_due = now + millis(core.config().ping_interval);
        let inner = Inner {
            outbox: Outbox::default(),
            transport,
            phase: Phase::Open,
            timer_due: ping_due,
            ping_due,
            pong_due: 0,
            stalled_since: 0,
            paused_since: 0,
            cut: false,
            dirty: false,
            deadline: None,
        };
        let session = Arc::new(Self {
            id,
            first_request,
            core,
            waker: AtomicWaker::new(),
            inner: Mutex::new(inner),
            inbound: OnceLock::new(),
            _permit: permit.map(Box::new),
        });
        session.core.timer.schedule(Arc::downgrade(&session), ping_due);
        session
    }

    /// Binds the application's side; done once, before the session can receive anything.
    pub(super) fn bind(&self, inbound: Box<dyn Inbound>) {
        assert!(self.inbound.set(inbound).is_ok(), "a session is bound once");
    }

    /// The session id: a secret between the client and this node.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The request that opened it.
    pub fn first_request(&self) -> &FirstRequest {
        &self.first_request
    }

    /// The application's side of this session.
    pub fn inbound(&self) -> &dyn Inbound {
        self.inbound.get().expect("a session is bound before it is reachable").as_ref()
    }

    /// Whether the application may still send.
    pub fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// The transport's name as Engine.IO writes it.
    pub fn transport_name(&self) -> &'static str {
        self.lock().transport.name()
    }

    /// Whether a close frame would land in the middle of another.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// Whether the session is over but still hands over what it holds.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().phase == Phase::Closing
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held leaves at worst a frame half queued for this one session.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame now, without waiting; what the transport does not take is queued.
    pub fn send(self: &Arc<Self>, frame: &Frame) {
        let mut inner = self.lock();
        if inner.phase != Phase::Open || frame.is_empty() {
            return;
        }
        let bytes_max = self.core.config().outbox_max;
        let Inner { outbox, transport, .. } = &mut *inner;
        let result = match transport {
            Transport::WebSocket(stream) => outbox.send(frame, stream, bytes_max),
            other => {
                let pushed = outbox.push(frame, other.backlog_max(bytes_max));
                Ok(pushed.map(|()| Written::Blocked { progress: 0 }))
            }
        };
        match result {
            Ok(Ok(Written::All)) => inner.stalled_since = 0,
            Ok(Ok(Written::Blocked { progress })) => self.blocked(&mut inner, progress),
            Ok(Err(Overflow)) => {
                drop(inner);
                self.close(CloseReason::SlowConsumer);
            }
            Err(_) => {
                drop(inner);
                self.close(CloseReason::TransportError);
            }
        }
    }

    /// Queues a frame for a later [`Session::flush`]. Says whether the caller owes that flush: the
    /// first to push does.
    pub fn push(self: &Arc<Self>, frame: &Frame) -> bool {
        let mut inner = self.lock();
        if inner.phase != Phase::Open || frame.is_empty() {
            return false;
        }
        if let Err(reason) = self.push_locked(&mut inner, frame) {
            drop(inner);
            self.close(reason);
            return false;
        }
        if let Transport::Polling(_) = inner.transport {
            self.blocked(&mut inner, 0);
            return false;
        }
        !std::mem::replace(&mut inner.dirty, true)
    }

    /// A full outbox says nothing about the peer before the kernel has been offered what is in it.
    fn push_locked(self: &Arc<Self>, inner: &mut Inner, frame: &Frame) -> Result<(), CloseReason> {
        let backlog_max = inner.transport.backlog_max(self.core.config().outbox_max);
        if inner.outbox.push(frame, backlog_max).is_ok() {
            return Ok(());
        }
        self.flush_locked(inner)?;
        inner.outbox.push(frame, backlog_max).map_err(|Overflow| CloseReason::SlowConsumer)
    }

    /// Writes what was pushed, without waiting.
    pub fn flush(self: &Arc<Self>) {
        let mut inner = self.lock();
        inner.dirty = false;
        if let Err(reason) = self.flush_locked(&mut inner) {
            drop(inner);
            self.close(reason);
        }
    }

    pub(super) fn flush_locked(self: &Arc<Self>, inner: &mut Inner) -> Result<(), CloseReason> {
        let Inner { outbox, transport, .. } = inner;
        let Transport::WebSocket(stream) = transport else { return Ok(()) };
        match outbox.write(stream) {
            Ok(Written::All) => inner.stalled_since = 0,
            Ok(Written::Blocked { progress }) => self.blocked(inner, progress),
            Err(_) => return Err(CloseReason::TransportError),
        }
        Ok(())
    }

    /// Sends a frame only if it can leave at once, as `volatile` asks. Says whether it was taken.
    pub fn send_volatile(self: &Arc<Self>, frame: &Frame) -> bool {
        let mut inner = self.lock();
        if inner.dirty && self.flush_locked(&mut inner).is_err() {
            // What was pushed just before does not make a socket unwritable; a broken stream does,
            // and whoever owes the flush will find that out.
            return false;
        }
        let writable = inner.phase == Phase::Open
            && inner.outbox.is_empty()
            && match &inner.transport {
                Transport::WebSocket(_) => true,
                Transport::Polling(polling) => polling.is_waiting(),
                Transport::None => false,
            };
        drop(inner);
        if writable {
            self.send(frame);
        }
        writable
    }

    /// Sends the answers that a connection's task collected while it handled its input.
    pub(super) fn send_replies(self: &Arc<Self>, replies: &mut Vec<u8>) {
        if replies.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let mut written = 0;
        if let (Phase::Open, true, Transport::WebSocket(stream)) =
            (inner.phase, inner.outbox.is_empty(), &inner.transport)
        {
            written = stream.try_write(replies).unwrap_or(0);
        }
        if written == replies.len() {
            inner.stalled_since = 0;
            drop(inner);
            self.core.metrics.sent(written);
        } else if written == 0 {
            drop(inner);
            self.send(&Frame::from_websocket(replies.as_slice()));
        } else {
            // Only whole frames enter the outbox, so the rest of a cut one goes in by itself; its
            // polling form is never asked for, because this session is on WebSocket for good.
            let rest = Frame::from_websocket(&replies[written..]);
            let pushed = inner.outbox.push(&rest, usize::MAX);
            debug_assert_eq!(pushed, Ok(()), "an unlimited outbox takes every frame");
            self.core.metrics.sent(replies.len());
            self.blocked(&mut inner, written);
        }
        replies.clear();
    }

    /// Something waits: the connection's task or the next poll has to take it, within a deadline.
    fn blocked(self: &Arc<Self>, inner: &mut Inner, progress: usize) {
        let timeout = match &mut inner.transport {
            Transport::WebSocket(_) => {
                self.waker.wake();
                self.core.config().stall_timeout
            }
            Transport::Polling(polling) => {
                if polling.wake() {
                    return;
                }
                self.core.config().ping_timeout
            }
            Transport::None => return,
        };
        if inner.stalled_since == 0 || progress > 0 {
            inner.stalled_since = self.core.timer.now().max(1);
            self.schedule(inner, inner.stalled_since + millis(timeout));
        }
    }

    /// A poll took what waited, or the transport changed.
    pub(super) fn unblocked(inner: &mut Inner) {
        inner.stalled_since = 0;
    }

    /// The heartbeat's answer arrived.
    pub(super) fn on_pong(self: &Arc<Self>) {
        let now = self.core.timer.now();
        let mut inner = self.lock();
        inner.pong_due = 0;
        inner.ping_due = now + millis(self.core.config().ping_interval);
        let ping_due = inner.ping_due;
        // Earlier than the pong was due, if the timeout is longer than the interval.
        self.schedule(&mut inner, ping_due);
    }

    /// Closes the session with `reason` unless [`Session::clear_deadline`] comes first.
    pub fn set_deadline(self: &Arc<Self>, timeout: Duration, reason: CloseReason) {
        let at = self.core.timer.now() + millis(timeout);
        let mut inner = self.lock();
        if inner.phase == Phase::Open {
            inner.deadline = Some((at, reason));
            self.schedule(&mut inner, at);
        }
    }

    /// Forgets the deadline. That of a session which is over already stays.
    pub fn clear_deadline(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Open {
            inner.deadline = None;
        }
    }

    /// Nothing is read until [`Session::resume`], because the node is busy: what the client owes
    /// cannot arrive meanwhile.
    pub(super) fn pause(&self) {
        self.lock().paused_since = self.core.timer.now().max(1);
    }

    /// Reading goes on; the client has as much time left as when it was paused.
    pub(super) fn resume(&self) {
        let mut inner = self.lock();
        let paused = self.core.timer.now().saturating_sub(inner.paused_since);
        inner.paused_since = 0;
        if inner.pong_due != 0 {
            inner.pong_due += paused;
        }
        if inner.phase == Phase::Open
            && let Some((at, _)) = &mut inner.deadline
        {
            *at += paused;
        }
    }

    fn schedule(self: &Arc<Self>, inner: &mut Inner, due: Millis) {
        if due < inner.timer_due {
            inner.timer_due = due;
            self.core.timer.schedule(Arc::downgrade(self), due);
        }
    }

    /// Does what is due. Answers when to ask again, or nothing if this entry is out of date.
    pub(super) fn on_timer(self: &Arc<Self>, now: Millis, entry_due: Millis) -> Option<Millis> {
        let mut inner = self.lock();
        if inner.timer_due != entry_due || inner.phase == Phase::Closed {
            return None;
        }
        if let Some(reason) = self.overdue(&inner, now) {
            let closing = inner.phase == Phase::Closing;
            drop(inner);
            if closing {
                self.finish();
            } else {
                self.close(reason);
            }
            // A polling session that is closing keeps its place until its deadline.
            return self.rearm(&mut self.lock());
        }
        if inner.phase == Phase::Open && inner.pong_due == 0 && now >= inner.ping_due {
            inner.pong_due = now + millis(self.core.config().ping_timeout);
            drop(inner);
            self.send(&frame::ping());
            inner = self.lock();
        }
        self.rearm(&mut inner)
    }

    fn overdue(&self, inner: &Inner, now: Millis) -> Option<CloseReason> {
        let config = self.core.config();
        let paused = inner.paused_since != 0 && inner.phase == Phase::Open;
        if let Some((at, reason)) = inner.deadline
            && now >= at
            && !paused
        {
            return Some(reason);
        }
        if inner.pong_due != 0 && now >= inner.pong_due && !paused {
            return Some(CloseReason::PingTimeout);
        }
        let stall_timeout = match inner.transport {
            Transport::Polling(_) => config.ping_timeout,
            _ => config.stall_timeout,
        };
        let stalled = inner.stalled_since != 0;
        (stalled && now >= inner.stalled_since + millis(stall_timeout))
            .then_some(CloseReason::SlowConsumer)
    }

    fn rearm(&self, inner: &mut Inner) -> Option<Millis> {
        let config = self.core.config();
        if inner.phase == Phase::Closed {
            return None;
        }
        let mut next = if inner.pong_due == 0 { inner.ping_due } else { inner.pong_due };
        if inner.phase == Phase::Closing {
            next = Millis::MAX;
        }
        if let Some((at, _)) = inner.deadline {
            next = next.min(at);
        }
        if inner.stalled_since != 0 {
            let timeout = match inner.transport {
                Transport::Polling(_) => config.ping_timeout,
                _ => config.stall_timeout,
            };
            next = next.min(inner.stalled_since + millis(timeout));
        }
        // A paused reader is asked again soon; everything else lies in the future by itself.
        next = next.max(self.core.timer.now() + 1);
        inner.timer_due = next;
        Some(next)
    }

    /// Ends the session. The first call wins; the application hears of it once, before this returns
    /// or, when another thread is in the middle of it, soon after.
    pub fn close(self: &Arc<Self>, reason: CloseReason) {
        if reason == CloseReason::ServerDisconnect {
            self.inbound().parting(self);
        }
        let mut inner = self.lock();
        if inner.phase != Phase::Open {
            return;
        }
        let keeps_backlog = reason.hands_over_backlog();
        let transport = inner.transport.name();
        if !keeps_backlog {
            inner.give_up_outbox();
        }
        match &mut inner.transport {
            Transport::WebSocket(_) => {
                inner.phase = if inner.outbox.is_empty() { Phase::Closed } else { Phase::Closing };
            }
            Transport::Polling(polling) => {
                // The close packet answers a poll of its own, after what was queued.
                polling.wake();
                inner.phase = Phase::Closing;
            }
            Transport::None => inner.phase = Phase::Closed,
        }
        inner.pong_due = 0;
        inner.stalled_since = 0;
        let at = self.core.timer.now() + millis(CLOSING_TIMEOUT);
        inner.deadline = Some((at, reason));
        let closed = inner.phase == Phase::Closed;
        if !closed {
            self.schedule(&mut inner, at);
        }
        let stream = match &inner.transport {
            Transport::WebSocket(stream) => Some(stream.clone()),
            _ => None,
        };
        drop(inner);
        if let Some(stream) = stream
            && reason == CloseReason::SlowConsumer
        {
            // The kernel's own backlog for a peer that does not read is given up as well.
            super::websocket::reset_on_close(&stream);
        }
        self.core.metrics.closed(reason, transport);
        self.inbound().closed(self, reason);
        if closed {
            self.finish();
        } else {
            // The connection's task hands over what is left, and ends.
            self.waker.wake();
        }
    }

    /// Gives up the transport and the place in the registry.
    pub(super) fn finish(&self) {
        let mut inner = self.lock();
        inner.phase = Phase::Closed;
        inner.give_up_outbox();
        if let Transport::Polling(polling) = &mut inner.transport {
            polling.wake();
        }
        inner.transport = Transport::None;
        drop(inner);
        self.core.registry.remove(self.id);
        self.waker.wake();
    }

    /// A handle that does not keep the session alive.
    pub fn downgrade(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

pub(super) fn millis(duration: Duration) -> Millis {
    duration.as_millis() as Millis
}

/// A poll's waker and its number, so that an aborted poll does not clear its successor.
pub(super) struct WaitingPoll {
    pub(super) number: u64,
    pub(super) waker: Waker,
}

#[cfg(test)]
mod tests {
    use super::super::websocket::Connection;
    use super::*;

    use std::net::Ipv4Addr;

    use crate::tag::OwnTag;
    use bytes::Bytes;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::{Engine, EngineLimits, Handler, Message, Requester, Takeover};
    use crate::config::EngineConfig;
    use crate::limit::AddressLimit;
    use crate::metrics::EngineMetrics;

    /// Takes everything and answers nothing.
    struct Silent;

    impl Handler for Silent {
        fn open(&self, _session: &Arc<Session>) -> Box<dyn Inbound> {
            Box::new(Silent)
        }
    }

    impl Inbound for Silent {
        fn message(
            &self,
            _session: &Arc<Session>,
            _message: Message<'_>,
            _replies: &mut Vec<u8>,
        ) -> Result<(), CloseReason> {
            Ok(())
        }

        fn closed(&self, _session: &Arc<Session>, _reason: CloseReason) {}
    }

    /// A session on a real connection; the client's end is kept open and never read.
    async fn websocket_session(config: EngineConfig) -> (Arc<Session>, TcpStream) {
        let limits = EngineLimits {
            body_timeout: Duration::from_secs(1),
            overload_timeout: Duration::from_secs(1),
            sessions_max: None,
            lanes: 1,
            shared_headers: Vec::new(),
        };
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).expect("free names");
        let addresses = AddressLimit::default();
        let handler = Arc::new(Silent);
        let engine =
            Engine::new(config, limits, Arc::new(OwnTag::random()), addresses, metrics, handler);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let requester = Requester { address: address.ip(), secure: false };
        let request = http::Request::get("/").body(()).expect("a request");
        let first_request = FirstRequest::new(&request, requester, &[]);
        let takeover = Takeover::Open { first_request, permit: None };
        let stream = accepted.expect("accept").0;
        engine.take_over(takeover, stream, Bytes::new()).await.expect("a connection");
        (engine.sessions().remove(0), client.expect("connect"))
    }

    #[tokio::test]
    async fn a_burst_above_the_limit_is_offered_to_the_kernel_before_it_closes_anybody() {
        let config = EngineConfig { outbox_max: 3_000, ..EngineConfig::default() };
        let (session, _client) = websocket_session(config).await;
        let frame = Frame::text(&"x".repeat(1_000));
        // Pushed in one batch as a lane does, and far less than the buffers of a socket hold.
        for _ in 0..20 {
            session.push(&frame);
        }
        assert!(session.is_open());
        // A peer that takes nothing is another matter.
        for _ in 0..100_000 {
            session.push(&frame);
        }
        assert!(!session.is_open());
    }

    #[tokio::test]
    async fn the_next_ping_keeps_its_interval_when_the_pong_had_longer() {
        let config = EngineConfig {
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(600),
            ..EngineConfig::default()
        };
        let (session, _client) = websocket_session(config).await;
        // As after a ping: the wheel is to ask when the pong is overdue.
        let pong_due = session.core.timer.now() + 600_000;
        let mut inner = session.lock();
        inner.pong_due = pong_due;
        inner.timer_due = pong_due;
        drop(inner);
        session.on_pong();
        let inner = session.lock();
        assert_eq!((inner.pong_due, inner.timer_due), (0, inner.ping_due));
    }

    fn future_bytes<F>(_: impl FnOnce(Connection) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle connection keeps besides its share of the kernel and of the runtime. The bounds
    /// are what these parts take and a little more, so that growth is a decision.
    #[test]
    fn an_idle_connection_stays_small() {
        let sizes = [size_of::<Session>(), future_bytes(Connection::serve)];
        assert!(
            sizes[0] <= 272 && sizes[1] <= 128,
            "bytes of a session and of its task: {sizes:?}"
        );
    }
}
