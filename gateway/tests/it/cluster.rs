//! What other servers see of a node, asked for as a Node server would, in its own words.

use serde_json::{Value, json};

use super::support::http::{self, Http};
use super::support::redis::RedisClient;
use super::support::{Launch, Node, RULES, Redis, Ws, until, within};

/// A namespace in which events of servers do something.
const SERVER_RULES: &str = r#"
[[namespace]]
path = "/servers"
auth = "none"

[[namespace.on]]
event = "join"
join = "$0"
allow = ["*"]
ack = []

[[namespace.on_server]]
event = "news"
emit = { event = "told", to = { rooms = ["$0"] }, args = ["$1"] }

[[namespace.on_server]]
event = "who"
ack = ["me"]
"#;

/// A node whose link is up.
async fn start(redis: &Redis, settings: &str) -> Node {
    let cluster = format!("[cluster]\nredis = \"{}\"\n", redis.url(""));
    started(&format!("{cluster}{settings}")).await
}

async fn started(settings: &str) -> Node {
    let rules = format!("{RULES}{SERVER_RULES}");
    let node = Node::launch(Launch { settings, rules: &rules, neighbour: false }).await;
    let ready = async || http::get(node.internal, "/readyz").await.status == 200;
    until("the link to Redis is up", ready).await;
    node
}

/// A server without sockets that asks the node.
struct Server {
    asking: RedisClient,
    answers: RedisClient,
    namespace: &'static str,
}

impl Server {
    async fn connect(redis: &Redis, namespace: &'static str) -> Self {
        let mut answers = redis.connect().await;
        for channel in ["", "server#"] {
            let channel = format!("socket.io-response#{namespace}#{channel}");
            answers.run(&["SUBSCRIBE", &channel]).await;
        }
        Self { asking: redis.connect().await, answers, namespace }
    }

    async fn send(&mut self, mut request: Value) {
        request["uid"] = "server".into();
        let channel = format!("socket.io-request#{}#", self.namespace);
        self.asking.run(&["PUBLISH", &channel, &request.to_string()]).await;
    }

    /// Sends a request and gives the answer to it.
    async fn ask(&mut self, mut request: Value) -> Value {
        request["requestId"] = "r".into();
        self.send(request).await;
        let message = self.answers.next().await;
        let mut answer: Value =
            serde_json::from_str(message[2].as_str().expect("text")).expect("JSON");
        answer.as_object_mut().expect("an object").remove("uid");
        assert_eq!(answer["requestId"], "r");
        answer
    }
}

#[tokio::test]
async fn fetched_sockets_have_the_handshake_of_nodes_without_secrets() {
    let redis = Redis::start().await;
    let settings = "[socket]\nshare_headers = [\"User-Agent\"]\nshare_auth = true\n";
    let node = start(&redis, settings).await;
    let mut server = Server::connect(&redis, "/").await;
    let target = "/socket.io/?EIO=4&transport=websocket&tab=1&tab=2&name=a+b";
    let headers = [
        "User-Agent: test/1".to_owned(),
        "Cookie: secret".to_owned(),
        "Authorization: secret".to_owned(),
        format!("Origin: http://{}", node.public),
    ];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let mut ws = Ws::handshake(Http::connect(node.public).await, target, &headers)
        .await
        .expect("a WebSocket");
    let open: Value = serde_json::from_str(&ws.text().await[1..]).expect("JSON");
    let id = ws.enter("/", r#"{"token":"t"}"#).await;
    ws.call(r#"["join","a"]"#).await;

    let opts = json!({ "rooms": ["a"], "except": [] });
    let mut answer = server.ask(json!({ "type": 5, "opts": opts })).await;
    let text = answer.to_string();
    assert!(!text.contains(open["sid"].as_str().expect("an id")), "the session id is a secret");
    assert!(!text.contains("secret"));
    let handshake = &mut answer["sockets"][0]["handshake"];
    let issued = handshake["issued"].take().as_u64().expect("a time in milliseconds");
    assert!(issued > 1_700_000_000_000);
    let time = handshake["time"].take();
    assert!(
        time.as_str().is_some_and(|time| time.ends_with(" GMT+0000 (Coordinated Universal Time)"))
    );
    let mut rooms: Vec<_> =
        answer["sockets"][0]["rooms"].take().as_array().expect("an array").clone();
    rooms.sort_by_key(ToString::to_string);
    let mut expected = vec![Value::from("a"), Value::from(id.as_str())];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(rooms, expected);
    let expected = json!({
        "requestId": "r",
        "sockets": [{
            "id": id,
            "rooms": null,
            "data": {},
            "handshake": {
                "headers": { "user-agent": "test/1" },
                "time": null,
                "address": "127.0.0.1",
                "xdomain": true,
                "secure": false,
                "issued": null,
                "url": target,
                "query": { "EIO": "4", "transport": "websocket", "tab": "2", "name": "a b" },
                "auth": { "token": "t" },
            },
        }],
    });
    assert_eq!(answer, expected);
    node.finish().await;
}

#[tokio::test]
async fn events_of_servers_reach_the_sockets_that_rules_name_and_are_answered() {
    let redis = Redis::start().await;
    let node = start(&redis, "").await;
    let mut server = Server::connect(&redis, "/servers").await;
    let mut ws = Ws::open(node.public).await;
    ws.enter("/servers", "").await;
    ws.send(r#"42/servers,0["join","a"]"#).await;
    assert_eq!(ws.text().await, "43/servers,0[]");

    server.send(json!({ "type": 6, "data": ["news", "b", 1] })).await;
    server.send(json!({ "type": 6, "data": ["news", "a", 2] })).await;
    assert_eq!(ws.text().await, r#"42/servers,["told",2]"#);

    let mut ask =
        async |data: Value| server.ask(json!({ "type": 6, "data": data })).await["data"].take();
    assert_eq!(ask(json!(["who"])).await, "me");
    assert_eq!(ask(json!(["unknown"])).await, Value::Null);
    assert_eq!(ask(json!(["news"])).await["error"]["code"], "bad_argument");
    // What is answered is done already.
    assert_eq!(ask(json!(["news", "a", 3])).await, Value::Null);
    assert_eq!(ws.text().await, r#"42/servers,["told",3]"#);
    let counted = |result: &str| format!("carillon_server_events_total{{result=\"{result}\"}}");
    node.until_metric(&counted("done"), 4.0).await;
    assert_eq!(node.metric(&counted("refused")).await, 1.0);
    assert_eq!(node.metric(&counted("no_rule")).await, 1.0);
    node.finish().await;
}

/// A join is acknowledged once messages for the room arrive, in both modes in which rooms have
/// channels of their own.
#[tokio::test]
async fn what_is_sent_after_the_acknowledgement_of_a_join_arrives() {
    let redis = Redis::start().await;
    for (settings, count) in [
        ("subscribe = \"interest\"\nfollow_linger = \"0s\"\n", "NUMSUB"),
        ("adapter = \"redis-sharded\"\nfollow_linger = \"0s\"\n", "SHARDNUMSUB"),
    ] {
        let prefix = format!("prefix = \"{count}\"\n");
        let here = start(&redis, &format!("{prefix}{settings}")).await;
        let there = start(&redis, &format!("{prefix}{settings}")).await;
        let mut redis = redis.connect().await;
        let mut member = Ws::connect(here.public).await;
        let mut sender = Ws::connect(there.public).await;
        for n in 0..50 {
            let room = format!("room-{n}");
            let channel = format!("{count}#/#{room}#");
            member.send(&format!(r#"420["join","{room}"]"#)).await;
            assert_eq!(member.text().await, "430[]");
            let numsub = redis.run(&["PUBSUB", count, &channel]).await;
            assert_eq!(numsub[1], 1, "{room} is not subscribed when its join is acknowledged");
            sender.send(&format!(r#"421["to-room","{room}",{n}]"#)).await;
            assert_eq!(sender.text().await, "431[]");
            assert_eq!(member.text().await, format!(r#"42["msg",{n}]"#));
        }
        // The channels go with the last member.
        drop(member);
        let channel = format!("{count}#/#room-0#");
        until("the channel is given up", async || {
            redis.run(&["PUBSUB", count, &channel]).await[1] == 0
        })
        .await;
        here.finish().await;
        there.finish().await;
    }
}

/// The printed line permits what a node needs, and little else.
#[tokio::test]
async fn a_node_works_with_the_rights_that_print_acl_prints() {
    let redis = Redis::start().await;
    let mut admin = redis.connect().await;
    for (at, settings) in [
        "prefix = \"a*b\"\n",
        "prefix = \"a*b\"\nparticipation = \"commands\"\n",
        "prefix = \"a*b\"\nparticipation = \"broadcasts\"\n",
        "prefix = \"a*b\"\nsubscribe = \"interest\"\n[server]\nnode_tag = \"tag0\"\n",
        "prefix = \"a*b\"\nadapter = \"redis-sharded\"\n",
    ]
    .iter()
    .enumerate()
    {
        let url = redis.url("carillon:secret@");
        let settings = format!("[cluster]\nredis = \"{url}\"\n{settings}");
        let printed = printed_acl(&settings).await;
        assert!(!printed.contains("secret"));
        let line = printed.replace("PASSWORD", "secret");
        let arguments: Vec<String> = line.split_whitespace().map(unquoted).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(admin.run(&arguments).await, "OK");
        admin.run(&["ACL", "LOG", "RESET"]).await;

        // The other node may do everything.
        let here = started(&settings).await;
        let others = settings.replace(&url, &redis.url("")).replace("tag0", "tag1");
        let there = started(&others).await;
        let mut receiver = Ws::connect(here.public).await;
        let mut sender = Ws::connect(there.public).await;
        receiver.call(r#"["join","room"]"#).await;
        sender.send(&format!(r#"42["to-room","room",{at}]"#)).await;
        assert_eq!(receiver.text().await, format!(r#"42["msg",{at}]"#));
        receiver.send(&format!(r#"42["to-room","room",{at}]"#)).await;
        assert_eq!(receiver.text().await, format!(r#"42["msg",{at}]"#));
        // The registry of nodes holds both.
        until("both nodes are listed", async || {
            admin.run(&["ZCARD", "a*b-carillon:nodes"]).await.as_i64() >= Some(2)
        })
        .await;
        let denied = within("the log of Redis", admin.run(&["ACL", "LOG"])).await;
        assert_eq!(denied, json!([]), "with {settings}");
        here.finish().await;
        there.finish().await;
        admin.run(&["FLUSHALL"]).await;
    }
}

async fn printed_acl(settings: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("carillon.toml");
    std::fs::write(&file, format!("{settings}{RULES}{SERVER_RULES}")).expect("write");
    let mut command = super::support::node::command();
    command.arg("print-acl").arg("--config").arg(&file);
    let output = within("print-acl", command.output()).await.expect("the binary runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

/// An argument as `redis-cli` reads it; none here holds white space.
fn unquoted(argument: &str) -> String {
    match argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace(r"\\", r"\"),
        None => argument.to_owned(),
    }
}
