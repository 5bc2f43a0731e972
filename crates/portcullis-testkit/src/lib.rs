//! What the tests of every other crate are made of: certificates, good and deliberately bad ([`pki`]), images of any
//! size from a seed ([`image`]), and the rule for tests whose programs are missing ([`skip`]).
//!
//! A dev-dependency only. It must not know the server, the client, or the crates that read certificates: a mistake in
//! those has to show against material that was made without them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fixture that cannot be made fails the test that asked for it, with the cause"
)]

pub mod image;
pub mod pki;
pub mod skip;
