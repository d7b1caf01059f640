//! Connections that are opened: TCP, WebSocket upgrade and CONNECT.

use anyhow::Result;

use super::{Outcome, Plan, Scenario, deadline};
use crate::fleet::Fleet;
use crate::message::Faults;
use crate::meter::Meter;
use crate::swarm::Swarm;

pub(super) fn run(fleet: &Fleet, meter: &Meter, plan: &Plan) -> Result<Outcome> {
    let mut swarm = Swarm::new(fleet)?;
    let window = plan.connects.min(usize::try_from(plan.operations_max)?);
    let metrics = meter.measure(fleet, Scenario::Connect.name(), window as u64, |limit| {
        // Nothing is closed in a window; the connections stay until the scenario ends.
        let count = window.min(usize::try_from(limit.operations_max)?);
        swarm.grow(swarm.len() + count, deadline())?;
        Ok(count as u64)
    })?;
    Ok(Outcome { scenario: Scenario::Connect, faults: Faults::default(), metrics })
}
