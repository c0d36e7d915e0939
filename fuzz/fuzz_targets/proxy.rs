//! Feeds arbitrary bytes to [`mlws_fuzz::proxy`]: a PROXY header, and what a proxy says in fields.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::proxy::check(bytes));
