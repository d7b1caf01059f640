//! A node inside of another program, driven by lines of JSON: it shows how to embed a node and how
//! to ask the cluster for things, and tests use it to do so from the place of a Carillon node.
//!
//! ```text
//! CARILLON_REDIS=redis://127.0.0.1 cargo run --example console -- --listen 127.0.0.1:0
//! {"event":"ready","internal":3001,"port":41873}
//! {"id":1,"op":"fetchSockets","nsp":"/","rooms":["news"]}
//! {"id":1,"result":[{"data":{},"handshake":{…},"id":"…","rooms":["…","news"]}]}
//! ```
//!
//! It is configured as `carillon` is: file, environment, flags. Logs go to stderr. What only sends is
//! done in the order of the lines; what waits for answers of others waits beside that.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use adapter::{Acks, Flags, Published, RequestError, RoomName, Selection, SocketDetail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use carillon::app::{App, Order};
use carillon::cli::{self, Command};
use carillon::config::Config;
use carillon::hub::Hub;
use carillon::socket::Gateway;
use carillon::telemetry;
use protocol::socket::EventData;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// One line on stdin.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: u64,
    op: String,
    #[serde(default = "main_namespace")]
    nsp: String,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    flags: LineFlags,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    attachments: Vec<String>,
    /// In milliseconds.
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    leave: Vec<String>,
    #[serde(default)]
    close: bool,
}

#[derive(Default, Deserialize)]
struct LineFlags {
    #[serde(default)]
    volatile: bool,
    compress: Option<bool>,
    #[serde(default)]
    local: bool,
}

fn main_namespace() -> String {
    "/".to_owned()
}

/// What goes back for a line: `result`, or `error` and what has arrived.
type Reply = Result<Value, Value>;

fn main() -> anyhow::Result<ExitCode> {
    let config = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(Command::Serve { config, .. }) => *config,
        Ok(Command::Print(text)) => {
            write!(std::io::stdout(), "{text}")?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            write!(std::io::stderr(), "{error}")?;
            return Ok(ExitCode::from(error.code));
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(run(config));
    // A thread of it may still wait for a line that never comes.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

/// Runs a node until stdin ends or a signal comes.
async fn run(config: Config) -> anyhow::Result<()> {
    let telemetry = telemetry::init_with(&config.log, std::io::stderr())?;
    let app = App::build(config, telemetry).await?;
    let (public, internal) = app.addresses()?;
    let gateway = app.gateway().clone();
    gateway.hub().lanes().listen_to_servers(|namespace, event, is_answered| {
        say(&json!({
            "event": "serverEvent", "nsp": namespace, "args": args(event),
            "attachments": attachments(event), "answered": is_answered,
        }));
    });
    let (orders, received) = mpsc::channel(1);
    let mut node = JoinSet::new();
    node.spawn(app.run(received, Box::new(|| Err("a console does not reload".to_owned()))));
    say(&json!({ "event": "ready", "port": public.port(), "internal": internal.port() }));

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        read = read_lines(gateway) => read?,
        _ = terminate.recv() => {}
        // The node does not end by itself, so it failed.
        Some(ended) = node.join_next() => drop(ended??),
    }
    orders.send(Order::Drain).await?;
    while let Some(ended) = node.join_next().await {
        ended??;
    }
    Ok(())
}

async fn read_lines(gateway: Arc<Gateway>) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut questions = JoinSet::new();
    while let Some(line) = lines.next_line().await? {
        let line: Line = match serde_json::from_str(&line) {
            Ok(line) => line,
            Err(error) => {
                say(&json!({ "error": error.to_string() }));
                continue;
            }
        };
        match command(gateway.hub(), &line).await {
            Some(published) => reply(line.id, Ok(json!(published))),
            None => {
                let gateway = gateway.clone();
                questions.spawn(async move {
                    let id = line.id;
                    reply(id, question(gateway.hub(), line).await);
                });
            }
        }
        while questions.try_join_next().is_some() {}
    }
    // Each has its timeout.
    while questions.join_next().await.is_some() {}
    Ok(())
}

/// Does what only sends, and says what became of it for the other nodes; nothing if the line asks for
/// answers.
async fn command(hub: &Hub, line: &Line) -> Option<&'static str> {
    let (adapter, selection) = (hub.adapter(), selection(line));
    let published = match line.op.as_str() {
        "emit" => {
            let (flags, data) = (flags(line), event(line));
            match hub.lanes().namespaces().get(&line.nsp) {
                Some(namespace) => hub.publish(&namespace, &selection, flags, &data),
                // No client of this node is in it.
                None => adapter.broadcast(&line.nsp, &selection, flags, &data),
            }
        }
        "join" => adapter.join(&line.nsp, &selection, &rooms(&line.join)).await,
        "leave" => adapter.leave(&line.nsp, &selection, &rooms(&line.leave)).await,
        "disconnect" => adapter.disconnect(&line.nsp, &selection, line.close).await,
        "serverSideEmit" => adapter.server_side_emit(&line.nsp, &event(line)),
        _ => return None,
    };
    Some(match published {
        Published::LocalOnly => "local",
        Published::Queued => "queued",
        Published::Lost(reason) => reason.kind(),
    })
}

/// Asks the cluster.
async fn question(hub: &Hub, line: Line) -> Reply {
    let (adapter, nsp, selection) = (hub.adapter(), &line.nsp, selection(&line));
    match line.op.as_str() {
        "emitWithAck" => {
            let timeout = Duration::from_millis(line.timeout);
            let (flags, data) = (flags(&line), event(&line));
            let acks = adapter.broadcast_with_ack(nsp, &selection, flags, &data, timeout).await;
            replied(acks, acks_json)
        }
        "fetchSockets" => replied(adapter.fetch_sockets(nsp, &selection).await, |sockets| {
            sockets.iter().map(socket_json).collect()
        }),
        "allRooms" => replied(adapter.all_rooms(nsp).await, names_json),
        "sockets" => replied(adapter.sockets(nsp, &selection.rooms).await, names_json),
        "serverSideEmitWithAck" => {
            replied(adapter.server_side_emit_with_ack(nsp, &event(&line)).await, |answers| {
                answers.iter().map(args).collect()
            })
        }
        "count" => Ok(json!(adapter.server_count(nsp).await)),
        "nodes" => Ok(json!(adapter.nodes().await)),
        other => Err(json!({ "error": format!("there is no op {other:?}") })),
    }
}

fn replied<T>(result: Result<T, RequestError<T>>, json: impl Fn(&T) -> Value) -> Reply {
    result.map(|whole| json(&whole)).map_err(|error| {
        json!({
            "error": error.cause.kind(), "received": error.received,
            "expected": error.expected, "arrived": json(&error.arrived),
        })
    })
}

fn reply(id: u64, reply: Reply) {
    let mut line = reply.map_or_else(|error| error, |result| json!({ "result": result }));
    line["id"] = id.into();
    say(&line);
}

#[expect(clippy::print_stdout, reason = "stdout is what this program talks on")]
fn say(line: &Value) {
    println!("{line}");
}

fn rooms(names: &[String]) -> Vec<RoomName> {
    names.iter().map(|name| RoomName::from(name.as_str())).collect()
}

fn selection(line: &Line) -> Selection {
    Selection { rooms: rooms(&line.rooms), except: rooms(&line.except) }
}

fn flags(line: &Line) -> Flags {
    let LineFlags { volatile, compress, local } = line.flags;
    Flags { volatile, compress, local }
}

fn event(line: &Line) -> EventData {
    let decoded = line.attachments.iter().map(|text| STANDARD.decode(text).unwrap_or_default());
    EventData { json: line.args.to_string().into(), attachments: decoded.map(Into::into).collect() }
}

fn args(data: &EventData) -> Value {
    serde_json::from_str(&data.json).unwrap_or_default()
}

fn attachments(data: &EventData) -> Vec<String> {
    data.attachments.iter().map(|bytes| STANDARD.encode(bytes)).collect()
}

fn acks_json(acks: &Acks) -> Value {
    let answers = acks.answers.iter().map(|answer| {
        json!({
            "sid": answer.socket.as_deref(), "args": args(&answer.args),
            "attachments": attachments(&answer.args),
        })
    });
    json!({ "asked": acks.n_asked, "answers": answers.collect::<Value>() })
}

fn socket_json(socket: &SocketDetail) -> Value {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let rooms: Vec<&str> = socket.rooms.iter().map(|room| &**room).collect();
    json!({
        "id": socket.id.as_str(), "rooms": rooms,
        "handshake": value(&socket.handshake), "data": value(&socket.data),
    })
}

fn names_json(names: &BTreeSet<RoomName>) -> Value {
    names.iter().map(|name| Value::from(name.as_str())).collect()
}
