//! Runs [`mlws_fuzz::response`] on arbitrary bytes: a script of application behavior.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::response::check(bytes));
