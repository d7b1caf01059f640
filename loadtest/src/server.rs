//! A server under test: a child process that is pinned to a core, found by its ready line and killed by its handle.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::redis::Redis;

/// How long a server may take until it listens. Under Valgrind that is long.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The programs that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// The gateway of this repository, with one worker.
    Carillon,
    /// Node.js with the package socket.io.
    Node,
    /// A program that does nothing but what the kernel demands: what is left to be gained.
    Floor,
}

impl Program {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Program::Carillon => "Carillon",
            Program::Node => "Node.js socket.io",
            Program::Floor => "floor",
        }
    }

    /// The environment variable that names the Redis of a cluster.
    fn redis_variable(self) -> Option<&'static str> {
        match self {
            Program::Carillon => Some("CARILLON_REDIS"),
            Program::Node => Some("REDIS_URL"),
            Program::Floor => None,
        }
    }

    fn command_line(self, places: &Places) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        match self {
            Program::Carillon => [
                &text(&places.binaries.join("carillon")),
                "--config",
                &text(&places.loadtest.join("gateway.toml")),
                "--listen",
                "127.0.0.1:0",
                "--internal-listen",
                "127.0.0.1:0",
                "--workers",
                "1",
            ]
            .map(str::to_owned)
            .to_vec(),
            Program::Node => {
                vec!["node".to_owned(), text(&places.loadtest.join("peers/node/server.mjs"))]
            }
            Program::Floor => vec![text(&places.binaries.join("carillon-floor"))],
        }
    }
}

/// Where the programs and their configuration are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of the release binaries.
    pub binaries: std::path::PathBuf,
    /// The directory `loadtest` of the repository.
    pub loadtest: std::path::PathBuf,
}

/// What is put in front of a command line to run it on one core.
pub fn pinned(core: Option<usize>) -> Vec<String> {
    core.map_or_else(Vec::new, |core| {
        ["taskset", "-c", &core.to_string()].map(str::to_owned).to_vec()
    })
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// The one line of standard output that is understood.
#[derive(Deserialize)]
struct ReadyLine {
    event: String,
    public: SocketAddr,
}

impl Server {
    /// Starts a program and waits until it listens. `wrapper` is put in front of its command line; with a Redis
    /// it is one node of a cluster.
    pub fn start(
        program: Program,
        places: &Places,
        core: Option<usize>,
        wrapper: &[String],
        redis: Option<&Redis>,
    ) -> Result<Server> {
        let mut line = pinned(core);
        line.extend_from_slice(wrapper);
        line.extend(program.command_line(places));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARILLON_") {
                command.env_remove(name);
            }
        }
        if let Some(redis) = redis {
            let variable = program.redis_variable();
            command.env(variable.context("the floor knows no cluster")?, redis.url());
        }
        let mut child = command.spawn().with_context(|| format!("start {}", line.join(" ")))?;
        let stdout = child.stdout.take().context("standard output was not piped")?;
        let (ready, address) = mpsc::channel();
        // Reads to the end, so that the server never waits for a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str::<ReadyLine>(&line)
                    && line.event == "listening"
                {
                    // Only the first listener of a ready line is waited for.
                    let _ = ready.send(line.public);
                }
            }
        });
        let mut server = Server { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        server.address = address.recv_timeout(START_TIMEOUT).map_err(|_| {
            anyhow!("{} did not say that it listens: {}", program.name(), line.join(" "))
        })?;
        Ok(server)
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
