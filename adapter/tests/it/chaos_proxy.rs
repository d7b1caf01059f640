//! A TCP proxy that can cut connections, swallow what goes through them, and delay it.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// Lives as long as its connections may.
pub struct ChaosProxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _accepting: JoinSet<()>,
}

/// What happens to connections. They are numbered in the order in which they came, from 1.
#[derive(Clone, Copy, Default)]
struct Weather {
    accepted: u64,
    cut_to: u64,
    swallowed_to: u64,
    delay: Duration,
}

impl ChaosProxy {
    /// A proxy to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let weather = watch::Sender::new(Weather::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, port, weather.clone()));
        Self { address, weather, _accepting: accepting }
    }

    /// The address for a Redis behind the proxy.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Closes the connections there are.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cut_to = weather.accepted);
    }

    /// Leaves the connections there are open, but lets nothing more through them. New ones work.
    pub fn swallow(&self) {
        self.weather.send_modify(|weather| weather.swallowed_to = weather.accepted);
    }

    /// Lets everything take longer in each direction from now on.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }
}

async fn accept(listener: TcpListener, port: u16, weather: watch::Sender<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("connections can be accepted");
        let mut number = 0;
        weather.send_modify(|weather| {
            weather.accepted += 1;
            number = weather.accepted;
        });
        connections.spawn(serve(client, port, number, weather.subscribe()));
    }
}

async fn serve(client: TcpStream, port: u16, number: u64, mut weather: watch::Receiver<Weather>) {
    // The server may be away: then the client sees its connection end.
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let is_cut = |weather: &Weather| weather.cut_to >= number;
    let (there, back) = (weather.clone(), weather.clone());
    tokio::select! {
        () = pass(client_reads, server_writes, number, there) => {}
        () = pass(server_reads, client_writes, number, back) => {}
        _ = weather.wait_for(is_cut) => {}
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
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n_bytes @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + weather.borrow().delay;
            if queue.send((due, buffer[..n_bytes].to_vec())).is_err() {
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
            tokio::time::sleep_until(due).await;
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
