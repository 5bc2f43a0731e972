//! Takes away what `install` wrote for a host, and nothing else: files with exactly the recorded content, and recorded lines.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_certs::Fingerprint;
use portcullis_certs::engine_files::edit;

use super::record::{self, Entry, Owner};
use crate::{PkiError, files};

/// One thing that was recorded, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The file.
    pub path: PathBuf,
    /// For whom it was written; unknown for what early versions recorded.
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
}

/// Looks at everything that was recorded for this host, or for one owner of it, and changes nothing.
///
/// # Errors
/// The record, or a recorded file, cannot be read.
pub fn plan(record: &Path, host: &str, owner: Option<Owner>) -> Result<Vec<Removal>, PkiError> {
    let entries = record::entries(record)?;
    let ours = |entry: &&Entry| entry.host == host && (owner.is_none() || entry.owner == owner);
    let mut removals: Vec<Removal> = Vec::new();
    for entry in entries.iter().filter(ours) {
        let found = Removal { path: entry.path.clone(), owner: entry.owner, what: undo(entry)? };
        // The latest line about a file counts, unless an earlier one knows its content.
        match removals
            .iter_mut()
            .find(|other| other.path == found.path && is_block(&other.what) == is_block(&found.what))
        {
            Some(other) if other.what == Undo::Changed => *other = found,
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
pub fn apply(record: &Path, host: &str, removals: &[Removal]) -> Result<(), PkiError> {
    if removals.is_empty() {
        return Ok(());
    }
    let _lock = record::Lock::take(record)?;
    refuse_if_changed(record, host, removals)?;
    for removal in removals {
        match &removal.what {
            Undo::Remove => fs::remove_file(&removal.path).map_err(PkiError::io("remove", &removal.path))?,
            Undo::TakeOut(block) => take_out(&removal.path, block)?,
            Undo::Changed | Undo::Gone => {}
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
    let kept = |path: &Path| removals.iter().any(|removal| removal.path == path && removal.what == Undo::Changed);
    let touched = |path: &Path| removals.iter().any(|removal| removal.path == path);
    record::retain(record, |entry| entry.host != host || !touched(&entry.path) || kept(&entry.path))
}

/// What would be done now is what was planned.
fn refuse_if_changed(record: &Path, host: &str, removals: &[Removal]) -> Result<(), PkiError> {
    let now = plan(record, host, None)?;
    match removals.iter().find(|removal| !now.contains(removal)) {
        Some(removal) => Err(PkiError::ChangedMeanwhile { path: removal.path.clone() }),
        None => Ok(()),
    }
}

fn undo(entry: &Entry) -> Result<Undo, PkiError> {
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
