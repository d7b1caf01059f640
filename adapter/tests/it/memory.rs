//! A node that is alone answers itself.

use crate::node::{Node, Record};
use adapter::{AdapterConfig, Flags, NodeDescription, Published, RequestCause, Selection};
use protocol::{id::NodeTag, socket::EventData};
use std::time::Duration;

fn event() -> EventData {
    EventData { json: r#"["q"]"#.into(), attachments: Vec::new() }
}

#[tokio::test]
async fn in_memory_mode_the_own_sockets_are_everybody() {
    let node = Node::launch(AdapterConfig::default());
    node.add_socket("s1", &["r"], Some(r#"["one"]"#));
    node.add_socket("s2", &[], Some(r#"["two"]"#));
    let adapter = &node.adapter;
    let all = Selection::default();
    let in_r = Selection { rooms: vec!["r".into()], except: Vec::new() };
    let fetched = adapter.fetch_sockets("/", &in_r).await.expect("whole");
    assert_eq!(fetched.len(), 1);
    assert_eq!(&*fetched[0].id, "s1");
    let ids = adapter.sockets("/", &[]).await.expect("whole");
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["s1".into(), "s2".into()]);
    let rooms = adapter.all_rooms("/").await.expect("whole");
    assert_eq!(rooms.into_iter().collect::<Vec<_>>(), ["r".into(), "s1".into(), "s2".into()]);
    assert_eq!(adapter.join("/", &all, &["j".into()]).await, Published::LocalOnly);
    assert_eq!(node.rooms_of("s2"), Some(vec!["j".into()]));
    assert_eq!(adapter.leave("/", &in_r, &["j".into()]).await, Published::LocalOnly);
    assert_eq!(node.rooms_of("s1"), Some(vec!["r".into()]));
    let minute = Duration::from_secs(60);
    let acks = adapter.broadcast_with_ack("/", &all, Flags::default(), &event(), minute).await;
    let acks = acks.expect("both answer");
    assert_eq!((acks.n_asked, acks.answers.len()), (2, 2));
    let answers = adapter.server_side_emit_with_ack("/", &event()).await.expect("nobody else");
    assert!(answers.is_empty());
    assert_eq!(adapter.disconnect("/", &in_r, true).await, Published::LocalOnly);
    assert_eq!(node.rooms_of("s1"), None);
    assert_eq!(adapter.server_count("/").await, Some(1));
    let is_server_event = |record: &Record| matches!(record, Record::ServerEvent { .. });
    assert!(!node.records().iter().any(is_server_event), "it is for other servers");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_in_time_makes_the_answer_partial() {
    let node = Node::launch(AdapterConfig::default());
    node.add_socket("s1", &[], Some("[1]"));
    node.add_socket("s2", &[], None);
    let second = Duration::from_secs(1);
    let all = Selection::default();
    let event = event();
    let asked = node.adapter.broadcast_with_ack("/", &all, Flags::default(), &event, second);
    let error = asked.await.expect_err("one is silent");
    assert_eq!((error.cause, error.received, error.expected), (RequestCause::Timeout, 0, Some(0)));
    assert_eq!((error.arrived.n_asked, error.arrived.answers.len()), (2, 1));
}

#[tokio::test]
async fn a_lone_node_lists_itself() {
    let description =
        NodeDescription { kind: "test".into(), version: "1".into(), address: Some("here".into()) };
    let config = AdapterConfig { node: Some(description), ..AdapterConfig::default() };
    let node = Node::launch_tagged(config, NodeTag::parse("abcd"));
    node.add_socket("s1", &[], None);
    let nodes = node.adapter.nodes().await.expect("known");
    assert_eq!((nodes.len(), &*nodes[0].tag, nodes[0].n_sockets), (1, "abcd", 1));
    let unlisted = Node::launch(AdapterConfig::default());
    assert_eq!(unlisted.adapter.nodes().await, Some(Vec::new()));
}
