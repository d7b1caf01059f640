//! A bounded queue of received messages, which also remembers what did not get into it.

use crate::AdapterConfig;
use prometheus::IntGauge;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// How many channels of lost messages are remembered by name; beyond that, everything counts as lost.
const LOST_CHANNELS_MAX: usize = 64;

/// A message as it came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) channel: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// What was lost since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// The channels of messages that did not get in.
    pub(crate) channels: Vec<Vec<u8>>,
    /// There were too many such channels to name them.
    pub(crate) everything: bool,
    /// The link was lost for a while.
    pub(crate) link: bool,
}

/// What comes out of an inbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Frame(Frame),
    /// Told before any message that came in after the loss.
    Losses(Losses),
}

/// Takes messages from the connection, which never waits, and gives them to one consumer in order.
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    frames_max: usize,
    bytes_max: usize,
    depth: IntGauge,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    losses: Option<Losses>,
    is_closed: bool,
}

impl Inbox {
    pub(crate) fn new(config: &AdapterConfig, depth: IntGauge) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Notify::new(),
            frames_max: config.receive_queue_frames,
            bytes_max: config.receive_queue_bytes,
            depth,
        }
    }

    /// Queues a message and says whether there was room; without room its channel is remembered. A closed
    /// inbox takes everything, and forgets it.
    pub(super) fn push(&self, frame: Frame) -> bool {
        let mut state = self.state();
        if state.is_closed {
            return true;
        }
        let bytes = state.bytes + frame.payload.len();
        let has_room = state.frames.len() < self.frames_max && bytes <= self.bytes_max;
        if has_room {
            state.bytes = bytes;
            state.frames.push_back(frame);
            self.depth.inc();
        } else {
            state.lose(frame.channel);
        }
        drop(state);
        self.arrived.notify_one();
        has_room
    }

    /// Remembers that a message of this channel is lost.
    pub(super) fn lose(&self, channel: Vec<u8>) {
        self.state().lose(channel);
        self.arrived.notify_one();
    }

    /// Remembers that the link was lost.
    pub(super) fn lose_link(&self) {
        self.state().losses.get_or_insert_default().link = true;
        self.arrived.notify_one();
    }

    /// Lets the consumer end, and forgets what waits.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        self.depth.sub(state.frames.len() as i64);
        *state = State { is_closed: true, ..State::default() };
        drop(state);
        self.arrived.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Waits for the next message or loss; nothing comes from a closed inbox. For one consumer only.
    pub(crate) async fn next(&self) -> Option<Item> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<Option<Item>> {
        let mut state = self.state();
        if state.is_closed {
            return Some(None);
        }
        if let Some(losses) = state.losses.take() {
            return Some(Some(Item::Losses(losses)));
        }
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.payload.len();
        self.depth.dec();
        Some(Some(Item::Frame(frame)))
    }

    /// No code that holds the lock can panic half-way through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lose(&mut self, channel: Vec<u8>) {
        let losses = self.losses.get_or_insert_default();
        if losses.everything || losses.channels.contains(&channel) {
            return;
        }
        if losses.channels.len() == LOST_CHANNELS_MAX {
            losses.channels.clear();
            losses.everything = true;
        } else {
            losses.channels.push(channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(frames: usize, bytes: usize) -> Inbox {
        let config = AdapterConfig {
            receive_queue_frames: frames,
            receive_queue_bytes: bytes,
            ..AdapterConfig::default()
        };
        Inbox::new(&config, IntGauge::new("depth", "depth").expect("a valid name"))
    }

    fn frame(channel: &str, len: usize) -> Frame {
        Frame { channel: channel.into(), payload: vec![0; len] }
    }

    #[tokio::test]
    async fn losses_are_told_before_what_came_later() {
        let inbox = inbox(2, 100);
        assert!(inbox.push(frame("a", 1)) && inbox.push(frame("b", 1)));
        assert!(!inbox.push(frame("c", 1)) && !inbox.push(frame("c", 1)));
        let Some(Item::Losses(losses)) = inbox.next().await else { panic!("losses expected") };
        assert_eq!(losses.channels, [b"c"]);
        assert_eq!(inbox.next().await, Some(Item::Frame(frame("a", 1))));
        assert!(inbox.push(frame("d", 1)));
        assert_eq!(inbox.next().await, Some(Item::Frame(frame("b", 1))));
        assert_eq!(inbox.next().await, Some(Item::Frame(frame("d", 1))));
        assert_eq!(inbox.depth.get(), 0);
    }

    #[tokio::test]
    async fn bytes_are_bounded_too() {
        let inbox = inbox(10, 100);
        assert!(inbox.push(frame("a", 60)) && !inbox.push(frame("b", 60)));
        assert!(matches!(inbox.next().await, Some(Item::Losses(_))));
        assert!(matches!(inbox.next().await, Some(Item::Frame(_))));
        assert!(inbox.push(frame("b", 60)));
    }

    #[tokio::test]
    async fn too_many_lost_channels_are_everything() {
        let inbox = inbox(1, 100);
        for number in 0..=LOST_CHANNELS_MAX {
            inbox.lose(number.to_string().into());
        }
        inbox.lose_link();
        let expected = Losses { channels: Vec::new(), everything: true, link: true };
        assert_eq!(inbox.next().await, Some(Item::Losses(expected)));
    }

    #[tokio::test]
    async fn a_closed_inbox_ends_and_forgets() {
        let inbox = inbox(1, 100);
        assert!(inbox.push(frame("a", 1)));
        inbox.close();
        assert!(inbox.push(frame("b", 1)));
        assert_eq!(inbox.next().await, None);
        assert_eq!(inbox.depth.get(), 0);
    }
}
