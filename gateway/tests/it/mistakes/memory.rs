//! What an idle connection costs.

use tokio::process::Command;

use crate::support::{Node, Ws};

/// Most bytes for one idle connection: twice the budget of a release build.
const BYTES_PER_CONNECTION_MAX: i64 = 4096;

/// The allocator takes memory in steps of up to this size, so one more or less says nothing.
const STEP_BYTES: i64 = 4 << 20;

const N_CONNECTIONS: i64 = 2_000;

const N_WARM_UP: i64 = 500;

/// A shell's usual limit of 1,024 file descriptors is less than this test needs; its hard limit is
/// mostly far above that. The node inherits it.
async fn raise_descriptor_limit() {
    let pid = std::process::id().to_string();
    let limit = (2 * N_CONNECTIONS).to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--nofile={limit}:")])
        .output()
        .await
        .expect("prlimit of util-linux");
    assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
}

#[tokio::test]
async fn an_idle_connection_costs_little() {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let soft = line.split_whitespace().nth(3).expect("a number");
    if soft.parse::<i64>().is_ok_and(|soft| soft < 2 * N_CONNECTIONS) {
        raise_descriptor_limit().await;
    }
    let node = Node::start("").await;
    let mut connections = Vec::new();
    // The first connections pay for what all share: threads' buffers, the allocator's first pages.
    for _ in 0..N_WARM_UP {
        connections.push(Ws::connect(node.public).await);
    }
    let before = node.resident_bytes();
    for _ in 0..N_CONNECTIONS {
        connections.push(Ws::connect(node.public).await);
    }
    node.until_metric("carillon_sockets{namespace=\"/\"}", (N_CONNECTIONS + N_WARM_UP) as f64)
        .await;
    let bytes = node.resident_bytes() - before;
    let bytes_max = N_CONNECTIONS * BYTES_PER_CONNECTION_MAX + STEP_BYTES;
    assert!(bytes <= bytes_max, "{bytes} bytes for {N_CONNECTIONS} idle connections");
    drop(connections);
    node.until_metric("carillon_sockets{namespace=\"/\"}", 0.0).await;
    node.finish().await;
}
