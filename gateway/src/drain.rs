//! How a node leaves without its clients noticing more than one reconnect.
//!
//! The order matters: first the balancers learn that the node is unfit, while it goes on serving;
//! then sessions are closed a few at a time, with the listener still open; only then the listener
//! goes. Sessions are closed at engine level: a Socket.IO DISCONNECT would keep clients away.

use std::time::Duration;

use rand::seq::IndexedRandom;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::Ended;
use crate::config::DrainConfig;
use crate::engine::{CloseReason, Engine};
use crate::task::Tasks;

/// Steps in which the sessions are closed.
const STEPS: u32 = 100;

/// Carries a drain out. Answers whether everybody was handed over before the deadline.
pub async fn drain(
    config: &DrainConfig,
    engine: &Engine,
    connections: &Tasks,
    stop_accepting: &CancellationToken,
) -> Ended {
    let deadline = Instant::now() + config.deadline;
    let handed_over = async {
        tokio::time::sleep(config.ready_delay).await;
        close_sessions(engine, config.spread).await;
        stop_accepting.cancel();
        while engine.n_sessions() > 0 {
            // Late handshakes, and sessions that are still handing over what they had queued.
            close_some(engine, usize::MAX);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        idle(connections).await;
    };
    match tokio::time::timeout_at(deadline, handed_over).await {
        Ok(()) => Ended::Drained,
        Err(_) => {
            let sessions = engine.n_sessions();
            if sessions == 0 {
                // What is left are HTTP connections that nobody uses.
                return Ended::Drained;
            }
            tracing::warn!(sessions, "the drain deadline cut sessions off");
            Ended::CutOff
        }
    }
}

/// Closes all sessions in random order, evenly over `spread`; those that come meanwhile join in.
async fn close_sessions(engine: &Engine, spread: Duration) {
    let mut interval = tokio::time::interval((spread / STEPS).max(Duration::from_millis(1)));
    for steps_left in (1..=STEPS).rev() {
        interval.tick().await;
        if engine.n_sessions() == 0 {
            // The balancers have had `ready_delay` to send new clients elsewhere.
            return;
        }
        let share = engine.n_sessions().div_ceil(steps_left as usize);
        close_some(engine, share);
    }
}

fn close_some(engine: &Engine, n_sessions: usize) {
    let open: Vec<_> = engine.sessions().into_iter().filter(|session| session.is_open()).collect();
    for session in open.choose_multiple(&mut rand::rng(), n_sessions) {
        session.close(CloseReason::Drain);
    }
}

/// Waits a moment for connections that have nothing to do any more but to be closed by their peers.
async fn idle(connections: &Tasks) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !connections.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
