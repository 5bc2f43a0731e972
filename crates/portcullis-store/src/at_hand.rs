//! Small manifests and links that were read lately, so that they need not be opened, read, hashed and parsed each time.
//!
//! Files stay the truth: with what is kept go the stamps of the files it was read from, taken before they were read, and
//! each use looks at all of them again. A stamp says when the file was changed last; by a clock that ticks a hundred times
//! a second two changes can share one, so nothing is kept that was changed within [`SETTLED_SECONDS`] before it was read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use portcullis_oci::{Digest, ManifestReference, RepositoryName};

use crate::backend::Stamp;
use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::lru::Lru;
use crate::manifest::StoredManifest;
use crate::store::{Inner, Store};

/// How long a file must have been as it is.
const SETTLED_SECONDS: u64 = 2;
/// Larger ones are read each time: they are rare, and few of them would take the room of many.
const MOST_BYTES: usize = 64 * 1024;

/// What is kept: by the key of the first file it was read from.
#[derive(Debug)]
pub(crate) struct AtHand(Mutex<Lru<Arc<Kept>, Key>>);

#[derive(Debug)]
struct Kept {
    /// The digest asked for, or the one the tag names.
    digest: Digest,
    files: Files,
    /// None: only the link.
    bytes: Option<Bytes>,
}

/// Files as they were before they were read.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<(Key, Stamp)>);

impl AtHand {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self(Mutex::new(Lru::new(most_bytes)))
    }

    fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        self.lock().get(key).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, Lru<Arc<Kept>, Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// Notes how a file is now: the caller reads it afterwards.
    pub(crate) fn note(&mut self, inner: &Inner, key: &Key) -> Result<(), StoreError> {
        // What is not there has no stamp to be compared, and whoever reads it finds nothing to keep.
        self.0.extend(inner.backend.stat(key)?.map(|stamp| (key.clone(), stamp)));
        Ok(())
    }

    fn are_settled(&self, now: u64) -> bool {
        self.0.iter().all(|(_, stamp)| stamp.changed().saturating_add(SETTLED_SECONDS) <= now)
    }

    fn are_unchanged(&self, inner: &Inner) -> bool {
        self.0.iter().all(|(key, stamp)| matches!(inner.backend.stat(key), Ok(Some(now)) if now == *stamp))
    }
}

impl Store {
    /// A manifest that was read lately, if all files it was read from are as they were. `None` says nothing: ask
    /// [`Store::manifest`]. Waits for nothing but a look at the directory entries.
    pub fn manifest_at_hand(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Option<StoredManifest> {
        let inner = &self.inner;
        if inner.untagged && matches!(reference, ManifestReference::Digest(_)) {
            // Such a read is a promise, which is made where the manifest is read.
            return None;
        }
        let kept = inner.at_hand.get(&first_file(repository, reference))?;
        let bytes = kept.bytes.as_ref().filter(|_| kept.files.are_unchanged(inner))?;
        Some(StoredManifest { digest: kept.digest, bytes: bytes.clone() })
    }

    /// As [`Store::stat_blob`], for a link that was read lately and a digest that nobody else works on. `None` says
    /// nothing: ask that. Waits for nothing but a look at the directory entries.
    ///
    /// # Errors
    /// As [`Store::stat_blob`].
    pub fn stat_blob_at_hand(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let inner = &self.inner;
        let link = layout::layer_link(repository, digest);
        let Some(kept) = inner.at_hand.get(&link) else { return Ok(None) };
        let Some(_digest) = inner.try_lock_digest(digest) else { return Ok(None) };
        let [(_, found), (_, data)] = kept.files.0.as_slice() else { return Ok(None) };
        if !kept.files.are_unchanged(inner) {
            return Ok(None);
        }
        inner.promise_found(repository, &link, Some(*found), [digest, &kept.digest])?;
        Ok(Some(data.size))
    }
}

impl Inner {
    /// Keeps a manifest that was read from these files, all of which were there.
    pub(crate) fn keep_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        found: &StoredManifest,
        files: Files,
    ) {
        let expected = match reference {
            ManifestReference::Tag(_) => 3,
            ManifestReference::Digest(_) => 2,
        };
        if files.0.len() == expected && found.bytes.len() <= MOST_BYTES {
            let bytes = Some(found.bytes.clone());
            self.keep(&first_file(repository, reference), Kept { digest: found.digest, files, bytes });
        }
    }

    /// Keeps where a layer link leads: its file and that of the data, both of which were there.
    pub(crate) fn keep_layer(&self, link: &Key, target: Digest, files: Files) {
        if files.0.len() == 2 {
            self.keep(link, Kept { digest: target, files, bytes: None });
        }
    }

    fn keep(&self, key: &Key, kept: Kept) {
        if kept.files.are_settled(self.backend.now()) {
            let names: usize = kept.files.0.iter().map(|(key, _)| key.as_str().len() + size_of::<(Key, Stamp)>()).sum();
            let bytes = names + kept.bytes.as_ref().map_or(0, Bytes::len);
            self.at_hand.lock().put(key, Arc::new(kept), bytes);
        }
    }
}

fn first_file(repository: &RepositoryName, reference: &ManifestReference) -> Key {
    match reference {
        ManifestReference::Tag(tag) => layout::tag_link(repository, tag),
        ManifestReference::Digest(digest) => layout::revision_link(repository, digest),
    }
}
