//! Why an adapter cannot be made, and why a link to Redis is not up.

use thiserror::Error;

/// Why an adapter cannot be made from its configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Mode `redis` without an address.
    #[error("the mode `redis` needs the address of a Redis")]
    RedisMissing,
    /// An address that is no Redis URL. The address itself is not told: it may hold a password.
    #[error(
        "the address of Redis is not valid: it must look like redis://user:password@host:6379 or rediss://host:6379"
    )]
    RedisUrl,
    /// An address of Sentinels that is not valid, and what is wrong with it.
    #[error(
        "the address of the Sentinels is not valid: {0} (redis+sentinel://user:password@host:26379,host:26379/master-name/0)"
    )]
    RedisSentinel(&'static str),
    /// An address with something this version does not support.
    #[error("the address of Redis asks for {0}, which is not supported")]
    RedisUnsupported(&'static str),
    /// A limit or time that cannot work.
    #[error("{0}")]
    Config(&'static str),
}

impl AdapterError {
    /// A stable name for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            AdapterError::RedisMissing => "redis_missing",
            AdapterError::RedisUrl => "redis_url",
            AdapterError::RedisSentinel(_) => "redis_sentinel",
            AdapterError::RedisUnsupported(_) => "redis_unsupported",
            AdapterError::Config(_) => "config",
        }
    }
}
