//! Takes away what `install` wrote for a host, and nothing else: files with exactly the recorded content, and recorded lines.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_certs::engine_files::edit;
use portcullis_certs::{Fingerprint, RegistryHost};

use super::record::{self, Entry, Owner};
use super::system_trust::SystemStore;
use super::{InstallRequest, OtherPairs, Scope, links_below_root};
use crate::{PkiError, files};

/// What to take away, and from where: the record is believed about no other place.
#[derive(Debug, Clone, Copy)]
pub struct UninstallRequest<'a> {
    /// The registry, as it was at [`install`](super::plan).
    pub host: &'a RegistryHost,
    /// Only what was written for this one.
    pub owner: Option<Owner>,
    /// Where engines of this machine or user look.
    pub scope: &'a Scope,
    /// Another file system's root; no symbolic link below it is followed.
    pub root: Option<&'a Path>,
    /// What was written.
    pub record: &'a Path,
}

/// One thing that was recorded, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The file.
    pub path: PathBuf,
    /// For whom it was written; `None` when the record has a word that is not known.
    pub owner: Option<Owner>,
    /// What happens to it.
    pub what: Undo,
}

/// What happens to something that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// The file is as it was written: it is removed.
    Remove,
    /// These lines are as they were written: they are taken out.
    TakeOut(String),
    /// It was changed since: it stays.
    Changed,
    /// It is gone already.
    Gone,
    /// It does not lie where `install` writes for this host, or a symbolic link leads there: it is not looked at, and stays.
    Elsewhere,
}

/// Looks at everything that was recorded for this host, or for one owner of it, and changes nothing.
///
/// # Errors
/// The record, or a recorded file, cannot be read; [`PkiError::Files`] when others can write the record.
pub fn plan(request: &UninstallRequest<'_>) -> Result<Vec<Removal>, PkiError> {
    let conflicts = links_below_root(request.root, request.record)?;
    if !conflicts.is_empty() {
        return Err(PkiError::InstallRefused { conflicts });
    }
    let entries = record::entries(request.record)?;
    let is_asked = |entry: &Entry| request.owner.is_none() || entry.owner == request.owner;
    let ours = |entry: &&Entry| entry.host == request.host.as_str() && is_asked(entry);
    let mut removals: Vec<Removal> = Vec::new();
    for entry in entries.iter().filter(ours) {
        let found = Removal { path: entry.path.clone(), owner: entry.owner, what: request.undo(entry)? };
        // The latest line about a file counts, unless an earlier one knows its content.
        match removals
            .iter_mut()
            .find(|other| other.path == found.path && is_block(&other.what) == is_block(&found.what))
        {
            Some(other) if stays(&other.what) => *other = found,
            Some(_) => {}
            None => removals.push(found),
        }
    }
    Ok(removals)
}

/// Does what the plan says, removes directories that are empty then, and forgets what is gone.
///
/// # Errors
/// Somebody changed a file since the plan was made, or it cannot be written; [`PkiError::Busy`].
pub fn apply(request: &UninstallRequest<'_>, removals: &[Removal]) -> Result<(), PkiError> {
    if removals.is_empty() {
        return Ok(());
    }
    let _lock = record::Lock::take(request.record)?;
    refuse_if_changed(request, removals)?;
    for removal in removals {
        match &removal.what {
            Undo::Remove => fs::remove_file(&removal.path).map_err(PkiError::io("remove", &removal.path))?,
            Undo::TakeOut(block) => take_out(&removal.path, block)?,
            Undo::Changed | Undo::Gone | Undo::Elsewhere => {}
        }
    }
    for removal in removals {
        // The system's directory of CAs is not ours, even when it is empty.
        let is_ours = removal.owner != Some(Owner::SystemStore);
        if let (Undo::Remove, true, Some(parent)) = (&removal.what, is_ours, removal.path.parent()) {
            // Not empty is the usual reason, and right.
            let _ = fs::remove_dir(parent);
        }
    }
    let kept = |path: &Path| removals.iter().any(|removal| removal.path == path && stays(&removal.what));
    let touched = |path: &Path| removals.iter().any(|removal| removal.path == path);
    let is_others = |entry: &Entry| entry.host != request.host.as_str();
    record::retain(request.record, |entry| is_others(entry) || !touched(&entry.path) || kept(&entry.path))
}

/// What would be done now is what was planned.
fn refuse_if_changed(request: &UninstallRequest<'_>, removals: &[Removal]) -> Result<(), PkiError> {
    let now = plan(&UninstallRequest { owner: None, ..*request })?;
    match removals.iter().find(|removal| !now.contains(removal)) {
        Some(removal) => Err(PkiError::ChangedMeanwhile { path: removal.path.clone() }),
        None => Ok(()),
    }
}

impl UninstallRequest<'_> {
    fn undo(&self, entry: &Entry) -> Result<Undo, PkiError> {
        if !self.is_a_place(entry) || !links_below_root(self.root, &entry.path)?.is_empty() {
            return Ok(Undo::Elsewhere);
        }
        undo(entry)
    }

    /// Whether `install` could have written it.
    fn is_a_place(&self, entry: &Entry) -> bool {
        let path = entry.path.as_path();
        match entry.owner {
            Some(Owner::Engine(engine)) => {
                let Self { host, scope, root, record, .. } = *self;
                let (from, pairs) = (Path::new(""), OtherPairs::Stop);
                let install = InstallRequest { host, from, engine, scope, root, record, pairs };
                let directory = install.directory();
                match entry.block {
                    Some(_) => install.config_file(&directory).as_deref() == Some(path),
                    None => path.parent() == Some(directory.as_path()) && is_named_as_certificate(path),
                }
            }
            Some(Owner::SystemStore) => {
                let root = self.root.unwrap_or(Path::new("/"));
                let is_place = |store: &SystemStore| store.is_place(root, self.host, path);
                *self.scope == Scope::System && entry.block.is_none() && SystemStore::ALL.iter().any(is_place)
            }
            None => false,
        }
    }
}

fn is_named_as_certificate(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| ["crt", "cert", "key"].iter().any(|known| suffix == *known))
}

fn undo(entry: &Entry) -> Result<Undo, PkiError> {
    match fs::symlink_metadata(&entry.path) {
        Ok(found) if !found.is_file() => return Ok(Undo::Changed),
        _ => {}
    }
    let bytes = match fs::read(&entry.path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undo::Gone),
        Err(error) => return Err(PkiError::io("read", &entry.path)(error)),
    };
    Ok(match &entry.block {
        Some(block) => match std::str::from_utf8(&bytes).ok().and_then(|text| edit::without(text, block)) {
            Some(_) => Undo::TakeOut(block.clone()),
            None => Undo::Changed,
        },
        None if Fingerprint::of(&bytes) == entry.sha256 => Undo::Remove,
        None => Undo::Changed,
    })
}

const fn stays(what: &Undo) -> bool {
    matches!(what, Undo::Changed | Undo::Elsewhere)
}

fn is_block(what: &Undo) -> bool {
    matches!(what, Undo::TakeOut(_))
}

fn take_out(path: &Path, block: &str) -> Result<(), PkiError> {
    let text = fs::read_to_string(path).map_err(PkiError::io("read", path))?;
    let rest = edit::without(&text, block).ok_or_else(|| PkiError::ChangedMeanwhile { path: path.to_owned() })?;
    let mode = fs::metadata(path).map_err(PkiError::io("look at", path))?.mode() & 0o7777;
    if rest.trim().is_empty() {
        return fs::remove_file(path).map_err(PkiError::io("remove", path));
    }
    files::replace(path, rest.as_bytes(), mode)
}
