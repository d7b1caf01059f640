//! The machine that everything runs on.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// Files that a process has open beside its connections.
const FILES_SPARE: usize = 200;

/// Raises the soft limit of open files to the hard one, for this process and the servers it starts.
pub fn raise_file_limit(connections: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raise the limit of open files")?;
    let needed = connections + FILES_SPARE;
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed as u64),
        "{needed} open files are needed, the hard limit is {:?}: raise it or give --idle less",
        limit.maximum
    );
    Ok(())
}

/// Who runs on which core.
#[derive(Clone, Debug, Serialize)]
pub struct Cores {
    /// The server's core; none where there is only one.
    pub server: Option<usize>,
    /// The generator's.
    pub generator: Option<usize>,
}

impl Cores {
    /// Gives the server the last core and binds this process to the one before it.
    pub fn split() -> Result<Cores> {
        let allowed = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        let &[.., generator, server] = cores.as_slice() else {
            return Ok(Cores { server: None, generator: None });
        };
        let mut own = CpuSet::new();
        own.set(generator);
        sched_setaffinity(None, &own).context("bind to a core")?;
        Ok(Cores { server: Some(server), generator: Some(generator) })
    }
}

/// What a reader needs to know to judge the numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Number of cores.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Version of Node.js.
    pub node: String,
    /// The commit that was checked out; `+` if files were changed.
    pub commit: String,
    /// Day of the run, UTC.
    pub date: String,
    /// Load of the machine, as `/proc/loadavg` shows it, when the run began.
    pub load: String,
}

impl Machine {
    /// Looks around.
    pub fn describe() -> Machine {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split(':').nth(1))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |name| name.trim().to_owned());
        let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
        let changed = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = output("git", &["rev-parse", "--short", "HEAD"]);
        Machine {
            processor,
            cores: if cores > 0 {
                cores
            } else {
                thread::available_parallelism().map_or(1, usize::from)
            },
            kernel: output("uname", &["-r"]),
            node: output("node", &["--version"]),
            commit: if changed { format!("{commit}+") } else { commit },
            date: output("date", &["-u", "+%F"]),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }

    /// The name of files with results: date, processor, cores.
    pub fn file_stem(&self) -> String {
        let name = format!("{}-{}-{}", self.date, self.processor, self.cores).to_lowercase();
        let words: Vec<&str> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        words.join("-")
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
