//! An event of 128 bytes that is acknowledged with its arguments.

use std::io::Write;

use super::round_trip::Exchange;
use crate::message::{ack, push_payload};

pub(super) struct Echo;

impl Exchange for Echo {
    fn request(&self, _client: usize, number: u64, packet: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = write!(packet, "42{number}[\"echo\",");
        push_payload(packet, number);
        packet.push(b']');
    }

    fn answer(&self, packet: &[u8]) -> Option<u64> {
        let (number, arguments) = ack(packet)?;
        let mut expected = vec![b'['];
        push_payload(&mut expected, number);
        expected.push(b']');
        (arguments == expected).then_some(number)
    }
}
