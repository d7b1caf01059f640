//! The WebSocket transport: one small task per connection reads, unmasks and hands on.
//!
//! Bytes are read into a buffer that belongs to the thread; a connection keeps bytes of its own
//! only while a frame or a message is incomplete. Writing is done by whoever has something to
//! send; this task helps while the kernel does not take more.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use protocol::frame::{self, FrameError, FrameHeader, Opcode};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::close::CloseReason;
use super::session::{Phase, Session};

/// Bytes read at once. One buffer per thread, so its size costs nothing per connection.
const READ_BUFFER: usize = 64 * 1024;

/// Reads of one connection before the thread turns to its other tasks.
const READS_PER_TURN: usize = 8;

/// How long a closing connection waits for the peer's end before it is dropped.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a peer that are thrown away while closing, before it is dropped.
const LINGER_BYTES: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into_boxed_slice());
    static REPLIES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a connection is told to do by the one who handles its messages.
pub(super) enum Input<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

/// Why reading a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed, by a close frame or by the end of its stream.
    Peer,
    /// The stream broke.
    Broken,
    /// The peer broke the protocol; the code goes into the close frame.
    Protocol(u16),
    /// The handler refused a message.
    Refused(CloseReason),
    /// The session was closed from elsewhere.
    Closed,
}

/// Limits of one connection's input.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_payload: usize,
    pub(super) frames_per_message_max: usize,
}

/// Reassembles messages from what arrives.
pub(super) struct Reader {
    /// Bytes that were received and not handled, mostly of a frame that has not fully arrived.
    partial: Vec<u8>,
    /// A message of several frames.
    fragments: Option<Box<Fragments>>,
}

struct Fragments {
    opcode: Opcode,
    payload: Vec<u8>,
    n_frames: usize,
}

/// What the handler of messages answers: go on, pause with the rest kept, or end.
pub(super) type Flow = ControlFlow<Stop>;

pub(super) enum Stop {
    /// Go on later with what is left: the node is busy.
    Pause,
    End(Ended),
}

impl Reader {
    /// A reader to which `partial` was given already.
    pub(super) fn new(partial: Vec<u8>) -> Self {
        Self { partial, fragments: None }
    }

    /// Bytes that were read but not handled.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Takes bytes and hands complete messages to `handle`; control frames are answered into
    /// `replies`.
    pub(super) fn feed(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        replies: &mut Vec<u8>,
        handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
    ) -> Flow {
        if self.partial.is_empty() {
            let (consumed, flow) = self.process(bytes, limits, replies, handle);
            if !matches!(flow, ControlFlow::Break(Stop::End(_))) {
                self.partial.extend_from_slice(&bytes[consumed..]);
            }
            return flow;
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let (consumed, flow) = self.process(&mut partial, limits, replies, handle);
        if consumed < partial.len() {
            partial.drain(..consumed);
            self.partial = partial;
        }
        flow
    }

    /// Handles complete frames of `bytes`; answers how many bytes they were.
    fn process(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        replies: &mut Vec<u8>,
        handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
    ) -> (usize, Flow) {
        let mut consumed = 0;
        loop {
            let rest = &mut bytes[consumed..];
            let header = match self.next_header(rest, limits) {
                Ok(Some(header)) => header,
                Ok(None) => return (consumed, ControlFlow::Continue(())),
                Err(ended) => return (consumed, ControlFlow::Break(Stop::End(ended))),
            };
            let end = header.header_len + header.payload_len as usize;
            if rest.len() < end {
                return (consumed, ControlFlow::Continue(()));
            }
            let payload = &mut rest[header.header_len..end];
            if let Some(mask) = header.mask {
                frame::unmask(payload, mask);
            }
            consumed += end;
            match self.on_frame(&header, payload, limits, replies, handle) {
                ControlFlow::Continue(()) => {}
                stop => return (consumed, stop),
            }
        }
    }

    fn next_header(&self, bytes: &[u8], limits: Limits) -> Result<Option<FrameHeader>, Ended> {
        let header = frame::parse_header(bytes).map_err(protocol_error)?;
        let Some(header) = header else { return Ok(None) };
        if header.mask.is_none() {
            return Err(Ended::Protocol(1002));
        }
        let assembled = self.fragments.as_ref().map_or(0, |fragments| fragments.payload.len());
        if header.payload_len > limits.max_payload.saturating_sub(assembled) as u64 {
            return Err(Ended::Protocol(1009));
        }
        Ok(Some(header))
    }

    fn on_frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        limits: Limits,
        replies: &mut Vec<u8>,
        handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
    ) -> Flow {
        match header.opcode {
            Opcode::Ping => {
                frame::encode_header(replies, Opcode::Pong, payload.len());
                replies.extend_from_slice(payload);
                ControlFlow::Continue(())
            }
            Opcode::Pong => ControlFlow::Continue(()),
            Opcode::Close => {
                let ended = match frame::close_code(payload) {
                    Ok(_) => Ended::Peer,
                    Err(error) => protocol_error(error),
                };
                ControlFlow::Break(Stop::End(ended))
            }
            Opcode::Continuation => match self.fragments.take() {
                Some(fragments) => {
                    self.on_fragment(fragments, header.fin, payload, limits, replies, handle)
                }
                None => ControlFlow::Break(Stop::End(Ended::Protocol(1002))),
            },
            opcode if self.fragments.is_some() => {
                debug_assert!(matches!(opcode, Opcode::Text | Opcode::Binary));
                ControlFlow::Break(Stop::End(Ended::Protocol(1002)))
            }
            opcode if header.fin => deliver(opcode, payload, replies, handle),
            opcode => {
                let fragments = Fragments { opcode, payload: Vec::new(), n_frames: 0 };
                self.on_fragment(Box::new(fragments), false, payload, limits, replies, handle)
            }
        }
    }

    fn on_fragment(
        &mut self,
        mut fragments: Box<Fragments>,
        fin: bool,
        payload: &[u8],
        limits: Limits,
        replies: &mut Vec<u8>,
        handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
    ) -> Flow {
        fragments.payload.extend_from_slice(payload);
        fragments.n_frames += 1;
        if fragments.n_frames > limits.frames_per_message_max {
            return ControlFlow::Break(Stop::End(Ended::Protocol(1008)));
        }
        if fin {
            return deliver(fragments.opcode, &fragments.payload, replies, handle);
        }
        self.fragments = Some(fragments);
        ControlFlow::Continue(())
    }
}

/// The close status for a broken frame, RFC 6455 section 7.4.1.
fn protocol_error(error: FrameError) -> Ended {
    Ended::Protocol(match error {
        FrameError::InvalidLength => 1009,
        _ => 1002,
    })
}

fn deliver(
    opcode: Opcode,
    payload: &[u8],
    replies: &mut Vec<u8>,
    handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
) -> Flow {
    if opcode == Opcode::Binary {
        return handle(Input::Binary(payload), replies);
    }
    match std::str::from_utf8(payload) {
        Ok(text) => handle(Input::Text(text), replies),
        Err(_) => ControlFlow::Break(Stop::End(Ended::Protocol(1007))),
    }
}

/// Waits for bytes and feeds them to `reader` until a handler stops it. What the handler answered
/// to one read is handed to `answer` before the next.
pub(super) fn poll_read(
    stream: &TcpStream,
    reader: &mut Reader,
    limits: Limits,
    handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
    answer: &mut impl FnMut(&mut Vec<u8>),
    cx: &mut Context<'_>,
) -> Poll<Stop> {
    // Other connections of this thread get their turn after some buffers of a flooding one.
    for _ in 0..READS_PER_TURN {
        if let Err(error) = ready!(stream.poll_read_ready(cx)) {
            return Poll::Ready(Stop::End(ended_by(&error)));
        }
        let flow = BUFFER.with_borrow_mut(|buffer| match read_once(stream, buffer) {
            Ok(0) => ControlFlow::Break(Stop::End(Ended::Peer)),
            Ok(n) => feed(reader, &mut buffer[..n], limits, handle, answer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Stop::End(ended_by(&error))),
        });
        if let ControlFlow::Break(stop) = flow {
            return Poll::Ready(stop);
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Feeds bytes that are there already.
pub(super) fn feed(
    reader: &mut Reader,
    bytes: &mut [u8],
    limits: Limits,
    handle: &mut impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow,
    answer: &mut impl FnMut(&mut Vec<u8>),
) -> Flow {
    REPLIES.with_borrow_mut(|replies| {
        let flow = reader.feed(bytes, limits, replies, handle);
        answer(replies);
        replies.clear();
        if replies.capacity() > READ_BUFFER {
            *replies = Vec::new();
        }
        flow
    })
}

/// One `recv`. A read that does not fill the buffer has emptied the socket: telling the runtime so
/// saves the second `recv` that would only say the same.
fn read_once(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let result = stream.try_io(Interest::READABLE, || {
        let n = (&*SockRef::from(stream)).read(buffer)?;
        if n > 0 && n < buffer.len() {
            short = Some(n);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    });
    short.map_or(result, Ok)
}

fn ended_by(error: &io::Error) -> Ended {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ended::Peer,
        _ => Ended::Broken,
    }
}

/// Makes the kernel drop what it still holds for a peer, instead of offering it for minutes.
pub(super) fn reset_on_close(stream: &TcpStream) {
    // Failing here costs memory for a while, nothing else.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The WebSocket connection of a session.
pub struct Connection {
    session: Arc<Session>,
    stream: Arc<TcpStream>,
    reader: Reader,
}

impl Connection {
    /// A connection on which `received` has arrived and not been handled.
    pub(super) fn new(session: Arc<Session>, stream: Arc<TcpStream>, received: Vec<u8>) -> Self {
        Self { session, stream, reader: Reader::new(received) }
    }

    /// Serves the session until either ends. An idle connection pays for the largest state of this
    /// future, so the waits that are rare are boxed.
    pub async fn serve(mut self) {
        let mut resume = !self.reader.partial.is_empty();
        let ended = loop {
            match poll_fn(|cx| self.poll(std::mem::take(&mut resume), cx)).await {
                Stop::End(Ended::Refused(reason)) => {
                    self.session.close(reason);
                    if !self.session.is_closing() {
                        break Ended::Refused(reason);
                    }
                }
                Stop::End(ended) => break ended,
                Stop::Pause => match Box::pin(wait_for_room(&self.session)).await {
                    Ok(()) => resume = true,
                    Err(ended) => break ended,
                },
            }
        };
        Box::pin(end(self.session, self.stream, ended)).await;
    }

    fn poll(&mut self, resume: bool, cx: &mut Context<'_>) -> Poll<Stop> {
        let Self { session, stream, reader } = self;
        session.waker.register(cx.waker());
        if let Some(stop) = std::task::ready!(poll_outbox(session, stream, cx)) {
            return Poll::Ready(stop);
        }
        let limits = session.core.reader_limits();
        let mut handle = handler(session);
        let mut answer = |replies: &mut Vec<u8>| session.send_replies(replies);
        if resume
            && let ControlFlow::Break(stop) =
                feed(reader, &mut [], limits, &mut handle, &mut answer)
        {
            return Poll::Ready(stop);
        }
        poll_read(stream, reader, limits, &mut handle, &mut answer, cx)
    }
}

/// Writes what the kernel did not take before. Ready with nothing while the session is open and may
/// be read; pending while only what is left of its outbox matters.
fn poll_outbox(
    session: &Arc<Session>,
    stream: &TcpStream,
    cx: &mut Context<'_>,
) -> Poll<Option<Stop>> {
    let mut inner = session.lock();
    let phase = inner.phase;
    if phase == Phase::Closed {
        return Poll::Ready(Some(Stop::End(Ended::Closed)));
    }
    while !inner.outbox.is_empty() {
        match stream.poll_write_ready(cx) {
            Poll::Pending => break,
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Stop::End(ended_by(&error)))),
            Poll::Ready(Ok(())) if session.flush_locked(&mut inner).is_err() => {
                return Poll::Ready(Some(Stop::End(Ended::Broken)));
            }
            Poll::Ready(Ok(())) => {}
        }
    }
    match phase {
        Phase::Closing if inner.outbox.is_empty() => Poll::Ready(Some(Stop::End(Ended::Closed))),
        Phase::Closing => Poll::Pending,
        _ => Poll::Ready(None),
    }
}

fn handler(session: &Arc<Session>) -> impl FnMut(Input<'_>, &mut Vec<u8>) -> Flow {
    move |input, replies| match super::handle_input(session, &input, replies) {
        Ok(()) if session.inbound().ready() => ControlFlow::Continue(()),
        Ok(()) => ControlFlow::Break(Stop::Pause),
        Err(reason) => ControlFlow::Break(Stop::End(Ended::Refused(reason))),
    }
}

/// Waits until the node takes events again. Meanwhile nothing is read, so a pong cannot arrive.
async fn wait_for_room(session: &Arc<Session>) -> Result<(), Ended> {
    session.pause();
    let timeout = session.core.limits.overload_timeout;
    let waited = tokio::time::timeout(timeout, session.inbound().wait_ready()).await;
    session.resume();
    waited.map_err(|_| Ended::Refused(CloseReason::Overload))
}

/// Ends the session, says goodbye on the wire if the peer can still hear it, and drops the stream.
async fn end(session: Arc<Session>, stream: Arc<TcpStream>, ended: Ended) {
    let code = match ended {
        Ended::Peer => {
            session.close(CloseReason::TransportClose);
            None
        }
        Ended::Broken => {
            session.close(CloseReason::TransportError);
            session.finish();
            return;
        }
        Ended::Protocol(code) => {
            session.close(CloseReason::TransportError);
            Some(code)
        }
        Ended::Refused(reason) => {
            session.close(reason);
            reason.websocket_code()
        }
        Ended::Closed => None,
    };
    session.finish();
    if !session.is_cut() {
        goodbye(&stream, code).await;
    }
}

/// Sends a close frame, then waits a little for the peer to do the same: a socket that is dropped
/// with unread input is reset, and the reset overtakes what was sent.
pub(super) async fn goodbye(stream: &TcpStream, code: Option<u16>) {
    let mut bytes = Vec::with_capacity(4);
    let payload = code.map(u16::to_be_bytes);
    frame::encode_header(&mut bytes, Opcode::Close, payload.map_or(0, |payload| payload.len()));
    bytes.extend_from_slice(payload.as_ref().map_or(&[], |payload| payload.as_slice()));
    if stream.try_write(&bytes).is_err() {
        return;
    }
    if SockRef::from(stream).shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let drain = async {
        let mut discarded = 0;
        let mut buffer = [0; 1024];
        while discarded < LINGER_BYTES && stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => discarded += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // The deadline is the point; whether the peer made it does not matter.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, drain).await;
}
