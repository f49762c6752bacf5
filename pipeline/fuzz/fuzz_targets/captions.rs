//! Captions to synsets.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catlip_fuzz::captions(bytes));
