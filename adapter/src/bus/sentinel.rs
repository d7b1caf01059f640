//! Asks Sentinels who the master is.

use super::{
    connector::{client, info},
    error::LinkError,
};
use crate::AdapterError;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, RedisError};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time;

const PORT: u16 = 26379;
/// How many Sentinels in a row must name another master. One alone may be behind, or cut off.
const OTHERS_MAX: usize = 2;

/// The Sentinels of one master.
pub(super) struct Sentinels {
    all: Vec<Sentinel>,
    master_name: String,
    turn: AtomicUsize,
    timeout: Duration,
}

struct Sentinel {
    open: Client,
    /// With the user and password of the master, for a Sentinel that wants any.
    authenticated: Option<Client>,
}

impl Sentinels {
    pub(super) fn is_meant(url: &str) -> bool {
        url.starts_with("redis+sentinel://") || url.starts_with("rediss+sentinel://")
    }

    /// Takes `redis+sentinel://user:password@host:26379,host:26379/name/0` apart, and gives how to connect to
    /// the master beside it.
    pub(super) fn new(
        url: &str,
        root_certificates: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<(Self, ConnectionInfo), AdapterError> {
        let wrong = AdapterError::RedisSentinel;
        let (scheme, rest) = url.split_once("+sentinel://").ok_or(AdapterError::RedisUrl)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, database) = path.split_once('/').unwrap_or((path, "0"));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if name.is_empty() {
            return Err(wrong("the name of the master is missing"));
        }
        if hosts.is_empty() {
            return Err(wrong("no Sentinel is named"));
        }
        if database.parse::<u32>().is_err() {
            return Err(wrong("what follows the name of the master must be a database number"));
        }
        let mut all = Vec::new();
        let mut template = None;
        for host in hosts.split(',') {
            let has_port = host.rsplit(']').next().unwrap_or(host).contains(':');
            let port = if has_port { String::new() } else { format!(":{PORT}") };
            let info = |user: &str, database: &str| {
                info(&format!("{scheme}://{user}{host}{port}/{database}"))
                    .map_err(|_| wrong("each Sentinel must be given by host and port"))
            };
            let sentinel = |user: &str| {
                // Old Sentinels know only the older protocol.
                let info = info(user, "0")?;
                let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
                let info = info.set_redis_settings(settings);
                client(info, root_certificates).map_err(|_| AdapterError::RedisUrl)
            };
            let authenticated = if user.is_empty() { None } else { Some(sentinel(&user)?) };
            all.push(Sentinel { open: sentinel("")?, authenticated });
            template = Some(info(&user, database)?);
        }
        let template = template.ok_or(wrong("no Sentinel is named"))?;
        let turn = AtomicUsize::new(0);
        Ok((Self { all, master_name: name.to_owned(), turn, timeout }, template))
    }

    /// The master that the first Sentinel names which answers.
    pub(super) async fn master(&self) -> Result<(String, u16), LinkError> {
        let mut failure = None;
        for _ in &self.all {
            match self.ask_next().await {
                Ok(master) => return Ok(master),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or(LinkError::Timeout))
    }

    /// Waits until Sentinels in a row name another master. Who is cut off together with the old master hears
    /// its own probes there, and nobody else.
    pub(super) async fn superseded(
        &self,
        is_same: impl Fn(&(String, u16)) -> bool,
        interval: Duration,
    ) -> LinkError {
        let mut n_others = 0;
        loop {
            time::sleep(interval).await;
            // One that does not answer says nothing about the master.
            match self.ask_next().await {
                Ok(master) if !is_same(&master) => n_others += 1,
                Ok(_) => n_others = 0,
                Err(_) => {}
            }
            if n_others == OTHERS_MAX.min(self.all.len()) {
                return LinkError::Superseded;
            }
        }
    }

    async fn ask_next(&self) -> Result<(String, u16), LinkError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Sentinel { open, authenticated } = &self.all[turn % self.all.len()];
        match (self.ask(open).await, authenticated) {
            (Err(LinkError::Authentication(_)), Some(client)) => self.ask(client).await,
            (result, _) => result,
        }
    }

    async fn ask(&self, sentinel: &Client) -> Result<(String, u16), LinkError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let asking = async {
            let connecting = sentinel.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await?;
            let ask = redis::cmd("SENTINEL")
                .arg("get-master-addr-by-name")
                .arg(&self.master_name)
                .to_owned();
            ask.query_async(&mut connection).await
        };
        let answered: Result<Result<Option<(String, u16)>, RedisError>, _> =
            time::timeout(self.timeout, asking).await;
        match answered {
            Ok(Ok(Some(master))) => Ok(master),
            Ok(Ok(None)) => Err(LinkError::MasterUnknown(self.master_name.clone())),
            Ok(Err(error)) => Err(LinkError::of_connect(error)),
            Err(_) => Err(LinkError::Timeout),
        }
    }
}
