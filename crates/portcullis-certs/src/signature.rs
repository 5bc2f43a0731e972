//! How a certificate is signed, and whether a signature holds.
//!
//! Old and weak algorithms are checked too: whether a certificate *is* self-signed is a fact, whether that is worth anything
//! is the verdict of `portcullis-tls`.

use crate::x509::KeyType;
use aws_lc_rs::signature::{self as algorithms, ParsedPublicKey, VerificationAlgorithm};
use std::fmt;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

/// The algorithm a certificate was signed with.
///
/// [`fmt::Display`]: `ECDSA with SHA-256`, `Ed25519`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureKind {
    /// `RSA`, `RSA-PSS`, `ECDSA`, `Ed25519`, `DSA`, or an OID in digits.
    pub algorithm: String,
    /// `SHA-256` and so on; `None` where the algorithm has its own or is not known.
    pub hash: Option<&'static str>,
}

impl SignatureKind {
    pub(crate) fn new(identifier: &AlgorithmIdentifier<'_>) -> Self {
        let oid = identifier.algorithm.to_id_string();
        let (algorithm, hash) = match oid.as_str() {
            "1.2.840.113549.1.1.2" => ("RSA", Some("MD2")),
            "1.2.840.113549.1.1.3" => ("RSA", Some("MD4")),
            "1.2.840.113549.1.1.4" => ("RSA", Some("MD5")),
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => ("RSA", Some("SHA-1")),
            "1.2.840.113549.1.1.14" => ("RSA", Some("SHA-224")),
            "1.2.840.113549.1.1.11" => ("RSA", Some("SHA-256")),
            "1.2.840.113549.1.1.12" => ("RSA", Some("SHA-384")),
            "1.2.840.113549.1.1.13" => ("RSA", Some("SHA-512")),
            "1.2.840.113549.1.1.10" => ("RSA-PSS", pss_hash(identifier)),
            "1.2.840.10045.4.1" => ("ECDSA", Some("SHA-1")),
            "1.2.840.10045.4.3.1" => ("ECDSA", Some("SHA-224")),
            "1.2.840.10045.4.3.2" => ("ECDSA", Some("SHA-256")),
            "1.2.840.10045.4.3.3" => ("ECDSA", Some("SHA-384")),
            "1.2.840.10045.4.3.4" => ("ECDSA", Some("SHA-512")),
            "1.2.840.10040.4.3" => ("DSA", Some("SHA-1")),
            "2.16.840.1.101.3.4.3.2" => ("DSA", Some("SHA-256")),
            "1.3.101.112" => ("Ed25519", None),
            "1.3.101.113" => ("Ed448", None),
            other => (other, None),
        };
        Self { algorithm: algorithm.to_owned(), hash }
    }

    /// Whether the hash is SHA-1 or one that was broken before it.
    pub fn is_sha1_or_older(&self) -> bool {
        matches!(self.hash, Some("MD2" | "MD4" | "MD5" | "SHA-1"))
    }
}

impl fmt::Display for SignatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.algorithm)?;
        self.hash.map_or(Ok(()), |hash| write!(f, " with {hash}"))
    }
}

/// Whether `signature` over `message` was made by the key; `false` for algorithms that aws-lc-rs does not check.
pub(crate) fn holds(kind: &SignatureKind, key: &KeyType, spki_der: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(algorithm) = algorithm(kind, key) else { return false };
    ParsedPublicKey::new(algorithm, spki_der).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
}

fn algorithm(kind: &SignatureKind, key: &KeyType) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, kind.algorithm.as_str(), kind.hash) {
        (KeyType::Rsa { .. }, "RSA", Some("SHA-1")) => &algorithms::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (KeyType::Rsa { .. }, "RSA", Some("SHA-256")) => &algorithms::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        (KeyType::Rsa { .. }, "RSA", Some("SHA-384")) => &algorithms::RSA_PKCS1_2048_8192_SHA384,
        (KeyType::Rsa { .. }, "RSA", Some("SHA-512")) => &algorithms::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        (KeyType::Rsa { .. }, "RSA-PSS", Some("SHA-256")) => &algorithms::RSA_PSS_2048_8192_SHA256,
        (KeyType::Rsa { .. }, "RSA-PSS", Some("SHA-384")) => &algorithms::RSA_PSS_2048_8192_SHA384,
        (KeyType::Rsa { .. }, "RSA-PSS", Some("SHA-512")) => &algorithms::RSA_PSS_2048_8192_SHA512,
        (KeyType::P256, "ECDSA", Some("SHA-1")) => &algorithms::ECDSA_P256_SHA1_ASN1,
        (KeyType::P256, "ECDSA", Some("SHA-256")) => &algorithms::ECDSA_P256_SHA256_ASN1,
        (KeyType::P256, "ECDSA", Some("SHA-384")) => &algorithms::ECDSA_P256_SHA384_ASN1,
        (KeyType::P256, "ECDSA", Some("SHA-512")) => &algorithms::ECDSA_P256_SHA512_ASN1,
        (KeyType::P384, "ECDSA", Some("SHA-256")) => &algorithms::ECDSA_P384_SHA256_ASN1,
        (KeyType::P384, "ECDSA", Some("SHA-384")) => &algorithms::ECDSA_P384_SHA384_ASN1,
        (KeyType::P384, "ECDSA", Some("SHA-512")) => &algorithms::ECDSA_P384_SHA512_ASN1,
        (KeyType::P521, "ECDSA", Some("SHA-256")) => &algorithms::ECDSA_P521_SHA256_ASN1,
        (KeyType::P521, "ECDSA", Some("SHA-384")) => &algorithms::ECDSA_P521_SHA384_ASN1,
        (KeyType::P521, "ECDSA", Some("SHA-512")) => &algorithms::ECDSA_P521_SHA512_ASN1,
        (KeyType::Ed25519, "Ed25519", None) => &algorithms::ED25519,
        _ => return None,
    })
}

fn pss_hash(identifier: &AlgorithmIdentifier<'_>) -> Option<&'static str> {
    let Ok(SignatureAlgorithm::RSASSA_PSS(params)) = SignatureAlgorithm::try_from(identifier) else { return None };
    Some(match params.hash_algorithm_oid().to_id_string().as_str() {
        "1.3.14.3.2.26" => "SHA-1",
        "2.16.840.1.101.3.4.2.1" => "SHA-256",
        "2.16.840.1.101.3.4.2.2" => "SHA-384",
        "2.16.840.1.101.3.4.2.3" => "SHA-512",
        _ => return None,
    })
}
