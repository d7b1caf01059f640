//! The connection that receives.

use super::{
    connector::{Connector, Opened},
    error::LinkError,
    inbox::{Frame, Inbox},
    probe::Probe,
    subscriptions::{Changes, Subscriptions},
    topic::{Names, TopicKind},
};
use crate::{AdapterConfig, AdapterMetrics, wire::channel::escape_glob};
use futures_util::future::try_join_all;
use prometheus::IntCounter;
use redis::{Client, PushInfo, PushKind, Value, aio::MultiplexedConnection};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many topics go into one command, or one pipeline where each needs a command of its own.
const TOPICS_PER_COMMAND: usize = 256;
/// How many commands may be under way: enough to make the round trip not matter.
const COMMANDS_UNDER_WAY: usize = 8;

/// What comes in over one link.
pub(super) struct Receiver {
    pub(super) subscriptions: Subscriptions,
    pub(super) probe: Probe,
    /// To be told when Redis ends a subscription by itself: the slot of the channel has another owner then.
    refresh: Arc<Notify>,
    frame_max: usize,
    overflow: IntCounter,
    too_large: IntCounter,
    foreign: IntCounter,
}

/// A connection that receives. Nothing is sent over it but what begins and ends subscriptions.
pub(super) struct Receiving {
    connection: MultiplexedConnection,
    pub(super) is_cluster: bool,
    lost: CancellationToken,
    /// Whether messages of this connection still count. Its task may be in the middle of one when the
    /// connection is given up, and a later one may bring the same message again.
    counts: Arc<AtomicBool>,
}

/// What Redis did not accept.
#[derive(Default)]
pub(super) struct Refusals {
    /// The user may not have these.
    pub(super) not_permitted: Vec<(TopicKind, Arc<str>, LinkError)>,
    /// Another master has these channels of sharded pub/sub, or soon will.
    pub(super) misplaced: Vec<Arc<str>>,
}

impl Refusals {
    fn have(&self, name: &Arc<str>) -> bool {
        self.misplaced.contains(name)
            || self.not_permitted.iter().any(|(_, refused, _)| refused == name)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.counts.store(false, Ordering::Release);
    }
}

impl Receiver {
    pub(super) fn new(
        probe: Probe,
        refresh: Arc<Notify>,
        config: &AdapterConfig,
        metrics: &AdapterMetrics,
    ) -> Self {
        let received = |result| metrics.cluster_received_total.with_label_values(&[result]);
        Self {
            subscriptions: Subscriptions::default(),
            probe,
            refresh,
            frame_max: config.cluster_frame_max,
            overflow: received("overflow"),
            too_large: received("too_large"),
            foreign: received("foreign"),
        }
    }

    /// Called by the task that reads the connection: must not wait, or Redis counts us as slow and hangs up.
    fn on_push(&self, push: PushInfo) {
        use PushKind::{
            Message, PMessage, PSubscribe, PUnsubscribe, SMessage, SSubscribe, SUnsubscribe,
            Subscribe, Unsubscribe,
        };
        use TopicKind::{Channel, Pattern, Shard};
        let mut data = push.data.into_iter().map(|value| match value {
            Value::BulkString(bytes) => bytes,
            _ => Vec::new(),
        });
        let mut next = || data.next().unwrap_or_default();
        match push.kind {
            PMessage => {
                let pattern = next();
                self.message(Pattern, Some(&pattern), Frame { channel: next(), payload: next() });
            }
            Message => self.message(Channel, None, Frame { channel: next(), payload: next() }),
            SMessage => self.message(Shard, None, Frame { channel: next(), payload: next() }),
            Subscribe => self.confirmed(Channel, &next()),
            PSubscribe => self.confirmed(Pattern, &next()),
            SSubscribe => self.confirmed(Shard, &next()),
            Unsubscribe => self.ended(Channel, &next()),
            PUnsubscribe => self.ended(Pattern, &next()),
            SUnsubscribe => self.ended(Shard, &next()),
            _ => {}
        }
    }

    fn message(&self, kind: TopicKind, pattern: Option<&[u8]>, frame: Frame) {
        if self.probe.is_channel(kind, &frame.channel) {
            return self.probe.arrived(&frame.payload);
        }
        let topic = pattern.unwrap_or(&frame.channel);
        let Some(inboxes) = self.subscriptions.inboxes(kind, topic, &frame) else {
            self.foreign.inc();
            return;
        };
        // Nearly always there is one, and nothing is copied.
        let mut left = inboxes.iter().peekable();
        while let Some(inbox) = left.next() {
            if left.peek().is_none() {
                return self.deliver(inbox, frame);
            }
            let (channel, payload) = (frame.channel.clone(), frame.payload.clone());
            self.deliver(inbox, Frame { channel, payload });
        }
    }

    fn deliver(&self, inbox: &Inbox, frame: Frame) {
        if frame.payload.len() > self.frame_max {
            self.too_large.inc();
            inbox.lose(frame.channel);
        } else if !inbox.push(frame) {
            self.overflow.inc();
        }
    }

    fn confirmed(&self, kind: TopicKind, name: &[u8]) {
        if let Ok(name) = str::from_utf8(name) {
            self.subscriptions.held(kind, name);
        }
    }

    fn ended(&self, kind: TopicKind, name: &[u8]) {
        let Ok(name) = str::from_utf8(name) else { return };
        let is_probe = self.probe.is_channel(kind, name.as_bytes());
        if self.subscriptions.ended(kind, name) || is_probe {
            self.refresh.notify_one();
        }
    }
}

impl Receiving {
    /// Opens a connection whose messages go to the inboxes.
    pub(super) async fn open(
        receiver: &Arc<Receiver>,
        connector: &Connector,
        client: &Client,
    ) -> Result<Self, LinkError> {
        let lost = CancellationToken::new();
        let counts = Arc::new(AtomicBool::new(true));
        let on_push = {
            let (receiver, lost, counts) =
                (Arc::clone(receiver), lost.clone(), Arc::clone(&counts));
            Box::new(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    lost.cancel();
                } else if counts.load(Ordering::Acquire) {
                    receiver.on_push(push);
                }
            })
        };
        let Opened { connection, is_cluster } = connector.open(client, Some(on_push)).await?;
        Ok(Self { connection, is_cluster, lost, counts })
    }

    /// Cancelled when the connection has ended.
    pub(super) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// The connection itself, for as long as it holds no subscription.
    pub(super) fn unsubscribed(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }

    /// Subscribes to the channel of the probes.
    pub(super) async fn subscribe_probe(
        &self,
        kind: TopicKind,
        channel: &str,
    ) -> Result<(), LinkError> {
        self.subscribe_one(kind, channel).await
    }

    /// Ends the subscription to a former channel of the probes.
    pub(super) async fn unsubscribe_probe(
        &self,
        kind: TopicKind,
        channel: &str,
    ) -> Result<(), LinkError> {
        let name = kind.unsubscribe();
        let result = redis::cmd(name).arg(channel).query_async(&mut self.connection.clone()).await;
        result.map(|_: Value| ()).map_err(|error| LinkError::of_channel(name, channel, error))
    }

    /// Sends what has changed and waits until Redis has confirmed each.
    pub(super) async fn apply(
        &self,
        receiver: &Receiver,
        changes: &Changes,
    ) -> Result<Refusals, LinkError> {
        let mut refusals = Refusals::default();
        self.unsubscribe(&changes.unsubscribe).await?;
        self.subscribe(receiver, &changes.subscribe, &mut refusals).await?;
        self.subscribe(receiver, &changes.count, &mut refusals).await?;
        for channel in &changes.stand_in {
            let pattern = escape_glob(channel);
            self.subscribe_one(TopicKind::Pattern, &pattern).await?;
            receiver.subscriptions.held_by_pattern(channel);
        }
        for channel in &changes.count_again {
            self.subscribe_one(TopicKind::Channel, channel).await?;
            // From the confirmation on, what comes by the pattern is not taken, so nothing comes twice.
            let pattern = escape_glob(channel);
            let ended = self.connection.clone().punsubscribe(pattern.as_str()).await;
            ended.map_err(|error| LinkError::of_channel("PUNSUBSCRIBE", &pattern, error))?;
        }
        Ok(refusals)
    }

    async fn subscribe(
        &self,
        receiver: &Receiver,
        names: &Names,
        refusals: &mut Refusals,
    ) -> Result<(), LinkError> {
        for (kind, names) in names.iter() {
            let is_refused = self.send(kind, kind.subscribe(), names).await?;
            if !is_refused && kind != TopicKind::Shard {
                continue;
            }
            for name in receiver.subscriptions.not_held(kind, names) {
                match self.subscribe_one(kind, &name).await {
                    Ok(()) => {}
                    Err(error @ LinkError::NotPermitted { .. }) => {
                        refusals.not_permitted.push((kind, name, error));
                    }
                    Err(error) if error.is_redirection() => refusals.misplaced.push(name),
                    Err(error) => return Err(error),
                }
            }
            // Where Redis ended another subscription meanwhile, that was taken for the answer to one of these.
            for name in receiver.subscriptions.not_held(kind, names) {
                if !refusals.have(&name) {
                    receiver.subscriptions.again(kind, &name);
                }
            }
        }
        Ok(())
    }

    async fn unsubscribe(&self, names: &Names) -> Result<(), LinkError> {
        for (kind, names) in names.iter() {
            // Where a channel has moved away, its subscription has ended already.
            let _: bool = self.send(kind, kind.unsubscribe(), names).await?;
        }
        Ok(())
    }

    /// Sends all in chunks, and says whether something was refused. Redis does not tell which topic it
    /// refuses.
    async fn send(
        &self,
        kind: TopicKind,
        command: &'static str,
        names: &[Arc<str>],
    ) -> Result<bool, LinkError> {
        let mut is_refused = false;
        for group in names.chunks(TOPICS_PER_COMMAND * COMMANDS_UNDER_WAY) {
            let mut sent = Vec::new();
            for chunk in group.chunks(TOPICS_PER_COMMAND) {
                sent.push(self.send_chunk(kind, command, chunk));
            }
            is_refused |= try_join_all(sent).await?.contains(&true);
        }
        Ok(is_refused)
    }

    /// Sends one command, or one for each channel of sharded pub/sub: those of one command must have the same
    /// slot. Says whether something was refused.
    async fn send_chunk(
        &self,
        kind: TopicKind,
        command: &'static str,
        names: &[Arc<str>],
    ) -> Result<bool, LinkError> {
        let mut connection = self.connection.clone();
        let texts: Vec<&str> = names.iter().map(|name| &**name).collect();
        let is_begin = command == kind.subscribe();
        let result = match kind {
            TopicKind::Channel if is_begin => connection.subscribe(texts).await,
            TopicKind::Channel => connection.unsubscribe(texts).await,
            TopicKind::Pattern if is_begin => connection.psubscribe(texts).await,
            TopicKind::Pattern => connection.punsubscribe(texts).await,
            TopicKind::Shard => {
                let mut pipeline = redis::Pipeline::with_capacity(names.len());
                for name in texts {
                    pipeline.cmd(command).arg(name);
                }
                let sent = connection.send_packed_commands(&pipeline, 0, names.len()).await;
                let answers =
                    sent.map_err(|error| LinkError::of_channel(command, &names[0], error))?;
                return Ok(answers.iter().any(|answer| matches!(answer, Value::ServerError(_))));
            }
        };
        match result {
            Ok(()) => Ok(false),
            Err(error) if LinkError::is_permission(&error) => Ok(true),
            Err(error) => Err(LinkError::of_channel(command, &names[0], error)),
        }
    }

    async fn subscribe_one(&self, kind: TopicKind, name: &str) -> Result<(), LinkError> {
        let mut connection = self.connection.clone();
        let command = kind.subscribe();
        let result = match kind {
            TopicKind::Channel => connection.subscribe(name).await,
            TopicKind::Pattern => connection.psubscribe(name).await,
            TopicKind::Shard => {
                let subscribe = redis::cmd(command).arg(name).to_owned();
                subscribe.query_async(&mut connection).await.map(|_: Value| ())
            }
        };
        result.map_err(|error| LinkError::of_channel(command, name, error))
    }
}
