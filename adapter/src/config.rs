//! What an adapter can be told.

use crate::AdapterError;
use secrecy::SecretString;
use std::time::Duration;

/// How messages get to the other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: this node is alone.
    #[default]
    Memory,
    /// Redis pub/sub, as `@socket.io/redis-adapter` speaks it ("classic").
    Redis,
    /// Sharded pub/sub of Redis 7, as `createShardedAdapter` of `@socket.io/redis-adapter` speaks it.
    RedisSharded,
}

/// How far a node takes part in a cluster, so that a live cluster of Node servers can be joined in stages.
/// In mode [`Mode::RedisSharded`] only [`Participation::Full`] exists: there, who receives is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Participation {
    /// Broadcasts only. No server waits for this node, and it applies and answers nothing else.
    Broadcasts,
    /// Also joins, leaves, disconnects and server-side events without acknowledgement. Still no server
    /// waits for this node.
    Commands,
    /// Everything: other servers count this node, and it answers them.
    #[default]
    Full,
}

/// What a node receives of the broadcasts to single rooms in mode [`Mode::Redis`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscribe {
    /// All of them, as Node does; those for rooms without a member here are dropped before they are decoded.
    #[default]
    All,
    /// Those for rooms with members here. For large clusters, where most messages are for others.
    Interest,
}

/// The subscription mode in mode [`Mode::RedisSharded`]; must be the same on all servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardedMode {
    /// One channel for each namespace.
    Static,
    /// One more for each room, except the rooms that sockets have by their id.
    #[default]
    Dynamic,
    /// One more for each room.
    DynamicPrivate,
}

/// The encoding of broadcasts, Node's option `parser`; must be the same on all servers and emitters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterParser {
    /// MessagePack, Node's default.
    #[default]
    MessagePack,
    /// JSON. Binaries do not survive it: they arrive as `{"type":"Buffer","data":[…]}`.
    Json,
}

/// What other nodes are told about this one.
#[derive(Clone, Debug)]
pub struct NodeDescription {
    /// What kind of program it is, for example `carillon`.
    pub kind: String,
    /// The version of the program.
    pub version: String,
    /// Where other nodes reach it, if they do.
    pub address: Option<String>,
}

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// One or more addresses, `redis://` or `rediss://`, with user, password and database number. They
    /// are tried in turn until one leads to a master; on a Redis Cluster they are where the others are asked
    /// for. Or one `redis+sentinel://user:password@host:26379,host:26379/master-name/0`, also with
    /// `rediss+sentinel`; user and password are those of the master, and of Sentinels that want any. A database
    /// number does not isolate anything: Redis pub/sub knows no databases.
    pub urls: Vec<SecretString>,
    /// How long one attempt to connect may take, TLS and authentication included.
    pub connect_timeout: Duration,
    /// PEM text of the certificates that may have signed that of a `rediss://` server; without it those of
    /// the system are believed.
    pub root_certificates: Option<String>,
}

impl RedisConfig {
    /// A Redis at one address, with the default timeout.
    pub fn new(url: SecretString) -> Self {
        // One second is many round trips within any data centre, and short enough to try again soon.
        Self { urls: vec![url], connect_timeout: Duration::from_secs(1), root_certificates: None }
    }
}

/// The settings of an adapter. `AdapterConfig::default()` is the memory mode.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    /// How messages get to the other nodes.
    pub mode: Mode,
    /// Where Redis is; must be there in mode `redis`.
    pub redis: Option<RedisConfig>,
    /// What all channel names begin with, Node's option `key`.
    pub key: String,
    /// The time between two probes, and how long a probe may take to come back.
    pub probe_interval: Duration,
    /// How long Redis may take to answer a PUBLISH, and the greatest age of a message that is still worth
    /// publishing when a lost link is back.
    pub publish_timeout: Duration,
    /// How many messages may wait to be published.
    pub publish_queue_frames: usize,
    /// How many bytes of messages may wait to be published.
    pub publish_queue_bytes: usize,
    /// How many received messages may wait in one namespace.
    pub receive_queue_frames: usize,
    /// How many bytes of received messages may wait in one namespace.
    pub receive_queue_bytes: usize,
    /// The largest message that is published or taken. A larger one that comes in is refused, and counts
    /// as a gap.
    pub cluster_frame_max: usize,
    /// How far this node takes part in the cluster.
    pub participation: Participation,
    /// What is received of the broadcasts to single rooms, in mode `redis`.
    pub subscribe: Subscribe,
    /// The subscription mode, in mode `redis-sharded`.
    pub sharded: ShardedMode,
    /// The encoding of broadcasts, in mode `redis`.
    pub parser: ClusterParser,
    /// How long other servers may take to answer; Node's option `requestsTimeout`.
    pub requests_timeout: Duration,
    /// Whether answers go to a channel that only the asking server receives; Node's option
    /// `publishOnSpecificResponseChannel`. Cheaper, and every version of Node's adapter listens there.
    pub specific_response_channel: bool,
    /// How many requests of this node may wait for answers at once.
    pub requests_max: usize,
    /// How many bytes of answers to one request are kept.
    pub response_bytes_max: usize,
    /// How long the channel of a room stays subscribed after its last member left, where channels follow
    /// rooms.
    pub follow_linger: Duration,
    /// What other nodes are told about this one; nothing makes this node unlisted.
    pub node: Option<NodeDescription>,
    /// The bound of the random pause before the first attempt to connect again.
    pub reconnect_delay_min: Duration,
    /// What that bound grows to, doubling with each attempt.
    pub reconnect_delay_max: Duration,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Memory,
            redis: None,
            // Node's default.
            key: String::from("socket.io"),
            // Two missed probes and a reconnection stay below the ten seconds in which a half-open link
            // must be found.
            probe_interval: Duration::from_secs(3),
            publish_timeout: Duration::from_secs(2),
            // About a quarter of a second of what one Redis can publish.
            publish_queue_frames: 16_384,
            publish_queue_bytes: 64 << 20,
            receive_queue_frames: 16_384,
            receive_queue_bytes: 64 << 20,
            cluster_frame_max: 16 << 20,
            participation: Participation::Full,
            subscribe: Subscribe::All,
            sharded: ShardedMode::Dynamic,
            parser: ClusterParser::MessagePack,
            // Node's default.
            requests_timeout: Duration::from_secs(5),
            specific_response_channel: true,
            // Each is a task that waits; Node knows no limit.
            requests_max: 10_000,
            // About 100,000 described sockets.
            response_bytes_max: 64 << 20,
            // A room that is left and joined again by the next visitor keeps its subscription.
            follow_linger: Duration::from_secs(30),
            node: None,
            reconnect_delay_min: Duration::from_millis(50),
            reconnect_delay_max: Duration::from_secs(1),
        }
    }
}

impl AdapterConfig {
    /// Complains about settings that cannot work together.
    pub(crate) fn check(&self) -> Result<(), AdapterError> {
        let complaint = if self.key.is_empty() {
            "the prefix of the channels is empty"
        } else if self.probe_interval.is_zero() || self.publish_timeout.is_zero() {
            "probe_interval and publish_timeout must be longer than nothing"
        } else if self.publish_queue_frames == 0 || self.receive_queue_frames == 0 {
            "a queue must have room for one frame"
        } else if self.cluster_frame_max > self.publish_queue_bytes
            || self.cluster_frame_max > self.receive_queue_bytes
        {
            "the largest frame must fit into each queue"
        } else if self.reconnect_delay_min.is_zero()
            || self.reconnect_delay_min > self.reconnect_delay_max
        {
            "reconnect_delay_min must be more than nothing and at most reconnect_delay_max"
        } else if self.requests_timeout.is_zero() || self.requests_max == 0 {
            "requests_timeout and requests_max must be more than nothing"
        } else if self.response_bytes_max < self.cluster_frame_max {
            "response_bytes_max must be at least as much as the largest frame"
        } else if self.mode == Mode::RedisSharded && self.participation != Participation::Full {
            "in mode redis-sharded a node can only take part in full: there, the channel that carries \
             broadcasts is the one whose subscribers are counted and must answer"
        } else if self.mode == Mode::RedisSharded && self.subscribe == Subscribe::Interest {
            "subscribing by interest is for mode redis: in mode redis-sharded the subscription mode \
             decides what is received"
        } else if self.mode == Mode::RedisSharded && self.parser != ClusterParser::MessagePack {
            "another parser is for mode redis: redis-sharded knows none"
        } else {
            return Ok(());
        };
        Err(AdapterError::Config(complaint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        AdapterConfig::default().check().expect("valid");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let refused = |change: fn(&mut AdapterConfig)| {
            let mut config = AdapterConfig::default();
            change(&mut config);
            config.check().expect_err("must be refused").kind() == "config"
        };
        assert!(refused(|config| config.key.clear()));
        assert!(refused(|config| config.probe_interval = Duration::ZERO));
        assert!(refused(|config| config.receive_queue_frames = 0));
        assert!(refused(|config| config.cluster_frame_max = usize::MAX));
        assert!(refused(|config| config.reconnect_delay_min = Duration::from_secs(2)));
        assert!(refused(|config| config.requests_timeout = Duration::ZERO));
        assert!(refused(|config| config.requests_max = 0));
        assert!(refused(|config| config.response_bytes_max = 1));
    }

    #[test]
    fn sharded_pub_sub_knows_neither_levels_nor_interest_nor_parsers() {
        let sharded = || AdapterConfig { mode: Mode::RedisSharded, ..AdapterConfig::default() };
        sharded().check().expect("valid");
        let participation = Participation::Commands;
        let staged = AdapterConfig { participation, ..sharded() };
        let error = staged.check().expect_err("must be refused").to_string();
        assert!(error.contains("counted"), "it says why: {error}");
        let interest = AdapterConfig { subscribe: Subscribe::Interest, ..sharded() };
        interest.check().expect_err("must be refused");
        let json = AdapterConfig { parser: ClusterParser::Json, ..sharded() };
        json.check().expect_err("must be refused");
    }
}
