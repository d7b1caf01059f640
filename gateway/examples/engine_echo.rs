//! The engine alone: an Engine.IO server that echoes every message, for conformance suites.
//!
//! ```text
//! cargo run --example engine_echo -- --port 3000 --ping-interval 300ms --ping-timeout 200ms
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carillon::config::EngineConfig;
use carillon::engine::{
    CloseReason, Engine, EngineLimits, Handler, Inbound, Message, Requester, Session, frame,
};
use carillon::limit::AddressLimit;
use carillon::metrics::EngineMetrics;
use carillon::server;
use carillon::tag::OwnTag;
use carillon::task::Tasks;
use clap::Parser;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// An Engine.IO server that echoes every text and binary message.
#[derive(Parser)]
struct Args {
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// The path of the endpoint.
    #[arg(long, default_value = "/engine.io/")]
    path: String,
    /// How often the server pings.
    #[arg(long, default_value = "25s")]
    ping_interval: humantime::Duration,
    /// How long a client may take to answer a ping.
    #[arg(long, default_value = "20s")]
    ping_timeout: humantime::Duration,
}

struct Echo;

impl Handler for Echo {
    fn open(&self, _session: &Arc<Session>) -> Box<dyn Inbound> {
        Box::new(Echo)
    }
}

impl Inbound for Echo {
    fn message(
        &self,
        _session: &Arc<Session>,
        message: Message<'_>,
        replies: &mut Vec<u8>,
    ) -> Result<(), CloseReason> {
        match message {
            Message::Text(text) => frame::append_text(replies, &format!("4{text}")),
            Message::Binary(bytes) => frame::append_binary(replies, bytes),
        }
        Ok(())
    }

    fn closed(&self, _session: &Arc<Session>, _reason: CloseReason) {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = EngineConfig {
        path: args.path,
        ping_interval: args.ping_interval.into(),
        ping_timeout: args.ping_timeout.into(),
        ..EngineConfig::default()
    };
    let limits = EngineLimits {
        body_timeout: Duration::from_secs(20),
        overload_timeout: Duration::from_secs(5),
        sessions_max: None,
        lanes: 1,
        shared_headers: Vec::new(),
    };
    let engine = Arc::new(Engine::new(
        config,
        limits,
        Arc::new(OwnTag::random()),
        AddressLimit::default(),
        EngineMetrics::register(&prometheus::Registry::new())?,
        Arc::new(Echo),
    ));
    let tasks = Tasks::default();
    let timer = engine.clone();
    tasks.spawn(async move { timer.run(CancellationToken::new()).await });
    let listener = server::bind(SocketAddr::from(([127, 0, 0, 1], args.port)))?;
    print_address(&listener.local_addr()?.to_string());
    loop {
        let (stream, peer) = listener.accept().await?;
        tasks.spawn(serve(engine.clone(), stream, peer));
    }
}

#[expect(clippy::print_stdout, reason = "a conformance suite reads the port from here")]
fn print_address(address: &str) {
    println!("listening on http://{address}");
}

async fn serve(engine: Arc<Engine>, stream: TcpStream, peer: SocketAddr) {
    let takeover = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (engine, takeover) = (engine.clone(), takeover.clone());
        Box::pin(async move {
            if !engine.serves(http::Request::uri(&request).path()) {
                let mut response = http::Response::default();
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                return Ok::<_, Infallible>(response);
            }
            let requester = Requester { address: peer.ip(), secure: false };
            let answer = engine.handle(request, requester).await;
            *takeover.lock().unwrap_or_else(PoisonError::into_inner) = answer.takeover;
            Ok(answer.response)
        })
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let Ok(parts) = connection.without_shutdown().await else { return };
    let taken = takeover.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(takeover) = taken else { return };
    let connection = engine.take_over(takeover, parts.io.into_inner(), parts.read_buf).await;
    if let Some(connection) = connection {
        connection.serve().await;
    }
}
