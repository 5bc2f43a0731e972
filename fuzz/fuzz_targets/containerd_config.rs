//! `cargo fuzz run containerd_config`
#![no_main]

#[path = "../bodies/containerd_config.rs"]
mod body;
#[path = "../bodies/refusal.rs"]
mod refusal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
