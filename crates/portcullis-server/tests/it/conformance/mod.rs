//! The distribution specification, group by group and data set by data set, as the official conformance suite names
//! them; over mutual TLS, HTTP/1.1 and HTTP/2.
//!
//! | group of the suite | here |
//! |---|---|
//! | ping | `api_base` |
//! | empty (tag list, referrers) | [`discovery`] |
//! | sha256 blobs, sha512 blobs: every way to push, mounts, cancel, out of order, bad digests | [`blobs`] |
//! | blob ranges | [`blobs`]; `api_blobs` for what is no range |
//! | the data sets, each pushed, listed, asked for, pulled, referred to and deleted | [`data_sets`], made in [`data`] |
//! | read-only | [`data_sets`], read by a peer that may only pull |
//! | missing-manifest, invalid-digest-format | [`discovery`] |
//!
//! What lies beyond the suite (headers, limits, races, rights) is in the modules named after the API's nouns.

mod blobs;
mod data;
mod data_sets;
mod discovery;
