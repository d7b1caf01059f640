//! What every test needs: a node as a process, and raw clients for it.

pub mod http;
pub mod node;
pub mod polling;
pub mod redis;
pub mod websocket;

use std::future::Future;
use std::time::Duration;

pub use self::http::Response;
pub use self::node::{Launch, Node, RULES};
pub use self::polling::Polling;
pub use self::redis::Redis;
pub use self::websocket::{Received, Ws};

/// How long anything may take that is expected to happen. Far more than it takes on a busy
/// machine: it only keeps a failed test from hanging.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for something that has to happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}
