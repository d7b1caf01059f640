//! The cluster of one scenario and everybody in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::checker::{self, Clause};
use super::emitter::Emitter;
use super::harness::Harness;
use super::history::{Fault, Gauge, NodeIndex, Reach, SECOND, Target, Time};
use super::member::{Command, Member};
use super::node::{Node, Recipe};
use super::process::until;
use super::proxy::Proxy;
use super::redis_fleet::{Layout, RedisFleet};
use super::transport::Transport;
use super::{Adapter, Places, message};

/// Rooms by their size: one with everybody in it, some with a third, the others with a few.
const ROOM_OF_ALL: u16 = 0;
const ROOMS_MEDIUM: std::ops::Range<u16> = 1..4;
const ROOMS_SMALL: std::ops::Range<u16> = 4..12;

/// A socket is in every small room with this probability.
const SMALL_SHARE: f64 = 0.04;

/// The first clients publish; they are of every kind and on every node.
const SPEAKERS: std::ops::Range<usize> = 0..6;

/// Clients, one for each node, that are told who comes and goes.
const WATCHERS: std::ops::Range<usize> = 3..6;

/// Between two turns of the load. One publication goes to about 20 sockets.
const TURN: Duration = Duration::from_millis(45);

/// How long everybody may take to connect to a cluster that works.
const CONNECT_PATIENCE: Duration = Duration::from_secs(40);

/// When a node gives up a silent client: the ping interval and timeout of `chaos.toml`, and a little more.
const PING_PATIENCE: Duration = Duration::from_secs(14);

/// How long the last messages may take.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What a scenario needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How nodes talk to each other.
    pub adapter: Adapter,
    /// How many clients.
    pub sockets: u32,
    /// Which of the three servers is a Node.js server.
    pub node_js: Option<NodeIndex>,
    /// Which Redis servers there are.
    pub layout: Layout,
    /// Whether there are emitters; they know one Redis, and classic pub/sub.
    pub has_emitters: bool,
    /// Whether each node reaches Redis through a proxy.
    pub has_links: bool,
    /// Whether clients reach each node through a proxy.
    pub has_doors: bool,
    /// How long a publication may take, once accepted.
    pub flight: Time,
}

/// A running cluster under load.
pub struct World {
    /// Clock, dice, history.
    pub harness: Rc<Harness>,
    /// The servers.
    pub nodes: Vec<Node>,
    /// What is between them.
    pub redis: RedisFleet,
    /// Between each node and Redis, if the scenario asked for it.
    pub links: Vec<Proxy>,
    /// Between clients and each node, if the scenario asked for it.
    pub doors: Vec<Proxy>,
    /// Those who publish without being a client.
    pub emitters: Vec<Emitter>,
    members: Vec<Rc<Member>>,
    lives: JoinSet<()>,
}

impl World {
    /// Starts everything and waits until everybody is connected.
    pub async fn start(setup: &Setup, seed: u64, places: &Places, folder: &Path) -> Result<World> {
        let harness = Harness::new(seed, setup.flight);
        let redis = RedisFleet::start(setup.layout, folder).await?;
        let mut world = World {
            harness,
            nodes: Vec::new(),
            redis,
            links: Vec::new(),
            doors: Vec::new(),
            emitters: Vec::new(),
            members: Vec::new(),
            lives: JoinSet::new(),
        };
        for index in 0..3 {
            world.add_node(index, setup, places, folder).await?;
        }
        if setup.has_emitters {
            for index in 0..2 {
                let script = places.scripts.join("chaos-emitter.mjs");
                let url = world.redis.first.url();
                let name = format!("emitter-{index}");
                let emitter = Emitter::start(&world.harness, &script, &url, folder, &name).await?;
                world.emitters.push(emitter);
            }
        }
        world.populate(setup.sockets);
        until("everybody is connected", CONNECT_PATIENCE, async || {
            world.check()?;
            Ok(world.members.iter().all(|member| member.is_settled()).then_some(()))
        })
        .await?;
        Ok(world)
    }

    async fn add_node(
        &mut self,
        index: NodeIndex,
        setup: &Setup,
        places: &Places,
        folder: &Path,
    ) -> Result<()> {
        let mut redis = self.redis.url();
        if setup.has_links {
            let target = SocketAddr::from(([127, 0, 0, 1], self.redis.first.port()));
            let link = Proxy::to(target).await?;
            redis = format!("redis://{}", link.address());
            self.links.push(link);
        }
        let is_carillon = setup.node_js != Some(index);
        let text = |path: &PathBuf| path.display().to_string();
        let (program, variables) = if is_carillon {
            let mut variables = vec![("CARILLON_REDIS".to_owned(), redis)];
            variables.extend(setup.adapter.variables());
            let mut program =
                vec![text(&places.binary), "--config".to_owned(), text(&places.rules)];
            program.extend(["--internal-listen", "127.0.0.1:0"].map(str::to_owned));
            (program, variables)
        } else {
            let script = places.scripts.join("chaos-server.mjs");
            let adapter = setup.adapter.name().to_owned();
            let variables = vec![("REDIS".to_owned(), redis), ("ADAPTER".to_owned(), adapter)];
            (vec!["node".to_owned(), text(&script)], variables)
        };
        let name = format!("node-{index}");
        let folder = folder.to_owned();
        let node = Node::new(Recipe { program, is_carillon, variables, folder, name });
        node.start().await?;
        let mut entrance = node.address();
        if setup.has_doors {
            let door = Proxy::to(entrance).await?;
            entrance = door.address();
            self.doors.push(door);
        }
        self.harness.entrances.borrow_mut().push(entrance);
        self.nodes.push(node);
        Ok(())
    }

    fn populate(&mut self, sockets: u32) {
        for index in 0..sockets {
            // A tenth stays with polling, a fifth begins with it.
            let transport = match index % 10 {
                0 => Transport::Polling,
                1 | 2 => Transport::Upgrade,
                _ => Transport::WebSocket,
            };
            let home = index as usize % self.nodes.len();
            let watches = WATCHERS.contains(&(index as usize));
            let (member, commands) = Member::new(index, transport, home, watches);
            let mut random = self.harness.random.borrow_mut();
            let mut rooms = vec![ROOM_OF_ALL, random.random_range(ROOMS_MEDIUM)];
            rooms.extend(ROOMS_SMALL.filter(|_| random.random_bool(SMALL_SHARE)));
            drop(random);
            let life = member.clone().live(self.harness.clone(), rooms, commands);
            self.lives.spawn_local(life);
            self.members.push(member);
        }
    }

    /// Fails if something has ended that should not have.
    pub fn check(&self) -> Result<()> {
        for node in &self.nodes {
            node.check()?;
        }
        for emitter in &self.emitters {
            emitter.check()?;
        }
        let trouble = self.harness.trouble.borrow();
        ensure!(trouble.is_none(), "{}", trouble.as_deref().unwrap_or_default());
        Ok(())
    }

    /// Publishes, joins and leaves until told to stop.
    pub async fn load(&self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            self.turn();
            sleep(TURN).await;
        }
    }

    fn turn(&self) {
        let mut random = self.harness.random.borrow_mut();
        let target = match random.random_range(0..100) {
            0..2 => Target::Everyone,
            2..4 => Target::Rooms(vec![ROOM_OF_ALL]),
            4..12 => {
                let (medium, small) =
                    (random.random_range(ROOMS_MEDIUM), random.random_range(ROOMS_SMALL));
                Target::Rooms(vec![medium, small])
            }
            12..30 => Target::Rooms(vec![random.random_range(ROOMS_MEDIUM)]),
            _ => Target::Rooms(vec![random.random_range(ROOMS_SMALL)]),
        };
        // Order shows where messages are close together.
        let burst = if random.random_bool(0.15) { 5 } else { 1 };
        let padding = random.random_range(0..300);
        let speaker = random.random_range(0..SPEAKERS.len() + self.emitters.len());
        let change = random.random_bool(0.3).then(|| {
            (self.members.choose(&mut *random), Command::Toggle(random.random_range(ROOMS_SMALL)))
        });
        drop(random);
        for _ in 0..burst {
            match self.emitters.get(speaker) {
                Some(emitter) => emitter.emit(&target, padding),
                None => {
                    let speaker = &self.members[speaker - self.emitters.len()];
                    speaker.tell(Command::Say(target.clone(), padding));
                }
            }
        }
        if let Some((Some(member), command)) = change {
            member.tell(command);
        }
    }

    /// Makes a fault, and writes down when it was and what it may take.
    pub async fn fault(
        &self,
        name: &str,
        reach: Reach,
        grace: Duration,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let began = self.harness.now();
        let grace = u64::try_from(grace.as_micros())?;
        let fault = Fault { name: name.to_owned(), reach, began, healed: Time::MAX, grace };
        let index = {
            let mut history = self.harness.history.borrow_mut();
            history.faults.push(fault);
            history.faults.len() - 1
        };
        work.await.with_context(|| name.to_owned())?;
        self.harness.history.borrow_mut().faults[index].healed = self.harness.now();
        Ok(())
    }

    /// Waits until what was published when all was well has come, or for as long as it may take.
    pub async fn last_messages(&self) {
        let is_complete = async || {
            let history = self.harness.history.borrow();
            // As long as one is not accepted, nobody is owed it.
            let from = history.quiesce.0;
            let is_open =
                history.publications.iter().any(|it| it.sent >= from && it.accepted.is_none());
            let is_missing = || {
                let verdict = checker::check(&history);
                verdict.violations.iter().any(|violation| violation.clause == Clause::G6)
            };
            Ok((!is_open && !is_missing()).then_some(()))
        };
        // What is missing then is told by the checker.
        let _ = until("the last messages", LAST_PATIENCE, is_complete).await;
    }

    /// Reads what the nodes show of themselves, next to what is true.
    pub async fn gauges(&self) -> Result<()> {
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_carillon()) {
            self.gauge(index, "carillon_sockets", node.metric("carillon_sockets").await?)?;
            // A handshake that a client has given up while the node was stopped or cut off is a session until its ping
            // timeout; no socket comes of it.
            let mut shown = 0;
            let is_true = async || {
                shown = node.metric("carillon_sessions").await?;
                Ok((shown == self.n_open(index)?).then_some(()))
            };
            // A difference is told by the checker.
            let _ = until("the sessions", PING_PATIENCE, is_true).await;
            self.gauge(index, "carillon_sessions", shown)?;
        }
        Ok(())
    }

    fn gauge(&self, node: NodeIndex, metric: &str, shown: i64) -> Result<()> {
        let name = format!("{metric} of node {node}");
        let gauge = Gauge { name, shown, counted: self.n_open(node)? };
        self.harness.history.borrow_mut().gauges.push(gauge);
        Ok(())
    }

    /// How many sessions the clients have with a node.
    fn n_open(&self, node: NodeIndex) -> Result<i64> {
        let history = self.harness.history.borrow();
        let mine = history.sessions.iter().filter(|session| session.node == node);
        Ok(i64::try_from(mine.filter(|session| session.closed.is_none()).count())?)
    }

    /// How often a node has built its connections to Redis anew.
    pub async fn reconnects(&self, node: NodeIndex) -> Result<i64> {
        self.nodes[node].metric("carillon_redis_reconnects_total").await
    }

    /// A random time, for a scenario's own use.
    pub fn some_time(&self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.harness.random.borrow_mut().random_range(millis))
    }

    /// Publishes to a small room, not through the first node.
    pub fn say(&self, padding: usize) {
        let target = Target::Rooms(vec![ROOMS_SMALL.start]);
        match self.emitters.first() {
            Some(emitter) => emitter.emit(&target, padding),
            None => self.members[1].tell(Command::Say(target, padding)),
        }
    }

    /// The channels of sharded pub/sub: of the namespace, of the room with everybody, and of one of each other kind.
    pub fn shard_channels(&self) -> Vec<String> {
        let rooms = [ROOM_OF_ALL, ROOMS_MEDIUM.start, ROOMS_SMALL.start];
        let room = |room: u16| format!("socket.io#/#{}#", message::room(room));
        std::iter::once("socket.io#/#".to_owned()).chain(rooms.map(room)).collect()
    }
}

/// The default of [`Setup::flight`].
pub const FLIGHT: Time = SECOND;
