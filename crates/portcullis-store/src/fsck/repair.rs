//! What a check repairs, and it is little: nothing is ever lost by it. Corrupt bytes are moved aside, what is needed and
//! lies in the trash comes back, and a layer link that a manifest needs is written again.

use portcullis_oci::{Digest, RepositoryName};

use super::finding::Repaired;
use super::links::Linked;
use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::store::Store;

impl Store {
    /// Takes corrupt bytes out of the way, and puts those of the trash in their place. While they lie there, a push of
    /// the same size takes them for the blob. The caller holds the digest's lock.
    pub(super) fn replace_corrupt(&self, digest: &Digest) -> Result<Option<Repaired>, StoreError> {
        let aside = layout::damaged(digest);
        let data = layout::blob_data(digest);
        if !self.inner.backend.quarantine(&data, &aside)? {
            return Ok(None);
        }
        let is_back = self.inner.backend.restore(&data);
        // It may be a manifest, of any repository, and what replaces it a better one.
        self.inner.forget_referrers(None);
        let is_back = is_back?;
        let moved = || Repaired::MovedAside { to: aside.as_str().to_owned() };
        Ok(Some(if is_back { Repaired::BroughtBack } else { moved() }))
    }

    /// Brings back the data that `link`, named after `name`, is missed by; the run hashes it later.
    pub(super) fn bring_back(
        &self,
        repository: &RepositoryName,
        link: &Key,
        name: &Digest,
        target: &Digest,
    ) -> Result<Option<Repaired>, StoreError> {
        let inner = &self.inner;
        let _repository = inner.lock_repository(repository);
        let _digest = inner.lock_digest(target);
        let data = layout::blob_data(target);
        if inner.backend.stat(&data)?.is_some() || !inner.backend.restore(&data)? {
            return Ok(None);
        }
        inner.forget_referrers(None);
        if name == target {
            self.keep(repository, link, target)?;
        } else {
            // No collection removes the link while the repository is locked, nor the data while the digest is.
            inner.promise(repository, link, name, target)?;
        }
        Ok(Some(Repaired::BroughtBack))
    }

    /// Writes a layer link again whose data is there. The manifest could only be pushed here while the repository had
    /// the blob: the link gives nothing away.
    pub(super) fn link_again(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
        blob: &Digest,
    ) -> Result<Option<Repaired>, StoreError> {
        let inner = &self.inner;
        let _repository = inner.lock_repository(repository);
        let _digest = inner.lock_digest(blob);
        let has_manifest = inner.backend.stat(&layout::revision_link(repository, manifest))?.is_some();
        if !has_manifest || inner.backend.stat(&layout::blob_data(blob))?.is_none() {
            return Ok(None);
        }
        self.keep(repository, &layout::layer_link(repository, blob), blob)?;
        Ok(Some(Repaired::Linked))
    }

    /// Makes the link lead to the data, and keeps a collection that runs from taking what it has not seen.
    fn keep(&self, repository: &RepositoryName, link: &Key, digest: &Digest) -> Result<(), StoreError> {
        if !matches!(self.inner.resolve(link, digest)?, Linked::Data { .. }) {
            self.inner.write_link(link, digest)?;
        }
        self.inner.promise(repository, link, digest, digest)
    }
}
