//! Feeds arbitrary bytes to [`mlws_fuzz::head`]: the first request head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::head::check(bytes));
