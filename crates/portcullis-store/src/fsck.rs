//! A check of all that is stored, in bounded steps: the run, what it asks for next, and what it has found so far.
//!
//! A run is plain data. It can be kept in a file and gone on with, and its steps can be made in another process than the
//! one that keeps it: [`Store::fsck_step`](crate::Store::fsck_step) does the work and remembers nothing. Every step reads
//! at most so many bytes and names and holds no lock while it reads; what looks wrong is looked at once more under the
//! locks of those who write, so that a push or a deletion under way is never taken for damage.

mod blobs;
mod distribution;
mod finding;
mod links;
mod manifests;
mod repair;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use portcullis_oci::{Algorithm, Digest};
use serde::{Deserialize, Serialize};

pub use finding::{By, Damage, Fact, Finding, Missing, Repaired, Unfit, User};
use step::{Asking, Place};
pub use step::{Outcome, Step};

/// How many findings a run keeps; the rest is counted.
const MAX_FINDINGS: usize = 10_000;
/// Of how many digests the users are asked for.
const MAX_WATCHED: usize = 1_000;
/// How many users of one thing are named.
const MAX_USERS: usize = 100;

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Says what is damaged.
    Check,
    /// The same, and repairs what can be repaired without losing anything.
    Repair,
    /// Says what is whole and CNCF Distribution could not keep or serve. Hashes no layers.
    ForDistribution,
}

/// One run.
///
/// ```
/// use portcullis_store::{Store, StoreOptions};
/// use portcullis_store::fsck::{Fsck, Purpose};
///
/// # let directory = tempfile::tempdir()?;
/// let store = Store::open(directory.path(), &StoreOptions { reserve: 0, ..StoreOptions::default() })?;
/// let mut run = Fsck::new(Purpose::Check);
/// while let Some(step) = run.next_step(1 << 20) {
///     run.take(store.fsck_step(&step)?);
/// }
/// assert!(run.is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fsck {
    purpose: Purpose,
    asking: Asking,
    place: Option<Place>,
    counts: Counts,
    findings: Vec<Finding>,
    omitted: u64,
    /// What a repair has taken from the trash, to be hashed in the end.
    brought_back: Vec<Digest>,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Blobs and manifests hashed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Repositories.
    pub repositories: u64,
    /// Layer and revision links.
    pub links: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Layer links to nothing, as Distribution's collector leaves them: what a manifest misses is a finding of its own.
    pub leftovers: u64,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// Blobs are hashed: this part of them is done, judged by the order of their digests. From 0 to 1.
    Blobs(f64),
    /// Repositories are looked at.
    Repositories,
    /// Nothing is left.
    Done,
}

impl Fsck {
    /// From the beginning.
    pub fn new(purpose: Purpose) -> Self {
        let place = match purpose {
            Purpose::Check | Purpose::Repair => Place::first_blob(),
            Purpose::ForDistribution => Place::first_repository(),
        };
        let (counts, findings) = (Counts::default(), Vec::new());
        let brought_back = Vec::new();
        Self { purpose, asking: Asking::Everything, place: Some(place), counts, findings, omitted: 0, brought_back }
    }

    /// A run that was kept in a file goes on. The blob that was under way is hashed again from its beginning: the state
    /// of a hash is for the program that made it.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        if let Some(place) = &mut self.place {
            place.forget_hash();
        }
        self
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// What to do next, reading at most `bytes` bytes of blobs. `None`: the run is over.
    pub fn next_step(&self, bytes: u64) -> Option<Step> {
        let place = self.place.clone()?;
        let watched = match self.asking {
            Asking::Everything => self.watched(),
            Asking::WhoNames => self.aliases(),
        };
        let watched = watched.into_iter().take(MAX_WATCHED).collect();
        Some(Step { purpose: self.purpose, asking: self.asking, place, watched, bytes })
    }

    /// Takes in what a step has found.
    pub fn take(&mut self, outcome: Outcome) {
        match self.asking {
            Asking::Everything => {
                self.counts.add(&outcome.counts);
                self.take_findings(outcome.findings);
                self.take_tagged(&outcome.tagged);
                self.take_users(outcome.users);
            }
            Asking::WhoNames => {
                let named: BTreeSet<Digest> = outcome.users.into_iter().map(|(digest, _)| digest).collect();
                self.findings.retain(|finding| alias(finding).is_none_or(|target| !named.contains(&target)));
            }
        }
        self.place = outcome.next.or_else(|| self.second_look());
    }

    /// All that was found so far, in the order of the places.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings there are beyond those that are kept.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }

    /// What was looked at so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        match &self.place {
            None => Progress::Done,
            Some(place) => place.progress(),
        }
    }

    /// Nothing was found that is more than a note.
    pub fn is_clean(&self) -> bool {
        self.omitted == 0 && self.findings.iter().all(Finding::is_note)
    }

    /// What is left to do when the last place was looked at.
    fn second_look(&mut self) -> Option<Place> {
        if self.asking == Asking::Everything && !self.aliases().is_empty() {
            // Whether any manifest names the data of an alias is known only now that all were read.
            self.asking = Asking::WhoNames;
            return Some(Place::first_repository());
        }
        let digests = std::mem::take(&mut self.brought_back);
        (!digests.is_empty()).then_some(Place::Again { digests, within: None })
    }

    fn take_findings(&mut self, mut findings: Vec<Finding>) {
        self.brought_back.extend(findings.iter().filter_map(Finding::brought_back));
        // What refers to corrupt bytes that were moved aside is among their users, and no finding of its own.
        let moved: BTreeSet<Digest> = self.findings.iter().filter_map(Finding::moved_aside).collect();
        findings.retain(|finding| !finding.lacked().is_some_and(|missing| moved.contains(&missing)));
        let room = MAX_FINDINGS.saturating_sub(self.findings.len());
        self.omitted += findings.len().saturating_sub(room) as u64;
        self.findings.extend(findings.into_iter().take(room));
    }

    fn take_users(&mut self, users: Vec<(Digest, User)>) {
        if users.is_empty() {
            return;
        }
        let mut of: BTreeMap<Digest, Vec<User>> = BTreeMap::new();
        for (digest, user) in users {
            of.entry(digest).or_default().push(user);
        }
        for finding in &mut self.findings {
            let Some(users) = finding.subject().and_then(|subject| of.get(&subject)) else { continue };
            for user in users {
                let is_here = finding.repository.as_ref().is_none_or(|repository| *repository == user.repository);
                if is_here && finding.users.len() < MAX_USERS && !finding.users.contains(user) {
                    finding.users.push(user.clone());
                }
            }
        }
    }

    /// A referrer that a tag points to is not untagged after all.
    fn take_tagged(&mut self, tagged: &[User]) {
        if tagged.is_empty() {
            return;
        }
        let tagged: BTreeSet<&User> = tagged.iter().collect();
        self.findings.retain(|finding| match (&finding.fact, &finding.repository) {
            (Fact::Unfit(Unfit::UntaggedReferrer { manifest, .. }), Some(repository)) => {
                !tagged.contains(&User { repository: repository.clone(), by: By::Manifest(*manifest) })
            }
            _ => true,
        });
    }

    fn watched(&self) -> BTreeSet<Digest> {
        self.findings.iter().filter_map(Finding::subject).take(MAX_WATCHED).collect()
    }

    fn aliases(&self) -> BTreeSet<Digest> {
        self.findings.iter().filter_map(alias).collect()
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.blobs += other.blobs;
        self.bytes += other.bytes;
        self.repositories += other.repositories;
        self.links += other.links;
        self.manifests += other.manifests;
        self.tags += other.tags;
        self.leftovers += other.leftovers;
    }
}

/// Where the data of an alias lies.
fn alias(finding: &Finding) -> Option<Digest> {
    match &finding.fact {
        Fact::Unfit(Unfit::Alias { target, .. }) => Some(*target),
        _ => None,
    }
}

/// The algorithms in the order in which they are looked at.
const ALGORITHMS: [Algorithm; 2] = Algorithm::ALL;

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(fact: impl Into<Fact>) -> Finding {
        Finding { path: "a/link".to_owned(), repository: None, fact: fact.into(), users: Vec::new(), repaired: None }
    }

    fn after(outcomes: impl IntoIterator<Item = Outcome>) -> Fsck {
        let mut run = Fsck::new(Purpose::Check);
        outcomes.into_iter().for_each(|outcome| run.take(outcome));
        run
    }

    /// Even if each of them alone were only a note: what is not listed may be worse.
    #[test]
    fn findings_past_the_limit_are_counted_and_never_clean() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let note = || finding(Damage::ChildMissing { manifest: digest, child: digest });
        let many = |count: usize| Outcome { findings: vec![note(); count], ..Outcome::default() };
        let full = after([many(MAX_FINDINGS)]);
        assert_eq!((full.findings().len(), full.omitted(), full.is_clean()), (MAX_FINDINGS, 0, true));
        let more = after([many(MAX_FINDINGS), many(1)]);
        assert_eq!((more.findings().len(), more.omitted(), more.is_clean()), (MAX_FINDINGS, 1, false));
    }

    #[test]
    fn users_past_the_limit_are_left_out() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let corrupt = finding(Damage::BlobCorrupt { digest, actual: digest, size: 0 });
        let user = |at: usize| {
            let repository = format!("app-{at}").parse().unwrap();
            (digest, User { repository, by: By::Link(digest) })
        };
        for (asked, kept) in [(MAX_USERS, MAX_USERS), (MAX_USERS + 1, MAX_USERS)] {
            let users = (0..asked).map(user).collect();
            let run = after([
                Outcome { findings: vec![corrupt.clone()], ..Outcome::default() },
                Outcome { users, ..Outcome::default() },
            ]);
            assert_eq!(run.findings()[0].users.len(), kept);
        }
    }
}
