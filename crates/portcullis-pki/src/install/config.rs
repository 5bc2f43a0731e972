//! The engine's own configuration file, where it must name the files: what is added to it. The text is edited by
//! `portcullis-certs`, which reads such files too.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_certs::Fingerprint;
use portcullis_certs::engine_files::{TlsFiles, edit};

use super::{Conflict, Engine, InstallRequest, Step, record};
use crate::PkiError;
use crate::files::{self, PUBLIC};

/// What is added to an engine's configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The file.
    pub path: PathBuf,
    /// The lines that are added.
    pub added: String,
    contents: String,
    /// Its present content; `None` where there is no such file.
    old: Option<Fingerprint>,
    mode: u32,
}

/// `None`: there is nothing to add.
pub(super) fn plan(
    request: &InstallRequest<'_>,
    directory: &Path,
    steps: &[Step],
) -> Result<Result<Option<ConfigChange>, Conflict>, PkiError> {
    let Some(path) = request.config_file(directory) else { return Ok(Ok(None)) };
    let (text, old, mode) = match fs::read_to_string(&path) {
        Ok(text) => {
            let mode = fs::metadata(&path).map_err(PkiError::io("look at", &path))?.mode() & 0o7777;
            let old = Fingerprint::of(text.as_bytes());
            (text, Some(old), mode)
        }
        // Without hosts.toml containerd reads the certificate files themselves.
        Err(error) if error.kind() == io::ErrorKind::NotFound && request.engine == Engine::Containerd => {
            return Ok(Ok(None));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None, PUBLIC),
        Err(error) => return Err(PkiError::io("read", &path)(error)),
    };
    if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
        return Ok(Err(Conflict::NotAFile { path }));
    }
    let edited = match request.engine {
        Engine::Buildkit => edit::buildkitd_toml(&text, request.host.as_str(), &named(request, steps)),
        Engine::K3s => edit::registries_yaml(&text, request.host.as_str(), &named(request, steps)),
        _ => edit::hosts_toml(&text, &beside(steps)),
    };
    Ok(match edited {
        Ok(None) => Ok(None),
        Ok(Some(edited)) => Ok(Some(ConfigChange { path, added: edited.block, contents: edited.text, old, mode })),
        Err(refused) => Err(Conflict::Config { path, why: refused.to_string() }),
    })
}

/// Writes it, and records the lines before that.
pub(super) fn apply(change: &ConfigChange, record: &Path, host: &str, engine: Engine) -> Result<(), PkiError> {
    let present = fs::read(&change.path).ok().map(|bytes| Fingerprint::of(&bytes));
    if present != change.old {
        return Err(PkiError::ChangedMeanwhile { path: change.path.clone() });
    }
    let parent = change.path.parent().unwrap_or(&change.path);
    files::create_dir(parent, files::PUBLIC_DIR)?;
    record::append_block(record, host, engine, &change.path, &change.added)?;
    files::replace(&change.path, change.contents.as_bytes(), change.mode)
}

/// The files as the engine names them, whose root is its own.
fn named(request: &InstallRequest<'_>, steps: &[Step]) -> TlsFiles {
    let root = request.root.unwrap_or(Path::new("/"));
    of(steps, |path| Path::new("/").join(path.strip_prefix(root).unwrap_or(path)))
}

/// The files by their names, as they stand beside `hosts.toml`.
fn beside(steps: &[Step]) -> TlsFiles {
    of(steps, |path| path.file_name().map(PathBuf::from).unwrap_or_default())
}

/// In the order of the steps: root, key, certificate.
fn of(steps: &[Step], name: impl Fn(&Path) -> PathBuf) -> TlsFiles {
    match steps {
        [ca, key, cert] => TlsFiles { roots: vec![name(&ca.path)], pairs: vec![(name(&cert.path), name(&key.path))] },
        // A step is missing when there is a conflict, which is reported instead.
        _ => TlsFiles::default(),
    }
}
