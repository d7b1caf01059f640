//! Questions to Redis, beside the link: who is there, and how many.
//!
//! They have connections of their own, so that a slow answer never stands before a message, and every wait has an
//! end. Nothing is published here: two connections know no order.

use super::connector::Connector;
use deadpool_redis::{Manager, Pool, PoolConfig, PoolError, Runtime, Timeouts};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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
/// How often a Redis Cluster may name another server for a key.
const REDIRECTIONS_MAX: usize = 4;
/// How long the masters of a Redis Cluster are believed to be the same.
const MASTERS_AGE_MAX: Duration = Duration::from_secs(5);

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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the newest link is.
    home: Option<Client>,
    is_cluster: bool,
    /// The masters of a Redis Cluster, and since when they are known.
    masters: Option<(Instant, Vec<Client>)>,
    pools: HashMap<String, Pool>,
}

impl Queries {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, state: Mutex::default() }
    }

    /// A link is on this server now.
    pub(super) fn set_server(&self, client: &Client, is_cluster: bool) {
        let mut state = self.state();
        state.home = Some(client.clone());
        state.is_cluster = is_cluster;
        state.masters = None;
    }

    /// Runs a command about one key, at the server that has it.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, QueryError> {
        let mut client = self.home()?;
        for _ in 0..REDIRECTIONS_MAX {
            let error = match self.ask(&client, command).await {
                Err(QueryError::Failed(error)) => error,
                result => return result,
            };
            let address = error.redirect_node().and_then(|(address, _)| address.rsplit_once(':'));
            let Some((host, port)) = address else { return Err(QueryError::Failed(error)) };
            // Without a host it is another port of the same machine.
            let home = client.get_connection_info().addr().to_string();
            let host = match (host, home.rsplit_once(':')) {
                ("", Some((home, _))) => home,
                _ => host,
            };
            let port = port.parse().map_err(|_| QueryError::NoServer)?;
            client = self.connector.at(host, port).map_err(|_| QueryError::NoServer)?;
        }
        Err(QueryError::NoServer)
    }

    /// Runs a command at each master.
    pub(crate) async fn run_everywhere<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Vec<T>, QueryError> {
        let masters = self.masters().await?;
        let mut answers = Vec::new();
        for master in &masters {
            answers.push(self.ask(master, command));
        }
        let answers = futures_util::future::try_join_all(answers).await;
        if answers.is_err() {
            // One that does not answer may have been replaced.
            self.state().masters = None;
        }
        answers
    }

    /// All masters. Those of a Redis Cluster are looked up anew every few seconds.
    async fn masters(&self) -> Result<Vec<Client>, QueryError> {
        let home = self.home()?;
        {
            let state = self.state();
            match &state.masters {
                _ if !state.is_cluster => return Ok(vec![home]),
                Some((since, masters)) if since.elapsed() < MASTERS_AGE_MAX => {
                    return Ok(masters.clone());
                }
                _ => {}
            }
        }
        let topology = self.connector.topology(&home).await.map_err(|_| QueryError::NoServer)?;
        let masters = topology.masters().iter().map(|(host, port)| self.connector.at(host, *port));
        let masters: Vec<_> =
            masters.collect::<Result<_, _>>().map_err(|_| QueryError::NoServer)?;
        let mut state = self.state();
        let is_known =
            |address: &String| masters.iter().any(|master| address_of(master) == *address);
        state.pools.retain(|address, _| is_known(address));
        state.masters = Some((Instant::now(), masters.clone()));
        Ok(masters)
    }

    async fn ask<T: FromRedisValue>(
        &self,
        client: &Client,
        command: &Cmd,
    ) -> Result<T, QueryError> {
        let pool = self.pool(client)?;
        let asking = async {
            let mut connection = pool.get().await.map_err(|error| match error {
                PoolError::Timeout(_) => QueryError::Timeout,
                PoolError::Backend(error) => QueryError::of(error),
                _ => QueryError::NoServer,
            })?;
            command.query_async(&mut *connection).await.map_err(QueryError::of)
        };
        // Each part has its limit; this is the limit of all together, whatever the parts do.
        let limit = WAIT + CREATE + RECYCLE + ANSWER;
        time::timeout(limit, asking).await.unwrap_or(Err(QueryError::Timeout))
    }

    fn home(&self) -> Result<Client, QueryError> {
        self.state().home.clone().ok_or(QueryError::NoServer)
    }

    fn pool(&self, client: &Client) -> Result<Pool, QueryError> {
        let mut state = self.state();
        let address = address_of(client);
        if let Some(pool) = state.pools.get(&address) {
            return Ok(pool.clone());
        }
        let pool = new_pool(client)?;
        state.pools.insert(address, pool.clone());
        Ok(pool)
    }

    /// No code that holds the lock can panic half-way through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueryError {
    fn of(error: RedisError) -> Self {
        if error.is_timeout() { QueryError::Timeout } else { QueryError::Failed(error) }
    }
}

fn address_of(client: &Client) -> String {
    client.get_connection_info().addr().to_string()
}

fn new_pool(client: &Client) -> Result<Pool, QueryError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CREATE))
        .set_response_timeout(Some(ANSWER));
    let info = client.get_connection_info().clone();
    let manager = Manager::new_with_config(info, config).map_err(QueryError::Failed)?;
    let timeouts = Timeouts { wait: Some(WAIT), create: Some(CREATE), recycle: Some(RECYCLE) };
    let config = PoolConfig { timeouts, ..PoolConfig::new(CONNECTIONS_MAX) };
    let built = Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
    // It needs a runtime for its timeouts, and has got one.
    built.map_err(|_| QueryError::NoServer)
}
