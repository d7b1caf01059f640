//! The same cluster for a Rust application that is written with the library `socketioxide`.
//!
//! [`ClusterAdapter`] implements the trait with which socketioxide takes part in a cluster, so that an application
//! shares rooms and broadcasts with Node.js servers, Carillon nodes and other such applications. It needs the
//! feature `socketioxide`, and fits socketioxide 0.18.9 (socketioxide-core 0.20.0).
//!
//! ```no_run
//! use adapter::{AdapterConfig, Mode, RedisConfig, metrics::prometheus::Registry};
//! use adapter::socketioxide::{Cluster, ClusterAdapter, ClusterMetrics};
//! use socketioxide::{SocketIo, adapter::Emitter, extract::SocketRef};
//! use tokio_util::sync::CancellationToken;
//!
//! type Server = ClusterAdapter<Emitter>;
//!
//! # async fn serve(registry: &Registry) -> Result<(), Box<dyn std::error::Error>> {
//! let config = AdapterConfig {
//!     mode: Mode::Redis,
//!     redis: Some(RedisConfig::new("redis://127.0.0.1".into())),
//!     ..AdapterConfig::default()
//! };
//! let cluster = Cluster::new(config, ClusterMetrics::register(registry)?)?;
//! let (layer, io) = SocketIo::builder().with_adapter::<Server>(cluster.clone()).build_layer();
//! io.ns("/", async |socket: SocketRef<Server>| {
//!     let _ = socket.broadcast().emit("joined", &socket.id).await;
//! });
//! let app = axum::Router::<()>::new().layer(layer);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! let shutdown = CancellationToken::new();
//! let (served, ()) = tokio::join!(async { axum::serve(listener, app).await }, cluster.run(shutdown));
//! served?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/socketioxide_chat.rs` is a whole application.
//!
//! # What socketioxide's interface carries, and how
//!
//! | Of socketioxide | In the cluster |
//! |---|---|
//! | `emit`, `to`, `except`, `volatile`, `local` | delivered here first, then published; Redis cannot make it fail, and what the other servers do not get is counted |
//! | `emit_with_ack` | asks all servers; the stream ends with [`Sid::ZERO`] and a timeout if an answer is missing, and answers that Node servers pass on have that id too, because they do not tell whose they are |
//! | `join`, `leave`, `disconnect` on a selection | applied here and published |
//! | `fetch_sockets` | the sockets of all servers, as far as their ids have 16 characters: those of Node servers and Carillon nodes have 20, which [`Sid`] cannot hold. They are left out and counted |
//! | `rooms` | of all servers; as on Node, the ids of sockets are among them |
//! | a room that is named like the id of a socket | is that socket, also if it never joined it |
//!
//! # What it does not carry
//!
//! | Wanted | Here |
//! |---|---|
//! | all sockets with their rooms, handshake and data | [`Adapter::fetch_sockets`] through [`Cluster::adapter`] |
//! | answers of all sockets, with how many were asked | [`Adapter::broadcast_with_ack`] |
//! | `disconnectSockets(true)` | [`Adapter::disconnect`] with `close` |
//! | `serverSideEmit`, with and without acknowledgement | [`Adapter::server_side_emit`], [`Adapter::server_side_emit_with_ack`], [`event_data`] |
//! | `io.on(…)` for events of other servers | [`Cluster::on_server_event`] |
//! | what other servers see of a socket in `fetchSockets` | [`Cluster::describe_with`] |
//! | the state of the link, and its changes | [`Adapter::link`], [`Adapter::link_changes`] |
//! | the live nodes; nodes are listed by what the ids of their sockets begin with, so an application on socketioxide is not among them | [`Adapter::nodes`] |
//!
//! # What differs from a Carillon node
//!
//! - socketioxide cannot close one connection. `close` disconnects a socket from every namespace, upon which the
//!   official clients close the connection themselves. Where messages were dropped for lack of room, the sockets
//!   that could have got them are sent an event that cannot be read: the official clients then connect anew.
//! - A socket that does not read loses events once its buffer is full (`max_buffer_size`, 128 packets unless
//!   set). That is counted, but the connection stays.
//! - socketioxide tells nobody of joins and connections. Where channels follow rooms ([`Follow`]:
//!   mode `redis-sharded` with a dynamic subscription mode, or `subscribe = interest`) this crate looks for
//!   changes, so a subscription comes a moment after the join. [`Cluster::follow`] waits for one; in a connect
//!   middleware, with the id of the socket, it makes direct messages reach a socket from its first moment.
//! - Handlers that are set when a client is connected can come too late for its first event, because socketioxide
//!   tells the client first. A connect middleware comes before.
//! - `max_payload` of socketioxide is 100 kB unless set, Node's is 1 MB.
//! - socketioxide logs packets at level `debug`, with its feature `tracing`.

mod cluster_adapter;
mod description;
mod error;
mod follow;
mod local;
mod namespace;
mod server_event;
#[cfg(test)]
mod stub;
mod value;

pub use self::{
    cluster_adapter::{AckStream, ClusterAdapter},
    description::{Description, Handshake},
    error::ClusterError,
    local::OxideLocal,
    server_event::{ServerEvent, event_data},
};
pub use socketioxide_core::Sid;

use self::follow::Told;
use crate::{Adapter, AdapterConfig, AdapterError, AdapterMetrics, Follow, metrics};
use metrics::prometheus::{self, Registry};
use protocol::socket::EventData;
use socketioxide_core::adapter::SocketEmitter;
use std::{
    future::Future,
    sync::{Arc, Mutex},
};
use tokio_util::sync::CancellationToken;

crate::metrics! {
    /// What an application on socketioxide counts beside its adapter.
    pub struct OxideMetrics {
        /// Events and disconnections of other servers that a socket did not get, because its buffer was full
        /// (full) or it was just leaving (closed).
        pub undelivered_total: IntCounterVec = "carillon_socketioxide_undelivered_total", ["cause"];
        /// Sockets of other servers that socketioxide was not told of when it asked for all, because its ids
        /// have 16 characters.
        pub left_out_total: IntCounter = "carillon_socketioxide_left_out_sockets_total";
        /// Events of this server that the others do not get, because they cannot be converted.
        pub unpublishable_total: IntCounter = "carillon_socketioxide_unpublishable_total";
        /// Answers of clients that other servers do not get, because they cannot be read.
        pub invalid_answers_total: IntCounter = "carillon_socketioxide_invalid_answers_total";
    }
}

/// What a cluster counts.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    /// What the adapter counts.
    pub adapter: AdapterMetrics,
    /// What is counted beside it.
    pub oxide: OxideMetrics,
}

impl ClusterMetrics {
    /// Makes the metrics and adds them to the registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let adapter = AdapterMetrics::register(registry)?;
        Ok(Self { adapter, oxide: OxideMetrics::register(registry)? })
    }
}

/// The cluster as one application sees it; the state of its [`ClusterAdapter`]s, of which there is one for each
/// namespace. Cheap to clone.
pub struct Cluster<E> {
    local: Arc<OxideLocal<E>>,
    adapter: Adapter<OxideLocal<E>>,
    /// What the adapter was told by this cluster.
    told: Arc<Mutex<Told>>,
}

impl<E> Clone for Cluster<E> {
    fn clone(&self) -> Self {
        Self {
            local: Arc::clone(&self.local),
            adapter: self.adapter.clone(),
            told: Arc::clone(&self.told),
        }
    }
}

impl<E: SocketEmitter> Cluster<E> {
    /// Makes a cluster of which one application is a part. Nothing is connected before [`run`](Self::run).
    pub fn new(config: AdapterConfig, metrics: ClusterMetrics) -> Result<Self, AdapterError> {
        let local = Arc::new(OxideLocal::new(metrics.oxide));
        let adapter = Adapter::new(Arc::clone(&local), config, metrics.adapter)?;
        Ok(Self { local, adapter, told: Arc::default() })
    }

    /// Works until the shutdown. To be called once, beside the server; what is published after its end is lost.
    ///
    /// At the end the handlers are dropped, so that one which holds the application does not keep it alive.
    pub async fn run(&self, shutdown: CancellationToken) {
        tokio::join!(self.adapter.run(shutdown.clone()), self.follow_rooms(&shutdown));
        self.local.forget_handlers();
    }

    /// The way to the other servers, for all that socketioxide's own interface cannot say.
    ///
    /// Its methods that ask or change sockets include those of this application. Only
    /// [`broadcast`](Adapter::broadcast) does not: it is the part that follows local delivery.
    pub fn adapter(&self) -> &Adapter<OxideLocal<E>> {
        &self.adapter
    }

    /// Sets what is called with events that other servers send to all servers of a namespace
    /// (`serverSideEmit`), and what they are answered. Without an answer, and without a handler, they get `null`.
    ///
    /// A handler is called in the order of what its namespace receives, and everything behind it waits until it
    /// gives way (awaits what is not ready); so it must not block. The rest of it runs as a task beside others: it
    /// may see what was sent after its event, and be overtaken by the handlers of later events. At the shutdown it
    /// is dropped where it stands.
    ///
    /// At most 1,024 of them, and of answers to other questions, are under way at a time. What comes beyond that is
    /// refused and counted. Who waits for the answer then gets `null`, and also if it takes longer than ten minutes.
    pub fn on_server_event<F, A>(&self, handler: F)
    where
        F: Fn(ServerEvent) -> A + Send + Sync + 'static,
        A: Future<Output = Option<EventData>> + Send + 'static,
    {
        self.local.set_server_event_handler(Arc::new(move |event| Box::pin(handler(event))));
    }

    /// Sets what tells other servers about a socket of a namespace, when they fetch sockets. Without it they get
    /// its id and rooms, and a handshake and data without content.
    pub fn describe_with<F>(&self, describe: F)
    where
        F: Fn(&str, Sid) -> Option<Description> + Send + Sync + 'static,
    {
        self.local.set_describer(Arc::new(describe));
    }

    /// Resolves when this server receives what is sent to the room of the namespace: at once where it receives
    /// everything, or while there is no link to Redis.
    ///
    /// To be awaited before a join, where something may be sent to the room right behind it.
    pub async fn follow(&self, ns: &str, room: &str) {
        if self.adapter.follows() != Follow::Nothing {
            self.wait_until_followed(ns, room).await;
        }
    }
}
