//! Adapters against a real Redis: one `redis-server` process for each test, ended with it.

mod answers;
mod chaos_proxy;
mod delivery;
mod faults;
mod foreign;
mod input;
mod interest;
mod link;
mod memory;
mod node;
mod redis_server;
mod registry;
mod requests;
mod servers;

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
