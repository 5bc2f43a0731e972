//! The vocabulary of OCI registries: names, digests, references, manifests and the URL grammar.
//!
//! Owns every grammar that both ends of a connection must agree on; each is spelled once, here, and parses into a
//! type that cannot be wrong. Knows no I/O, no async and nothing of TLS or storage.
//!
//! ```
//! use portcullis_oci::Reference;
//!
//! let reference: Reference = "registry.test:5443/team/app:1.2".parse()?;
//! assert_eq!(reference.host.as_str(), "registry.test:5443");
//! assert_eq!(reference.repository.as_str(), "team/app");
//! # Ok::<(), portcullis_oci::InvalidReference>(())
//! ```

pub mod digest;
pub mod docker_hub;
pub mod error;
pub mod manifest;
pub mod media;
pub mod name;
pub mod platform;
pub mod range;
pub mod reference;
pub mod route;

pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::{ErrorBody, ErrorCode};
pub use manifest::{Content, Descriptor, Manifest, ManifestError, Platform};
pub use name::{InvalidName, InvalidTag, RepositoryName, Tag};
pub use platform::{InvalidPlatform, PlatformChoice};
pub use range::{ByteRange, ContentRange, InvalidRange};
pub use reference::{InvalidReference, ManifestReference, Reference, RegistryHost};
pub use route::{Endpoint, Page, RouteError, UploadId, UploadStart};
