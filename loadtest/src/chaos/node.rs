//! A server of the cluster: a Carillon node, or a Node.js server that keeps the same contract.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use super::process::{Process, until};
use super::transport::get;

/// How long a server may take to start or to drain.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server is started with.
pub struct Recipe {
    /// The program and its arguments, without the port.
    pub program: Vec<String>,
    /// Whether it is a Carillon node, with an internal listener.
    pub is_carillon: bool,
    /// Its variables.
    pub variables: Vec<(String, String)>,
    /// Where it may write.
    pub folder: PathBuf,
    /// For names of files.
    pub name: String,
}

/// A server that can be ended and started again, at the same address.
pub struct Node {
    recipe: Recipe,
    process: RefCell<Option<Process>>,
    address: Cell<SocketAddr>,
    internal: Cell<SocketAddr>,
    starts: Cell<u32>,
    /// Whether it was told to leave, so that its end is expected.
    is_leaving: Cell<bool>,
    resident_kilobytes_max: Cell<u64>,
}

/// The one line of output that is understood.
#[derive(Deserialize)]
struct ReadyLine {
    event: String,
    public: SocketAddr,
    internal: Option<SocketAddr>,
}

impl Node {
    /// A server that is yet to be started.
    pub fn new(recipe: Recipe) -> Node {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Node {
            recipe,
            process: RefCell::new(None),
            address: Cell::new(nowhere),
            internal: Cell::new(nowhere),
            starts: Cell::new(0),
            is_leaving: Cell::new(false),
            resident_kilobytes_max: Cell::new(0),
        }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> Result<()> {
        let Recipe { program, is_carillon, variables, folder, name } = &self.recipe;
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).arg("--listen").arg(self.address.get().to_string());
        command.current_dir(folder);
        self.starts.set(self.starts.get() + 1);
        let log = folder.join(format!("{name}.{}.log", self.starts.get()));
        let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut process = Process::start(&mut command, variables, &log)?;
        let ready = until(&format!("{name} listens"), PATIENCE, async || {
            process.check()?;
            let output = process.output();
            let mut lines = output.lines().filter_map(|line| serde_json::from_str(line).ok());
            Ok(lines.find(|line: &ReadyLine| line.event == "listening"))
        })
        .await?;
        self.address.set(ready.public);
        self.process.replace(Some(process));
        if *is_carillon {
            self.internal.set(ready.internal.context("no internal listener")?);
            until(&format!("{name} is ready"), PATIENCE, async || {
                self.check()?;
                Ok(get(self.internal.get(), "/readyz").await.ok())
            })
            .await?;
        }
        Ok(())
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address.get()
    }

    /// Whether it is a Carillon node.
    pub fn is_carillon(&self) -> bool {
        self.recipe.is_carillon
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.borrow().as_ref().context("the node runs")?.signal(signal)
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        self.process.replace(None);
    }

    /// Asks it to leave and waits until it has, which it must do without complaint.
    pub async fn drain(&self) -> Result<()> {
        self.is_leaving.set(true);
        self.signal(Signal::TERM)?;
        let name = &self.recipe.name;
        let status = until(&format!("{name} drains"), PATIENCE, async || {
            self.process.borrow_mut().as_mut().context("the node runs")?.ended()
        })
        .await?;
        let ended = self.process.replace(None).context("the node ran")?;
        self.is_leaving.set(false);
        ensure!(status.success(), "{name} drained with {status}: {}", ended.tail());
        Ok(())
    }

    /// Takes note of its memory, and fails if it has ended by itself or has panicked.
    pub fn check(&self) -> Result<()> {
        let mut process = self.process.borrow_mut();
        let Some(process) = process.as_mut() else { return Ok(()) };
        let resident = process.resident_kilobytes();
        self.resident_kilobytes_max.set(self.resident_kilobytes_max.get().max(resident));
        if self.is_leaving.get() {
            return Ok(());
        }
        process.check().with_context(|| self.recipe.name.clone())
    }

    /// Fails if it has written of a panic.
    pub fn check_log(&self) -> Result<()> {
        for start in 1..=self.starts.get() {
            let log = self.recipe.folder.join(format!("{}.{start}.log", self.recipe.name));
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find(|line| line.contains("panicked"));
            ensure!(line.is_none(), "{} panicked: {}", self.recipe.name, line.unwrap_or_default());
        }
        Ok(())
    }

    /// The most memory it was seen with.
    pub fn resident_kilobytes_max(&self) -> u64 {
        self.resident_kilobytes_max.get()
    }

    /// The sum of a metric over all its labels; there are none until something was counted.
    pub async fn metric(&self, name: &str) -> Result<i64> {
        let page = get(self.internal.get(), "/metrics").await.context("read the metrics")?;
        let values = page.lines().filter_map(|line| {
            let (metric, value) = line.rsplit_once(' ')?;
            (metric.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum::<f64>() as i64)
    }
}
