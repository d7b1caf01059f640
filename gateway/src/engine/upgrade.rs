//! The change of a session from polling to WebSocket, without a packet lost, repeated or reordered.
//!
//! The client opens a WebSocket for its session and sends `2probe`; we answer `3probe` and end the
//! poll it holds. The client then stops polling and sends `5`. Only this packet moves the outbox:
//! until then packets go on leaving by polling, and after it they leave by WebSocket, in the order
//! in which they were queued. A probe that fails or stalls leaves the polling session as it was.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::close::CloseReason;
use super::frame;
use super::session::{Phase, Session, Transport};
use super::websocket::{self, Connection, Ended, Flow, Input, Reader, Stop};

/// The exclusive right to upgrade a session; given back when dropped.
pub struct Probe(Arc<Session>);

impl Probe {
    /// Takes the right, unless the session is no longer on polling or somebody else has it.
    pub fn claim(session: &Arc<Session>) -> Option<Self> {
        let mut inner = session.lock();
        let open = inner.phase == Phase::Open;
        match &mut inner.transport {
            Transport::Polling(polling) if open && !polling.probing => {
                polling.probing = true;
                drop(inner);
                Some(Self(session.clone()))
            }
            _ => None,
        }
    }

    /// The client probed: polls end soon from here on, the held one at once.
    fn probed(&self) {
        if let Transport::Polling(polling) = &mut self.0.lock().transport {
            polling.probed = true;
            polling.wake();
        }
    }

    /// Moves the session to `stream`. Fails if the session has ended meanwhile.
    fn switch(&self, stream: &Arc<TcpStream>) -> bool {
        let session = &self.0;
        let mut inner = session.lock();
        if inner.phase != Phase::Open || !matches!(inner.transport, Transport::Polling(_)) {
            return false;
        }
        let polling = std::mem::replace(&mut inner.transport, Transport::WebSocket(stream.clone()));
        Session::unblocked(&mut inner);
        session.core.metrics.upgraded();
        let flushed = session.flush_locked(&mut inner);
        drop(inner);
        if let Transport::Polling(mut polling) = polling {
            polling.wake();
        }
        if let Err(reason) = flushed {
            session.close(reason);
        }
        true
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Transport::Polling(polling) = &mut self.0.lock().transport {
            polling.probing = false;
            polling.probed = false;
        }
    }
}

/// Runs the probe on a fresh WebSocket connection. Answers the session's connection, or nothing if
/// the probe failed.
pub async fn run(probe: Probe, stream: TcpStream, received: Vec<u8>) -> Option<Connection> {
    let stream = Arc::new(stream);
    let upgraded = until_upgrade(&probe, &stream, received).await;
    let session = probe.0.clone();
    drop(probe);
    match upgraded {
        Some(received) => Some(Connection::new(session, stream, received)),
        None => {
            websocket::goodbye(&stream, None).await;
            None
        }
    }
}

/// Answers the bytes that came after the upgrade packet, or nothing if the probe failed.
async fn until_upgrade(
    probe: &Probe,
    stream: &Arc<TcpStream>,
    received: Vec<u8>,
) -> Option<Vec<u8>> {
    let core = &probe.0.core;
    let limits = core.reader_limits();
    let mut reader = Reader::new(received);
    let mut probed = false;
    let mut handle = |input: Input<'_>, replies: &mut Vec<u8>| -> Flow {
        match input {
            Input::Text("2probe") if !probed => {
                probed = true;
                frame::append_text(replies, "3probe");
                probe.probed();
                ControlFlow::Continue(())
            }
            // What follows the upgrade packet belongs to the session.
            Input::Text("5") if probed => ControlFlow::Break(Stop::Pause),
            _ => ControlFlow::Break(Stop::End(Ended::Refused(CloseReason::ParseError))),
        }
    };
    let mut answer = |replies: &mut Vec<u8>| {
        // An answer of a few bytes fits into the buffer of a new socket; if it does not leave, the
        // client gives the probe up.
        let _ = stream.try_write(replies);
    };
    let steps = async {
        if let ControlFlow::Break(stop) =
            websocket::feed(&mut reader, &mut [], limits, &mut handle, &mut answer)
        {
            return stop;
        }
        poll_fn(|cx| {
            websocket::poll_read(stream, &mut reader, limits, &mut handle, &mut answer, cx)
        })
        .await
    };
    let stop = tokio::time::timeout(core.config().upgrade_timeout, steps).await.ok()?;
    (matches!(stop, Stop::Pause) && probe.switch(stream)).then(|| reader.take_partial())
}
