//! Boundary tests: files as `openssl` and people make them, read through the public functions.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod fixture;

mod certificates;
mod crls;
mod fuzz;
mod fuzz_engine_files;
mod host_certs;
mod keys;
mod predict;
mod predict_configured;
mod trust_dir;
