//! Registry certificate directories, PEM and X.509 facts.
//!
//! This crate is the only reader of `certs.d` (client side, [`read_host_certs`]) and of `trust/` (server side,
//! [`trust_dir`]). It turns files into values and everything that is wrong with them into [`Finding`]s: a reader
//! returns what it could read *and* the whole list, so that a client can stop at the first fatal one while a
//! doctor prints all. It knows no sockets and no rustls configuration, and it passes no verdict on trust: that is `portcullis-tls`.
//!
//! ```
//! use portcullis_certs::{CertsLocation, EngineProfile, read_host_certs};
//! # let dir = tempfile::tempdir()?;
//! # let now = time::OffsetDateTime::UNIX_EPOCH;
//! let host = "registry.test:5443".parse()?;
//! let (certs, findings) = read_host_certs(&EngineProfile::DOCKER_DOCS, CertsLocation::Root(dir.path()), &host, now);
//! assert!(certs.pairs.is_empty() && findings.is_empty()); // no directory for this host: nothing to say
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod fault;
mod fault_text;
mod finding;
mod fix;

pub mod engine_files;
mod engine_hosts;
mod host_certs;
mod predict;
mod profile;
mod registries_files;
mod survey;
mod version;

mod crl;
mod deny;
pub mod permissions;
pub mod state_dir;
pub mod trust_dir;

mod fingerprint;
mod key;
mod name;
pub mod pem;
mod signature;
mod x509;

mod command;
mod file;
mod glob;
mod visible;

pub use command::ShellCommand;
pub use crl::{CrlScope, RevocationList};
pub use engine_hosts::{EngineHost, read_engine_hosts, read_own_host_certs};
pub use error::CertsError;
pub use fault::{Encryption, Fault, LookAlike, WithoutConfig};
pub use finding::{Finding, Severity};
pub use fingerprint::{Fingerprint, Serial};
pub use fix::Fix;
pub use glob::glob;
pub use host_certs::{CertsLocation, ClientPair, HostCerts, read_host_certs};
pub use key::{PrivateKey, UnusableKey};
pub use name::DistinguishedName;
/// The registry whose directory is read: part of this crate's own signatures.
pub use portcullis_oci::RegistryHost;
pub use predict::{
    CertificateRequest, Choice, Endpoint, EngineUser, LoadedPair, LoadedRoot, Look, Outcome, Places, Prediction,
    Scheme, Situation, Skipped, TlsVersion, Tried, UnreadReason, predict,
};
pub use profile::{
    Checked, Elsewhere, EngineProfile, Hub, Insecure, Ipv6, Known, Layout, Loopback, ReadBy, Reload, Row, Rule, Rules,
    SearchRoot, Subdirectories, SystemRoots, Texts,
};
pub use registries_files::{RegistriesPlace, read_registries_conf};
pub use signature::SignatureKind;
pub use survey::{
    DirectorySurvey, EntryKind, FileSurvey, KeySurvey, LocatedCertificate, Ownership, survey_directory, survey_file,
    survey_root,
};
pub use version::{Version, Versions};
pub use visible::{Visible, visible_bytes};
pub use x509::{
    AltName, Certificate, CertificateFacts, ExtendedKeyUsage, KeyType, KeyUsage, NameConstraints, NameSubtree,
};
