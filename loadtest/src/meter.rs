//! How the work of a server is measured: warm up, then one window per kind of instrument.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::counter::{self, Counters, INSTRUCTIONS_KERNEL, INSTRUCTIONS_USER, SYSCALLS};
use crate::fleet::Fleet;
use crate::process::Cpu;

/// When a piece of work ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Operations.
    pub operations_max: u64,
    /// Time.
    pub time_max: Duration,
}

impl Limit {
    /// Ends after a number of operations, or a time that no sane server needs.
    pub fn operations(operations_max: u64) -> Limit {
        Limit { operations_max, time_max: Duration::from_secs(300) }
    }

    /// When work that began at `start` issues nothing more.
    pub fn end(&self, start: Instant) -> Instant {
        start + self.time_max
    }

    /// Whether work that began at `start` is to go on.
    pub fn allows(&self, operations: u64, start: Instant) -> bool {
        operations < self.operations_max && start.elapsed() < self.time_max
    }
}

/// Named values of one scenario.
pub type Metrics = BTreeMap<String, f64>;

/// The instruments.
pub enum Meter {
    /// The server runs by itself: CPU time, and what the machine can count.
    Native {
        /// Counters that this machine has.
        events: Vec<&'static str>,
        /// How long CPU time is measured.
        time: Duration,
    },
    /// The server runs in Valgrind: user instructions, by function.
    Callgrind {
        /// Where the profile goes.
        directory: PathBuf,
    },
}

impl Meter {
    /// For servers that run by themselves.
    pub fn native(time: Duration) -> Meter {
        let events = counter::supported(&[INSTRUCTIONS_USER, INSTRUCTIONS_KERNEL, SYSCALLS]);
        Meter::Native { events, time }
    }

    /// Runs `work` until it has warmed up the server, then in the windows. `work` gives the operations it has done.
    /// `operations_max` bounds each window for work that uses up something, such as ports.
    pub fn measure<F>(
        &self,
        fleet: &Fleet,
        name: &str,
        operations_max: u64,
        mut work: F,
    ) -> Result<Metrics>
    where
        F: FnMut(Limit) -> Result<u64>,
    {
        let pids = fleet.pids();
        match self {
            Meter::Native { events, time } => {
                let bound = |time_max| Limit { operations_max, time_max };
                work(bound(*time / 2))?;
                let mut metrics = cpu_window(fleet, events, || work(bound(*time)))?;
                if events.contains(&SYSCALLS) {
                    // In a window of its own, since counting them makes each a little slower.
                    let counters = Counters::start(&pids, &[SYSCALLS])?;
                    let operations = work(bound(*time / 8))?;
                    let count = counters.stop()?.get(SYSCALLS).copied().unwrap_or(0.0);
                    metrics.insert("syscalls".to_owned(), count / operations.max(1) as f64);
                }
                Ok(metrics)
            }
            Meter::Callgrind { directory } => {
                work(Limit::operations(operations_max.min(1) + operations_max / 10))?;
                let total = directory.join(format!("{name}.callgrind"));
                let pid = pids[0];
                callgrind(&["-i", "on"], pid)?;
                let operations = work(Limit::operations(operations_max))?;
                callgrind(&["-i", "off"], pid)?;
                callgrind(&["-d", name], pid)?;
                let instructions = collect_profile(directory, pid, &total)?;
                // Clients are spread evenly, so the nodes that are not looked at do as much.
                let each = instructions * pids.len() as f64 / operations.max(1) as f64;
                Ok(Metrics::from([
                    ("operations".to_owned(), operations as f64),
                    ("user_instructions".to_owned(), each),
                ]))
            }
        }
    }
}

fn cpu_window(
    fleet: &Fleet,
    events: &[&'static str],
    work: impl FnOnce() -> Result<u64>,
) -> Result<Metrics> {
    let pids = fleet.pids();
    let instructions: Vec<&str> =
        events.iter().copied().filter(|&event| event != SYSCALLS).collect();
    let counters =
        if instructions.is_empty() { None } else { Some(Counters::start(&pids, &instructions)?) };
    let redis = || fleet.redis().map(|redis| Cpu::of(redis.pid())).transpose();
    let (start, before, redis_before) = (Instant::now(), Cpu::of_all(&pids)?, redis()?);
    let operations = work()?.max(1) as f64;
    let (cpu, redis_after, elapsed) = (Cpu::of_all(&pids)? - before, redis()?, start.elapsed());
    let mut metrics = Metrics::from([
        ("operations".to_owned(), operations),
        ("operations_per_second".to_owned(), operations / elapsed.as_secs_f64()),
        ("operations_per_cpu_second".to_owned(), operations / cpu.total.as_secs_f64()),
        ("cpu_microseconds".to_owned(), cpu.total.as_secs_f64() * 1e6 / operations),
        ("user_share".to_owned(), cpu.user_share()),
    ]);
    if let Some((before, after)) = redis_before.zip(redis_after) {
        let used = (after - before).total.as_secs_f64();
        metrics.insert("redis_cpu_microseconds".to_owned(), used * 1e6 / operations);
    }
    if let Some(counters) = counters {
        let counts = counters.stop()?;
        for (event, metric) in
            [(INSTRUCTIONS_USER, "user_instructions"), (INSTRUCTIONS_KERNEL, "kernel_instructions")]
        {
            if let Some(count) = counts.get(event) {
                metrics.insert(metric.to_owned(), count / operations);
            }
        }
    }
    Ok(metrics)
}

fn callgrind(arguments: &[&str], pid: u32) -> Result<()> {
    let output = Command::new("callgrind_control")
        .args(arguments)
        .arg(pid.to_string())
        .output()
        .context("start callgrind_control")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "callgrind_control {arguments:?}: {text}");
    Ok(())
}

/// Valgrind numbers its dumps: takes the newest under a name of its own and gives its count of instructions.
fn collect_profile(
    directory: &std::path::Path,
    pid: u32,
    profile: &std::path::Path,
) -> Result<f64> {
    let prefix = format!("callgrind.out.{pid}.");
    let newest = std::fs::read_dir(directory)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse::<u64>().ok()?;
            Some((number, entry.path()))
        })
        .max();
    let (_, path) = newest.context("find Valgrind's dump")?;
    std::fs::rename(path, profile)?;
    let text = std::fs::read_to_string(profile)?;
    // The summary at the top says zero once instrumentation is off again.
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(line.context("find the total of Valgrind's dump")?.trim().parse()?)
}
