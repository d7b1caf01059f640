//! The sections of the configuration file with their defaults and the reason for each.

use super::{
    section::section,
    value::{
        AdapterMode, Bool, Bytes, ClusterParserWord, Count, HeaderNames, Human, Listen, LogFormat,
        LogLevel, Nets, OnGap, OptionalText, Origins, Parser, ParticipationWord, Period,
        SecretUrls, ShardedModeWord, SubscribeWord, Tag, Text, Transports, Unlimited, Workers,
    },
};
use adapter::{ClusterParser, Participation, ShardedMode, Subscribe};
use http::HeaderName;
use ipnet::IpNet;
use protocol::id::NodeTag;
use secrecy::SecretString;
use std::{net::SocketAddr, time::Duration};

section! {
    /// Listeners, threads, and who may connect how often.
    ["server"]
    pub struct ServerConfig {
        /// The public listener, `host:port`: clients, the client script, the demo page, probes.
        /// Loopback by default, so that nothing is public that was not meant to be.
        listen: SocketAddr as Listen = "127.0.0.1:3000", env "CARILLON_LISTEN";
        /// The internal listener: metrics and probes. Nothing of it is ever served in public.
        internal_listen: SocketAddr as Listen = "127.0.0.1:3001", env "CARILLON_INTERNAL_LISTEN";
        /// Threads and fan-out lanes, 1 to 64; 0 is one for each core.
        workers: usize as Workers = "0", env "CARILLON_WORKERS";
        /// The first four characters of every id this node gives out (base64url). Empty is random
        /// at each start; some balancer recipes route by it and want it fixed.
        node_tag: Option<NodeTag> as Tag = "", env "CARILLON_NODE_TAG";
        /// Networks (CIDR) whose `X-Forwarded-For` and PROXY header are believed. Empty, because
        /// anybody can send these headers.
        trusted_proxies: Vec<IpNet> as Nets = "", env "CARILLON_TRUSTED_PROXIES";
        /// Whether trusted peers open each connection with a PROXY protocol v2 header.
        proxy_protocol: bool as Bool = "false";
        /// Most open connections; 0 is unlimited, that is bounded by file descriptors.
        connections_max: Option<usize> as Unlimited = "0";
        /// Most open connections of one client address; 0 is unlimited, since many clients may
        /// share one address. Trusted peers are exempt.
        connections_per_address_max: Option<usize> as Unlimited = "0";
        /// How long a client may take to send the head of a request: ends slow-header attacks.
        header_timeout: Duration as Period = "10s";
        /// How long a client may take to send the body of a request; slow mobile uplinks need a
        /// while for a full payload.
        body_timeout: Duration as Period = "20s";
        /// How long an idle HTTP connection is kept for the next request. Longer than the 60 s
        /// after which most balancers drop theirs, so that they never write into a closing one.
        keep_alive: Duration as Period = "75s";
        /// Whether the public listener answers `/healthz` and `/readyz` (status and one word).
        public_probes: bool as Bool = "true";
    }
}

section! {
    /// Engine.IO: transports, timings and payloads. The defaults are those of Node's engine.io, so
    /// that clients see no difference.
    ["engine"]
    pub struct EngineConfig {
        /// The path of the Engine.IO endpoint. `add_trailing_slash` decides how it ends.
        path: String as Text = "/socket.io/";
        /// Whether `path` ends with a slash; Node's `addTrailingSlash`. Turn it off for clients that
        /// leave the slash out.
        add_trailing_slash: bool as Bool = "true";
        /// How often the server pings.
        ping_interval: Duration as Period = "25s";
        /// How long a client may take to answer a ping.
        ping_timeout: Duration as Period = "20s";
        /// The largest message a client may send; Node's `maxHttpBufferSize`.
        max_payload: usize as Bytes = "1MB";
        /// How long a client may stay connected without joining a namespace.
        connect_timeout: Duration as Period = "45s";
        /// How long an upgrade from polling to WebSocket may take.
        upgrade_timeout: Duration as Period = "10s";
        /// The transports that are served.
        transports: Transports as Transports = "polling,websocket";
        /// Whether a polling client may upgrade to WebSocket.
        allow_upgrades: bool as Bool = "true";
        /// The name of the cookie that carries the session id, for balancers that stick to it
        /// (Node's name for it is `io`). Empty sets none.
        cookie: Option<String> as OptionalText = "";
        /// Origins that may connect: exact (`https://example.com`), with one leading wildcard
        /// (`https://*.example.com`), or `*`. Empty is the same host, so that no foreign page can
        /// use a visitor's session.
        origins: Origins as Origins = "";
        /// Whether browsers may send cookies across origins (`Access-Control-Allow-Credentials`).
        /// Refused together with the origin `*`.
        credentials: bool as Bool = "false";
        /// Most bytes queued for one client; more closes it as a slow consumer.
        outbox_max: usize as Bytes = "1MiB";
        /// How long a client may take no byte of what is queued before it is closed.
        stall_timeout: Duration as Period = "10s";
        /// Most packets without a message, such as pongs, in one polling payload. Messages are bounded
        /// by `max_payload`: official clients send thousands of small ones at once.
        packets_per_payload_max: usize as Count = "1000";
        /// Most WebSocket frames of one message.
        frames_per_message_max: usize as Count = "1000";
    }
}

section! {
    /// Socket.IO: packets, rooms and namespaces of one client.
    ["socket"]
    pub struct SocketConfig {
        /// `json`, or `msgpack` for clients that use `socket.io-msgpack-parser`.
        parser: Parser as Parser = "json";
        /// Most binary attachments of one packet.
        attachments_max: usize as Count = "10";
        /// How long the attachments of a packet may take to arrive.
        attachments_timeout: Duration as Period = "10s";
        /// Most rooms one socket may be in.
        rooms_per_socket_max: usize as Count = "1000";
        /// Most namespaces one client may be connected to.
        namespaces_per_client_max: usize as Count = "100";
        /// Most namespaces that exist at once because a pattern matched; each costs memory on
        /// every node.
        dynamic_namespaces_max: usize as Count = "1000";
        /// Which headers of a client's first request other servers see in the `handshake` of
        /// fetched sockets. None, because headers hold what clients did not mean to publish;
        /// `cookie` and `authorization` are never shared.
        share_headers: Vec<HeaderName> as HeaderNames = "";
        /// Whether other servers see what a client sent as `auth`, up to 4 KiB, in the `handshake` of
        /// fetched sockets. Off, because it mostly holds a secret.
        share_auth: bool as Bool = "false";
        /// How long a socket may wait for room in the fan-out queues before it is closed.
        overload_timeout: Duration as Period = "5s";
    }
}

section! {
    /// The other nodes and Redis between them.
    ["cluster"]
    pub struct ClusterConfig {
        /// `memory` (this node alone), `redis` (classic publish and subscribe, as Node's
        /// `@socket.io/redis-adapter`) or `redis-sharded` (Redis 7, as its `createShardedAdapter`).
        /// Empty is `redis` where a Redis is named, else `memory`.
        adapter: AdapterMode as AdapterMode = "", env "CARILLON_ADAPTER";
        /// The Redis, `redis://` or `rediss://` (TLS). Several, separated by commas, are tried in
        /// turn; of a Redis Cluster some of its nodes suffice. Sentinels are
        /// `redis+sentinel://host:26379,host:26379/master-name` (`rediss+sentinel` with TLS). It may
        /// hold a password: prefer the environment or a file. A database number in it separates
        /// nothing, since channels are shared by all databases: use `prefix`.
        redis: Vec<SecretString> as SecretUrls = "", env "CARILLON_REDIS";
        /// What every channel begins with; Node's `key`. All nodes of one cluster use the same.
        prefix: String as Text = "socket.io", env "CARILLON_PREFIX";
        /// How far this node takes part, so that a live cluster of Node servers can be joined in
        /// stages: `broadcasts` (nobody waits for this node), `commands` (also joins, leaves,
        /// disconnects and `serverSideEmit` of others), `full` (counted, and answers everything).
        participation: Participation as ParticipationWord = "full";
        /// What is received of the broadcasts to single rooms, with `redis`: `all`, as Node does, or
        /// `interest`, only those for rooms with members here. For large clusters, where most
        /// messages are for others; between the join of a room from another server and its
        /// confirmation messages of Node servers may be missed.
        subscribe: Subscribe as SubscribeWord = "all";
        /// The channels of `redis-sharded`, Node's `subscriptionMode`: `static` (one for each
        /// namespace), `dynamic` (one more for each room) or `dynamic-private` (also for the rooms
        /// that sockets have by their id). All servers of one cluster use the same.
        sharded_mode: ShardedMode as ShardedModeWord = "dynamic";
        /// How broadcasts are encoded with `redis`, Node's `parser`: `msgpack` or `json`, which no
        /// binary data survives. All servers and emitters of one cluster use the same.
        parser: ClusterParser as ClusterParserWord = "msgpack";
        /// How long other servers may take to answer, Node's `requestsTimeout`.
        requests_timeout: Duration as Period = "5s";
        /// Whether answers go to a channel that only the server that asked receives, Node's
        /// `publishOnSpecificResponseChannel`. On, because all versions of Node's adapter take such
        /// answers and the other servers are spared them.
        specific_response_channel: bool as Bool = "true";
        /// Most requests of this node that wait for answers at once.
        requests_max: usize as Count = "10000";
        /// Most bytes of answers to one request; about 100,000 described sockets.
        response_max: usize as Bytes = "64MiB";
        /// How long the channel of a room stays subscribed after its last member has left, where
        /// channels follow rooms: the next visitor finds it there.
        follow_linger: Duration as Human = "30s";
        /// Where other nodes reach this one, `host:port`; told to them by the registry of nodes.
        advertise: Option<String> as OptionalText = "", env "CARILLON_ADVERTISE";
        /// Whether sockets that may have missed messages while Redis was lost are kept (`keep`, as
        /// Node does) or closed (`close`), so that clients reconnect and fetch what they missed.
        on_gap: OnGap as OnGap = "keep";
        /// Whether a node that has lost Redis stops being ready. Off, because local delivery goes
        /// on and all nodes would turn unready at once.
        ready_needs_redis: bool as Bool = "false";
        /// How often a probe is sent through Redis and back; two misses rebuild the connections.
        probe_interval: Duration as Period = "3s";
        /// How long connecting to Redis may take.
        connect_timeout: Duration as Period = "1s";
        /// How long a publish may wait for Redis' answer.
        publish_timeout: Duration as Period = "2s";
        /// Most frames waiting to be published; more are lost for the other nodes, and counted.
        publish_queue_frames: usize as Count = "16384";
        /// Most bytes waiting to be published.
        publish_queue_max: usize as Bytes = "64MiB";
        /// Most frames received and not yet delivered, per namespace; more is a gap.
        receive_queue_frames: usize as Count = "16384";
        /// Most bytes received and not yet delivered, per namespace.
        receive_queue_max: usize as Bytes = "64MiB";
        /// The largest frame taken from Redis; a larger one is dropped and treated as a gap.
        frame_max: usize as Bytes = "16MiB";
    }
}

section! {
    /// How the node leaves after TERM.
    ["drain"]
    pub struct DrainConfig {
        /// How long the node goes on serving after it has turned unready: balancers need a probe
        /// or two to notice.
        ready_delay: Duration as Human = "5s";
        /// The window over which sessions are closed, so that reconnecting clients do not arrive
        /// at the other nodes all at once.
        spread: Duration as Human = "20s";
        /// When everything that is still open is closed. At least `ready_delay` + `spread`.
        deadline: Duration as Period = "40s";
    }
}

section! {
    /// What is logged and how.
    ["log"]
    pub struct LogConfig {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: LogLevel as LogLevel = "info", env "CARILLON_LOG_LEVEL";
        /// `text`, `json` (one object per line), or `auto`: text on a terminal, else JSON.
        format: LogFormat as LogFormat = "auto", env "CARILLON_LOG_FORMAT";
    }
}
