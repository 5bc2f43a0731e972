//! What an engine says to a fault: Go's `os` and `crypto/tls` texts inside the engine's own. Also which of our faults are none to Go.

use super::LoadedPair;
use crate::fault::Fault;
use crate::file::{self, FILE_LIMIT};
use crate::finding::Finding;
use crate::key::UnusableKey;
use crate::pem;
use crate::profile::{EngineProfile, Known, Layout, Row};
use crate::version::Versions;
use crate::x509::KeyType;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What a fault that is fatal to us is to the engine.
pub(super) enum Failure {
    /// It stops and says so.
    Says { text: String, row: Option<(Versions, Known)> },
    /// It waits for ever.
    Hangs,
    /// We did not read enough to know.
    Unknown,
    /// Nothing: Go takes it.
    None,
}

const NO_PEM_CERT: &str = "tls: failed to find any PEM data in certificate input";
const NO_PEM_KEY: &str = "tls: failed to find any PEM data in key input";
const SWITCHED: &str = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
const CERT_AS_KEY: &str = "tls: found a certificate rather than a key in the PEM for the private key";
const BAD_KEY: &str = "tls: failed to parse private key";

/// The place of a finding in the order in which the engine comes across it.
///
/// Docker and Podman go through the names once, and a pair fails at its `.cert`; the others load all roots, then the pairs.
pub(super) fn stage(profile: &EngineProfile, finding: &Finding) -> (bool, PathBuf, bool) {
    let orphan = matches!(finding.fault, Fault::MissingCertificate { .. } | Fault::CaKey { .. });
    let is_key = finding.path.extension().is_some_and(|extension| extension == "key");
    let in_pair = is_key && !orphan;
    let at = if in_pair { finding.path.with_extension("cert") } else { finding.path.clone() };
    let later = profile.layout != Layout::HostDirectories && !is_root(&finding.path);
    (later, at, in_pair)
}

/// What the engine does about one fatal finding of a directory's files.
pub(super) fn failure(profile: &EngineProfile, root: &Path, finding: &Finding) -> Failure {
    let texts = &profile.texts;
    let path = &finding.path;
    let says = |rows: &'static [Row<&'static str>], error: &str| says(profile, rows, root, finding, error);
    if let Some(error) = io_error(root, path, &finding.fault) {
        return match error {
            IoFailure::Hangs => Failure::Hangs,
            IoFailure::Unknown => Failure::Unknown,
            IoFailure::Text(error) if is_root(path) => says(texts.unreadable_root, &error),
            IoFailure::Text(error) => says(texts.unreadable_pair, &error),
        };
    }
    match &finding.fault {
        Fault::MissingKey { key_name, .. } => {
            let key = path.with_file_name(key_name);
            says(texts.missing_key, &io("open", root, &key, ErrorKind::NotFound))
        }
        Fault::MissingCertificate { .. } | Fault::CaKey { .. } => says(texts.orphan_key, ""),
        _ if is_root(path) => says(texts.useless_root, ""),
        fault => match tls_error(path, fault) {
            Some(error) => says(texts.bad_pair, &error),
            None => Failure::None,
        },
    }
}

/// Go's text of a failed call.
pub(super) fn io(call: &str, root: &Path, path: &Path, error: ErrorKind) -> String {
    let why = match error {
        ErrorKind::NotFound => "no such file or directory",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::NotADirectory => "not a directory",
        ErrorKind::IsADirectory => "is a directory",
        _ => "",
    };
    format!("{call} {}: {why}", as_seen(root, path).display())
}

/// A pair whose key we do not take and Go does: shorter RSA, and P-224.
pub(super) fn pair_that_go_takes(finding: &Finding) -> Option<LoadedPair> {
    if !go_takes(finding) {
        return None;
    }
    let cert_path = finding.path.with_extension("cert");
    let (chain, _) = pem::read_certificates(&cert_path);
    (!chain.is_empty()).then(|| LoadedPair { cert_path, key_path: finding.path.clone(), chain })
}

fn go_takes(finding: &Finding) -> bool {
    if !matches!(finding.fault, Fault::UnsupportedKey { .. }) {
        return false;
    }
    match file::read(&finding.path, FILE_LIMIT).ok().and_then(|(bytes, _)| pem::why_unusable(&bytes)) {
        Some(UnusableKey::RsaSize { bits }) => bits >= 1024,
        Some(UnusableKey::Algorithm { algorithm }) => algorithm == "P-224",
        _ => false,
    }
}

/// A path as the engine names it, whose root is not ours.
fn as_seen(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).map_or_else(|_| path.to_owned(), |below| Path::new("/").join(below))
}

fn is_root(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "crt") || path.file_name().is_some_and(|name| name == ".crt")
}

fn says(
    profile: &EngineProfile,
    rows: &'static [Row<&'static str>],
    root: &Path,
    finding: &Finding,
    error: &str,
) -> Failure {
    let Some(row) = Row::at(rows, profile.assumed) else { return Failure::None };
    let name = |extension: &str| {
        let name = finding.path.with_extension(extension);
        name.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let text = row
        .holds
        .replace("{cert}", &name("cert"))
        .replace("{key}", &name("key"))
        .replace("{path}", &as_seen(root, &finding.path).display().to_string())
        .replace("{error}", error);
    Failure::Says { text, row: Some((row.versions, row.known)) }
}

enum IoFailure {
    Text(String),
    Hangs,
    Unknown,
}

fn io_error(root: &Path, path: &Path, fault: &Fault) -> Option<IoFailure> {
    Some(match fault {
        Fault::Unreadable { error } => IoFailure::Text(io("open", root, path, *error)),
        Fault::DanglingLink => IoFailure::Text(io("open", root, path, ErrorKind::NotFound)),
        Fault::NotAFile => match fs::metadata(path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_dir() => IoFailure::Text(io("read", root, path, ErrorKind::IsADirectory)),
            Ok(kind) if kind.is_fifo() => IoFailure::Hangs,
            Ok(kind) if kind.is_socket() => {
                IoFailure::Text(format!("open {}: no such device or address", as_seen(root, path).display()))
            }
            _ => IoFailure::Unknown,
        },
        Fault::TooLarge { .. } => IoFailure::Unknown,
        _ => return None,
    })
}

/// Go's `tls.X509KeyPair`; `None` when it takes what we do not.
fn tls_error(path: &Path, fault: &Fault) -> Option<String> {
    let is_cert = path.extension().is_some_and(|extension| extension == "cert");
    Some(match fault {
        Fault::Swapped { .. } | Fault::KeyWhereCertificate if labels(path).len() == 1 => SWITCHED.to_owned(),
        Fault::Swapped { .. } | Fault::KeyWhereCertificate => other_blocks(path, true),
        Fault::CertificateWhereKey if labels(path) == ["CERTIFICATE"] => CERT_AS_KEY.to_owned(),
        Fault::CertificateWhereKey => other_blocks(path, false),
        Fault::EncryptedKey { .. } => BAD_KEY.to_owned(),
        Fault::UnsupportedKey { .. } => {
            let finding = Finding::new(path, crate::Severity::Fatal, fault.clone());
            return (!go_takes(&finding)).then(|| BAD_KEY.to_owned());
        }
        Fault::KeyMismatch { cert_name, .. } => mismatch(&path.with_file_name(cert_name), path),
        Fault::LeafNotFirst { .. } => mismatch(path, &path.with_extension("key")),
        Fault::BadBlock { .. } if is_cert => bad_certificate(path),
        Fault::BadBlock { .. } => bad_key(path),
        Fault::TrustedCertificate | Fault::Pkcs7 | Fault::OtherBlock { .. } => other_blocks(path, is_cert),
        _ if is_cert => NO_PEM_CERT.to_owned(),
        _ => NO_PEM_KEY.to_owned(),
    })
}

/// Blocks that are there, of other kinds than the one that is looked for.
fn other_blocks(path: &Path, is_cert: bool) -> String {
    let labels = labels(path);
    match (labels.is_empty(), is_cert) {
        (true, true) => NO_PEM_CERT.to_owned(),
        (true, false) => NO_PEM_KEY.to_owned(),
        (false, true) => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            labels.join(" ")
        ),
        (false, false) => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            labels.join(" ")
        ),
    }
}

/// Go skips a block whose base64 is broken, and stops at a whole one whose DER is.
fn bad_certificate(path: &Path) -> String {
    if labels(path).is_empty() { NO_PEM_CERT.to_owned() } else { "x509: malformed".to_owned() }
}

fn bad_key(path: &Path) -> String {
    if labels(path).is_empty() { NO_PEM_KEY.to_owned() } else { BAD_KEY.to_owned() }
}

fn labels(path: &Path) -> Vec<String> {
    file::read(path, FILE_LIMIT).map(|(bytes, _)| pem::labels(&bytes)).unwrap_or_default()
}

fn mismatch(cert: &Path, key: &Path) -> String {
    let family = |kind: &KeyType| match kind {
        KeyType::Rsa { .. } => 0,
        KeyType::Ed25519 => 1,
        _ => 2,
    };
    let (chain, _) = pem::read_certificates(cert);
    let of_cert = chain.first().map(|leaf| family(&leaf.facts().key));
    let of_key = pem::read_private_key(key).ok().map(|key| family(key.kind()));
    if of_cert == of_key {
        "tls: private key does not match public key".to_owned()
    } else {
        "tls: private key type does not match public key type".to_owned()
    }
}
