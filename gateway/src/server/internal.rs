//! The internal listener: probes and metrics. Nothing of it is ever served in public.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};

use crate::metrics::{HubMetrics, NodeMetrics};
use crate::readiness::Readiness;
use crate::socket::Gateway;
use crate::telemetry::Telemetry;

/// What the internal listener reads.
#[derive(Clone)]
pub struct Internal {
    /// The sockets of this node.
    pub gateway: Arc<Gateway>,
    /// What the probes answer.
    pub readiness: Arc<Readiness>,
    /// All metrics.
    pub registry: Registry,
    /// Gauges that are read when somebody asks.
    pub hub_metrics: HubMetrics,
    /// The same for the process.
    pub node_metrics: NodeMetrics,
    /// Where log lines go, and how many did not.
    pub telemetry: Telemetry,
}

/// The routes of the internal listener.
pub fn router(internal: Internal) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(internal)
}

async fn readyz(State(internal): State<Internal>) -> impl IntoResponse {
    internal.readiness.state(internal.gateway.hub()).probe()
}

async fn metrics(State(internal): State<Internal>) -> impl IntoResponse {
    let depth = internal.gateway.hub().lanes().depth();
    internal.hub_metrics.lane_depth.set(depth as i64);
    internal.node_metrics.log_lines_dropped.set(internal.telemetry.dropped_lines() as i64);
    let text = TextEncoder::new().encode_to_string(&internal.registry.gather());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.unwrap_or_default())
}
