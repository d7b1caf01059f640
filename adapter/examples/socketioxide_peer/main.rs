//! An application on socketioxide that does what lines on its standard input say.
//!
//! It stands for such applications in the tests of whole clusters. Each line is a JSON object with an `id`, an
//! operation `op` and a selection (`nsp`, `rooms`, `except`, `flags`); the answer is a line with that `id` and a
//! `result`, or an `error` with what has `arrived`. The first line on standard output is
//! `{"event":"ready","port":n}`. Clients may `join` and `leave` rooms, `echo`, and send `to-all`, `to-others`,
//! `to-sender` and `to-room`.

mod args;

use adapter::{
    AdapterConfig, ClientAnswer, ClusterParser, Flags, LinkState, Mode, RedisConfig, RequestError,
    RoomName, Selection, ShardedMode, SocketDetail, Subscribe,
    metrics::prometheus::Registry,
    socketioxide::{
        Cluster, ClusterAdapter, ClusterMetrics, Description, Handshake, ServerEvent, Sid,
        event_data,
    },
};
use args::{Arg, Args};
use axum::extract::ConnectInfo;
use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::socket::EventData;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};
use socketioxide::{
    SocketIo,
    adapter::Emitter,
    extract::{AckSender, Data, SocketRef},
    handler::ConnectHandler,
    operators::BroadcastOperators,
};
use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error,
    future::IntoFuture,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

type Server = ClusterAdapter<Emitter>;
type Socket = SocketRef<Server>;

/// What clients may send at once. The default of socketioxide is 100 kB.
const PAYLOAD_BYTES_MAX: u64 = 10_000_000;
/// How many packets may wait for a client that does not read.
const PACKETS_MAX: usize = 4096;
/// How long clients may take to go when it ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many lines may wait to be taken.
const LINES_MAX: usize = 64;

/// How sockets came, for those who fetch them.
type Arrivals = Arc<Mutex<HashMap<(String, Sid), Handshake>>>;

/// The application.
#[derive(Clone)]
struct Peer {
    io: SocketIo<Server>,
    cluster: Cluster<Emitter>,
    arrivals: Arrivals,
    /// What it answers to servers that ask who is there.
    name: String,
}

/// What a line asks for.
#[derive(Deserialize)]
struct Line {
    id: u64,
    op: String,
    #[serde(default = "root")]
    nsp: String,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    flags: LineFlags,
    #[serde(default)]
    args: Vec<Arg>,
    #[serde(default)]
    attachments: Vec<String>,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    leave: Vec<String>,
    #[serde(default)]
    close: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LineFlags {
    volatile: bool,
    local: bool,
    compress: Option<bool>,
}

fn root() -> String {
    String::from("/")
}

/// What comes of a line: a result, or what is told instead.
type Outcome = Result<Value, Value>;

impl Peer {
    /// Does what a line asks for, as far as it changes something: such lines keep their order.
    async fn act(&self, line: &Line) -> Option<Outcome> {
        let outcome = match line.op.as_str() {
            "emit" => self.emit(line).await,
            "join" => told(self.select(line).join(line.join.clone()).await),
            "leave" => told(self.select(line).leave(line.leave.clone()).await),
            // What socketioxide's interface cannot say.
            "disconnect" if line.close => {
                self.cluster.adapter().disconnect(&line.nsp, &line.selection(), true).await;
                Ok(Value::Null)
            }
            "disconnect" => told(self.select(line).disconnect().await),
            "serverSideEmit" => line.data().map(|data| {
                self.cluster.adapter().server_side_emit(&line.nsp, &data);
                Value::Null
            }),
            _ => return None,
        };
        Some(outcome)
    }

    /// Answers a line that only asks.
    async fn ask(&self, line: &Line) -> Outcome {
        let (adapter, ns, selection) = (self.cluster.adapter(), &line.nsp, line.selection());
        match line.op.as_str() {
            "emitWithAck" => {
                let (data, timeout) = (line.data()?, Duration::from_millis(line.timeout));
                let acks =
                    adapter.broadcast_with_ack(ns, &selection, line.flags(), &data, timeout).await;
                outcome(acks, |acks| {
                    let answers: Vec<_> = acks.answers.iter().map(answer).collect();
                    json!({"asked": acks.n_asked, "answers": answers})
                })
            }
            "fetchSockets" => outcome(adapter.fetch_sockets(ns, &selection).await, |sockets| {
                sockets.iter().map(detail).collect()
            }),
            "allRooms" => outcome(adapter.all_rooms(ns).await, |all| names(all)),
            "sockets" => outcome(adapter.sockets(ns, &selection.rooms).await, |all| names(all)),
            "serverSideEmitWithAck" => {
                let answers = adapter.server_side_emit_with_ack(ns, &line.data()?).await;
                outcome(answers, |answers| {
                    answers.iter().map(|answer| json_of(&answer.json)).collect()
                })
            }
            "count" => Ok(json!(adapter.server_count(ns).await)),
            "nodes" => Ok(json!(adapter.nodes().await)),
            unknown => Err(json!({"error": format!("no operation {unknown}")})),
        }
    }

    async fn emit(&self, line: &Line) -> Outcome {
        let mut args = Args::new(line.args.clone(), &line.attachments).map_err(failed)?;
        let event = match args.0.first() {
            Some(Arg::Text(event)) => event.clone(),
            other => return Err(json!({"error": format!("{other:?} is no event")})),
        };
        args.0.remove(0);
        told(self.select(line).emit(event, &args).await)
    }

    /// The selection of a line, as socketioxide has it. A namespace that does not exist yet is made.
    fn select(&self, line: &Line) -> BroadcastOperators<Server> {
        let mut selected = match self.io.of(&line.nsp) {
            Some(namespace) => namespace,
            None => {
                self.serve(&line.nsp);
                self.io.of(&line.nsp).expect("just made")
            }
        };
        if !line.rooms.is_empty() {
            selected = selected.within(line.rooms.clone());
        }
        if !line.except.is_empty() {
            selected = selected.except(line.except.clone());
        }
        if line.flags.volatile {
            selected = selected.volatile();
        }
        if line.flags.local {
            selected = selected.local();
        }
        selected
    }

    /// Serves a namespace.
    fn serve(&self, ns: &str) {
        let peer = self.clone();
        let prepare = async move |socket: Socket, auth: Data<Option<Value>>| {
            peer.prepare(&socket, auth.0).await
        };
        self.io.ns(ns.to_owned(), nothing.with(prepare));
    }

    /// Serves all namespaces of a pattern.
    fn serve_pattern(&self, pattern: &str) {
        let peer = self.clone();
        let prepare = async move |socket: Socket, auth: Data<Option<Value>>| {
            peer.prepare(&socket, auth.0).await
        };
        self.io.dyn_ns(pattern, nothing.with(prepare)).expect("a valid pattern");
    }

    /// Makes a socket ready before its client is told that it is connected: what a handler does for a client comes
    /// after that, and may come too late for the client's first event.
    async fn prepare(&self, socket: &Socket, auth: Option<Value>) -> Result<(), Infallible> {
        let key = (socket.ns().to_owned(), socket.id);
        self.arrivals().insert(key.clone(), handshake(socket, auth));
        let peer = self.clone();
        socket.on_disconnect(async move || {
            peer.arrivals().remove(&key);
        });
        self.take_events(socket);
        // From its first moment on, what is sent to its id reaches it.
        self.cluster.follow(socket.ns(), socket.id.as_str()).await;
        Ok(())
    }

    fn take_events(&self, socket: &Socket) {
        let cluster = self.cluster.clone();
        let join = async move |socket: Socket, Data(room): Data<String>, ack: AckSender<Server>| {
            cluster.follow(socket.ns(), &room).await;
            socket.join(room);
            let _ = ack.send("ok");
        };
        socket.on("join", join);
        socket.on(
            "leave",
            async |socket: Socket, Data(room): Data<String>, ack: AckSender<Server>| {
                socket.leave(room);
                let _ = ack.send("ok");
            },
        );
        socket.on("echo", async |Data(args): Data<Args>, ack: AckSender<Server>| {
            let _ = ack.send(&args);
        });
        socket.on(
            "to-all",
            async |socket: Socket, io: SocketIo<Server>, Data(args): Data<Args>| {
                let all = io.of(socket.ns()).expect("it is in there");
                let _ = all.emit("msg", &args).await;
            },
        );
        socket.on("to-others", async |socket: Socket, Data(args): Data<Args>| {
            let _ = socket.broadcast().emit("msg", &args).await;
        });
        socket.on("to-sender", async |socket: Socket, Data(args): Data<Args>| {
            let _ = socket.emit("msg", &args);
        });
        socket.on("to-room", async |socket: Socket, Data((room, value)): Data<(String, Arg)>| {
            let _ = socket.within(room).emit("msg", &Args(vec![value])).await;
        });
    }

    fn arrivals(&self) -> MutexGuard<'_, HashMap<(String, Sid), Handshake>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What other servers are told about a socket.
    fn describe(&self, ns: &str, id: Sid) -> Option<Description> {
        let handshake = self.arrivals().get(&(ns.to_owned(), id))?.clone();
        Some(Description { handshake, data: Map::new() })
    }

    /// What other servers are answered, and what their events do here.
    async fn answer_server(&self, event: ServerEvent) -> Option<EventData> {
        #[derive(Serialize)]
        struct Line<'a> {
            event: &'a str,
            nsp: &'a str,
            args: &'a RawValue,
            attachments: Vec<String>,
            answered: bool,
        }

        let EventData { json, attachments } = &event.data;
        print(&Line {
            event: "serverEvent",
            nsp: &event.ns,
            args: serde_json::from_str(json).ok()?,
            attachments: attachments.iter().map(|binary| BASE64_STANDARD.encode(binary)).collect(),
            answered: event.is_answered,
        });
        let args = Args::of(&event.data)?;
        match event.name().as_str() {
            "who" => event_data(&[&self.name]).ok(),
            "echo" => Args(args.0.into_iter().skip(1).take(1).collect()).to_data().ok(),
            "tell everyone" => {
                let told = Args(args.0.into_iter().skip(1).collect());
                let _ = self.io.of(&event.ns)?.local().emit("told", &told).await;
                None
            }
            "tell red" => {
                let told = Args(args.0.into_iter().skip(1).take(1).collect());
                let _ = self.io.of(&event.ns)?.within("red").local().emit("told", &told).await;
                None
            }
            _ => None,
        }
    }
}

async fn nothing() {}

impl Line {
    fn selection(&self) -> Selection {
        let names = |rooms: &[String]| rooms.iter().map(|room| RoomName::from(&**room)).collect();
        Selection { rooms: names(&self.rooms), except: names(&self.except) }
    }

    fn flags(&self) -> Flags {
        let LineFlags { volatile, local, compress } = self.flags;
        Flags { volatile, local, compress }
    }

    fn data(&self) -> Result<EventData, Value> {
        let args = Args::new(self.args.clone(), &self.attachments).map_err(failed)?;
        args.to_data().map_err(failed)
    }
}

fn failed(error: impl Error) -> Value {
    json!({"error": error.to_string()})
}

fn told(result: Result<(), impl Error>) -> Outcome {
    result.map(|()| Value::Null).map_err(failed)
}

/// An answer of the cluster as a line has it.
fn outcome<T>(answer: Result<T, RequestError<T>>, shape: impl Fn(&T) -> Value) -> Outcome {
    answer.map(|whole| shape(&whole)).map_err(|error| {
        json!({
            "error": error.cause.kind(),
            "received": error.received,
            "expected": error.expected,
            "arrived": shape(&error.arrived),
        })
    })
}

fn names<'a>(names: impl IntoIterator<Item = &'a RoomName>) -> Value {
    names.into_iter().map(RoomName::as_str).collect()
}

fn answer(answer: &ClientAnswer) -> Value {
    let attachments = answer.args.attachments.iter();
    json!({
        "sid": answer.socket.as_deref(),
        "args": json_of(&answer.args.json),
        "attachments": attachments.map(|binary| BASE64_STANDARD.encode(binary)).collect::<Vec<_>>(),
    })
}

fn detail(socket: &SocketDetail) -> Value {
    json!({
        "id": socket.id.as_str(),
        "rooms": names(&socket.rooms),
        "handshake": json_of(&socket.handshake),
        "data": json_of(&socket.data),
    })
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn handshake(socket: &Socket, auth: Option<Value>) -> Handshake {
    let request = socket.req_parts();
    let url = request.uri.path_and_query().map_or("", |url| url.as_str());
    let headers = request.headers.iter();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let mut handshake = Handshake::of_request(url, headers, SystemTime::now());
    if let Some(ConnectInfo(address)) = request.extensions.get::<ConnectInfo<SocketAddr>>() {
        handshake.address = address.ip().to_string();
    }
    if let Some(Value::Object(auth)) = auth {
        handshake.auth = auth;
    }
    handshake
}

/// Writes one line. Who reads them may be gone.
fn print(line: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(line) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}

fn print_outcome(id: u64, outcome: Outcome) {
    match outcome {
        Ok(result) => print(&json!({"id": id, "result": result})),
        Err(mut error) => {
            error["id"] = json!(id);
            print(&error);
        }
    }
}

/// What the command line says.
fn settings() -> Result<(AdapterConfig, String), String> {
    let mut config = AdapterConfig { mode: Mode::Redis, ..AdapterConfig::default() };
    let mut name = String::from("o");
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match (flag.as_str(), value.as_str()) {
            ("--redis", urls) => {
                let urls = urls.split(',').map(Into::into).collect();
                config.redis = Some(RedisConfig { urls, ..RedisConfig::new("".into()) });
            }
            ("--prefix", prefix) => prefix.clone_into(&mut config.key),
            ("--adapter", "memory") => config.mode = Mode::Memory,
            ("--adapter", "redis") => config.mode = Mode::Redis,
            ("--adapter", "redis-sharded") => config.mode = Mode::RedisSharded,
            ("--sharded-mode", "static") => config.sharded = ShardedMode::Static,
            ("--sharded-mode", "dynamic") => config.sharded = ShardedMode::Dynamic,
            ("--sharded-mode", "dynamic-private") => config.sharded = ShardedMode::DynamicPrivate,
            ("--parser", "json") => config.parser = ClusterParser::Json,
            ("--parser", "msgpack") => config.parser = ClusterParser::MessagePack,
            ("--subscribe", "all") => config.subscribe = Subscribe::All,
            ("--subscribe", "interest") => config.subscribe = Subscribe::Interest,
            ("--requests-timeout", milliseconds) => {
                let milliseconds = milliseconds.parse().map_err(|_| format!("{flag} {value}"))?;
                config.requests_timeout = Duration::from_millis(milliseconds);
            }
            ("--name", text) => text.clone_into(&mut name),
            _ => return Err(format!("{flag} {value} is not known")),
        }
    }
    Ok((config, name))
}

/// The lines of the standard input. They are read on a thread of their own, which ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (give, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if give.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Takes lines until the standard input ends.
async fn take_lines(peer: &Peer) {
    let mut lines = lines();
    let mut asking = JoinSet::new();
    while let Some(text) = lines.recv().await {
        while asking.try_join_next().is_some() {}
        let line: Line = match serde_json::from_str(&text) {
            Ok(line) => line,
            Err(error) => {
                print(&failed(error));
                continue;
            }
        };
        match peer.act(&line).await {
            Some(outcome) => print_outcome(line.id, outcome),
            None => {
                let peer = peer.clone();
                asking.spawn(async move { print_outcome(line.id, peer.ask(&line).await) });
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (config, name) = settings()?;
    let cluster = Cluster::new(config, ClusterMetrics::register(&Registry::new())?)?;
    let builder = SocketIo::builder().max_payload(PAYLOAD_BYTES_MAX).max_buffer_size(PACKETS_MAX);
    let (layer, io) = builder.with_adapter::<Server>(cluster.clone()).build_layer();
    let peer =
        Peer { io: io.clone(), cluster: cluster.clone(), arrivals: Arrivals::default(), name };
    let answering = peer.clone();
    cluster.on_server_event(move |event| {
        let peer = answering.clone();
        async move { peer.answer_server(event).await }
    });
    let describing = peer.clone();
    cluster.describe_with(move |ns, id| describing.describe(ns, id));
    peer.serve("/");
    peer.serve_pattern("/tenant-{name}");

    let app = axum::Router::<()>::new().layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let serve = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>());
    let working = async {
        let mut link = cluster.adapter().link_changes();
        let _ = link.wait_for(|link| matches!(link, LinkState::Up | LinkState::Memory)).await;
        print(&json!({"event": "ready", "port": port}));
        tokio::select! {
            () = take_lines(&peer) => {}
            _ = terminate.recv() => {}
        }
        // Both wait for clients that do not read, without an end.
        let _ = timeout(CLOSE_TIMEOUT, io.close()).await;
        shutdown.cancel();
        timeout(CLOSE_TIMEOUT, std::future::pending::<()>()).await
    };
    let serving = serve.with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let serving = async {
        let served = tokio::select! {
            served = serving.into_future() => served,
            _ = working => Ok(()),
        };
        shutdown.cancel();
        served
    };
    let (served, ()) = tokio::join!(serving, cluster.run(shutdown.clone()));
    served?;
    Ok(())
}
