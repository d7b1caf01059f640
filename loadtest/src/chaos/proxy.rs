//! A TCP proxy that breaks connections in the ways that networks do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Pieces under way in one direction.
const PIECES_MAX: usize = 1024;

/// What happens to connections. They are numbered in the order in which they came, from 1.
#[derive(Clone, Copy, Default)]
struct Weather {
    accepted: u64,
    swallowed_to: u64,
    swallows_new: bool,
    delay: Duration,
}

/// A proxy. Its connections live as long as it does.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// A proxy to an address.
    pub async fn to(target: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, target, weather.clone()));
        Ok(Proxy { address, weather, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing more through the connections there are, and tells nobody. New ones work.
    pub fn swallow(&self) {
        self.weather.send_modify(|weather| weather.swallowed_to = weather.accepted);
    }

    /// Lets nothing through any connection, new ones included.
    pub fn swallow_all(&self) {
        self.weather.send_modify(|weather| {
            weather.swallowed_to = weather.accepted;
            weather.swallows_new = true;
        });
    }

    /// New connections work. Those that were swallowed stay so until their ends give up.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| {
            weather.swallows_new = false;
            weather.delay = Duration::ZERO;
        });
    }

    /// Lets everything take longer in each direction from now on.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, weather: watch::Sender<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, for example: the client sees that nobody answers.
                let Ok((client, _)) = accepted else { continue };
                let mut number = 0;
                weather.send_modify(|weather| {
                    weather.accepted += 1;
                    number = weather.accepted;
                    if weather.swallows_new {
                        weather.swallowed_to = number;
                    }
                });
                connections.spawn(serve(client, target, number, weather.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(
    client: TcpStream,
    target: SocketAddr,
    number: u64,
    weather: watch::Receiver<Weather>,
) {
    // The server may be away: then the client sees its connection end.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    tokio::select! {
        () = pass(client_reads, server_writes, number, weather.clone()) => {}
        () = pass(server_reads, client_writes, number, weather) => {}
    }
}

/// Carries bytes in one direction until either side ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    weather: watch::Receiver<Weather>,
) {
    let is_swallowed = || weather.borrow().swallowed_to >= number;
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n_bytes @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + weather.borrow().delay;
            if queue.send((due, buffer[..n_bytes].to_vec())).await.is_err() {
                return;
            }
        }
        if is_swallowed() {
            // Not even the end of the connection gets through.
            std::future::pending::<()>().await;
        }
    };
    let writing = async {
        while let Some((due, bytes)) = queued.recv().await {
            sleep_until(due).await;
            if !is_swallowed() && to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
