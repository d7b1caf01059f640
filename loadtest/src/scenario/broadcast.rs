//! Messages to one room, published by one of its members, who receives them too.

use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::{AFTERMATH, Outcome, Plan, Scenario, deadline, histogram, insert_latency};
use crate::client::push_text;
use crate::fleet::Fleet;
use crate::message::{Faults, Sequence, ack, message_id, push_payload};
use crate::meter::{Limit, Meter};
use crate::swarm::{Swarm, Work};

const PUBLISHER: usize = 0;

struct Room {
    sequences: Vec<Sequence>,
    joined: usize,
    sent: u64,
    /// Deliveries of the messages in flight that have not arrived.
    awaited: u64,
    published_at: Instant,
    latency: Histogram<u64>,
    unexpected: u64,
}

impl Work for Room {
    fn packet(&mut self, client: usize, packet: &[u8], _out: &mut Vec<u8>) {
        if let Some(id) = message_id(packet) {
            self.sequences[client].receive(id);
            self.awaited = self.awaited.saturating_sub(1);
            let nanoseconds = self.published_at.elapsed().as_nanos();
            self.latency.saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        } else if ack(packet).is_some() {
            self.joined += 1;
        } else {
            self.unexpected += 1;
        }
    }
}

pub(super) fn run(
    fleet: &Fleet,
    meter: &Meter,
    plan: &Plan,
    scenario: Scenario,
    in_flight: u64,
) -> Result<Outcome> {
    let mut swarm = Swarm::connected(fleet, plan.room_sockets, deadline())?;
    let mut room = Room {
        sequences: (0..swarm.len()).map(|_| Sequence::default()).collect(),
        joined: 0,
        sent: 0,
        awaited: 0,
        published_at: Instant::now(),
        latency: histogram()?,
        unexpected: 0,
    };
    let mut join = Vec::new();
    push_text(&mut join, br#"420["join","bench"]"#);
    for client in 0..swarm.len() {
        swarm.send(client, &join)?;
    }
    let joined = swarm.run(deadline(), &mut room, |room| room.joined == room.sequences.len())?;
    ensure!(joined, "only {} of {} joins were acknowledged", room.joined, swarm.len());

    let mut metrics = meter.measure(fleet, scenario.name(), plan.operations_max, |limit| {
        room.latency.clear();
        publish(&mut swarm, &mut room, in_flight, limit, plan)
    })?;
    insert_latency(&mut metrics, &room.latency);

    let aftermath = Instant::now() + AFTERMATH;
    swarm.run(aftermath, &mut room, |_| false)?;
    let mut faults = Faults { unexpected: room.unexpected, ..Faults::default() };
    for sequence in &room.sequences {
        faults += sequence.faults(room.sent);
    }
    Ok(Outcome { scenario, faults, metrics })
}

/// Publishes bursts, each when all of the one before has arrived, and gives the number of deliveries.
fn publish(
    swarm: &mut Swarm,
    room: &mut Room,
    in_flight: u64,
    limit: Limit,
    plan: &Plan,
) -> Result<u64> {
    let members = swarm.len() as u64;
    let (start, mut deliveries) = (Instant::now(), 0);
    let mut frames = Vec::new();
    let mut event = Vec::new();
    while limit.allows(deliveries, start) {
        frames.clear();
        for _ in 0..in_flight {
            event.clear();
            event.extend_from_slice(br#"42["bcast",{"room":"bench","payload":"#);
            push_payload(&mut event, room.sent);
            event.extend_from_slice(b"}]");
            push_text(&mut frames, &event);
            room.sent += 1;
        }
        room.awaited = in_flight * members;
        room.published_at = Instant::now();
        swarm.send(PUBLISHER, &frames)?;
        let arrived = swarm.run(plan.patience(), room, |room| room.awaited == 0)?;
        ensure!(arrived, "{} deliveries did not come: lost", room.awaited);
        deliveries += in_flight * members;
    }
    Ok(deliveries)
}
