//! The composition root: it builds the parts in the order in which they need each other, binds
//! before anything runs, and owns every task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapter::{Adapter, AdapterConfig, AdapterMetrics, Mode, NodeDescription, RedisConfig};
use anyhow::Context;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::codec::Codec;
use crate::config::{AdapterMode, ClusterConfig, Config};
use crate::drain;
use crate::engine::{CloseReason, Engine, EngineLimits};
use crate::hub::{Hub, Lanes, NamespaceChange, Namespaces, Observer};
use crate::limit::AddressLimit;
use crate::metrics::{EngineMetrics, HubMetrics, NodeMetrics, SocketMetrics};
use crate::readiness::Readiness;
use crate::server::internal::{self, Internal};
use crate::server::{self, PublicServer};
use crate::socket::{Gateway, GatewayHandler};
use crate::tag::OwnTag;
use crate::task::Tasks;
use crate::telemetry::Telemetry;

/// How long the parts behind the connections may take to end once these are gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A node that is bound and not yet running.
pub struct App {
    config: Config,
    engine: Arc<Engine>,
    gateway: Arc<Gateway>,
    readiness: Arc<Readiness>,
    internal: Internal,
    public_listener: TcpListener,
    internal_listener: TcpListener,
    telemetry: Telemetry,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was handed over in time.
    Drained,
    /// Somebody was cut off, by the deadline or a second signal.
    CutOff,
}

/// What the world asks of a running node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Leave in an orderly way; the second time, at once.
    Drain,
    /// Read the configuration again.
    Reload,
}

/// Reads the configuration again, as at the start.
pub type Reread = dyn Fn() -> Result<Config, String> + Send + Sync;

impl App {
    /// Builds a node and binds its listeners. Nothing runs yet.
    pub async fn build(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let engine_metrics = EngineMetrics::register(&registry).context("register metrics")?;
        let socket_metrics = SocketMetrics::register(&registry).context("register metrics")?;
        let hub_metrics = HubMetrics::register(&registry).context("register metrics")?;
        let node_metrics = NodeMetrics::register(&registry).context("register metrics")?;
        let adapter_metrics = AdapterMetrics::register(&registry).context("register metrics")?;
        register_process(&registry).context("register metrics")?;
        node_metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        let public_listener = server::bind(config.server.listen)
            .with_context(|| format!("bind the public listener {}", config.server.listen))?;
        let internal_listener = server::bind(config.server.internal_listen).with_context(|| {
            format!("bind the internal listener {}", config.server.internal_listen)
        })?;

        let tag = Arc::new(config.server.node_tag.map_or_else(OwnTag::random, OwnTag::fixed));
        let n_lanes = workers(&config);
        let mut exact = Vec::new();
        let namespaces = Namespaces::new(
            config.namespaces.clone(),
            config.socket.dynamic_namespaces_max,
            |name, _: NamespaceChange| exact.push(name.to_owned()),
        );
        let lanes = Arc::new(Lanes::new(
            n_lanes,
            namespaces,
            Codec::new(config.socket.parser),
            tag.clone(),
            config.cluster.on_gap,
            hub_metrics.clone(),
        ));
        hub_metrics.lane_limit.set((n_lanes * crate::hub::LANE_COMMANDS_MAX) as i64);
        let adapter = Adapter::new(lanes.clone(), adapter_config(&config.cluster), adapter_metrics)
            .context("set up the adapter")?;
        for name in &exact {
            adapter.open_namespace(name);
        }
        let hub = Hub::new(lanes, adapter);
        let connect_timeout = config.engine.connect_timeout;
        let gateway =
            Arc::new(Gateway::new(hub, config.socket.clone(), connect_timeout, socket_metrics));
        let engine = Arc::new(Engine::new(
            config.engine.clone(),
            engine_limits(&config, n_lanes),
            tag,
            AddressLimit::new(
                config.server.connections_per_address_max,
                &config.server.trusted_proxies,
            ),
            engine_metrics,
            Arc::new(GatewayHandler(gateway.clone())),
        ));
        let readiness = Arc::new(Readiness::new(config.cluster.ready_needs_redis));
        let internal = Internal {
            gateway: gateway.clone(),
            readiness: readiness.clone(),
            registry,
            hub_metrics,
            node_metrics,
            telemetry: telemetry.clone(),
        };
        Ok(Self {
            config,
            engine,
            gateway,
            readiness,
            internal,
            public_listener,
            internal_listener,
            telemetry,
        })
    }

    /// The addresses that were bound, public and internal.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public_listener.local_addr()?, self.internal_listener.local_addr()?))
    }

    /// The sockets of this node and the way to all others, for programs that embed it.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Runs the node until an order to drain has been carried out.
    pub async fn run(
        self,
        mut orders: tokio::sync::mpsc::Receiver<Order>,
        reread: Box<Reread>,
    ) -> anyhow::Result<Ended> {
        let (public, internal) = self.addresses().context("read the bound addresses")?;
        let stop = CancellationToken::new();
        let stop_accepting = CancellationToken::new();
        let stop_adapter = CancellationToken::new();
        let connections = Tasks::default();
        let background = Tasks::default();

        let observer: Arc<dyn Observer> = self.gateway.clone();
        for lane in self.gateway.hub().lanes().tasks(&observer) {
            background.spawn(lane.run());
        }
        let adapter = self.gateway.hub().adapter().clone();
        let token = stop_adapter.clone();
        background.spawn(async move { adapter.run(token).await });
        let engine = self.engine.clone();
        let token = stop.clone();
        background.spawn(async move { engine.run(token).await });

        if self.config.demo {
            tracing::info!(
                event = "demo",
                "the built-in demo is on: a chat page at / that anybody who reaches it can use"
            );
        }
        let public_server = PublicServer::new(
            self.engine.clone(),
            self.gateway.clone(),
            self.readiness.clone(),
            self.config.server.clone(),
            self.config.engine.path.clone(),
            self.config.demo,
            self.internal.node_metrics.clone(),
        );
        let accepting = public_server.run(
            self.public_listener,
            connections.clone(),
            stop_accepting.clone(),
            stop.clone(),
        );
        background.spawn(accepting);
        let serving = axum::serve(self.internal_listener, internal::router(self.internal.clone()))
            .with_graceful_shutdown(stop_adapter.clone().cancelled_owned());
        background.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the internal listener failed");
            }
        });
        tracing::info!(event = "listening", %public, %internal, "carillon is ready for clients");

        let reloader = Reloader {
            gateway: self.gateway.clone(),
            telemetry: self.telemetry,
            metrics: self.internal.node_metrics.clone(),
            reread,
        };
        wait_for_drain(&mut orders, || reloader.reload()).await;
        self.readiness.drain();
        self.internal.node_metrics.draining.set(1);
        tracing::info!(
            event = "draining",
            sessions = self.engine.n_sessions(),
            "no longer ready, sessions will be closed"
        );
        let draining =
            drain::drain(&self.config.drain, &self.engine, &connections, &stop_accepting);
        let ended = tokio::select! {
            ended = draining => ended,
            () = wait_for_drain(&mut orders, || {}) => Ended::CutOff,
        };
        if ended == Ended::Drained {
            // What rules emit for sockets that have just left goes out as well.
            self.gateway.hub().lanes().settled().await;
            self.gateway.hub().adapter().flush(STOP_TIMEOUT).await;
        }
        stop_accepting.cancel();
        for session in self.engine.sessions() {
            session.close(CloseReason::Drain);
        }
        stop.cancel();
        stop_adapter.cancel();
        self.gateway.hub().lanes().close();
        let stopped = async {
            connections.finished().await;
            background.finished().await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, stopped).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!(
            event = "stopped",
            drained = ended == Ended::Drained,
            "carillon has stopped"
        );
        Ok(ended)
    }
}

/// Takes over what can change without a restart.
struct Reloader {
    gateway: Arc<Gateway>,
    telemetry: Telemetry,
    metrics: NodeMetrics,
    reread: Box<Reread>,
}

impl Reloader {
    /// Rules and the log level. A configuration with a fault changes nothing.
    fn reload(&self) {
        let result = (self.reread)().and_then(|config| {
            let level = config.log.level;
            self.telemetry.set_level(level).map_err(|error| error.to_string())?;
            Ok(self.gateway.hub().lanes().namespaces().reload(config.namespaces))
        });
        let reloads = &self.metrics.reloads;
        match result {
            Ok(restart) => {
                reloads.with_label_values(&["ok"]).inc();
                tracing::info!(
                    event = "reloaded",
                    "rules and log level reloaded; changes of other sections need a restart"
                );
                if !restart.is_empty() {
                    let namespaces = restart.join(" ");
                    tracing::warn!(%namespaces, "added or removed namespaces need a restart");
                }
            }
            Err(error) => {
                reloads.with_label_values(&["failed"]).inc();
                tracing::error!(%error, "cannot reload the configuration, the old one stays");
            }
        }
    }
}

/// Waits for an order to drain, carrying out reloads meanwhile.
async fn wait_for_drain(orders: &mut tokio::sync::mpsc::Receiver<Order>, mut reload: impl FnMut()) {
    loop {
        match orders.recv().await {
            Some(Order::Drain) => return,
            Some(Order::Reload) => reload(),
            // Nobody is left to give orders.
            None => std::future::pending().await,
        }
    }
}

/// Threads and lanes of a node.
pub fn workers(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(LANES_MAX),
        n => n.min(LANES_MAX),
    }
}

/// An id has one character for its lane.
const LANES_MAX: usize = 64;

fn engine_limits(config: &Config, n_lanes: usize) -> EngineLimits {
    EngineLimits {
        body_timeout: config.server.body_timeout,
        overload_timeout: config.socket.overload_timeout,
        sessions_max: config.server.connections_max,
        lanes: n_lanes as u8,
        shared_headers: config.socket.share_headers.clone(),
    }
}

fn adapter_config(config: &ClusterConfig) -> AdapterConfig {
    let redis = RedisConfig {
        urls: config.redis.clone(),
        connect_timeout: config.connect_timeout,
        root_certificates: None,
    };
    let node = NodeDescription {
        kind: "carillon".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: config.advertise.clone(),
    };
    AdapterConfig {
        mode: match config.adapter {
            AdapterMode::Memory => Mode::Memory,
            AdapterMode::Redis => Mode::Redis,
            AdapterMode::RedisSharded => Mode::RedisSharded,
        },
        redis: (!config.redis.is_empty()).then_some(redis),
        key: config.prefix.clone(),
        probe_interval: config.probe_interval,
        publish_timeout: config.publish_timeout,
        publish_queue_frames: config.publish_queue_frames,
        publish_queue_bytes: config.publish_queue_max,
        receive_queue_frames: config.receive_queue_frames,
        receive_queue_bytes: config.receive_queue_max,
        cluster_frame_max: config.frame_max,
        participation: config.participation,
        subscribe: config.subscribe,
        sharded: config.sharded_mode,
        parser: config.parser,
        requests_timeout: config.requests_timeout,
        specific_response_channel: config.specific_response_channel,
        requests_max: config.requests_max,
        response_bytes_max: config.response_max,
        follow_linger: config.follow_linger,
        node: Some(node),
        ..AdapterConfig::default()
    }
}

fn register_process(registry: &Registry) -> prometheus::Result<()> {
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process))
}
