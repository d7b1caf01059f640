//! The bus against real Redis processes, without an adapter on top.

#[expect(dead_code, reason = "the tests of the adapter need more of it")]
#[path = "../../tests/it/chaos_proxy.rs"]
mod chaos_proxy;
mod cluster;
mod ghost;
#[path = "../../tests/it/redis_server.rs"]
mod redis_server;
mod sentinel;
mod standalone;

use super::{Bus, Inbox, Item, Then, Topic, TopicKind};
use crate::{
    AdapterConfig, AdapterMetrics, LinkState, LostReason, Mode, RedisConfig, wire::channel,
};
use prometheus::{IntGauge, Registry};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: did not come"))
}

/// Looks again and again at something outside of this process until it is as it should be.
async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, looking).await;
}

/// Settings with short times, so that faults are found soon.
fn config(mode: Mode, url: &str) -> AdapterConfig {
    AdapterConfig {
        mode,
        redis: Some(RedisConfig::new(url.into())),
        probe_interval: Duration::from_millis(500),
        publish_timeout: Duration::from_secs(1),
        ..AdapterConfig::default()
    }
}

/// A bus that is yet to be run.
fn bus(config: &AdapterConfig, uid: &str) -> (Bus, AdapterMetrics) {
    let metrics = AdapterMetrics::register(&Registry::new()).expect("no name is taken");
    let own = channel::own(&config.key);
    (Bus::new(config, uid, own, &metrics).expect("valid"), metrics)
}

/// What came out of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Message(String, String),
    Gap,
}

/// A node that is nothing but a bus. Ends when it is dropped.
struct Peer {
    bus: Arc<Bus>,
    inbox: Arc<Inbox>,
    heard: watch::Sender<Vec<Heard>>,
    metrics: AdapterMetrics,
    _running: JoinSet<()>,
}

impl Peer {
    async fn start(mode: Mode, url: &str) -> Self {
        let peer = Self::launch(&config(mode, url));
        peer.up().await;
        peer
    }

    fn launch(config: &AdapterConfig) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let uid = format!("peer{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (bus, metrics) = bus(config, &uid);
        let bus = Arc::new(bus);
        let depth = IntGauge::new("depth", "depth").expect("a valid name");
        let inbox = Arc::new(Inbox::new(config, depth));
        let heard = watch::Sender::new(Vec::new());
        let mut running = JoinSet::new();
        let runs = Arc::clone(&bus);
        running.spawn(async move { runs.run(&CancellationToken::new()).await });
        let (consumed, hears) = (Arc::clone(&inbox), heard.clone());
        running.spawn(async move {
            while let Some(item) = consumed.next().await {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("only text is sent");
                let item = match item {
                    Item::Frame(frame) => Heard::Message(text(frame.channel), text(frame.payload)),
                    Item::Losses(_) => Heard::Gap,
                };
                hears.send_modify(|heard| heard.push(item));
            }
        });
        Self { bus, inbox, heard, metrics, _running: running }
    }

    async fn link_is(&self, state: LinkState) {
        let mut changes = self.bus.link().subscribe();
        let what = format!("link {state:?}");
        soon(&what, changes.wait_for(|link| *link == state)).await.expect("the bus lives");
    }

    async fn up(&self) {
        self.link_is(LinkState::Up).await;
    }

    /// Opens topics and waits until Redis has confirmed the last of them.
    async fn open(&self, topics: &[Topic]) {
        self.bus.open(topics, &self.inbox);
        for topic in topics {
            soon("a confirmation", self.followed(topic)).await;
        }
    }

    fn close(&self, topics: &[Topic]) {
        self.bus.close(topics, &self.inbox).into_iter().for_each(|then| then());
    }

    /// Comes when Redis has confirmed the topic.
    fn followed(&self, topic: &Topic) -> impl Future<Output = ()> + use<> {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let then: Then = Box::new(move || _ = done.send(()));
        self.bus.follow(topic.clone(), &self.inbox, then);
        async move { is_done.await.expect("it is called, and not just dropped") }
    }

    fn publish(&self, channel: &str, text: &str) -> Result<(), LostReason> {
        self.bus.publish(channel.to_owned(), text.as_bytes().to_vec())
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.borrow().clone()
    }

    fn n_gaps(&self) -> usize {
        self.heard().iter().filter(|heard| **heard == Heard::Gap).count()
    }

    async fn heard_when(&self, what: &str, is_enough: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
        let mut heard = self.heard.subscribe();
        let result = tokio::time::timeout(PATIENCE, heard.wait_for(|heard| is_enough(heard))).await;
        match result {
            Ok(heard) => heard.expect("the peer lives").clone(),
            Err(_) => panic!("{what}: did not come; {} heard", self.heard().len()),
        }
    }

    async fn hears(&self, channel: &str, text: &str) {
        let expected = Heard::Message(channel.to_owned(), text.to_owned());
        self.heard_when(text, |heard| heard.contains(&expected)).await;
    }

    /// How often a message came.
    fn times(&self, channel: &str, text: &str) -> usize {
        let expected = Heard::Message(channel.to_owned(), text.to_owned());
        self.heard().iter().filter(|heard| **heard == expected).count()
    }
}
