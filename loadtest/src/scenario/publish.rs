//! Messages to a room without members: nothing is delivered, everything is published.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Outcome, Plan, Scenario, deadline};
use crate::client::push_text;
use crate::fleet::Fleet;
use crate::message::{Faults, ack, push_payload};
use crate::meter::Meter;
use crate::redis::Redis;
use crate::swarm::{Swarm, Work};

/// Messages in one write of a publisher; an acknowledged event behind them tells that the node took them.
const BATCH: u64 = 64;

/// How far publishers may be ahead of Redis: less than what a node queues before it counts a message as lost.
const AHEAD_MAX: u64 = 4_096;

struct Publishers {
    answered: usize,
    unexpected: u64,
}

impl Work for Publishers {
    fn packet(&mut self, _client: usize, packet: &[u8], _out: &mut Vec<u8>) {
        if ack(packet).is_some() {
            self.answered += 1;
        } else {
            self.unexpected += 1;
        }
    }
}

pub(super) fn run(fleet: &Fleet, meter: &Meter, plan: &Plan) -> Result<Outcome> {
    let redis = fleet.redis().context("publishing needs several nodes: give --nodes 2")?;
    // All on the first node, whose one connection to Redis is what is measured.
    let mut swarm = Swarm::connected(fleet, 16 * plan.nodes, deadline())?;
    let clients: Vec<usize> = (0..swarm.len()).step_by(plan.nodes).collect();
    let mut publishers = Publishers { answered: 0, unexpected: 0 };
    let mut frames = Vec::new();
    for _ in 0..BATCH {
        let mut event = br#"42["bcast",{"room":"nobody","payload":"#.to_vec();
        push_payload(&mut event, 0);
        event.extend_from_slice(b"}]");
        push_text(&mut frames, &event);
    }
    push_text(&mut frames, br#"420["echo"]"#);
    let metrics = meter.measure(fleet, Scenario::Publish.name(), plan.operations_max, |limit| {
        let (start, first) = (Instant::now(), redis.published()?);
        let (mut sent, mut published) = (0, 0);
        while limit.allows(sent, start) {
            publishers.answered = 0;
            for &client in &clients {
                swarm.send(client, &frames)?;
                sent += BATCH;
            }
            let answered = swarm.run(plan.patience(), &mut publishers, |publishers| {
                publishers.answered == clients.len()
            })?;
            ensure!(answered, "{} publishers got no answer", clients.len() - publishers.answered);
            if sent - published > AHEAD_MAX {
                published = caught_up(redis, first + sent - AHEAD_MAX / 2, plan)? - first;
            }
        }
        caught_up(redis, first + sent, plan)?;
        Ok(sent)
    })?;
    let faults = Faults { unexpected: publishers.unexpected, ..Faults::default() };
    Ok(Outcome { scenario: Scenario::Publish, faults, metrics })
}

/// Waits until Redis has counted so many publishes, and gives the count.
fn caught_up(redis: &Redis, count: u64, plan: &Plan) -> Result<u64> {
    let patience = plan.patience();
    loop {
        let published = redis.published()?;
        if published >= count {
            return Ok(published);
        }
        ensure!(
            Instant::now() < patience,
            "{} messages were not published: lost",
            count - published
        );
    }
}
