//! The registry as its peers see it: real files, real mutual TLS, HTTP/1.1 and HTTP/2, in the test's process.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

mod client;
mod fixture;
mod log;

mod access;
mod admin;
mod api_base;
mod api_blobs;
mod api_catalog;
mod api_manifests;
mod api_referrers;
mod api_tags;
mod api_uploads;
mod audit;

mod conformance;
mod crls;
mod errors;
mod explain;
mod gc;
mod identity;
mod lifecycle;
mod limits;
mod matrix;
mod metrics;
mod refusal_log;
mod reload;
mod slow_peers;
mod startup;
mod state;
mod storage_rules;
mod why;
