//! Blobs as a repository sees them: a layer link in the repository *and* the data it names.

use portcullis_oci::{Digest, RepositoryName};

use crate::at_hand::Files;
use crate::backend::Object;
use crate::error::StoreError;
use crate::layout;
use crate::store::{Inner, Store};
use crate::users::user_among;

/// An open blob. Its bytes never change and stay readable while this value lives, also when the blob is deleted.
#[derive(Debug)]
pub struct Blob {
    object: Box<dyn Object>,
}

impl Blob {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.object.size()
    }

    /// Fills `buf` from `offset` on and returns how much it got: less than asked only at the end.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError> {
        self.object.read_at(buf, offset)
    }

    /// Reads what is in memory, without waiting for the disk: perhaps less than `buf` holds, in the middle too. `None`:
    /// nothing is, and [`Blob::read_at`] would wait, or nobody can tell. Not for calling again at once.
    pub fn read_cached(&self, buf: &mut [u8], offset: u64) -> Result<Option<usize>, StoreError> {
        self.object.read_cached(buf, offset)
    }
}

impl Store {
    /// Opens a blob of the repository, once for all its reads.
    pub fn open_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let inner = &self.inner;
        let link = layout::layer_link(repository, digest);
        let Some(target) = inner.read_link_of(&link, digest)? else { return Ok(None) };
        let object = inner.backend.open(&layout::blob_data(&target))?;
        let plausible = inner.is_plausible(&link, &target, object.as_ref().map(|object| object.size()));
        Ok(object.filter(|_| plausible).map(|object| Blob { object }))
    }

    /// The size of a blob of the repository. `Some` is a promise: what was found is durable, and no collection takes it
    /// within three quarters of [`StoreOptions::grace`](crate::StoreOptions::grace).
    pub fn stat_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let _digest = self.inner.lock_digest(digest);
        let link = layout::layer_link(repository, digest);
        let mut files = Files::default();
        files.note(&self.inner, &link)?;
        let Some((target, size)) = self.inner.find_blob(repository, digest)? else { return Ok(None) };
        files.note(&self.inner, &layout::blob_data(&target))?;
        self.inner.promise(repository, &link, digest, &target)?;
        self.inner.keep_layer(&link, target, files);
        Ok(Some(size))
    }

    /// Whether the repository has the blob: what a manifest's config and layers are checked with.
    pub fn has_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.stat_blob(repository, digest)?.is_some())
    }

    /// Makes a blob of `from` a blob of `to` too, durable on return. `false`: `from` has no such blob under this very
    /// digest (Distribution's alias links are read, but never written), and the client has to upload it.
    pub fn mount_blob(&self, from: &RepositoryName, to: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let _digest = self.inner.lock_digest(digest);
        match self.inner.find_blob(from, digest)? {
            Some((target, _)) if target == *digest => {
                let link = layout::layer_link(to, digest);
                self.inner.write_link(&link, digest)?;
                self.inner.promise(to, &link, digest, digest)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Takes the blob out of the repository (its data stays for others). `false`: it was not there. Reads every manifest
    /// of the repository.
    ///
    /// # Errors
    /// [`StoreError::BlobInUse`] while a manifest of the repository names it, or while it is one itself that Distribution
    /// 2.1.0 linked among the layers.
    pub fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let link = layout::layer_link(repository, digest);
        if inner.backend.stat(&link)?.is_none() {
            return Ok(false);
        }
        let in_use = |user: Option<Digest>| match user {
            Some(user) => Err(StoreError::BlobInUse { blob: Box::new(*digest), manifest: Box::new(user) }),
            None => Ok(()),
        };
        // All manifests are read without a lock, and what came meanwhile is looked at under it.
        let reading = inner.journal.begin(repository);
        in_use(self.user_or_itself(repository, digest)?)?;
        let _puts = inner.lock_puts(repository);
        let _repository = inner.lock_repository(repository);
        in_use(match reading.changes() {
            Some(changes) => user_among(&changes, digest),
            None => self.user_or_itself(repository, digest)?,
        })?;
        let _digest = inner.lock_digest(digest);
        inner.backend.delete(&link)
    }

    /// A manifest that uses the blob: itself, where it is one.
    fn user_or_itself(&self, repository: &RepositoryName, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        match self.user_of_blob(repository, blob)? {
            None if self.inner.lies_as_a_manifest(repository, blob)? => Ok(Some(*blob)),
            user => Ok(user),
        }
    }
}

impl Inner {
    /// The digest that the data lies under, and its size.
    fn find_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<(Digest, u64)>, StoreError> {
        let link = layout::layer_link(repository, digest);
        let Some(target) = self.read_link_of(&link, digest)? else { return Ok(None) };
        let size = self.backend.stat(&layout::blob_data(&target))?.map(|stamp| stamp.size);
        let plausible = self.is_plausible(&link, &target, size);
        Ok(size.filter(|_| plausible).map(|size| (target, size)))
    }
}
