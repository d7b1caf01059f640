//! From what was written to what is true: the relations between settings.

use super::{
    AdapterMode, Auth, ClusterConfig, Config, ConfigError, DrainConfig, EngineConfig,
    NamespaceConfig, NamespacePath, Origins, RawConfig, ServerConfig,
    fields::{Complaints, Fields},
    load::DEMO,
    section::Section,
};
use crate::rules::Rules;
use adapter::{ClusterParser, Participation, ShardedMode, Subscribe};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashSet;
use toml::Value;

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        check(raw).map(|(config, ..)| config)
    }
}

/// Makes the configuration; beside it what the operator should know, and the namespaces as they
/// were written.
pub(super) fn check(mut raw: RawConfig) -> Result<(Config, Vec<String>, Vec<Value>), ConfigError> {
    let mut config = Config {
        server: raw.section(),
        engine: raw.section(),
        socket: raw.section(),
        cluster: raw.section(),
        drain: raw.section(),
        log: raw.section(),
        namespaces: Vec::new(),
        demo: false,
    };
    let written = WrittenCluster {
        adapter: raw.is_written(ClusterConfig::NAME, "adapter"),
        sharded_mode: raw.is_written(ClusterConfig::NAME, "sharded_mode"),
        follow_linger: raw.is_written(ClusterConfig::NAME, "follow_linger"),
    };
    let complaints = &mut raw.complaints;
    config.demo = decide_demo(raw.demo, raw.has_file, &config.server, complaints);
    check_server(&config.server, complaints);
    check_engine(&mut config.engine, complaints);
    check_cluster(&mut config.cluster, &written, complaints);
    check_drain(&config.drain, complaints);
    if config.demo && raw.namespaces.is_empty() {
        let mut demo = RawConfig::default();
        demo.read_toml(DEMO, "demo.toml");
        complaints.0.append(&mut demo.complaints.0);
        raw.namespaces = demo.namespaces;
    }
    config.namespaces = read_namespaces(&raw.namespaces, complaints);
    if config.namespaces.is_empty() {
        // Node's servers have this namespace from the start too.
        raw.warnings.push(
            "no namespace is configured: clients can connect to `/`, and every event is refused"
                .to_owned(),
        );
        config.namespaces.push(NamespaceConfig::default());
    }
    if raw.complaints.0.is_empty() {
        Ok((config, raw.warnings, raw.namespaces))
    } else {
        Err(ConfigError { complaints: raw.complaints.0 })
    }
}

/// The demo lets everybody talk to everybody, so nothing but loopback gets it unasked.
fn decide_demo(
    asked: Option<bool>,
    has_file: bool,
    server: &ServerConfig,
    complaints: &mut Complaints,
) -> bool {
    match asked {
        Some(demo) if demo || server.listen.ip().is_loopback() => demo,
        _ if has_file => false,
        _ if server.listen.ip().is_loopback() => true,
        _ => {
            complaints.add(
                "server.listen",
                format!(
                    "{} is public, and nothing says what clients may do: name a configuration file with `--config FILE` (CARILLON_CONFIG), or run the built-in chat with `--demo` (CARILLON_DEMO=true)",
                    server.listen
                ),
            );
            false
        }
    }
}

fn check_server(server: &ServerConfig, complaints: &mut Complaints) {
    if server.listen == server.internal_listen && server.listen.port() != 0 {
        complaints
            .add("server.internal_listen", format!("{} is the public listener", server.listen));
    }
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        complaints.add(
            "server.proxy_protocol",
            "needs `trusted_proxies`: nobody else's header is believed",
        );
    }
}

fn check_engine(engine: &mut EngineConfig, complaints: &mut Complaints) {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte);
    if !engine.path.starts_with('/') || !engine.path.bytes().all(plain) {
        complaints
            .add("engine.path", format!("`{}` is not a path that starts with `/`", engine.path));
    }
    let bare = engine.path.trim_end_matches('/').len();
    engine.path.truncate(bare);
    if engine.add_trailing_slash {
        engine.path.push('/');
    } else if engine.path.is_empty() {
        complaints.add("engine.path", "`/` is nothing without its slash (`add_trailing_slash`)");
    }
    if engine.credentials && engine.origins == Origins::Any {
        complaints.add(
            "engine.credentials",
            "together with the origin `*` every page could act for its visitors: name the origins",
        );
    }
    if let Some(cookie) = &engine.cookie {
        // The token characters of RFC 9110.
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !cookie.bytes().all(token) {
            complaints
                .add("engine.cookie", format!("`{}` is not a cookie name", cookie.escape_debug()));
        }
    }
}

/// Settings of the cluster that were written, whatever their value: they say what was meant.
struct WrittenCluster {
    adapter: bool,
    sharded_mode: bool,
    follow_linger: bool,
}

fn check_cluster(
    cluster: &mut ClusterConfig,
    written: &WrittenCluster,
    complaints: &mut Complaints,
) {
    check_urls(&cluster.redis, complaints);
    if cluster.adapter != AdapterMode::Memory && cluster.redis.is_empty() {
        let adapter = cluster.adapter.as_str();
        complaints.add(
            "cluster.adapter",
            format!("`{adapter}` needs a Redis: `redis = \"redis://host\"` or CARILLON_REDIS"),
        );
    }
    if cluster.adapter == AdapterMode::Memory && !cluster.redis.is_empty() && !written.adapter {
        cluster.adapter = AdapterMode::Redis;
    }
    match cluster.adapter {
        // One file may serve a cluster and a single node of it on somebody's desk.
        AdapterMode::Memory => {}
        AdapterMode::Redis => check_classic(cluster, written, complaints),
        AdapterMode::RedisSharded => check_sharded(cluster, written, complaints),
    }
    if cluster.prefix.chars().any(char::is_control) {
        complaints.add("cluster.prefix", "holds a control character");
    }
    if cluster.prefix.is_empty() {
        complaints.add("cluster.prefix", "is empty; Node's default is `socket.io`");
    }
    if cluster.frame_max > cluster.receive_queue_max.min(cluster.publish_queue_max) {
        complaints.add(
            "cluster.frame_max",
            "is more than `receive_queue_max` or `publish_queue_max`, so such a frame could never pass",
        );
    }
    if cluster.advertise.as_ref().is_some_and(|address| {
        address.chars().any(|character| character.is_control() || character.is_whitespace())
    }) {
        complaints.add("cluster.advertise", "holds white space or a control character");
    }
}

fn check_classic(cluster: &ClusterConfig, written: &WrittenCluster, complaints: &mut Complaints) {
    if written.sharded_mode {
        complaints.add(
            "cluster.sharded_mode",
            "is for `adapter = \"redis-sharded\"`; with `redis`, `subscribe` says what is received",
        );
    }
    if written.follow_linger && cluster.subscribe == Subscribe::All {
        complaints.add(
            "cluster.follow_linger",
            "does nothing while everything is received: add `subscribe = \"interest\"` or leave it out",
        );
    }
}

fn check_sharded(cluster: &ClusterConfig, written: &WrittenCluster, complaints: &mut Complaints) {
    let mut only_classic = |key: &str, instead: &str| {
        let place = format!("cluster.{key}");
        complaints.add(&place, format!("is for `adapter = \"redis\"`; {instead}"));
    };
    if cluster.participation != Participation::Full {
        only_classic(
            "participation",
            "with `redis-sharded` whoever receives is counted, so leave it `full`",
        );
    }
    if cluster.subscribe != Subscribe::All {
        only_classic(
            "subscribe",
            "with `redis-sharded` channels follow rooms as `sharded_mode` says",
        );
    }
    if cluster.parser != ClusterParser::MessagePack {
        only_classic("parser", "Node's sharded adapter has no such option");
    }
    if !cluster.specific_response_channel {
        only_classic(
            "specific_response_channel",
            "with `redis-sharded` answers always go to who asked",
        );
    }
    if written.follow_linger && cluster.sharded_mode == ShardedMode::Static {
        complaints.add(
            "cluster.follow_linger",
            "does nothing with `sharded_mode = \"static\"`, where rooms have no channels",
        );
    }
}

fn check_urls(urls: &[SecretString], complaints: &mut Complaints) {
    for url in urls {
        check_redis(url.expose_secret(), complaints);
    }
    let n_sentinels =
        urls.iter().filter(|url| url.expose_secret().contains("+sentinel://")).count();
    if n_sentinels > 0 && urls.len() > 1 {
        complaints.add(
            "cluster.redis",
            "Sentinels stand alone, all in one address: `redis+sentinel://host:26379,host:26379/master-name`",
        );
    }
}

/// The address may hold a password, so no complaint repeats any part of it but a known scheme.
fn check_redis(url: &str, complaints: &mut Complaints) {
    let place = "cluster.redis";
    let Some((scheme, rest)) = url.split_once("://") else {
        return complaints.add(place, "is neither `redis://…` nor `rediss://…`");
    };
    let (authority, path) = rest.split_once(['/', '?', '#']).unwrap_or((rest, ""));
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let nameless = |host: &str| host.is_empty() || host.starts_with(':');
    match scheme {
        "redis" | "rediss" if hosts.contains(',') => complaints.add(
            place,
            "of several addresses each has its own scheme: `redis://host,redis://host`",
        ),
        "redis+sentinel" | "rediss+sentinel" if path.is_empty() => complaints
            .add(place, format!("names no master: `{scheme}://host:26379,host:26379/master-name`")),
        "redis" | "rediss" | "redis+sentinel" | "rediss+sentinel" => {
            if hosts.split(',').any(nameless) {
                complaints.add(place, "names no host");
            }
        }
        _ => complaints.add(place, "is neither `redis://…` nor `rediss://…`"),
    }
}

fn check_drain(drain: &DrainConfig, complaints: &mut Complaints) {
    if drain.deadline < drain.ready_delay + drain.spread {
        complaints.add("drain.deadline", "is less than `ready_delay` + `spread`, so sessions would be cut off while they are being closed");
    }
}

fn read_namespaces(namespaces: &[Value], complaints: &mut Complaints) -> Vec<NamespaceConfig> {
    let mut seen = HashSet::new();
    let mut configs = Vec::new();
    for (index, value) in namespaces.iter().enumerate() {
        let Some(mut fields) = Fields::of(value, format!("namespace[{index}]"), complaints) else {
            continue;
        };
        let path = fields.text("path", complaints);
        match path {
            Some(path) => fields.place = format!("namespace `{path}`"),
            None if fields.get("path").is_none() => complaints.add(&fields.place, "has no `path`"),
            None => {}
        }
        if let Some(path) = path {
            check_path(path, &fields.place, complaints);
            if !seen.insert(path) {
                complaints.add(&fields.place, "is there twice");
            }
        }
        let auth = read_auth(&mut fields, complaints);
        let rules = Rules::read(&mut fields, complaints);
        fields.finish(complaints);
        if let Some(path) = path {
            configs.push(NamespaceConfig { path: NamespacePath::from(path), auth, rules });
        }
    }
    configs
}

/// What a client could ask for: a comma ends the namespace in a packet, a question mark its path.
fn check_path(path: &str, place: &str, complaints: &mut Complaints) {
    if !path.starts_with('/') {
        complaints.add(place, "does not start with `/`");
    }
    if path.chars().any(|character| character.is_control() || ",?#".contains(character)) {
        complaints.add(place, "holds a control character, `,`, `?` or `#`");
    }
}

fn read_auth(fields: &mut Fields<'_>, complaints: &mut Complaints) -> Auth {
    match fields.text("auth", complaints) {
        None | Some("none") => {}
        Some(auth @ ("jwt" | "webhook")) => {
            complaints.add(
                &fields.at("auth"),
                format!("`{auth}` comes with backends, which this release has not"),
            );
        }
        Some(other) => complaints
            .add(&fields.at("auth"), format!("`{other}` is none of `none`, `jwt`, `webhook`")),
    }
    Auth::None
}
