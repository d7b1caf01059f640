//! Messages to socket ids: the sockets of a pair send each other one message in turn.

use anyhow::Result;

use super::round_trip::{Exchange, run_with};
use super::{Outcome, Plan, Scenario, deadline};
use crate::fleet::Fleet;
use crate::message::{message_id, push_payload};
use crate::meter::Meter;
use crate::swarm::Swarm;

struct Direct {
    ids: Vec<String>,
}

impl Exchange for Direct {
    fn slots(&self, clients: usize) -> usize {
        clients / 2
    }

    fn slot(&self, client: usize) -> usize {
        client / 2
    }

    fn starter(&self, slot: usize) -> usize {
        slot * 2
    }

    fn request(&self, client: usize, number: u64, packet: &mut Vec<u8>) {
        packet.extend_from_slice(br#"42["to",{"id":""#);
        packet.extend_from_slice(self.ids[client ^ 1].as_bytes());
        packet.extend_from_slice(br#"","payload":"#);
        push_payload(packet, number);
        packet.extend_from_slice(b"}]");
    }

    fn answer(&self, packet: &[u8]) -> Option<u64> {
        message_id(packet)
    }
}

pub(super) fn run(fleet: &Fleet, meter: &Meter, plan: &Plan) -> Result<Outcome> {
    let sockets = plan.round_trip_sockets.next_multiple_of(2);
    let swarm = Swarm::connected(fleet, sockets, deadline())?;
    let ids = (0..swarm.len()).map(|client| swarm.id(client).to_owned()).collect();
    run_with(swarm, fleet, meter, plan, Scenario::Direct, &Direct { ids })
}
