//! Which manifests of a repository refer to which subject.
//!
//! Not stored: the manifests are the truth. The referrers of a repository are read from its manifests at the first
//! question in the life of a process, without its lock, and kept up by our own writes from then on; nothing else writes.
//! A repository whose referrers take more than their share of memory is read for each page, and a page is bounded.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_oci::{Content, Descriptor, Digest, Manifest, RepositoryName, manifest};

use crate::error::StoreError;
use crate::journal::{Change, Put};
use crate::lru::Lru;
use crate::store::{Inner, Store, lock};

/// What an entry takes beside its texts, roughly, and each annotation beside its own.
const ENTRY_BYTES: usize = 512;
const ANNOTATION_BYTES: usize = 96;
/// How many repositories are read at once: each may take the share of all.
const TURNS: usize = 2;

/// Which referrers are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrersQuery {
    /// What they refer to.
    pub subject: Digest,
    /// Only those of this type.
    pub artifact_type: Option<String>,
    /// Only those whose digests sort after this one.
    pub after: Option<Digest>,
    /// At most so many.
    pub most: usize,
    /// At most so many bytes of JSON, one referrer in any case.
    pub most_bytes: usize,
}

/// Some referrers, in order of digest, as descriptors with artifact type and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferrersPage {
    /// Empty when there are none, or no such repository.
    pub referrers: Vec<Descriptor>,
    /// There are more after the last one.
    pub more: bool,
}

/// What is known of repositories.
#[derive(Debug)]
pub(crate) struct Referrers {
    known: Mutex<Lru<Known>>,
    turns: [Mutex<()>; TURNS],
}

#[derive(Debug)]
enum Known {
    All(Index),
    /// More than there is room for.
    TooMany,
}

/// One repository's: subject, then referrer.
#[derive(Debug, Default)]
struct Index {
    subjects: BTreeMap<Digest, BTreeMap<Digest, Descriptor>>,
    bytes: usize,
}

/// The first referrers of a query, of those that come in any order.
struct Page<'a> {
    query: &'a ReferrersQuery,
    kept: BTreeMap<Digest, (Descriptor, usize)>,
    bytes: usize,
    /// Nothing from here on is in the page: something had no room.
    end: Option<Digest>,
}

impl ReferrersQuery {
    /// The first of all referrers of a subject: at most 1,000, and 4 MiB of JSON.
    pub fn new(subject: Digest) -> Self {
        Self { subject, artifact_type: None, after: None, most: 1000, most_bytes: manifest::MAX_BYTES }
    }
}

impl Store {
    /// The referrers that a query asks for. The first question about a repository reads all its manifests, at most two
    /// at a time do: see [`Store::knows_referrers`].
    pub fn referrers(&self, repository: &RepositoryName, query: &ReferrersQuery) -> Result<ReferrersPage, StoreError> {
        let answer = self.inner.referrers.known().get(repository).map(|known| known.page(query));
        if let Some(Some(page)) = answer {
            return Ok(page);
        }
        let _turn = self.inner.referrers.turn(repository);
        // Somebody may have read it while this one waited for its turn.
        let answer = self.inner.referrers.known().get(repository).map(|known| known.page(query));
        match answer {
            Some(Some(page)) => Ok(page),
            Some(None) => self.read_page(repository, query),
            None => match self.read_all(repository, query)? {
                Some(page) => Ok(page),
                None => self.read_page(repository, query),
            },
        }
    }

    /// Whether a question about the repository's referrers is answered from memory. A look into memory itself, for whoever
    /// must not keep many threads waiting.
    pub fn knows_referrers(&self, repository: &RepositoryName) -> bool {
        matches!(self.inner.referrers.known().get(repository), Some(Known::All(_)))
    }

    /// Reads all referrers of the repository, which are known from now on. `None`: they are too many.
    fn read_all(
        &self,
        repository: &RepositoryName,
        query: &ReferrersQuery,
    ) -> Result<Option<ReferrersPage>, StoreError> {
        let inner = &self.inner;
        let most = inner.referrers.known().most_bytes();
        let reading = inner.journal.begin(repository);
        let mut index = Index::default();
        self.each_revision(repository, |digest, stored| {
            if let Some((manifest, size)) = stored {
                index.add(digest, &manifest, size);
            }
            index.bytes <= most
        })?;
        // Nobody puts or deletes a manifest here between the last look and the keeping.
        let _repository = inner.lock_repository(repository);
        let changes = reading.changes();
        changes.iter().flatten().for_each(|change| index.apply(change));
        let mut known = inner.referrers.known();
        if index.bytes > most {
            known.put(repository, Known::TooMany, 0);
            return Ok(None);
        }
        let (bytes, page) = (index.bytes, index.page(query));
        if changes.is_some() {
            known.put(repository, Known::All(index), bytes);
        }
        Ok(Some(page))
    }

    /// One page, read from the manifests.
    fn read_page(&self, repository: &RepositoryName, query: &ReferrersQuery) -> Result<ReferrersPage, StoreError> {
        let mut page = Page::new(query);
        self.each_revision(repository, |digest, stored| {
            if let Some((manifest, size)) = stored
                && manifest.subject.as_ref().is_some_and(|subject| subject.digest == query.subject)
            {
                page.add(&descriptor(digest, &manifest, size));
            }
            true
        })?;
        Ok(page.finish())
    }
}

impl Inner {
    /// After a manifest became visible. The caller holds the repository's lock.
    pub(crate) fn note_manifest(&self, repository: &RepositoryName, put: Put) {
        let put = std::sync::Arc::new(put);
        self.note_change(repository, &Change::Put(put));
    }

    /// Whether anybody wants to know what becomes visible in the repository.
    pub(crate) fn is_followed(&self, repository: &RepositoryName) -> bool {
        self.journal.is_read(repository) || self.referrers.known().get(repository).is_some()
    }

    /// After a manifest was removed. The caller holds the repository's lock.
    pub(crate) fn forget_manifest(&self, repository: &RepositoryName, digest: &Digest) {
        self.note_change(repository, &Change::Removed(*digest));
    }

    /// After a change of the repository that failed half-way, and nobody knows where; with `None`, of any.
    pub(crate) fn forget_referrers(&self, repository: Option<&RepositoryName>) {
        self.journal.note_unknown(repository);
        let mut known = self.referrers.known();
        match repository {
            Some(repository) => drop(known.remove(repository)),
            None => known.clear(),
        }
    }

    fn note_change(&self, repository: &RepositoryName, change: &Change) {
        self.journal.note(repository, change);
        let mut known = self.referrers.known();
        // It is taken out while it is changed: a panic loses it, and it is read again.
        match known.remove(repository) {
            Some(Known::All(mut index)) => {
                index.apply(change);
                let bytes = index.bytes;
                known.put(repository, Known::All(index), bytes);
            }
            // Fewer are there when the next one asks, or still too many.
            Some(Known::TooMany) if matches!(change, Change::Removed(_)) => {}
            Some(Known::TooMany) => known.put(repository, Known::TooMany, 0),
            None => {}
        }
    }
}

impl Referrers {
    /// `most_bytes` for the indexes of all repositories together.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { known: Mutex::new(Lru::new(most_bytes)), turns: Default::default() }
    }

    fn known(&self) -> MutexGuard<'_, Lru<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, repository: &RepositoryName) -> MutexGuard<'_, ()> {
        lock(&self.turns, repository)
    }
}

impl Known {
    /// `None`: it has to be read.
    fn page(&self, query: &ReferrersQuery) -> Option<ReferrersPage> {
        match self {
            Self::All(index) => Some(index.page(query)),
            Self::TooMany => None,
        }
    }
}

impl Index {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(put) => {
                if let Some(manifest) = &put.manifest {
                    self.add(put.digest, manifest, put.size as u64);
                }
            }
            Change::Removed(digest) => self.remove(digest),
        }
    }

    fn add(&mut self, digest: Digest, manifest: &Manifest, size: u64) {
        let Some(subject) = &manifest.subject else { return };
        let descriptor = descriptor(digest, manifest, size);
        let bytes = taken_by(&descriptor);
        if self.subjects.entry(subject.digest).or_default().insert(digest, descriptor).is_none() {
            self.bytes += bytes;
        }
    }

    fn remove(&mut self, digest: &Digest) {
        for referrers in self.subjects.values_mut() {
            self.bytes -= referrers.remove(digest).map_or(0, |descriptor| taken_by(&descriptor));
        }
        self.subjects.retain(|_, referrers| !referrers.is_empty());
    }

    fn page(&self, query: &ReferrersQuery) -> ReferrersPage {
        let mut page = Page::new(query);
        let from = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.subjects.get(&query.subject).into_iter();
        // In order: when one has no room, no later one has.
        for (_, descriptor) in found.flat_map(|referrers| referrers.range((from, Bound::Unbounded))) {
            page.add(descriptor);
            if page.end.is_some() {
                break;
            }
        }
        page.finish()
    }
}

impl<'a> Page<'a> {
    fn new(query: &'a ReferrersQuery) -> Self {
        Self { query, kept: BTreeMap::new(), bytes: 0, end: None }
    }

    fn add(&mut self, descriptor: &Descriptor) {
        let ReferrersQuery { artifact_type, after, most, most_bytes, .. } = self.query;
        let is_wanted = artifact_type.is_none() || descriptor.artifact_type == *artifact_type;
        let is_here =
            after.is_none_or(|after| descriptor.digest > after) && self.end.is_none_or(|end| descriptor.digest < end);
        if !is_wanted || !is_here {
            return;
        }
        // A descriptor always serialises.
        let bytes = serde_json::to_vec(descriptor).map_or(0, |json| json.len() + 1);
        self.bytes += bytes;
        self.kept.insert(descriptor.digest, (descriptor.clone(), bytes));
        while self.kept.len() > *most || (self.bytes > *most_bytes && self.kept.len() > 1) {
            let Some((last, (_, bytes))) = self.kept.pop_last() else { break };
            self.bytes -= bytes;
            self.end = Some(last);
        }
    }

    fn finish(self) -> ReferrersPage {
        let referrers = self.kept.into_values().map(|(descriptor, _)| descriptor).collect();
        ReferrersPage { referrers, more: self.end.is_some() }
    }
}

/// What a descriptor takes of the share, roughly.
fn taken_by(descriptor: &Descriptor) -> usize {
    let annotations = descriptor.annotations.iter();
    let annotations: usize = annotations.map(|(key, value)| ANNOTATION_BYTES + key.len() + value.len()).sum();
    let artifact_type = descriptor.artifact_type.as_ref().map_or(0, String::len);
    ENTRY_BYTES + descriptor.media_type.len() + artifact_type + annotations
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
