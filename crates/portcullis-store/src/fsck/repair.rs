//! What a check repairs, and it is little: nothing is ever lost by it. Corrupt bytes are moved aside, what is needed and
//! lies in the trash comes back. The caller holds the digest's lock.

use portcullis_oci::Digest;

use super::finding::Repaired;
use crate::error::StoreError;
use crate::layout;
use crate::store::Store;

impl Store {
    /// Takes corrupt bytes out of the way. While they lie there, a push of the same size takes them for the blob.
    pub(super) fn replace_corrupt(&self, digest: &Digest) -> Result<Option<Repaired>, StoreError> {
        let aside = layout::damaged(digest);
        if !self.inner.backend.quarantine(&layout::blob_data(digest), &aside)? {
            return Ok(None);
        }
        let back = self.bring_back(digest, digest)?;
        Ok(Some(back.unwrap_or_else(|| Repaired::MovedAside { to: aside.as_str().to_owned() })))
    }

    /// Brings the data of `target` back from the trash, if it is there; the run hashes it later. The lock held is that of
    /// `locked`, which is another digest where an alias link was followed: then nothing is done, `target` is not locked.
    pub(super) fn bring_back(&self, locked: &Digest, target: &Digest) -> Result<Option<Repaired>, StoreError> {
        let is_back = locked == target && self.inner.backend.restore(&layout::blob_data(target))?;
        Ok(is_back.then_some(Repaired::BroughtBack))
    }
}
