//! What is written becomes what is true, or a complaint that helps.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::{
    AdapterMode, ConfigError, Loaded, NamespacePath, OnGap, Origins, Sources, Transports, load,
};
use crate::config::load::DEMO;
use secrecy::ExposeSecret;
use std::{collections::BTreeMap, fs, io::Write as _, time::Duration};

/// Loads a file that holds `toml`.
pub(super) fn file(toml: &str) -> Result<Loaded, ConfigError> {
    file_and_environment(toml, &[])
}

fn file_and_environment(toml: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(toml.as_bytes()).unwrap();
    let file = Some(on_disk.path().to_owned());
    load(&Sources { file, environment: environment(variables), ..Sources::default() })
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn complaints(toml: &str) -> Vec<String> {
    file(toml).expect_err("the configuration is wrong").complaints
}

/// The only complaint.
fn complaint(toml: &str) -> String {
    let mut all = complaints(toml);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn every_setting_of_a_file_is_read() {
    let config = file(
        r#"
        [server]
        listen = "localhost:4000"
        workers = 3
        node_tag = "ab-_"
        trusted_proxies = ["10.0.0.0/8", "::1"]
        proxy_protocol = true
        connections_max = 10
        [engine]
        path = "/ws"
        add_trailing_slash = false
        ping_interval = "1m 30s"
        max_payload = "2MiB"
        outbox_max = 1000
        transports = ["websocket"]
        cookie = "io"
        origins = ["https://example.com", "https://*.example.com:8443"]
        credentials = true
        [cluster]
        redis = "redis://user:secret@localhost:6379/1"
        on_gap = "close"
        [[namespace]]
        path = "/"
        [[namespace]]
        path = "/tenant-*"
        auth = "none"
        "#,
    )
    .unwrap()
    .config;
    assert_eq!(config.server.listen.port(), 4000);
    assert!(config.server.listen.ip().is_loopback());
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.node_tag.unwrap().as_str(), "ab-_");
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert_eq!(config.server.connections_max, Some(10));
    assert_eq!(config.server.connections_per_address_max, None);
    assert_eq!(config.engine.path, "/ws");
    assert_eq!(config.engine.ping_interval, Duration::from_secs(90));
    assert_eq!(config.engine.max_payload, 2 << 20);
    assert_eq!(config.engine.outbox_max, 1000);
    assert_eq!(config.engine.transports, Transports { polling: false, websocket: true });
    assert_eq!(config.engine.cookie.as_deref(), Some("io"));
    let Origins::List(origins) = &config.engine.origins else { panic!("a list") };
    assert!(origins[0].matches("HTTPS://example.com"));
    assert!(!origins[0].matches("https://example.com.evil"));
    assert!(origins[1].matches("https://a.b.example.com:8443"));
    for other in
        ["https://.example.com:8443", "https://example.com:8443", "http://a.example.com:8443"]
    {
        assert!(!origins[1].matches(other), "{other}");
    }
    assert!(!origins[1].matches("https://evil/?.example.com:8443"));
    assert_eq!(config.cluster.adapter, AdapterMode::Redis);
    assert_eq!(config.cluster.on_gap, OnGap::Close);
    let paths: Vec<_> = config.namespaces.iter().map(|namespace| namespace.path.clone()).collect();
    assert_eq!(
        paths,
        [NamespacePath::Exact("/".to_owned()), NamespacePath::Pattern("/tenant-*".to_owned())]
    );
    assert!(paths[1].matches("/tenant-a*b") && !paths[1].matches("/tenan"));
}

#[test]
fn later_layers_win() {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk
        .write_all(b"[server]\nlisten = \"127.0.0.1:1\"\nworkers = 1\n[log]\nlevel = \"warn\"\n[drain]\nspread = \"1s\"")
        .unwrap();
    let loaded = load(&Sources {
        file: Some(on_disk.path().to_owned()),
        environment: environment(&[
            ("CARILLON_LISTEN", "127.0.0.1:2"),
            ("CARILLON_WORKERS", "2"),
            ("CARILLON_DRAIN_SPREAD", "2s"),
            ("CARILLON_LOG_LEVEL", ""),
        ]),
        flags: vec![("server", "listen", "127.0.0.1:3".to_owned())],
        demo: None,
    })
    .unwrap();
    assert_eq!(loaded.config.server.listen.port(), 3);
    assert_eq!(loaded.config.server.workers, 2);
    assert_eq!(loaded.config.drain.spread, Duration::from_secs(2));
    assert_eq!(loaded.config.log.level, super::LogLevel::Warn);
}

#[test]
fn every_mistake_is_named_in_one_run() {
    let complaints = complaints(
        r#"
        [server]
        listen = "nowhere"
        workers = 65
        node_tag = "abc"
        lisen = "x"
        ping_interval = "1s"
        proxy_protocol = "yes"
        [engine]
        path = "socket.io"
        ping_interval = "0s"
        ping_timeout = "20"
        max_payload = "1 elephant"
        transports = []
        cookie = "a b"
        origins = ["*"]
        credentials = true
        [cluster]
        adapter = "redis"
        frame_max = "65MiB"
        [drain]
        deadline = "24s"
        [sever]
        x = 1
        [[namespace]]
        path = "chat"
        auth = "jwt"
        [[namespace]]
        path = "chat"
        paht = 1
        "#,
    );
    insta::assert_snapshot!(complaints.join("\n"), @r#"
    server.lisen: unknown key; the nearest known one is `listen`
    server.ping_interval: unknown key; it belongs to `[engine]`
    server.proxy_protocol: is a string, not true or false
    sever: unknown key; the nearest known one is `server`
    server.listen: `nowhere` is not `host:port` (port 0 takes a free one)
    server.workers: 65 is not within 1 to 64
    server.node_tag: `abc` is not four base64url characters (letters, digits, `-`, `_`)
    engine.ping_interval: must be more than 0
    engine.ping_timeout: `20` is not a duration such as "750ms" or "25s"
    engine.max_payload: `1 elephant` is not a size such as "1MB" or "64KiB"
    engine.transports: names no transport, so nobody could connect
    engine.path: `socket.io` is not a path that starts with `/`
    engine.credentials: together with the origin `*` every page could act for its visitors: name the origins
    engine.cookie: `a b` is not a cookie name
    cluster.adapter: `redis` needs a Redis: `redis = "redis://host"` or CARILLON_REDIS
    cluster.frame_max: is more than `receive_queue_max` or `publish_queue_max`, so such a frame could never pass
    drain.deadline: is less than `ready_delay` + `spread`, so sessions would be cut off while they are being closed
    namespace `chat`: does not start with `/`
    namespace `chat`.auth: `jwt` comes with backends, which this release has not
    namespace `chat`: does not start with `/`
    namespace `chat`: is there twice
    namespace `chat`.paht: unknown key; the nearest known one is `path`
    "#);
}

#[test]
fn a_file_that_is_no_toml_is_one_complaint_with_its_place() {
    assert!(complaint("[server]\nlisten = ").contains(": line 2: "));
    assert!(!complaint("[cluster]\nredis = \"redis://:secret@host").contains("secret"));
    let missing = load(&Sources { file: Some("/does/not/exist".into()), ..Sources::default() });
    assert!(missing.unwrap_err().complaints[0].starts_with("/does/not/exist: "));
}

#[test]
fn redis_is_checked_and_never_shown() {
    for (url, says) in [
        (
            "redis+sentinel://:secret@host,host",
            "cluster.redis: names no master: `redis+sentinel://host:26379,host:26379/master-name`",
        ),
        ("redis+sentinel://:secret@host,:1/x", "cluster.redis: names no host"),
        (
            "redis://:secret@host,other",
            "cluster.redis: of several addresses each has its own scheme: `redis://host,redis://host`",
        ),
        (
            "redis://a,redis+sentinel://b/x",
            "cluster.redis: Sentinels stand alone, all in one address: `redis+sentinel://host:26379,host:26379/master-name`",
        ),
        ("http://:secret@host", "cluster.redis: is neither `redis://…` nor `rediss://…`"),
        ("secret", "cluster.redis: is neither `redis://…` nor `rediss://…`"),
        ("redis://:secret@", "cluster.redis: names no host"),
        ("redis://:6379", "cluster.redis: names no host"),
    ] {
        assert_eq!(complaint(&format!("[cluster]\nredis = \"{url}\"")), says);
    }
    assert_eq!(
        complaint("[cluster]\nadapter = \"redis-streams\""),
        "cluster.adapter: `redis-streams` comes with a later release"
    );
    let loaded =
        file("[cluster]\nredis = \"rediss://:secret@host\"\nadapter = \"memory\"").unwrap();
    assert_eq!(loaded.config.cluster.adapter, AdapterMode::Memory);
    let shown = crate::cli::effective(&loaded);
    assert!(shown.contains("redis = \"***\"") && !shown.contains("secret"));
    assert!(!format!("{loaded:?}").contains("secret"));
}

#[test]
fn several_addresses_of_redis_are_separated_by_commas() {
    for (written, urls) in [
        ("redis://a:1, rediss://:p@b", vec!["redis://a:1", "rediss://:p@b"]),
        (
            "redis+sentinel://u:p@a:1,b:2,c:3/main/0",
            vec!["redis+sentinel://u:p@a:1,b:2,c:3/main/0"],
        ),
    ] {
        let cluster = file(&format!("[cluster]\nredis = \"{written}\"")).unwrap().config.cluster;
        let read: Vec<_> = cluster.redis.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(read, urls);
        assert_eq!(cluster.adapter, AdapterMode::Redis);
    }
}

#[test]
fn settings_that_mean_nothing_together_are_refused() {
    let classic = "[cluster]\nredis = \"redis://a\"";
    let sharded = "[cluster]\nredis = \"redis://a\"\nadapter = \"redis-sharded\"";
    for (cluster, setting, key) in [
        (classic, "sharded_mode = \"dynamic\"", "sharded_mode"),
        (classic, "follow_linger = \"1s\"", "follow_linger"),
        (sharded, "participation = \"broadcasts\"", "participation"),
        (sharded, "participation = \"commands\"", "participation"),
        (sharded, "subscribe = \"interest\"", "subscribe"),
        (sharded, "parser = \"json\"", "parser"),
        (sharded, "specific_response_channel = false", "specific_response_channel"),
        (sharded, "sharded_mode = \"static\"\nfollow_linger = \"1s\"", "follow_linger"),
    ] {
        let complaint = complaint(&format!("{cluster}\n{setting}"));
        assert!(complaint.starts_with(&format!("cluster.{key}: ")), "{complaint}");
        // The same file serves a node that is alone.
        file(&format!("[cluster]\nadapter = \"memory\"\n{setting}")).unwrap();
    }
    for (cluster, setting) in [
        (classic, "subscribe = \"interest\"\nfollow_linger = \"1s\"\nparticipation = \"commands\""),
        (
            classic,
            "parser = \"json\"\nspecific_response_channel = false\nadvertise = \"node-1:3001\"",
        ),
        (sharded, "sharded_mode = \"dynamic-private\"\nfollow_linger = \"1s\""),
    ] {
        file(&format!("{cluster}\n{setting}")).unwrap();
    }
}

#[test]
fn secrets_may_stand_in_files() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"redis://:p@host\n").unwrap();
    let path = secret.path().to_str().unwrap();
    let by_file = file(&format!("[cluster]\nredis_file = \"{path}\"")).unwrap();
    let by_variable = file_and_environment(
        "[cluster]\nredis = \"redis://other\"",
        &[("CARILLON_REDIS_FILE", path)],
    )
    .unwrap();
    for loaded in [by_file, by_variable] {
        assert_eq!(loaded.config.cluster.redis[0].expose_secret(), "redis://:p@host");
        assert_eq!(loaded.config.cluster.adapter, AdapterMode::Redis);
    }
    let both = format!("[cluster]\nredis = \"redis://a\"\nredis_file = \"{path}\"");
    assert!(complaint(&both).ends_with("`redis` and `redis_file` exclude each other"));
    assert!(
        complaint("[cluster]\nredis_file = \"/none\"").starts_with("cluster.redis_file: /none: ")
    );
    // The empty variable takes the Redis of the file away.
    let off = file_and_environment("[cluster]\nredis = \"redis://a\"", &[("CARILLON_REDIS", "")]);
    assert_eq!(off.unwrap().config.cluster.adapter, AdapterMode::Memory);
}

#[test]
fn unknown_variables_warn_and_those_of_kubernetes_do_not() {
    let loaded = file_and_environment(
        "[[namespace]]\npath = \"/\"",
        &[
            ("CARILLON_LISEN", "x"),
            ("CARILLON_PORT", "tcp://10.0.0.1:3000"),
            ("CARILLON_PORT_3000_TCP_ADDR", "10.0.0.1"),
            ("CARILLON_SERVICE_HOST", "10.0.0.1"),
            ("CARILLON_CONFIG", "x"),
            ("CARILLON_DEMO", "false"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(
        loaded.warnings,
        ["unknown variable CARILLON_LISEN is ignored; the nearest known one is CARILLON_LISTEN"]
    );
}

#[test]
fn the_demo_runs_unasked_on_loopback_only() {
    let listening = |listen: &str, demo| {
        load(&Sources {
            environment: environment(&[("CARILLON_LISTEN", listen)]),
            demo,
            ..Sources::default()
        })
    };
    let demo = listening("127.0.0.1:0", None).unwrap();
    assert!(demo.config.demo && demo.warnings.is_empty());
    assert_eq!(demo.config.namespaces.len(), 1);
    assert!(listening("0.0.0.0:0", Some(true)).unwrap().config.demo);
    let off = listening("127.0.0.1:0", Some(false)).unwrap();
    assert!(!off.config.demo);
    assert_eq!(off.config.namespaces[0].path.as_str(), "/");
    assert_eq!(off.warnings.len(), 1);
    for demo in [None, Some(false)] {
        let refused = listening("0.0.0.0:0", demo).unwrap_err().to_string();
        assert!(refused.contains("--config") && refused.contains("--demo"), "{refused}");
    }
    assert!(!file("[server]\nlisten = \"0.0.0.0:0\"").unwrap().config.demo);
}

#[test]
fn shipped_configurations_are_good() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let loadtest = fs::read_to_string(format!("{root}/loadtest/gateway.toml")).unwrap();
    for toml in [DEMO, &loadtest] {
        let loaded = file(toml).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[test]
fn what_is_in_force_reads_back_as_itself() {
    let loaded =
        file(&format!("[engine]\nping_interval = \"750ms\"\norigins = [\"https://a.b\"]\n{DEMO}"))
            .unwrap();
    let shown = crate::cli::effective(&loaded);
    let again = crate::cli::effective(&file(&shown).unwrap());
    assert_eq!(shown, again);
    assert!(shown.contains("ping_interval = \"750ms\"\n"));
    assert!(shown.contains("max_payload = \"1MB\"\n"));
    assert!(shown.contains("outbox_max = \"1MiB\"\n"));
}
