//! `cargo fuzz run pem`
#![no_main]

#[path = "../bodies/pem.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
