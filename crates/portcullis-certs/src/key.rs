//! Private keys: the three encodings that TLS libraries read, and which certificate a key belongs to.
//!
//! Nothing here shows a key: `Debug` is redacted and errors carry sizes and algorithm names only.

use crate::error::CertsError;
use crate::x509::{Certificate, KeyType, bits};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use std::fmt;
use x509_parser::asn1_rs::{Any, FromDer, Integer, Sequence};
use x509_parser::prelude::SubjectPublicKeyInfo;
use x509_parser::public_key::RSAPublicKey;

/// A private key that was read, checked, and can be used.
pub struct PrivateKey {
    der: PrivateKeyDer<'static>,
    kind: KeyType,
    /// The content of the SubjectPublicKeyInfo's BIT STRING.
    public: Vec<u8>,
}

/// Why a private key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableKey {
    /// Not what its label says, or inconsistent in itself.
    #[error("it is malformed")]
    Malformed,
    /// RSA, but too short or too long.
    #[error("RSA with {bits} bits; 2048 to 8192 are supported")]
    RsaSize {
        /// The modulus' size.
        bits: u32,
    },
    /// Another algorithm or curve.
    #[error("{algorithm} is not supported; RSA, P-256, P-384, P-521 and Ed25519 are")]
    Algorithm {
        /// Its name or OID.
        algorithm: String,
    },
}

impl PrivateKey {
    /// Checks the key and derives its public half.
    ///
    /// ```
    /// use portcullis_certs::PrivateKey;
    /// use rustls_pki_types::PrivatePkcs8KeyDer;
    /// let garbage = PrivatePkcs8KeyDer::from(b"no key".to_vec());
    /// assert!(PrivateKey::from_der(garbage.into()).is_err());
    /// ```
    pub fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, CertsError> {
        let (kind, public) = derive(&der)?;
        Ok(Self { der, kind, public })
    }

    /// The key as it came: PKCS#1, PKCS#8 or SEC 1.
    pub fn der(&self) -> &PrivateKeyDer<'static> {
        &self.der
    }

    /// Its kind and size.
    pub fn kind(&self) -> &KeyType {
        &self.kind
    }

    /// Whether the certificate is for this key.
    pub fn matches(&self, certificate: &Certificate) -> bool {
        let facts = certificate.facts();
        facts.key == self.kind
            && SubjectPublicKeyInfo::from_der(&facts.spki_der)
                .is_ok_and(|(_, spki)| spki.subject_public_key.data.as_ref() == self.public)
    }
}

impl Clone for PrivateKey {
    fn clone(&self) -> Self {
        Self { der: self.der.clone_key(), kind: self.kind.clone(), public: self.public.clone() }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn derive(der: &PrivateKeyDer<'_>) -> Result<(KeyType, Vec<u8>), UnusableKey> {
    match der {
        PrivateKeyDer::Pkcs1(der) => {
            let key =
                rsa::KeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| why_not_pkcs1(der.secret_pkcs1_der()))?;
            Ok(of_rsa(&key))
        }
        PrivateKeyDer::Sec1(der) => {
            let der = der.secret_sec1_der();
            ecdsa(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der)).ok_or_else(|| why_not_sec1(der))
        }
        PrivateKeyDer::Pkcs8(der) => {
            let der = der.secret_pkcs8_der();
            from_pkcs8(der).ok_or_else(|| why_not_pkcs8(der))
        }
        _ => Err(UnusableKey::Malformed),
    }
}

fn from_pkcs8(der: &[u8]) -> Option<(KeyType, Vec<u8>)> {
    if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Some((KeyType::Ed25519, key.public_key().as_ref().to_vec()));
    }
    ecdsa(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der))
        .or_else(|| rsa::KeyPair::from_pkcs8(der).ok().map(|key| of_rsa(&key)))
}

fn of_rsa(key: &rsa::KeyPair) -> (KeyType, Vec<u8>) {
    let public = key.public_key().as_ref();
    let bits = RSAPublicKey::from_der(public).map_or(0, |(_, key)| bits(key.modulus));
    (KeyType::Rsa { bits }, public.to_vec())
}

/// Tries the three curves: the encodings name the curve, so that at most one fits.
fn ecdsa<E>(
    read: impl Fn(&'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Result<EcdsaKeyPair, E>,
) -> Option<(KeyType, Vec<u8>)> {
    let curves = [
        (KeyType::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
        (KeyType::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        (KeyType::P521, &ECDSA_P521_SHA512_ASN1_SIGNING),
    ];
    curves.into_iter().find_map(|(kind, algorithm)| {
        let key = read(algorithm).ok()?;
        Some((kind, key.public_key().as_ref().to_vec()))
    })
}

fn why_not_pkcs1(der: &[u8]) -> UnusableKey {
    match modulus_bits(der) {
        Some(bits) if !(2048..=8192).contains(&bits) => UnusableKey::RsaSize { bits },
        _ => UnusableKey::Malformed,
    }
}

/// RSAPrivateKey (RFC 8017 §A.1.2): version, then the modulus.
fn modulus_bits(der: &[u8]) -> Option<u32> {
    let (_, sequence) = Sequence::from_der(der).ok()?;
    let (rest, _version) = Integer::from_der(&sequence.content).ok()?;
    let (_, modulus) = Integer::from_der(rest).ok()?;
    Some(bits(modulus.as_ref()))
}

/// ECPrivateKey (RFC 5915 §3): version, key, [0] curve.
fn why_not_sec1(der: &[u8]) -> UnusableKey {
    let curve = || {
        let (_, sequence) = Sequence::from_der(der).ok()?;
        let (rest, _version) = Integer::from_der(&sequence.content).ok()?;
        let (rest, _key) = Any::from_der(rest).ok()?;
        let (_, tagged) = Any::from_der(rest).ok()?;
        let (_, curve) = x509_parser::der_parser::Oid::from_der(tagged.data).ok()?;
        Some(curve.to_id_string())
    };
    curve().map_or(UnusableKey::Malformed, |oid| unsupported_curve(&oid))
}

/// PrivateKeyInfo (RFC 5208 §5): version, algorithm, OCTET STRING with the key.
fn why_not_pkcs8(der: &[u8]) -> UnusableKey {
    let parts = || {
        let (_, sequence) = Sequence::from_der(der).ok()?;
        let (rest, _version) = Integer::from_der(&sequence.content).ok()?;
        let (rest, algorithm) = Sequence::from_der(rest).ok()?;
        let (parameters, oid) = x509_parser::der_parser::Oid::from_der(&algorithm.content).ok()?;
        let curve = x509_parser::der_parser::Oid::from_der(parameters).ok().map(|(_, oid)| oid.to_id_string());
        let (_, key) = Any::from_der(rest).ok()?;
        Some((oid.to_id_string(), curve, key.data.to_vec()))
    };
    match parts() {
        None => UnusableKey::Malformed,
        Some((oid, curve, key)) => match (oid.as_str(), curve) {
            ("1.2.840.113549.1.1.1", _) => why_not_pkcs1(&key),
            ("1.2.840.10045.2.1", Some(curve)) => unsupported_curve(&curve),
            ("1.3.101.112", _) => UnusableKey::Malformed,
            ("1.2.840.113549.1.1.10", _) => unsupported("RSA-PSS"),
            ("1.2.840.10040.4.1", _) => unsupported("DSA"),
            ("1.3.101.113", _) => unsupported("Ed448"),
            ("1.3.101.110" | "1.3.101.111", _) => unsupported("X25519 or X448, which cannot sign,"),
            (other, _) => unsupported(&format!("algorithm {other}")),
        },
    }
}

fn unsupported_curve(oid: &str) -> UnusableKey {
    match oid {
        "1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35" => UnusableKey::Malformed,
        "1.3.132.0.33" => unsupported("P-224"),
        "1.3.132.0.10" => unsupported("secp256k1"),
        other => unsupported(&format!("EC curve {other}")),
    }
}

fn unsupported(algorithm: &str) -> UnusableKey {
    UnusableKey::Algorithm { algorithm: algorithm.to_owned() }
}
