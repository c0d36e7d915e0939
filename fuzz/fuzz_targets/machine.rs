//! Feeds arbitrary bytes to [`mlws_fuzz::machine`]: all a connection sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::machine::check(bytes));
