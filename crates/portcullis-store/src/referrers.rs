//! Which manifests of a repository refer to which subject, and which manifest uses a blob.
//!
//! Neither is stored: the manifests are the truth. The referrers of a repository are read from its manifests at the
//! first question in the life of a process, and kept up by our own writes from then on; nothing else writes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_oci::{Algorithm, Content, Descriptor, Digest, Manifest, ManifestReference, RepositoryName};

use crate::error::StoreError;
use crate::layout;
use crate::lru::Lru;
use crate::manifest::StoredManifest;
use crate::store::{Inner, Store};

/// What an entry takes beside its texts, roughly.
const ENTRY_BYTES: usize = 512;
/// How many names are asked of the backend at once.
const PAGE: usize = 1000;

/// The indexes that are known.
#[derive(Debug)]
pub(crate) struct Referrers {
    known: Mutex<Lru<Index>>,
}

/// One repository's: subject, then referrer.
#[derive(Debug, Default)]
struct Index {
    subjects: BTreeMap<Digest, BTreeMap<Digest, Descriptor>>,
    bytes: usize,
}

impl Store {
    /// The manifests of the repository whose subject is `subject`, in order of digest, as descriptors with artifact type
    /// and annotations. Empty when there are none, or no such repository.
    pub fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        // Nobody puts or deletes a manifest here between the reading and the keeping.
        let _repository = self.inner.lock_repository(repository);
        let of = |index: &Index| index.subjects.get(subject).map(|found| found.values().cloned().collect());
        if let Some(index) = self.inner.referrers.known().get(repository) {
            return Ok(of(index).unwrap_or_default());
        }
        let mut index = Index::default();
        self.each_revision(repository, |digest, stored| {
            if let Some((manifest, size)) = stored {
                index.add(digest, &manifest, size);
            }
            true
        })?;
        let found = of(&index).unwrap_or_default();
        let bytes = index.bytes;
        self.inner.referrers.known().put(repository, index, bytes);
        Ok(found)
    }

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

    /// Calls `each` with every revision of the repository, with the manifest and its size where it can be understood,
    /// until it returns `false`.
    fn each_revision(
        &self,
        repository: &RepositoryName,
        mut each: impl FnMut(Digest, Option<(Manifest, u64)>) -> bool,
    ) -> Result<(), StoreError> {
        for digest in self.inner.revisions(repository)? {
            if !each(digest, self.understood(repository, digest)?) {
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

impl Inner {
    /// The digests of all manifests of the repository, whether they can be read or not. A name without a link is what
    /// Distribution, or a power cut, left of a manifest that was deleted.
    fn revisions(&self, repository: &RepositoryName) -> Result<Vec<Digest>, StoreError> {
        let mut digests = Vec::new();
        for algorithm in Algorithm::ALL {
            let mut after: Option<String> = None;
            loop {
                let names = self.backend.list(&layout::revisions(repository, algorithm), after.as_deref(), PAGE)?;
                digests.extend(names.iter().filter_map(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok()));
                if names.len() < PAGE {
                    break;
                }
                after = names.into_iter().next_back();
            }
        }
        let mut linked = Vec::with_capacity(digests.len());
        for digest in digests {
            if self.backend.stat(&layout::revision_link(repository, &digest))?.is_some() {
                linked.push(digest);
            }
        }
        Ok(linked)
    }

    /// After a manifest became visible. The caller holds the repository's lock.
    pub(crate) fn note_manifest(&self, repository: &RepositoryName, digest: &Digest, bytes: &[u8]) {
        let mut known = self.referrers.known();
        let Some(mut index) = known.remove(repository) else { return };
        if let Ok(manifest) = Manifest::parse(bytes, None) {
            index.add(*digest, &manifest, bytes.len() as u64);
        }
        let size = index.bytes;
        known.put(repository, index, size);
    }

    /// After a manifest was removed. The caller holds the repository's lock.
    pub(crate) fn forget_manifest(&self, repository: &RepositoryName, digest: &Digest) {
        let mut known = self.referrers.known();
        let Some(mut index) = known.remove(repository) else { return };
        for referrers in index.subjects.values_mut() {
            referrers.remove(digest);
        }
        let size = index.bytes;
        known.put(repository, index, size);
    }
}

impl Referrers {
    /// `most_bytes` for the indexes of all repositories together.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { known: Mutex::new(Lru::new(most_bytes)) }
    }

    fn known(&self) -> MutexGuard<'_, Lru<Index>> {
        // An index is taken out while it is changed: a panic loses it, and it is read again.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn add(&mut self, digest: Digest, manifest: &Manifest, size: u64) {
        let Some(subject) = &manifest.subject else { return };
        let descriptor = descriptor(digest, manifest, size);
        let texts: usize = descriptor.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if self.subjects.entry(subject.digest).or_default().insert(digest, descriptor).is_none() {
            self.bytes += ENTRY_BYTES + texts;
        }
    }
}

/// As the referrers API has it (distribution spec, "Listing Referrers"): an image without an artifact type has that of
/// its config; an index without one has none.
fn descriptor(digest: Digest, manifest: &Manifest, size: u64) -> Descriptor {
    let own = manifest.artifact_type.clone().filter(|artifact_type| !artifact_type.is_empty());
    let artifact_type = own.or_else(|| match &manifest.content {
        Content::Image { config, .. } => Some(config.media_type.clone()),
        Content::Index { .. } | Content::Schema1 { .. } => None,
    });
    Descriptor {
        media_type: manifest.media_type.clone(),
        digest,
        size,
        urls: Vec::new(),
        annotations: manifest.annotations.clone(),
        platform: None,
        artifact_type,
        data: None,
    }
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
