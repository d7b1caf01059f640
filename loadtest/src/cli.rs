//! The command line.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::chaos;
use crate::compare::{self, Comparison};
use crate::fleet::Fleet;
use crate::machine::{self, Cores};
use crate::meter::Meter;
use crate::report;
use crate::scenario::{Plan, Scenario};
use crate::server::{Places, Program};

/// Measures Socket.IO servers and checks every message.
#[derive(Parser)]
#[command(name = "carillon-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    work: Work,
    /// Directory of the binaries `carillon` and `carillon-floor`; default: that of this program.
    #[arg(long, global = true)]
    binaries: Option<PathBuf>,
    /// The directory `loadtest` of the repository.
    #[arg(long, global = true, default_value = "loadtest")]
    loadtest: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Measure(Measure),
    /// Run a cluster under load, break it in every way, and check its promises.
    Chaos(chaos::Options),
}

#[derive(Subcommand)]
enum Measure {
    /// Run scenarios on one program and print `key=value` lines.
    Run {
        #[arg(long, value_enum, default_value = "carillon")]
        program: Program,
    },
    /// Run all programs in alternation, print a table and write JSON and Markdown.
    Compare {
        #[arg(long, value_enum, value_delimiter = ',', default_value = "carillon,node,floor")]
        programs: Vec<Program>,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Where the report goes; default: `results` in the loadtest directory.
        #[arg(long)]
        results: Option<PathBuf>,
    },
    /// Run scenarios on one program in Valgrind: user instructions per operation, and a profile by function.
    Callgrind {
        #[arg(long, value_enum, default_value = "carillon")]
        program: Program,
        /// Where the profiles go.
        #[arg(long, default_value = "artifacts/callgrind")]
        profiles: PathBuf,
    },
}

#[derive(Args)]
struct Work {
    /// Which scenarios; default: all of one node, or with several nodes those that cross them.
    #[arg(long, global = true, value_enum, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// How many nodes; more than one share a Redis, which is measured too, and clients are spread over them.
    #[arg(long, global = true, default_value_t = 1)]
    nodes: usize,
    /// Length of each measured window.
    #[arg(long, global = true, default_value_t = 2.0)]
    seconds: f64,
    /// Sockets in the room of the broadcast scenarios.
    #[arg(long, global = true, default_value_t = 1_000)]
    sockets: usize,
    /// Messages in flight in `broadcast-burst`.
    #[arg(long, global = true, default_value_t = 16)]
    burst: u64,
    /// At how many connections `idle` reads memory.
    #[arg(long, global = true, value_delimiter = ',', default_value = "5000,10000")]
    idle: Vec<usize>,
    /// Connections per window of `connect`.
    #[arg(long, global = true, default_value_t = 3_000)]
    connects: usize,
    /// Seconds that a message or an answer may take before it counts as lost.
    #[arg(long, global = true, default_value_t = 20.0)]
    patience: f64,
    /// Most operations per window; default: no bound, in Valgrind 40,000.
    #[arg(long, global = true)]
    operations: Option<u64>,
}

impl Work {
    fn plan(&self, operations_default: u64) -> Plan {
        Plan {
            nodes: self.nodes.max(1),
            room_sockets: self.sockets.max(1),
            burst: self.burst.max(1),
            round_trip_sockets: 64,
            idle_steps: self.idle.clone(),
            connects: self.connects,
            operations_max: self.operations.unwrap_or(operations_default),
            patience: Duration::from_secs_f64(self.patience.clamp(0.1, 600.0)),
        }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        match (self.scenarios.as_slice(), self.nodes) {
            ([], 0 | 1) => Scenario::ALL.to_vec(),
            ([], _) => Scenario::CLUSTER.to_vec(),
            (chosen, _) => chosen.to_vec(),
        }
    }

    fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.05, 600.0))
    }
}

/// Does what the command line says, and tells whether every run succeeded.
pub fn run() -> Result<bool> {
    let cli = Cli::parse();
    let binaries = match cli.binaries {
        Some(directory) => directory,
        None => std::env::current_exe()?.parent().context("find the own directory")?.to_owned(),
    };
    let measure = match cli.command {
        Command::Measure(measure) => measure,
        Command::Chaos(options) => {
            machine::raise_file_limit(options.descriptors())?;
            return chaos::run(&options, &binaries, &cli.loadtest);
        }
    };
    let places = Places { binaries, loadtest: cli.loadtest };
    let gateway = places.loadtest.join("gateway.toml");
    ensure!(
        gateway.exists(),
        "{} not found: start in the repository or give --loadtest",
        gateway.display()
    );
    machine::raise_file_limit(cli.work.idle.iter().copied().max().unwrap_or(0))?;
    let cores = Cores::split()?;
    let scenarios = cli.work.scenarios();
    match measure {
        Measure::Run { program } => {
            let plan = cli.work.plan(u64::MAX);
            let meter = Meter::native(cli.work.window());
            let outcomes = compare::round(program, &places, &cores, &scenarios, &meter, &plan);
            for outcome in &outcomes {
                println!("{}", report::line(program, outcome));
            }
            Ok(outcomes.iter().all(Result::is_ok))
        }
        Measure::Compare { programs, rounds, results } => {
            let plan = cli.work.plan(u64::MAX);
            let meter = Meter::native(cli.work.window());
            let comparison =
                Comparison::run(&programs, rounds, &places, &cores, &scenarios, &meter, plan)?;
            let results = results.unwrap_or_else(|| places.loadtest.join("results"));
            println!("\n{}", report::markdown(&comparison));
            report::write(&comparison, &results)?;
            Ok(comparison.complete())
        }
        Measure::Callgrind { program, profiles } => {
            let plan = cli.work.plan(40_000);
            callgrind(program, &places, &scenarios, &profiles, &plan)
        }
    }
}

fn callgrind(
    program: Program,
    places: &Places,
    scenarios: &[Scenario],
    profiles: &std::path::Path,
    plan: &Plan,
) -> Result<bool> {
    fs::create_dir_all(profiles).with_context(|| format!("make {}", profiles.display()))?;
    let directory = profiles.canonicalize()?;
    let file = format!("--callgrind-out-file={}", directory.join("callgrind.out.%p").display());
    let wrapper =
        ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet", &file].map(str::to_owned);
    let meter = Meter::Callgrind { directory: directory.clone() };
    let mut complete = true;
    for &scenario in scenarios.iter().filter(|&&scenario| scenario != Scenario::Idle) {
        let outcome = Fleet::start(program, plan.nodes, places, None, &wrapper)
            .and_then(|fleet| scenario.run(&fleet, &meter, plan));
        // Valgrind leaves an empty file for what ran outside the window.
        for entry in fs::read_dir(&directory)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("callgrind.out.") {
                fs::remove_file(entry.path())?;
            }
        }
        let mut outcome = outcome.map_err(|error| (scenario, format!("{error:#}")));
        if let Ok(outcome) = &mut outcome {
            // Times in Valgrind are those of Valgrind.
            outcome.metrics.retain(|metric, _| !metric.starts_with("latency"));
        }
        complete &= outcome.is_ok();
        println!("{}", report::line(program, &outcome));
    }
    Ok(complete)
}
