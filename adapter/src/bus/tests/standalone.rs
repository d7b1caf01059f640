//! One Redis.

use super::redis_server::RedisServer;
use super::{Heard, LinkState, Mode, Peer, Topic, TopicKind, config, eventually, soon};
use std::collections::HashMap;

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_topic_gets_what_is_its_own() {
    let redis = RedisServer::start().await;
    let classic = Peer::start(Mode::Redis, &redis.url()).await;
    let sharded = Peer::start(Mode::RedisSharded, &redis.url()).await;
    classic.open(&[Topic::channel("a".into()), Topic::pattern("b*".into())]).await;
    sharded.open(&[Topic::shard("a".into())]).await;
    classic.publish("a", "1").expect("there is a link");
    classic.publish("bc", "2").expect("there is a link");
    sharded.publish("a", "3").expect("there is a link");
    classic.hears("bc", "2").await;
    sharded.hears("a", "3").await;
    let message = |channel: &str, text: &str| Heard::Message(channel.into(), text.into());
    assert_eq!(classic.heard(), [message("a", "1"), message("bc", "2")]);
    assert_eq!(sharded.heard(), [message("a", "3")]);

    classic.close(&[Topic::channel("a".into())]);
    sharded.close(&[Topic::shard("a".into())]);
    let count = async |what: &str| redis.run::<(String, usize)>(&["PUBSUB", what, "a"]).await.1;
    eventually("the end of both", async || count("NUMSUB").await + count("SHARDNUMSUB").await == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_waits_for_redis_but_not_for_a_link() {
    let mut redis = RedisServer::start().await;
    for (mode, kind) in [(Mode::Redis, TopicKind::Channel), (Mode::RedisSharded, TopicKind::Shard)]
    {
        let topic = |name: &str| Topic { kind, name: name.into(), is_counted: false };
        let peer = Peer::launch(&config(mode, "redis://127.0.0.1:1"));
        soon("at once without a link", peer.followed(&topic("a"))).await;

        let peer = Peer::start(mode, &redis.url()).await;
        let what = if mode == Mode::Redis { "NUMSUB" } else { "SHARDNUMSUB" };
        for number in 0..20 {
            let name = number.to_string();
            soon("a confirmation", peer.followed(&topic(&name))).await;
            let (_, count): (String, usize) = redis.run(&["PUBSUB", what, &name]).await;
            assert_eq!(count, 1, "called when it is confirmed");
        }
        soon("at once when it is confirmed", peer.followed(&topic("1"))).await;
        // Closed and opened again without a pause.
        for _ in 0..50 {
            peer.close(&[topic("1")]);
            soon("a confirmation", peer.followed(&topic("1"))).await;
            let (_, count): (String, usize) = redis.run(&["PUBSUB", what, "1"]).await;
            assert_eq!(count, 1);
        }

        redis.freeze();
        let waiting = peer.followed(&topic("late"));
        redis.stop();
        soon("when the link is lost", waiting).await;
        peer.link_is(LinkState::Down).await;
        redis.start_again().await;
        peer.up().await;
        let (_, count): (String, usize) = redis.run(&["PUBSUB", what, "late"]).await;
        assert_eq!(count, 1);
        assert_eq!(peer.n_gaps(), 1);
    }
}

/// What Redis has been asked so far, by command.
async fn calls(redis: &RedisServer) -> HashMap<String, u64> {
    let info: String = redis.run(&["INFO", "commandstats"]).await;
    let of = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_cost_what_they_are_and_not_what_there_is() {
    let redis = RedisServer::start().await;
    let peer = Peer::start(Mode::Redis, &redis.url()).await;
    let topics = |range: std::ops::Range<u32>| -> Vec<Topic> {
        range.map(|number| Topic::channel(format!("room{number}"))).collect()
    };
    peer.open(&topics(0..30_000)).await;
    let before = calls(&redis).await["subscribe"];
    assert!(before < 1_000, "{before} commands for 30,000 channels");
    // Five thousand join and five thousand leave.
    peer.close(&topics(0..5_000));
    peer.open(&topics(30_000..35_000)).await;
    let n_channels = async || {
        let info: redis::InfoDict = redis.run(&["INFO", "stats"]).await;
        info.get::<usize>("pubsub_channels").expect("it is told")
    };
    // The probes have one more.
    eventually("30,000 channels", async || n_channels().await == 30_001).await;
    let after = calls(&redis).await;
    assert!(after["subscribe"] - before < 500, "{after:?}");
    assert!(after["unsubscribe"] < 500, "{after:?}");
    peer.publish("room34999", "here").expect("there is a link");
    peer.hears("room34999", "here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_are_counted_and_a_stalled_redis_is_not_waited_for() {
    let redis = RedisServer::start().await;
    for (mode, kind) in [(Mode::Redis, TopicKind::Channel), (Mode::RedisSharded, TopicKind::Shard)]
    {
        let counted = Topic { kind, name: "counted".into(), is_counted: true };
        let a = Peer::start(mode, &redis.url()).await;
        let b = Peer::start(mode, &redis.url()).await;
        assert_eq!(a.bus.count("counted").await, Some(0));
        a.open(std::slice::from_ref(&counted)).await;
        b.open(&[counted]).await;
        assert_eq!(a.bus.count("counted").await, Some(2));
        let queries = a.bus.queries();
        let set = redis::cmd("SET").arg("key1").arg("x").to_owned();
        queries.run::<()>(&set).await.expect("it is set");
        let get = redis::cmd("GET").arg("key1").to_owned();
        assert_eq!(queries.run::<String>(&get).await.expect("it is told"), "x");
        redis.freeze();
        let questions = (0..20).map(|_| a.bus.count("counted"));
        let answers = soon("all of them", futures_util::future::join_all(questions)).await;
        assert_eq!(answers, [None; 20]);
        redis.thaw();
        eventually("an answer", async || a.bus.count("counted").await == Some(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_ready_is_asked_again() {
    let redis = RedisServer::start_with(&["--maxclients", "20"]).await;
    let peer = Peer::start(Mode::Redis, &redis.url()).await;
    peer.open(&[Topic::channel("a".into())]).await;
    // A password that came later: reconnecting is refused until it is gone.
    let _: String = redis.run(&["ACL", "SETUSER", "default", "resetpass", ">later"]).await;
    let mut others = Vec::new();
    let admin = {
        let url = format!("redis://:later@127.0.0.1:{}", redis.port());
        redis::Client::open(url).expect("a valid address")
    };
    let mut admin = admin.get_multiplexed_async_connection().await.expect("one is left");
    let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).to_owned();
    let _: i64 = kill.query_async(&mut admin).await.expect("killed");
    peer.link_is(LinkState::Down).await;
    // No place for one more.
    let open = redis::cmd("ACL").arg(&["SETUSER", "default", "nopass"]).to_owned();
    while let Ok(other) = tokio::net::TcpStream::connect(("127.0.0.1", redis.port())).await {
        others.push(other);
        if others.len() == 30 {
            break;
        }
    }
    let _: String = open.query_async(&mut admin).await.expect("set");
    let info = redis::cmd("INFO").arg("stats").to_owned();
    let n_rejected = async |admin: &mut redis::aio::MultiplexedConnection| {
        let info: redis::InfoDict = info.query_async(admin).await.expect("told");
        info.get::<u64>("rejected_connections").expect("it is told")
    };
    let before = n_rejected(&mut admin).await;
    while n_rejected(&mut admin).await < before + 3 {
        assert_ne!(*peer.bus.link().borrow(), LinkState::Up);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    others.clear();
    peer.up().await;
    peer.publish("a", "after").expect("there is a link");
    peer.hears("a", "after").await;
    assert_eq!(peer.n_gaps(), 1);
}
