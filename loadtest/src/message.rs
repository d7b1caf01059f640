//! The packets that clients send and expect, and the count of what went wrong with their ids.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::AddAssign;

use serde::Serialize;

/// The payload of every message: a JSON string of 128 bytes, quotes included, that starts with the message id.
const PAYLOAD_BYTES: usize = 128;
const ID_DIGITS: usize = 10;
const PREFIX: &[u8] = b"2[\"msg\",\"";

/// Appends the JSON payload of the message `id`.
pub fn push_payload(out: &mut Vec<u8>, id: u64) {
    let end = out.len() + PAYLOAD_BYTES - 1;
    // Writing to a vector cannot fail.
    let _ = write!(out, "\"{id:0width$}", width = ID_DIGITS);
    out.resize(end, b'x');
    out.push(b'"');
}

/// The id of a received `msg`; none if the packet is anything else or was changed on the way.
pub fn message_id(packet: &[u8]) -> Option<u64> {
    let rest = packet.strip_prefix(PREFIX)?;
    if packet.len() != PREFIX.len() + PAYLOAD_BYTES || !rest.ends_with(b"\"]") {
        return None;
    }
    digits(&rest[..ID_DIGITS])
}

/// The id and the JSON array of a received acknowledgement.
pub fn ack(packet: &[u8]) -> Option<(u64, &[u8])> {
    let rest = packet.strip_prefix(b"3")?;
    let len = rest.iter().position(|&byte| byte == b'[')?;
    Some((digits(&rest[..len])?, &rest[len..]))
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, &byte| {
        byte.is_ascii_digit().then(|| value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
    })
}

/// What happened to messages that should have arrived once and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one.
    pub out_of_order: u64,
    /// Packets that nobody asked for.
    pub unexpected: u64,
}

impl Faults {
    /// Whether everything arrived as it should.
    pub fn none(&self) -> bool {
        *self == Faults::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Faults) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.unexpected += other.unexpected;
    }
}

/// Checks the ids, counted up from 0 by one publisher, that one client receives.
#[derive(Default)]
pub struct Sequence {
    next: u64,
    missing: BTreeSet<u64>,
    faults: Faults,
}

impl Sequence {
    /// Takes note of a received id.
    pub fn receive(&mut self, id: u64) {
        if id == self.next {
            self.next += 1;
        } else if id > self.next {
            self.missing.extend(self.next..id);
            self.next = id + 1;
        } else if self.missing.remove(&id) {
            self.faults.out_of_order += 1;
        } else {
            self.faults.duplicated += 1;
        }
    }

    /// What went wrong, now that ids below `sent` have been sent and nothing is under way.
    pub fn faults(&self, sent: u64) -> Faults {
        let lost = self.missing.len() as u64 + sent.saturating_sub(self.next);
        Faults { lost, ..self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_128_bytes_and_is_recognised_in_a_message() {
        let mut packet = b"2[\"msg\",".to_vec();
        push_payload(&mut packet, 42);
        assert_eq!(packet.len(), 8 + PAYLOAD_BYTES);
        packet.push(b']');
        assert_eq!(message_id(&packet), Some(42));
        packet.pop();
        assert_eq!(message_id(&packet), None);
    }

    #[test]
    fn an_ack_is_split_into_its_id_and_its_arguments() {
        assert_eq!(ack(b"317[\"a\",1]"), Some((17, b"[\"a\",1]".as_slice())));
        assert_eq!(ack(b"3x[]"), None);
        assert_eq!(ack(b"2[]"), None);
    }

    #[test]
    fn lost_duplicated_and_late_messages_are_told_apart() {
        let mut sequence = Sequence::default();
        for id in [0, 1, 3, 2, 2, 6] {
            sequence.receive(id);
        }
        let faults = sequence.faults(8);
        assert_eq!(faults, Faults { lost: 3, duplicated: 1, out_of_order: 1, unexpected: 0 });
        assert!(!faults.none());
    }

    #[test]
    fn a_complete_sequence_has_no_faults() {
        let mut sequence = Sequence::default();
        for id in 0..100 {
            sequence.receive(id);
        }
        assert!(sequence.faults(100).none());
    }
}
