//! `cargo fuzz run reference`
#![no_main]

#[path = "../bodies/reference.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
