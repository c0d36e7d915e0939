//! Runs [`mlws_fuzz::tls`] on arbitrary bytes: files of TLS, cipher strings, and what a client sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::tls::check(bytes));
