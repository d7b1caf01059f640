//! Questions to Redis, beside the link: who is there, and how many.
//!
//! They have connections of their own, so that a slow answer never stands before a message, and every wait has an
//! end. Nothing is published here: two connections know no order.

use super::{connector::Connector, error::LinkError};
use deadpool_redis::{Manager, Pool, PoolConfig, Runtime, Timeouts};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::time;

/// How long a question waits for a connection that others use.
const WAIT: Duration = Duration::from_millis(500);
/// How long it may take to connect.
const CREATE: Duration = Duration::from_secs(1);
/// How long a connection may take to show that it still works.
const RECYCLE: Duration = Duration::from_millis(500);
/// How long Redis may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Connections for each server. Questions are few and short.
const CONNECTIONS_MAX: usize = 4;
/// How many keys one step of a scan looks at.
const SCAN_COUNT: usize = 1000;

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(crate) enum QueryError {
    /// No server has been found yet.
    #[error("there is no link to Redis")]
    NoServer,
    /// A wait was over.
    #[error("Redis did not answer in time")]
    Timeout,
    /// The command failed.
    #[error("{0}")]
    Failed(RedisError),
}

/// The connections for questions, by server.
pub(crate) struct Queries {
    connector: Arc<Connector>,
    /// By the number of the link; those that redirections led to are not kept.
    pools: Mutex<BTreeMap<usize, Server>>,
}

#[derive(Clone)]
struct Server {
    address: String,
    pool: Pool,
}

impl Queries {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, pools: Mutex::default() }
    }

    /// A link is on this server now.
    pub(super) fn set_server(&self, link: usize, client: &Client) -> Result<(), LinkError> {
        let address = client.get_connection_info().addr().to_string();
        let mut pools = self.pools();
        if pools.get(&link).is_none_or(|server| server.address != address) {
            let pool = pool(client)?;
            pools.insert(link, Server { address, pool });
        }
        Ok(())
    }

    /// Runs a command about one key, at the server that has it.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, QueryError> {
        let server = self.pools().values().next().cloned().ok_or(QueryError::NoServer)?;
        server.run(command).await
    }

    /// Runs a command at each master.
    pub(crate) async fn run_everywhere<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Vec<T>, QueryError> {
        let servers: Vec<Server> = self.pools().values().cloned().collect();
        if servers.is_empty() {
            return Err(QueryError::NoServer);
        }
        let mut answers = Vec::new();
        for server in &servers {
            answers.push(server.run(command));
        }
        futures_util::future::try_join_all(answers).await
    }

    /// The keys that match a pattern, at all masters.
    pub(crate) async fn keys(&self, pattern: &str) -> Result<Vec<String>, QueryError> {
        let servers: Vec<Server> = self.pools().values().cloned().collect();
        if servers.is_empty() {
            return Err(QueryError::NoServer);
        }
        let mut all = Vec::new();
        for server in servers {
            let mut cursor = 0_u64;
            loop {
                let scan = redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(pattern)
                    .arg("COUNT")
                    .arg(SCAN_COUNT)
                    .to_owned();
                let (next, mut keys): (u64, Vec<String>) = server.run(&scan).await?;
                all.append(&mut keys);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        // A scan may tell a key twice.
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// No code that holds the lock can panic half-way through a change.
    fn pools(&self) -> MutexGuard<'_, BTreeMap<usize, Server>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, QueryError> {
        let asking = async {
            let mut connection = self.pool.get().await.map_err(|error| match error {
                deadpool_redis::PoolError::Timeout(_) => QueryError::Timeout,
                deadpool_redis::PoolError::Backend(error) => QueryError::of(error),
                _ => QueryError::NoServer,
            })?;
            command.query_async(&mut *connection).await.map_err(QueryError::of)
        };
        // Each part has its limit; this is the limit of all together, whatever the parts do.
        time::timeout(WAIT + CREATE + RECYCLE + ANSWER, asking)
            .await
            .unwrap_or(Err(QueryError::Timeout))
    }
}

impl QueryError {
    fn of(error: RedisError) -> Self {
        if error.is_timeout() { QueryError::Timeout } else { QueryError::Failed(error) }
    }
}

fn pool(client: &Client) -> Result<Pool, LinkError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CREATE))
        .set_response_timeout(Some(ANSWER));
    let info = client.get_connection_info().clone();
    let manager = Manager::new_with_config(info, config).map_err(LinkError::Connect)?;
    let timeouts = Timeouts { wait: Some(WAIT), create: Some(CREATE), recycle: Some(RECYCLE) };
    let config = PoolConfig { timeouts, ..PoolConfig::new(CONNECTIONS_MAX) };
    let built = Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
    // Only a pool with timeouts and without a runtime cannot be built.
    built.map_err(|_| LinkError::Timeout)
}
