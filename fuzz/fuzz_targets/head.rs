//! Runs [`mlws_fuzz::head`] on arbitrary bytes: a request head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::head::check(bytes));
