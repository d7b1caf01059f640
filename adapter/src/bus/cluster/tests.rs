//! What happens to messages and channels when slots move, without a Redis.

use super::*;
use crate::{
    AdapterConfig, AdapterMetrics, RedisConfig,
    bus::{connector::Connector, health::Health, queries::Queries},
};
use prometheus::{IntGauge, Registry};

const SLOTS: u16 = 16_384;
const MIDDLE: u16 = SLOTS / 2;

/// Links to masters that nobody can reach.
struct Fixture {
    links: Arc<Links>,
    running: JoinSet<()>,
    metrics: AdapterMetrics,
}

/// Nobody listens there.
fn master(port: u16) -> Address {
    (String::from("127.0.0.1"), port)
}

/// The first master has the slots up to this one, the second has the others.
fn topology(up_to: u16) -> Topology {
    let mut topology = Topology::empty();
    for slot in 0..SLOTS {
        topology.set_owner(slot, &master(if slot < up_to { 1 } else { 2 }));
    }
    topology
}

impl Fixture {
    fn start() -> Self {
        let metrics = AdapterMetrics::register(&Registry::new()).expect("no name is taken");
        let config = AdapterConfig {
            redis: Some(RedisConfig::new("redis://127.0.0.1:1".into())),
            publish_timeout: Duration::from_secs(600),
            ..AdapterConfig::default()
        };
        let redis = config.redis.as_ref().expect("set above");
        let connector = Arc::new(Connector::new(redis, &config).expect("valid"));
        let shared = Shared {
            uid: String::from("uid"),
            kind: TopicKind::Shard,
            queries: Arc::new(Queries::new(Arc::clone(&connector))),
            connector,
            health: Arc::new(Health::new(metrics.redis_link_up.clone())),
            metrics: metrics.clone(),
            refresh: Arc::default(),
            config,
        };
        let links = Arc::new(Links::new(shared, String::from("own#")));
        let mut fixture = Self { links, running: JoinSet::new(), metrics };
        fixture.adopt(&topology(MIDDLE));
        fixture
    }

    fn adopt(&mut self, topology: &Topology) {
        self.links.adopt(topology, &mut self.running, &CancellationToken::new());
    }

    fn link(&self, port: u16) -> Arc<Link> {
        let state = self.links.state.read().expect("nobody panics");
        Arc::clone(&state.masters[&master(port)].link)
    }

    fn refused(&self) -> u64 {
        self.metrics.cluster_published_total.with_label_values(&["refused"]).get()
    }

    fn depth(&self) -> i64 {
        self.metrics.publish_queue_depth.get()
    }
}

/// A channel whose slot is one of these.
fn channel(slots: std::ops::Range<u16>) -> String {
    let mut names = (0..).map(|number| format!("channel{number}"));
    names.find(|name| slots.contains(&slot(name))).expect("there is one")
}

fn push(link: &Link, channel: &str, texts: &[&str]) {
    for text in texts {
        let payload = text.as_bytes().to_vec();
        link.publish_queue().push(channel.to_owned(), payload).expect("there is room");
    }
}

/// What waits, which is taken out.
fn waiting(link: &Link) -> Vec<String> {
    let frames = link.publish_queue().take_waiting(|_| true);
    frames.iter().map(|frame| String::from_utf8(frame.payload().to_vec()).expect("text")).collect()
}

#[tokio::test]
async fn what_waits_moves_with_the_slot_and_nothing_old_comes_behind_it() {
    let mut fixture = Fixture::start();
    let (from, to) = (fixture.link(1), fixture.link(2));
    let (moves, stays) = (channel(MIDDLE - 1_000..MIDDLE), channel(0..MIDDLE - 1_000));
    push(&from, &moves, &["under way"]);
    let under_way = from.publish_queue().take_waiting(|_| true);
    push(&from, &moves, &["1"]);
    push(&from, &stays, &["stays"]);
    push(&from, &moves, &["2"]);
    fixture.adopt(&topology(MIDDLE - 1_000));
    push(&to, &moves, &["3"]);
    // Only now the old master refuses it.
    let redirections = Redirections { links: Arc::clone(&fixture.links), from: Arc::clone(&from) };
    redirections.redirect(&master(2), under_way);
    assert_eq!(fixture.refused(), 1);
    assert_eq!(waiting(&to), ["1", "2", "3"]);
    assert_eq!(waiting(&from), ["stays"]);
    assert_eq!(fixture.depth(), 0);
}

#[tokio::test]
async fn what_is_refused_first_goes_before_what_waits() {
    let fixture = Fixture::start();
    let (from, to) = (fixture.link(1), fixture.link(2));
    let (moves, stays) = (channel(MIDDLE - 1_000..MIDDLE), channel(0..MIDDLE - 1_000));
    let depth = IntGauge::new("depth", "depth").expect("a valid name");
    let inbox = Arc::new(Inbox::new(&AdapterConfig::default(), depth));
    for name in [&moves, &stays] {
        fixture.links.open(Topic::shard(name.clone()), &inbox, None);
    }
    push(&from, &moves, &["refused"]);
    let refused = from.publish_queue().take_waiting(|_| true);
    push(&from, &moves, &["1"]);
    push(&from, &stays, &["stays"]);
    let redirections = Redirections { links: Arc::clone(&fixture.links), from: Arc::clone(&from) };
    redirections.redirect(&master(2), refused);
    assert_eq!(waiting(&to), ["refused", "1"]);
    assert_eq!(waiting(&from), ["stays"]);
    assert_eq!(fixture.refused(), 0);
    let is_at = |link: &Link, name: &str| {
        let frame = crate::bus::Frame { channel: name.into(), payload: Vec::new() };
        link.subscriptions().inboxes(TopicKind::Shard, name.as_bytes(), &frame).is_some()
    };
    assert!(is_at(&to, &moves) && !is_at(&from, &moves));
    assert!(is_at(&from, &stays) && !is_at(&to, &stays));
}

#[tokio::test]
async fn what_waits_for_a_master_that_is_gone_goes_to_its_successor() {
    let mut fixture = Fixture::start();
    let gone = fixture.link(1);
    let name = channel(0..MIDDLE);
    push(&gone, &name, &["1", "2"]);
    fixture.adopt(&topology(0));
    let successor = fixture.link(2);
    push(&successor, &name, &["3"]);
    assert_eq!(fixture.depth(), 3);
    assert_eq!(waiting(&successor), ["1", "2", "3"]);
    push(&successor, &name, &["4"]);
    // A slot that nobody has: it is counted, and not just forgotten.
    fixture.adopt(&{
        let mut topology = Topology::empty();
        (0..SLOTS).filter(|number| *number != slot(&name)).for_each(|slot| {
            topology.set_owner(slot, &master(2));
        });
        topology
    });
    assert_eq!(waiting(&successor), [""; 0]);
    assert_eq!((fixture.refused(), fixture.depth()), (1, 0));
}

#[tokio::test]
async fn probes_follow_when_only_a_master_has_named_another_for_their_channel() {
    let mut fixture = Fixture::start();
    let (from, to) = (fixture.link(1), fixture.link(2));
    let probed = from.probe_channel();
    push(&from, &probed, &["refused"]);
    let refused = from.publish_queue().take_waiting(|_| true);
    let redirections = Redirections { links: Arc::clone(&fixture.links), from: Arc::clone(&from) };
    redirections.redirect(&master(2), refused);
    assert_eq!(waiting(&to), ["refused"]);
    // All is already known when the slots are looked at.
    let known = fixture.links.state.read().expect("nobody panics").topology.clone();
    fixture.adopt(&known);
    let now = from.probe_channel();
    assert_ne!(now, probed);
    assert_eq!(known.owner(slot(&now)), Some(&master(1)));
    // Until the link has made the change, it is not forgotten.
    assert_eq!(from.probe_channel(), now);
}
