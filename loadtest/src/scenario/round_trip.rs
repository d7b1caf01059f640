//! Events that are answered: each slot of work has one in flight, and the answer starts the next.

use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::{AFTERMATH, Outcome, Plan, Scenario, deadline, histogram, insert_latency};
use crate::client::push_text;
use crate::fleet::Fleet;
use crate::message::Faults;
use crate::meter::{Limit, Meter};
use crate::swarm::{Swarm, Work};

/// What is sent and what comes back.
pub(super) trait Exchange {
    /// How many slots `clients` clients have.
    fn slots(&self, clients: usize) -> usize {
        clients
    }

    /// The slot that a client belongs to.
    fn slot(&self, client: usize) -> usize {
        client
    }

    /// Who sends first in a slot.
    fn starter(&self, slot: usize) -> usize {
        slot
    }

    /// Writes the packet that `client` sends as number `number` of its slot.
    fn request(&self, client: usize, number: u64, packet: &mut Vec<u8>);

    /// The number that an answer belongs to; none if it is none.
    fn answer(&self, packet: &[u8]) -> Option<u64>;
}

struct Slot {
    number: u64,
    waiting: bool,
    started: Instant,
}

struct Exchanges<'a, E> {
    exchange: &'a E,
    slots: Vec<Slot>,
    waiting: usize,
    finished: u64,
    limit: Limit,
    start: Instant,
    latency: Histogram<u64>,
    faults: Faults,
    packet: Vec<u8>,
}

impl<E: Exchange> Exchanges<'_, E> {
    fn begin(&mut self, client: usize, now: Instant, out: &mut Vec<u8>) {
        let slot = &mut self.slots[self.exchange.slot(client)];
        slot.number += 1;
        slot.started = now;
        slot.waiting = true;
        self.packet.clear();
        self.exchange.request(client, slot.number, &mut self.packet);
        push_text(out, &self.packet);
    }
}

impl<E: Exchange> Work for Exchanges<'_, E> {
    fn packet(&mut self, client: usize, packet: &[u8], out: &mut Vec<u8>) {
        let slot = &mut self.slots[self.exchange.slot(client)];
        match self.exchange.answer(packet) {
            Some(number) if number == slot.number && slot.waiting => slot.waiting = false,
            Some(number) if number <= slot.number => {
                self.faults.duplicated += 1;
                return;
            }
            _ => {
                self.faults.unexpected += 1;
                return;
            }
        }
        let now = Instant::now();
        let nanoseconds = now.duration_since(slot.started).as_nanos();
        self.latency.saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.finished += 1;
        if self.limit.allows(self.finished, self.start) {
            self.begin(client, now, out);
        } else {
            self.waiting -= 1;
        }
    }
}

pub(super) fn run<E: Exchange>(
    fleet: &Fleet,
    meter: &Meter,
    plan: &Plan,
    scenario: Scenario,
    exchange: &E,
) -> Result<Outcome> {
    let swarm = Swarm::connected(fleet, plan.round_trip_sockets, deadline())?;
    run_with(swarm, fleet, meter, plan, scenario, exchange)
}

pub(super) fn run_with<E: Exchange>(
    mut swarm: Swarm,
    fleet: &Fleet,
    meter: &Meter,
    plan: &Plan,
    scenario: Scenario,
    exchange: &E,
) -> Result<Outcome> {
    let now = Instant::now();
    let slots = exchange.slots(swarm.len());
    let mut exchanges = Exchanges {
        exchange,
        slots: (0..slots).map(|_| Slot { number: 0, waiting: false, started: now }).collect(),
        waiting: 0,
        finished: 0,
        limit: Limit::operations(0),
        start: now,
        latency: histogram()?,
        faults: Faults::default(),
        packet: Vec::new(),
    };
    let mut metrics = meter.measure(fleet, scenario.name(), plan.operations_max, |limit| {
        let now = Instant::now();
        exchanges.latency.clear();
        (exchanges.finished, exchanges.limit, exchanges.start) = (0, limit, now);
        exchanges.waiting = slots;
        let mut out = Vec::new();
        for slot in 0..slots {
            let client = exchange.starter(slot);
            exchanges.begin(client, now, &mut out);
            swarm.send(client, &out)?;
            out.clear();
        }
        let answered = swarm.run(limit.end(now) + plan.patience, &mut exchanges, |exchanges| {
            exchanges.waiting == 0
        })?;
        ensure!(answered, "{} answers did not come: lost", exchanges.waiting);
        Ok(exchanges.finished)
    })?;
    insert_latency(&mut metrics, &exchanges.latency);
    swarm.run(Instant::now() + AFTERMATH, &mut exchanges, |_| false)?;
    Ok(Outcome { scenario, faults: exchanges.faults, metrics })
}
