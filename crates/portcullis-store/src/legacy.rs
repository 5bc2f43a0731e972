//! What early releases of Distribution have left in volumes that were never rewritten.
//!
//! 2.1.0 linked manifests under `_layers/`, as if they were blobs, and every later release reads them there. They are
//! all of Docker's schema 1: nothing else is taken for a manifest because it lies among the layers.

use std::collections::BTreeSet;

use portcullis_oci::{Content, Digest, Manifest, RepositoryName, manifest};

use crate::error::StoreError;
use crate::layout;
use crate::store::{Inner, Store};

impl Store {
    /// Whether a digest is linked among the layers as a manifest, and not also as the layer of another.
    pub(crate) fn is_only_a_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.inner.misplaced_manifest(repository, digest)?.is_some()
            && self.user_of_blob(repository, digest)?.is_none())
    }
}

impl Inner {
    /// The bytes of a manifest that has a link among the layers.
    pub(crate) fn misplaced_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let link = layout::layer_link(repository, digest);
        let Some(target) = self.read_link_of(&link, digest)? else { return Ok(None) };
        let stamp = self.backend.stat(&layout::blob_data(&target))?;
        // A layer is not read to find out that it is no manifest.
        if stamp.is_some_and(|stamp| stamp.size > manifest::MAX_BYTES as u64) {
            return Ok(None);
        }
        let bytes = self.manifest_data(&link, &target)?;
        Ok(bytes.filter(|bytes| is_schema1(bytes)))
    }

    /// Whether a digest is linked among the layers alone and is a manifest, or one that is damaged: a tag points to it.
    pub(crate) fn lies_as_a_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        if self.backend.stat(&layout::revision_link(repository, digest))?.is_some() {
            return Ok(false);
        }
        Ok(self.misplaced_manifest(repository, digest)?.is_some()
            || self.tagged_without_revision(repository)?.contains(digest))
    }

    /// What the tags of the repository point to and no revision names, whether it is there or not. Reads every tag.
    pub(crate) fn tagged_without_revision(&self, repository: &RepositoryName) -> Result<BTreeSet<Digest>, StoreError> {
        let mut found = BTreeSet::new();
        self.scan_tags(repository, |tag| {
            if let Some(digest) = self.read_link(&layout::tag_link(repository, &tag))?
                && self.backend.stat(&layout::revision_link(repository, &digest))?.is_none()
            {
                found.insert(digest);
            }
            Ok(true)
        })?;
        Ok(found)
    }
}

fn is_schema1(bytes: &[u8]) -> bool {
    matches!(Manifest::parse(bytes, None), Ok(Manifest { content: Content::Schema1 { .. }, .. }))
}
