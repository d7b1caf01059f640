//! Joining and leaving rooms in turn, acknowledged.

use std::io::Write;

use super::round_trip::Exchange;
use crate::message::ack;

/// Each room has a few members at a time, so that most changes are neither the first nor the last of a room.
const ROOMS: usize = 8;

pub(super) struct Join;

impl Exchange for Join {
    fn request(&self, client: usize, number: u64, packet: &mut Vec<u8>) {
        let event = if number % 2 == 1 { "join" } else { "leave" };
        // Writing to a vector cannot fail.
        let _ = write!(packet, "42{number}[\"{event}\",\"room-{}\"]", client % ROOMS);
    }

    fn answer(&self, packet: &[u8]) -> Option<u64> {
        let (number, arguments) = ack(packet)?;
        (arguments == b"[]").then_some(number)
    }
}
