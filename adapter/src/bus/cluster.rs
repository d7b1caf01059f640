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
    topology::{Address, Topology, View, slot},
};
use crate::LostReason;
use futures_util::future::join_all;
use redis::Client;
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
    fn redirect(&self, to: &Address, frames: Vec<Outgoing>) {
        let mut state = self.links.state.write().unwrap_or_else(PoisonError::into_inner);
        let then = state.redirect(&self.from, to, frames);
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
        self.home_of(slot(channel))
    }

    fn home_of(&self, slot: u16) -> &Arc<Link> {
        let master = self.topology.owner(slot).and_then(|owner| self.masters.get(owner));
        master.map_or(&self.first, |master| &master.link)
    }

    /// Moves the slots of messages that a link's master did not take to the one that it named, with everything
    /// that belongs to them. Gives who is not to wait any more.
    fn redirect(&mut self, from: &Arc<Link>, to: &Address, frames: Vec<Outgoing>) -> Vec<Then> {
        let Some(master) = self.masters.get(to) else {
            // Its link is made when the slots have been looked at.
            from.publish_queue().give_up(&frames);
            return Vec::new();
        };
        let link = Arc::clone(&master.link);
        // Where a slot has moved meanwhile, newer messages may be on their way already.
        let (mut frames, late): (Vec<_>, Vec<_>) =
            frames.into_iter().partition(|frame| Arc::ptr_eq(self.home(&frame.channel), from));
        from.publish_queue().give_up(&late);
        let slots: HashSet<u16> = frames.iter().map(|frame| slot(&frame.channel)).collect();
        for slot in &slots {
            self.topology.set_owner(*slot, to);
        }
        let mut then = Vec::new();
        if !slots.is_empty() && !Arc::ptr_eq(&link, from) {
            for (topic, moved) in from.subscriptions().give_away(|slot| !slots.contains(&slot)) {
                then.append(&mut link.subscriptions().take_over(topic, moved));
            }
        }
        let waiting = from.publish_queue();
        frames.extend(waiting.take_waiting(|channel| slots.contains(&slot(channel))));
        link.publish_queue().push_redirected(frames);
        then
    }

    /// Moves each channel to where it belongs, and each message that waits, before another can be published
    /// there. Gives who is not to wait any more.
    fn settle(&self, gone: &[Master]) -> Vec<Then> {
        let mut then = Vec::new();
        for link in gone.iter().map(|master| &master.link).chain(self.links()) {
            let is_home = |slot| Arc::ptr_eq(self.home_of(slot), link);
            for (topic, moved) in link.subscriptions().give_away(is_home) {
                let home = self.home(&topic.name).subscriptions();
                then.append(&mut home.take_over(topic, moved));
            }
            link.subscriptions().retry();
            let mut moved: Vec<(&Arc<Link>, Vec<Outgoing>)> = Vec::new();
            for frame in link.publish_queue().take_waiting(|channel| !is_home(slot(channel))) {
                let home = self.home(&frame.channel);
                match moved.iter_mut().find(|(link, _)| Arc::ptr_eq(link, home)) {
                    Some((_, frames)) => frames.push(frame),
                    None => moved.push((home, vec![frame])),
                }
            }
            for (home, frames) in moved {
                // Nothing goes out where nobody has the slot.
                if Arc::ptr_eq(home, &self.first) {
                    link.publish_queue().give_up(&frames);
                } else {
                    home.publish_queue().push_redirected(frames);
                }
            }
        }
        then
    }

    /// Lets the probes of each master go where they come back: over a channel that it has.
    fn place_probes(&self, own_channel: &str) {
        for (address, master) in &self.masters {
            let topology = &self.topology;
            let is_there = topology.owner(slot(&master.link.probe_channel())) == Some(address);
            if !is_there && let Some(channel) = topology.channel_of(address, own_channel) {
                master.link.set_probe_channel(channel);
            }
        }
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

    #[must_use = "what is returned is to be called"]
    pub(super) fn close(&self, kind: TopicKind, name: &str, inbox: &Arc<Inbox>) -> Vec<Then> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.home(name).subscriptions().close(kind, name, inbox)
    }

    /// Whether a topic is received.
    pub(super) fn is_held(&self, topic: &Topic) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.home(&topic.name).subscriptions().is_held(topic.kind, &topic.name)
    }

    pub(super) fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), LostReason> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.home(&channel).publish(channel, payload)
    }

    /// The master of a Redis Cluster that has the slot of a channel, if it is known.
    pub(super) fn master_of(&self, channel: &str) -> Option<Client> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.home(channel).server().cloned()
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
    pub(super) async fn discover(&self, turn: usize) -> Result<Topology, LinkError> {
        let connector = &self.shared.connector;
        let before = self.state.read().unwrap_or_else(PoisonError::into_inner).topology.clone();
        let known = before.masters();
        let mut failure = LinkError::TopologyUnknown;
        let mut doubtful = None;
        // The configured servers come last: the connector tries one after the other by itself.
        for step in 0..=known.len() {
            let client = if step < known.len() {
                let (host, port) = &known[(turn + step) % known.len()];
                connector.at(host, *port)?
            } else {
                connector.next().await?
            };
            match connector.topology(&client).await {
                Ok(View { topology, is_ok: true }) => return self.agreed(topology, &before).await,
                // Maybe only this one is cut off from the others.
                Ok(View { topology, is_ok: false }) => doubtful = doubtful.or(Some(topology)),
                Err(error) => failure = error,
            }
        }
        match doubtful {
            Some(topology) => self.agreed(topology, &before).await,
            None => Err(failure),
        }
    }

    /// Who has which slot, as all masters say that one of them names.
    async fn agreed(&self, first: Topology, before: &Topology) -> Result<Topology, LinkError> {
        let mut asked = Vec::new();
        for address in first.masters() {
            asked.push(self.view_of(address.clone()));
        }
        let views: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let topology = first.agree(&views, before);
        self.shared.connector.learn(&topology)?;
        Ok(topology)
    }

    /// What a master says, if it answers and the cluster works for it. One that is cut off from the others
    /// claims its slots still when they have long been given to its replica.
    async fn view_of(&self, address: Address) -> Option<(Address, Topology)> {
        let client = self.shared.connector.at(&address.0, address.1).ok()?;
        let view = self.shared.connector.topology(&client).await.ok()?;
        view.is_ok.then_some((address, view.topology))
    }

    /// Makes and ends links, and moves channels to where they belong now.
    pub(super) fn adopt(
        self: &Arc<Self>,
        topology: &Topology,
        running: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.topology == *topology && !state.masters.is_empty() {
            // What was refused may be accepted now. And a master may have named another one for the slot of
            // its own probes, which is all that made these slots known.
            state.links().for_each(|link| link.subscriptions().retry());
            state.place_probes(&self.own_channel);
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
        state.place_probes(&self.own_channel);
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

#[cfg(test)]
mod tests;
