//! Channels that follow rooms: in mode `redis` by interest, in mode `redis-sharded` in the dynamic modes.

use crate::{
    eventually,
    node::{Node, config},
    redis_server::RedisServer,
    requests::{in_rooms, modes},
    soon,
};
use adapter::{
    AdapterConfig, Flags, Follow, GapCause, LinkState, Mode, Published, Selection, Subscribe,
};
use protocol::{id::NodeTag, socket::EventData};
use std::{collections::BTreeSet, time::Duration};
use tokio::sync::oneshot;

/// The modes in which channels follow rooms.
fn following(url: &str) -> Vec<(&'static str, AdapterConfig)> {
    let mut modes = modes(url);
    modes.retain(|(name, _)| ["classic-interest", "dynamic", "dynamic-private"].contains(name));
    modes
}

fn interest(redis: &RedisServer) -> AdapterConfig {
    AdapterConfig { subscribe: Subscribe::Interest, ..config(&redis.url()) }
}

fn tag(text: &str) -> Option<NodeTag> {
    Some(NodeTag::parse(text).expect("four characters"))
}

async fn tagged(config: AdapterConfig, text: &str) -> Node {
    let node = Node::launch_tagged(config, tag(text));
    node.up().await;
    node
}

/// The channels of rooms that anybody subscribes to, without what is subscribed to anyway.
async fn room_channels(redis: &RedisServer, config: &AdapterConfig) -> BTreeSet<String> {
    let what = if config.mode == Mode::RedisSharded { "SHARDCHANNELS" } else { "CHANNELS" };
    let base = format!("{}#/#", config.key);
    let channels: Vec<String> = redis.run(&["PUBSUB", what]).await;
    let rooms =
        channels.iter().filter_map(|channel| channel.strip_prefix(&base)?.strip_suffix('#'));
    // The uid of a node is 12 characters long, no room of these tests is.
    rooms.filter(|room| room.len() != 12).map(str::to_owned).collect()
}

async fn follows_exactly(redis: &RedisServer, config: &AdapterConfig, rooms: &[&str]) {
    let expected: BTreeSet<_> = rooms.iter().map(ToString::to_string).collect();
    let what = format!("the channels of {rooms:?}");
    eventually(&what, async || room_channels(redis, config).await == expected).await;
}

fn send(sender: oneshot::Sender<()>) {
    // Who does not wait any more needs no word.
    let _ = sender.send(());
}

/// Joins a room as a client does: it is acknowledged when what is sent to the room is received.
async fn join(node: &Node, socket: &str, room: &str) {
    let (sender, followed) = oneshot::channel();
    node.adapter.when_followed("/", room, move || send(sender));
    soon("the channel of the room", followed).await.expect("called");
    node.add_socket(socket, &[room], None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_receives_only_what_its_sockets_need() {
    let redis = RedisServer::start().await;
    for (mode, config) in following(&redis.url()) {
        let (a, b) = (tagged(config.clone(), "aaaa").await, tagged(config.clone(), "bbbb").await);
        join(&b, "bbbbsocket0123456789", "here").await;
        for number in 0..50 {
            a.emit_to("/", &[&format!("elsewhere{number}")], "unheard");
        }
        a.emit_to("/", &["here"], "room");
        b.hears("room").await;
        // A socket by its id.
        a.emit_to("/", &["bbbbsocket0123456789"], "id");
        b.hears("id").await;
        a.emit_to("/", &["here", "elsewhere"], "rooms");
        b.hears("rooms").await;
        a.emit("everyone");
        b.hears("everyone").await;
        assert_eq!(b.texts().len(), 4, "{mode}");
        assert_eq!(b.received("no_room"), 0.0, "{mode}: nothing came in vain");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_told_as_the_mode_needs_them() {
    let redis = RedisServer::start().await;
    for (mode, config) in modes(&redis.url()) {
        let untagged = Node::launch(config.clone()).adapter.follows();
        let tagged = Node::launch_tagged(config, tag("aaaa")).adapter.follows();
        let expected = match mode {
            "classic-interest" | "dynamic" => (Follow::AllRooms, Follow::PublicRooms),
            "dynamic-private" => (Follow::AllRooms, Follow::AllRooms),
            _ => (Follow::Nothing, Follow::Nothing),
        };
        assert_eq!((untagged, tagged), expected, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_have_the_channels_that_publishers_use() {
    let redis = RedisServer::start().await;
    for (mode, config) in following(&redis.url()) {
        let node = tagged(config.clone(), "aaaa").await;
        // An id of this node, one as other libraries make them, and a public room as long as an id.
        let id = "aaaabcdefghij0123456";
        let rooms = [id, "sixteen-chars-id", "public", "public-room-with-20u", "aaaaroom"];
        rooms.iter().for_each(|room| node.adapter.room_opened("/", room));
        let expected = match mode {
            // What begins with the own tag comes by the pattern.
            "classic-interest" => vec!["sixteen-chars-id", "public", "public-room-with-20u"],
            "dynamic" => vec!["sixteen-chars-id", "public", "aaaaroom"],
            _ => rooms.to_vec(),
        };
        follows_exactly(&redis, &config, &expected).await;
        let n_followed = node.metric("carillon_cluster_rooms_followed", None);
        assert_eq!(n_followed, expected.len() as f64, "{mode}");
        node.adapter.close_namespace("/");
        follows_exactly(&redis, &config, &[]).await;
        assert_eq!(node.metric("carillon_cluster_rooms_followed", None), 0.0, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tag_ids_are_followed_and_nothing_comes_twice() {
    let redis = RedisServer::start().await;
    let config = interest(&redis);
    let (a, b) = (Node::start_with(config.clone()).await, Node::start_with(config.clone()).await);
    b.add_socket("sixteen-chars-id", &["r"], None);
    follows_exactly(&redis, &config, &["sixteen-chars-id", "r"]).await;
    a.emit_to("/", &["sixteen-chars-id"], "by id");
    a.emit_to("/", &["r"], "by room");
    a.emit("last");
    b.hears("last").await;
    let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["by id", "by room", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_begins_with_the_tag_comes_once() {
    let redis = RedisServer::start().await;
    let (a, b) = (tagged(interest(&redis), "aaaa").await, tagged(interest(&redis), "chat").await);
    join(&b, "s", "chatroom").await;
    a.emit_to("/", &["chatroom"], "once");
    a.emit("last");
    b.hears("last").await;
    assert_eq!(b.texts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_sockets_elsewhere_and_then_emits_reaches_them() {
    let redis = RedisServer::start().await;
    for (mode, config) in following(&redis.url()) {
        let (a, b) = (tagged(config.clone(), "aaaa").await, tagged(config.clone(), "bbbb").await);
        b.add_socket("s", &["old"], None);
        for number in 0..50 {
            let room = format!("new{number}");
            let joined = a.adapter.join("/", &in_rooms(&["old"]), &[room.as_str().into()]).await;
            assert_eq!(joined, Published::Queued, "{mode}");
            a.emit_to("/", &[&room], &room);
        }
        b.hears("new49").await;
        let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
        let expected: Vec<_> = (0..50).map(|number| format!("new{number}")).collect();
        assert_eq!(texts, expected, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_kept_for_a_while_after_the_last_member_left() {
    let redis = RedisServer::start().await;
    for (_, config) in following(&redis.url()) {
        let follow_linger = Duration::from_secs(2);
        let config = AdapterConfig { follow_linger, ..config };
        let node = tagged(config.clone(), "aaaa").await;
        node.adapter.room_opened("/", "kept");
        node.adapter.room_opened("/", "left");
        follows_exactly(&redis, &config, &["kept", "left"]).await;
        node.adapter.room_closed("/", "kept");
        node.adapter.room_closed("/", "left");
        // Whoever comes back meets the channel as it was.
        node.adapter.room_opened("/", "kept");
        assert_eq!(room_channels(&redis, &config).await.len(), 2);
        follows_exactly(&redis, &config, &["kept"]).await;
        node.adapter.room_closed("/", "kept");
        // One that was asked for and never joined goes the same way.
        node.adapter.when_followed("/", "never", || {});
        follows_exactly(&redis, &config, &["kept", "never"]).await;
        follows_exactly(&redis, &config, &[]).await;
        assert_eq!(node.metric("carillon_cluster_rooms_followed", None), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_are_acknowledged_at_once_where_nothing_is_to_be_waited_for() {
    let mut redis = RedisServer::start().await;
    let called = |node: &Node, room: &str| {
        let (sender, called) = oneshot::channel();
        node.adapter.when_followed("/", room, move || send(sender));
        called
    };
    let all = Node::start(&redis.url()).await;
    assert!(called(&all, "r").try_recv().is_ok(), "nothing is followed");
    let node = tagged(interest(&redis), "aaaa").await;
    assert!(called(&node, "aaaaown").try_recv().is_ok(), "it comes by the pattern");
    soon("the channel", called(&node, "r")).await.expect("called");
    assert!(called(&node, "r").try_recv().is_ok(), "it is received already");
    node.adapter.when_followed("/closed", "r", || {});
    redis.stop();
    node.link_is(LinkState::Down).await;
    soon("no wait without a link", called(&node, "other")).await.expect("called");
    // What was asked for meanwhile is followed when it is back.
    redis.start_again().await;
    node.up().await;
    follows_exactly(&redis, &interest(&redis), &["r", "other"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_called_about_one_room_may_ask_for_another() {
    let redis = RedisServer::start().await;
    let node = tagged(interest(&redis), "aaaa").await;
    let (sender, called) = oneshot::channel();
    let adapter = node.adapter.clone();
    node.adapter.when_followed("/", "first", move || {
        adapter.room_opened("/", "first");
        let again = adapter.clone();
        adapter.when_followed("/", "first", move || {
            again.when_followed("/", "second", move || send(sender));
        });
    });
    soon("both channels", called).await.expect("called");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_rooms_over_four_nodes_cost_each_node_its_own() {
    let redis = RedisServer::start().await;
    for (mode, config) in following(&redis.url()) {
        let mut nodes = Vec::new();
        for name in ["aaaa", "bbbb", "cccc", "dddd"] {
            nodes.push(tagged(config.clone(), name).await);
        }
        let rooms: Vec<_> = (0..1000).map(|number| format!("room{number}")).collect();
        for (number, room) in rooms.iter().enumerate() {
            nodes[number % 4].adapter.room_opened("/", room);
        }
        eventually("all channels", async || room_channels(&redis, &config).await.len() == 1000)
            .await;
        for node in &nodes {
            assert_eq!(node.metric("carillon_cluster_rooms_followed", None), 250.0, "{mode}");
        }
        // The first publishes; it receives its own messages too, by what it follows.
        for room in &rooms {
            assert_eq!(nodes[0].emit_to("/", &[room], room), Published::Queued);
        }
        for (number, node) in nodes.iter().enumerate() {
            if number > 0 {
                node.recorded("its rooms", |records| records.len() == 250).await;
                let of_own = |text: &str| text[4..].parse::<usize>().is_ok_and(|n| n % 4 == number);
                assert!(node.texts().iter().all(|(_, text)| of_own(text)), "{mode}");
            }
            let received = ["delivered", "own", "no_room", "ignored", "foreign"];
            eventually("the counts", async || {
                received.iter().map(|result| node.received(result)).sum::<f64>() == 250.0
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn churn_of_rooms_costs_a_member_no_message() {
    let redis = RedisServer::start().await;
    for (mode, config) in following(&redis.url()) {
        let follow_linger = Duration::from_millis(50);
        let config = AdapterConfig { follow_linger, ..config };
        let (a, b) = (tagged(config.clone(), "aaaa").await, tagged(config.clone(), "bbbb").await);
        b.adapter.room_opened("/", "steady");
        follows_exactly(&redis, &config, &["steady"]).await;
        for number in 0..200 {
            // 5,000 joins and as many leaves, while messages go to who stays.
            for other in 0..25 {
                let room = format!("r{}", number * 25 + other);
                b.adapter.room_opened("/", &room);
                b.adapter.room_closed("/", &room);
            }
            a.emit_to("/", &["steady"], &number.to_string());
            tokio::task::yield_now().await;
        }
        b.hears("199").await;
        let texts: Vec<_> = b.texts().into_iter().map(|(_, text)| text).collect();
        let expected: Vec<_> = (0..200).map(|number| number.to_string()).collect();
        assert_eq!(texts, expected, "{mode}");
        assert!(b.gaps().is_empty(), "{mode}");
        follows_exactly(&redis, &config, &["steady"]).await;
        assert_eq!(b.metric("carillon_cluster_rooms_followed", None), 1.0, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_lost_on_a_room_channel_is_a_gap_for_that_room() {
    let redis = RedisServer::start().await;
    let a = tagged(interest(&redis), "aaaa").await;
    let b = tagged(AdapterConfig { cluster_frame_max: 1000, ..interest(&redis) }, "bbbb").await;
    join(&b, "s", "room").await;
    a.emit_to("/", &["room"], &"x".repeat(1000));
    a.emit("after");
    b.hears("after").await;
    let gaps = b.gaps();
    assert!(
        matches!(&gaps[..], [crate::node::Record::Gap { room: Some(room), cause: GapCause::Overflow, .. }]
            if room == "room"),
        "{gaps:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_know_nothing_of_interest_reach_whoever_follows() {
    let redis = RedisServer::start().await;
    let node = tagged(interest(&redis), "bbbb").await;
    let all = Node::start(&redis.url()).await;
    join(&node, "s", "room").await;
    // A server that subscribes to everything publishes as Node does.
    let flags = Flags::default();
    let data = EventData { json: r#"["ev","x"]"#.into(), attachments: Vec::new() };
    let selection = Selection { rooms: vec!["room".into()], except: vec!["y".into()] };
    assert_eq!(all.adapter.broadcast("/", &selection, flags, &data), Published::Queued);
    node.hears("x").await;
    node.emit_to("/", &["room"], "back");
    all.hears("back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_that_are_left_at_once_do_not_add_up() {
    const LINGERING_MAX: f64 = 10_000.0;
    let redis = RedisServer::start().await;
    let node = tagged(interest(&redis), "aaaa").await;
    for number in 0..12_000 {
        let room = format!("fleeting{number}");
        node.adapter.room_opened("/", &room);
        node.adapter.room_closed("/", &room);
    }
    let followed = || node.metric("carillon_cluster_rooms_followed", None);
    eventually("only so many", async || followed() == LINGERING_MAX).await;
    join(&node, "s", "lasting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_room_may_ask_for_anything_when_its_namespace_is_closed() {
    let redis = RedisServer::start().await;
    let node = tagged(interest(&redis), "aaaa").await;
    // Nothing is confirmed any more.
    redis.freeze();
    let (sender, called) = oneshot::channel();
    let adapter = node.adapter.clone();
    node.adapter.when_followed("/", "room", move || {
        adapter.open_namespace("/");
        adapter.room_opened("/", "other");
        send(sender);
    });
    // On a thread of its own, which nobody waits for should it hang.
    let adapter = node.adapter.clone();
    std::thread::spawn(move || adapter.close_namespace("/"));
    soon("the call", called).await.expect("called");
    redis.thaw();
}
