//! The only reader of `certs.d`.
//!
//! One piece of code for all engines: where to look and how bad each fault is comes from the [`EngineProfile`]. It reads
//! everything before it judges, and reports everything: the caller decides at which severity it stops.

mod contents;
pub(crate) mod directory;
mod judge;

use crate::engine_files::TlsFiles;
use crate::fault::Fault;
use crate::file;
use crate::finding::Finding;
use crate::key::PrivateKey;
use crate::profile::EngineProfile;
use crate::x509::Certificate;
use portcullis_oci::RegistryHost;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// What a registry's certificate directory gives.
#[derive(Debug, Clone, Default)]
pub struct HostCerts {
    /// The directory that was read; `None` when there is none, which is fine: the system's roots and no client certificate.
    pub directory: Option<PathBuf>,
    /// The certificates of all `*.crt`, in byte order of file name.
    pub roots: Vec<Certificate>,
    /// The usable pairs, in byte order of file name: the order in which they are tried.
    pub pairs: Vec<ClientPair>,
}

/// A `<name>.cert` with its `<name>.key`.
#[derive(Debug, Clone)]
pub struct ClientPair {
    /// The stem that both file names share.
    pub name: String,
    /// The certificate's file.
    pub cert_path: PathBuf,
    /// The key's file.
    pub key_path: PathBuf,
    /// The client's certificate first, then its issuers.
    pub chain: Vec<Certificate>,
    /// The key of `chain[0]`.
    pub key: PrivateKey,
}

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub enum CertsLocation<'a> {
    /// A directory of host directories: `DIR/<host[:port]>/` (`--certs-dir`).
    Root(&'a Path),
    /// Several of them, in this order.
    Roots(&'a [PathBuf]),
    /// The host's directory itself (`--cert-dir`).
    HostDirectory(&'a Path),
    /// The profile's own list, with `$HOME` from the environment.
    Search,
    /// The profile's own list below another root directory, for the user with this home (`--root DIR`; tests).
    SearchBelow {
        /// What stands for `/`.
        root: &'a Path,
        /// An absolute path, taken below `root` too. `None`: no directories of a user.
        home: Option<&'a Path>,
    },
}

/// Reads the certificate directory of one registry.
///
/// `now` decides which certificates have expired; an expired pair is returned with a warning, since engines present it too.
pub fn read_host_certs(
    profile: &EngineProfile,
    location: CertsLocation<'_>,
    host: &RegistryHost,
    now: OffsetDateTime,
) -> (HostCerts, Vec<Finding>) {
    let mut findings = Vec::new();
    let Some(directory) = directory::choose(profile, location, host, &mut findings) else {
        return (HostCerts::default(), findings);
    };
    match read_directory(profile, &directory, now) {
        Ok(contents) => {
            findings.extend(contents.findings);
            let roots = contents.roots.into_iter().map(|(_, certificate)| certificate).collect();
            (HostCerts { directory: Some(directory), roots, pairs: contents.pairs }, findings)
        }
        Err(fault) => {
            findings.push(Finding::new(&directory, profile.for_directory(&fault), fault));
            (HostCerts { directory: Some(directory), ..HostCerts::default() }, findings)
        }
    }
}

/// The files of one directory, whichever host it is for.
pub(crate) struct DirectoryContents {
    /// The certificates of all `*.crt` with their files.
    pub(crate) roots: Vec<(PathBuf, Certificate)>,
    pub(crate) pairs: Vec<ClientPair>,
    pub(crate) findings: Vec<Finding>,
}

/// Reads the files that a configuration names for one endpoint.
pub(crate) fn read_named(profile: &EngineProfile, files: &TlsFiles, now: OffsetDateTime) -> DirectoryContents {
    contents::read_named(profile, files, now)
}

/// Reads a directory as the engine does once it has chosen it; the fault is that of listing it.
pub(crate) fn read_directory(
    profile: &EngineProfile,
    directory: &Path,
    now: OffsetDateTime,
) -> Result<DirectoryContents, Fault> {
    Ok(contents::read(profile, directory, &file::list(directory)?, now))
}
