//! Files that get their name only when they are whole: synced, then renamed. One that does not get there is removed, or,
//! where it is the part of a blob, kept for the next attempt, whichever process makes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_oci::Digest;
use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::early_sync::EarlySync;
use crate::error::ClientError;

/// A part of a blob with fewer bytes is not kept: they are fetched again sooner than somebody asks what the file is.
pub(crate) const WORTH_KEEPING: u64 = 1024 * 1024;

/// A file under a name that nobody looks for.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    file: File,
    early: Mutex<EarlySync>,
    kept: AtomicBool,
    /// How many bytes make it worth keeping where it does not become whole; `None`: it never is.
    worth: Option<u64>,
}

impl Temporary {
    /// On the same filesystem as its target: `root` is the layout's directory, or the archive's.
    pub(crate) fn create(root: &Path) -> Result<Self, ClientError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let path = root.join(format!(".portcullis-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self::of(path, file, None)),
                // Left by an earlier process with our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClientError::io("create", &path)(error)),
            }
        }
    }

    /// What an earlier attempt has left of a blob, or a new file that may be left so. Nobody else writes to it meanwhile:
    /// it is locked.
    ///
    /// `None` when another process has it, or it is not a file of ours that has this name only: `root` may be a directory
    /// that others write to, and what they put there is neither read nor written.
    pub(crate) fn part(root: &Path, digest: &Digest) -> Option<Self> {
        let path = part_path(root, digest);
        // Not through a link, and without waiting for who writes to a pipe.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).ok()?;
        let open =
            |create| OpenOptions::new().read(true).write(true).create_new(create).custom_flags(flags).open(&path);
        let (file, is_new) = match open(false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (open(true).ok()?, true),
            opened => (opened.ok()?, false),
        };
        let opened = file.metadata().ok()?;
        let is_ours = opened.is_file() && opened.uid() == geteuid().as_raw() && opened.nlink() == 1;
        if !is_ours || file.try_lock().is_err() {
            return None;
        }
        // Whoever had it locked before may have given it the blob's name, or removed it.
        let named = fs::symlink_metadata(&path).ok()?;
        if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
            return None;
        }
        let part = Self::of(path, file, Some(WORTH_KEEPING));
        (is_new || part.has_mode_of_today(root, &opened).is_ok()).then_some(part)
    }

    /// Removes what an earlier attempt has left of a blob that is there, unless somebody has it.
    pub(crate) fn remove_part(root: &Path, digest: &Digest) {
        if fs::symlink_metadata(part_path(root, digest)).is_ok()
            && let Some(mut part) = Self::part(root, digest)
        {
            part.discard();
        }
    }

    /// Gives a part from before the mode that a new file gets now: a blob's does not depend on how often it was begun.
    fn has_mode_of_today(&self, root: &Path, opened: &fs::Metadata) -> Result<(), ClientError> {
        let new = Self::create(root)?;
        let todays = new.file.metadata().map_err(ClientError::io("read", &new.path))?.permissions();
        if todays == opened.permissions() {
            return Ok(());
        }
        self.file.set_permissions(todays).map_err(ClientError::io("write", &self.path))
    }

    /// What is in it, from its start where nothing was written yet.
    pub(crate) fn content(&self) -> &File {
        &self.file
    }

    /// It is not to be kept, however much of it there is.
    pub(crate) fn discard(&mut self) {
        self.worth = None;
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.file.write_all(bytes).map_err(ClientError::io("write", &self.path))?;
        self.wrote(bytes)
    }

    /// Writes at a place of its own; several may at once.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ClientError> {
        self.file.write_all_at(bytes, offset).map_err(ClientError::io("write", &self.path))?;
        self.wrote(bytes)
    }

    /// Makes it so long; what was not written reads as zeros.
    pub(crate) fn set_length(&self, length: u64) -> Result<(), ClientError> {
        self.file.set_len(length).map_err(ClientError::io("write", &self.path))
    }

    /// Gives it its name.
    pub(crate) fn persist(&self, target: &Path) -> Result<(), ClientError> {
        let early = self.early().settle();
        early.and_then(|()| self.file.sync_all()).map_err(ClientError::io("sync", &self.path))?;
        fs::rename(&self.path, target).map_err(ClientError::io("write", target))?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn of(path: PathBuf, file: File, worth: Option<u64>) -> Self {
        Self { path, file, early: Mutex::default(), kept: AtomicBool::new(false), worth }
    }

    fn wrote(&self, bytes: &[u8]) -> Result<(), ClientError> {
        self.early().wrote(&self.file, bytes.len() as u64).map_err(ClientError::io("sync", &self.path))
    }

    fn early(&self) -> MutexGuard<'_, EarlySync> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        // Waited for: until then its descriptor keeps the lock, and of bytes that it has lost nobody may make a blob.
        let is_sound = self.early().settle().is_ok();
        let is_worth = |worth| is_sound && self.file.metadata().is_ok_and(|file| file.len() >= worth);
        if !self.worth.is_some_and(is_worth) {
            // Nothing can be done about a failure, and nobody takes a temporary for a blob.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn part_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join(format!(".portcullis-partial-{}-{}", digest.algorithm(), digest.hex()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), ClientError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(ClientError::io("sync", directory))
}
