//! What waits to be sent to one session: bounded by bytes, in order, written by whoever holds it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use protocol::engine::RECORD_SEPARATOR;
use tokio::net::TcpStream;

use super::frame::Frame;

/// Slices handed to the kernel in one `writev`; Linux takes up to 1024, few bursts need more.
const SLICES_PER_WRITE: usize = 64;

/// A queue keeps its allocation up to this many entries once it is empty, so that a burst does not
/// cost a session memory for the rest of its life.
const CAPACITY_KEPT: usize = 4;

/// Frames that wait for a transport, oldest first.
#[derive(Default)]
pub struct Outbox {
    queue: VecDeque<Frame>,
    /// Bytes of the first frame that the kernel has taken already.
    head_written: usize,
    /// Bytes that wait, without those written of the first frame.
    bytes: usize,
}

/// The outbox is full: the peer does not read, or not fast enough.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

/// What a write left behind.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Written {
    /// Everything is with the kernel.
    All,
    /// The kernel took `progress` bytes and then no more.
    Blocked {
        /// Bytes that the kernel took in this call.
        progress: usize,
    },
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a frame. An empty outbox takes a frame of any size, so that a limit on the backlog is
    /// never a limit on one message.
    pub fn push(&mut self, frame: &Frame, bytes_max: usize) -> Result<(), Overflow> {
        let len = frame.websocket().len();
        debug_assert_ne!(len, 0, "an empty frame would look like a kernel that takes nothing");
        if !self.queue.is_empty() && self.bytes + len > bytes_max {
            return Err(Overflow);
        }
        self.queue.push_back(frame.clone());
        self.bytes += len;
        Ok(())
    }

    /// Sends a frame at once if nothing waits before it; what the kernel does not take is queued.
    pub fn send(
        &mut self,
        frame: &Frame,
        stream: &TcpStream,
        bytes_max: usize,
    ) -> io::Result<Result<Written, Overflow>> {
        if !self.queue.is_empty() {
            // What waits goes first; only what is left then counts against the limit.
            let before = self.write(stream)?;
            if self.push(frame, bytes_max).is_err() {
                return Ok(Err(Overflow));
            }
            return if before == Written::All { self.write(stream) } else { Ok(before) }.map(Ok);
        }
        let bytes = frame.websocket();
        let written = try_write(stream, bytes)?;
        if written == bytes.len() {
            return Ok(Ok(Written::All));
        }
        self.queue.push_back(frame.clone());
        self.head_written = written;
        self.bytes = bytes.len() - written;
        Ok(Ok(Written::Blocked { progress: written }))
    }

    /// Writes what the kernel takes without waiting.
    pub fn write(&mut self, stream: &TcpStream) -> io::Result<Written> {
        let mut progress = 0;
        while !self.queue.is_empty() {
            let written = if self.queue.len() == 1 {
                try_write(stream, &self.queue[0].websocket()[self.head_written..])?
            } else {
                self.write_many(stream)?
            };
            if written == 0 {
                return Ok(Written::Blocked { progress });
            }
            progress += written;
            self.advance(written);
        }
        Ok(Written::All)
    }

    fn write_many(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let mut n_slices = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.queue) {
            let skipped = if n_slices == 0 { self.head_written } else { 0 };
            *slice = IoSlice::new(&frame.websocket()[skipped..]);
            n_slices += 1;
        }
        would_block_is_zero(stream.try_write_vectored(&slices[..n_slices]))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while written > 0 {
            let left = self.queue[0].websocket().len() - self.head_written;
            if written < left {
                self.head_written += written;
                return;
            }
            written -= left;
            self.head_written = 0;
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.queue.capacity() > CAPACITY_KEPT {
            self.queue = VecDeque::new();
        }
    }

    /// Empties the outbox into one polling payload.
    pub fn take_payload(&mut self) -> String {
        let mut payload = String::with_capacity(self.bytes);
        for frame in self.queue.drain(..) {
            let packets = frame.polling();
            if packets.is_empty() {
                continue;
            }
            if !payload.is_empty() {
                payload.push(RECORD_SEPARATOR);
            }
            payload.push_str(packets);
        }
        self.bytes = 0;
        self.shrink();
        payload
    }

    /// Whether the kernel has taken a part of a frame and waits for the rest.
    pub fn is_cut(&self) -> bool {
        self.head_written > 0
    }

    /// Forgets everything: the session is over.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    would_block_is_zero(stream.try_write(bytes))
}

fn would_block_is_zero(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.expect("connect"), accepted.expect("accept").0)
    }

    #[test]
    fn an_empty_outbox_takes_a_frame_above_the_limit_and_no_second_one() {
        let mut outbox = Outbox::default();
        let frame = Frame::text(&"x".repeat(100));
        assert_eq!(outbox.push(&frame, 10), Ok(()));
        assert_eq!(outbox.push(&frame, 10), Err(Overflow));
        assert_eq!(outbox.bytes(), frame.websocket().len());
    }

    #[tokio::test]
    async fn a_backlog_counts_only_once_the_kernel_was_offered_it() {
        let (_client, server) = pair().await;
        let mut outbox = Outbox::default();
        let frame = Frame::text(&"x".repeat(1000));
        assert_eq!(outbox.push(&frame, 1500), Ok(()));
        let sent = outbox.send(&frame, &server, 1500).expect("write");
        assert_eq!(sent, Ok(Written::All));
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_is_written_later_in_order() {
        let (mut client, server) = pair().await;
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        let mut queued = 0;
        // More than loopback socket buffers hold, in frames of uneven size.
        for n in 0..3_000_usize {
            let frame = Frame::text(&format!("{n}:{}", "x".repeat(n * 7 % 10_000)));
            expected.extend_from_slice(frame.websocket());
            let sent = outbox.send(&frame, &server, usize::MAX).expect("write");
            queued += usize::from(sent != Ok(Written::All));
        }
        assert!(queued > 0, "the test must fill the socket");
        let mut reader = tokio::task::JoinSet::new();
        reader.spawn(async move {
            let mut received = vec![0; expected.len()];
            client.read_exact(&mut received).await.expect("read");
            received == expected
        });
        while !outbox.is_empty() {
            server.writable().await.expect("writable");
            outbox.write(&server).expect("write");
        }
        assert_eq!(outbox.bytes(), 0);
        let same = reader.join_next().await.expect("a reader").expect("it ends");
        assert!(same, "the bytes arrive once and in order");
    }
}
