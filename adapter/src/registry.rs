//! The registry of live nodes.
//!
//! Each node keeps one key that expires, named by its tag, and its tag in an index, so that nobody has to look
//! through all keys of a Redis that holds other things too. The keys are the truth; the index only says where to
//! look. It also is how two nodes find out that they drew the same tag.

use crate::{
    AdapterConfig, AdapterMetrics, LinkState, Local, NodeDescription,
    bus::{Queries, QueryError},
};
use prometheus::IntCounter;
use protocol::id::NodeTag;
use redis::Cmd;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// How long a node is listed after its last sign of life.
const EXPIRY: Duration = Duration::from_secs(15);
/// Two signs may get lost.
const REFRESH: Duration = Duration::from_secs(5);
/// How long a node stays in the index. Longer than its key lives, because clocks of nodes differ.
const INDEX_EXPIRY: Duration = Duration::from_secs(120);
/// How many tags are tried in a row.
const CLAIMS_MAX: usize = 8;

/// Writes the record of a node unless it is the record of another one. One step, because a node that was held up
/// for longer than its key lives would otherwise write over who has taken the tag meanwhile.
const KEEP: &str = r"
    local held = redis.call('GET', KEYS[1])
    if held then
        local is_json, holder = pcall(cjson.decode, held)
        if not is_json or type(holder) ~= 'table' or holder.id ~= ARGV[1] then return 0 end
    end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
";
/// Removes the record of a node, but not that of another one.
const REMOVE: &str = r"
    local held = redis.call('GET', KEYS[1])
    if not held then return 0 end
    local is_json, holder = pcall(cjson.decode, held)
    if not is_json or type(holder) ~= 'table' or holder.id ~= ARGV[1] then return 0 end
    return redis.call('DEL', KEYS[1])
";

/// What a live node tells about itself, under `<key>-carillon:node:<tag>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Random for each start of a node.
    pub id: String,
    /// What the ids of its sockets begin with.
    pub tag: String,
    /// What kind of program it is.
    pub kind: String,
    /// The version of the program.
    pub version: String,
    /// Where other nodes reach it.
    pub address: Option<String>,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// How many sockets it has.
    pub n_sockets: usize,
}

/// What does not change in a node's record.
pub(crate) struct Identity {
    id: String,
    node: NodeDescription,
    started_ms: u64,
}

impl Identity {
    pub(crate) fn new(config: &AdapterConfig, id: String) -> Option<Self> {
        let node = config.node.clone()?;
        Some(Self { id, node, started_ms: now_ms() })
    }

    pub(crate) fn record(&self, tag: NodeTag, n_sockets: usize) -> NodeRecord {
        NodeRecord {
            id: self.id.clone(),
            tag: tag.as_str().to_owned(),
            kind: self.node.kind.clone(),
            version: self.node.version.clone(),
            address: self.node.address.clone(),
            started_ms: self.started_ms,
            n_sockets,
        }
    }
}

/// Keeps this node listed.
pub(crate) struct Registry {
    identity: Identity,
    key: String,
    collisions: IntCounter,
}

/// What came of an attempt to list this node under its tag.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    Listed,
    /// Another node is listed under it.
    Taken,
}

impl Registry {
    pub(crate) fn new(config: &AdapterConfig, id: &str, metrics: &AdapterMetrics) -> Option<Self> {
        Some(Self {
            identity: Identity::new(config, id.to_owned())?,
            key: config.key.clone(),
            collisions: metrics.tag_collisions_total.clone(),
        })
    }

    /// Keeps this node listed until the shutdown, and takes it off the list then. `retagged` is called when the
    /// node has taken another tag.
    pub(crate) async fn keep<L: Local>(
        &self,
        local: &L,
        queries: &Queries,
        mut link: watch::Receiver<LinkState>,
        retagged: impl Fn(),
        shutdown: &CancellationToken,
    ) {
        let keeping = async {
            let mut rival_since = None;
            let mut is_told = false;
            loop {
                // The sender lives as long as the bus, which outlives this.
                let _ = link.wait_for(|link| *link == LinkState::Up).await;
                match self.list(local, queries, &retagged).await {
                    Ok(Claim::Listed) => (rival_since, is_told) = (None, false),
                    Ok(Claim::Taken) => {
                        let since = *rival_since.get_or_insert_with(Instant::now);
                        // What a node left behind that was killed is gone by then.
                        if since.elapsed() > EXPIRY && !is_told {
                            is_told = true;
                            tracing::error!(
                                event = "tag_collision",
                                tag = local.tag().as_ref().map(NodeTag::as_str),
                                "another node has the tag of this one, which cannot change it any more"
                            );
                        }
                    }
                    Err(error) => {
                        tracing::debug!(event = "registry_failed", %error, "the node was not listed");
                    }
                }
                sleep(REFRESH).await;
            }
        };
        let _: Option<std::convert::Infallible> = shutdown.run_until_cancelled(keeping).await;
        if let Some(tag) = local.tag()
            && let Err(error) = self.remove(tag, queries).await
        {
            tracing::debug!(event = "registry_failed", %error, "the node stays listed until it expires");
        }
    }

    async fn list<L: Local>(
        &self,
        local: &L,
        queries: &Queries,
        retagged: &impl Fn(),
    ) -> Result<Claim, QueryError> {
        for _ in 0..CLAIMS_MAX {
            let Some(tag) = local.tag() else { return Ok(Claim::Listed) };
            if self.claim(tag, local.n_sockets(), queries).await? == Claim::Listed {
                return Ok(Claim::Listed);
            }
            self.collisions.inc();
            if !local.change_tag() {
                return Ok(Claim::Taken);
            }
            tracing::info!(
                event = "tag_changed",
                tag = local.tag().as_ref().map(NodeTag::as_str),
                "another node has the same tag: took another one"
            );
            retagged();
        }
        Ok(Claim::Taken)
    }

    async fn claim(
        &self,
        tag: NodeTag,
        n_sockets: usize,
        queries: &Queries,
    ) -> Result<Claim, QueryError> {
        let key = record_key(&self.key, tag.as_str());
        let record = self.identity.record(tag, n_sockets);
        let record = serde_json::to_string(&record).unwrap_or_default();
        let expiry = EXPIRY.as_millis() as u64;
        let mut keep = script(KEEP, &key, &self.identity.id);
        if queries.run::<i64>(keep.arg(&record).arg(expiry)).await? == 0 {
            return Ok(Claim::Taken);
        }
        let now = now_ms();
        let index = index_key(&self.key);
        let until = now + INDEX_EXPIRY.as_millis() as u64;
        queries.run::<i64>(cmd("ZADD").arg(&index).arg(until).arg(tag.as_str())).await?;
        queries.run::<i64>(cmd("ZREMRANGEBYSCORE").arg(&index).arg("-inf").arg(now)).await?;
        Ok(Claim::Listed)
    }

    async fn remove(&self, tag: NodeTag, queries: &Queries) -> Result<(), QueryError> {
        let key = record_key(&self.key, tag.as_str());
        if queries.run::<i64>(&script(REMOVE, &key, &self.identity.id)).await? > 0 {
            let index = index_key(&self.key);
            queries.run::<i64>(cmd("ZREM").arg(&index).arg(tag.as_str())).await?;
        }
        Ok(())
    }

    /// All that are listed, by tag. Nothing if Redis could not be asked.
    pub(crate) async fn nodes(key: &str, queries: &Queries) -> Option<Vec<NodeRecord>> {
        let mut range = cmd("ZRANGEBYSCORE");
        range.arg(index_key(key)).arg(now_ms()).arg("+inf");
        let mut tags: Vec<String> = queries.run(&range).await.ok()?;
        tags.sort_unstable();
        let mut nodes = Vec::with_capacity(tags.len());
        for tag in tags {
            let record: Option<String> =
                queries.run(cmd("GET").arg(record_key(key, &tag))).await.ok()?;
            // A record of a later version may be one that this one does not understand.
            nodes.extend(record.and_then(|record| serde_json::from_str(&record).ok()));
        }
        Some(nodes)
    }
}

fn record_key(key: &str, tag: &str) -> String {
    format!("{key}-carillon:node:{tag}")
}

fn index_key(key: &str) -> String {
    format!("{key}-carillon:nodes")
}

fn cmd(name: &str) -> Cmd {
    redis::cmd(name)
}

/// A script about one key on behalf of a node.
fn script(text: &str, key: &str, id: &str) -> Cmd {
    cmd("EVAL").arg(text).arg(1).arg(key).arg(id).to_owned()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
