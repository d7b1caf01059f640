//! Applications on socketioxide in one cluster, over a real Redis and with clients of their own.

mod app;
mod broadcast;
mod client;
mod follow;
mod foreign;
mod limits;
#[path = "../it/redis_server.rs"]
#[expect(dead_code, reason = "the other tests of the adapter use more of it")]
mod redis_server;
mod requests;

use std::{future::Future, time::Duration};

/// How long anything may take before a test gives up. Far beyond what is expected: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must come.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: did not come"))
}

/// Looks again and again at something outside of this process until it is as it should be.
async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, looking).await;
}
