//! The bodies of the fuzz targets, run with seeded mutations of right input.

#[path = "../../fuzz/src/bodies.rs"]
mod bodies;

use std::panic::catch_unwind;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const ITERATIONS: u64 = 10_000;

/// Texts with something of everything; mutations mix them.
const TEXTS: [&str; 24] = [
    "42[\"a\"]",
    "2[\"say\",{\"room\":\"r\",\"text\":\"x\\n\\\"y\"},1.5e3,-0]",
    "2/admin,17[\"a\",null,true,false]",
    "52-[\"a\",{\"_placeholder\":true,\"num\":1},{\"num\":0,\"_placeholder\":true}]",
    "61-3[{\"x\":[{\"_placeholder\":true,\"num\":0}]}]",
    "0/ns,{\"token\":\"é\\ud83d\\ude00\\ud800\"}",
    "39[]",
    "1",
    "4{\"message\":\"x\"}",
    "4a\u{1e}bAQID\u{1e}3probe\u{1e}2\u{1e}bAQ\u{1e}1",
    "[[[[[[[[{\"a\":{\"a\":{\"a\":[[[[[[[[[[[[[[]]]]]]]]]]]]]]}}}]]]]]]]]",
    "{\"\":0,\"k\":[],\"k\":{}}",
    "[18446744073709551615,-9223372036854775808,1e999,5e-324,123456789012345678901234567890]",
    "{\"_placeholder\":true,\"num\":0}",
    "\u{3}[{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":2,\"x\":{\"_placeholder\":true}}]",
    "[\"\\u0000\\u001f\\u2028\",\"\u{7f}\u{2028}😀\"]",
    "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]",
    "[{\"_placeholder\":true,\"num\":1e0}]",
    "0.1",
    "-",
    "\"",
    "\\ud800",
    "[",
    "]",
];

/// The same for bytes: MessagePack values, client packets, frame headers.
const BYTES: [&[u8]; 16] = [
    b"\x84\xa4type\x02\xa4data\x92\xa1a\xc4\x02\x01\x02\xa2id\xcd\x01\x2c\xa3nsp\xa1/",
    b"\x82\xa4type\x00\xa3nsp\xa6/admin",
    b"\x83\xa4type\xcb\x40\x00\x00\x00\x00\x00\x00\x00\xa4data\x91\xa1a\xa3nsp\xd9\x01/",
    b"\xd6\xff\x65\x53\xf1\x00",
    b"\xd7\xff\x1d\x53\x53\x00\x65\x53\xf1\x00",
    b"\xc7\x0c\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd7\x00\x00\x00\x01\x8b\xcf\xe5\x68\x7b",
    b"\x93\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xdc\x00\x02\xc0\xde\x00\x01\x01\xdb\x00\x00\x00\x01a",
    b"\x82\xac_placeholder\xc3\xa3num\x00",
    b"\x92\x82\xac_placeholder\xc3\xa3num\x00\xc4\x00",
    b"\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc4\x00",
    b"\x81\x05\xdbhello",
    b"\x82\xfe\x00\x80\x01\x02\x03\x04payload",
    b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04",
    b"\x88\x82\x01\x02\x03\x04\x03\xe8",
];

/// Draws an input: pieces of the seeds put together, then some bytes changed.
fn input(random: &mut StdRng) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let seed = if random.random() {
            TEXTS.choose(random).expect("not empty").as_bytes()
        } else {
            *BYTES.choose(random).expect("not empty")
        };
        // Most pieces are whole: a cut at random would rarely leave anything right.
        let is_whole = random.random_bool(0.8);
        let start = if is_whole { 0 } else { random.random_range(0..seed.len()) };
        let end = if is_whole { seed.len() } else { random.random_range(start..=seed.len()) };
        let at =
            if random.random_bool(0.7) { data.len() } else { random.random_range(0..=data.len()) };
        data.splice(at..at, seed[start..end].iter().copied());
        if random.random_bool(0.6) {
            break;
        }
    }
    for _ in 0..random.random_range(0..4) {
        if data.is_empty() {
            break;
        }
        let at = random.random_range(0..data.len());
        match random.random_range(0..4) {
            0 => data[at] = random.random(),
            1 => data[at] ^= 1 << random.random_range(0..8),
            2 => drop(data.remove(at)),
            _ => data.insert(at, *b"[]{}\",:0e\\-".choose(random).expect("not empty")),
        }
    }
    data
}

fn run(body: fn(&[u8])) {
    for text in TEXTS {
        body(text.as_bytes());
    }
    for bytes in BYTES {
        body(bytes);
    }
    for seed in 0..ITERATIONS {
        let data = input(&mut StdRng::seed_from_u64(seed));
        // The input is what is needed to reproduce a failure, so it is named before the test ends.
        let outcome = catch_unwind(|| body(&data));
        assert!(outcome.is_ok(), "seed {seed}: {}", data.escape_ascii());
    }
}

#[test]
fn engine_packets_read_back() {
    run(bodies::engine);
}

#[test]
fn socket_packets_read_back() {
    run(bodies::socket);
}

#[test]
fn frame_headers_do_not_change_with_more_bytes() {
    run(bodies::frame);
}

#[test]
fn json_is_what_serde_json_takes_for_it() {
    run(bodies::json);
}

#[test]
fn msgpack_becomes_right_json() {
    run(bodies::msgpack);
}

#[test]
fn client_packets_read_back() {
    run(bodies::packet);
}

#[test]
fn renumbered_placeholders_are_right() {
    run(bodies::placeholders);
}
