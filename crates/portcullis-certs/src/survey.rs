//! What lies in certificate directories, without any engine's rules: the facts from which a doctor reasons.
//!
//! It reads more than engines do (modes, owners, links, files whose names no engine looks at) and judges nothing. A
//! private key is reduced to its kind and to the certificates it belongs to before it leaves this module.

use crate::fault::Fault;
use crate::file::{self, FILE_LIMIT};
use crate::key::PrivateKey;
use crate::pem;
use crate::x509::{Certificate, KeyType};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Who owns a file and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
}

/// A directory and what is in it, in byte order of name.
#[derive(Debug, Clone)]
pub struct DirectorySurvey {
    /// Its path, as it was asked for.
    pub path: PathBuf,
    /// Where it really is, all links followed; `None` when it leads nowhere.
    pub real_path: Option<PathBuf>,
    /// Whose it is; `None` when it cannot be looked at.
    pub ownership: Option<Ownership>,
    /// Why it could not be listed; a directory that does not exist is `Unreadable` with `NotFound`.
    pub fault: Option<Fault>,
    /// Its entries.
    pub files: Vec<FileSurvey>,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct FileSurvey {
    /// Its path.
    pub path: PathBuf,
    /// What it is, without following links.
    pub kind: EntryKind,
    /// Whose the file is, links followed.
    pub ownership: Option<Ownership>,
    /// The certificates in it, with the line each begins in. Only of regular files of at most 1 MiB.
    pub certificates: Vec<LocatedCertificate>,
    /// The first private key in it.
    pub key: Option<KeySurvey>,
}

/// A certificate and where its PEM block begins.
#[derive(Debug, Clone)]
pub struct LocatedCertificate {
    /// Counted from 1.
    pub line: u32,
    /// The certificate.
    pub certificate: Certificate,
}

/// What may be known of a private key: everything but the key.
#[derive(Debug, Clone)]
pub struct KeySurvey {
    /// Kind and size.
    pub kind: KeyType,
    /// The certificates of the same directory that it belongs to, by file.
    pub belongs_to: Vec<PathBuf>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// Where it leads in the end; `None` when it leads nowhere or in a circle.
        target: Option<PathBuf>,
    },
    /// A FIFO, socket or device.
    Other,
}

/// Looks at a directory and reads the certificates in it, whatever they are called.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// std::fs::write(dir.path().join("ca.pem"), "no certificate")?;
/// let survey = portcullis_certs::survey_directory(dir.path());
/// assert_eq!(survey.files.len(), 1);
/// assert!(survey.files[0].certificates.is_empty() && survey.fault.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn survey_directory(path: &Path) -> DirectorySurvey {
    let (mut survey, names) = listed(path);
    let mut keys = Vec::new();
    for name in names {
        let (file, key) = survey_one(&path.join(name));
        keys.push(key);
        survey.files.push(file);
    }
    let owners: Vec<(PathBuf, Certificate)> = survey
        .files
        .iter()
        .flat_map(|file| file.certificates.iter().map(|located| (file.path.clone(), located.certificate.clone())))
        .collect();
    for (file, key) in survey.files.iter_mut().zip(keys) {
        file.key = key.map(|key| KeySurvey {
            kind: key.kind().clone(),
            belongs_to: owners.iter().filter(|(_, c)| key.matches(c)).map(|(path, _)| path.clone()).collect(),
        });
    }
    survey
}

/// Looks at a directory without reading any file in it: for the directories that hold host directories.
pub fn survey_root(path: &Path) -> DirectorySurvey {
    let (mut survey, names) = listed(path);
    survey.files = names.iter().map(|name| look(&path.join(name))).collect();
    survey
}

/// Looks at one file, whatever it is called.
pub fn survey_file(path: &Path) -> FileSurvey {
    let (mut file, key) = survey_one(path);
    file.key = key.map(|key| KeySurvey {
        kind: key.kind().clone(),
        belongs_to: file.certificates.iter().filter(|l| key.matches(&l.certificate)).map(|_| path.to_owned()).collect(),
    });
    file
}

fn listed(path: &Path) -> (DirectorySurvey, Vec<std::ffi::OsString>) {
    let metadata = fs::metadata(path);
    let ownership = metadata.as_ref().ok().map(Ownership::of);
    let (names, fault) = match metadata.map_err(|error| Fault::Unreadable { error: error.kind() }) {
        Ok(_) => match file::list(path) {
            Ok(names) => (names, None),
            Err(fault) => (Vec::new(), Some(fault)),
        },
        Err(_) if path.is_symlink() => (Vec::new(), Some(Fault::DanglingLink)),
        Err(fault) => (Vec::new(), Some(fault)),
    };
    let real_path = fs::canonicalize(path).ok();
    (DirectorySurvey { path: path.to_owned(), real_path, ownership, fault, files: Vec::new() }, names)
}

fn look(path: &Path) -> FileSurvey {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => EntryKind::File,
        Ok(metadata) if metadata.is_dir() => EntryKind::Directory,
        Ok(metadata) if metadata.is_symlink() => EntryKind::Link { target: fs::canonicalize(path).ok() },
        _ => EntryKind::Other,
    };
    let ownership = fs::metadata(path).ok().as_ref().map(Ownership::of);
    FileSurvey { path: path.to_owned(), kind, ownership, certificates: Vec::new(), key: None }
}

fn survey_one(path: &Path) -> (FileSurvey, Option<PrivateKey>) {
    let mut survey = look(path);
    let Ok((bytes, metadata)) = file::read(path, FILE_LIMIT) else { return (survey, None) };
    survey.ownership = Some(Ownership::of(&metadata));
    let (located, _) = pem::locate_certificates(&bytes, path);
    survey.certificates = located
        .into_iter()
        .map(|located| LocatedCertificate { line: located.line, certificate: located.certificate })
        .collect();
    let key = if pem::holds_key(&bytes) { pem::private_key(&bytes, path).ok() } else { None };
    (survey, key)
}

impl Ownership {
    fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_circles_and_fifos_are_told_apart_without_opening_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "x").unwrap();
        symlink(at("a"), at("b")).unwrap();
        symlink("d", at("c")).unwrap();
        symlink("c", at("d")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("e"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let survey = survey_directory(dir.path());
        let kinds: Vec<EntryKind> = survey.files.into_iter().map(|file| file.kind).collect();
        let target = Some(fs::canonicalize(at("a")).unwrap());
        let link = |target| EntryKind::Link { target };
        assert_eq!(kinds, [EntryKind::File, link(target), link(None), link(None), EntryKind::Other]);
    }

    #[test]
    fn what_is_not_there_is_a_fault_and_not_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        let gone = survey_root(&dir.path().join("gone"));
        assert_eq!(gone.fault, Some(Fault::Unreadable { error: std::io::ErrorKind::NotFound }));
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(survey_root(&dir.path().join("file")).fault, Some(Fault::NotADirectory));
        symlink("gone", dir.path().join("link")).unwrap();
        assert_eq!(survey_root(&dir.path().join("link")).fault, Some(Fault::DanglingLink));
    }
}
