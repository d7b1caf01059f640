//! The public listener: it accepts connections, serves HTTP on them, and hands those that become
//! WebSockets to the engine.

mod address;
mod connection;
pub mod internal;
mod pace;
mod proxy_protocol;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use self::address::Resolver;
use self::connection::Upgraded;
use crate::config::ServerConfig;
use crate::engine::{Answer, Begun, Connection, Engine, Requester};
use crate::limit::{AddressLimit, AddressPermit};
use crate::metrics::NodeMetrics;
use crate::pages;
use crate::readiness::Readiness;
use crate::socket::Gateway;
use crate::task::Tasks;

/// Connections that the kernel completes before we accept them. With the 128 of the standard
/// library a burst of reconnecting clients waits a second for its retransmitted SYNs.
const BACKLOG: u32 = 4096;

/// Pause after an accept that failed for lack of file descriptors: without it the loop spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds a listener. Accepted sockets inherit `TCP_NODELAY` from it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What the public listener serves.
pub struct PublicServer {
    engine: Arc<Engine>,
    gateway: Arc<Gateway>,
    readiness: Arc<Readiness>,
    config: ServerConfig,
    engine_path: String,
    demo: bool,
    resolver: Resolver,
    peers: AddressLimit,
    metrics: NodeMetrics,
}

impl PublicServer {
    /// A server for `engine`; with `demo` it has the chat page at `/`.
    pub fn new(
        engine: Arc<Engine>,
        gateway: Arc<Gateway>,
        readiness: Arc<Readiness>,
        config: ServerConfig,
        engine_path: String,
        demo: bool,
        metrics: NodeMetrics,
    ) -> Arc<Self> {
        let resolver = Resolver::new(config.trusted_proxies.clone());
        let peers = AddressLimit::new(config.connections_per_address_max, &config.trusted_proxies);
        Arc::new(Self {
            engine,
            gateway,
            readiness,
            config,
            engine_path,
            demo,
            resolver,
            peers,
            metrics,
        })
    }

    /// Accepts until `stop_accepting`, serves what was accepted until `stop`. Connections belong to
    /// `tasks`.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: Tasks,
        stop_accepting: CancellationToken,
        stop: CancellationToken,
    ) {
        while let Some(accepted) = stop_accepting.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    // On a dual-stack listener IPv4 peers come with mapped addresses.
                    self.accept(stream, peer.ip().to_canonical(), &tasks, &stop);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.metrics.connections_refused.with_label_values(&["accept_error"]).inc();
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accept(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) {
        if self.config.connections_max.is_some_and(|max| tasks.len() >= max) {
            self.metrics.connections_refused.with_label_values(&["limit"]).inc();
            return;
        }
        let Ok(permit) = self.peers.acquire(peer) else {
            self.metrics.connections_refused.with_label_values(&["address_limit"]).inc();
            return;
        };
        let server = self.clone();
        let tasks_of_websockets = tasks.clone();
        self.metrics.connections.inc();
        let gauge = ConnectionGauge(self.metrics.connections.clone());
        // Boxed at once: the runtime moves what it is given, and this has the size of a request.
        let served = Box::pin(async move {
            let held = Held { _permit: permit.map(Box::new), _gauge: gauge };
            let Some(upgraded) = connection::serve(&server, stream, peer).await else { return };
            let Upgraded { takeover, stream, received } = upgraded;
            let connection = server.engine.take_over(takeover, stream, received).await;
            if let Some(connection) = connection {
                // A task of its own: this one has grown to what HTTP needs, and an idle WebSocket
                // would keep that for its whole life. It ends with its session.
                tasks_of_websockets.spawn(serve_websocket(connection, held));
            }
        });
        tasks.spawn_until(stop, served);
    }

    /// Answers a request of the peer at `peer`, if that needs no wait.
    fn begin(&self, request: &Request<Incoming>, peer: IpAddr) -> Begun {
        let path = request.uri().path();
        if self.engine.serves(path) {
            let requester = Requester {
                address: self.resolver.resolve(peer, request.headers()),
                secure: self.resolver.is_secure(peer, request.headers()),
            };
            return self.engine.begin(request, requester);
        }
        Begun::Answered(self.page(request, path).into())
    }

    /// Gives a response what depends on the connection and not on the request.
    fn complete(&self, answer: &mut Answer, chunked: bool) {
        // The connection's next request belongs to another node while this one drains, and what was
        // smuggled in behind a body of doubtful length gets no turn of its own.
        if answer.takeover.is_none() && (chunked || self.readiness.is_draining()) {
            let close = HeaderValue::from_static("close");
            answer.response.headers_mut().insert(CONNECTION, close);
        }
    }

    /// Whatever is not Engine.IO.
    fn page(&self, request: &Request<Incoming>, path: &str) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return not_found();
        }
        match path {
            "/" if self.demo => return pages::demo_page(),
            "/healthz" if self.config.public_probes => return word(StatusCode::OK, "ok\n"),
            "/readyz" if self.config.public_probes => {
                let (status, text) = self.readiness.state(self.gateway.hub()).probe();
                return word(status, text);
            }
            _ => {}
        }
        let below = path.strip_prefix(self.engine_path.trim_end_matches('/'));
        let file = below.and_then(|path| path.strip_prefix('/')).filter(|file| !file.contains('/'));
        file.and_then(|file| pages::client_file(file, request.headers().get(IF_NONE_MATCH)))
            .unwrap_or_else(not_found)
    }
}

async fn serve_websocket(connection: Connection, held: Held) {
    connection.serve().await;
    drop(held);
}

/// What a TCP connection holds until its end.
struct Held {
    _permit: Option<Box<AddressPermit>>,
    _gauge: ConnectionGauge,
}

/// Falls with its connection.
struct ConnectionGauge(prometheus::IntGauge);

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Errors of `accept` that say something about one connection and nothing about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A status with one word of text.
fn word(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn not_found() -> Response<Body> {
    word(StatusCode::NOT_FOUND, "not found\n")
}
