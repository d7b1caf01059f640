//! The Redis of a scenario: one server, a master with a replica, the same with Sentinels, or a Redis Cluster.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::cmd;

use super::process::until;
use super::redis_server::{RedisServer, free_port};

/// How long servers may take to find each other, or to agree.
const PATIENCE: Duration = Duration::from_secs(20);

/// What Sentinels call the master.
const MASTER_NAME: &str = "bells";

/// Hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// How many masters a Redis Cluster has here.
const MASTERS: usize = 3;

/// Which servers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One.
    Single,
    /// A master and a replica.
    Pair,
    /// The same, and three Sentinels.
    Sentinel,
    /// Three masters of a Redis Cluster.
    Cluster,
}

/// The servers.
pub struct RedisFleet {
    layout: Layout,
    /// The master at the beginning; of a cluster, the first one.
    pub first: RedisServer,
    others: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    /// Slots that have another owner than at the beginning.
    moved: RefCell<HashMap<usize, usize>>,
}

impl RedisFleet {
    /// Starts the servers and waits until they know each other.
    pub async fn start(layout: Layout, folder: &Path) -> Result<RedisFleet> {
        let mut fleet = RedisFleet {
            layout,
            first: start_server(layout, folder, "redis").await?,
            others: Vec::new(),
            sentinels: Vec::new(),
            moved: RefCell::default(),
        };
        match layout {
            Layout::Single => {}
            Layout::Pair => fleet.add_replica(folder).await?,
            Layout::Sentinel => {
                fleet.add_replica(folder).await?;
                fleet.add_sentinels(folder).await?;
            }
            Layout::Cluster => {
                for index in 1..MASTERS {
                    let name = format!("redis-{index}");
                    fleet.others.push(start_server(layout, folder, &name).await?);
                }
                fleet.meet().await?;
            }
        }
        Ok(fleet)
    }

    async fn add_replica(&mut self, folder: &Path) -> Result<()> {
        let replica = start_server(self.layout, folder, "redis-1").await?;
        replica.ask::<()>(&replica_of(&self.first)).await?;
        self.others.push(replica);
        self.replicating().await
    }

    /// Waits until one is the master and the other has a link to it.
    pub async fn replicating(&self) -> Result<()> {
        until("the replica follows", PATIENCE, async || {
            let mut infos = Vec::new();
            for index in 0..2 {
                let mut question = cmd("INFO");
                question.arg("replication");
                let asking = self.server(index).ask::<String>(&question);
                infos.push(asking.await.unwrap_or_default());
            }
            let any = |text: &str| infos.iter().any(|info| info.contains(text));
            Ok((any("role:master") && any("master_link_status:up")).then_some(()))
        })
        .await
    }

    async fn add_sentinels(&mut self, folder: &Path) -> Result<()> {
        let port = self.first.port();
        let monitor = format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {port} 2");
        let down = format!("sentinel down-after-milliseconds {MASTER_NAME} 1000");
        let failover = format!("sentinel failover-timeout {MASTER_NAME} 5000");
        for index in 0..3 {
            let name = format!("sentinel-{index}");
            let lines = [monitor.as_str(), &down, &failover];
            self.sentinels.push(RedisServer::start_sentinel(folder, &name, &lines).await?);
        }
        for sentinel in &self.sentinels {
            until("the Sentinels know each other", PATIENCE, async || {
                let master: HashMap<String, String> =
                    sentinel.ask(cmd("SENTINEL").arg("MASTER").arg(MASTER_NAME)).await?;
                let is = |key: &str, value: &str| master.get(key).is_some_and(|it| it == value);
                Ok((is("num-slaves", "1") && is("num-other-sentinels", "2")).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    async fn meet(&self) -> Result<()> {
        for index in 0..MASTERS {
            let slots = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS - 1);
            let mut add = cmd("CLUSTER");
            add.arg("ADDSLOTSRANGE").arg(slots.0).arg(slots.1);
            self.server(index).ask::<()>(&add).await?;
            // Each owns something else, so that none has to give way.
            self.server(index)
                .ask::<()>(cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(index + 1))
                .await?;
        }
        for other in &self.others {
            let info: String = other
                .ask(cmd("CONFIG").arg("GET").arg("cluster-port"))
                .await
                .map(|pair: (String, String)| pair.1)?;
            let mut meet = cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(other.port()).arg(info);
            self.first.ask::<()>(&meet).await?;
        }
        for index in 0..MASTERS {
            until("the cluster is whole", PATIENCE, async || {
                let info: String = self.server(index).ask(cmd("CLUSTER").arg("INFO")).await?;
                let is_whole =
                    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3");
                Ok(is_whole.then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// What nodes are told about where Redis is.
    pub fn url(&self) -> String {
        if self.layout == Layout::Sentinel {
            let hosts: Vec<String> =
                self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
            return format!("redis+sentinel://{}/{MASTER_NAME}", hosts.join(","));
        }
        let servers = std::iter::once(&self.first).chain(&self.others);
        servers.map(RedisServer::url).collect::<Vec<_>>().join(",")
    }

    /// A server by its place.
    pub fn server(&self, index: usize) -> &RedisServer {
        if index == 0 { &self.first } else { &self.others[index - 1] }
    }

    /// Which of the two is the master, as the first Sentinel says, or the servers where there is none.
    pub async fn master(&self) -> Result<usize> {
        for (index, server) in [(0, &self.first), (1, &self.others[0])] {
            let info: String = server.ask(cmd("INFO").arg("replication")).await?;
            if info.contains("role:master") {
                return Ok(index);
            }
        }
        anyhow::bail!("there is no master")
    }

    /// Has the Sentinels replace a master that works.
    pub async fn ask_for_failover(&self) -> Result<()> {
        self.sentinels[0].ask(cmd("SENTINEL").arg("FAILOVER").arg(MASTER_NAME)).await
    }

    /// Waits until every Sentinel names this master, and it is one.
    pub async fn elected(&self, master: usize) -> Result<()> {
        let server = self.server(master);
        for sentinel in &self.sentinels {
            until("the Sentinels agree on the new master", PATIENCE, async || {
                let mut question = cmd("SENTINEL");
                question.arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER_NAME);
                let (_, port): (String, u16) = sentinel.ask(&question).await?;
                Ok((port == server.port()).then_some(()))
            })
            .await?;
        }
        let info: String = server.ask(cmd("INFO").arg("replication")).await?;
        ensure!(info.contains("role:master"), "the new master is none");
        Ok(())
    }

    /// Makes one the master of the other, behind everybody's back.
    pub async fn swap(&self, master: usize) -> Result<()> {
        self.server(master).ask::<()>(cmd("REPLICAOF").arg("NO").arg("ONE")).await?;
        self.server(1 - master).ask::<()>(&replica_of(self.server(master))).await
    }

    /// Moves the slot of a channel to the next master of the cluster; gives that one's place.
    pub async fn migrate(&self, channel: &str) -> Result<usize> {
        let slot: usize = self.first.ask(cmd("CLUSTER").arg("KEYSLOT").arg(channel)).await?;
        let from = self.owner(slot);
        let to = (from + 1) % MASTERS;
        let id = async |index: usize| -> Result<String> {
            self.server(index).ask(cmd("CLUSTER").arg("MYID")).await
        };
        let (from_id, to_id) = (id(from).await?, id(to).await?);
        let set = |state: &str, id: &str| {
            let mut set = cmd("CLUSTER");
            set.arg("SETSLOT").arg(slot).arg(state).arg(id);
            set
        };
        self.server(to).ask::<()>(&set("IMPORTING", &from_id)).await?;
        self.server(from).ask::<()>(&set("MIGRATING", &to_id)).await?;
        // The new owner first: then it is never owned by nobody.
        for index in [to, from, 3 - from - to] {
            self.server(index)
                .ask::<()>(&set("NODE", &to_id))
                .await
                .with_context(|| format!("give slot {slot} to master {to}"))?;
        }
        self.moved.borrow_mut().insert(slot, to);
        Ok(to)
    }

    /// How many subscribers a channel of sharded pub/sub has at each master.
    pub async fn shard_subscribers(&self, channel: &str) -> Result<Vec<usize>> {
        let mut counts = Vec::new();
        for index in 0..MASTERS {
            let mut count = cmd("PUBSUB");
            count.arg("SHARDNUMSUB").arg(channel);
            let (_, n_subscribers): (String, usize) = self.server(index).ask(&count).await?;
            counts.push(n_subscribers);
        }
        Ok(counts)
    }

    fn owner(&self, slot: usize) -> usize {
        let moved = self.moved.borrow().get(&slot).copied();
        let first = |index: usize| index * SLOTS / MASTERS;
        moved.unwrap_or_else(|| (0..MASTERS).rfind(|index| first(*index) <= slot).unwrap_or(0))
    }
}

fn replica_of(master: &RedisServer) -> redis::Cmd {
    let mut command = cmd("REPLICAOF");
    command.arg("127.0.0.1").arg(master.port());
    command
}

async fn start_server(layout: Layout, folder: &Path, name: &str) -> Result<RedisServer> {
    if layout != Layout::Cluster {
        // Without the pause in which a master waits for more replicas.
        return RedisServer::start(folder, name, &["--repl-diskless-sync-delay", "0"]).await;
    }
    let port = free_port()?.to_string();
    let arguments = [
        ["--cluster-enabled", "yes"],
        ["--cluster-config-file", "nodes.conf"],
        ["--cluster-node-timeout", "2000"],
        ["--cluster-port", &port],
    ];
    RedisServer::start(folder, name, arguments.as_flattened()).await
}
