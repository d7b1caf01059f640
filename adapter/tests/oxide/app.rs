//! An application on socketioxide.

use crate::{client::Client, soon};
use adapter::{
    AdapterConfig, LinkState, Mode, RedisConfig,
    metrics::prometheus::{Registry, proto::MetricFamily},
    socketioxide::{Cluster, ClusterAdapter, ClusterMetrics},
};
use socketioxide::{
    SocketIo,
    adapter::Emitter,
    extract::{Data, SocketRef},
    handler::ConnectHandler,
};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub type Server = ClusterAdapter<Emitter>;

/// Before a client is told that it is connected: handlers set after that may come too late for its first event.
async fn prepare(socket: SocketRef<Server>) -> Result<(), Infallible> {
    socket.on("join", async |socket: SocketRef<Server>, Data::<String>(room)| {
        socket.join(room);
        let _ = socket.emit("joined", &());
    });
    socket.on("to-others", async |socket: SocketRef<Server>, Data::<String>(text)| {
        let _ = socket.broadcast().emit("ev", &text).await;
    });
    Ok(())
}

async fn nothing() {}

/// A running application that serves `/` and `/chat`. Ends when it is dropped.
pub struct App {
    pub io: SocketIo<Server>,
    pub cluster: Cluster<Emitter>,
    pub registry: Registry,
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinSet<()>,
}

/// Settings with short times, so that faults are found soon.
pub fn config(url: &str) -> AdapterConfig {
    AdapterConfig {
        mode: Mode::Redis,
        redis: Some(RedisConfig::new(url.into())),
        probe_interval: Duration::from_millis(500),
        publish_timeout: Duration::from_secs(1),
        ..AdapterConfig::default()
    }
}

impl App {
    /// An application whose link is up.
    pub async fn start(url: &str) -> Self {
        Self::start_with(config(url)).await
    }

    /// The same with other settings.
    pub async fn start_with(config: AdapterConfig) -> Self {
        let app = Self::launch(config).await;
        app.up().await;
        app
    }

    /// An application, whatever its link.
    pub async fn launch(config: AdapterConfig) -> Self {
        let registry = Registry::new();
        let metrics = ClusterMetrics::register(&registry).expect("no name is taken");
        let cluster = Cluster::new(config, metrics).expect("valid");
        let builder = SocketIo::builder().with_adapter::<Server>(cluster.clone());
        let (layer, io) = builder.build_layer();
        for ns in ["/", "/chat"] {
            io.ns(ns, nothing.with(prepare));
        }
        let service = axum::Router::<()>::new().layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (shutdown, mut running) = (CancellationToken::new(), JoinSet::new());
        running.spawn(async move { axum::serve(listener, service).await.expect("it serves") });
        let (runs, until) = (cluster.clone(), shutdown.clone());
        running.spawn(async move { runs.run(until).await });
        Self { io, cluster, registry, address, shutdown, running }
    }

    /// Waits until the link is up.
    pub async fn up(&self) {
        let mut changes = self.cluster.adapter().link_changes();
        let up = changes.wait_for(|link| matches!(link, LinkState::Up | LinkState::Memory));
        soon("the link", up).await.expect("the adapter lives");
    }

    /// A client in `/`.
    pub async fn client(&self) -> Client {
        Client::connect(self.address, "/").await
    }

    /// A client in another namespace.
    pub async fn client_in(&self, ns: &str) -> Client {
        Client::connect(self.address, ns).await
    }

    /// A client that joined rooms.
    pub async fn client_in_rooms(&self, rooms: &[&str]) -> Client {
        let client = self.client().await;
        for (index, room) in rooms.iter().enumerate() {
            client.emit(&format!(r#"["join","{room}"]"#)).await;
            let joined = |packets: &Vec<String>| {
                packets.iter().filter(|packet| packet.starts_with(r#"42["joined""#)).count()
            };
            crate::eventually("the join", async || joined(&client.packets()) == index + 1).await;
        }
        client
    }

    /// The value of a counter, all labels together.
    pub fn counter(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let families = families.iter().filter(|family| family.name() == name);
        families
            .flat_map(MetricFamily::get_metric)
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }

    /// Ends it properly.
    pub async fn stop(mut self) {
        soon("the end of the sockets", self.io.close()).await;
        self.shutdown.cancel();
        soon("the end of the adapter", self.running.join_next()).await;
    }
}
