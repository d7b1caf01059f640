//! A chat on `axum` and `socketioxide` whose guests may as well be connected to Node.js servers or Carillon nodes.
//!
//! It speaks the events of Carillon's built-in demo, so with a Redis all of these are one chat:
//!
//! ```text
//! cargo run -p carillon-adapter --features socketioxide --example socketioxide_chat -- redis://127.0.0.1
//! carillon --demo --redis redis://127.0.0.1        # its page is at http://127.0.0.1:3000
//! ```
//!
//! Arguments: the address of Redis, and the one to listen on (`127.0.0.1:3010` unless given).

use adapter::{
    AdapterConfig, Mode, RedisConfig,
    metrics::prometheus::Registry,
    socketioxide::{Cluster, ClusterAdapter, ClusterMetrics, Sid},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use socketioxide::{
    SocketIo,
    adapter::Emitter,
    extract::{AckSender, Data, SocketRef},
};
use std::error::Error;
use tokio::{net::TcpListener, signal};
use tokio_util::sync::CancellationToken;

/// Handlers name the adapter of their sockets.
type Server = ClusterAdapter<Emitter>;
type Socket = SocketRef<Server>;

/// An acknowledgement without arguments. `()` would be one argument, `null`.
const NOTHING: [(); 0] = [];

/// What a guest presents: `io({ auth: { name } })`.
#[derive(Clone, Default, Deserialize, Serialize)]
struct Guest {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Serialize)]
struct Signed {
    from: Sid,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Present {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Direct {
    id: String,
    text: String,
    name: Option<String>,
}

#[derive(Serialize)]
struct DirectFrom {
    from: Sid,
    name: Option<String>,
    text: String,
}

#[derive(Deserialize)]
struct RoomMessage {
    room: String,
    text: String,
    name: Option<String>,
}

#[derive(Serialize)]
struct RoomMessageFrom {
    room: String,
    from: Sid,
    name: Option<String>,
    text: String,
}

/// What the application does with a guest. A selection like `to(room)` reaches the whole cluster.
async fn welcome(socket: Socket, io: SocketIo<Server>, Data(guest): Data<Option<Guest>>) {
    let guest = guest.unwrap_or_default();
    let name = guest.name.clone();
    socket.on_disconnect({
        let io = io.clone();
        async move |socket: Socket| {
            let _ = io.emit("left", &(socket.id, guest.name)).await;
        }
    });
    // Somebody who was here before introduces itself to a newcomer, wherever that one is connected.
    socket.on("present", async |socket: Socket, io: SocketIo<Server>, Data(to): Data<Present>| {
        let _ = io.to(to.id).emit("present", &(socket.id, to.name)).await;
    });
    socket.on(
        "chat message",
        async |socket: Socket, io: SocketIo<Server>, Data(said): Data<(String, Guest)>| {
            let (text, Guest { name }) = said;
            let _ = io.emit("chat message", &(text, Signed { from: socket.id, name })).await;
        },
    );
    socket.on(
        "join room",
        async |socket: Socket, Data(room): Data<String>, ack: AckSender<Server>| {
            socket.join(room.clone());
            let _ = ack.send(&room);
        },
    );
    socket.on(
        "leave room",
        async |socket: Socket, Data(room): Data<String>, ack: AckSender<Server>| {
            socket.leave(room.clone());
            let _ = ack.send(&room);
        },
    );
    socket.on(
        "room message",
        async |socket: Socket, Data(said): Data<RoomMessage>, ack: AckSender<Server>| {
            let RoomMessage { room, text, name } = said;
            // Whoever is not in a room must not speak there.
            if socket.rooms().iter().any(|joined| *joined == room) {
                let message = RoomMessageFrom { room: room.clone(), from: socket.id, name, text };
                let _ = socket.within(room).emit("room message", &message).await;
                let _ = ack.send(&NOTHING);
            } else {
                let message = format!("not a member of {room}");
                let _ = ack.send(&json!({"error": {"code": "not_member", "message": message}}));
            }
        },
    );
    socket.on(
        "direct",
        async |socket: Socket,
               io: SocketIo<Server>,
               Data(said): Data<Direct>,
               ack: AckSender<Server>| {
            let Direct { id, text, name } = said;
            let _ = io.to(id).emit("direct", &DirectFrom { from: socket.id, name, text }).await;
            let _ = ack.send(&NOTHING);
        },
    );

    // Only now, so that what a guest answers finds all of these in place.
    let _ = socket.emit("welcome", &socket.id);
    let _ = socket.broadcast().emit("joined", &(socket.id, name)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let mut arguments = std::env::args().skip(1);
    let redis = arguments.next().unwrap_or_else(|| String::from("redis://127.0.0.1"));
    let address = arguments.next().unwrap_or_else(|| String::from("127.0.0.1:3010"));

    let config = AdapterConfig {
        mode: Mode::Redis,
        redis: Some(RedisConfig::new(redis.into())),
        ..AdapterConfig::default()
    };
    let cluster = Cluster::new(config, ClusterMetrics::register(&Registry::new())?)?;
    // Node's limit for what a client sends. socketioxide's own is a tenth of it.
    let builder = SocketIo::builder().max_payload(1_000_000);
    let (layer, io) = builder.with_adapter::<Server>(cluster.clone()).build_layer();
    io.ns("/", welcome);

    let app = axum::Router::new().layer(layer);
    let listener = TcpListener::bind(address).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);

    let shutdown = CancellationToken::new();
    let closing = {
        let shutdown = shutdown.clone();
        async move {
            let _ = signal::ctrl_c().await;
            // The server waits for its connections, and these end with the sockets.
            io.close().await;
            shutdown.cancel();
        }
    };
    let serving = async { axum::serve(listener, app).with_graceful_shutdown(closing).await };
    // Without this nothing is connected to Redis, and the chat is alone.
    let (served, ()) = tokio::join!(serving, cluster.run(shutdown));
    Ok(served?)
}
