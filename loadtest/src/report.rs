//! Outcomes as text: a line, a Markdown page, JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::compare::{Comparison, Failure};
use crate::scenario::{Outcome, Scenario};
use crate::server::Program;
use crate::stats::Summary;

/// One row of the table: a metric, what it is called, and what it is divided by for reading.
struct Row {
    scenario: Scenario,
    metric: String,
    title: String,
    unit: f64,
}

/// One outcome as `key=value` pairs.
pub fn line(program: Program, outcome: &Result<Outcome, Failure>) -> String {
    match outcome {
        Ok(outcome) => {
            let mut line =
                format!("program={program:?} scenario={} ok=true", outcome.scenario.name())
                    .to_lowercase();
            for (metric, value) in &outcome.metrics {
                // Writing to a string cannot fail.
                let _ = write!(line, " {metric}={}", digits(*value));
            }
            line
        }
        Err((scenario, reason)) => {
            format!("program={program:?} scenario={} ok=false reason={reason:?}", scenario.name())
        }
    }
}

/// Three significant digits are what repeats; more only look exact.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The rows of the table, in reading order.
fn rows(comparison: &Comparison) -> Vec<Row> {
    let row = |scenario, metric: &str, title: &str, unit| Row {
        scenario,
        metric: metric.to_owned(),
        title: title.to_owned(),
        unit,
    };
    let mut rows = Vec::new();
    for &count in &comparison.plan.idle_steps {
        let title = format!("memory per idle connection, {count} connections, bytes");
        rows.push(row(Scenario::Idle, &format!("bytes_per_connection_{count}"), &title, 1.0));
    }
    if let &[.., before, last] = comparison.plan.idle_steps.as_slice() {
        let title = format!("memory per further connection, {before} to {last}, bytes");
        rows.push(row(Scenario::Idle, "bytes_per_further_connection", &title, 1.0));
    }
    rows.push(row(Scenario::Idle, "empty_kilobytes", "memory of the empty process, MB", 1024.0));
    let direct = match comparison.plan.nodes {
        1 => "to(id), same node, per message",
        _ => "to(id), other node, per message",
    };
    let names = [
        (
            Scenario::BroadcastBurst,
            format!("broadcast, bursts of {}, per delivery", comparison.plan.burst),
        ),
        (Scenario::BroadcastSingle, "broadcast, one in flight, per delivery".to_owned()),
        (Scenario::Echo, "echo with ack".to_owned()),
        (Scenario::Join, "join or leave with ack".to_owned()),
        (Scenario::Direct, direct.to_owned()),
        (Scenario::Connect, "connect to CONNECT over WebSocket".to_owned()),
        (Scenario::Publish, "publish for other nodes, per message".to_owned()),
    ];
    for (scenario, name) in &names {
        for (metric, title, unit) in [
            ("cpu_microseconds", "CPU time, µs", 1.0),
            ("redis_cpu_microseconds", "CPU time of Redis, µs", 1.0),
            ("user_instructions", "user instructions, thousands", 1e3),
            ("kernel_instructions", "kernel instructions, thousands", 1e3),
            ("syscalls", "system calls", 1.0),
        ] {
            rows.push(row(*scenario, metric, &format!("{name}: {title}"), unit));
        }
    }
    let per_cpu = "connects per CPU second, thousands";
    rows.push(row(Scenario::Connect, "operations_per_cpu_second", per_cpu, 1e3));
    let per_second = "publishes per second, thousands";
    rows.push(row(Scenario::Publish, "operations_per_second", per_second, 1e3));
    for (scenario, name) in names.iter().take(5) {
        for (metric, title) in
            [("latency_p50_microseconds", "p50"), ("latency_p99_microseconds", "p99")]
        {
            rows.push(row(*scenario, metric, &format!("{name}: latency {title}, µs"), 1.0));
        }
    }
    rows
}

/// The comparison as a page.
pub fn markdown(comparison: &Comparison) -> String {
    let (machine, plan) = (&comparison.machine, &comparison.plan);
    let mut page = format!(
        "# Load test, {}, {}, {} cores\n\n",
        machine.date, machine.processor, machine.cores
    );
    let counted = if comparison.events.iter().any(|event| event.starts_with("instructions")) {
        "counted by the processor"
    } else {
        "not supported: this machine has no hardware counters"
    };
    let (nodes, command) = match plan.nodes {
        1 => (String::new(), "make bench"),
        n => (
            format!(
                "{n} nodes with one Redis, all on the server's core; clients are spread over the nodes, costs are \
                 the sum over the nodes (a broadcast: per delivery wherever it is). "
            ),
            "make bench-cluster",
        ),
    };
    let cores = match (comparison.cores.server, comparison.cores.generator) {
        (Some(server), Some(generator)) => {
            format!("server on core {server}, generator on core {generator}")
        }
        _ => "server and generator share the core".to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "Commit {}, kernel {}, Node.js {}, {cores}. Load at the start: {}.\n\
         {} rounds in alternation, medians with (smallest to largest). {} sockets in one room, 128-byte JSON payload, \
         {} sockets with one event in flight for answers, {} connections per connect window, {:.1} s per window.\n\
         Every message id was checked: a run with a lost, duplicated or misplaced message is a failed run. \
         Costs are those of the server's process. Latencies are of a closed loop at full load: they compare programs \
         with themselves, not with a service at rest. Instructions: {counted}.\n\
         {nodes}Reproduce with `{command}`.\n\n",
        machine.commit,
        machine.kernel,
        machine.node,
        machine.load,
        comparison.rounds,
        plan.room_sockets,
        plan.round_trip_sockets,
        plan.connects,
        comparison.window_seconds,
    );
    table(comparison, &mut page);
    let failures = comparison.failures();
    if failures.is_empty() {
        page.push_str("\nNo run failed.\n");
    } else {
        page.push_str("\nFailed runs, not in the table:\n\n");
        for failure in failures {
            let _ = writeln!(page, "- {failure}");
        }
    }
    page
}

fn table(comparison: &Comparison, page: &mut String) {
    let summaries = comparison.summaries();
    let programs = &comparison.programs;
    let both = |one, other| programs.contains(&one) && programs.contains(&other);
    let ratios: Vec<(Program, Program, &str)> = [
        (Program::Node, Program::Carillon, "Node.js / Carillon"),
        (Program::Carillon, Program::Floor, "Carillon / floor"),
    ]
    .into_iter()
    .filter(|&(one, other, _)| both(one, other))
    .collect();
    page.push_str("| Work |");
    for program in programs {
        let _ = write!(page, " {} |", program.name());
    }
    for (_, _, title) in &ratios {
        let _ = write!(page, " {title} |");
    }
    page.push('\n');
    page.push_str("|---|");
    page.push_str(&"---:|".repeat(programs.len() + ratios.len()));
    page.push('\n');
    for row in rows(comparison) {
        let get = |program: Program| summaries.get(&(row.scenario, row.metric.as_str(), program));
        if programs.iter().all(|&program| get(program).is_none()) {
            continue;
        }
        let _ = write!(page, "| {} |", row.title);
        for &program in programs {
            let _ = write!(
                page,
                " {} |",
                get(program).map_or_else(|| "failed".to_owned(), |value| cell(value, row.unit))
            );
        }
        for &(one, other, _) in &ratios {
            let ratio = get(one).zip(get(other)).map(|(one, other)| one.median / other.median);
            let _ = write!(
                page,
                " {} |",
                ratio.filter(|ratio| ratio.is_finite()).map_or_else(String::new, digits)
            );
        }
        page.push('\n');
    }
}

fn cell(summary: &Summary, unit: f64) -> String {
    let [median, min, max] =
        [summary.median, summary.min, summary.max].map(|value| digits(value / unit));
    format!("{median} ({min} to {max})")
}

/// Writes the JSON and the Markdown file.
pub fn write(comparison: &Comparison, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let stem = match comparison.plan.nodes {
        1 => comparison.machine.file_stem(),
        n => format!("{}-{n}-nodes", comparison.machine.file_stem()),
    };
    let mut summary: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, Summary>>> = BTreeMap::new();
    for ((scenario, metric, program), value) in comparison.summaries() {
        summary
            .entry(scenario.name())
            .or_default()
            .entry(metric)
            .or_default()
            .insert(program.name(), value);
    }
    let json = json!({ "summary": summary, "comparison": comparison });
    let json_path = directory.join(format!("{stem}.json"));
    fs::write(&json_path, format!("{json:#}\n"))
        .with_context(|| format!("write {}", json_path.display()))?;
    let page_path = directory.join(format!("{stem}.md"));
    fs::write(&page_path, markdown(comparison))
        .with_context(|| format!("write {}", page_path.display()))?;
    println!("written: {} and {}", json_path.display(), page_path.display());
    Ok(())
}
