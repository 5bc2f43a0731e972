//! Files that get their name only when they are whole: synced, then renamed. One that does not get there is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::ClientError;

/// A file under a name that nobody looks for.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    file: File,
    kept: AtomicBool,
}

impl Temporary {
    /// On the same filesystem as its target: `root` is the layout's directory, or the archive's.
    pub(crate) fn create(root: &Path) -> Result<Self, ClientError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let path = root.join(format!(".portcullis-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file, kept: AtomicBool::new(false) }),
                // Left by an earlier process with our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClientError::io("create", &path)(error)),
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.file.write_all(bytes).map_err(ClientError::io("write", &self.path))
    }

    /// Writes at a place of its own; several may at once.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ClientError> {
        self.file.write_all_at(bytes, offset).map_err(ClientError::io("write", &self.path))
    }

    /// Makes it so long; what was not written reads as zeros.
    pub(crate) fn set_length(&self, length: u64) -> Result<(), ClientError> {
        self.file.set_len(length).map_err(ClientError::io("write", &self.path))
    }

    /// Gives it its name.
    pub(crate) fn persist(&self, target: &Path) -> Result<(), ClientError> {
        self.file.sync_all().map_err(ClientError::io("sync", &self.path))?;
        fs::rename(&self.path, target).map_err(ClientError::io("write", target))?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            // Nothing can be done about a failure, and nobody takes a temporary for a blob.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), ClientError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(ClientError::io("sync", directory))
}
