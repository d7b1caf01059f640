//! Several programs on the same work, in alternation: A B C A B C, so that what changes on the machine meets all.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::fleet::Fleet;
use crate::machine::{Cores, Machine};
use crate::meter::Meter;
use crate::report;
use crate::scenario::{Outcome, Plan, Scenario};
use crate::server::{Places, Program};

use crate::stats::Summary;

/// A scenario that failed, and why.
pub type Failure = (Scenario, String);

/// One program's scenarios in one round.
#[derive(Debug, Serialize)]
struct Run {
    round: usize,
    program: Program,
    outcomes: Vec<Outcome>,
    failures: Vec<Failure>,
}

/// All rounds and what they say.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Where it ran.
    pub machine: Machine,
    /// Who ran on which core.
    pub cores: Cores,
    /// What was done.
    pub plan: Plan,
    /// Length of a measured window in seconds.
    pub window_seconds: f64,
    /// Events that could be counted.
    pub events: Vec<&'static str>,
    /// Who was compared.
    pub programs: Vec<Program>,
    /// How often.
    pub rounds: usize,
    runs: Vec<Run>,
}

impl Comparison {
    /// Runs everything and prints a line for each outcome as it comes.
    pub fn run(
        programs: &[Program],
        rounds: usize,
        places: &Places,
        cores: &Cores,
        scenarios: &[Scenario],
        meter: &Meter,
        plan: Plan,
    ) -> Result<Comparison> {
        let (events, window_seconds) = match meter {
            Meter::Native { events, time } => (events.clone(), time.as_secs_f64()),
            Meter::Callgrind { .. } => anyhow::bail!("a comparison is made of native runs"),
        };
        let machine = Machine::describe();
        let mut runs = Vec::new();
        for round in 1..=rounds {
            for &program in programs {
                println!("round {round} of {rounds}: {}", program.name());
                let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
                for outcome in self::round(program, places, cores, scenarios, meter, &plan) {
                    println!("  {}", report::line(program, &outcome));
                    match outcome {
                        Ok(outcome) => outcomes.push(outcome),
                        Err(failure) => failures.push(failure),
                    }
                }
                runs.push(Run { round, program, outcomes, failures });
            }
        }
        let (programs, cores) = (programs.to_vec(), cores.clone());
        Ok(Comparison { machine, cores, plan, window_seconds, events, programs, rounds, runs })
    }

    /// Whether every run succeeded.
    pub fn complete(&self) -> bool {
        self.runs.iter().all(|run| run.failures.is_empty())
    }

    /// What went wrong, one line each.
    pub fn failures(&self) -> Vec<String> {
        let line = |run: &Run, (scenario, reason): &Failure| {
            format!("round {}, {}, {}: {reason}", run.round, run.program.name(), scenario.name())
        };
        self.runs
            .iter()
            .flat_map(|run| run.failures.iter().map(move |failure| line(run, failure)))
            .collect()
    }

    /// Scenario, metric, program to summary; only of runs without a fault.
    pub fn summaries(&self) -> BTreeMap<(Scenario, &str, Program), Summary> {
        let mut values: BTreeMap<(Scenario, &str, Program), Vec<f64>> = BTreeMap::new();
        for run in &self.runs {
            for outcome in &run.outcomes {
                for (metric, &value) in &outcome.metrics {
                    values.entry((outcome.scenario, metric, run.program)).or_default().push(value);
                }
            }
        }
        values.into_iter().filter_map(|(key, values)| Some((key, Summary::of(values)?))).collect()
    }
}

/// One program's scenarios: memory on a fresh process, the others on a second one.
pub fn round(
    program: Program,
    places: &Places,
    cores: &Cores,
    scenarios: &[Scenario],
    meter: &Meter,
    plan: &Plan,
) -> Vec<Result<Outcome, Failure>> {
    let (idle, busy): (Vec<Scenario>, Vec<Scenario>) =
        scenarios.iter().partition(|&&scenario| scenario == Scenario::Idle);
    [idle, busy]
        .iter()
        .flat_map(|group| {
            let start = || Fleet::start(program, plan.nodes, places, cores.server, &[]);
            let fleet = group.first().map(|_| start());
            let run = |&scenario: &Scenario| {
                let result = match &fleet {
                    Some(Ok(fleet)) => scenario.run(fleet, meter, plan),
                    Some(Err(error)) => Err(anyhow::anyhow!("{error:#}")),
                    None => Err(anyhow::anyhow!("no server")),
                };
                result.map_err(|error| (scenario, format!("{error:#}")))
            };
            group.iter().map(run).collect::<Vec<_>>()
        })
        .collect()
}
