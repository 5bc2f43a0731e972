//! Which manifests of a repository use what: all of them are read, none is held, and no lock is.
//!
//! Whoever acts on the answer has a [reading](crate::journal) under way, and looks under the locks at what came meanwhile.

use portcullis_oci::{Algorithm, Content, Digest, Manifest, ManifestReference, RepositoryName};

use crate::error::StoreError;
use crate::journal::Change;
use crate::layout;
use crate::manifest::StoredManifest;
use crate::store::Store;

impl Store {
    /// A manifest of the repository that names the blob as config or layer, or that cannot be read or understood and so
    /// might. Reads every manifest of the repository.
    pub(crate) fn user_of_blob(
        &self,
        repository: &RepositoryName,
        blob: &Digest,
    ) -> Result<Option<Digest>, StoreError> {
        let mut user = None;
        self.each_revision(repository, |digest, stored| {
            if stored.is_none_or(|(manifest, _)| names(&manifest, blob)) {
                user = Some(digest);
            }
            user.is_none()
        })?;
        if user.is_some() { Ok(user) } else { self.misplaced_user_of_blob(repository, blob) }
    }

    /// The same among the manifests that no revision names.
    fn misplaced_user_of_blob(&self, repository: &RepositoryName, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        for digest in self.inner.tagged_without_revision(repository)? {
            // One that is not there is a damaged tag and uses nothing.
            if self.understood(repository, digest)?.is_some_and(|(manifest, _)| names(&manifest, blob)) {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// Calls `each` with every revision of the repository, in no order, with the manifest and its size where it can be
    /// understood, until it returns `false`. A name without a link is what Distribution, or a power cut, left of a
    /// manifest that was deleted.
    pub(crate) fn each_revision(
        &self,
        repository: &RepositoryName,
        mut each: impl FnMut(Digest, Option<(Manifest, u64)>) -> bool,
    ) -> Result<(), StoreError> {
        let mut goes_on = true;
        for algorithm in Algorithm::ALL {
            let mut look = |hex: &str| {
                let Ok(digest) = format!("{algorithm}:{hex}").parse() else { return Ok(goes_on) };
                let link = layout::revision_link(repository, &digest);
                if self.inner.backend.stat(&link)?.is_none() {
                    return Ok(goes_on);
                }
                let found = self.understood(repository, digest)?;
                // What was deleted meanwhile is not one that cannot be understood.
                if found.is_some() || self.inner.backend.stat(&link)?.is_some() {
                    goes_on = goes_on && each(digest, found);
                }
                Ok(goes_on)
            };
            self.inner.backend.scan(&layout::revisions(repository, algorithm), &mut look)?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn understood(&self, repository: &RepositoryName, digest: Digest) -> Result<Option<(Manifest, u64)>, StoreError> {
        let stored = self.inner.find_manifest(repository, &ManifestReference::Digest(digest))?;
        let parse = |stored: StoredManifest| {
            let manifest = Manifest::parse(&stored.bytes, None).ok()?;
            Some((manifest, stored.bytes.len() as u64))
        };
        Ok(stored.and_then(parse))
    }
}

/// A manifest among the changes that uses the blob, or might.
pub(crate) fn user_among(changes: &[Change], blob: &Digest) -> Option<Digest> {
    changes.iter().find_map(|change| match change {
        Change::Put(put) if put.manifest.as_ref().is_none_or(|manifest| names(manifest, blob)) => Some(put.digest),
        Change::Put(_) | Change::Removed(_) => None,
    })
}

fn names(manifest: &Manifest, blob: &Digest) -> bool {
    match &manifest.content {
        Content::Image { config, layers } => {
            std::iter::once(config).chain(layers).any(|descriptor| descriptor.digest == *blob)
        }
        Content::Index { .. } => false,
        Content::Schema1 { layers } => layers.contains(blob),
    }
}
