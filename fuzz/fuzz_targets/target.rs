//! Runs [`mlws_fuzz::target`] on arbitrary bytes: a request target, host and path.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::target::check(bytes));
