//! The gate: which certificates may stand as a CA. webpki makes an anchor of whatever it is given (name and key; basic
//! constraints, key usage and dates of an anchor are never looked at), so without this a leaf put among the CAs would
//! admit everybody whom it signs.

use portcullis_certs::{Certificate, KeyType};
use time::OffsetDateTime;

/// Why a certificate is no CA to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaFault {
    /// X.509 v1 or v2: cannot say that it is a CA.
    #[error("it is an X.509 v{version} certificate, which cannot say that it is a CA: issue it again as v3")]
    Version {
        /// 1 or 2.
        version: u8,
    },
    /// basicConstraints is absent or says CA:FALSE.
    #[error(
        "it is not a CA certificate (basicConstraints CA:TRUE is missing); to trust exactly this certificate, add it as a pin"
    )]
    NotCa,
    /// keyUsage is there and lacks keyCertSign.
    #[error("its keyUsage does not allow it to sign certificates (keyCertSign is missing)")]
    KeyUsage,
    /// The key is too weak.
    #[error("its key is too weak: {key} (RSA from 2048 bits, P-256, P-384, P-521 and Ed25519 are taken)")]
    Key {
        /// The kind of key.
        key: String,
    },
    /// Signed with SHA-1 or older.
    #[error("it is signed with {algorithm}, which is broken: issue it again with SHA-256")]
    Signature {
        /// The signature algorithm.
        algorithm: String,
    },
    /// A critical extension that nobody here understands.
    #[error("it has the critical extension {oid}, which is not understood")]
    CriticalExtension {
        /// Its object identifier.
        oid: String,
    },
    /// Past its notAfter.
    #[error("it expired on {not_after}")]
    Expired {
        /// The end of its life.
        not_after: OffsetDateTime,
    },
    /// Before its notBefore.
    #[error("it is not valid before {not_before}")]
    NotYetValid {
        /// The start of its life.
        not_before: OffsetDateTime,
    },
}

/// Everything that keeps `certificate` from being a CA at `now`; empty when it passes.
pub fn gate(certificate: &Certificate, now: OffsetDateTime) -> Vec<CaFault> {
    let mut faults = shape_faults(certificate);
    faults.extend(date_fault(certificate, now));
    faults
}

/// The faults that time does not mend.
pub(crate) fn shape_faults(certificate: &Certificate) -> Vec<CaFault> {
    let facts = certificate.facts();
    let mut faults = Vec::new();
    if facts.version != 3 {
        faults.push(CaFault::Version { version: facts.version });
    } else if facts.is_ca != Some(true) {
        faults.push(CaFault::NotCa);
    }
    if facts.key_usage.as_ref().is_some_and(|usage| !usage.key_cert_sign) {
        faults.push(CaFault::KeyUsage);
    }
    if is_weak(&facts.key) {
        faults.push(CaFault::Key { key: facts.key.to_string() });
    }
    if facts.signature.is_sha1_or_older() {
        faults.push(CaFault::Signature { algorithm: facts.signature.to_string() });
    }
    faults.extend(facts.unknown_critical.iter().map(|oid| CaFault::CriticalExtension { oid: oid.clone() }));
    faults
}

pub(crate) fn date_fault(certificate: &Certificate, now: OffsetDateTime) -> Option<CaFault> {
    let facts = certificate.facts();
    if now > facts.not_after {
        return Some(CaFault::Expired { not_after: facts.not_after });
    }
    (now < facts.not_before).then_some(CaFault::NotYetValid { not_before: facts.not_before })
}

/// RSA below 2048 bits and everything that is not in the table of `CaFault::Key`.
pub(crate) fn is_weak(key: &KeyType) -> bool {
    match key {
        KeyType::Rsa { bits } => *bits < 2048,
        KeyType::P256 | KeyType::P384 | KeyType::P521 | KeyType::Ed25519 => false,
        KeyType::Other(_) => true,
    }
}
