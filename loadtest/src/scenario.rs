//! The work that servers are measured at, one scenario per file.

mod broadcast;
mod connect;
mod direct;
mod echo;
mod idle;
mod join;
mod publish;
mod round_trip;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::fleet::Fleet;
use crate::message::Faults;
use crate::meter::{Meter, Metrics};

/// No connecting or settling takes longer on a server that works.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// How long clients listen, after everything has arrived, for what should not come.
const AFTERMATH: Duration = Duration::from_millis(200);

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Connections that do nothing: memory per connection.
    Idle,
    /// One room, bursts of 16 messages: cost per delivery.
    BroadcastBurst,
    /// One room, one message at a time: cost per delivery.
    BroadcastSingle,
    /// Events that are acknowledged with their arguments: cost per event.
    Echo,
    /// Joining or leaving a room, acknowledged: cost per change.
    Join,
    /// A message to the id of another socket, with several nodes one of the next node: cost per message.
    Direct,
    /// TCP, WebSocket upgrade and CONNECT: cost per connection.
    Connect,
    /// Messages to a room that nobody is in, for the other nodes only: cost per publish, and how many per second.
    Publish,
}

impl Scenario {
    /// All of them, in the order in which they run on one server.
    pub const ALL: [Scenario; 7] = [
        Scenario::Idle,
        Scenario::BroadcastBurst,
        Scenario::BroadcastSingle,
        Scenario::Echo,
        Scenario::Join,
        Scenario::Direct,
        Scenario::Connect,
    ];

    /// Those that cross the nodes of a cluster.
    pub const CLUSTER: [Scenario; 4] =
        [Scenario::BroadcastBurst, Scenario::BroadcastSingle, Scenario::Direct, Scenario::Publish];

    /// The name on the command line, in files and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Idle => "idle",
            Scenario::BroadcastBurst => "broadcast-burst",
            Scenario::BroadcastSingle => "broadcast-single",
            Scenario::Echo => "echo",
            Scenario::Join => "join",
            Scenario::Direct => "direct",
            Scenario::Connect => "connect",
            Scenario::Publish => "publish",
        }
    }

    /// Runs it on a server that has nothing else to do. [`Scenario::Idle`] needs one that has just started.
    pub fn run(self, fleet: &Fleet, meter: &Meter, plan: &Plan) -> Result<Outcome> {
        let outcome = match self {
            Scenario::Idle => idle::run(fleet, plan),
            Scenario::BroadcastBurst => broadcast::run(fleet, meter, plan, self, plan.burst),
            Scenario::BroadcastSingle => broadcast::run(fleet, meter, plan, self, 1),
            Scenario::Echo => round_trip::run(fleet, meter, plan, self, &echo::Echo),
            Scenario::Join => round_trip::run(fleet, meter, plan, self, &join::Join),
            Scenario::Direct => direct::run(fleet, meter, plan),
            Scenario::Connect => connect::run(fleet, meter, plan),
            Scenario::Publish => publish::run(fleet, meter, plan),
        }?;
        ensure!(outcome.faults.none(), "{} failed: {:?}", self.name(), outcome.faults);
        Ok(outcome)
    }
}

/// How much of everything.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// Sockets in the room of the broadcast scenarios.
    pub room_sockets: usize,
    /// Messages that are in flight at once in [`Scenario::BroadcastBurst`].
    pub burst: u64,
    /// Sockets of the scenarios with answers, each with one event in flight.
    pub round_trip_sockets: usize,
    /// At how many connections memory is read in [`Scenario::Idle`].
    pub idle_steps: Vec<usize>,
    /// Connections per window of [`Scenario::Connect`].
    pub connects: usize,
    /// The most operations in a window.
    pub operations_max: u64,
    /// How long a message or an answer may take before it counts as lost.
    pub patience: Duration,
}

/// What came of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which.
    pub scenario: Scenario,
    /// Lost, duplicated and misplaced messages. An outcome with any is no result.
    pub faults: Faults,
    /// Named values, costs per operation.
    pub metrics: Metrics,
}

impl Plan {
    fn patience(&self) -> Instant {
        Instant::now() + self.patience
    }
}

fn deadline() -> Instant {
    Instant::now() + STEP_TIMEOUT
}

/// Times in nanoseconds, up to a minute, three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?)
}

fn insert_latency(metrics: &mut Metrics, histogram: &Histogram<u64>) {
    for (name, quantile) in [
        ("latency_p50_microseconds", 0.5),
        ("latency_p99_microseconds", 0.99),
        ("latency_max_microseconds", 1.0),
    ] {
        metrics.insert(name.to_owned(), histogram.value_at_quantile(quantile) as f64 / 1e3);
    }
}
