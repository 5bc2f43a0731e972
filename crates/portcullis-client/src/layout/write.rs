//! Writing into a layout: a temporary file in the layout's directory, synced, then renamed to its place.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_oci::Descriptor;

use crate::error::ClientError;
use crate::expected::Expected;
use crate::temporary::{Temporary, sync_directory};

/// A blob being written. It gets its name only through [`BlobWriter::commit`], which verifies it; dropped before that,
/// nothing is left.
#[derive(Debug)]
pub struct BlobWriter {
    temporary: Temporary,
    target: PathBuf,
    expected: Expected,
}

impl BlobWriter {
    pub(super) fn create(root: &Path, target: &Path, descriptor: &Descriptor) -> Result<Self, ClientError> {
        Ok(Self { temporary: Temporary::create(root)?, target: target.to_owned(), expected: Expected::of(descriptor) })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] as soon as there are more than the descriptor says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.expected.take(bytes, &self.target)?;
        self.temporary.write(bytes)
    }

    /// Verifies the blob, makes its bytes durable and gives it its name. Its name is durable once an image is listed.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] when the size, [`ClientError::Digest`] when the digest is not the descriptor's; nothing
    /// is left then.
    pub fn commit(self) -> Result<(), ClientError> {
        self.expected.check(&self.target)?;
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
