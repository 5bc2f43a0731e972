//! `cargo fuzz run buildkitd_toml`
#![no_main]

#[path = "../bodies/buildkitd_toml.rs"]
mod body;
#[path = "../bodies/refusal.rs"]
mod refusal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
