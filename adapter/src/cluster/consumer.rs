//! Takes what comes in for a namespace and applies it, one message after the other.

use super::{
    Cluster,
    namespace::{Feed, Namespace},
};
use crate::{
    AdapterMetrics, GapCause, Local,
    bus::{Frame, Item, Losses},
    wire::{DecodeError, Message, channel::Addressed},
};
use prometheus::IntCounter;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The pause between two warnings about messages that were not understood.
const WARNING_PAUSE: Duration = Duration::from_secs(60);
/// Counters of received messages, resolved once.
pub(super) struct Received {
    pub(super) delivered: IntCounter,
    pub(super) no_room: IntCounter,
    pub(super) own: IntCounter,
    pub(super) ignored: IntCounter,
    pub(super) malformed: IntCounter,
    pub(super) foreign: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) malformed_response: IntCounter,
}

impl Received {
    pub(super) fn new(metrics: &AdapterMetrics) -> Self {
        let received = |result| metrics.cluster_received_total.with_label_values(&[result]);
        let responses = &metrics.cluster_responses_total;
        Self {
            delivered: received("delivered"),
            no_room: received("no_room"),
            own: received("own"),
            ignored: received("ignored"),
            malformed: received("malformed"),
            foreign: received("foreign"),
            refused: received("refused"),
            malformed_response: responses.with_label_values(&["malformed"]),
        }
    }
}

impl<L: Local> Cluster<L> {
    /// Keeps one consumer for each feed.
    pub(super) async fn keep_consumers(self: &Arc<Self>, shutdown: &CancellationToken) {
        let mut consumers = JoinSet::new();
        let mut consumed: HashMap<Id, (Arc<Namespace>, Which)> = HashMap::new();
        loop {
            for (namespace, which) in self.unconsumed() {
                let consumer = Arc::clone(self).consume(Arc::clone(&namespace), which);
                consumed.insert(consumers.spawn(consumer).id(), (namespace, which));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.opened.notified() => {}
                Some(ended) = consumers.join_next_with_id() => {
                    let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
                    if let Some((namespace, which)) = consumed.remove(&id) {
                        consumer_ended(&namespace, which, ended.err());
                    }
                }
            }
        }
    }

    fn unconsumed(&self) -> Vec<(Arc<Namespace>, Which)> {
        let namespaces = self.namespaces();
        let feeds = namespaces.values().flat_map(|namespace| {
            [Which::Messages, Which::Answers].map(|which| (Arc::clone(namespace), which))
        });
        feeds
            .filter(|(namespace, which)| {
                !which.of(namespace).is_consumed.swap(true, Ordering::Relaxed)
            })
            .collect()
    }

    /// Applies what comes in for a namespace, one after the other.
    async fn consume(self: Arc<Self>, namespace: Arc<Namespace>, which: Which) {
        while let Some(item) = which.of(&namespace).inbox.next().await {
            match item {
                // Who waits for an answer that is lost waits for its deadline, and learns that it is not there.
                Item::Losses(_) if which == Which::Answers => {}
                Item::Losses(losses) => self.report(&namespace, &losses),
                Item::Frame(frame) => self.apply(&namespace, &frame).await,
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    fn report(&self, namespace: &Namespace, losses: &Losses) {
        let gap = |room: Option<&str>, cause: GapCause| {
            self.metrics.gaps_total.with_label_values(&[cause.kind()]).inc();
            self.local.gap(&namespace.name, room, cause);
        };
        let rooms: Vec<_> = losses
            .channels
            .iter()
            .map(|channel| namespace.channels.addressed_room(channel))
            .collect();
        if losses.everything || rooms.contains(&None) {
            gap(None, GapCause::Overflow);
        } else {
            rooms.iter().flatten().for_each(|room| gap(Some(room), GapCause::Overflow));
        }
        if losses.link {
            gap(None, GapCause::LinkLost);
        }
    }

    async fn apply(self: &Arc<Self>, namespace: &Arc<Namespace>, frame: &Frame) {
        let addressed = namespace.channels.addressed(&frame.channel);
        if let Addressed::Room(room) = &addressed
            && !self.local.has_room(&namespace.name, room)
        {
            self.received.no_room.inc();
            return;
        }
        match self.dialect.decode(&addressed, &frame.payload, &namespace.name) {
            Ok(message) => self.apply_message(namespace, message, frame.payload.len()).await.inc(),
            Err(error) => {
                self.received.malformed.inc();
                if addressed == Addressed::Response {
                    self.received.malformed_response.inc();
                }
                self.warn(namespace, &error);
            }
        }
    }

    async fn apply_message(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        message: Message,
        bytes: usize,
    ) -> &IntCounter {
        match message {
            Message::Own => &self.received.own,
            Message::Foreign => &self.received.foreign,
            Message::Ignored => &self.received.ignored,
            Message::Broadcast { selection, flags, data } => {
                self.local.ready().await;
                self.local.deliver(&namespace.name, &selection, flags, data);
                &self.received.delivered
            }
            Message::Request(request) => self.apply_request(namespace, request).await,
            Message::Response(response) => {
                if self.pending.answer(&namespace.name, response, bytes) {
                    &self.received.delivered
                } else {
                    &self.received.ignored
                }
            }
        }
    }

    /// Says that something was not understood: each time in detail, once a minute for those who watch.
    fn warn(&self, namespace: &Namespace, error: &DecodeError) {
        let ns = &*namespace.name;
        tracing::debug!(event = "message_malformed", ns, %error, "a message was not understood");
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= WARNING_PAUSE) {
            *warned = Some(Instant::now());
            tracing::warn!(
                event = "messages_malformed",
                ns,
                %error,
                "messages from Redis are not understood: something else may use the same prefix"
            );
        }
    }
}

/// One of the feeds of a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Messages,
    Answers,
}

impl Which {
    fn of(self, namespace: &Namespace) -> &Feed {
        match self {
            Which::Messages => &namespace.messages,
            Which::Answers => &namespace.answers,
        }
    }
}

/// A consumer ends with its namespace. If it ended by a panic in the node's own code, the message it was at is
/// lost, and the namespace gets another one.
fn consumer_ended(namespace: &Namespace, which: Which, error: Option<JoinError>) {
    let feed = which.of(namespace);
    if let Some(error) = error
        && !feed.inbox.is_closed()
    {
        let ns = &*namespace.name;
        tracing::error!(event = "consumer_panicked", ns, %error, "a message could not be delivered");
        feed.is_consumed.store(false, Ordering::Relaxed);
    }
}
