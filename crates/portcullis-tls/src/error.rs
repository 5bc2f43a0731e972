//! The crate's errors.

use crate::Refusal;

/// Why a TLS configuration could not be made, or a certificate did not pass its own check.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {subject}")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// A configuration needs a certificate and there is none.
    #[error("there is no certificate to present")]
    NoCertificate,
    /// rustls refused the configuration, or the key's type.
    #[error("TLS cannot be configured: {0}")]
    Config(#[from] rustls::Error),
    /// A certificate just issued would be refused by our own server.
    #[error("the certificate issued would be refused as a client's: {0}")]
    IssuedClient(#[from] Refusal),
    /// A certificate just issued would be refused by our own client.
    #[error("the certificate issued would be refused as a registry's: {0}")]
    IssuedServer(#[source] rustls::Error),
    /// The CA cannot sign for anybody.
    #[error("the CA is not usable: {0}")]
    Ca(#[from] crate::CaFault),
    /// Not a name a certificate can be for.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name given.
        name: String,
    },
}
