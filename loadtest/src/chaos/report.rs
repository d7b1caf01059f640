//! What came of the scenarios, for people and for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::checker::Verdict;
use super::{Adapter, Scenario};
use crate::machine::Machine;

/// Violations that are shown of each scenario; the others look the same.
const SHOWN: usize = 5;

/// The outcome of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub scenario: Scenario,
    /// How nodes talked to each other.
    pub adapter: Adapter,
    /// Where chance began.
    pub seed: u64,
    /// How many faults were made.
    pub faults: usize,
    /// The numbers, and what was broken.
    pub verdict: Verdict,
    /// The most memory that one of the servers had.
    pub max_rss_kb: u64,
    /// How long it took.
    pub seconds: f64,
    /// Why it could not be done, or what ended on the way.
    pub error: Option<String>,
    /// Where logs and history are, after a failure.
    #[serde(skip)]
    pub kept: Option<PathBuf>,
}

impl Row {
    /// Nothing has happened yet.
    pub fn new(scenario: Scenario, adapter: Adapter, seed: u64) -> Row {
        Row {
            scenario,
            adapter,
            seed,
            faults: 0,
            verdict: Verdict::default(),
            max_rss_kb: 0,
            seconds: 0.0,
            error: None,
            kept: None,
        }
    }

    /// Whether all promises were kept.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.verdict.violations.is_empty()
    }

    /// For the terminal, when it is done.
    pub fn line(&self) -> String {
        let Row { scenario, adapter, seed, verdict, seconds, .. } = self;
        let word = if self.is_good() { "ok" } else { "FAILED" };
        let summary = scenario.summary();
        let mut text = format!("{scenario:?} {word} in {seconds:.0} s, seed {seed}: {summary}");
        if let Some(error) = &self.error {
            let _ = write!(text, "\n  {error}");
        }
        for violation in verdict.violations.iter().take(SHOWN) {
            let _ = write!(text, "\n  {violation}");
        }
        if verdict.violations.len() > SHOWN {
            let _ = write!(text, "\n  and {} more", verdict.violations.len() - SHOWN);
        }
        if let Some(kept) = &self.kept {
            let _ = write!(text, "\n  logs: {}", kept.display());
        }
        if !self.is_good() {
            let adapter = adapter.name();
            let _ = write!(
                text,
                "\n  again: carillon-bench chaos --scenario {scenario:?} --seed {seed} --adapter {adapter}"
            );
        }
        text
    }
}

/// The table.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| | fault | adapter | published | delivered | expected | lost | window_ms | dup | reorder | recover_ms | max_rss_kb | |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let totals = &row.verdict.totals;
        let word = if row.is_good() { "ok" } else { "FAILED" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {:?} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {word} |",
            row.scenario,
            row.scenario.summary(),
            row.adapter.name(),
            totals.published,
            totals.delivered,
            totals.expected,
            totals.lost,
            totals.window_ms,
            totals.dup,
            totals.reorder,
            totals.recover_ms,
            row.max_rss_kb,
        );
    }
    text
}

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    rows: &'a [Row],
}

/// Writes the report into a directory.
pub fn write(rows: &[Row], directory: &Path) -> Result<()> {
    let machine = Machine::describe();
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let stem = format!("chaos-{}", machine.date);
    let Machine { processor, cores, kernel, node, commit, .. } = &machine;
    let text = format!(
        "# Faults\n\n{processor}, {cores} cores, Linux {kernel}, Node.js {node}, commit {commit}\n\n{}\n\
         `lost` are messages that a fault took, of those that were owed (`expected`); `window_ms` is from the first to\n\
         the last of them; `recover_ms` from the end of the fault to the last loss or the last client that was back.\n",
        markdown(rows)
    );
    let path = directory.join(format!("{stem}.md"));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let path = directory.join(format!("{stem}.json"));
    let json = serde_json::to_string_pretty(&Report { machine: &machine, rows })?;
    fs::write(&path, json).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}
