//! The client against real TLS and real HTTP: a registry in the test's process that can be told to misbehave, and
//! Debian's `docker-registry`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod auth;
mod breaking;
mod copy;
mod delivery;
mod distribution;
mod download;
mod identity;
mod image;
mod login;
mod mirrors;
mod nginx;
mod outside;
mod plain_http;
mod proxy;
mod redirect;
mod registries;
mod relay;
mod resume;
mod served;
mod site;
mod stub;
mod tags;
mod tls;
mod upload;
