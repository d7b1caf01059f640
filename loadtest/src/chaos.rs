//! Fault tests: a cluster of real processes under load, faults on purpose, and a checker that reads the history.
//!
//! A [`scenario`] starts a [`world`]: Redis, three servers, 150 clients that publish, join and leave, and two emitters.
//! It makes its faults while the load goes on, lets the cluster settle, and watches it for a while when all must be
//! well. Everything that anybody did or saw is in the [`history`], which the [`checker`] judges by the promises of
//! `ARCHITECTURE.md`.
//!
//! Everything runs in one thread of one process, and every child ends with it.

mod checker;
mod emitter;
mod harness;
mod history;
mod member;
mod message;
mod node;
mod process;
mod proxy;
mod redis_fleet;
mod redis_server;
mod report;
mod scenario;
mod transport;
mod world;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

pub use scenario::Scenario;

use checker::Verdict;
use report::Row;
use world::World;

/// How long the cluster may take after the last fault until all must be well.
const SETTLE: Duration = Duration::from_secs(5);

/// Load before the first fault.
const WARM_UP: Duration = Duration::from_secs(1);

/// No scenario takes longer, whatever hangs.
const SCENARIO_MAX: Duration = Duration::from_secs(90);

/// Messages that are owed to sockets in the shortest scenario, by far.
const EXPECTED_MIN: u64 = 1000;

/// How nodes talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Adapter {
    /// Classic pub/sub.
    Redis,
    /// Sharded pub/sub.
    RedisSharded,
    /// Classic pub/sub, where nodes receive only what their rooms need.
    Interest,
}

impl Adapter {
    /// The gateway's variables for it.
    fn variables(self) -> Vec<(String, String)> {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match self {
            Adapter::Redis => vec![variable("CARILLON_ADAPTER", "redis")],
            Adapter::RedisSharded => vec![variable("CARILLON_ADAPTER", "redis-sharded")],
            Adapter::Interest => vec![
                variable("CARILLON_ADAPTER", "redis"),
                variable("CARILLON_CLUSTER_SUBSCRIBE", "interest"),
            ],
        }
    }

    /// As it is written on the command line.
    fn name(self) -> &'static str {
        match self {
            Adapter::Redis => "redis",
            Adapter::RedisSharded => "redis-sharded",
            Adapter::Interest => "interest",
        }
    }
}

/// Arguments of `carillon-bench chaos`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which scenarios: their names separated by commas, `all`, or `short` for what `make test` runs.
    #[arg(long, default_value = "all")]
    scenario: String,
    /// Where chance begins; with the same seed, the same is done.
    #[arg(long)]
    seed: Option<u64>,
    /// How nodes talk to each other; with several, each scenario runs with each.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "redis")]
    adapter: Vec<Adapter>,
    /// Least seconds of load with faults; the faults are repeated until then.
    #[arg(long, default_value_t = 15)]
    duration: u64,
    /// Seconds in which all must be well, behind the last fault.
    #[arg(long, default_value_t = 10)]
    quiesce: u64,
    /// How many clients.
    #[arg(long, default_value_t = 150)]
    clients: u32,
    /// How many scenarios run at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// The gateway; default: `carillon` beside this program.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where logs and histories go; default: nowhere, unless a scenario fails.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where a report goes, as Markdown and JSON.
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Options {
    /// How many descriptors all that needs in this process: each client has up to four, with those of proxies.
    pub fn descriptors(&self) -> usize {
        self.jobs * self.clients as usize * 4
    }
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The gateway.
    pub binary: PathBuf,
    /// Its configuration.
    pub rules: PathBuf,
    /// The programs for Node.js.
    pub scripts: PathBuf,
}

/// Runs the scenarios and says whether all promises were kept.
pub fn run(options: &Options, binaries: &Path, loadtest: &Path) -> Result<bool> {
    let absolute = |path: PathBuf| {
        path.canonicalize().with_context(|| format!("{} not found", path.display()))
    };
    let places = Places {
        binary: absolute(options.bin.clone().unwrap_or_else(|| binaries.join("carillon")))?,
        rules: absolute(loadtest.join("chaos.toml"))?,
        scripts: absolute(loadtest.join("peers/node"))?,
    };
    ensure!(
        places.scripts.join("node_modules").exists(),
        "run `npm ci` in {} first",
        places.scripts.display()
    );
    let (scenarios, is_short) = selected(&options.scenario)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let rows = local.block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whatever ends this ends every child.
        tokio::select! {
            rows = all(scenarios, is_short, options, &places) => rows,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })?;
    println!("\n{}", report::markdown(&rows));
    if let Some(directory) = &options.report {
        report::write(&rows, directory)?;
    }
    Ok(rows.iter().all(Row::is_good))
}

fn selected(names: &str) -> Result<(Vec<Scenario>, bool)> {
    match names {
        "all" => Ok((Scenario::value_variants().to_vec(), false)),
        "short" => Ok((Scenario::SHORT.to_vec(), true)),
        names => {
            let parse = |name: &str| {
                Scenario::from_str(name, true).map_err(|_| anyhow!("no scenario {name}"))
            };
            Ok((names.split(',').map(parse).collect::<Result<_>>()?, false))
        }
    }
}

async fn all(
    scenarios: Vec<Scenario>,
    is_short: bool,
    options: &Options,
    places: &Places,
) -> Result<Vec<Row>> {
    let jobs = Rc::new(Semaphore::new(options.jobs.max(1)));
    let mut running = JoinSet::new();
    for (scenario, adapter) in plan(&scenarios, &options.adapter) {
        let (jobs, options, places) = (jobs.clone(), options.clone(), places.clone());
        running.spawn_local(async move {
            let _job = jobs.acquire().await;
            let seed = options.seed.unwrap_or_else(rand::random);
            let row = one(scenario, adapter, is_short, seed, &options, &places).await;
            println!("{}", row.line());
            row
        });
    }
    let mut rows = Vec::new();
    while let Some(row) = running.join_next().await {
        rows.push(row.context("a scenario panicked")?);
    }
    rows.sort_by_key(|row| (row.adapter, row.scenario));
    Ok(rows)
}

/// Each scenario with each adapter, except where it brings its own.
fn plan(scenarios: &[Scenario], adapters: &[Adapter]) -> Vec<(Scenario, Adapter)> {
    let mut plan = Vec::new();
    for &adapter in adapters {
        for &scenario in scenarios {
            let pair = (scenario, scenario.adapter(adapter));
            if !plan.contains(&pair) {
                plan.push(pair);
            }
        }
    }
    plan
}

/// Runs one scenario. Whatever goes wrong is in its row.
async fn one(
    scenario: Scenario,
    adapter: Adapter,
    is_short: bool,
    seed: u64,
    options: &Options,
    places: &Places,
) -> Row {
    let start = Instant::now();
    let mut row = Row::new(scenario, adapter, seed);
    let outcome = async {
        let temporary = tempfile::tempdir()?;
        let out = options
            .out
            .as_ref()
            .map(|out| out.join(format!("{scenario:?}-{}-{seed}", adapter.name())));
        let folder = out.clone().unwrap_or_else(|| temporary.path().to_owned());
        std::fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let done = perform(is_short, options, places, &folder, &mut row).await;
        if out.is_none() && (done.is_err() || !row.verdict.violations.is_empty()) {
            row.kept = Some(temporary.keep());
        }
        done
    }
    .await;
    row.seconds = start.elapsed().as_secs_f64();
    row.error = outcome.err().map(|error| format!("{error:#}"));
    row
}

async fn perform(
    is_short: bool,
    options: &Options,
    places: &Places,
    folder: &Path,
    row: &mut Row,
) -> Result<()> {
    let Row { scenario, adapter, seed, .. } = *row;
    let setup = scenario.setup(adapter, options.clients);
    let world = World::start(&setup, seed, places, folder).await?;
    let stop = watch::Sender::new(false);
    let watched = async {
        let guard = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                if let Err(error) = world.check() {
                    break Err::<(), _>(error);
                }
            }
        };
        let result = tokio::select! {
            result = acts(scenario, is_short, options, &world) => result,
            result = guard => result,
            () = sleep(SCENARIO_MAX) => Err(anyhow!("not done after {SCENARIO_MAX:?}")),
        };
        stop.send_replace(true);
        result
    };
    let (played, ()) = tokio::join!(watched, world.load(stop.subscribe()));
    if played.is_ok() {
        world.last_messages().await;
        world.gauges().await?;
    }
    let history = world.harness.history.borrow().clone();
    history.write(folder)?;
    let verdict: Verdict = checker::check(&history);
    row.max_rss_kb = world.nodes.iter().map(node::Node::resident_kilobytes_max).max().unwrap_or(0);
    row.faults = history.faults.len();
    row.verdict = verdict;
    played?;
    // A history in which little happened proves little.
    let n_expected = row.verdict.totals.expected;
    ensure!(n_expected > EXPECTED_MIN, "only {n_expected} messages were owed to anybody");
    world.nodes.iter().try_for_each(node::Node::check_log)
}

/// The faults, and the time in which all must be well.
async fn acts(scenario: Scenario, is_short: bool, options: &Options, world: &World) -> Result<()> {
    sleep(WARM_UP).await;
    let (least, n_acts) = match (is_short, scenario) {
        // Together they are short.
        (true, Scenario::F17) => (Duration::ZERO, scenario.n_acts()),
        (true, _) => (Duration::ZERO, 1),
        (false, _) => (Duration::from_secs(options.duration), scenario.n_acts()),
    };
    let start = Instant::now();
    let mut act = 0;
    while act < n_acts || start.elapsed() < least {
        if act > 0 {
            sleep(world.some_time(2000..4000)).await;
        }
        scenario.act(world, act).await?;
        act += 1;
    }
    sleep(SETTLE).await;
    let from = world.harness.now();
    world.harness.history.borrow_mut().quiesce = (from, history::Time::MAX);
    sleep(Duration::from_secs(options.quiesce)).await;
    let to = world.harness.now();
    world.harness.history.borrow_mut().quiesce = (from, to);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_brings_its_own_adapter_runs_once() {
        let adapters = [Adapter::Redis, Adapter::RedisSharded];
        let plan = plan(&[Scenario::F1, Scenario::F14], &adapters);
        let expected = [
            (Scenario::F1, Adapter::Redis),
            (Scenario::F14, Adapter::RedisSharded),
            (Scenario::F1, Adapter::RedisSharded),
        ];
        assert_eq!(plan, expected);
    }

    #[test]
    fn scenarios_are_chosen_by_name() {
        let (some, is_short) = selected("f7,F13B").expect("two scenarios");
        assert_eq!((some, is_short), (vec![Scenario::F7, Scenario::F13B], false));
        let (all, _) = selected("all").expect("all scenarios");
        assert_eq!(all.len(), 18);
        assert!(selected("short").expect("the short ones").1);
        assert!(selected("F99").is_err());
    }
}
