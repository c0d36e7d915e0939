//! Runs [`mlws_fuzz::machine`] on arbitrary bytes: everything a connection sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::machine::check(bytes));
