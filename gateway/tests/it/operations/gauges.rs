//! What the node says about itself, and what it does when it is told to read its rules again.

use std::time::Duration;

use socket2::SockRef;

use crate::support::websocket::{CLOSE, control};
use crate::support::{Node, Polling, RULES, Ws, http, until};

/// One client's life, from connect to an end of some kind.
async fn cycle(node: &Node, kind: usize) {
    if kind < 4 {
        let mut ws = Ws::connect(node.public).await;
        assert_eq!(ws.call("[\"join\",\"room\"]").await, "[]");
        match kind {
            0 => ws.send("41").await,
            1 => drop(ws.write(&control(CLOSE, &1000_u16.to_be_bytes())).await),
            2 => SockRef::from(ws.stream()).set_linger(Some(Duration::ZERO)).expect("linger"),
            _ => drop(ws.write(&[0xff, 0xff]).await),
        }
        return;
    }
    let mut client = Polling::connect(node.public).await;
    assert_eq!(client.call("[\"join\",\"room\"]").await, "[]");
    match kind {
        4 => drop(client.post("1").await),
        5 => drop(client.post("zzz").await),
        6 => {
            let mut ws = Ws::upgrade(node.public, &client.upgrade_target()).await;
            ws.send("2probe").await;
            assert_eq!(ws.text().await, "3probe");
            ws.send("5").await;
            assert_eq!(ws.call("[\"join\",\"other\"]").await, "[]");
        }
        7 => drop(Ws::upgrade(node.public, &client.upgrade_target()).await),
        // This one just never comes back.
        _ => {}
    }
}

#[tokio::test]
async fn every_gauge_returns_to_zero_after_500_clients() {
    let settings = "[engine]\nping_interval = \"2s\"\nping_timeout = \"1s\"\n";
    let mut node = Node::start(settings).await;
    let mut n_descriptors = 0;
    for n in 0..500 {
        if n == 18 {
            n_descriptors = node.n_descriptors();
        }
        cycle(&node, n % 9).await;
    }
    node.neighbour_echo("500 clients").await;
    node.dismiss_neighbour().await;
    let gauges = |metrics: &std::collections::HashMap<String, f64>| -> Vec<(String, f64)> {
        let names = ["carillon_sessions{", "carillon_sockets{", "carillon_connections"];
        metrics
            .iter()
            .filter(|(name, _)| {
                names.iter().any(|start| name.starts_with(start)) && !name.contains("_total")
                    || *name == "carillon_lane_queue_commands"
            })
            .map(|(name, value)| (name.clone(), *value))
            .collect()
    };
    let mut seen = Vec::new();
    let zero = async || {
        seen = gauges(&node.metrics().await);
        assert!(seen.len() >= 6, "{seen:?}");
        seen.iter().all(|(_, value)| *value == 0.0)
    };
    until("all gauges are zero", zero).await;
    let metrics = node.metrics().await;
    let sum = |prefix: &str| -> f64 {
        metrics.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    };
    assert_eq!(sum("carillon_sessions_opened_total{"), 501.0, "the neighbour is one of them");
    assert_eq!(sum("carillon_sessions_closed_total{"), 501.0);
    assert!(node.n_descriptors() <= n_descriptors, "file descriptors are left open");
    let mut ws = Ws::connect(node.public).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    node.finish().await;
}

#[tokio::test]
async fn metrics_have_help_units_and_no_names_of_clients() {
    let node = Node::start("").await;
    let mut ws = Ws::connect(node.public).await;
    ws.call("[\"join\",\"a-room-of-a-client\"]").await;
    ws.call("[\"to-room\",\"a-room-of-a-client\",1]").await;
    ws.send("40/a-namespace-of-a-client,").await;
    ws.text().await;
    let response = http::get(node.internal, "/metrics").await;
    let content_type = response.header("content-type").expect("a content type");
    assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
    let text = response.text();
    assert!(!text.contains("-of-a-client"), "a client's own words are labels");
    for (name, _) in node.metrics().await {
        let family = name.split('{').next().unwrap_or_default().to_owned();
        assert!(family.starts_with("carillon_") || family.starts_with("process_"), "{family}");
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| family.strip_suffix(end))
            .unwrap_or(&family);
        assert!(text.contains(&format!("# HELP {base} ")), "{family} has no help");
        assert!(text.contains(&format!("# TYPE {base} ")), "{family} has no type");
    }
    node.finish().await;
}

#[tokio::test]
async fn a_hangup_reloads_rules_and_a_broken_file_keeps_the_old_ones() {
    let node = Node::start("").await;
    let mut ws = Ws::connect(node.public).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");

    let changed = RULES.replacen("ack = \"$*\"", "ack = [\"changed\"]", 1);
    std::fs::write(node.config_file(), changed).expect("write");
    node.signal("HUP").await;
    node.until_metric("carillon_config_reloads_total{result=\"ok\"}", 1.0).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[\"changed\"]", "sockets keep their connection");

    for broken in ["[[namespace]", "[engine]\nno_such_key = 1\n", "[[namespace]]\npath = 7\n"] {
        std::fs::write(node.config_file(), broken).expect("write");
        let failed = "carillon_config_reloads_total{result=\"failed\"}";
        let before = node.metric(failed).await;
        node.signal("HUP").await;
        node.until_metric(failed, before + 1.0).await;
        assert_eq!(ws.call("[\"echo\",1]").await, "[\"changed\"]", "after {broken}");
    }

    std::fs::write(node.config_file(), RULES).expect("write");
    node.signal("HUP").await;
    node.until_metric("carillon_config_reloads_total{result=\"ok\"}", 2.0).await;
    assert_eq!(ws.call("[\"echo\",1]").await, "[1]");
    node.finish_with_errors(3).await;
}
