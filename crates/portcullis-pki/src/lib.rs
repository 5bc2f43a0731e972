//! Makes and installs certificates: authorities, profiles, leaves, trust files, client directories.
//!
//! Owns every private key of ours from its making to its file, and every rule on what we put into a certificate
//! ([`profile`]). A certificate is verified as its reader will verify it before the first byte is written, a key is
//! never overwritten, and everything may be run twice. Must not know HTTP, and reads the directories of engines
//! through `portcullis-certs` only.
//!
//! ```
//! use portcullis_pki::{Authority, AuthorityKind, ClientRequest, KeyAlgorithm, ServerRequest, issue_client, issue_server};
//! use time::OffsetDateTime;
//!
//! let home = tempfile::tempdir()?;
//! let now = OffsetDateTime::now_utc();
//! let (p256, host) = (KeyAlgorithm::P256, "registry.test");
//!
//! // Two authorities, so that a client certificate can never be a registry's.
//! let server_ca = Authority::create(&home.path().join("server-ca"), AuthorityKind::Server, host, p256, now)?;
//! let client_ca = Authority::create(&home.path().join("client-ca"), AuthorityKind::Client, host, p256, now)?;
//!
//! let server = issue_server(&server_ca, &ServerRequest::new(vec!["registry.test".parse()?, "10.0.0.7".parse()?]), now)?;
//! server.write_server(&home.path().join("server"))?;
//!
//! // A directory in the shape of `/etc/docker/certs.d/<host>/`: ca.crt, client.cert, client.key.
//! let client = issue_client(&client_ca, &ClientRequest::new("ci-7".parse()?), now)?;
//! client.write_client(&home.path().join("clients/ci-7"), server_ca.certificate())?;
//! assert_eq!(client_ca.journal()?.entries[1].name, "ci-7");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod authority;
mod constraints;
pub mod crl;
mod error;
pub mod files;
pub mod install;
mod issue;
mod journal;
mod key;
mod name;
pub mod profile;
mod revoke;
mod signer;
pub mod trust;
mod verify;

pub use algorithm::KeyAlgorithm;
pub use authority::{Authority, AuthorityKind, AuthorityRequest};
pub use crl::{PublishedCrl, publish_crl};
pub use error::{NameFault, PkiError};
pub use issue::{ClientRequest, Issued, KeySource, ServerRequest, issue_client, issue_server};
pub use journal::{EntryKind, Journal, JournalEntry};
pub use key::KeyPair;
pub use name::{ClientName, ServerName, TrustDomain};
pub use revoke::{Revoked, cut_off, forgive, latest_cut_off, revoke};
