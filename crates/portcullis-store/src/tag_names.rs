//! The sorted tag names of repositories: a page of a repository with 100,000 tags must not read its directory again.
//!
//! A cache of directories. What is known of one counts while the directory has the stamp it was read with. Our own
//! writes are followed, which also covers two changes within one tick of the file system's clock; a change by anybody
//! else has another stamp, and the directory is read again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_oci::{RepositoryName, Tag};

use crate::backend::ListingStamp;
use crate::error::StoreError;
use crate::layout;
use crate::lru::Lru;
use crate::store::{Inner, lock};

/// How many directories are read as a whole at once: each costs up to several times the share of memory there is.
const TURNS: usize = 4;
/// What one name takes while its directory is read, roughly.
const NAME_BYTES: usize = 64;

/// The names that are known.
#[derive(Debug)]
pub(crate) struct TagNames {
    known: Mutex<Known>,
    turns: [Mutex<()>; TURNS],
}

#[derive(Debug)]
struct Known {
    repositories: Lru<Directory>,
    /// Beginnings and ends of our own writes: what was read across one is not kept.
    writes: u64,
}

#[derive(Debug)]
struct Directory {
    stamp: ListingStamp,
    names: Read,
}

/// What a directory was found to be.
#[derive(Debug, Clone)]
pub(crate) enum Read {
    Names(Arc<Names>),
    /// More than can be kept: it is read page by page.
    TooMany,
}

/// Names in byte order, one after the other in one text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    text: String,
    /// Where each name ends.
    ends: Vec<usize>,
}

/// What a write does to the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Adds,
    Removes,
}

impl TagNames {
    /// `most_bytes` for all repositories together.
    pub(crate) fn new(most_bytes: usize) -> Self {
        let known = Known { repositories: Lru::new(most_bytes), writes: 0 };
        Self { known: Mutex::new(known), turns: Default::default() }
    }

    fn find(&self, repository: &RepositoryName, stamp: ListingStamp) -> Option<Read> {
        let mut known = self.known();
        let directory = known.repositories.get(repository)?;
        (directory.stamp == stamp).then(|| directory.names.clone())
    }

    /// Keeps what was read while the directory had `stamp` and `writes` had been begun and ended.
    fn keep(&self, repository: &RepositoryName, stamp: ListingStamp, writes: u64, names: &Read) {
        let mut known = self.known();
        if known.writes == writes {
            known.repositories.put(repository, Directory { stamp, names: names.clone() }, names.bytes());
        }
    }

    /// `true`: the names of this repository are known, and should be followed.
    fn begin_write(&self, repository: &RepositoryName) -> bool {
        let mut known = self.known();
        known.writes += 1;
        known.repositories.get(repository).is_some()
    }

    /// `stamps`: before and after the write, where both are known.
    fn end_write(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        effect: Effect,
        stamps: Option<(ListingStamp, ListingStamp)>,
    ) {
        let mut known = self.known();
        known.writes += 1;
        let Some(Directory { stamp, mut names }) = known.repositories.remove(repository) else { return };
        let Some((_, after)) = stamps.filter(|(before, _)| *before == stamp) else { return };
        if let Read::Names(names) = &mut names {
            Arc::make_mut(names).apply(effect, tag.as_str());
        }
        let bytes = names.bytes();
        known.repositories.put(repository, Directory { stamp: after, names }, bytes);
    }

    fn writes(&self) -> u64 {
        self.known().writes
    }

    fn turn(&self, repository: &RepositoryName) -> MutexGuard<'_, ()> {
        lock(&self.turns, repository)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // An entry is taken out while it is changed: a panic loses it, and it is read again.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The names below a repository's `tags/` that are tags by their grammar, whether they have a link or not. `None`
    /// where there is nothing, where they are too many, and where storage cannot say whether they have changed.
    pub(crate) fn tag_names(&self, repository: &RepositoryName) -> Result<Option<Arc<Names>>, StoreError> {
        let Some(known) = self.known_tag_names(repository)? else { return Ok(None) };
        Ok(match known {
            Read::Names(names) => Some(names),
            Read::TooMany => None,
        })
    }

    /// Makes `write`, which adds the tag to the repository or takes it away, known. The caller holds the repository's
    /// lock.
    pub(crate) fn following<T>(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        effect: Effect,
        write: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A stamp that cannot be read is no reason to fail: the names are forgotten, and read again.
        let stamp = || self.backend.listing_stamp(&layout::tags(repository)).ok().flatten();
        let before = if self.tag_names.begin_write(repository) { stamp() } else { None };
        let done = write();
        let stamps = before.filter(|_| done.is_ok()).zip(before.and_then(|_| stamp()));
        self.tag_names.end_write(repository, tag, effect, stamps);
        done
    }

    fn known_tag_names(&self, repository: &RepositoryName) -> Result<Option<Read>, StoreError> {
        let prefix = layout::tags(repository);
        let Some(stamp) = self.backend.listing_stamp(&prefix)? else { return Ok(None) };
        if let Some(names) = self.tag_names.find(repository, stamp) {
            return Ok(Some(names));
        }
        let _turn = self.tag_names.turn(repository);
        let writes = self.tag_names.writes();
        let Some(stamp) = self.backend.listing_stamp(&prefix)? else { return Ok(None) };
        // Somebody may have read it while this one waited for its turn.
        if let Some(names) = self.tag_names.find(repository, stamp) {
            return Ok(Some(names));
        }
        let most = self.tag_names.known().repositories.most_bytes() / NAME_BYTES;
        let names = match self.backend.list(&prefix, None, most + 1)? {
            names if names.len() > most => Read::TooMany,
            names => Read::Names(Arc::new(Names::of(&names))),
        };
        if self.backend.listing_stamp(&prefix)? == Some(stamp) {
            self.tag_names.keep(repository, stamp, writes, &names);
        }
        Ok(Some(names))
    }
}

impl Read {
    fn bytes(&self) -> usize {
        match self {
            Self::Names(names) => names.text.capacity() + names.ends.capacity() * size_of::<usize>(),
            Self::TooMany => 0,
        }
    }
}

impl Names {
    /// Of a list in byte order; what is no tag is left out.
    fn of(names: &[String]) -> Self {
        let mut all = Self::default();
        for name in names.iter().filter(|name| name.parse::<Tag>().is_ok()) {
            all.text.push_str(name);
            all.ends.push(all.text.len());
        }
        all.text.shrink_to_fit();
        all.ends.shrink_to_fit();
        all
    }

    /// Those that sort after `after`.
    pub(crate) fn after(&self, after: Option<&str>) -> impl Iterator<Item = &str> {
        let first = after.map_or(0, |after| match self.position(after) {
            Ok(at) => at + 1,
            Err(at) => at,
        });
        (first..self.ends.len()).map(|at| self.at(at))
    }

    fn at(&self, at: usize) -> &str {
        &self.text[self.begin(at)..self.ends[at]]
    }

    fn begin(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Where the name is, or where it would be.
    fn position(&self, name: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.at(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    fn apply(&mut self, effect: Effect, name: &str) {
        match (effect, self.position(name)) {
            (Effect::Adds, Err(at)) => {
                let begin = self.begin(at);
                self.text.insert_str(begin, name);
                self.ends.insert(at, begin);
                self.ends[at..].iter_mut().for_each(|end| *end += name.len());
            }
            (Effect::Removes, Ok(at)) => {
                self.text.drain(self.begin(at)..self.ends[at]);
                self.ends.remove(at);
                self.ends[at..].iter_mut().for_each(|end| *end -= name.len());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_a_sorted_set(changes in prop::collection::vec((any::<bool>(), "[a-c][a-c.]{0,2}"), 0..60), after in "[a-d.]{0,3}") {
            let (mut names, mut model) = (Names::default(), BTreeSet::new());
            for (adds, name) in changes {
                if adds { model.insert(name.clone()) } else { model.remove(&name) };
                names.apply(if adds { Effect::Adds } else { Effect::Removes }, &name);
            }
            let all: Vec<String> = model.iter().cloned().collect();
            prop_assert_eq!(names.after(None).collect::<Vec<_>>(), all.clone());
            let later: Vec<&String> = all.iter().filter(|name| **name > after).collect();
            prop_assert_eq!(names.after(Some(&after)).collect::<Vec<_>>(), later);
            prop_assert_eq!(Names::of(&all), names);
        }
    }
}
