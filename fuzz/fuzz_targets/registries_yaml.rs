//! `cargo fuzz run registries_yaml`
#![no_main]

#[path = "../bodies/registries_yaml.rs"]
mod body;
#[path = "../bodies/refusal.rs"]
mod refusal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
