//! Opens connections to Redis, and knows which server to try.

use super::{
    error::LinkError,
    sentinel::Sentinels,
    topology::{Topology, View},
};
use crate::{AdapterConfig, AdapterError, RedisConfig};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, PushInfo, RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use secrecy::{ExposeSecret, SecretString};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time;

/// Called for every push, by the task that reads the connection. Must not wait.
pub(super) type OnPush = Box<dyn Fn(PushInfo) + Send + Sync>;

/// Opens connections.
pub(super) struct Connector {
    source: Source,
    /// How to connect to servers that others tell of: as to the first one.
    template: ConnectionInfo,
    root_certificates: Option<Vec<u8>>,
    connect_timeout: Duration,
    publish_timeout: Duration,
    /// How long a confirmation of a subscription may take. Longer than a stall that the probes forgive: it is
    /// up to them to find out whether Redis is still there.
    subscribe_timeout: Duration,
}

/// Who knows where the master is.
enum Source {
    /// Nobody: servers are tried in turn.
    Servers { seeds: Vec<Client>, known: Mutex<Known> },
    /// Sentinels.
    Sentinels(Sentinels),
}

/// What has been found out beside the configuration.
#[derive(Default)]
struct Known {
    /// Where the last link was: it is tried first, because an old connection may have to be ended there.
    last: Option<Box<Client>>,
    /// The masters of a Redis Cluster.
    masters: Vec<Client>,
    turn: usize,
}

/// A connection to a master.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// Whether it is one of the masters of a Redis Cluster.
    pub(super) is_cluster: bool,
}

impl Connector {
    pub(super) fn new(redis: &RedisConfig, adapter: &AdapterConfig) -> Result<Self, AdapterError> {
        let urls: Vec<&str> = redis.urls.iter().map(SecretString::expose_secret).collect();
        let root_certificates = redis.root_certificates.as_ref().map(|pem| pem.as_bytes().to_vec());
        let root = root_certificates.as_deref();
        let (source, template) = if urls.iter().any(|url| Sentinels::is_meant(url)) {
            let [url] = urls[..] else {
                return Err(AdapterError::RedisSentinel("it must be the only address"));
            };
            let (sentinels, template) = Sentinels::new(url, root, redis.connect_timeout)?;
            (Source::Sentinels(sentinels), template)
        } else {
            let infos: Vec<_> = urls.iter().map(|url| info(url)).collect::<Result<_, _>>()?;
            let seeds = infos.iter().map(|info| client(info.clone(), root));
            let seeds = seeds.collect::<Result<_, _>>().map_err(|_| AdapterError::RedisUrl)?;
            let template = infos.into_iter().next().ok_or(AdapterError::RedisMissing)?;
            (Source::Servers { seeds, known: Mutex::default() }, template)
        };
        Ok(Self {
            source,
            template,
            root_certificates,
            connect_timeout: redis.connect_timeout,
            publish_timeout: adapter.publish_timeout,
            subscribe_timeout: adapter.publish_timeout.max(adapter.probe_interval * 3),
        })
    }

    /// The server to try now: the one that Sentinels name, else where the link was, the known masters, and the
    /// configured servers in turn, because who is master is not known before.
    pub(super) async fn next(&self) -> Result<Client, LinkError> {
        match &self.source {
            Source::Sentinels(sentinels) => {
                let (host, port) = sentinels.master().await?;
                self.at(&host, port)
            }
            Source::Servers { seeds, known } => {
                let mut known = lock(known);
                let candidates: Vec<&Client> =
                    known.last.as_deref().into_iter().chain(&known.masters).chain(seeds).collect();
                let client = candidates[known.turn % candidates.len()].clone();
                known.turn = known.turn.wrapping_add(1);
                Ok(client)
            }
        }
    }

    /// A link to this server is up.
    pub(super) fn is_good(&self, client: &Client) {
        if let Source::Servers { known, .. } = &self.source {
            let mut known = lock(known);
            known.last = Some(Box::new(client.clone()));
            known.turn = 0;
        }
    }

    /// Waits until the master is another one for certain, as far as anybody tells.
    pub(super) async fn superseded(&self, client: &Client, interval: Duration) -> LinkError {
        match &self.source {
            Source::Sentinels(sentinels) => {
                let is_same = |(host, port): &(String, u16)| {
                    with_address(&self.template, host, *port).addr()
                        == client.get_connection_info().addr()
                };
                sentinels.superseded(is_same, interval).await
            }
            Source::Servers { .. } => std::future::pending().await,
        }
    }

    /// A server that others have told of.
    pub(super) fn at(&self, host: &str, port: u16) -> Result<Client, LinkError> {
        let info = with_address(&self.template, host, port);
        client(info, self.root_certificates.as_deref()).map_err(LinkError::Connect)
    }

    /// Opens a connection to a master.
    pub(super) async fn open(
        &self,
        client: &Client,
        on_push: Option<OnPush>,
    ) -> Result<Opened, LinkError> {
        let response_timeout = match on_push {
            Some(_) => self.subscribe_timeout,
            None => self.publish_timeout,
        };
        // Both times are explicit: those that redis-rs takes by itself change with its versions.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(response_timeout));
        if let Some(on_push) = on_push {
            config = config.set_push_sender(move |push| {
                on_push(push);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        let connecting = async {
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.map_err(LinkError::of_connect)?;
            let hello = Hello::ask(&mut connection).await?;
            if hello.is_cluster && !hello.is_master() {
                // It knows who the masters are.
                self.learn(&Topology::ask(&mut connection, client).await?)?;
            }
            let is_cluster = hello.is_cluster;
            hello.check_role()?;
            Ok(Opened { connection, is_cluster })
        };
        // A server that accepts and then says nothing must not take longer either.
        time::timeout(self.connect_timeout, connecting).await.unwrap_or(Err(LinkError::Timeout))
    }

    /// What a server of a Redis Cluster knows of all of it.
    pub(super) async fn topology(&self, client: &Client) -> Result<View, LinkError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.connect_timeout));
        let asking = async {
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.map_err(LinkError::of_connect)?;
            View::ask(&mut connection, client).await
        };
        time::timeout(self.connect_timeout, asking).await.unwrap_or(Err(LinkError::Timeout))
    }

    /// The masters of a Redis Cluster, as far as they are known.
    pub(super) fn masters(&self) -> Vec<Client> {
        match &self.source {
            Source::Servers { known, .. } => lock(known).masters.clone(),
            Source::Sentinels(_) => Vec::new(),
        }
    }

    /// Remembers the masters of a Redis Cluster.
    pub(super) fn learn(&self, topology: &Topology) -> Result<(), LinkError> {
        if let Source::Servers { known, .. } = &self.source {
            let masters = topology.masters().iter().map(|(host, port)| self.at(host, *port));
            lock(known).masters = masters.collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

/// No code that holds the lock can panic half-way through a change.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a server says of itself. Other than with ROLE and INFO every user may ask.
struct Hello {
    role: Option<String>,
    is_cluster: bool,
}

impl Hello {
    async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, LinkError> {
        let failed = |error: RedisError| match error.is_timeout() {
            true => LinkError::Timeout,
            false => LinkError::Command { command: "HELLO", error },
        };
        let hello: Value = redis::cmd("HELLO").query_async(connection).await.map_err(failed)?;
        let field = |name: &str| match &hello {
            Value::Map(entries) => entries.iter().find_map(|(key, value)| {
                let is_it = String::from_redis_value_ref(key).is_ok_and(|key| key == name);
                is_it.then(|| String::from_redis_value_ref(value).ok()).flatten()
            }),
            _ => None,
        };
        let is_cluster = field("mode").is_some_and(|mode| mode == "cluster");
        Ok(Self { role: field("role"), is_cluster })
    }

    fn is_master(&self) -> bool {
        self.role.as_deref() == Some("master")
    }

    fn check_role(self) -> Result<(), LinkError> {
        if self.is_master() {
            return Ok(());
        }
        let role = self.role.unwrap_or_else(|| String::from("server without a role"));
        Err(LinkError::NotMaster(role))
    }
}

/// What a replica is told is not heard by its master: publishing there loses messages silently.
pub(super) async fn check_role(connection: &mut MultiplexedConnection) -> Result<(), LinkError> {
    Hello::ask(connection).await?.check_role()
}

/// How to connect to an address.
pub(super) fn info(url: &str) -> Result<ConnectionInfo, AdapterError> {
    if !url.starts_with("redis://") && !url.starts_with("rediss://") {
        return Err(AdapterError::RedisUrl);
    }
    let info = url.into_connection_info().map_err(|_| AdapterError::RedisUrl)?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
}

pub(super) fn client(
    info: ConnectionInfo,
    root_certificates: Option<&[u8]>,
) -> Result<Client, RedisError> {
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        install_crypto();
        let root_cert = root_certificates.map(<[u8]>::to_vec);
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
    } else {
        Client::open(info)
    }
}

/// The same for another server.
pub(super) fn with_address(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: *insecure,
            tls_params: None,
        },
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    };
    info.clone().set_addr(address)
}

/// Without a delay for small packets, and with a look at a silent peer every few seconds.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(3));
    #[cfg(target_os = "linux")]
    let keepalive = keepalive.with_retries(3);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(10));
    settings
}

/// Names the implementation of cryptography for the whole process, once. Another part of the process may have
/// done so before; then that one is used.
fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(urls: &[&str]) -> String {
        let mut config = RedisConfig::new("".into());
        config.urls = urls.iter().map(|url| (*url).into()).collect();
        let result = Connector::new(&config, &AdapterConfig::default());
        result.err().expect("must be refused").to_string()
    }

    #[test]
    fn an_address_that_is_refused_is_not_shown() {
        for url in [
            "redis://:hunter2@",
            "http://:hunter2@host",
            "hunter2",
            "redis://host/hunter2",
            "redis+sentinel://:hunter2@",
            "redis+sentinel://:hunter2@host",
            "redis+sentinel://:hunter2@host:x/name",
            "redis+sentinel://host/name/hunter2",
        ] {
            assert!(!refusal(&[url]).contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_sentinels_is_named() {
        let sentinel = "redis+sentinel://host/name";
        assert!(refusal(&["redis+sentinel://host"]).contains("the name of the master is missing"));
        assert!(refusal(&["redis+sentinel:///name"]).contains("no Sentinel is named"));
        assert!(refusal(&["redis+sentinel://host:x/name"]).contains("host and port"));
        assert!(refusal(&["redis+sentinel://host/name/x"]).contains("database number"));
        assert!(refusal(&[sentinel, "redis://host"]).contains("the only address"));
        assert!(refusal(&[]).contains("needs the address"));
    }

    #[test]
    fn addresses_with_user_password_database_and_tls_are_taken() {
        for url in [
            "redis://host",
            "redis://user:password@host:1/2",
            "rediss://:password@host",
            "redis+sentinel://a,b:1,[::1]:2/name",
            "rediss+sentinel://user:pass%40word@a/name/3",
        ] {
            let config = RedisConfig::new(url.into());
            Connector::new(&config, &AdapterConfig::default()).map(drop).expect(url);
        }
    }
}
