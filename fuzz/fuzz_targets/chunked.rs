//! Runs [`mlws_fuzz::chunked`] on arbitrary bytes: a chunked body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::chunked::check(bytes));
