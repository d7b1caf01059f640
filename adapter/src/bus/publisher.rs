//! Publishes in order over one connection.

use super::{error::LinkError, topic::TopicKind, topology::Address};
use crate::{AdapterConfig, AdapterMetrics, LostReason};
use prometheus::{IntCounter, IntGauge};
use redis::{ErrorKind, ServerErrorKind, Value, aio::MultiplexedConnection};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

/// How many messages go out at once: enough to make the round trip not matter, few enough that those behind
/// them do not wait long for the answers.
const BATCH_FRAMES_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How often a message is sent to another master. While a slot moves, two masters may each name the other.
const REDIRECTIONS_MAX: u32 = 3;

/// The messages that wait to be published.
pub(super) struct PublishQueue {
    /// `PUBLISH` or `SPUBLISH`.
    command: &'static str,
    /// To be told when another master has the slot of a channel.
    refresh: Arc<Notify>,
    state: Mutex<State>,
    /// Something came, or something was answered.
    changed: Notify,
    idle: Notify,
    frames_max: usize,
    bytes_max: usize,
    timeout: Duration,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    unanswered: usize,
}

/// A message on its way out.
pub(super) struct Outgoing {
    pub(super) channel: String,
    payload: Vec<u8>,
    queued: Instant,
    n_redirections: u32,
}

#[cfg(test)]
impl Outgoing {
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Takes messages that Redis did not, because another master has their slot: host and port of that master, and the
/// messages in order.
pub(super) trait Redirect {
    fn redirect(&self, to: &Address, frames: Vec<Outgoing>);
}

struct Metrics {
    depth: IntGauge,
    accepted: IntCounter,
    refused: IntCounter,
    unknown: IntCounter,
    expired: IntCounter,
}

impl PublishQueue {
    pub(super) fn new(
        kind: TopicKind,
        refresh: Arc<Notify>,
        config: &AdapterConfig,
        metrics: &AdapterMetrics,
    ) -> Self {
        let result = |result| metrics.cluster_published_total.with_label_values(&[result]);
        metrics.publish_queue_limit.set(config.publish_queue_frames as i64);
        Self {
            command: kind.publish(),
            refresh,
            state: Mutex::default(),
            changed: Notify::new(),
            idle: Notify::new(),
            frames_max: config.publish_queue_frames,
            bytes_max: config.publish_queue_bytes,
            timeout: config.publish_timeout,
            metrics: Metrics {
                depth: metrics.publish_queue_depth.clone(),
                accepted: result("accepted"),
                refused: result("refused"),
                unknown: result("unknown"),
                expired: result("expired"),
            },
        }
    }

    pub(super) fn push(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        let mut state = self.state();
        let bytes = state.bytes + payload.len();
        if state.waiting.len() >= self.frames_max || bytes > self.bytes_max {
            return Err(LostReason::QueueFull);
        }
        state.bytes = bytes;
        let queued = Instant::now();
        state.waiting.push_back(Outgoing { channel, payload, queued, n_redirections: 0 });
        drop(state);
        self.metrics.depth.inc();
        self.changed.notify_one();
        Ok(())
    }

    /// Queues messages that were in the queue of another link, without a look at their number: they have been
    /// let in once.
    pub(super) fn push_redirected(&self, frames: Vec<Outgoing>) {
        let mut state = self.state();
        state.bytes += frames.iter().map(|frame| frame.payload.len()).sum::<usize>();
        self.metrics.depth.add(frames.len() as i64);
        state.waiting.extend(frames);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes out what waits for some channels.
    pub(super) fn take_waiting(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Outgoing> {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        let (taken, kept): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|frame| is_meant(&frame.channel));
        state.waiting = kept.into();
        state.bytes -= taken.iter().map(|frame| frame.payload.len()).sum::<usize>();
        drop(state);
        self.metrics.depth.sub(taken.len() as i64);
        self.tell_if_idle();
        taken
    }

    /// Gives up messages that Redis did not take.
    pub(super) fn give_up(&self, frames: &[Outgoing]) {
        self.metrics.refused.inc_by(frames.len() as u64);
    }

    /// Publishes what comes, until the connection fails.
    pub(super) async fn keep_publishing(
        &self,
        mut connection: MultiplexedConnection,
        redirect: &impl Redirect,
    ) -> Result<Infallible, LinkError> {
        loop {
            let batch = self.take_batch();
            if batch.is_empty() {
                self.changed.notified().await;
            } else {
                self.publish(&mut connection, batch, redirect).await?;
            }
        }
    }

    /// One pipeline, and the answers to all of it. What may have been sent is never sent again: a second
    /// delivery is worse than none, because nobody can tell it from two messages.
    async fn publish(
        &self,
        connection: &mut MultiplexedConnection,
        batch: Vec<Outgoing>,
        redirect: &impl Redirect,
    ) -> Result<(), LinkError> {
        let mut pipeline = redis::Pipeline::with_capacity(batch.len());
        for frame in &batch {
            pipeline.cmd(self.command).arg(&frame.channel).arg(&frame.payload);
        }
        // Also when this future is dropped half-way: then nobody knows the result.
        let mut answered = Unanswered { queue: self, left: batch.len() };
        let answers = match connection.send_packed_commands(&pipeline, 0, batch.len()).await {
            Ok(answers) => answers,
            // A Redis that stalls for a moment does not cost the link. If it does not go on, the probes will
            // find out, and until then each batch takes this long.
            Err(error) if error.is_timeout() => return Ok(()),
            Err(error) => {
                return Err(LinkError::of_channel(self.command, &batch[0].channel, error));
            }
        };
        let mut moved: Vec<(Address, Vec<Outgoing>)> = Vec::new();
        for (answer, mut frame) in answers.into_iter().zip(batch) {
            answered.left -= 1;
            match answer.extract_error() {
                Ok(Value::Int(_)) => self.metrics.accepted.inc(),
                Ok(_) => self.metrics.unknown.inc(),
                // It was not executed, so it can be sent again.
                Err(error)
                    if let Some(to) = moved_to(&error)
                        && frame.n_redirections < REDIRECTIONS_MAX =>
                {
                    frame.n_redirections += 1;
                    match moved.iter_mut().find(|(address, _)| *address == to) {
                        Some((_, frames)) => frames.push(frame),
                        None => moved.push((to, vec![frame])),
                    }
                }
                Err(error) => {
                    self.metrics.refused.inc();
                    self.refused(&frame.channel, error)?;
                }
            }
        }
        // Before the next batch is taken: whatever else waits for these channels goes the same way, behind them.
        for (to, frames) in moved {
            self.refresh.notify_one();
            redirect.redirect(&to, frames);
        }
        Ok(())
    }

    /// A missing grant for one namespace must not take the link from the others; it is told each time, as the
    /// log is the only place where it can be seen.
    fn refused(&self, channel: &str, error: redis::RedisError) -> Result<(), LinkError> {
        match LinkError::of_channel(self.command, channel, error) {
            error @ LinkError::NotPermitted { .. } => {
                tracing::error!(event = "publish_refused", %error, "Redis refused a message");
                Ok(())
            }
            error if error.is_redirection() => {
                self.refresh.notify_one();
                Ok(())
            }
            // A server that is loading, or no master any more: let the connection find out.
            error => Err(error),
        }
    }

    fn take_batch(&self) -> Vec<Outgoing> {
        let mut state = self.state();
        let (mut frames, mut bytes) = (0, 0);
        for frame in state.waiting.iter().take(BATCH_FRAMES_MAX) {
            if frames > 0 && bytes + frame.payload.len() > BATCH_BYTES_MAX {
                break;
            }
            frames += 1;
            bytes += frame.payload.len();
        }
        state.bytes -= bytes;
        state.unanswered += frames;
        state.waiting.drain(..frames).collect()
    }

    /// Drops what has waited longer than it is worth. Runs while there is no link.
    pub(super) async fn expire(&self) -> Infallible {
        loop {
            let oldest = self.drop_expired();
            let changed = self.changed.notified();
            match oldest {
                None => changed.await,
                Some(queued) => time::sleep_until(queued + self.timeout).await,
            }
        }
    }

    /// Drops what is too old, and gives the age of what is oldest then.
    fn drop_expired(&self) -> Option<Instant> {
        let mut state = self.state();
        let mut n_expired = 0;
        let oldest = loop {
            match state.waiting.front() {
                Some(frame) if frame.queued.elapsed() >= self.timeout => {
                    state.bytes -= frame.payload.len();
                    state.waiting.pop_front();
                    n_expired += 1;
                }
                oldest => break oldest.map(|frame| frame.queued),
            }
        };
        drop(state);
        self.metrics.depth.sub(n_expired);
        self.metrics.expired.inc_by(n_expired as u64);
        self.tell_if_idle();
        oldest
    }

    /// Waits until nothing waits, neither to be sent nor for an answer.
    pub(super) async fn flushed(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that a change between look and wait is not missed.
            idle.as_mut().enable();
            if self.state().is_idle() {
                return;
            }
            idle.await;
        }
    }

    fn tell_if_idle(&self) {
        if self.state().is_idle() {
            self.idle.notify_waiters();
        }
    }

    /// No code that holds the lock can panic half-way through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unanswered == 0
    }
}

/// The master that has the slot, if a master says that it is another one.
fn moved_to(error: &redis::RedisError) -> Option<Address> {
    if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
        return None;
    }
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Settles the accounts of a batch, however it ends.
struct Unanswered<'a> {
    queue: &'a PublishQueue,
    left: usize,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let batch = {
            let mut state = self.queue.state();
            std::mem::take(&mut state.unanswered)
        };
        self.queue.metrics.depth.sub(batch as i64);
        self.queue.metrics.unknown.inc_by(self.left as u64);
        self.queue.tell_if_idle();
    }
}
