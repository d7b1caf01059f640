//! Questions to Redis, beside the link: who is there, and how many.
//!
//! They have connections of their own, so that a slow answer never stands before a message, and every wait has an
//! end. Nothing is published here: two connections know no order.

use super::{
    connector::Connector,
    topology::{Topology, View},
};
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
    /// No connection, so nothing was sent.
    #[error("connect to Redis: {0}")]
    Unreachable(RedisError),
    /// There was no connection in time, so nothing was sent.
    #[error("there was no connection to Redis in time")]
    NoConnection,
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
    /// Where the newest link is, or on a Redis Cluster a master that could be reached since.
    home: Option<Client>,
    is_cluster: bool,
    /// The masters of a Redis Cluster.
    masters: Vec<Client>,
    /// Since when they are known to be these.
    known_since: Option<Instant>,
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
        state.known_since = None;
    }

    /// Runs a command about one key, at the server that has it.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, QueryError> {
        let mut failure = QueryError::NoServer;
        // Who has the key is not known; each master of a Redis Cluster can tell, if it can be reached.
        for client in self.candidates()? {
            match self.run_from(&client, command).await {
                Err(error) if error.is_unsent() => failure = error,
                result => {
                    self.state().home = Some(client);
                    return result;
                }
            }
        }
        Err(failure)
    }

    /// Runs a command at one server, or at the only one.
    pub(super) async fn run_at<T: FromRedisValue>(
        &self,
        server: Option<Client>,
        command: &Cmd,
    ) -> Result<T, QueryError> {
        let server = match server {
            Some(server) => server,
            None => self.home()?,
        };
        self.ask(&server, command).await
    }

    /// Asks a server, and then those that it names. An error is one of not having sent anything only if that
    /// is so for the first server.
    async fn run_from<T: FromRedisValue>(
        &self,
        first: &Client,
        command: &Cmd,
    ) -> Result<T, QueryError> {
        let mut client = first.clone();
        for n in 0..REDIRECTIONS_MAX {
            let error = match self.ask(&client, command).await {
                Err(QueryError::Failed(error)) => error,
                // Another master would only name the same one again.
                Err(QueryError::NoConnection) if n > 0 => return Err(QueryError::Timeout),
                Err(QueryError::Unreachable(error)) if n > 0 => {
                    return Err(QueryError::Failed(error));
                }
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
            self.state().known_since = None;
        }
        answers
    }

    /// The servers to be asked who has something, the best first.
    fn candidates(&self) -> Result<Vec<Client>, QueryError> {
        let home = self.home()?;
        let others = if self.state().is_cluster { self.connector.masters() } else { Vec::new() };
        let is_other = |client: &Client| address_of(client) != address_of(&home);
        let others: Vec<_> = others.into_iter().filter(is_other).collect();
        Ok([home].into_iter().chain(others).collect())
    }

    /// All masters. Those of a Redis Cluster are looked up anew every few seconds.
    async fn masters(&self) -> Result<Vec<Client>, QueryError> {
        let candidates = self.candidates()?;
        {
            let state = self.state();
            let is_fresh = |since: Instant| since.elapsed() < MASTERS_AGE_MAX;
            if !state.is_cluster {
                return Ok(candidates);
            } else if state.known_since.is_some_and(is_fresh) {
                return Ok(state.masters.clone());
            }
        }
        let (home, topology) = self.topology(candidates).await.ok_or(QueryError::NoServer)?;
        self.connector.learn(&topology).map_err(|_| QueryError::NoServer)?;
        let masters = topology.masters().iter().map(|(host, port)| self.connector.at(host, *port));
        let masters: Vec<_> =
            masters.collect::<Result<_, _>>().map_err(|_| QueryError::NoServer)?;
        let mut state = self.state();
        state.home = Some(home);
        state.known_since = Some(Instant::now());
        state.masters.clone_from(&masters);
        Ok(masters)
    }

    /// Who has which slot, as the first of the servers says for which the cluster works, or else the first that
    /// answers; and which one that was.
    async fn topology(&self, candidates: Vec<Client>) -> Option<(Client, Topology)> {
        let mut doubtful = None;
        for client in candidates {
            match self.connector.topology(&client).await {
                Ok(View { topology, is_ok: true }) => return Some((client, topology)),
                Ok(View { topology, .. }) => doubtful = doubtful.or(Some((client, topology))),
                Err(_) => {}
            }
        }
        doubtful
    }

    async fn ask<T: FromRedisValue>(
        &self,
        client: &Client,
        command: &Cmd,
    ) -> Result<T, QueryError> {
        let pool = self.pool(client)?;
        let asking = async {
            let mut connection = pool.get().await.map_err(|error| match error {
                PoolError::Timeout(_) => QueryError::NoConnection,
                PoolError::Backend(error) => QueryError::Unreachable(error),
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
        let known: Vec<String> = self.connector.masters().iter().map(address_of).collect();
        let mut state = self.state();
        let address = address_of(client);
        if let Some(pool) = state.pools.get(&address) {
            return Ok(pool.clone());
        }
        let pool = new_pool(client)?;
        if state.is_cluster {
            // Masters come and go.
            state.pools.retain(|address, _| known.contains(address));
        }
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

    /// Whether the command did not get as far as to a server, so that another one can be asked.
    fn is_unsent(&self) -> bool {
        matches!(self, QueryError::Unreachable(_) | QueryError::NoConnection)
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
