//! What `--fix` may do by itself: small changes of one file or name that lose nothing and can be undone. Values only; who
//! applies them checks again, on what it opened, that it is what was meant.

use portcullis_certs::{Fault, Finding, LookAlike};
use std::path::{Path, PathBuf};

/// A change that is safe and reversible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// A file or directory gets another name or place, which must be free; the directory above it is made where it is missing.
    Rename {
        /// As it is.
        from: PathBuf,
        /// As it should be.
        to: PathBuf,
    },
    /// Files get into a directory one level down that does not exist yet.
    MoveInto {
        /// The directory to make.
        directory: PathBuf,
        /// The files, all of one directory; never empty.
        files: Vec<PathBuf>,
    },
    /// A file gets other permission bits.
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A certificate in DER is written as PEM.
    ToPem {
        /// The file.
        path: PathBuf,
    },
    /// The certificates of a `.cert` are put in order: the key's first, then its issuers.
    Reorder {
        /// The certificates' file.
        path: PathBuf,
        /// The key that belongs to one of them.
        key: PathBuf,
    },
}

impl Mend {
    /// What can be done about a finding without asking.
    pub(crate) fn of(finding: &Finding) -> Option<Self> {
        let path = finding.path.as_path();
        let rename = |to: PathBuf| Some(Self::Rename { from: path.to_owned(), to });
        match &finding.fault {
            Fault::MissingKey { is_ca: true, .. } => rename(path.with_extension("crt")),
            Fault::MissingCertificate { crt_name: Some(crt), cert_name, .. } => {
                Some(Self::Rename { from: path.with_file_name(crt), to: path.with_file_name(cert_name) })
            }
            Fault::MisnamedConfig { wanted } => rename(path.with_file_name(wanted)),
            Fault::IgnoredName { wanted } => rename(path.with_file_name(wanted)),
            // The directory of another port or in containerd's spelling may be meant as it is.
            Fault::LookAlike { wanted, how: LookAlike::Root | LookAlike::Spelling | LookAlike::Brackets } => {
                rename(wanted.clone())
            }
            // The other way round, whoever asks without port, as most do, would lose theirs.
            Fault::LookAlike { wanted, how: LookAlike::DefaultPort } if names_port_443(path) => rename(wanted.clone()),
            Fault::KeyReadable { .. } => Some(Self::Mode { path: path.to_owned(), mode: 0o600 }),
            Fault::DerCertificate => Some(Self::ToPem { path: path.to_owned() }),
            Fault::LeafNotFirst { .. } => {
                Some(Self::Reorder { path: path.to_owned(), key: path.with_extension("key") })
            }
            _ => None,
        }
    }

    /// The file or directory that is changed; of several, the first.
    pub fn path(&self) -> &Path {
        match self {
            Self::Rename { from, .. } => from,
            Self::MoveInto { directory, files } => files.first().unwrap_or(directory),
            Self::Mode { path, .. } | Self::ToPem { path } | Self::Reorder { path, .. } => path,
        }
    }
}

fn names_port_443(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b":443")
}
