//! The doctor at its border: machines in temporary directories, registries on loopback, and the text that people read.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and its registries are rustls without our configurations"
)]

mod machine;
mod registry;

mod explain;
mod hostile;
mod lint;
mod live;
mod pages;
mod pure;
mod setups;
mod style;
