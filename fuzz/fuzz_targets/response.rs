//! Feeds arbitrary scripts to [`mlws_fuzz::response`]: what an app may answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::response::check(bytes));
