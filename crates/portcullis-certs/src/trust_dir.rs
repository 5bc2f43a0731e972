//! The server's `trust/` directory: its names and the grammar of what is in it, for those who write it and those who read it.
//!
//! It reads; what the certificates are worth is for `portcullis-tls`. Here everything that is not right is fatal, because a
//! server whose operator's wishes were read in part is not the server they wanted; what could be read comes back beside the
//! findings, since restrictions are never held back.
//!
//! ```text
//! trust/cas/*.crt    CA certificates, several per file allowed
//! trust/pins/*.crt   exactly one certificate per file; its name is `pin:<stem>`
//! trust/crls/*.crl   revocation lists, PEM (several per file allowed) or DER
//! trust/deny         one rule per line, see `DenyRule`
//! ```
//!
//! Names that start with a dot are left alone: writers' temporaries, and the `..data` of a Kubernetes volume.

pub use crate::deny::{DenyEntry, DenyRule};

use crate::crl::RevocationList;
use crate::error::CertsError;
use crate::fault::Fault;
use crate::file;
use crate::finding::{Finding, Severity};
use crate::fingerprint::{Fingerprint, excerpt};
use crate::pem;
use crate::x509::Certificate;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// The deny list grows with every revocation and must never be too long to be read.
const DENY_LIMIT: u64 = 16 << 20;
/// Half a million entries; the lists of public CAs stay below it.
const CRL_LIMIT: u64 = 16 << 20;
/// All lists together: they stay in memory.
const CRLS_LIMIT: u64 = 64 << 20;

/// A `trust/` directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDir {
    /// The directory itself.
    pub root: PathBuf,
}

/// What a `trust/` directory holds, each list in byte order of file name.
#[derive(Debug, Clone, Default)]
pub struct TrustFiles {
    /// The files under `cas/`.
    pub cas: Vec<CaFile>,
    /// The files under `pins/`.
    pub pins: Vec<PinFile>,
    /// The lists under `crls/`.
    pub crls: Vec<CrlFile>,
    /// The lines of `deny`, in order.
    pub deny: Vec<DenyEntry>,
    /// The names of the files of `cas/`, whether they can be read or not. `None` where the directory cannot be read or is
    /// not there: nobody can say then what is gone.
    pub listed_cas: Option<HashSet<String>>,
    /// The same of `pins/`.
    pub listed_pins: Option<HashSet<String>>,
}

/// One file of `cas/`.
#[derive(Debug, Clone)]
pub struct CaFile {
    /// The file's stem.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its certificates, at least one, in order.
    pub certificates: Vec<Certificate>,
}

/// One file of `pins/`.
#[derive(Debug, Clone)]
pub struct PinFile {
    /// The file's stem: the identity is `pin:<name>`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The certificate.
    pub certificate: Certificate,
}

/// One list of a file of `crls/`. Which CA it speaks for is not decided here.
#[derive(Debug, Clone)]
pub struct CrlFile {
    /// The file.
    pub path: PathBuf,
    /// Where its PEM block starts, counted from 1; none in DER.
    pub line: Option<u32>,
    /// The list.
    pub list: RevocationList,
}

impl TrustDir {
    /// The trust directory at this path, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `cas/`.
    pub fn cas_dir(&self) -> PathBuf {
        self.root.join("cas")
    }

    /// `pins/`.
    pub fn pins_dir(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// `crls/`.
    pub fn crls_dir(&self) -> PathBuf {
        self.root.join("crls")
    }

    /// Where the revocation list of the CA of this name is written. The same names as for [`ca_path`](Self::ca_path).
    pub fn crl_path(&self, name: &str) -> Result<PathBuf, CertsError> {
        Ok(self.crls_dir().join(format!("{}.crl", checked(name)?)))
    }

    /// `deny`.
    pub fn deny_file(&self) -> PathBuf {
        self.root.join("deny")
    }

    /// Where the CA of this name is written. An error unless the name is 1 to 64 of `A-Z a-z 0-9 . _ -` and starts without a dot.
    pub fn ca_path(&self, name: &str) -> Result<PathBuf, CertsError> {
        Ok(self.cas_dir().join(format!("{}.crt", checked(name)?)))
    }

    /// Where the pin of this name is written. The same names as for [`ca_path`](Self::ca_path).
    ///
    /// ```
    /// use portcullis_certs::trust_dir::TrustDir;
    /// let trust = TrustDir::new("/srv/trust");
    /// assert_eq!(trust.pin_path("alice")?.to_str(), Some("/srv/trust/pins/alice.crt"));
    /// assert!(trust.pin_path("../alice").is_err());
    /// # Ok::<(), portcullis_certs::CertsError>(())
    /// ```
    pub fn pin_path(&self, name: &str) -> Result<PathBuf, CertsError> {
        Ok(self.pins_dir().join(format!("{}.crt", checked(name)?)))
    }

    /// Reads everything. A missing subdirectory or deny list is an empty one; a missing root is a fatal finding.
    pub fn read(&self) -> (TrustFiles, Vec<Finding>) {
        let mut files = TrustFiles::default();
        let mut findings = Vec::new();
        if matches!(self.root.try_exists(), Ok(false)) {
            findings.push(fatal(&self.root, Fault::DirectoryMissing));
        }
        let cas = certificate_files(&self.cas_dir(), &mut findings);
        files.listed_cas = cas.as_deref().map(names);
        for (path, name) in cas.into_iter().flatten() {
            let certificates = read_strictly(&path, &mut findings);
            if !certificates.is_empty() {
                files.cas.push(CaFile { name, path, certificates });
            }
        }
        let pins = certificate_files(&self.pins_dir(), &mut findings);
        files.listed_pins = pins.as_deref().map(names);
        for (path, name) in pins.into_iter().flatten() {
            files.pins.extend(read_pin(path, name, &mut findings));
        }
        report_duplicates(&files.pins, &mut findings);
        files.crls = read_crls(&self.crls_dir(), &mut findings);
        files.deny = read_deny(&self.deny_file(), &mut findings);
        (files, findings)
    }
}

/// Whether a stem can be a name: 1 to 64 of `A-Z a-z 0-9 . _ -`, without a dot at the start.
pub fn is_name(stem: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&stem.len()) && stem.bytes().all(plain) && !stem.starts_with('.')
}

fn checked(name: &str) -> Result<&str, CertsError> {
    if is_name(name) { Ok(name) } else { Err(CertsError::Name { name: excerpt(name) }) }
}

fn fatal(path: &Path, fault: Fault) -> Finding {
    Finding::new(path, Severity::Fatal, fault)
}

fn names(files: &[(PathBuf, String)]) -> HashSet<String> {
    files.iter().map(|(_, name)| name.clone()).collect()
}

/// The `*.crt` of a directory, with their names; everything else in it is reported.
fn certificate_files(directory: &Path, findings: &mut Vec<Finding>) -> Option<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for (path, name) in entries(directory, findings)? {
        match name.strip_suffix(".crt") {
            Some(stem) if is_name(stem) => files.push((path, stem.to_owned())),
            Some(stem) => findings.push(fatal(&path, Fault::BadName { stem: stem.to_owned() })),
            None => findings.push(Finding::new(
                &path,
                Severity::Warning,
                Fault::IgnoredName { wanted: renamed(&name, "crt") },
            )),
        }
    }
    Some(files)
}

/// The visible entries of a directory; `None` where it is missing or cannot be read.
fn entries(directory: &Path, findings: &mut Vec<Finding>) -> Option<Vec<(PathBuf, String)>> {
    let names = match file::list(directory) {
        Ok(names) => names,
        Err(Fault::DirectoryUnreadable { error: io::ErrorKind::NotFound }) => return None,
        Err(fault) => {
            findings.push(fatal(directory, fault));
            return None;
        }
    };
    let visible = names.into_iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."));
    Some(visible.map(|name| (directory.join(&name), name.to_string_lossy().into_owned())).collect())
}

fn renamed(name: &str, extension: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{stem}.{extension}")
}

/// Half a file is not what its owner meant: every fault of it is fatal here.
fn read_strictly(path: &Path, findings: &mut Vec<Finding>) -> Vec<Certificate> {
    let (certificates, found) = pem::read_certificates(path);
    findings.extend(found.into_iter().map(|finding| Finding { severity: Severity::Fatal, ..finding }));
    certificates
}

fn read_pin(path: PathBuf, name: String, findings: &mut Vec<Finding>) -> Option<PinFile> {
    let certificates = read_strictly(&path, findings);
    match <[Certificate; 1]>::try_from(certificates) {
        Ok([certificate]) => Some(PinFile { name, path, certificate }),
        Err(several) => {
            if !several.is_empty() {
                findings.push(fatal(&path, Fault::NotOneCertificate { count: several.len() }));
            }
            None
        }
    }
}

/// Two names for one certificate: whose rights would it have?
fn report_duplicates(pins: &[PinFile], findings: &mut Vec<Finding>) {
    let mut first: HashMap<Fingerprint, &PinFile> = HashMap::new();
    for pin in pins {
        if let Some(first) = first.get(&pin.certificate.fingerprint()) {
            findings.push(fatal(&pin.path, Fault::DuplicatePin { first: format!("{}.crt", first.name) }));
        } else {
            first.insert(pin.certificate.fingerprint(), pin);
        }
    }
}

/// A revocation that is passed over in silence is worse than none: a file under another name is fatal here.
fn read_crls(directory: &Path, findings: &mut Vec<Finding>) -> Vec<CrlFile> {
    let mut crls = Vec::new();
    let mut left = CRLS_LIMIT;
    for (path, name) in entries(directory, findings).into_iter().flatten() {
        if name.strip_suffix(".crl").is_none() {
            findings.push(fatal(&path, Fault::IgnoredName { wanted: renamed(&name, "crl") }));
            continue;
        }
        let bytes = match file::read(&path, CRL_LIMIT) {
            Ok((bytes, _)) => bytes,
            Err(fault) => {
                findings.push(fatal(&path, fault));
                continue;
            }
        };
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            findings.push(fatal(&path, Fault::TooManyCrls { limit: CRLS_LIMIT }));
            continue;
        };
        left = rest;
        let (lists, faults) = pem::revocation_lists(bytes);
        let found = |line, fault| Finding { path: path.clone(), line, severity: Severity::Fatal, fault };
        findings.extend(faults.into_iter().map(|(line, fault)| found(line, fault)));
        crls.extend(lists.into_iter().map(|(line, list)| CrlFile { path: path.clone(), line, list }));
    }
    crls
}

fn read_deny(path: &Path, findings: &mut Vec<Finding>) -> Vec<DenyEntry> {
    let bytes = match file::read(path, DENY_LIMIT) {
        Ok((bytes, _)) => bytes,
        Err(Fault::Unreadable { error: io::ErrorKind::NotFound }) => return Vec::new(),
        Err(fault) => {
            findings.push(fatal(path, fault));
            return Vec::new();
        }
    };
    let (entries, faults) = crate::deny::parse_list(&bytes);
    findings.extend(faults.into_iter().map(|(line, fault)| Finding::at(path, line, Severity::Fatal, fault)));
    entries
}
