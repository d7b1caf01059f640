#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adapter::fuzzing::classic_broadcast(data));
