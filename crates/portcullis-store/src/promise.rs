//! What clients were told is there, and may rely on in their next request.
//!
//! A HEAD that answers 200, a mount, a finished upload and every check of a manifest's children are promises: the link
//! is made young again, and a collection that runs meanwhile is told. Both happen under the digest's lock and after
//! everything else. So a link that was made or found before a collection began is seen by its marking, one that was
//! found since is in its set, and there is nothing between the two.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_oci::{Digest, RepositoryName};

use crate::backend::Stamp;
use crate::error::StoreError;
use crate::layout::Key;
use crate::store::Inner;

/// How many promises of one kind are kept one by one; at most 11 bytes each. Past it everything counts as promised, and
/// the collection that runs removes nothing more.
const MOST: usize = 3_500_000;

/// The promises made since the collection that runs began; none are kept while none runs.
#[derive(Debug, Default)]
pub(crate) struct Promises(Mutex<Option<Since>>);

/// Kept by their hashes: two that share one cost a dead link one more round, never a live one.
#[derive(Debug, Default)]
struct Since {
    links: HashSet<u64>,
    blobs: HashSet<u64>,
    /// There were too many to keep them one by one.
    everything: bool,
}

impl Promises {
    /// Keeps promises from now on. `false`: another collection runs.
    pub(crate) fn begin(&self) -> bool {
        let mut since = self.since();
        let free = since.is_none();
        if free {
            *since = Some(Since::default());
        }
        free
    }

    pub(crate) fn end(&self) {
        *self.since() = None;
    }

    /// The caller holds the digest's lock, for this and for the two below.
    fn enter(&self, repository: &RepositoryName, name: &Digest, target: &Digest) {
        if let Some(since) = self.since().as_mut() {
            since.note(hash(&(repository, name)), [hash(name), hash(target)], MOST);
        }
    }

    pub(crate) fn has_link(&self, repository: &RepositoryName, name: &Digest) -> bool {
        self.since().as_ref().is_some_and(|since| since.everything || since.links.contains(&hash(&(repository, name))))
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.since().as_ref().is_some_and(|since| since.everything || since.blobs.contains(&hash(digest)))
    }

    fn since(&self) -> MutexGuard<'_, Option<Since>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Since {
    fn note(&mut self, link: u64, blobs: [u64; 2], most: usize) {
        if self.everything {
            return;
        }
        self.links.insert(link);
        self.blobs.extend(blobs);
        if self.links.len().max(self.blobs.len()) > most {
            *self = Self { everything: true, ..Self::default() };
        }
    }
}

impl Inner {
    /// Promises what `link`, which has the name of `name`, resolves to. The caller holds the digest's lock and has
    /// found or made both.
    ///
    /// A link is renewed when a quarter of the grace is over. That bounds the cost to four metadata writes per link and
    /// grace, however often it is asked for, and still leaves every answer three quarters of the grace. It is not
    /// synced: a power cut ends the client's push as well, and at worst the manifest is refused and sent again.
    ///
    /// # Errors
    /// What could not be renewed is not promised.
    pub(crate) fn promise(
        &self,
        repository: &RepositoryName,
        link: &Key,
        name: &Digest,
        target: &Digest,
    ) -> Result<(), StoreError> {
        self.promise_found(repository, link, self.backend.stat(link)?, [name, target])
    }

    /// The same for a link that the caller has looked at under the same lock: `found` is how it is.
    pub(crate) fn promise_found(
        &self,
        repository: &RepositoryName,
        link: &Key,
        found: Option<Stamp>,
        [name, target]: [&Digest; 2],
    ) -> Result<(), StoreError> {
        let age = |written: u64| self.backend.now().saturating_sub(written);
        if found.is_none_or(|stamp| age(stamp.written) > self.grace.as_secs() / 4) {
            match self.backend.renew(link) {
                // On a volume that cannot be written nothing gets younger, and nothing is collected either.
                Err(StoreError::Io { source, .. }) if is_read_only(&source) => {}
                done => done?,
            }
        }
        self.promises.enter(repository, name, target);
        Ok(())
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_promises_than_are_kept_are_kept_all_the_same() {
        let mut since = Since::default();
        since.note(1, [2, 2], 2);
        since.note(1, [2, 3], 2);
        assert!(!since.everything, "at the limit");
        since.note(4, [2, 5], 2);
        assert!(since.everything, "past it");
        since.note(6, [7, 8], 2);
        assert!(since.everything && since.links.is_empty() && since.blobs.is_empty());
    }
}
