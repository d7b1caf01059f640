//! Connections of ours that Redis may not know to be dead.
//!
//! After a half-open link Redis keeps the old connection for minutes and counts it as a subscriber. Whoever asks
//! the cluster meanwhile waits for an answer that never comes, on every request. So the old connection is ended
//! before the new one is counted. Where the user may not do that, the new one stays uncounted, and answers in the
//! place of the old one, until the count says that Redis has found out.

use super::{error::LinkError, subscriptions::Subscriptions};
use redis::{ErrorKind, RedisResult, aio::MultiplexedConnection};
use std::{
    collections::HashMap,
    convert::Infallible,
    future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{self, Instant};

/// How many old connections are remembered. More than one are left only by attempts that failed half-way.
const CONNECTIONS_MAX: usize = 8;
/// How long Redis may take to find out by itself: its `tcp-keepalive` is five minutes, and it looks twice.
const AGE_MAX: Duration = Duration::from_secs(600);

/// A connection as Redis names it. Neither is enough alone: numbers begin anew when Redis is restarted, and
/// addresses are used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    id: String,
    address: String,
}

/// The connections that were counted.
#[derive(Default)]
pub(super) struct Ghosts {
    connections: Mutex<Vec<Old>>,
    is_told: AtomicBool,
}

#[derive(Clone)]
struct Old {
    /// Nothing if the user may not ask for it.
    identity: Option<Identity>,
    /// Its end was seen, so most likely Redis knows too.
    is_closed: bool,
}

impl Ghosts {
    /// The name of a connection that holds no subscription yet, if the user may ask for it.
    pub(super) async fn identify(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Identity>, LinkError> {
        let info: RedisResult<String> =
            redis::cmd("CLIENT").arg("INFO").query_async(connection).await;
        match info {
            Ok(info) => Ok(Identity::parse(&info)),
            Err(error) => self.tolerate("CLIENT INFO", error).map(|()| None),
        }
    }

    /// A connection is about to be counted.
    pub(super) fn remember(&self, connection: Option<Identity>) {
        let mut connections = self.connections();
        if connections.len() == CONNECTIONS_MAX {
            connections.remove(0);
        }
        connections.push(Old { identity: connection, is_closed: false });
    }

    /// The newest connection has been closed from the other side.
    pub(super) fn closed(&self) {
        if let Some(newest) = self.connections().last_mut() {
            newest.is_closed = true;
        }
    }

    /// Whether an old connection may still be counted.
    pub(super) fn may_be_there(&self) -> bool {
        self.connections().iter().any(|old| !old.is_closed)
    }

    /// Ends the old connections, and says whether none is left.
    pub(super) async fn end(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<bool, LinkError> {
        let all = self.connections().clone();
        for identity in all.iter().filter_map(|old| old.identity.as_ref()) {
            let kill = redis::cmd("CLIENT")
                .arg("KILL")
                .arg("ID")
                .arg(&identity.id)
                .arg("ADDR")
                .arg(&identity.address)
                .to_owned();
            let killed: RedisResult<i64> = kill.query_async(connection).await;
            match killed {
                Ok(n_killed) => {
                    if n_killed > 0 {
                        tracing::info!(event = "redis_ghost_ended", "ended an old connection");
                    }
                    self.connections().retain(|old| old.identity.as_ref() != Some(identity));
                }
                Err(error) => self.tolerate("CLIENT KILL", error)?,
            }
        }
        self.connections().retain(|old| !old.is_closed);
        Ok(!self.may_be_there())
    }

    /// Looks whether Redis has found out, for as long as it has not.
    pub(super) async fn watch(
        &self,
        mut connection: MultiplexedConnection,
        subscriptions: &Subscriptions,
        interval: Duration,
    ) -> Result<Infallible, LinkError> {
        let since = Instant::now();
        let mut highest: HashMap<Arc<str>, i64> = HashMap::new();
        loop {
            let haunted = subscriptions.ghosts();
            if haunted.is_empty() {
                return Ok(future::pending().await);
            }
            for channel in haunted {
                let numsub = redis::cmd("PUBSUB").arg("NUMSUB").arg(&*channel).to_owned();
                let counted: RedisResult<(String, i64)> = numsub.query_async(&mut connection).await;
                let is_gone = match counted {
                    Ok((_, count)) => {
                        let highest = highest.entry(Arc::clone(&channel)).or_insert(count);
                        *highest = count.max(*highest);
                        count < *highest
                    }
                    // Then the time decides.
                    Err(error) => self.tolerate("PUBSUB NUMSUB", error).map(|()| false)?,
                };
                if is_gone || since.elapsed() > AGE_MAX {
                    subscriptions.ghost_gone(&channel);
                }
            }
            if subscriptions.ghosts().is_empty() {
                // The connection there is now is the only one that is counted from now on.
                let mut connections = self.connections();
                let n_old = connections.len().saturating_sub(1);
                connections.drain(..n_old);
            }
            time::sleep(interval).await;
        }
    }

    /// What Redis refuses is told once, and no reason to be without a link: some that are rented out know no
    /// CLIENT at all.
    fn tolerate(&self, command: &'static str, error: redis::RedisError) -> Result<(), LinkError> {
        let is_refusal = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
        let error = LinkError::of_command(command, error);
        if !is_refusal {
            return Err(error);
        }
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                event = "redis_grant_missing",
                %error,
                "after a half-open link, other servers may wait for a dead connection"
            );
        }
        Ok(())
    }

    /// No code that holds the lock can panic half-way through a change.
    fn connections(&self) -> MutexGuard<'_, Vec<Old>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    /// Reads `id=7 addr=127.0.0.1:50000 laddr=… …`.
    fn parse(info: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = info.split_whitespace().find_map(|field| field.strip_prefix(name))?;
            Some(value.to_owned())
        };
        Some(Self { id: field("id=")?, address: field("addr=")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_by_number_and_address() {
        let info = "id=7 addr=127.0.0.1:50000 laddr=127.0.0.1:6379 fd=8 name= db=0\n";
        let expected = Identity { id: "7".into(), address: "127.0.0.1:50000".into() };
        assert_eq!(Identity::parse(info), Some(expected));
        assert_eq!(Identity::parse("fd=8"), None);
    }
}
