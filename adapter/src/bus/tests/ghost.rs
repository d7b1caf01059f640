//! What a half-open link leaves behind.

use super::{
    LinkState, Mode, Peer, Topic, TopicKind, chaos_proxy::ChaosProxy, config, eventually,
    redis_server::RedisServer,
};

async fn count(redis: &RedisServer, mode: Mode) -> usize {
    let what = if mode == Mode::Redis { "NUMSUB" } else { "SHARDNUMSUB" };
    redis.run::<(String, usize)>(&["PUBSUB", what, "counted"]).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_not_counted_beside_the_new_one() {
    for (mode, kind) in [(Mode::Redis, TopicKind::Channel), (Mode::RedisSharded, TopicKind::Shard)]
    {
        let redis = RedisServer::start().await;
        let proxy = ChaosProxy::to(redis.port()).await;
        let counted = Topic { kind, name: "counted".into(), is_counted: true };
        let a = Peer::start(mode, &redis.url()).await;
        let b = Peer::start(mode, &proxy.url()).await;
        a.open(std::slice::from_ref(&counted)).await;
        b.open(&[counted]).await;
        for number in 0..3 {
            proxy.swallow();
            b.link_is(LinkState::Down).await;
            b.up().await;
            assert_eq!(count(&redis, mode).await, 2, "as many as there are");
            let text = number.to_string();
            a.publish("counted", &text).expect("there is a link");
            b.hears("counted", &text).await;
        }
        assert_eq!((a.n_gaps(), b.n_gaps()), (0, 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_end_it_is_counted_only_when_it_is_gone() {
    let redis = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "carillon", "on", ">secret", "allkeys", "allchannels", "+@all"];
    let _: String = redis.run(&[&user[..], &["-client|kill"]].concat()).await;
    let proxy = ChaosProxy::to(redis.port()).await;
    let url = proxy.url().replace("redis://", "redis://carillon:secret@");
    let topics = [Topic::channel("counted".into()).counted(), Topic::channel("other".into())];
    let a = Peer::start(Mode::Redis, &redis.url()).await;
    let b = Peer::launch(&config(Mode::Redis, &url));
    b.up().await;
    a.open(&topics).await;
    b.open(&topics).await;
    let old: String = redis.run(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    proxy.swallow();
    b.link_is(LinkState::Down).await;
    b.up().await;
    assert_eq!(count(&redis, Mode::Redis).await, 2, "the old one stands for the new one");
    a.publish("counted", "while haunted").expect("there is a link");
    b.hears("counted", "while haunted").await;

    // Redis finds out.
    let old = old.lines().find(|line| line.contains("user=carillon")).expect("b was there");
    let id = old.split_whitespace().find_map(|field| field.strip_prefix("id=")).expect("an id");
    let _: i64 = redis.run(&["CLIENT", "KILL", "ID", id]).await;
    // Messages come all the time, each once: also while the new one takes the place of the old one.
    let mut n_sent = 0;
    let mut n_after = 0;
    while n_after < 20 {
        a.publish("counted", &n_sent.to_string()).expect("there is a link");
        b.hears("counted", &n_sent.to_string()).await;
        n_sent += 1;
        if count(&redis, Mode::Redis).await == 2 {
            n_after += 1;
        }
    }
    let patterns = async || redis.run::<usize>(&["PUBSUB", "NUMPAT"]).await;
    eventually("no pattern", async || patterns().await == 0).await;
    a.publish("counted", "last").expect("there is a link");
    b.hears("counted", "last").await;
    assert!((0..n_sent).all(|number| b.times("counted", &number.to_string()) == 1));
    assert_eq!(b.n_gaps(), 1);
}
