//! Bytes held against the descriptor that they were announced with, as they come.

use std::path::Path;

use portcullis_oci::{Descriptor, Digest, Hasher};

use crate::error::{BlobFault, ClientError, DigestMismatch};

/// What a blob has to be, and how far it has come.
#[derive(Debug)]
pub(crate) struct Expected {
    digest: Digest,
    size: u64,
    hasher: Hasher,
    taken: u64,
}

impl Expected {
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        let Descriptor { digest, size, .. } = descriptor;
        Self { digest: *digest, size: *size, hasher: Hasher::new(digest.algorithm()), taken: 0 }
    }

    /// Takes the next bytes; `place` is where they are written to. Says at which offset they stand.
    pub(crate) fn take(&mut self, bytes: &[u8], place: &Path) -> Result<u64, ClientError> {
        let offset = self.taken;
        self.taken += bytes.len() as u64;
        if self.taken > self.size {
            return Err(self.wrong_size(place));
        }
        self.hasher.update(bytes);
        Ok(offset)
    }

    /// How many bytes have come.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The end: all of it must have come, and be what it was announced as.
    pub(crate) fn check(self, place: &Path) -> Result<(), ClientError> {
        if self.taken != self.size {
            return Err(self.wrong_size(place));
        }
        let actual = self.hasher.finish();
        if actual == self.digest {
            return Ok(());
        }
        let from = place.display().to_string();
        Err(ClientError::Digest(Box::new(DigestMismatch { from, expected: self.digest, actual })))
    }

    fn wrong_size(&self, place: &Path) -> ClientError {
        ClientError::blob(place, &self.digest, BlobFault::Size { expected: self.size, actual: self.taken })
    }
}
