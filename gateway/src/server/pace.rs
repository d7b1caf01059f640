//! The deadlines of an HTTP connection: a short one for the head of a request that has begun to
//! arrive, a long one while nothing is going on, none while a request is being answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const REQUEST: u8 = 2;

/// What a connection is doing, and since when. Shared by the stream, which sees bytes arrive, and
/// the service, which sees requests begin and end.
pub struct Pace {
    opened: Instant,
    state: AtomicU8,
    since_millis: AtomicU64,
    head_timeout: Duration,
    idle_timeout: Duration,
}

impl Pace {
    /// A connection that has just been opened; its first request is awaited like a begun one.
    pub fn new(head_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            state: AtomicU8::new(HEAD),
            since_millis: AtomicU64::new(0),
            head_timeout,
            idle_timeout,
        })
    }

    fn enter(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        self.since_millis.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn bytes_arrived(&self) {
        if self.state.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// A response is on its way to a client that reads it.
    fn bytes_left(&self) {
        if self.state.load(Ordering::Relaxed) != REQUEST {
            self.enter(IDLE);
        }
    }

    /// The head of a request is complete.
    pub fn request_began(&self) {
        self.enter(REQUEST);
    }

    /// Its response is ready.
    pub fn request_ended(&self) {
        self.enter(IDLE);
    }

    /// When the connection has to be dropped unless something happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let timeout = match self.state.load(Ordering::Relaxed) {
            IDLE => self.idle_timeout,
            HEAD => self.head_timeout,
            _ => return None,
        };
        let since = Duration::from_millis(self.since_millis.load(Ordering::Relaxed));
        Some(self.opened + since + timeout)
    }
}

/// A stream that reports to a [`Pace`].
pub struct PacedStream {
    stream: TokioIo<TcpStream>,
    pace: Arc<Pace>,
}

impl PacedStream {
    /// Wraps a stream.
    pub fn new(stream: TcpStream, pace: Arc<Pace>) -> Self {
        Self { stream: TokioIo::new(stream), pace }
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> TcpStream {
        self.stream.into_inner()
    }
}

impl Read for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.pace.bytes_arrived();
        }
        polled
    }
}

impl Write for PacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if polled.is_ready() {
            self.pace.bytes_left();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if polled.is_ready() {
            self.pace.bytes_left();
        }
        polled
    }
}
