//! What an engine says to a fault: Go's `os` and `crypto/tls` texts inside the engine's own. Also which of our faults are none to Go.

use super::LoadedPair;
use crate::engine_files::TlsFiles;
use crate::fault::Fault;
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
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

/// A fatal finding and which files it is about.
pub(super) struct Suspect {
    pub(super) finding: Finding,
    part: Part,
    /// The certificate of the pair; the root's file for a root.
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Root,
    Cert,
    Key,
}

/// The fatal findings of a directory in the order in which the engine comes across them.
///
/// Docker and Podman go through the names once, and a pair fails at its `.cert`; the others load all roots, then the pairs.
pub(super) fn suspects_in_directory(profile: &EngineProfile, findings: &[Finding]) -> Vec<Suspect> {
    let suspect = |finding: &Finding| {
        let (cert, key) = (finding.path.with_extension("cert"), finding.path.with_extension("key"));
        let part = match finding.path.extension().and_then(|extension| extension.to_str()) {
            Some("cert") if !is_about_key(&finding.fault, &cert) => Part::Cert,
            Some("cert" | "key") => Part::Key,
            _ => Part::Root,
        };
        Suspect { finding: finding.clone(), part, cert, key }
    };
    let mut suspects: Vec<Suspect> = fatal(findings).map(suspect).collect();
    suspects.sort_by(|a, b| stage(profile, a).cmp(&stage(profile, b)));
    suspects
}

fn stage<'a>(profile: &EngineProfile, suspect: &'a Suspect) -> (bool, &'a Path, Part) {
    let orphan = matches!(suspect.finding.fault, Fault::MissingCertificate { .. } | Fault::CaKey { .. });
    let at = if suspect.part == Part::Key && !orphan { &suspect.cert } else { &suspect.finding.path };
    let later = profile.layout != Layout::HostDirectories && suspect.part != Part::Root;
    (later, at, suspect.part)
}

/// The fatal findings of files that a configuration names, in its order.
pub(super) fn suspects_of(files: &TlsFiles, findings: &[Finding]) -> Vec<Suspect> {
    let suspect = |finding: &Finding| {
        let pair = files.pairs.iter().find(|(cert, key)| [cert, key].contains(&&finding.path));
        let is_root = files.roots.contains(&finding.path);
        let (cert, key) = pair.cloned().unwrap_or_default();
        let part = match () {
            () if is_root => Part::Root,
            () if finding.path == cert && !is_about_key(&finding.fault, &cert) => Part::Cert,
            () => Part::Key,
        };
        Suspect { finding: finding.clone(), part, cert, key }
    };
    fatal(findings).map(suspect).collect()
}

fn fatal(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.severity == Severity::Fatal)
}

/// Whether a fault of a file that holds both is the key's.
fn is_about_key(fault: &Fault, cert: &Path) -> bool {
    match fault {
        Fault::CertificateWhereKey
        | Fault::EncryptedKey { .. }
        | Fault::UnsupportedKey { .. }
        | Fault::KeyMismatch { .. } => true,
        Fault::OtherBlock { .. } | Fault::BadBlock { .. } => !pem::read_certificates(cert).0.is_empty(),
        _ => false,
    }
}

/// What the engine does about a suspect.
pub(super) fn failure(profile: &EngineProfile, root: &Path, suspect: &Suspect) -> Failure {
    let texts = &profile.texts;
    let path = &suspect.finding.path;
    let says = |rows: &'static [Row<&'static str>], error: &str| says(profile, rows, root, suspect, error);
    if let Some(error) = io_error(root, path, &suspect.finding.fault) {
        return match error {
            IoFailure::Hangs => Failure::Hangs,
            IoFailure::Unknown => Failure::Unknown,
            IoFailure::Text(error) if suspect.part == Part::Root => says(texts.unreadable_root, &error),
            IoFailure::Text(error) => says(texts.unreadable_pair, &error),
        };
    }
    match &suspect.finding.fault {
        Fault::MissingKey { .. } => says(texts.missing_key, &io("open", root, &suspect.key, ErrorKind::NotFound)),
        Fault::MissingCertificate { .. } | Fault::CaKey { .. } => says(texts.orphan_key, ""),
        _ if suspect.part == Part::Root => says(texts.useless_root, ""),
        _ => match tls_error(suspect) {
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
pub(super) fn pair_that_go_takes(suspect: &Suspect) -> Option<LoadedPair> {
    if !go_takes(&suspect.finding) {
        return None;
    }
    let (chain, _) = pem::read_certificates(&suspect.cert);
    (!chain.is_empty()).then(|| LoadedPair {
        cert_path: suspect.cert.clone(),
        key_path: suspect.finding.path.clone(),
        chain,
    })
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

fn says(
    profile: &EngineProfile,
    rows: &'static [Row<&'static str>],
    root: &Path,
    suspect: &Suspect,
    error: &str,
) -> Failure {
    let Some(row) = Row::at(rows, profile.assumed) else { return Failure::None };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = row
        .holds
        .replace("{cert}", &name(&suspect.cert))
        .replace("{key}", &name(&suspect.key))
        .replace("{path}", &as_seen(root, &suspect.finding.path).display().to_string())
        .replace("{pair}", &as_seen(root, &suspect.cert).display().to_string())
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
fn tls_error(suspect: &Suspect) -> Option<String> {
    let Suspect { finding: Finding { path, fault, .. }, part, cert, key } = suspect;
    let is_cert = *part == Part::Cert;
    Some(match fault {
        Fault::Swapped { .. } | Fault::KeyWhereCertificate if labels(path).len() == 1 => SWITCHED.to_owned(),
        Fault::Swapped { .. } | Fault::KeyWhereCertificate => other_blocks(path, true),
        Fault::CertificateWhereKey if labels(path) == ["CERTIFICATE"] => CERT_AS_KEY.to_owned(),
        Fault::CertificateWhereKey => other_blocks(path, false),
        Fault::UnsupportedKey { .. } if go_takes(&suspect.finding) => return None,
        Fault::EncryptedKey { .. } | Fault::UnsupportedKey { .. } => BAD_KEY.to_owned(),
        Fault::KeyMismatch { .. } | Fault::LeafNotFirst { .. } => mismatch(cert, key),
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
