//! Opens connections to Redis.

use super::error::LinkError;
use crate::{AdapterConfig, AdapterError, RedisConfig};
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use secrecy::{ExposeSecret, SecretString};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time;

/// Called for every push, by the task that reads the connection. Must not wait.
pub(super) type OnPush = Box<dyn Fn(PushInfo) + Send + Sync>;

/// Opens connections.
pub(super) struct Connector {
    clients: Vec<Client>,
    turn: AtomicUsize,
    connect_timeout: Duration,
    publish_timeout: Duration,
    /// How long a confirmation of a subscription may take. Longer than a stall that the probes forgive: it is
    /// up to them to find out whether Redis is still there.
    subscribe_timeout: Duration,
}

impl Connector {
    pub(super) fn new(redis: &RedisConfig, adapter: &AdapterConfig) -> Result<Self, AdapterError> {
        if redis.urls.is_empty() {
            return Err(AdapterError::RedisMissing);
        }
        let clients = redis.urls.iter().map(|url| client(url, redis)).collect::<Result<_, _>>()?;
        Ok(Self {
            clients,
            turn: AtomicUsize::new(0),
            connect_timeout: redis.connect_timeout,
            publish_timeout: adapter.publish_timeout,
            subscribe_timeout: adapter.publish_timeout.max(adapter.probe_interval * 3),
        })
    }

    /// The server to try now: each one in turn, because who is master is not known before.
    pub(super) async fn next(&self) -> Result<Client, LinkError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Ok(self.clients[turn % self.clients.len()].clone())
    }

    /// Opens a connection to a master.
    pub(super) async fn open(
        &self,
        client: &Client,
        on_push: Option<OnPush>,
    ) -> Result<MultiplexedConnection, LinkError> {
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
            check_role(&mut connection).await?;
            Ok(connection)
        };
        // A server that accepts and then says nothing must not take longer either.
        time::timeout(self.connect_timeout, connecting).await.unwrap_or(Err(LinkError::Timeout))
    }
}

/// What a replica is told is not heard by its master: publishing there loses messages silently.
///
/// HELLO tells the role, and other than ROLE it is permitted to every user.
pub(super) async fn check_role(connection: &mut MultiplexedConnection) -> Result<(), LinkError> {
    let failed = |error: RedisError| match error.is_timeout() {
        true => LinkError::Timeout,
        false => LinkError::Command { command: "HELLO", error },
    };
    let hello: Value = redis::cmd("HELLO").query_async(connection).await.map_err(failed)?;
    let role = match &hello {
        Value::Map(entries) => entries.iter().find_map(|(key, value)| {
            let is_role = String::from_redis_value_ref(key).is_ok_and(|key| key == "role");
            is_role.then(|| String::from_redis_value_ref(value).ok()).flatten()
        }),
        _ => None,
    };
    match role.as_deref() {
        Some("master") => Ok(()),
        Some(role) => Err(LinkError::NotMaster(role.to_owned())),
        None => Err(LinkError::NotMaster(String::from("server without a role"))),
    }
}

fn client(url: &SecretString, config: &RedisConfig) -> Result<Client, AdapterError> {
    let url = url.expose_secret();
    let is_tls = url.starts_with("rediss://");
    if url.starts_with("redis+sentinel://") {
        return Err(AdapterError::RedisUnsupported("Sentinel"));
    }
    if !is_tls && !url.starts_with("redis://") {
        return Err(AdapterError::RedisUrl);
    }
    let info = url.into_connection_info().map_err(|_| AdapterError::RedisUrl)?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp_settings());
    let client = if is_tls {
        install_crypto();
        let root_cert = config.root_certificates.as_ref().map(|pem| pem.clone().into_bytes());
        Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
    } else {
        Client::open(info)
    };
    client.map_err(|_| AdapterError::RedisUrl)
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

    fn refusal(url: &str) -> String {
        let config = RedisConfig::new(url.into());
        let result = Connector::new(&config, &AdapterConfig::default());
        result.err().expect("must be refused").to_string()
    }

    #[test]
    fn an_address_that_is_refused_is_not_shown() {
        for url in ["redis://:hunter2@", "http://:hunter2@host", "hunter2", "redis://host/hunter2"]
        {
            assert!(!refusal(url).contains("hunter2"), "{url}");
        }
        assert!(refusal("redis+sentinel://host").contains("Sentinel"));
    }

    #[test]
    fn addresses_with_user_password_database_and_tls_are_taken() {
        for url in ["redis://host", "redis://user:password@host:1/2", "rediss://:password@host"] {
            let config = RedisConfig::new(url.into());
            Connector::new(&config, &AdapterConfig::default()).map(drop).expect(url);
        }
    }
}
