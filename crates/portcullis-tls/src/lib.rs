//! Mutual TLS for both ends: the only code that configures rustls.
//!
//! Owns the crypto provider, the server's verdict on a client certificate ([`TrustStore`]) and the client's verdict
//! on a registry's ([`client_config`]). Must not know the names and places of files: certificates come in as parsed
//! values from `portcullis-certs`, and a verdict goes out as a value.
//!
//! ```no_run
//! use portcullis_certs::{CertsLocation, EngineProfile, read_host_certs};
//! use portcullis_tls::{Roots, client_config};
//!
//! // What Docker's page promises, for a client of one's own: the TLS configuration for one registry.
//! let host = "registry.test:5443".parse()?;
//! let now = time::OffsetDateTime::now_utc();
//! let (certs, _findings) = read_host_certs(&EngineProfile::DOCKER_DOCS, CertsLocation::Search, &host, now);
//! let config = client_config(&certs.roots, Roots::Merge, certs.pairs.first())?;
//! # let _: rustls::ClientConfig = config;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod anchor;
mod client;
mod clock;
mod crls;
mod deny;
mod error;
mod gate;
mod issued;
mod provider;
mod record;
mod refusal;
mod roots;
mod server;
mod trust;

pub use client::{Roots, client_config, proxy_config};
pub use crls::{CaCrl, CrlFault, CrlPresence, CrlRejected, CrlRule, CrlRules, StaleCrl};
pub use deny::{DenyList, IssuedRecord};
pub use error::TlsError;
pub use gate::{CaFault, gate};
pub use issued::{verify_issued_client, verify_issued_server, verify_server, verify_server_chain};
pub use provider::{install_default_provider, provider};
pub use record::{OfferedVersions, Recorded, RecordedRequest, Recorder, recording_config};
pub use refusal::{Refusal, RefusedPeer};
pub use roots::UnusableAnchor;
pub use server::{ClientAuth, ServerTls, VerdictSlot};
pub use trust::{Accepted, CaRejected, Identity, TrustStore, TrustedBy};
