//! An emitter: a Node.js process with `@socket.io/redis-emitter`, which is told what to emit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::harness::Harness;
use super::history::{Origin, Publication, Target};
use super::message;
use super::process::Process;

/// How long the process may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Emits that wait for the process.
const EMITS_MAX: usize = 4096;

/// A running emitter.
pub struct Emitter {
    process: RefCell<Process>,
    lines: mpsc::Sender<String>,
    state: Rc<State>,
    _tasks: JoinSet<Result<()>>,
}

struct State {
    harness: Rc<Harness>,
    /// The publisher it is, and its next number. It is another one after each failure: its next connection to Redis
    /// owes no order to the one before.
    spoken: Cell<(u32, u32)>,
    waiting: RefCell<HashMap<u64, usize>>,
}

/// What the process answers when Redis has.
#[derive(Deserialize)]
struct Answer {
    id: u64,
    ok: bool,
}

impl Emitter {
    /// Starts the process and waits until it asks what to emit.
    pub async fn start(
        harness: &Rc<Harness>,
        script: &Path,
        redis: &str,
        folder: &Path,
        name: &str,
    ) -> Result<Emitter> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port().to_string();
        let mut command = Command::new("node");
        command.arg(script).args([redis, &port]);
        let log = folder.join(format!("{name}.log"));
        let mut process = Process::start(&mut command, [], &log)?;
        let accepted = timeout(PATIENCE, listener.accept()).await;
        let (stream, _) = match accepted {
            Ok(accepted) => accepted?,
            Err(_) => {
                process.check()?;
                anyhow::bail!("{name} does not start: {}", process.tail());
            }
        };
        let (reads, mut writes) = stream.into_split();
        let state = Rc::new(State {
            harness: harness.clone(),
            spoken: Cell::new((harness.publisher(), 0)),
            waiting: RefCell::default(),
        });
        let (lines, mut queued) = mpsc::channel::<String>(EMITS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn_local(answers(reads, state.clone()));
        tasks.spawn_local(async move {
            while let Some(line) = queued.recv().await {
                writes.write_all(line.as_bytes()).await?;
            }
            Ok(())
        });
        Ok(Emitter { process: RefCell::new(process), lines, state, _tasks: tasks })
    }

    /// Emits a message.
    pub fn emit(&self, target: &Target, padding: usize) {
        let State { harness, spoken, waiting } = &*self.state;
        let (publisher, number) = spoken.get();
        let text = message::text(publisher, number, target, padding);
        let rooms: Vec<String> = match target {
            Target::Everyone => Vec::new(),
            Target::Rooms(rooms) => rooms.iter().copied().map(message::room).collect(),
        };
        let mut history = harness.history.borrow_mut();
        let at = history.publications.len();
        let line = json!({ "id": at, "rooms": rooms, "text": text });
        if self.lines.try_send(format!("{line}\n")).is_err() {
            // The process is behind, or gone, which `check` tells.
            return;
        }
        spoken.set((publisher, number + 1));
        waiting.borrow_mut().insert(at as u64, at);
        history.publications.push(Publication {
            publisher,
            number,
            target: target.clone(),
            origin: Origin::Emitter,
            sent: harness.now(),
            accepted: None,
        });
    }

    /// Fails if the process has ended.
    pub fn check(&self) -> Result<()> {
        self.process.borrow_mut().check().context("the emitter")
    }
}

async fn answers(reads: OwnedReadHalf, state: Rc<State>) -> Result<()> {
    let mut lines = BufReader::new(reads).lines();
    while let Some(line) = lines.next_line().await? {
        let answer: Answer = serde_json::from_str(&line).context("parse an answer")?;
        let Some(at) = state.waiting.borrow_mut().remove(&answer.id) else { continue };
        if answer.ok {
            let now = state.harness.now();
            state.harness.history.borrow_mut().publications[at].accepted = Some(now);
        } else {
            state.spoken.set((state.harness.publisher(), 0));
        }
    }
    Ok(())
}
