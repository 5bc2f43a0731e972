//! `cargo fuzz run hosts_toml`
#![no_main]

#[path = "../bodies/hosts_toml.rs"]
mod body;
#[path = "../bodies/refusal.rs"]
mod refusal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
