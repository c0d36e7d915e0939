//! Runs [`mlws_fuzz::proxy`] on arbitrary bytes: a PROXY header and the values of forwarding fields.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::proxy::check(bytes));
