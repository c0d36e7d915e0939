//! Feeds arbitrary bytes to [`mlws_fuzz::target`]: a request target, a host, a path to decode.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::target::check(bytes));
