//! Manifests: kept byte for byte under their digest, visible in a repository through a revision link.
//!
//! Must not know what a manifest says: the caller has checked that.

use bytes::Bytes;
use portcullis_oci::{Digest, ManifestReference, RepositoryName, Tag};

use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::store::{Inner, Store};
use crate::tag_names::Effect;

/// The largest object that is read as a manifest. Far above what any registry takes: it bounds what a damaged link
/// that points to a layer can cost.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// A manifest as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The digest asked for, or the one the tag names.
    pub digest: Digest,
    /// The very bytes that were pushed.
    pub bytes: Bytes,
}

impl Store {
    /// Stores a manifest and points `tags` to it, durable on return: first the bytes, then the revision link, then the
    /// tags in their order. The caller has checked what the manifest names, with [`Store::has_blob`] and
    /// [`Store::has_manifest`], and how large it is.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when `digest` is not that of `bytes`, and [`StoreError::TagImmutable`]: nothing was
    /// written then. After any other error the manifest, and some of the tags, may be there, whole.
    pub fn put_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        bytes: &[u8],
        tags: &[Tag],
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let actual = Digest::of(digest.algorithm(), bytes);
        if actual != *digest {
            return Err(StoreError::DigestMismatch { expected: Box::new(*digest), actual: Box::new(actual) });
        }
        inner.check_space()?;
        let _repository = inner.lock_repository(repository);
        for tag in tags {
            self.check_tag_may_change(repository, tag, Some(digest))?;
        }
        {
            let _digest = inner.lock_digest(digest);
            let (data, link) = (layout::blob_data(digest), layout::revision_link(repository, digest));
            if inner.put_fixed(&data, bytes)? {
                inner.write_first_link(&link, digest, &data)?;
            } else {
                inner.write_link(&link, digest)?;
            }
            inner.promise(repository, &link, digest, digest)?;
        }
        inner.note_manifest(repository, digest, bytes);
        for tag in tags {
            let link = layout::tag_link(repository, tag);
            let write = || inner.backend.put(&link, digest.to_string().as_bytes());
            inner.following(repository, tag, Effect::Adds, write)?;
        }
        Ok(())
    }

    /// Reads a manifest by tag or digest. Bytes that do not have the digest they are stored under are damaged, and
    /// damaged is absent.
    pub fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let inner = &self.inner;
        let Some(stored) = inner.find_manifest(repository, reference)? else { return Ok(None) };
        let stays = if inner.untagged && matches!(reference, ManifestReference::Digest(_)) {
            // An index whose children were found here may follow.
            self.has_manifest(repository, &stored.digest)?
        } else {
            inner.is_settled(repository, &stored.digest)?
        };
        Ok(stays.then_some(stored))
    }

    /// Whether the repository has the manifest: link and data. `true` is a promise, as that of [`Store::stat_blob`].
    pub fn has_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let _digest = inner.lock_digest(digest);
        let link = layout::revision_link(repository, digest);
        let Some(target) = inner.read_link_of(&link, digest)? else {
            let misplaced = inner.misplaced_manifest(repository, digest)?.is_some();
            if misplaced {
                inner.promise(repository, &layout::layer_link(repository, digest), digest, digest)?;
            }
            return Ok(misplaced);
        };
        let size = inner.backend.stat(&layout::blob_data(&target))?.map(|stamp| stamp.size);
        let found = inner.is_plausible(&link, &target, size);
        if found {
            inner.promise(repository, &link, digest, &target)?;
        }
        Ok(found)
    }

    /// Removes the tags that point to the manifest, then the manifest from the repository; the bytes stay for others.
    /// `false`: it was not there. Reads every tag of the repository.
    ///
    /// # Errors
    /// [`StoreError::TagImmutable`] when an immutable tag points to it, or to an index that lists it.
    pub fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let _puts = inner.lock_puts(repository);
        let _repository = inner.lock_repository(repository);
        self.check_manifest_may_go(repository, digest)?;
        // Tags first, also when the link is already gone: an earlier attempt may have ended half-way.
        for tag in inner.tags_of(repository, digest)? {
            inner.remove_tag(repository, &tag)?;
        }
        let misplaced = self.is_only_a_manifest(repository, digest)?;
        let _digest = inner.lock_digest(digest);
        let mut deleted = inner.backend.delete(&layout::revision_link(repository, digest))?;
        if misplaced {
            deleted |= inner.backend.delete(&layout::layer_link(repository, digest))?;
        }
        inner.forget_manifest(repository, digest);
        Ok(deleted)
    }
}

impl Inner {
    /// The same for our own questions: it promises nothing, so that none of them keeps a manifest alive, and what it finds
    /// may not be durable yet.
    pub(crate) fn find_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let digest = match reference {
            ManifestReference::Digest(digest) => *digest,
            ManifestReference::Tag(tag) => match self.read_link(&layout::tag_link(repository, tag))? {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let link = layout::revision_link(repository, &digest);
        let bytes = match self.read_link_of(&link, &digest)? {
            Some(target) => self.manifest_data(&link, &target)?,
            None => {
                let misplaced = self.misplaced_manifest(repository, &digest)?;
                if let (None, ManifestReference::Tag(tag)) = (&misplaced, reference) {
                    self.note_damage(&layout::tag_link(repository, tag), "it points to no revision");
                }
                misplaced
            }
        };
        Ok(bytes.map(|bytes| StoredManifest { digest, bytes: bytes.into() }))
    }

    /// Whether a manifest that was found is still linked when nobody makes it visible or takes it away: what was found
    /// in the middle of a push may not be durable, and may go again.
    fn is_settled(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let _digest = self.lock_digest(digest);
        Ok(self.backend.stat(&layout::revision_link(repository, digest))?.is_some()
            || self.backend.stat(&layout::layer_link(repository, digest))?.is_some())
    }

    /// The bytes of a manifest that `link` points to, if they have their digest.
    pub(crate) fn manifest_data(&self, link: &Key, target: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let data = layout::blob_data(target);
        let Some(bytes) = self.backend.read(&data, 0..MAX_MANIFEST_BYTES)? else {
            self.note_damage(link, "it points to nothing");
            return Ok(None);
        };
        if Digest::of(target.algorithm(), &bytes) != *target {
            self.note_damage(&data, "it does not have its digest");
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// The tags that point to a digest.
    fn tags_of(&self, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>, StoreError> {
        let mut found = Vec::new();
        self.each_tag(repository, None, |tag| {
            if self.read_link(&layout::tag_link(repository, &tag))?.as_ref() == Some(digest) {
                found.push(tag);
            }
            Ok(true)
        })?;
        Ok(found)
    }
}
