//! Sharded pub/sub on a Redis Cluster: one link for each master, and each channel at the master of its slot.
//!
//! Links fail alone: who loses one master still receives and publishes what belongs to the others. When slots move,
//! their channels move from link to link with everything that belongs to them.

use super::{
    backoff::FailureLog,
    error::LinkError,
    inbox::Inbox,
    link::{Link, Shared},
    publisher::{Outgoing, Redirect},
    subscriptions::Then,
    topic::{Topic, TopicKind},
    topology::{Address, Topology, slot},
};
use crate::LostReason;
use futures_util::future::join_all;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// The least time between two looks at the slots, however many channels turn out to have moved.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);
/// The time after which the slots are looked at without a reason.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// All links, and which channel goes over which.
pub(super) struct Links {
    shared: Shared,
    own_channel: String,
    state: RwLock<State>,
}

struct State {
    /// The only link; on a Redis Cluster the place of channels of which no master has the slot.
    first: Arc<Link>,
    topology: Topology,
    masters: HashMap<Address, Master>,
    /// The number of the newest link.
    newest: usize,
}

/// What becomes of messages that the master of one link did not take.
struct Redirections {
    links: Arc<Links>,
    from: Arc<Link>,
}

impl Redirect for Redirections {
    /// Nothing can overtake them: what waits for the same slots goes with them, and until that is done nothing
    /// else is published.
    fn redirect(&self, to: &Address, mut frames: Vec<Outgoing>) {
        let mut state = self.links.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(master) = state.masters.get(to) else {
            // Its link is made when the slots have been looked at.
            drop(state);
            return self.from.publish_queue().give_up(&frames);
        };
        let link = Arc::clone(&master.link);
        let slots: HashSet<u16> = frames.iter().map(|frame| slot(&frame.channel)).collect();
        for slot in &slots {
            state.topology.set_owner(*slot, to);
        }
        let then = state.settle(&[]);
        let queue = self.from.publish_queue();
        frames.extend(queue.take_waiting(|channel| slots.contains(&slot(channel))));
        link.publish_queue().push_redirected(frames);
        drop(state);
        then.into_iter().for_each(|then| then());
    }
}

struct Master {
    link: Arc<Link>,
    end: CancellationToken,
}

impl State {
    fn home(&self, channel: &str) -> &Arc<Link> {
        if self.masters.is_empty() {
            return &self.first;
        }
        let master = self.topology.owner(slot(channel)).and_then(|owner| self.masters.get(owner));
        master.map_or(&self.first, |master| &master.link)
    }

    /// Moves each channel to where it belongs, and gives who is not to wait for it any more.
    fn settle(&self, gone: &[Master]) -> Vec<Then> {
        let mut then = Vec::new();
        for link in gone.iter().map(|master| &master.link).chain(self.links()) {
            let is_home = |name: &str| Arc::ptr_eq(self.home(name), link);
            for (topic, moved) in link.subscriptions().give_away(is_home) {
                let home = self.home(&topic.name).subscriptions();
                then.append(&mut home.take_over(topic, moved));
            }
            link.subscriptions().retry();
        }
        then
    }

    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.masters.values().map(|master| &master.link).chain([&self.first])
    }
}

impl Links {
    pub(super) fn new(shared: Shared, own_channel: String) -> Self {
        let state = State {
            first: Arc::new(Link::new(0, None, &shared, &own_channel)),
            topology: Topology::empty(),
            masters: HashMap::new(),
            newest: 0,
        };
        Self { shared, own_channel, state: RwLock::new(state) }
    }

    /// The only link, until it finds a Redis Cluster.
    pub(super) fn first(&self) -> Arc<Link> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).first)
    }

    pub(super) fn open(&self, topic: Topic, inbox: &Arc<Inbox>, then: Option<Then>) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let now = state.home(&topic.name).subscriptions().open(topic, inbox, then);
        drop(state);
        if let Some(then) = now {
            then();
        }
    }

    pub(super) fn close(&self, kind: TopicKind, name: &str) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let then = state.home(name).subscriptions().close(kind, name);
        drop(state);
        then.into_iter().for_each(|then| then());
    }

    pub(super) fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.home(&channel).publish(channel, payload)
    }

    pub(super) async fn flushed(&self) {
        let links: Vec<_> = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.links().cloned().collect()
        };
        for link in links {
            link.flushed().await;
        }
    }

    /// Keeps a link to each master until the shutdown.
    pub(super) async fn run(self: &Arc<Self>, shutdown: &CancellationToken) {
        let mut running = JoinSet::new();
        let mut log = FailureLog::default();
        let mut turn = 0;
        loop {
            let found = shutdown.run_until_cancelled(self.discover(turn)).await;
            match found {
                None => break,
                Some(Ok(topology)) => {
                    log = FailureLog::default();
                    self.adopt(&topology, &mut running, shutdown);
                }
                Some(Err(failure)) => log.failed(&failure),
            }
            turn += 1;
            let pause = async {
                time::sleep(REFRESH_PAUSE).await;
                let refresh = self.shared.refresh.notified();
                let _ = time::timeout(REFRESH_INTERVAL, refresh).await;
            };
            if shutdown.run_until_cancelled(pause).await.is_none() {
                break;
            }
            // Those that were told to end are not waited for, only forgotten.
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
    }

    /// Finds out who has which slot: from one master, another each time, and then from all that it names.
    async fn discover(&self, turn: usize) -> Result<Topology, LinkError> {
        let connector = &self.shared.connector;
        let before = self.state.read().unwrap_or_else(PoisonError::into_inner).topology.clone();
        let known = before.masters();
        let mut failure = LinkError::TopologyUnknown;
        // The configured servers come last: the connector tries one after the other by itself.
        for step in 0..=known.len() {
            let client = if step < known.len() {
                let (host, port) = &known[(turn + step) % known.len()];
                connector.at(host, *port)?
            } else {
                connector.next().await?
            };
            let first = match connector.topology(&client).await {
                Ok(first) => first,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let mut asked = Vec::new();
            for address in first.masters() {
                asked.push(self.view_of(address.clone()));
            }
            let views: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
            let topology = first.agree(&views, &before);
            connector.learn(&topology)?;
            return Ok(topology);
        }
        Err(failure)
    }

    /// What a master says, if it answers.
    async fn view_of(&self, address: Address) -> Option<(Address, Topology)> {
        let client = self.shared.connector.at(&address.0, address.1).ok()?;
        let view = self.shared.connector.topology(&client).await.ok()?;
        Some((address, view))
    }

    /// Makes and ends links, and moves channels to where they belong now.
    fn adopt(
        self: &Arc<Self>,
        topology: &Topology,
        running: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.topology == *topology && !state.masters.is_empty() {
            // What was refused may be accepted now.
            state.links().for_each(|link| link.subscriptions().retry());
            return;
        }
        for address in topology.masters() {
            if !state.masters.contains_key(address) {
                self.start(&mut state, topology, address, running, shutdown);
            }
        }
        let gone: Vec<_> = state
            .masters
            .extract_if(|address, _| !topology.masters().contains(address))
            .map(|(_, master)| master)
            .collect();
        state.topology = topology.clone();
        let then = state.settle(&gone);
        for (address, master) in &state.masters {
            let is_there = topology.owner(slot(&master.link.probe_channel())) == Some(address);
            if !is_there && let Some(channel) = topology.channel_of(address, &self.own_channel) {
                master.link.set_probe_channel(channel);
            }
        }
        drop(state);
        for master in gone {
            master.end.cancel();
            self.shared.health.forget(master.link.number());
        }
        if topology.is_complete() {
            self.shared.health.forget(0);
        } else {
            self.shared.health.expect(0);
        }
        then.into_iter().for_each(|then| then());
    }

    /// Makes a link to a master.
    fn start(
        self: &Arc<Self>,
        state: &mut State,
        topology: &Topology,
        address: &Address,
        running: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let client = self.shared.connector.at(&address.0, address.1);
        let channel = topology.channel_of(address, &self.own_channel);
        let (Ok(client), Some(channel)) = (client, channel) else { return };
        state.newest += 1;
        let link = Arc::new(Link::new(state.newest, Some(client), &self.shared, &channel));
        let end = shutdown.child_token();
        let redirections = Redirections { links: Arc::clone(self), from: Arc::clone(&link) };
        let until = end.clone();
        running.spawn(async move {
            let _ = redirections.from.run(&until, &redirections).await;
        });
        state.masters.insert(address.clone(), Master { link, end });
    }
}
