//! The verdicts as peers meet them: real handshakes, in memory, against certificates made elsewhere.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and the peers here are rustls without our verdicts"
)]

mod fixture;
mod peer;

mod alone;
mod client_auth;
mod client_verdict;
mod crls;
mod deny;
mod foreign_bytes;
mod gate;
mod handshake;
mod hints;
mod issued;
mod limbo;
mod record;
mod resumption;
mod server_verdict;
mod trust_paths;
mod twins;
