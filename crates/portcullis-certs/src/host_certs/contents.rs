//! The files of one host directory: roots, pairs, and everything that should be neither.

use super::{ClientPair, DirectoryContents, judge};
use crate::engine_files::TlsFiles;
use crate::fault::Fault;
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
use crate::key::PrivateKey;
use crate::pem::{self, Located};
use crate::profile::EngineProfile;
use crate::x509::Certificate;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// The directory as it is read, and what came of it so far.
struct Reader<'a> {
    profile: &'a EngineProfile,
    directory: &'a Path,
    /// All names, as octets: whether a pair is complete is decided on them.
    names: BTreeSet<&'a [u8]>,
    now: OffsetDateTime,
    findings: Vec<Finding>,
    /// Every certificate that was read, with its file's name: a key of another file's is told whose it is.
    known: Vec<(String, Certificate)>,
    /// Certificate's file name, key file, key: reported when all certificates are known.
    mismatched: Vec<(String, Named, PrivateKey)>,
    roots: Vec<(PathBuf, Certificate)>,
    pairs: Vec<ClientPair>,
}

/// One file: its name in octets without the suffix, its name for people, its path.
struct Named {
    stem: Vec<u8>,
    name: String,
    path: PathBuf,
}

/// Reads the files of these names. `names` must be in byte order; so are the results.
pub(super) fn read(
    profile: &EngineProfile,
    directory: &Path,
    names: &[OsString],
    now: OffsetDateTime,
) -> DirectoryContents {
    let mut reader = Reader {
        profile,
        directory,
        names: names.iter().map(|name| name.as_bytes()).collect(),
        now,
        findings: Vec::new(),
        known: Vec::new(),
        mismatched: Vec::new(),
        roots: Vec::new(),
        pairs: Vec::new(),
    };
    for file in reader.with_suffix(".crt") {
        reader.read_root(&file);
    }
    for file in reader.with_suffix(".cert") {
        reader.read_pair(&file);
    }
    for file in reader.with_suffix(".key") {
        reader.check_orphan(&file);
    }
    for name in names {
        reader.check_name(name);
    }
    reader.report_mismatches();
    let Reader { roots, pairs, mut findings, .. } = reader;
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    DirectoryContents { roots, pairs, findings }
}

/// Reads files that a configuration names, wherever they are: in its order, and the findings too.
pub(super) fn read_named(profile: &EngineProfile, files: &TlsFiles, now: OffsetDateTime) -> DirectoryContents {
    let mut reader = Reader {
        profile,
        directory: Path::new(""),
        names: BTreeSet::new(),
        now,
        findings: Vec::new(),
        known: Vec::new(),
        mismatched: Vec::new(),
        roots: Vec::new(),
        pairs: Vec::new(),
    };
    for path in &files.roots {
        reader.read_root(&Named::of(path));
    }
    for (cert, key) in &files.pairs {
        reader.read_files(&Named::of(cert), Named::of(key));
        reader.report_mismatches();
    }
    let Reader { roots, pairs, findings, .. } = reader;
    DirectoryContents { roots, pairs, findings }
}

impl Named {
    /// A file with any name.
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        let stem = path.file_stem().unwrap_or_default().as_bytes().to_vec();
        Self { stem, name: name.to_string_lossy().into_owned(), path: path.to_owned() }
    }
}

impl Reader<'_> {
    /// Go's `filepath.Ext`: byte for byte, so that `.CRT` is none and `.crt` alone is a file with an empty stem.
    fn with_suffix(&self, suffix: &str) -> Vec<Named> {
        let named = |octets: &&[u8]| {
            let stem = octets.strip_suffix(suffix.as_bytes())?.to_vec();
            let name = OsStr::from_bytes(octets);
            Some(Named { stem, name: name.to_string_lossy().into_owned(), path: self.directory.join(name) })
        };
        self.names.iter().filter_map(named).filter(|file| !self.profile.passes_over(&file.path)).collect()
    }

    /// The file of the same stem with another suffix, if there is one.
    fn sibling(&self, file: &Named, suffix: &str) -> Option<Named> {
        let octets = [&file.stem, suffix.as_bytes()].concat();
        let exists = self.names.contains(octets.as_slice());
        exists.then(|| sibling_name(file, suffix, self.directory))
    }

    fn add(&mut self, path: &Path, line: Option<u32>, severity: Severity, fault: Fault) {
        self.findings.push(Finding { path: path.to_owned(), line, severity, fault });
    }

    fn read_root(&mut self, file: &Named) {
        let bytes = match file::read(&file.path, FILE_LIMIT) {
            Ok((bytes, _)) => bytes,
            Err(fault) => return self.add(&file.path, None, self.profile.for_root(&fault, true), fault),
        };
        let (located, found) = pem::locate_certificates(&bytes, &file.path);
        let useless = located.is_empty();
        self.findings.extend(found.into_iter().map(|finding| match finding.severity {
            Severity::Note => finding,
            _ => Finding { severity: self.profile.for_root(&finding.fault, useless), ..finding },
        }));
        for located in located {
            for (line, severity, fault) in judge::root(&located, self.now) {
                self.add(&file.path, Some(line), severity, fault);
            }
            self.known.push((file.name.clone(), located.certificate.clone()));
            self.roots.push((file.path.clone(), located.certificate));
        }
    }

    fn read_pair(&mut self, file: &Named) {
        let inside = self.profile.severity(self.profile.rules.missing_key) == Severity::Note;
        let key_file = match self.sibling(file, ".key") {
            Some(key_file) if !inside || key_file.path.exists() => key_file,
            // containerd's `loadCertFiles`: the file may hold both, and is read twice.
            _ if inside => sibling_name(file, ".cert", self.directory),
            _ => return self.report_missing_key(file),
        };
        self.read_files(file, key_file);
    }

    fn read_files(&mut self, file: &Named, key_file: Named) {
        let cert = file::read(&file.path, FILE_LIMIT);
        let key = file::read(&key_file.path, FILE_LIMIT);
        if let (Ok((cert, _)), Ok((key, _))) = (&cert, &key)
            && is_swapped(cert, key)
            && key_file.path != file.path
        {
            let fault = Fault::Swapped { cert_name: file.name.clone(), key_name: key_file.name };
            return self.add(&file.path, None, Severity::Fatal, fault);
        }
        let chain = match cert {
            Ok((bytes, _)) => self.read_chain(file, &bytes, key_file.path == file.path),
            Err(fault) => {
                self.add(&file.path, None, Severity::Fatal, fault);
                Vec::new()
            }
        };
        let key = match key {
            Ok((bytes, metadata)) => self.read_key(&key_file, &bytes, &metadata),
            Err(fault) => {
                self.add(&key_file.path, None, Severity::Fatal, fault);
                None
            }
        };
        if let (Some(key), false) = (key, chain.is_empty()) {
            self.join(file, key_file, chain, key);
        }
    }

    /// `with_key`: the file is meant to hold the key too.
    fn read_chain(&mut self, file: &Named, bytes: &[u8], with_key: bool) -> Vec<Located> {
        let (chain, found) = pem::locate_certificates(bytes, &file.path);
        let expected = |finding: &Finding| with_key && finding.fault == Fault::KeyAmongCertificates;
        self.findings.extend(found.into_iter().filter(|finding| !expected(finding)));
        for (line, severity, fault) in judge::dates(&chain, self.now) {
            self.add(&file.path, Some(line), severity, fault);
        }
        self.known.extend(chain.first().map(|leaf| (file.name.clone(), leaf.certificate.clone())));
        chain
    }

    /// Engines accept any mode. Root's key with mode 0640 is how one is shared with a group; everything wider is worth a warning.
    fn read_key(&mut self, file: &Named, bytes: &[u8], metadata: &Metadata) -> Option<PrivateKey> {
        let mode = metadata.mode() & 0o7777;
        let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
        if mode & 0o777 & !allowed != 0 {
            self.add(&file.path, None, Severity::Warning, Fault::KeyReadable { mode });
        }
        match pem::private_key(bytes, &file.path) {
            Ok(key) => Some(key),
            Err(found) => {
                self.findings.extend(found);
                None
            }
        }
    }

    fn join(&mut self, file: &Named, key_file: Named, chain: Vec<Located>, key: PrivateKey) {
        match judge::position(&chain, &key) {
            Some(0) => {
                for (line, severity, fault) in judge::chain(&chain) {
                    self.add(&file.path, Some(line), severity, fault);
                }
                self.pairs.push(ClientPair {
                    name: String::from_utf8_lossy(&file.stem).into_owned(),
                    cert_path: file.path.clone(),
                    key_path: key_file.path,
                    chain: chain.into_iter().map(|located| located.certificate).collect(),
                    key,
                });
            }
            Some(later) => {
                let line = chain.get(later).map(|located| located.line);
                self.add(&file.path, line, Severity::Fatal, Fault::LeafNotFirst { position: later + 1 });
            }
            None => self.mismatched.push((file.name.clone(), key_file, key)),
        }
    }

    /// Last, because a key may belong to a certificate that was read after it.
    fn report_mismatches(&mut self) {
        for (cert_name, key_file, key) in std::mem::take(&mut self.mismatched) {
            let owner = self.known.iter().find(|(_, certificate)| key.matches(certificate));
            let matches = owner.map(|(name, _)| name.clone());
            let fault = Fault::KeyMismatch { cert_name, key_name: key_file.name, matches };
            self.add(&key_file.path, None, Severity::Fatal, fault);
        }
    }

    fn report_missing_key(&mut self, file: &Named) {
        let (certificates, _) = pem::read_certificates(&file.path);
        // Docker's own recipe makes client certificates that say CA:TRUE: only a right to sign makes it plain.
        let signs = |leaf: &Certificate| leaf.facts().key_usage.is_some_and(|usage| usage.key_cert_sign);
        let is_ca = certificates.first().is_some_and(|leaf| judge::looks_like_ca(leaf.facts()) && signs(leaf));
        let key_name = sibling_name(file, ".key", self.directory).name;
        let fault = Fault::MissingKey { cert_name: file.name.clone(), key_name, is_ca };
        self.add(&file.path, None, self.profile.severity(self.profile.rules.missing_key), fault);
    }

    fn check_orphan(&mut self, file: &Named) {
        if self.sibling(file, ".cert").is_some() {
            return;
        }
        let crt = self.sibling(file, ".crt");
        let fault = match self.ca_of(file, crt.as_ref()) {
            Some(ca_name) => Fault::CaKey { ca_name },
            None => Fault::MissingCertificate {
                cert_name: sibling_name(file, ".cert", self.directory).name,
                key_name: file.name.clone(),
                crt_name: crt.map(|crt| crt.name),
            },
        };
        self.add(&file.path, None, self.profile.severity(self.profile.rules.orphan_key), fault);
    }

    /// The root whose key this is, if it is a CA's. `openssl req -x509` calls everything a CA, so that flag alone
    /// does not tell a CA's key from that of a client's certificate under a wrong name: its usage or its name must say it.
    fn ca_of(&self, file: &Named, crt: Option<&Named>) -> Option<String> {
        let key = pem::read_private_key(&file.path).ok()?;
        let named_ca = crt.is_some_and(|_| file.stem == b"ca");
        let is_ca = |certificate: &Certificate| {
            let facts = certificate.facts();
            facts.is_ca == Some(true) && (named_ca || facts.key_usage.is_some_and(|usage| usage.key_cert_sign))
        };
        let owner = self.known.iter().find(|(_, certificate)| is_ca(certificate) && key.matches(certificate));
        owner.map(|(name, _)| name.clone())
    }

    /// Names that engines pass over although a person would think them read, and the reverse.
    fn check_name(&mut self, name: &OsStr) {
        let octets = name.as_bytes();
        let path = self.directory.join(name);
        let read = [".crt", ".cert", ".key"].iter().any(|suffix| octets.ends_with(suffix.as_bytes()));
        if read {
            if octets.starts_with(b".") {
                self.add(&path, None, Severity::Note, Fault::Hidden);
            }
            return;
        }
        let Some(extension) = Path::new(name).extension().map(OsStr::to_ascii_lowercase) else { return };
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return;
        }
        let suffix = match extension.to_str() {
            Some(suffix @ ("crt" | "cert" | "key")) => suffix,
            Some("pem" | "cer" | "der") => suffix_by_content(&path),
            Some("p12" | "pfx") => return self.add(&path, None, Severity::Warning, Fault::Pkcs12),
            Some("p7b" | "p7c") => return self.add(&path, None, Severity::Warning, Fault::Pkcs7),
            _ => return,
        };
        let wanted = Path::new(name).with_extension(suffix);
        let there = self.names.contains(wanted.as_os_str().as_bytes());
        let severity = if there { Severity::Note } else { Severity::Warning };
        self.add(&path, None, severity, Fault::IgnoredName { wanted: wanted.to_string_lossy().into_owned() });
    }
}

fn sibling_name(file: &Named, suffix: &str, directory: &Path) -> Named {
    let octets = [&file.stem, suffix.as_bytes()].concat();
    let name = OsStr::from_bytes(&octets);
    Named { stem: file.stem.clone(), name: name.to_string_lossy().into_owned(), path: directory.join(name) }
}

fn is_swapped(cert: &[u8], key: &[u8]) -> bool {
    let only_key = |bytes: &[u8]| pem::holds_key(bytes) && pem::locate_certificates(bytes, Path::new("")).0.is_empty();
    let only_certificate =
        |bytes: &[u8]| !pem::holds_key(bytes) && !pem::locate_certificates(bytes, Path::new("")).0.is_empty();
    only_key(cert) && only_certificate(key)
}

/// A `.pem` can be anything: what is in it decides what it should be called.
fn suffix_by_content(path: &Path) -> &'static str {
    let Ok((bytes, _)) = file::read(path, FILE_LIMIT) else { return "crt" };
    match pem::locate_certificates(&bytes, path).0.first() {
        Some(leaf) if !judge::looks_like_ca(leaf.certificate.facts()) => "cert",
        None if pem::holds_key(&bytes) => "key",
        _ => "crt",
    }
}
