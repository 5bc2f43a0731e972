//! PEM files: certificates and private keys, with a finding for everything in the file that is not one.
//!
//! A block's label is looked at before its content is parsed, because parsers' own words mislead: to them an encrypted key
//! is "no items found". What Go's `encoding/pem` passes over, this passes over too, but says so: leading text is
//! fine, line ends may be CRLF, a BEGIN line starts in the first column.
//!
//! The severities are those of one file read alone: fatal when nothing usable came of it, else a warning. Readers of
//! directories have their own.

mod scan;
mod sniff;

use crate::crl::RevocationList;
use crate::error::CertsError;
use crate::fault::{Encryption, Fault};
use crate::file;
use crate::finding::{Finding, Severity};
use crate::key::{PrivateKey, UnusableKey};
use crate::x509::Certificate;
use rustls_pki_types::pem::{Error, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use scan::{Block, scan};
use std::path::Path;

/// A certificate and the line its block starts in.
pub(crate) struct Located {
    pub(crate) line: u32,
    pub(crate) certificate: Certificate,
}

/// All certificates of a PEM text, in order, and what else there is. `path` is only for the findings.
///
/// ```
/// use portcullis_certs::{Fault, pem};
/// let (certificates, findings) = pem::certificates(b"", "ca.crt".as_ref());
/// assert!(certificates.is_empty());
/// assert_eq!(findings[0].fault, Fault::Empty);
/// assert_eq!(findings[0].to_string(), "ca.crt: is empty");
/// ```
pub fn certificates(bytes: &[u8], path: &Path) -> (Vec<Certificate>, Vec<Finding>) {
    let (located, findings) = locate_certificates(bytes, path);
    (located.into_iter().map(|located| located.certificate).collect(), findings)
}

/// [`certificates`] of a file of at most 1 MiB.
pub fn read_certificates(path: &Path) -> (Vec<Certificate>, Vec<Finding>) {
    match file::read(path, file::FILE_LIMIT) {
        Ok((bytes, _)) => certificates(&bytes, path),
        Err(fault) => (Vec::new(), vec![Finding::new(path, Severity::Fatal, fault)]),
    }
}

/// The first private key of a PEM text, as Go takes it: PKCS#8, PKCS#1 or SEC 1. `path` is only for the findings.
///
/// ```
/// use portcullis_certs::{Fault, pem};
/// let text = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
/// let findings = pem::private_key(text, "client.key".as_ref()).unwrap_err();
/// assert!(matches!(findings[0].fault, Fault::EncryptedKey { .. }));
/// assert!(findings[0].fix().to_string().starts_with("openssl pkey -in client.key"));
/// ```
pub fn private_key(bytes: &[u8], path: &Path) -> Result<PrivateKey, Vec<Finding>> {
    let fatal = |line, fault| vec![Finding { path: path.to_owned(), line, severity: Severity::Fatal, fault }];
    let found = scan(bytes);
    if let Some(block) = found.blocks.iter().find(|block| block.is_key()) {
        return key_of(block).map_err(|fault| fatal(Some(block.line), fault));
    }
    let (line, fault) = why_no_key(bytes, &found.blocks);
    Err(fatal(line, fault))
}

/// [`private_key`] of a file of at most 1 MiB. Permissions are not looked at: see [`permissions`](crate::permissions).
pub fn read_private_key(path: &Path) -> Result<PrivateKey, Vec<Finding>> {
    let (bytes, _) =
        file::read(path, file::FILE_LIMIT).map_err(|fault| vec![Finding::new(path, Severity::Fatal, fault)])?;
    private_key(&bytes, path)
}

pub(crate) fn locate_certificates(bytes: &[u8], path: &Path) -> (Vec<Located>, Vec<Finding>) {
    let found = scan(bytes);
    let mut located = Vec::new();
    let mut faults = Vec::new();
    if found.bom_hides_a_block {
        faults.push((Some(1), Fault::ByteOrderMark));
    }
    for line in &found.indented {
        faults.push((Some(*line), bad("?", "its BEGIN line does not start in the first column")));
    }
    for block in &found.blocks {
        match certificate_of(block) {
            Ok(certificate) => located.push(Located { line: block.line, certificate }),
            Err(fault) => faults.push((Some(block.line), fault)),
        }
    }
    if located.is_empty() && faults.is_empty() {
        faults.push((None, as_certificate(sniff::foreign(bytes))));
    }
    let usable = !located.is_empty();
    let findings = faults.into_iter().map(|(line, fault)| {
        let fault = if usable && fault == Fault::KeyWhereCertificate { Fault::KeyAmongCertificates } else { fault };
        let severity = match fault {
            _ if !usable => Severity::Fatal,
            Fault::OtherBlock { .. } => Severity::Note,
            _ => Severity::Warning,
        };
        Finding { path: path.to_owned(), line, severity, fault }
    });
    (located, findings.collect())
}

/// Something that was found in a file, and the line its block starts in; none in DER.
pub(crate) type AtLine<T> = (Option<u32>, T);

/// All revocation lists of a file, in PEM or, as CAs publish them, in DER (RFC 5280 §4.2.1.13), and what else there is.
pub(crate) fn revocation_lists(bytes: Vec<u8>) -> (Vec<AtLine<RevocationList>>, Vec<AtLine<Fault>>) {
    let mut found: Vec<AtLine<Result<RevocationList, Fault>>> = Vec::new();
    for block in &scan(&bytes).blocks {
        found.push((Some(block.line), revocation_list_of(block)));
    }
    if found.is_empty() {
        let fault = sniff::foreign(&bytes);
        let list = if bytes.first() == Some(&0x30) { parse_revocation_list(bytes) } else { Err(fault) };
        found.push((None, list));
    }
    let (mut lists, mut faults) = (Vec::new(), Vec::new());
    for (line, list) in found {
        match list {
            Ok(list) => lists.push((line, list)),
            Err(fault) => faults.push((line, fault)),
        }
    }
    (lists, faults)
}

fn revocation_list_of(block: &Block<'_>) -> Result<RevocationList, Fault> {
    if block.label != "X509 CRL" {
        return Err(Fault::OtherBlock { label: block.label.clone() });
    }
    check_framing(block)?;
    let der = CertificateRevocationListDer::from_pem_slice(&block.canonical());
    parse_revocation_list(der.map_err(|error| bad(&block.label, reason(&error)))?.to_vec())
}

fn parse_revocation_list(der: Vec<u8>) -> Result<RevocationList, Fault> {
    RevocationList::from_der(der).map_err(|error| match error {
        CertsError::RevocationList { reason } => Fault::BadCrl { reason },
        other => Fault::BadCrl { reason: other.to_string() },
    })
}

/// What a file seems to be made for: used where a name has to be suggested.
pub(crate) fn holds_key(bytes: &[u8]) -> bool {
    scan(bytes).blocks.iter().any(Block::is_key)
}

/// Why the first private key cannot be used, when it is only its kind or size.
pub(crate) fn why_unusable(bytes: &[u8]) -> Option<UnusableKey> {
    let found = scan(bytes);
    let block = found.blocks.iter().find(|block| block.is_key() && block.broken.is_none())?;
    match PrivateKey::from_der(PrivateKeyDer::from_pem_slice(&block.canonical()).ok()?) {
        Err(CertsError::Key(unusable)) => Some(unusable),
        _ => None,
    }
}

/// The labels of the blocks that Go's `encoding/pem` gives: whole ones with base64 inside.
pub(crate) fn labels(bytes: &[u8]) -> Vec<String> {
    scan(bytes).blocks.into_iter().filter(Block::decodes).map(|block| block.label).collect()
}

fn certificate_of(block: &Block<'_>) -> Result<Certificate, Fault> {
    match block.label.as_str() {
        "CERTIFICATE" => {}
        "TRUSTED CERTIFICATE" => return Err(Fault::TrustedCertificate),
        "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => return Err(Fault::Pkcs7),
        _ if block.is_key() => return Err(Fault::KeyWhereCertificate),
        label => return Err(Fault::OtherBlock { label: label.to_owned() }),
    }
    check_framing(block)?;
    if block.has_headers {
        return Err(bad(&block.label, "it has header lines, which engines do not accept in a certificate"));
    }
    let der = CertificateDer::from_pem_slice(&block.canonical()).map_err(|error| bad(&block.label, reason(&error)))?;
    Certificate::from_der(der).map_err(|error| match error {
        CertsError::Certificate { reason } => bad(&block.label, &reason),
        other => bad(&block.label, &other.to_string()),
    })
}

fn key_of(block: &Block<'_>) -> Result<PrivateKey, Fault> {
    match block.label.as_str() {
        "ENCRYPTED PRIVATE KEY" => return Err(Fault::EncryptedKey { encryption: Encryption::Pkcs8 }),
        _ if block.is_encrypted => return Err(Fault::EncryptedKey { encryption: Encryption::Traditional }),
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {}
        label => {
            return Err(Fault::UnsupportedKey {
                reason: format!("`{label}` is not supported; RSA, EC and PKCS#8 keys are"),
            });
        }
    }
    check_framing(block)?;
    let der = PrivateKeyDer::from_pem_slice(&block.canonical()).map_err(|error| bad(&block.label, reason(&error)))?;
    PrivateKey::from_der(der).map_err(|error| match error {
        CertsError::Key(UnusableKey::Malformed) => bad(&block.label, "it is not a key of this kind"),
        CertsError::Key(unusable) => Fault::UnsupportedKey { reason: unusable.to_string() },
        other => bad(&block.label, &other.to_string()),
    })
}

fn check_framing(block: &Block<'_>) -> Result<(), Fault> {
    match block.broken {
        Some(reason) => Err(bad(&block.label, reason)),
        None => Ok(()),
    }
}

fn why_no_key(bytes: &[u8], blocks: &[Block<'_>]) -> (Option<u32>, Fault) {
    if let Some(block) = blocks.iter().find(|block| block.label.ends_with("CERTIFICATE")) {
        return (Some(block.line), Fault::CertificateWhereKey);
    }
    match blocks.first() {
        Some(block) => (Some(block.line), Fault::OtherBlock { label: block.label.clone() }),
        None => match sniff::foreign(bytes) {
            Fault::DerCertificate => (None, Fault::CertificateWhereKey),
            fault => (None, fault),
        },
    }
}

fn as_certificate(fault: Fault) -> Fault {
    if fault == Fault::DerKey { Fault::KeyWhereCertificate } else { fault }
}

fn bad(label: &str, reason: &str) -> Fault {
    Fault::BadBlock { label: label.to_owned(), reason: reason.to_owned() }
}

fn reason(error: &Error) -> &'static str {
    match error {
        Error::Base64Decode(_) => "its content is not base64",
        _ => "it cannot be decoded",
    }
}
