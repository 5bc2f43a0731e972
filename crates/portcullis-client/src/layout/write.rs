//! Writing into a layout: a temporary file in the layout's directory, synced, then renamed to its place.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use portcullis_oci::Descriptor;

use crate::error::ClientError;
use crate::expected::Expected;
use crate::temporary::{Temporary, sync_directory};

/// What is read at once of the part that an earlier attempt has left.
const PIECE: usize = 256 * 1024;

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

    /// Goes on with what an earlier attempt has left, which is hashed first, for as long as `wanted`. Dropped before it is
    /// committed, what is worth it is left for the next one.
    pub(super) fn resume(
        root: &Path,
        target: &Path,
        descriptor: &Descriptor,
        wanted: impl Fn() -> bool,
    ) -> Result<Self, ClientError> {
        let Some(temporary) = Temporary::part(root, &descriptor.digest) else {
            return Self::create(root, target, descriptor);
        };
        let mut part = Self { temporary, target: target.to_owned(), expected: Expected::of(descriptor) };
        match part.hash_content(descriptor.size, wanted) {
            Ok(()) => Ok(part),
            Err(_) => {
                // The disk does not give it back.
                part.discard();
                drop(part);
                Self::create(root, target, descriptor)
            }
        }
    }

    fn hash_content(&mut self, size: u64, wanted: impl Fn() -> bool) -> io::Result<()> {
        let mut file = self.temporary.content();
        if file.metadata()?.len() > size {
            return file.set_len(0);
        }
        let mut piece = vec![0; PIECE];
        // Whoever does not want it any more drops it as it is.
        while wanted() {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    self.expected.take(&piece[..count], &self.target).map_err(io::Error::other)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How many of its bytes are there.
    pub(crate) fn offset(&self) -> u64 {
        self.expected.taken()
    }

    /// Nothing of it is to be left.
    pub(crate) fn discard(&mut self) {
        self.temporary.discard();
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] as soon as there are more than the descriptor says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let written = self.expected.take(bytes, &self.target).and_then(|_| self.temporary.write(bytes));
        if written.is_err() {
            self.discard();
        }
        written
    }

    /// Verifies the blob, makes its bytes durable and gives it its name. Its name is durable once an image is listed.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] when the size, [`ClientError::Digest`] when the digest is not the descriptor's; nothing
    /// is left then.
    pub fn commit(mut self) -> Result<(), ClientError> {
        self.discard();
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
