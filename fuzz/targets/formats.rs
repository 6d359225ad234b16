#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| graft_fuzzing::run("formats", bytes));
