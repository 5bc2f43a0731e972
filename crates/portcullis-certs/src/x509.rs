//! What a certificate says about itself: facts only, no verdict.

use crate::error::CertsError;
use crate::fingerprint::{Fingerprint, Serial};
use crate::name::DistinguishedName;
use crate::signature::{self, SignatureKind};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use time::OffsetDateTime;

mod constraints;
mod forms;
mod parse;

pub use constraints::{NameConstraints, NameSubtree};
pub(crate) use parse::bits;

/// A parsed certificate, immutable and cheap to clone.
///
/// Two certificates are equal when their DER is. Any version is read (v1 too, which rustls refuses later).
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<Inner>,
}

struct Inner {
    der: CertificateDer<'static>,
    fingerprint: Fingerprint,
    facts: CertificateFacts,
    /// Where the signed bytes lie in the DER.
    tbs: std::ops::Range<usize>,
    signature: Vec<u8>,
    /// Asked for by those who go by fingerprints.
    twins: OnceLock<Vec<Fingerprint>>,
}

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// 1, 2 or 3.
    pub version: u8,
    /// Whom it names.
    pub subject: DistinguishedName,
    /// Who signed it.
    pub issuer: DistinguishedName,
    /// The issuer's number for it.
    pub serial: Serial,
    /// The number is negative, which RFC 5280 forbids and Go refuses.
    pub serial_is_negative: bool,
    /// The first second of its time.
    pub not_before: OffsetDateTime,
    /// The last second of its time.
    pub not_after: OffsetDateTime,
    /// subjectAltName, in order; empty without the extension.
    pub alt_names: Vec<AltName>,
    /// basicConstraints' cA; `None` without the extension.
    pub is_ca: Option<bool>,
    /// basicConstraints' pathLenConstraint.
    pub path_len: Option<u32>,
    /// keyUsage; `None` (anything goes) without the extension.
    pub key_usage: Option<KeyUsage>,
    /// extKeyUsage; `None` (anything goes) without the extension.
    pub extended_key_usage: Option<ExtendedKeyUsage>,
    /// The kind and size of its key.
    pub key: KeyType,
    /// How it was signed.
    pub signature: SignatureKind,
    /// Its SubjectPublicKeyInfo.
    pub spki_der: Vec<u8>,
    /// The SHA-256 of `spki_der`: the key's name, whichever certificate it is in.
    pub key_hash: Fingerprint,
    /// subjectKeyIdentifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// authorityKeyIdentifier's keyIdentifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// Subject and issuer are the same, byte for byte.
    pub self_issued: bool,
    /// Self-issued, and its own key verifies its signature. `false` also when the algorithm cannot be checked (MD5, DSA).
    pub self_signed: bool,
    /// The URIs of cRLDistributionPoints: where its CA publishes the list that it would be on.
    pub crl_uris: Vec<String>,
    /// nameConstraints; `None` (any name goes) without the extension.
    pub name_constraints: Option<NameConstraints>,
    /// Critical extensions that path building (webpki) does not handle, as OIDs: in a chain they mean refusal.
    pub unknown_critical: Vec<String>,
}

/// One subjectAltName. Texts are as in the certificate, not yet made visible.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AltName {
    /// dNSName, `*.` included.
    Dns(String),
    /// iPAddress.
    Ip(IpAddr),
    /// rfc822Name.
    Email(String),
    /// uniformResourceIdentifier.
    Uri(String),
    /// Another kind, described.
    Other(String),
}

/// keyUsage (RFC 5280 §4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "RFC 5280's own names")]
pub struct KeyUsage {
    pub digital_signature: bool,
    pub content_commitment: bool,
    pub key_encipherment: bool,
    pub data_encipherment: bool,
    pub key_agreement: bool,
    pub key_cert_sign: bool,
    pub crl_sign: bool,
}

/// extKeyUsage (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtendedKeyUsage {
    /// id-kp-serverAuth.
    pub server_auth: bool,
    /// id-kp-clientAuth.
    pub client_auth: bool,
    /// anyExtendedKeyUsage.
    pub any: bool,
    /// The others, by name where RFC 5280 has one, else as OIDs.
    pub others: Vec<String>,
}

/// The kind and size of a public key. [`fmt::Display`]: `RSA 4096`, `P-256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyType {
    /// RSA, with the modulus' size.
    Rsa {
        /// In bits.
        bits: u32,
    },
    /// NIST P-256, also called prime256v1.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// Another, by name or OID.
    Other(String),
}

impl Certificate {
    /// Parses one certificate. Trailing bytes, duplicate extensions and extensions that break their own syntax are errors, as they are to Go.
    ///
    /// ```
    /// use portcullis_certs::Certificate;
    /// assert!(Certificate::from_der(b"not DER".to_vec().into()).is_err());
    /// ```
    pub fn from_der(der: CertificateDer<'static>) -> Result<Self, CertsError> {
        let parse::Parsed { facts, tbs, signature } =
            parse::parse(&der).map_err(|reason| CertsError::Certificate { reason })?;
        let fingerprint = Fingerprint::of(&der);
        Ok(Self { inner: Arc::new(Inner { der, fingerprint, facts, tbs, signature, twins: OnceLock::new() }) })
    }

    /// The certificate as it came.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.inner.der
    }

    /// The SHA-256 of the DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.inner.fingerprint
    }

    /// The fingerprints of its *twins*: where ECDSA signed (r, s), (r, n − s) verifies too, so that whoever has the
    /// certificate can write another one with the same names, serial number and key. What denies by fingerprint has to
    /// look at all of them, what gives rights at the certificate's own alone. None where another algorithm signed.
    pub fn twins(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        let twins = || if self.is_ecdsa() { forms::twins(&self.inner.der) } else { Vec::new() };
        self.inner.twins.get_or_init(twins).iter().copied()
    }

    /// Whether what surrounds the signed part is written in the one way there is: shortest lengths, nothing behind, the
    /// algorithm as it was signed, a minimal signature. Then it and its twins are all there is of this certificate.
    pub fn is_in_its_one_form(&self) -> bool {
        forms::is_only(&self.inner.der, self.is_ecdsa())
    }

    fn is_ecdsa(&self) -> bool {
        self.facts().signature.algorithm == "ECDSA"
    }

    /// What it says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.inner.facts
    }

    /// Whether it is for this host: an address among its addresses, else a name among its DNS names, as in Go (`VerifyHostname`). The
    /// common name does not count, and a star is the whole first label (RFC 6125 §6.4.3), also before a name without dots.
    pub fn is_for(&self, host: &str) -> bool {
        let names = &self.facts().alt_names;
        match host.parse::<IpAddr>() {
            Ok(address) => names.contains(&AltName::Ip(address)),
            Err(_) => names.iter().any(|name| matches!(name, AltName::Dns(pattern) if covers(pattern, host))),
        }
    }

    /// Whether the issuer's key made this certificate's signature. Names, dates and usages are not looked at.
    ///
    /// `false` also for algorithms that cannot be checked: MD5, DSA, keys other than those [`KeyType`] names.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let Some(tbs) = self.inner.der.get(self.inner.tbs.clone()) else { return false };
        let key = issuer.facts();
        signature::holds(&self.facts().signature, &key.key, &key.spki_der, tbs, &self.inner.signature)
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let Some((star, rest)) = pattern.split_once('.') else { return false };
    let Some((label, domain)) = name.split_once('.') else { return false };
    star == "*" && !label.is_empty() && rest.eq_ignore_ascii_case(domain)
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.inner.der == other.inner.der
    }
}

impl Eq for Certificate {}

impl std::hash::Hash for Certificate {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.fingerprint.hash(state);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.facts().subject)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::P521 => f.write_str("P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        for (pattern, name, expected) in [
            ("r.test", "R.Test", true),
            ("*.test", "r.test", true),
            ("*.test", "a.b.test", false),
            ("*.test", "test", false),
            ("*.test", ".test", false),
            ("r*.test", "r1.test", false),
            ("*", "test", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }
}
