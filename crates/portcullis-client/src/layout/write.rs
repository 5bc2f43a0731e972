//! Writing into a layout: a temporary file in the layout's directory, synced, then renamed to its place. A temporary is
//! removed when it does not get there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_oci::{Descriptor, Digest, Hasher};

use crate::error::{BlobFault, ClientError, DigestMismatch};

/// A blob being written. It gets its name only through [`BlobWriter::commit`], which verifies it; dropped before that,
/// nothing is left.
#[derive(Debug)]
pub struct BlobWriter {
    temporary: Temporary,
    target: PathBuf,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    written: u64,
}

impl BlobWriter {
    pub(super) fn create(root: &Path, target: &Path, descriptor: &Descriptor) -> Result<Self, ClientError> {
        Ok(Self {
            temporary: Temporary::create(root)?,
            target: target.to_owned(),
            digest: descriptor.digest,
            size: descriptor.size,
            hasher: Hasher::new(descriptor.digest.algorithm()),
            written: 0,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] as soon as there are more than the descriptor says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.written += bytes.len() as u64;
        if self.written > self.size {
            let fault = BlobFault::Size { expected: self.size, actual: self.written };
            return Err(ClientError::blob(&self.target, &self.digest, fault));
        }
        self.hasher.update(bytes);
        self.temporary.write(bytes)
    }

    /// Verifies the blob, makes its bytes durable and gives it its name. Its name is durable once an image is listed.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] when the size, [`ClientError::Digest`] when the digest is not the descriptor's; nothing
    /// is left then.
    pub fn commit(self) -> Result<(), ClientError> {
        if self.written != self.size {
            let fault = BlobFault::Size { expected: self.size, actual: self.written };
            return Err(ClientError::blob(&self.target, &self.digest, fault));
        }
        let actual = self.hasher.finish();
        if actual != self.digest {
            let from = self.target.display().to_string();
            return Err(ClientError::Digest(Box::new(DigestMismatch { from, expected: self.digest, actual })));
        }
        if let Some(directory) = self.target.parent() {
            fs::create_dir_all(directory).map_err(ClientError::io("make", directory))?;
        }
        self.temporary.persist(&self.target)
    }
}

/// Writes a small file whole and makes it and its name durable.
pub(super) fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), ClientError> {
    let mut temporary = Temporary::create(directory)?;
    temporary.write(bytes)?;
    temporary.persist(&directory.join(name))?;
    sync_directory(directory)
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), ClientError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(ClientError::io("sync", directory))
}

#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Temporary {
    /// On the same filesystem as its target: in the layout's own directory.
    fn create(root: &Path) -> Result<Self, ClientError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let path = root.join(format!(".portcullis-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file, kept: false }),
                // Left by an earlier process with our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClientError::io("create", &path)(error)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.file.write_all(bytes).map_err(ClientError::io("write", &self.path))
    }

    fn persist(mut self, target: &Path) -> Result<(), ClientError> {
        self.file.sync_all().map_err(ClientError::io("sync", &self.path))?;
        fs::rename(&self.path, target).map_err(ClientError::io("write", target))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure, and nobody takes a temporary for a blob.
            drop(fs::remove_file(&self.path));
        }
    }
}
