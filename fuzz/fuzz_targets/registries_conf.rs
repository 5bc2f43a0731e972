//! `cargo fuzz run registries_conf`
#![no_main]

#[path = "../bodies/registries_conf.rs"]
mod body;
#[path = "../bodies/refusal.rs"]
mod refusal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
