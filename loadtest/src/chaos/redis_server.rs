//! A `redis-server` of a scenario's own.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Cmd, FromRedisValue};
use rustix::process::Signal;
use tokio::time::timeout;

use super::process::{Process, until};

/// How long Redis may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Redis that can be ended and started again, at the same port.
pub struct RedisServer {
    process: RefCell<Option<Process>>,
    port: u16,
    folder: PathBuf,
    name: String,
    arguments: Vec<String>,
    /// Whether it is a Sentinel, which takes its settings from a file and writes to it.
    is_sentinel: bool,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start(folder: &Path, name: &str, arguments: &[&str]) -> Result<RedisServer> {
        let server = RedisServer {
            process: RefCell::new(None),
            port: free_port()?,
            folder: folder.join(name),
            name: name.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            is_sentinel: false,
        };
        std::fs::create_dir_all(&server.folder)?;
        server.start_again(&[]).await?;
        server.answers().await?;
        Ok(server)
    }

    /// Starts a Sentinel with these lines of configuration, and waits until it answers.
    pub async fn start_sentinel(folder: &Path, name: &str, lines: &[&str]) -> Result<RedisServer> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("sentinel.conf");
        let port = free_port()?;
        let own = format!("bind 127.0.0.1\nport {port}\ndir {}\n", folder.display());
        std::fs::write(&file, own + &lines.join("\n"))?;
        let server = RedisServer {
            process: RefCell::new(None),
            port,
            folder,
            name: name.to_owned(),
            arguments: vec![file.display().to_string(), "--sentinel".to_owned()],
            is_sentinel: true,
        };
        server.start_again(&[]).await?;
        server.answers().await?;
        Ok(server)
    }

    /// Starts the process on its port; `more` are arguments for this time.
    pub async fn start_again(&self, more: &[&str]) -> Result<()> {
        let port = self.port.to_string();
        until(&format!("{} starts", self.name), PATIENCE, async || {
            let mut command = Command::new("redis-server");
            if !self.is_sentinel {
                command
                    .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                    .args(["--port", &port, "--dir"])
                    .arg(&self.folder);
            }
            command.args(&self.arguments).args(more);
            let log = self.folder.join("redis.log");
            let mut process = Process::start(&mut command, [], &log)?;
            // It ends at once if the port is still taken.
            let started = until("the start", PATIENCE, async || {
                let is_up = process.output().contains("Ready to accept connections")
                    || process.output().contains("Loading RDB")
                    || process.output().contains("+monitor");
                Ok(if is_up { Some(true) } else { process.ended()?.map(|_| false) })
            })
            .await?;
            Ok(started.then(|| self.process.replace(Some(process))))
        })
        .await?;
        Ok(())
    }

    /// Waits until it answers.
    pub async fn answers(&self) -> Result<()> {
        until(&format!("{} answers", self.name), PATIENCE, async || {
            Ok(self.ask::<String>(&redis::cmd("PING")).await.ok())
        })
        .await?;
        Ok(())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command over a connection of its own.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let asking = async {
            let client = redis::Client::open(self.url())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            command.query_async::<T>(&mut connection).await
        };
        let name = &self.name;
        timeout(PATIENCE, asking)
            .await
            .with_context(|| format!("{name} does not answer"))?
            .with_context(|| format!("{name} refuses"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.borrow().as_ref().context("Redis runs")?.signal(signal)
    }

    /// `SHUTDOWN`, and waits until it has ended.
    pub async fn shut_down(&self) -> Result<()> {
        // TERM is the same as the command, which has no answer.
        self.signal(Signal::TERM)?;
        until(&format!("{} shuts down", self.name), PATIENCE, async || {
            self.process.borrow_mut().as_mut().context("Redis runs")?.ended()
        })
        .await?;
        self.process.replace(None);
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        self.process.replace(None);
    }
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
