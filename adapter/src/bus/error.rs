//! Why there is no link to Redis.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;

/// Why there is no link to Redis.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    /// No connection, or it failed while it was set up.
    #[error("connect to Redis: {0}")]
    Connect(RedisError),
    /// Redis took too long to answer.
    #[error("Redis did not answer in time")]
    Timeout,
    /// The other side knows only the older protocol.
    #[error("Redis does not speak RESP3: version 6.2 or newer is needed")]
    Resp3Missing,
    /// User or password are wrong.
    #[error("Redis refused user or password: {0}")]
    Authentication(RedisError),
    /// The other side is not the one whose messages reach all.
    #[error("Redis is a {0}, not a master")]
    NotMaster(String),
    /// Sentinels name another master.
    #[error("the Sentinels name another master")]
    Superseded,
    /// The name of the master is not one of those that Sentinels watch.
    #[error("a Sentinel does not know a master named {0}")]
    MasterUnknown(String),
    /// A server of a Redis Cluster said something else than which slots there are.
    #[error("the answer to CLUSTER SLOTS is not understood")]
    TopologyUnknown,
    /// Sharded pub/sub was found to be that of a Redis Cluster: it needs a link to each master.
    #[error("Redis is a cluster")]
    IsCluster,
    /// The user may not do what is needed.
    #[error("Redis refused {command}: the user lacks the grant {grant}")]
    NotPermitted { command: &'static str, grant: String },
    /// A command failed.
    #[error("{command}: {error}")]
    Command { command: &'static str, error: RedisError },
    /// The connection that receives has ended.
    #[error("Redis closed the connection")]
    Disconnected,
    /// Probes did not come back, although the connections look alive.
    #[error("probes do not come back")]
    Deaf,
}

impl LinkError {
    /// A stable name for logs.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            LinkError::Connect(_) => "connect",
            LinkError::Timeout => "timeout",
            LinkError::Resp3Missing => "resp3_missing",
            LinkError::Authentication(_) => "authentication",
            LinkError::NotMaster(_) => "not_master",
            LinkError::Superseded => "superseded",
            LinkError::MasterUnknown(_) => "master_unknown",
            LinkError::TopologyUnknown => "topology_unknown",
            LinkError::IsCluster => "is_cluster",
            LinkError::NotPermitted { .. } => "not_permitted",
            LinkError::Command { .. } => "command",
            LinkError::Disconnected => "disconnected",
            LinkError::Deaf => "deaf",
        }
    }

    /// Whether it will not go away by itself.
    pub(super) fn needs_a_person(&self) -> bool {
        use LinkError::{Authentication, NotPermitted, Resp3Missing};
        matches!(self, Authentication(_) | NotPermitted { .. } | Resp3Missing)
    }

    /// Whether another server of a Redis Cluster is to be asked, now or soon.
    pub(super) fn is_redirection(&self) -> bool {
        use ServerErrorKind::{Ask, ClusterDown, MasterDown, Moved, TryAgain};
        match self {
            LinkError::Command { error, .. } => matches!(
                error.kind(),
                ErrorKind::Server(Ask | ClusterDown | MasterDown | Moved | TryAgain)
            ),
            _ => false,
        }
    }

    /// Whether Redis says that the user may not do this.
    pub(super) fn is_permission(error: &RedisError) -> bool {
        error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
    }

    /// The failure of a command that needs a grant for the channel or pattern `name`.
    pub(super) fn of_channel(command: &'static str, name: &str, error: RedisError) -> Self {
        if Self::is_permission(&error) {
            // Redis tells whether it misses the command or the channel.
            if error.detail().is_some_and(|detail| detail.contains("command")) {
                return Self::of_command(command, error);
            }
            LinkError::NotPermitted { command, grant: format!("&{name}") }
        } else if error.is_timeout() {
            LinkError::Timeout
        } else {
            LinkError::Command { command, error }
        }
    }

    /// The failure of a command that needs a grant for itself.
    pub(super) fn of_command(command: &'static str, error: RedisError) -> Self {
        if Self::is_permission(&error) {
            let grant = format!("+{}", command.to_lowercase().replace(' ', "|"));
            LinkError::NotPermitted { command, grant }
        } else if error.is_timeout() {
            LinkError::Timeout
        } else {
            LinkError::Command { command, error }
        }
    }

    pub(super) fn of_connect(error: RedisError) -> Self {
        // Servers before 6.0 and some proxies do not know HELLO, or only with an older version in it.
        let detail = error.detail().unwrap_or_default();
        let lacks_resp3 = detail.contains("unknown command") || error.code() == Some("NOPROTO");
        match error.kind() {
            ErrorKind::RESP3NotSupported => LinkError::Resp3Missing,
            _ if lacks_resp3 => LinkError::Resp3Missing,
            ErrorKind::AuthenticationFailed => LinkError::Authentication(error),
            _ if matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM")) => {
                LinkError::Authentication(error)
            }
            _ if error.is_timeout() => LinkError::Timeout,
            _ => LinkError::Connect(error),
        }
    }
}
