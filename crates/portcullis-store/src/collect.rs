//! Garbage collection, while everything else goes on: in bounded steps, with no lock that a request could wait for long.
//!
//! Links die first, then blobs. A round marks all that must stay, in every repository; only when that is complete does
//! it remove anything, each link and blob under its own lock and only if nobody was [promised](crate::promise) it since
//! the round began. Nothing about what is garbage outlives the round: the next one looks again.

mod mark;
mod marks;
mod names;
mod sweep;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use portcullis_oci::{Digest, RepositoryName, Tag};

use self::mark::{Dead, Mark, Marked, Room};
use self::marks::Marks;
use self::names::Walk;
use self::sweep::Blobs;
use crate::error::StoreError;
use crate::store::{Inner, Store};

/// How much one step looks at or removes.
const BATCH: usize = 256;
/// What a collection takes of memory.
const LIMITS: Limits = Limits { dead: 100_000, marks: 3_500_000, known: 3_500_000 };
/// How many obstacles, and in a dry run removals, are told one by one; all are counted.
const MAX_TOLD: usize = 1000;

/// Whether a collection removes what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It does.
    Real,
    /// It only says what it would remove.
    DryRun,
}

/// What a collection remembers at most. What has no room has its turn in another round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Links and manifests that one round removes; 32 names of a manifest count as one more. Some 500 bytes each.
    pub(crate) dead: usize,
    /// Digests of what must stay. At most 11 bytes each when this is just below 7/8 of a power of two, twice that else.
    pub(crate) marks: usize,
    /// Numbers known of the one repository that is looked at: what its tags and manifests name and, where untagged
    /// manifests go, six for each manifest and one for each child. At most 22 bytes each.
    pub(crate) known: usize,
}

/// A collection under way. One at a time, and it ends when this is dropped.
///
/// ```
/// # use portcullis_store::{Removal, Store, StoreOptions};
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path(), &StoreOptions::default())?;
/// let mut collection = store.collect(Removal::DryRun)?;
/// while collection.step()? {}
/// println!("{} bytes would be freed", collection.so_far().removed.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Collection {
    inner: Arc<Inner>,
    removal: Removal,
    phase: Phase,
    limits: Limits,
    marks: Marks,
    dead: VecDeque<Dead>,
    /// The weight of `dead`.
    remembered: usize,
    done: Collected,
    /// What had been removed when this round began.
    before: Tally,
}

/// What a collection has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// What it is doing, for people.
    pub doing: &'static str,
    /// Repositories looked at.
    pub repositories: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// What was removed: blobs lie in the trash now. In a dry run: what would be.
    pub removed: Tally,
    /// What was removed from the trash, for good.
    pub purged: Tally,
    /// What stops removals, the first thousand.
    pub held: Vec<Held>,
    /// How many repositories nothing is removed from.
    pub repositories_held: u64,
    /// Directories among the repositories that are none and hold something: while there is one, no blob is removed.
    pub strangers: Vec<String>,
    /// In a dry run: what would be removed, the first thousand, each with its repository where it has one.
    pub listed: Vec<Listed>,
    /// There is more to remove than one round remembers; a dry run stops here, another collection goes on by itself.
    pub more: bool,
}

/// Numbers of things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Manifests.
    pub manifests: u64,
    /// Links of layers and configs in repositories.
    pub links: u64,
    /// Blobs, the bytes of manifests among them.
    pub blobs: u64,
    /// The bytes of those blobs.
    pub bytes: u64,
}

/// Something that a dry run would remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A manifest of a repository.
    Manifest(RepositoryName, Digest),
    /// The link of a layer or config in a repository.
    Link(RepositoryName, Digest),
    /// A blob, with its size.
    Blob(Digest, u64),
}

/// Why nothing is removed from a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The repository.
    pub repository: RepositoryName,
    /// What is in the way.
    pub obstacle: Obstacle,
}

/// What could use anything, because it cannot be read or understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A manifest, and why. The reason may hold text that a peer chose.
    Manifest(Digest, String),
    /// A layer link that a manifest names and that holds no digest, while no data has its name.
    Link(Digest),
    /// Manifests by digests of this algorithm, which is not known here.
    Algorithm(String),
    /// A tag that holds no digest, where untagged manifests shall go.
    Tag(Tag),
    /// The repository's tags and manifests name more different digests than this, which is more than is remembered.
    TooMany(usize),
}

#[derive(Debug)]
enum Phase {
    Mark(Walk, Option<Box<Mark>>),
    Links,
    Blobs(Blobs),
    Trash,
    Ended,
}

impl Store {
    /// Begins a collection; it goes on with each [`Collection::step`].
    ///
    /// # Errors
    /// [`StoreError::Collecting`] while another one runs.
    pub fn collect(&self, removal: Removal) -> Result<Collection, StoreError> {
        self.collect_within(LIMITS, removal)
    }

    pub(crate) fn collect_within(&self, limits: Limits, removal: Removal) -> Result<Collection, StoreError> {
        if !self.inner.promises.begin() {
            return Err(StoreError::Collecting);
        }
        Ok(Collection {
            inner: Arc::clone(&self.inner),
            removal,
            phase: Phase::Mark(Walk::default(), None),
            limits,
            marks: Marks::new(limits.marks),
            dead: VecDeque::new(),
            remembered: 0,
            done: Collected { doing: "reading manifests", ..Collected::default() },
            before: Tally::default(),
        })
    }

    /// Removes for good what has been in the trash long enough, at most a few hundred blobs. Returns how many.
    pub fn purge_trash(&self) -> Result<Tally, StoreError> {
        let reaped = self.inner.purge(BATCH)?;
        Ok(Tally { blobs: reaped.objects as u64, bytes: reaped.bytes, ..Tally::default() })
    }
}

impl Collection {
    /// Does a little more. `false`: that was all.
    ///
    /// # Errors
    /// The collection has ended. While it was still marking, nothing was removed.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        // An error leaves it ended: what was marked until then is not complete.
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        self.phase = self.advance(phase)?;
        self.done.doing = match &self.phase {
            Phase::Mark(..) => "reading manifests",
            Phase::Links => "removing links",
            Phase::Blobs(_) => "removing blobs",
            Phase::Trash => "emptying the trash",
            Phase::Ended => "done",
        };
        Ok(!matches!(self.phase, Phase::Ended))
    }

    /// What it has done until now.
    pub fn so_far(&self) -> &Collected {
        &self.done
    }

    fn advance(&mut self, phase: Phase) -> Result<Phase, StoreError> {
        match phase {
            Phase::Mark(walk, current) => self.mark(walk, current),
            Phase::Links => match self.dead.pop_front() {
                Some(dead) => self.sweep_links(dead).map(|()| Phase::Links),
                None if !self.done.strangers.is_empty() => Ok(Phase::Trash),
                None => Ok(Phase::Blobs(Blobs::default())),
            },
            Phase::Blobs(mut blobs) => match blobs.next_batch(&self.inner)? {
                Some(batch) => self.sweep_blobs(&batch).map(|()| Phase::Blobs(blobs)),
                None => Ok(Phase::Trash),
            },
            Phase::Trash if self.removal == Removal::DryRun => {
                // It cannot go on as a real one does, which no longer meets what it has removed.
                self.done.more |= self.marks.is_partial();
                Ok(Phase::Ended)
            }
            Phase::Trash => {
                let reaped = self.inner.purge(BATCH)?;
                self.done.purged.blobs += reaped.objects as u64;
                self.done.purged.bytes += reaped.bytes;
                if reaped.objects == 0 { Ok(self.next_round()) } else { Ok(Phase::Trash) }
            }
            Phase::Ended => Ok(Phase::Ended),
        }
    }

    /// Another round, when this one had no room for all that must stay, or none for all the dead and came on.
    fn next_round(&mut self) -> Phase {
        self.marks = match self.marks.of_next_part() {
            Some(marks) => marks,
            None if self.done.more && self.done.removed != self.before => {
                (self.done.more, self.before) = (false, self.done.removed);
                Marks::new(self.limits.marks)
            }
            None => return Phase::Ended,
        };
        self.remembered = 0;
        (self.done.held, self.done.repositories_held) = (Vec::new(), 0);
        (self.done.repositories, self.done.manifests, self.done.blobs) = (0, 0, 0);
        Phase::Mark(Walk::default(), None)
    }

    fn mark(&mut self, mut walk: Walk, current: Option<Box<Mark>>) -> Result<Phase, StoreError> {
        let Some(mut mark) = current else {
            let next = walk.next(&self.inner, &mut self.done.strangers)?;
            return Ok(match next {
                names::Next::Repository(repository) => {
                    self.inner.wait_for_puts(&repository);
                    let room = Room { dead: self.limits.dead - self.remembered, known: self.limits.known };
                    Phase::Mark(walk, Some(Box::new(Mark::new(repository, room))))
                }
                names::Next::Later => Phase::Mark(walk, None),
                names::Next::End => Phase::Links,
            });
        };
        match mark.step(&self.inner, &mut self.marks)? {
            None => Ok(Phase::Mark(walk, Some(mark))),
            Some(marked) => {
                self.take(marked);
                Ok(Phase::Mark(walk, None))
            }
        }
    }

    /// Remembers what died in one repository, as far as there is room.
    fn take(&mut self, marked: Marked) {
        let Marked { dead, weight, more, manifests, held } = marked;
        self.done.repositories += 1;
        self.done.manifests += manifests;
        self.done.repositories_held += u64::from(!held.is_empty());
        let room = MAX_TOLD.saturating_sub(self.done.held.len());
        self.done.held.extend(held.into_iter().take(room));
        self.done.more |= more;
        self.remembered = self.limits.dead.min(self.remembered + weight);
        if dead.len() > 0 {
            self.dead.push_back(dead);
        }
    }

    fn list(&mut self, listed: Listed) {
        if self.removal == Removal::DryRun && self.done.listed.len() < MAX_TOLD {
            self.done.listed.push(listed);
        }
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.inner.promises.end();
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(digest, why) => write!(f, "manifest {digest}: {why}"),
            Self::Link(digest) => write!(f, "the link of layer {digest} holds no digest, and no blob has its name"),
            Self::Algorithm(algorithm) => write!(f, "manifests by {algorithm}, which is not known here"),
            Self::Tag(tag) => write!(f, "tag {tag} holds no digest"),
            Self::TooMany(most) => write!(f, "its tags and manifests name more than {most} different digests"),
        }
    }
}
