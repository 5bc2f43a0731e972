//! One step of a run: where it begins, how much it may read, and what it gives back.
//!
//! Places are names, never paths: whoever sends a step over a socket cannot make it read anything else.

use std::collections::BTreeSet;

use portcullis_oci::{Algorithm, Digest, Hasher, RepositoryName};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, User};
use super::{ALGORITHMS, Counts, Progress, Purpose};
use crate::backend::Stamp;
use crate::error::StoreError;
use crate::store::Store;

/// How many names one step looks at.
pub(super) const NAMES: usize = 1_000;
/// The most bytes of blobs one step reads, whatever it was asked for.
const MAX_BYTES: u64 = 64 << 20;

/// What to do next. Made by [`Fsck::next_step`](super::Fsck::next_step).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub(super) purpose: Purpose,
    pub(super) asking: Asking,
    pub(super) place: Place,
    /// Digests whose users are wanted.
    pub(super) watched: BTreeSet<Digest>,
    pub(super) bytes: u64,
}

/// What a step has found, for [`Fsck::take`](super::Fsck::take).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub(super) findings: Vec<Finding>,
    /// Users of watched digests.
    pub(super) users: Vec<(Digest, User)>,
    /// For a run for Distribution: the manifests that tags point to.
    pub(super) tagged: Vec<User>,
    pub(super) counts: Counts,
    pub(super) next: Option<Place>,
}

impl Outcome {
    /// Enough was found for one answer: the step ends early.
    pub(super) fn is_full(&self) -> bool {
        self.findings.len() >= NAMES || self.users.len() >= 4 * NAMES
    }
}

/// Which question a pass over the repositories answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Asking {
    /// What is there to find.
    Everything,
    /// Which of the watched digests some manifest names literally.
    WhoNames,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    /// Among the blobs: the two first digits, and the last name looked at.
    Blobs { algorithm: Algorithm, prefix: u8, after: Option<String>, within: Option<Within> },
    /// At what a repair has brought back, to hash it.
    Again { digests: Vec<Digest>, within: Option<Within> },
    /// Among the repositories: some of them, the first one under way, and the last one that was listed.
    Repositories { page: Vec<RepositoryName>, last: Option<RepositoryName>, part: Part, after: Option<String> },
}

/// A large blob whose hash is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Within {
    pub(super) digest: Digest,
    pub(super) offset: u64,
    pub(super) state: Vec<u8>,
    pub(super) stamp: Stamp,
}

/// The parts of a repository, in the order in which they are looked at: tags last, so that what manifests lack is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    Unknown,
    Layers(Algorithm),
    Revisions(Algorithm),
    Tags,
}

impl Store {
    /// Makes one step of a check. Reads at most the step's bytes and 1,000 names, and a manifest more.
    ///
    /// # Errors
    /// The disk failed in listing what there is, or in a repair. That a blob cannot be read is a finding.
    pub fn fsck_step(&self, step: &Step) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        let next = match &step.place {
            Place::Blobs { algorithm, prefix, after, within } => {
                let at = (*algorithm, *prefix, after.clone(), within.clone());
                self.check_blobs(step, at, step.bytes.clamp(1, MAX_BYTES), &mut outcome)?
            }
            Place::Again { digests, within } => {
                self.check_again(step, digests, within.clone(), step.bytes.clamp(1, MAX_BYTES), &mut outcome)?
            }
            Place::Repositories { page, last, part, after } => match page.first() {
                Some(repository) => {
                    let is_begun = *part == Part::first(step.purpose) && after.is_none();
                    outcome.counts.repositories += u64::from(is_begun);
                    let after = self.check_part(step, repository, *part, after.as_deref(), &mut outcome)?;
                    Some(Place::in_repository(page, last.as_ref(), *part, after, step.purpose))
                }
                None => self.next_page(last.as_ref(), step.purpose)?,
            },
        };
        outcome.next = next;
        Ok(outcome)
    }

    /// The next repositories. `None`: there are no more.
    fn next_page(&self, last: Option<&RepositoryName>, purpose: Purpose) -> Result<Option<Place>, StoreError> {
        const PAGE: usize = 200;
        let page = self.repositories(last.map(RepositoryName::as_str), PAGE)?;
        let Some(last) = page.last().cloned() else { return Ok(None) };
        Ok(Some(Place::Repositories { page, last: Some(last), part: Part::first(purpose), after: None }))
    }

    fn check_part(
        &self,
        step: &Step,
        repository: &RepositoryName,
        part: Part,
        after: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<Option<String>, StoreError> {
        match (step.purpose, part) {
            (_, Part::Unknown) => {
                self.check_algorithms(repository, outcome)?;
                Ok(None)
            }
            (_, Part::Layers(algorithm)) => self.check_layers(step, repository, algorithm, after, outcome),
            (Purpose::ForDistribution, Part::Revisions(algorithm)) => {
                self.check_revisions_for_distribution(step, repository, algorithm, after, outcome)
            }
            (_, Part::Revisions(algorithm)) => self.check_revisions(step, repository, algorithm, after, outcome),
            (_, Part::Tags) => self.check_tags(step, repository, after, outcome),
        }
    }
}

impl Place {
    pub(super) fn first_blob() -> Self {
        Self::Blobs { algorithm: ALGORITHMS[0], prefix: 0, after: None, within: None }
    }

    pub(super) fn first_repository() -> Self {
        Self::Repositories { page: Vec::new(), last: None, part: Part::Unknown, after: None }
    }

    pub(super) fn forget_hash(&mut self) {
        if let Self::Blobs { within, .. } | Self::Again { within, .. } = self {
            *within = None;
        }
    }

    /// What follows the two digits `prefix` of an algorithm.
    pub(super) fn after_prefix(algorithm: Algorithm, prefix: u8) -> Self {
        if let Some(prefix) = prefix.checked_add(1) {
            return Self::Blobs { algorithm, prefix, after: None, within: None };
        }
        match following(algorithm) {
            Some(algorithm) => Self::Blobs { algorithm, prefix: 0, after: None, within: None },
            None => Self::first_repository(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        match self {
            // Digests are spread evenly; nearly all are of the first algorithm.
            Self::Blobs { algorithm, prefix, .. } if *algorithm == ALGORITHMS[0] => {
                Progress::Blobs(f64::from(*prefix) / 256.0)
            }
            Self::Blobs { .. } => Progress::Blobs(1.0),
            Self::Repositories { .. } | Self::Again { .. } => Progress::Repositories,
        }
    }

    /// `after`: where the part goes on, if it does.
    fn in_repository(
        page: &[RepositoryName],
        last: Option<&RepositoryName>,
        part: Part,
        after: Option<String>,
        purpose: Purpose,
    ) -> Self {
        let (page, part) = match (&after, part.following()) {
            (Some(_), _) => (page, part),
            (None, Some(next)) => (page, next),
            (None, None) => (&page[1..], Part::first(purpose)),
        };
        Self::Repositories { page: page.to_vec(), last: last.cloned(), part, after }
    }
}

impl Part {
    fn first(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Check | Purpose::Repair => Self::Unknown,
            Purpose::ForDistribution => Self::Revisions(ALGORITHMS[0]),
        }
    }

    fn following(self) -> Option<Self> {
        match self {
            Self::Unknown => Some(Self::Layers(ALGORITHMS[0])),
            Self::Layers(algorithm) => Some(following(algorithm).map_or(Self::Revisions(ALGORITHMS[0]), Self::Layers)),
            Self::Revisions(algorithm) => Some(following(algorithm).map_or(Self::Tags, Self::Revisions)),
            Self::Tags => None,
        }
    }
}

fn following(algorithm: Algorithm) -> Option<Algorithm> {
    let at = ALGORITHMS.iter().position(|known| *known == algorithm)?;
    ALGORITHMS.get(at + 1).copied()
}

impl Within {
    /// The hash as it stood. `None`: the state is not one of this program.
    pub(super) fn hasher(&self) -> Option<Hasher> {
        Hasher::restore(self.digest.algorithm(), &self.state)
    }
}
