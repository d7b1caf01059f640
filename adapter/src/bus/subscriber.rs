//! Receives, and keeps Redis informed of what is to be received.

use super::{
    inbox::{Frame, Inbox},
    probe::Probe,
    redis::{Connector, LinkError},
};
use crate::{AdapterConfig, AdapterMetrics};
use prometheus::IntCounter;
use redis::{Client, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many patterns go into one command.
const PATTERNS_PER_COMMAND: usize = 256;

/// Knows which inbox a message goes to.
pub(super) struct Subscriber {
    routes: RwLock<HashMap<Vec<u8>, Arc<Inbox>>>,
    changed: Notify,
    probe: Arc<Probe>,
    frame_max: usize,
    overflow: IntCounter,
    too_large: IntCounter,
    foreign: IntCounter,
}

/// A connection that receives.
pub(super) struct Receiving {
    connection: MultiplexedConnection,
    lost: CancellationToken,
    /// Whether messages of this connection still count. Its task may be in the middle of one when the
    /// connection is given up, and a later one may bring the same message again.
    counts: Arc<AtomicBool>,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.counts.store(false, Ordering::Release);
    }
}

impl Subscriber {
    pub(super) fn new(probe: Arc<Probe>, config: &AdapterConfig, metrics: &AdapterMetrics) -> Self {
        let received = |result| metrics.cluster_received_total.with_label_values(&[result]);
        Self {
            routes: RwLock::default(),
            changed: Notify::new(),
            probe,
            frame_max: config.cluster_frame_max,
            overflow: received("overflow"),
            too_large: received("too_large"),
            foreign: received("foreign"),
        }
    }

    pub(super) fn open(&self, patterns: Vec<String>, inbox: &Arc<Inbox>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        for pattern in patterns {
            routes.insert(pattern.into_bytes(), Arc::clone(inbox));
        }
        drop(routes);
        self.changed.notify_one();
    }

    pub(super) fn close(&self, patterns: &[String]) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        for pattern in patterns {
            routes.remove(pattern.as_bytes());
        }
        drop(routes);
        self.changed.notify_one();
    }

    /// The patterns that should be subscribed to.
    pub(super) fn wanted(&self) -> BTreeSet<String> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.keys().map(|pattern| String::from_utf8_lossy(pattern).into_owned()).collect()
    }

    /// Tells every inbox that the link was lost. Called when it is back: by then it is certain that
    /// something may be missing, and who reconnects for it misses nothing more.
    pub(super) fn link_was_lost(&self) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut told = HashSet::new();
        for inbox in routes.values() {
            // An inbox has several patterns, but is to be told once.
            if told.insert(Arc::as_ptr(inbox)) {
                inbox.lose_link();
            }
        }
    }

    /// Opens a connection whose messages go to the inboxes.
    pub(super) async fn connect(
        self: &Arc<Self>,
        connector: &Connector,
        client: &Client,
    ) -> Result<Receiving, LinkError> {
        let lost = CancellationToken::new();
        let counts = Arc::new(AtomicBool::new(true));
        let on_push = {
            let (subscriber, lost, counts) = (Arc::clone(self), lost.clone(), Arc::clone(&counts));
            Box::new(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    lost.cancel();
                } else if counts.load(Ordering::Acquire) {
                    subscriber.on_push(push);
                }
            })
        };
        let connection = connector.open(client, Some(on_push)).await?;
        Ok(Receiving { connection, lost, counts })
    }

    /// Called by the task that reads the connection: must not wait, or Redis counts us as slow and hangs up.
    fn on_push(&self, push: PushInfo) {
        let mut data = push.data.into_iter().map(|value| match value {
            Value::BulkString(bytes) => bytes,
            _ => Vec::new(),
        });
        match (push.kind, data.next(), data.next(), data.next()) {
            (PushKind::PMessage, Some(pattern), Some(channel), Some(payload)) => {
                self.route(&pattern, Frame { channel, payload });
            }
            (PushKind::Message, Some(channel), Some(payload), None)
                if channel == self.probe.channel().as_bytes() =>
            {
                self.probe.arrived(&payload);
            }
            // Confirmations come here too; they are awaited where the command is sent.
            _ => {}
        }
    }

    /// The pattern and not the channel decides where a message goes: a message that matches several patterns
    /// comes once for each.
    fn route(&self, pattern: &[u8], frame: Frame) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(inbox) = routes.get(pattern) else {
            self.foreign.inc();
            return;
        };
        if frame.payload.len() > self.frame_max {
            self.too_large.inc();
            inbox.lose(frame.channel);
        } else if !inbox.push(frame) {
            self.overflow.inc();
        }
    }

    /// Follows the changes of what is wanted, until Redis does not answer.
    pub(super) async fn keep_subscribed(
        &self,
        receiving: &mut Receiving,
        confirmed: &mut BTreeSet<String>,
    ) -> Result<Infallible, LinkError> {
        loop {
            let wanted = self.wanted();
            let gone: BTreeSet<_> = confirmed.difference(&wanted).cloned().collect();
            receiving.unsubscribe(&gone).await?;
            confirmed.retain(|pattern| !gone.contains(pattern));
            for pattern in wanted.difference(confirmed).cloned().collect::<Vec<_>>() {
                self.subscribe_late(receiving, &pattern).await?;
                confirmed.insert(pattern);
            }
            self.changed.notified().await;
        }
    }

    /// Subscribes for a namespace that was opened while the link is up. Clients may be able to open one, so
    /// a missing grant for it must not take the link from all others: it stays without messages.
    async fn subscribe_late(
        &self,
        receiving: &mut Receiving,
        pattern: &str,
    ) -> Result<(), LinkError> {
        match receiving.subscribe(&BTreeSet::from([pattern.to_owned()])).await {
            Err(error @ LinkError::NotPermitted { .. }) => {
                tracing::error!(event = "subscribe_refused", %error, "a namespace is alone");
                self.close(&[pattern.to_owned()]);
                Ok(())
            }
            result => result,
        }
    }
}

impl Receiving {
    /// Cancelled when the connection has ended.
    pub(super) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    pub(super) async fn subscribe_channel(&mut self, channel: &str) -> Result<(), LinkError> {
        let subscribed = self.connection.subscribe(channel).await;
        subscribed.map_err(|error| LinkError::of_channel("SUBSCRIBE", channel, error))
    }

    /// Subscribes to patterns and waits until Redis has confirmed each.
    pub(super) async fn subscribe(&mut self, patterns: &BTreeSet<String>) -> Result<(), LinkError> {
        let patterns: Vec<_> = patterns.iter().collect();
        for chunk in patterns.chunks(PATTERNS_PER_COMMAND) {
            match self.connection.psubscribe(chunk).await {
                Ok(()) => {}
                // Redis does not tell which pattern it refused.
                Err(error) if LinkError::is_permission(&error) => {
                    for pattern in chunk {
                        let subscribed = self.connection.psubscribe(pattern.as_str()).await;
                        subscribed
                            .map_err(|error| LinkError::of_channel("PSUBSCRIBE", pattern, error))?;
                    }
                }
                Err(error) => return Err(LinkError::of_channel("PSUBSCRIBE", chunk[0], error)),
            }
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, patterns: &BTreeSet<String>) -> Result<(), LinkError> {
        let patterns: Vec<_> = patterns.iter().collect();
        for chunk in patterns.chunks(PATTERNS_PER_COMMAND) {
            let unsubscribed: RedisResult<()> = self.connection.punsubscribe(chunk).await;
            unsubscribed.map_err(|error| LinkError::of_channel("PUNSUBSCRIBE", chunk[0], error))?;
        }
        Ok(())
    }
}
