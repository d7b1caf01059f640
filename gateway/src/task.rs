//! The only place that spawns: every task has an owner that waits for it.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks of one kind, for example those of connections.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs a future as a task.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(future);
    }

    /// Runs a future as a task that is dropped where it stands when `token` is cancelled.
    pub fn spawn_until<F>(&self, token: &CancellationToken, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = token.clone();
        self.tracker.spawn(async move {
            token.run_until_cancelled(future).await;
        });
    }

    /// How many are running.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether none is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until all have ended; no more are expected.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
