//! Which blobs came into which repositories lately: what a mount without a source is looked up in.
//!
//! A bounded guess, never an authority: the store says whether the blob is there, the policy whether the caller may
//! read it there.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use portcullis_oci::{Digest, RepositoryName};

/// How many pairs are remembered.
const PAIRS: usize = 4096;

/// The last pairs of this run, newest first.
#[derive(Debug, Default)]
pub(crate) struct RecentBlobs(Mutex<VecDeque<(Digest, RepositoryName)>>);

impl RecentBlobs {
    pub(crate) fn note(&self, digest: &Digest, repository: &RepositoryName) {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.truncate(PAIRS - 1);
        pairs.push_front((*digest, repository.clone()));
    }

    /// The repositories that the blob came into, the latest first, each once.
    pub(crate) fn repositories_of(&self, digest: &Digest) -> Vec<RepositoryName> {
        let pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<RepositoryName> = Vec::new();
        for (_, repository) in pairs.iter().filter(|(known, _)| known == digest) {
            if !found.contains(repository) {
                found.push(repository.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    #[test]
    fn the_oldest_pair_is_forgotten_past_the_bound() {
        let recent = RecentBlobs::default();
        let digest = |n: usize| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
        let repository: RepositoryName = "a".parse().expect("a name");
        for n in 0..PAIRS {
            recent.note(&digest(n), &repository);
        }
        assert_eq!(recent.repositories_of(&digest(0)), std::slice::from_ref(&repository));
        recent.note(&digest(PAIRS), &repository);
        assert_eq!(recent.repositories_of(&digest(0)), []);
        assert_eq!(recent.repositories_of(&digest(1)), [repository]);
    }
}
