//! Runs [`mlws_fuzz::http2`] on arbitrary bytes: everything that an HTTP/2 client sends after the preface.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mlws_fuzz::http2::check(bytes));
