//! What other servers ask of this node, and how it answers: each question exactly once.

use super::{Cluster, namespace::Namespace};
use crate::{
    AdapterMetrics, Flags, Local, Participation, RoomName, Selection,
    memory::selection_of,
    wire::{Request, RequestBody, ResponseBody},
};
use futures_util::StreamExt;
use prometheus::{IntCounter, IntGauge};
use protocol::socket::EventData;
use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest time that clients are waited for, whatever is asked for.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// How many broadcasts of others may wait for acknowledgements of clients. Each is a task; Node knows no limit.
const ASKS_MAX: usize = 4096;
/// How many events of other servers may be handled at once.
const EVENTS_MAX: usize = 1024;
/// How many answers may be looked up at once. Each may describe all sockets of this node.
const LOOKUPS_MAX: usize = 16;

/// An answer that is owed. What is dropped without one gives an empty one, so that nobody waits for this node: if
/// too many events are handled at once, if the node's own code panics, and when it ends.
struct Reply<L: Local> {
    cluster: Arc<Cluster<L>>,
    namespace: Arc<Namespace>,
    channel: String,
    request_id: String,
    /// The answer without content, until something was answered.
    owed: Option<ResponseBody>,
}

impl<L: Local> Cluster<L> {
    /// Applies a request, and says as what it counts. Whatever changes sockets has been done when this returns.
    pub(super) async fn apply_request(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        request: Request,
    ) -> &IntCounter {
        let Request { from, id, body } = request;
        if self.config.participation == Participation::Broadcasts {
            return &self.received.ignored;
        }
        let asker = Asker { from, id };
        match body {
            RequestBody::Join { selection, rooms } => {
                let reply = self.reply_to_old_form(namespace, asker, &selection).await;
                // Whoever emits to these rooms next, from here too, must reach those who join elsewhere.
                namespace.joins_elsewhere(&rooms);
                self.local.join(&namespace.name, &selection, &rooms).await;
                drop(reply);
            }
            RequestBody::Leave { selection, rooms } => {
                let reply = self.reply_to_old_form(namespace, asker, &selection).await;
                self.local.leave(&namespace.name, &selection, &rooms).await;
                drop(reply);
            }
            RequestBody::Disconnect { selection, close } => {
                let reply = self.reply_to_old_form(namespace, asker, &selection).await;
                self.local.disconnect(&namespace.name, &selection, close).await;
                drop(reply);
            }
            RequestBody::ServerEvent { data } => {
                return self.apply_server_event(namespace, asker, data).await;
            }
            RequestBody::Sockets { rooms } => {
                let empty = ResponseBody::SocketIds(Vec::new());
                let Some(reply) = self.reply(namespace, asker, empty) else {
                    return &self.received.ignored;
                };
                let selection = selection_of(&rooms);
                self.look_up(reply, |reply| reply.answer_ids(selection)).await;
            }
            RequestBody::Rooms => {
                let empty = ResponseBody::Rooms(Vec::new());
                let Some(reply) = self.reply(namespace, asker, empty) else {
                    return &self.received.ignored;
                };
                self.look_up(reply, Reply::answer_rooms).await;
            }
            RequestBody::Fetch { selection } => {
                let empty = ResponseBody::Sockets(Vec::new());
                let Some(reply) = self.reply(namespace, asker, empty) else {
                    return &self.received.ignored;
                };
                self.look_up(reply, |reply| reply.answer_sockets(selection)).await;
            }
            RequestBody::Ask { selection, flags, data, timeout } => {
                self.local.ready().await;
                let reply = self.reply(namespace, asker, ResponseBody::ClientCount(0));
                let permit = Arc::clone(&self.limits.asks).try_acquire_owned();
                let (Some(reply), Ok(permit)) = (reply, permit) else {
                    // The sockets are asked all the same: their clients need something to call back. Who asks learns
                    // that nobody here answers, or does not count on this node.
                    let ns = &namespace.name;
                    let unheard = self.local.ask(ns, &selection, flags, data, Duration::ZERO);
                    drop(unheard.await);
                    return &self.received.delivered;
                };
                let timeout = timeout.unwrap_or(self.config.requests_timeout).min(TIMEOUT_MAX);
                self.work(permit, reply.ask(selection, flags, data, timeout)).await;
            }
        }
        &self.received.delivered
    }

    async fn apply_server_event(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        asker: Asker,
        event: EventData,
    ) -> &IntCounter {
        // What it leads to is queued for sockets.
        self.local.ready().await;
        let empty =
            ResponseBody::ServerEvent(EventData { json: "[null]".into(), attachments: Vec::new() });
        let reply = self.reply(namespace, asker, empty);
        let Ok(permit) = Arc::clone(&self.limits.events).try_acquire_owned() else {
            return &self.received.refused;
        };
        match reply {
            Some(reply) => self.work(permit, reply.answer_server_event(event)).await,
            None => {
                let (cluster, namespace) = (Arc::clone(self), Arc::clone(namespace));
                let heard = async move {
                    let heard = cluster.local.server_event(&namespace.name, event, false);
                    // Nobody waits for it: what takes longer is given up.
                    let _ = tokio::time::timeout(TIMEOUT_MAX, heard).await;
                };
                self.work(permit, heard).await;
            }
        }
        &self.received.delivered
    }

    /// What is owed for a request; nothing if nobody waits for this node, or cannot be told anything.
    fn reply(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        asker: Asker,
        empty: ResponseBody,
    ) -> Option<Reply<L>> {
        let request_id = asker.id.filter(|_| self.is_full())?;
        let is_to_server_event = matches!(empty, ResponseBody::ServerEvent(_));
        let from = asker.from.as_deref();
        let channel =
            self.dialect.channel_of_answer(&namespace.channels, from, is_to_server_event)?;
        let (cluster, namespace) = (Arc::clone(self), Arc::clone(namespace));
        Some(Reply { cluster, namespace, channel, request_id, owed: Some(empty) })
    }

    /// Adapters before version 6.1 name one socket to join, leave or be disconnected, and the server that has it
    /// says when that is done. What is owed is given when it is dropped.
    async fn reply_to_old_form(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        asker: Asker,
        selection: &Selection,
    ) -> Option<Reply<L>> {
        asker.id.as_ref().filter(|_| self.dialect.is_classic())?;
        let is_here = !self.local.sockets(&namespace.name, selection).await.is_empty();
        if is_here { self.reply(namespace, asker, ResponseBody::Empty) } else { None }
    }

    /// Works on an answer that this node knows by itself. That is quick, so with too many at once the next one
    /// waits, and all behind it: an answer without content would be taken for the whole.
    async fn look_up<F>(self: &Arc<Self>, reply: Reply<L>, work: impl FnOnce(Reply<L>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&self.limits.lookups).acquire_owned().await {
            self.work(permit, work(reply)).await;
        }
    }

    /// Does something that may take time: what can be done at once in order with everything else, the rest as a
    /// task of a bounded set.
    async fn work(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let working = Working::new(permit, &self.metrics.answers_pending);
        let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            work.await;
            drop(working);
        });
        let first = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        if first.is_pending() {
            let stop = self.stop.clone();
            self.answering.spawn(async move { stop.run_until_cancelled(work).await });
        }
    }
}

/// How much of what others ask is worked on at once. What waits for clients or handlers has limits of its own: it may
/// last for minutes, and must not keep short answers from being given.
pub(super) struct Limits {
    asks: Arc<Semaphore>,
    events: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Limits {
    pub(super) fn new(metrics: &AdapterMetrics) -> Self {
        metrics.answers_pending_limit.set((ASKS_MAX + EVENTS_MAX + LOOKUPS_MAX) as i64);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            asks: semaphore(ASKS_MAX),
            events: semaphore(EVENTS_MAX),
            lookups: semaphore(LOOKUPS_MAX),
        }
    }
}

struct Asker {
    from: Option<String>,
    id: Option<String>,
}

/// A question that is worked on.
struct Working {
    _permit: OwnedSemaphorePermit,
    gauge: IntGauge,
}

impl Working {
    fn new(permit: OwnedSemaphorePermit, gauge: &IntGauge) -> Self {
        gauge.inc();
        Self { _permit: permit, gauge: gauge.clone() }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl<L: Local> Reply<L> {
    async fn answer_rooms(mut self) {
        let rooms = self.cluster.local.rooms(&self.namespace.name).await;
        self.give(&ResponseBody::Rooms(rooms));
    }

    async fn answer_sockets(mut self, selection: Selection) {
        let sockets = self.cluster.local.sockets(&self.namespace.name, &selection).await;
        self.give(&ResponseBody::Sockets(sockets));
    }

    async fn answer_ids(mut self, selection: Selection) {
        let sockets = self.cluster.local.sockets(&self.namespace.name, &selection).await;
        let ids: Vec<RoomName> = sockets.into_iter().map(|socket| socket.id).collect();
        self.give(&ResponseBody::SocketIds(ids));
    }

    async fn answer_server_event(mut self, event: EventData) {
        let answer = self.cluster.local.server_event(&self.namespace.name, event, true);
        if let Ok(answer) = tokio::time::timeout(TIMEOUT_MAX, answer).await {
            self.give(&ResponseBody::ServerEvent(answer));
        }
    }

    /// Passes on the acknowledgements as they come.
    async fn ask(mut self, selection: Selection, flags: Flags, data: EventData, timeout: Duration) {
        let cluster = Arc::clone(&self.cluster);
        let asked = cluster.local.ask(&self.namespace.name, &selection, flags, data, timeout);
        let mut asked = asked.await;
        self.give(&ResponseBody::ClientCount(asked.n_asked as u64));
        let passing_on = async {
            while let Some(answer) = asked.answers.next().await {
                self.give(&ResponseBody::Ack(answer));
            }
        };
        // The answers end by themselves; this is in case they do not.
        let _ = tokio::time::timeout(timeout + Duration::from_secs(1), passing_on).await;
    }

    /// Publishes an answer. One that cannot be is replaced by the empty one, so that who asks is not kept waiting;
    /// it cannot be split, and what is missing is told here only.
    fn give(&mut self, body: &ResponseBody) {
        let empty = self.owed.take();
        let result = self.publish(body);
        self.count(result);
        if matches!(result, "too_large" | "invalid") {
            tracing::warn!(
                event = "answer_refused",
                ns = &*self.namespace.name,
                reason = result,
                "an answer to another server could not be published: it got an empty one"
            );
            if let Some(empty) = empty {
                self.publish(&empty);
            }
        }
    }

    fn publish(&self, body: &ResponseBody) -> &'static str {
        let cluster = &self.cluster;
        let ns = &self.namespace.name;
        let Ok(payload) = cluster.dialect.encode_response(ns, &self.request_id, body) else {
            return "invalid";
        };
        if payload.len() > cluster.config.cluster_frame_max {
            return "too_large";
        }
        match cluster.bus.publish(self.channel.clone(), payload) {
            Ok(()) => "queued",
            Err(_) => "lost",
        }
    }

    fn count(&self, result: &str) {
        self.cluster.metrics.cluster_answers_total.with_label_values(&[result]).inc();
    }
}

impl<L: Local> Drop for Reply<L> {
    fn drop(&mut self) {
        if let Some(empty) = self.owed.take() {
            let is_done = matches!(empty, ResponseBody::Empty);
            let result = self.publish(&empty);
            self.count(if result == "queued" && !is_done { "refused" } else { result });
        }
    }
}
