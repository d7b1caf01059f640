//! The faults, as `F1` to `F17` of the fault matrix. Each scenario is a list of acts; the cluster is whole again
//! between them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use redis::cmd;
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::sleep;

use super::Adapter;
use super::history::{NodeIndex, Reach, SECOND};
use super::process::until;
use super::redis_fleet::Layout;
use super::world::{FLIGHT, Setup, World};

/// How long nodes may take until they are subscribed again, once Redis is back.
const RESUBSCRIBED: Duration = Duration::from_secs(2);

/// How long nodes may take to find a connection that is open and dead.
const HALF_OPEN_FOUND: Duration = Duration::from_secs(10);

/// An attempt to connect that began while nothing came through has to time out first.
const ATTEMPT: Duration = Duration::from_secs(1);

/// What a node that was killed had taken and not yet sent.
const IN_FLIGHT: Duration = Duration::from_millis(500);

/// A fault, or several of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Scenario {
    /// A node is killed.
    F1,
    /// A node drains.
    F2,
    /// A node is stopped for a while.
    F3,
    /// Redis shuts down and comes back.
    F4,
    /// Redis is stopped for a while.
    F5,
    /// The connections to Redis are open and dead.
    F6,
    /// Redis closes the subscribers' connections.
    F7,
    /// Redis closes all other connections.
    F8,
    /// Redis closes the connection of a subscriber that is too slow.
    F9,
    /// A node cannot reach Redis.
    F10,
    /// Clients cannot reach a node.
    F11,
    /// Redis is there, but refuses.
    F12,
    /// Sentinels replace a master that is gone, and one that is not.
    F13,
    /// The master becomes a replica, and nobody tells.
    F13B,
    /// Slots of a Redis Cluster move.
    F14,
    /// Redis takes its time.
    F15,
    /// All nodes are restarted, one after the other.
    F16,
    /// A Node.js server and two Carillon nodes, under F1, F4 and F7.
    F17,
}

impl Scenario {
    /// What `make test` runs.
    pub const SHORT: [Scenario; 5] =
        [Scenario::F1, Scenario::F7, Scenario::F8, Scenario::F4, Scenario::F17];

    /// What is done, for the table.
    pub fn summary(self) -> &'static str {
        match self {
            Scenario::F1 => "kill -9 a node",
            Scenario::F2 => "TERM: a node drains",
            Scenario::F3 => "STOP a node 5 s, 30 s",
            Scenario::F4 => "Redis SHUTDOWN 1 s, 5 s, 20 s",
            Scenario::F5 => "STOP Redis 3 s, 15 s",
            Scenario::F6 => "half-open connections to Redis",
            Scenario::F7 => "CLIENT KILL TYPE pubsub",
            Scenario::F8 => "CLIENT KILL TYPE normal",
            Scenario::F9 => "slow subscriber, output buffer limit 1 MB",
            Scenario::F10 => "a node cut off from Redis 12 s",
            Scenario::F11 => "a node cut off from its clients 16 s",
            Scenario::F12 => "NOAUTH, maxclients, LOADING on reconnect",
            Scenario::F13 => "Sentinel failover: kill -9 the master, SENTINEL FAILOVER",
            Scenario::F13B => "REPLICAOF demotes the master",
            Scenario::F14 => "slots move in a cluster of 3 masters (sharded)",
            Scenario::F15 => "Redis latency 50 ms, 500 ms",
            Scenario::F16 => "rolling restart of 3 nodes",
            Scenario::F17 => "1 Node.js and 2 Carillon: F1, F4, F7",
        }
    }

    /// The adapter it runs with: only sharded pub/sub has slots.
    pub fn adapter(self, adapter: Adapter) -> Adapter {
        if self == Scenario::F14 { Adapter::RedisSharded } else { adapter }
    }

    /// What it needs.
    pub fn setup(self, adapter: Adapter, sockets: u32) -> Setup {
        let layout = match self {
            Scenario::F13 => Layout::Sentinel,
            Scenario::F13B => Layout::Pair,
            Scenario::F14 => Layout::Cluster,
            _ => Layout::Single,
        };
        Setup {
            adapter,
            layout,
            has_emitters: layout == Layout::Single && adapter != Adapter::RedisSharded,
            sockets,
            node_js: (self == Scenario::F17).then_some(2),
            has_links: matches!(self, Scenario::F6 | Scenario::F10 | Scenario::F15),
            has_doors: self == Scenario::F11,
            // There and back, and what waits in between.
            flight: if self == Scenario::F15 { 4 * SECOND } else { FLIGHT },
        }
    }

    /// How many acts it has; the short ones come first.
    pub fn n_acts(self) -> usize {
        match self {
            Scenario::F3 | Scenario::F5 | Scenario::F13 | Scenario::F13B | Scenario::F15 => 2,
            Scenario::F4 | Scenario::F12 | Scenario::F17 => 3,
            _ => 1,
        }
    }

    /// Does one act, counted from 0.
    pub async fn act(self, world: &World, act: usize) -> Result<()> {
        let seconds = |choices: &[u64]| Duration::from_secs(choices[act % choices.len()]);
        match self {
            Scenario::F1 => crash(world, act % world.nodes.len()).await,
            Scenario::F2 => restart(world, act % world.nodes.len()).await,
            Scenario::F3 => stop_node(world, 0, seconds(&[5, 30])).await,
            Scenario::F4 => shut_down(world, seconds(&[1, 5, 20])).await,
            Scenario::F5 => stop_redis(world, seconds(&[3, 15])).await,
            Scenario::F6 => half_open(world).await,
            Scenario::F7 => client_kill(world, "pubsub").await,
            Scenario::F8 => client_kill(world, "normal").await,
            Scenario::F9 => slow_subscriber(world, 0).await,
            Scenario::F10 => cut_off_from_redis(world, 0).await,
            Scenario::F11 => cut_off_from_clients(world, 0).await,
            Scenario::F12 => match act % 3 {
                0 => refused(world, "requirepass", "secret", "").await,
                1 => refused(world, "maxclients", "1", "10000").await,
                _ => loading(world).await,
            },
            Scenario::F13 => failover(world, act.is_multiple_of(2)).await,
            Scenario::F13B => demotion(world).await,
            Scenario::F14 => migration(world).await,
            Scenario::F15 => {
                let delay = Duration::from_millis([50, 500][act % 2]);
                latency(world, delay).await
            }
            Scenario::F16 => rolling_restart(world).await,
            Scenario::F17 => match act % 3 {
                0 => client_kill(world, "pubsub").await,
                1 => shut_down(world, Duration::from_secs(1)).await,
                _ => crash(world, 0).await,
            },
        }
    }
}

async fn crash(world: &World, node: NodeIndex) -> Result<()> {
    let name = format!("kill -9 node {node}");
    let kill = async {
        world.nodes[node].kill();
        Ok(())
    };
    world.fault(&name, Reach::Nodes(vec![node]), IN_FLIGHT, kill).await?;
    // Its clients have to find another one.
    sleep(Duration::from_secs(3)).await;
    world.nodes[node].start().await
}

async fn restart(world: &World, node: NodeIndex) -> Result<()> {
    let name = format!("TERM node {node}");
    let drain = world.nodes[node].drain();
    world.fault(&name, Reach::Nothing, Duration::ZERO, drain).await?;
    world.nodes[node].start().await
}

async fn rolling_restart(world: &World) -> Result<()> {
    for node in 0..world.nodes.len() {
        restart(world, node).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn stop_node(world: &World, node: NodeIndex, length: Duration) -> Result<()> {
    let name = format!("STOP node {node} for {length:?}");
    let stop = async {
        world.nodes[node].signal(Signal::STOP)?;
        sleep(length).await;
        world.nodes[node].signal(Signal::CONT)
    };
    // A short stop delays and takes nothing.
    let is_short = length < Duration::from_secs(6);
    let reach = if is_short { Reach::Nothing } else { Reach::Nodes(vec![node]) };
    world.fault(&name, reach, RESUBSCRIBED, stop).await
}

async fn shut_down(world: &World, length: Duration) -> Result<()> {
    let name = format!("SHUTDOWN of Redis for {length:?}");
    let shut_down = async {
        world.redis.first.shut_down().await?;
        sleep(length).await;
        world.redis.first.start_again(&[]).await?;
        world.redis.first.answers().await
    };
    world.fault(&name, Reach::Redis, RESUBSCRIBED, shut_down).await
}

async fn stop_redis(world: &World, length: Duration) -> Result<()> {
    let name = format!("STOP Redis for {length:?}");
    let stop = async {
        world.redis.first.signal(Signal::STOP)?;
        sleep(length).await;
        world.redis.first.signal(Signal::CONT)
    };
    world.fault(&name, Reach::Redis, RESUBSCRIBED, stop).await
}

async fn half_open(world: &World) -> Result<()> {
    let before = reconnects(world).await?;
    let swallow = async {
        world.links.iter().for_each(super::proxy::Proxy::swallow);
        Ok(())
    };
    world.fault("half-open", Reach::Redis, HALF_OPEN_FOUND, swallow).await?;
    sleep(HALF_OPEN_FOUND).await;
    bitten(world, &before).await
}

async fn client_kill(world: &World, kind: &str) -> Result<()> {
    let before = reconnects(world).await?;
    let name = format!("CLIENT KILL TYPE {kind}");
    let kill = async {
        let killed: u64 =
            world.redis.first.ask(cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind)).await?;
        ensure!(killed >= 3, "only {killed} connections");
        Ok(())
    };
    world.fault(&name, Reach::Redis, RESUBSCRIBED, kill).await?;
    bitten(world, &before).await
}

async fn slow_subscriber(world: &World, node: NodeIndex) -> Result<()> {
    let before = reconnects(world).await?;
    let burst = async {
        let mut limit = cmd("CONFIG");
        limit.arg("SET").arg("client-output-buffer-limit").arg("pubsub 1mb 1mb 1");
        world.redis.first.ask::<()>(&limit).await?;
        world.nodes[node].signal(Signal::STOP)?;
        // More than the buffers of the kernel hold, slowly enough for the nodes that are awake.
        for _ in 0..40 {
            for _ in 0..8 {
                world.say(64 << 10);
            }
            sleep(Duration::from_millis(75)).await;
        }
        world.nodes[node].signal(Signal::CONT)
    };
    let reach = Reach::Links(vec![node]);
    world.fault("a burst of 20 MB past a node that sleeps", reach, RESUBSCRIBED, burst).await?;
    bitten(world, &before[..1]).await
}

async fn cut_off_from_redis(world: &World, node: NodeIndex) -> Result<()> {
    let cut = async {
        world.links[node].swallow_all();
        sleep(Duration::from_secs(12)).await;
        world.links[node].heal();
        Ok(())
    };
    let reach = Reach::Links(vec![node]);
    let name = format!("node {node} cut off from Redis");
    world.fault(&name, reach, RESUBSCRIBED + ATTEMPT, cut).await
}

async fn cut_off_from_clients(world: &World, node: NodeIndex) -> Result<()> {
    let cut = async {
        world.doors[node].swallow_all();
        sleep(Duration::from_secs(16)).await;
        world.doors[node].heal();
        Ok(())
    };
    let name = format!("node {node} cut off from its clients");
    world.fault(&name, Reach::Nodes(vec![node]), IN_FLIGHT, cut).await
}

/// Redis closes everything and lets nobody in for three seconds.
async fn refused(world: &World, setting: &str, wrong: &str, right: &str) -> Result<()> {
    let name = format!("{setting} {wrong}");
    let refuse = async {
        let client = redis::Client::open(world.redis.first.url())?;
        // This connection stays, so that it can undo what it does.
        let mut admin = client.get_multiplexed_async_connection().await?;
        let mut set = cmd("CONFIG");
        let () = set.arg("SET").arg(setting).arg(wrong).query_async(&mut admin).await?;
        for kind in ["normal", "pubsub"] {
            let mut kill = cmd("CLIENT");
            let _: u64 = kill.arg("KILL").arg("TYPE").arg(kind).query_async(&mut admin).await?;
        }
        sleep(Duration::from_secs(3)).await;
        let mut set = cmd("CONFIG");
        let () = set.arg("SET").arg(setting).arg(right).query_async(&mut admin).await?;
        Ok(())
    };
    world.fault(&name, Reach::Redis, RESUBSCRIBED, refuse).await
}

async fn loading(world: &World) -> Result<()> {
    let load = async {
        let fill = "for i = 1, 3000 do redis.call('SET', 'key:' .. i, i) end";
        world.redis.first.ask::<()>(cmd("EVAL").arg(fill).arg(0)).await?;
        world.redis.first.ask::<()>(&cmd("SAVE")).await?;
        world.redis.first.shut_down().await?;
        // A millisecond for each key, and clients are answered meanwhile.
        let slowly =
            ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
        world.redis.first.start_again(&slowly).await?;
        let ping = world.redis.first.ask::<String>(&cmd("PING")).await;
        let refusal = ping.err().context("Redis was not LOADING")?;
        ensure!(format!("{refusal:#}").contains("oading"), "{refusal:#}");
        world.redis.first.answers().await
    };
    world.fault("LOADING", Reach::Redis, RESUBSCRIBED, load).await
}

async fn failover(world: &World, is_crash: bool) -> Result<()> {
    let master = world.redis.master().await?;
    let name = if is_crash { "kill -9 the master" } else { "SENTINEL FAILOVER" };
    let replace = async {
        if is_crash {
            world.redis.server(master).kill();
        } else {
            world.redis.ask_for_failover().await?;
        }
        world.redis.elected(1 - master).await?;
        if is_crash {
            let port = world.redis.server(1 - master).port().to_string();
            let back = ["--replicaof", "127.0.0.1", &port];
            world.redis.server(master).start_again(&back).await?;
        }
        // Sentinels that are late may fail over once more.
        world.redis.replicating().await
    };
    // The Sentinels ask a master that works to be a replica some seconds later. Until then it is the nodes that have to
    // find out, by asking them.
    let grace = if is_crash { RESUBSCRIBED } else { HALF_OPEN_FOUND };
    world.fault(name, Reach::Redis, grace, replace).await
}

async fn demotion(world: &World) -> Result<()> {
    let master = world.redis.master().await?;
    let swap = world.redis.swap(1 - master);
    // Nobody closes anything: as with a connection that is open and dead, probes have to find it.
    let name = format!("server {master} becomes a replica");
    world.fault(&name, Reach::Redis, HALF_OPEN_FOUND, swap).await?;
    sleep(HALF_OPEN_FOUND).await;
    world.redis.replicating().await
}

async fn migration(world: &World) -> Result<()> {
    for channel in world.shard_channels() {
        let migrate = async {
            let owner = world.redis.migrate(&channel).await?;
            let mut counts = Vec::new();
            let is_followed = async || {
                counts = world.redis.shard_subscribers(&channel).await?;
                Ok((counts[owner] > 0).then_some(()))
            };
            let followed = until("somebody subscribes", RESUBSCRIBED * 2, is_followed).await;
            followed.with_context(|| format!("master {owner} owns it, subscribers: {counts:?}"))
        };
        let name = format!("the slot of {channel} moves");
        world.fault(&name, Reach::Redis, RESUBSCRIBED, migrate).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn latency(world: &World, delay: Duration) -> Result<()> {
    let name = format!("latency {delay:?}");
    let slow = async {
        world.links.iter().for_each(|link| link.delay(delay));
        sleep(Duration::from_secs(8)).await;
        world.links.iter().for_each(super::proxy::Proxy::heal);
        Ok(())
    };
    world.fault(&name, Reach::Nothing, Duration::ZERO, slow).await
}

/// How often each Carillon node has connected to Redis anew.
async fn reconnects(world: &World) -> Result<Vec<(NodeIndex, i64)>> {
    let mut counts = Vec::new();
    for index in 0..world.nodes.len() {
        if world.nodes[index].is_carillon() {
            counts.push((index, world.reconnects(index).await?));
        }
    }
    Ok(counts)
}

/// A fault that nobody noticed proves nothing.
async fn bitten(world: &World, before: &[(NodeIndex, i64)]) -> Result<()> {
    for &(node, count) in before {
        until(&format!("node {node} connects to Redis again"), HALF_OPEN_FOUND, async || {
            Ok((world.reconnects(node).await? > count).then_some(()))
        })
        .await?;
    }
    Ok(())
}
