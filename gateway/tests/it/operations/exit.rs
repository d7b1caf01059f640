//! How the process starts and ends.

use std::process::Output;

use crate::support::node::command;
use crate::support::{Node, within};

async fn run(args: &[&str]) -> Output {
    within("the binary ends", command().args(args).output()).await.expect("run the binary")
}

/// Wrong usage ends with 64, says why on stderr, and has bound nothing.
async fn refused(args: &[&str], words: &[&str]) {
    let output = run(args).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{args:?}: {complaint}");
    for word in words {
        assert!(complaint.contains(word), "{args:?}: {word} is not in {complaint}");
    }
    assert!(!String::from_utf8_lossy(&output.stdout).contains("listening"), "{args:?}");
}

#[tokio::test]
async fn wrong_usage_ends_with_64() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.into_os_string().into_string().expect("UTF-8")
    };
    let unknown_key = file("unknown.toml", "[engine]\nping_intervall = \"1s\"\n");
    let no_toml = file("broken.toml", "[engine\n");
    let contradiction = file("both.toml", "[engine]\norigins = [\"*\"]\ncredentials = true\n");
    let later = file("later.toml", "[[namespace]]\npath = \"/\"\nauth = \"jwt\"\n");
    let missing = directory.path().join("missing.toml");
    refused(&["--no-such-flag"], &["--no-such-flag"]).await;
    refused(&["--listen", "nowhere"], &["nowhere"]).await;
    refused(&["--workers", "65"], &["workers"]).await;
    refused(&["--config", &unknown_key], &["ping_intervall", "ping_interval"]).await;
    refused(&["--config", &no_toml], &["broken.toml"]).await;
    refused(&["--config", &contradiction], &["engine.credentials"]).await;
    refused(&["--config", &later], &["jwt"]).await;
    refused(&["--config", missing.to_str().expect("UTF-8")], &["missing.toml"]).await;
    // The same is said without starting anything.
    refused(&["check-config", "--config", &unknown_key], &["ping_intervall"]).await;
}

#[tokio::test]
async fn a_public_listener_needs_a_configuration_or_the_demo() {
    let args = ["--listen", "0.0.0.0:0", "--internal-listen", "127.0.0.1:0"];
    refused(&args, &["--config", "--demo"]).await;
}

#[tokio::test]
async fn a_port_that_is_taken_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let output = run(&["--listen", &address, "--internal-listen", "127.0.0.1:0"]).await;
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains(&address), "the log names the address: {log}");
}

#[tokio::test]
async fn help_and_a_good_configuration_end_with_0() {
    assert_eq!(run(&["--help"]).await.status.code(), Some(0));
    let version = run(&["--version"]).await;
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let node = Node::start("").await;
    let file = node.config_file();
    let checked = run(&["check-config", "--config", file.to_str().expect("UTF-8")]).await;
    assert_eq!(checked.status.code(), Some(0));
    node.finish().await;
}

#[tokio::test]
async fn the_ready_line_names_the_bound_addresses() {
    let node = Node::start("").await;
    assert_ne!(node.public.port(), 0);
    assert_ne!(node.internal.port(), 0);
    assert_ne!(node.public, node.internal);
    let log = node.log();
    for line in &log {
        let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object per line");
        for field in ["timestamp", "level", "message"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
    }
    let n_ready = log.iter().filter(|line| line.contains(r#""event":"listening""#)).count();
    assert_eq!(n_ready, 1);
    node.finish().await;
}

#[tokio::test]
async fn an_interrupt_ends_with_130_at_once() {
    let mut node = Node::start("").await;
    node.neighbour_echo("the start").await;
    node.signal("INT").await;
    assert_eq!(node.exit().await.code(), Some(130));
    node.drain_log().await;
    node.check_log(0);
}
