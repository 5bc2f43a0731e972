//! What was written to a repository while somebody reads all of it without its lock.
//!
//! Reading every manifest or tag of a large repository takes longer than anybody should wait for a lock. Whoever does so
//! begins a [`Reading`], reads, takes the repository's lock, and looks at what was written meanwhile. Must not know what
//! they look for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_oci::{Digest, Manifest, RepositoryName, Tag};

/// What one reading keeps: so many changes, and manifests of so many bytes in all. Past it, it has to read again.
const MOST_CHANGES: usize = 1000;
const MOST_BYTES: usize = 8 << 20;

/// One change of a repository.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A manifest that became visible, perhaps again. The tags may not all point to it: they may have changed again.
    Put(Arc<Put>),
    /// A manifest that went.
    Removed(Digest),
}

/// What became visible.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: usize,
    /// `None`: it cannot be understood.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) tags: Vec<Tag>,
}

/// All readings under way.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Vec<Arc<Notes>>>);

/// Somebody reads a repository.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    journal: &'a Journal,
    notes: Arc<Notes>,
}

#[derive(Debug)]
struct Notes {
    repository: RepositoryName,
    /// `None`: more than is kept was written, or something that nobody can tell.
    changes: Mutex<Option<Vec<Change>>>,
}

impl Journal {
    /// From now on what is written to the repository is noted.
    pub(crate) fn begin(&self, repository: &RepositoryName) -> Reading<'_> {
        let notes = Notes { repository: repository.clone(), changes: Mutex::new(Some(Vec::new())) };
        let notes = Arc::new(notes);
        self.readings().push(Arc::clone(&notes));
        Reading { journal: self, notes }
    }

    /// Whether anybody reads the repository.
    pub(crate) fn is_read(&self, repository: &RepositoryName) -> bool {
        self.readings().iter().any(|notes| notes.repository == *repository)
    }

    /// The caller holds the repository's lock.
    pub(crate) fn note(&self, repository: &RepositoryName, change: &Change) {
        for notes in self.readings().iter().filter(|notes| notes.repository == *repository) {
            notes.add(change);
        }
    }

    /// Something was written, and nobody knows what; with `None`, to any repository.
    pub(crate) fn note_unknown(&self, repository: Option<&RepositoryName>) {
        let concerns = |notes: &&Arc<Notes>| repository.is_none_or(|repository| notes.repository == *repository);
        for notes in self.readings().iter().filter(concerns) {
            *notes.changes() = None;
        }
    }

    fn readings(&self) -> MutexGuard<'_, Vec<Arc<Notes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading<'_> {
    /// What was written since it began, in order. `None`: all is to be read again. The caller holds the repository's lock.
    pub(crate) fn changes(&self) -> Option<Vec<Change>> {
        self.notes.changes().clone()
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.journal.readings().retain(|notes| !Arc::ptr_eq(notes, &self.notes));
    }
}

impl Notes {
    fn add(&self, change: &Change) {
        let mut changes = self.changes();
        let Some(noted) = changes.as_mut() else { return };
        noted.push(change.clone());
        let bytes: usize = noted.iter().map(Change::bytes).sum();
        if noted.len() > MOST_CHANGES || bytes > MOST_BYTES {
            *changes = None;
        }
    }

    fn changes(&self) -> MutexGuard<'_, Option<Vec<Change>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.size,
            Self::Removed(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    fn put(size: usize) -> Change {
        let digest = Digest::of(Algorithm::Sha256, b"");
        Change::Put(Arc::new(Put { digest, size, manifest: None, tags: Vec::new() }))
    }

    #[test]
    fn what_is_written_while_somebody_reads_is_noted_up_to_a_bound() {
        let (journal, app): (_, RepositoryName) = (Journal::default(), "app".parse().unwrap());
        let noted = |changes: &[(usize, usize)]| {
            let reading = journal.begin(&app);
            journal.note(&"other".parse().unwrap(), &put(1));
            for (size, times) in changes {
                (0..*times).for_each(|_| journal.note(&app, &put(*size)));
            }
            reading.changes().map(|changes| changes.len())
        };
        assert_eq!(noted(&[]), Some(0));
        assert_eq!(noted(&[(1, MOST_CHANGES)]), Some(MOST_CHANGES));
        assert_eq!(noted(&[(1, MOST_CHANGES + 1)]), None);
        assert_eq!(noted(&[(MOST_BYTES / 2, 2)]), Some(2));
        assert_eq!(noted(&[(MOST_BYTES / 2, 2), (1, 1)]), None);
        assert!(!journal.is_read(&app), "none is left");
    }

    #[test]
    fn what_nobody_can_tell_is_to_be_read_again() {
        let (journal, app): (_, RepositoryName) = (Journal::default(), "app".parse().unwrap());
        let reading = journal.begin(&app);
        journal.note_unknown(Some(&"other".parse().unwrap()));
        assert!(reading.changes().is_some());
        journal.note_unknown(Some(&app));
        assert!(reading.changes().is_none());
        let reading = journal.begin(&app);
        journal.note_unknown(None);
        assert!(reading.changes().is_none());
    }
}
