//! Connections that do nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Outcome, Plan, Scenario, deadline};
use crate::fleet::Fleet;
use crate::message::Faults;
use crate::meter::Metrics;
use crate::process::resident_bytes;
use crate::swarm::Swarm;

/// Memory is settled when it has stayed the same for so long.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) fn run(fleet: &Fleet, plan: &Plan) -> Result<Outcome> {
    let mut swarm = Swarm::new(fleet)?;
    let empty = settled(fleet, &mut swarm)?;
    let mut metrics = Metrics::from([("empty_kilobytes".to_owned(), empty as f64 / 1024.0)]);
    let (mut before, mut resident_before) = (0, empty);
    for &count in &plan.idle_steps {
        swarm.grow(count, deadline())?;
        let resident = settled(fleet, &mut swarm)?;
        let each = resident.saturating_sub(empty) as f64 / count as f64;
        metrics.insert(format!("bytes_per_connection_{count}"), each);
        // Without what the process takes once, for its first connections.
        let further = resident.saturating_sub(resident_before) as f64
            / count.saturating_sub(before).max(1) as f64;
        metrics.insert("bytes_per_further_connection".to_owned(), further);
        (before, resident_before) = (count, resident);
    }
    Ok(Outcome { scenario: Scenario::Idle, faults: Faults::default(), metrics })
}

fn settled(fleet: &Fleet, swarm: &mut Swarm) -> Result<u64> {
    let deadline = deadline();
    let mut last = resident(fleet)?;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        // Answers pings meanwhile, and notices a connection that ends.
        swarm.turn(SETTLED / 10, &mut |_, _, _| {})?;
        let resident = resident(fleet)?;
        if resident != last {
            (last, since) = (resident, Instant::now());
        }
        ensure!(Instant::now() < deadline, "memory does not settle: {resident} bytes");
    }
    Ok(last)
}

fn resident(fleet: &Fleet) -> Result<u64> {
    fleet.pids().into_iter().map(resident_bytes).sum()
}
