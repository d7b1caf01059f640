//! A child process that ends with its handle: also when the harness is interrupted or panics.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::process::resident_bytes;

/// How often a condition is looked at.
pub const TICK: Duration = Duration::from_millis(10);

/// Waits until a condition gives something.
pub async fn until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition().await.with_context(|| what.to_owned())? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain: {what}");
        }
        sleep(TICK).await;
    }
}

/// A running program.
pub struct Process {
    child: Child,
    /// What it writes, both of it.
    pub log: PathBuf,
}

impl Process {
    /// Starts a program that writes into a file. It gets none of the gateway's variables but those given.
    pub fn start<'a>(
        command: &mut Command,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        log: &Path,
    ) -> Result<Process> {
        let file = File::create(log).with_context(|| format!("write {}", log.display()))?;
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARILLON_") {
                command.env_remove(name);
            }
        }
        command.envs(variables).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// What it has written until now.
    pub fn output(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("look at a child")
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.ended()? {
            Some(status) => Err(anyhow!("ended with {status}: {}", self.tail())),
            None => Ok(()),
        }
    }

    /// The end of what it has written.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, if it lives.
    pub fn resident_kilobytes(&self) -> u64 {
        resident_bytes(self.id()).unwrap_or(0) / 1024
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(id, signal).with_context(|| format!("send {signal:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
