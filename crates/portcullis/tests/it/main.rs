//! The whole product as a new user meets it: the real binary, beside dockerd, skopeo, podman, curl and openssl, on a
//! machine of the test's own (`netns.rs`). A test whose programs or rights are missing records a skip.
//!
//! The fixture first, then one module for each promise.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, and says what the programs said"
)]

mod docker_registry;
mod dockerd;
mod netns;
mod peers;
mod process;
mod registry;
mod terminal;

mod archives;
mod attacks;
mod backup;
mod bad_input;
mod client_commands;
mod client_peers;
mod config_import;
mod constrained;
mod distribution;
mod docker_page;
mod doctor;
mod engines;
mod failing_disk;
mod fixture;
mod fsck;
mod full_disk;
mod gateway;
mod gc;
mod hints;
mod kill9;
mod kill9_rounds;
mod large_images;
mod login;
mod missing_key;
mod own_ca;
mod policy_check;
mod port_443;
mod refusals;
mod resumed;
mod resumption;
mod revoked;
mod roots;
mod stop;
mod told;
mod units;
mod upkeep;
