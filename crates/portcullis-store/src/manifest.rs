//! Manifests: kept byte for byte under their digest, visible in a repository through a revision link.
//!
//! Must not know what a manifest says: the caller has checked that.

use bytes::Bytes;
use portcullis_oci::{Digest, Manifest, ManifestReference, RepositoryName, Tag};

use crate::at_hand::Files;
use crate::error::StoreError;
use crate::journal::{Change, Put};
use crate::layout::{self, Key};
use crate::store::{Inner, Store};
use crate::tag_names::Effect;
use crate::users::user_among;

/// The largest object that is read as a manifest. Far above what any registry takes: it bounds what a damaged link
/// that points to a layer can cost.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// How many tags of a manifest go while their repository is locked: each waits for a sync.
const TAGS_AT_ONCE: usize = 32;

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
        let done = inner.write_manifest(repository, digest, bytes, tags);
        if done.is_err() {
            // What of it is visible nobody knows.
            inner.forget_referrers(Some(repository));
        }
        done
    }

    /// Reads a manifest by tag or digest. Bytes that do not have the digest they are stored under are damaged, and
    /// damaged is absent.
    pub fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let inner = &self.inner;
        let mut files = Files::default();
        let Some(stored) = inner.read_manifest(repository, reference, &mut files)? else { return Ok(None) };
        let stays = if inner.untagged && matches!(reference, ManifestReference::Digest(_)) {
            // An index whose children were found here may follow.
            self.has_manifest(repository, &stored.digest)?
        } else {
            inner.is_settled(repository, &stored.digest)?
        };
        if stays {
            inner.keep_manifest(repository, reference, &stored, files);
        }
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
    /// `false`: it was not there. Reads every tag of the repository, without a lock.
    ///
    /// # Errors
    /// [`StoreError::TagImmutable`] when an immutable tag points to it, or to an index that lists it. When that was pushed
    /// at the same moment, other tags may be gone.
    pub fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let reading = inner.journal.begin(repository);
        self.check_manifest_may_go(repository, digest)?;
        let misplaced = self.is_only_a_manifest(repository, digest)?;
        // Tags first, also when the link is already gone: an earlier attempt may have ended half-way.
        for tags in inner.tags_of(repository, digest)?.chunks(TAGS_AT_ONCE) {
            let _repository = inner.lock_repository(repository);
            self.remove_tags(repository, tags, digest)?;
        }
        let _puts = inner.lock_puts(repository);
        let _repository = inner.lock_repository(repository);
        let misplaced = match reading.changes() {
            Some(changes) if !self.may_need(repository, &changes, digest)? => {
                self.remove_tags(repository, &tags_among(&changes, digest), digest)?;
                misplaced && user_among(&changes, digest).is_none()
            }
            // Too much was written to tell what: all is read once more, and others wait.
            _ => {
                self.check_manifest_may_go(repository, digest)?;
                self.remove_tags(repository, &inner.tags_of(repository, digest)?, digest)?;
                self.is_only_a_manifest(repository, digest)?
            }
        };
        let done = inner.remove_manifest(repository, digest, misplaced);
        match &done {
            Ok(_) => inner.forget_manifest(repository, digest),
            // One of the two links may be gone.
            Err(_) => inner.forget_referrers(Some(repository)),
        }
        done
    }

    /// Those of the tags that still point to the digest. The caller holds the repository's lock.
    fn remove_tags(&self, repository: &RepositoryName, tags: &[Tag], digest: &Digest) -> Result<(), StoreError> {
        for tag in tags {
            if self.inner.read_link(&layout::tag_link(repository, tag))?.as_ref() == Some(digest) {
                // It may have been set since they were looked at.
                self.check_tag_may_change(repository, tag, None)?;
                self.inner.remove_tag(repository, tag)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn write_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        bytes: &[u8],
        tags: &[Tag],
    ) -> Result<(), StoreError> {
        let text = digest.to_string();
        let tag_links: Vec<Key> = tags.iter().map(|tag| layout::tag_link(repository, tag)).collect();
        let pointers: Vec<(&Key, &[u8])> = tag_links.iter().map(|link| (link, text.as_bytes())).collect();
        let first = {
            let _digest = self.lock_digest(digest);
            let (data, link) = (layout::blob_data(digest), layout::revision_link(repository, digest));
            let is_first = self.backend.stat(&data)?.is_none() && self.backend.stat(&link)?.is_none();
            let mut first = None;
            if is_first {
                // What is written at once is synced at once; what is visible follows from what is durable all the same.
                let manifest: [(&Key, &[u8]); 2] = [(&data, bytes), (&link, text.as_bytes())];
                first.insert(self.backend.prepare(&[&manifest, pointers.as_slice()].concat())?).place(2)?;
            } else if self.put_fixed(&data, bytes)? {
                self.write_first_link(&link, digest, &data)?;
            } else {
                self.write_link(&link, digest)?;
            }
            self.promise(repository, &link, digest, digest)?;
            first
        };
        let mut pointers = match first {
            Some(rest) => rest,
            None => self.backend.prepare(&pointers)?,
        };
        for tag in tags {
            self.following(repository, tag, Effect::Adds, || pointers.place(1))?;
        }
        // Last: whoever begins to read after this look finds all of it.
        if self.is_followed(repository) {
            let manifest = Manifest::parse(bytes, None).ok();
            self.note_manifest(repository, Put { digest: *digest, size: bytes.len(), manifest, tags: tags.to_vec() });
        }
        Ok(())
    }

    fn remove_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        misplaced: bool,
    ) -> Result<bool, StoreError> {
        let _digest = self.lock_digest(digest);
        let mut deleted = self.backend.delete(&layout::revision_link(repository, digest))?;
        if misplaced {
            deleted |= self.backend.delete(&layout::layer_link(repository, digest))?;
        }
        Ok(deleted)
    }

    /// The same for our own questions: it promises nothing, so that none of them keeps a manifest alive, and what it finds
    /// may not be durable yet.
    pub(crate) fn find_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<StoredManifest>, StoreError> {
        self.read_manifest(repository, reference, &mut Files::default())
    }

    /// `files`: what it is read from.
    fn read_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        files: &mut Files,
    ) -> Result<Option<StoredManifest>, StoreError> {
        let digest = match reference {
            ManifestReference::Digest(digest) => *digest,
            ManifestReference::Tag(tag) => {
                let link = layout::tag_link(repository, tag);
                files.note(self, &link)?;
                match self.read_link(&link)? {
                    Some(digest) => digest,
                    None => return Ok(None),
                }
            }
        };
        let link = layout::revision_link(repository, &digest);
        files.note(self, &link)?;
        let bytes = match self.read_link_of(&link, &digest)? {
            Some(target) => {
                files.note(self, &layout::blob_data(&target))?;
                self.manifest_data(&link, &target)?
            }
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
        self.scan_tags(repository, |tag| {
            if self.read_link(&layout::tag_link(repository, &tag))?.as_ref() == Some(digest) {
                found.push(tag);
            }
            Ok(true)
        })?;
        Ok(found)
    }
}

fn tags_among(changes: &[Change], digest: &Digest) -> Vec<Tag> {
    let puts = changes.iter().filter_map(|change| match change {
        Change::Put(put) if put.digest == *digest => Some(&put.tags),
        Change::Put(_) | Change::Removed(_) => None,
    });
    puts.flatten().cloned().collect()
}
