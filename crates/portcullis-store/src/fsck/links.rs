//! Looks at links: what they hold, and whether it is there. Tags among them.

use portcullis_oci::{Algorithm, Digest, ManifestReference, RepositoryName, Tag};

use super::Purpose;
use super::finding::{By, Damage, Finding, Repaired, User, known};
use super::step::{NAMES, Outcome, Step};
use crate::backend::Stamp;
use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::store::{Inner, Store};

/// What a link is, in the end.
pub(super) enum Linked {
    /// There is none.
    Absent,
    /// It leads to data of this size.
    Data { target: Digest, size: u64 },
    /// It holds a digest without data.
    Nothing { target: Digest },
    /// It holds no digest, or the wrong one.
    Wrong(Damage),
}

impl Store {
    /// Names the directories of algorithms that are not known here: nothing below them is ever read.
    pub(super) fn check_algorithms(
        &self,
        repository: &RepositoryName,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        for place in layout::algorithms(repository) {
            for algorithm in self.inner.backend.list(&place, None, NAMES)? {
                if known(&algorithm).is_some() {
                    continue;
                }
                let below = place.below(&algorithm);
                let names = self.inner.backend.list(&below, None, NAMES)?.len();
                if names > 0 {
                    let path = below.as_str().to_owned();
                    outcome.report(repository, path, Damage::UnknownAlgorithm { algorithm, names });
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_layers(
        &self,
        step: &Step,
        repository: &RepositoryName,
        algorithm: Algorithm,
        after: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<Option<String>, StoreError> {
        let names = self.inner.backend.list(&layout::layers(repository, algorithm), after, NAMES)?;
        for digest in digests(algorithm, &names) {
            let link = layout::layer_link(repository, &digest);
            match self.look_at_link(step, repository, &link, &digest, outcome)? {
                Linked::Wrong(damage) => outcome.report(repository, link.as_str().to_owned(), damage),
                // Distribution 2.x removes blobs and leaves their links. Whether one is missed its manifest says.
                Linked::Nothing { .. } => outcome.counts.leftovers += 1,
                Linked::Absent | Linked::Data { .. } => {}
            }
        }
        Ok(next_of(names))
    }

    /// Looks at a revision link. Returns what it leads to, where that is there.
    pub(super) fn check_revision_link(
        &self,
        step: &Step,
        repository: &RepositoryName,
        digest: &Digest,
        outcome: &mut Outcome,
    ) -> Result<Option<(Digest, u64)>, StoreError> {
        let link = layout::revision_link(repository, digest);
        let (damage, repaired) = match self.look_at_link(step, repository, &link, digest, outcome)? {
            Linked::Absent => return Ok(None),
            Linked::Data { target, size } => return Ok(Some((target, size))),
            Linked::Wrong(damage) => (damage, None),
            Linked::Nothing { target } => {
                let repaired = match step.purpose {
                    Purpose::Repair => self.bring_back(repository, &link, digest, &target)?,
                    Purpose::Check | Purpose::ForDistribution => None,
                };
                (Damage::LinkDangling { target }, repaired)
            }
        };
        outcome.report_repaired(repository, link.as_str().to_owned(), damage, repaired);
        Ok(None)
    }

    /// What a link is, looked at once more under the locks where something seems to be wrong.
    fn look_at_link(
        &self,
        step: &Step,
        repository: &RepositoryName,
        link: &Key,
        digest: &Digest,
        outcome: &mut Outcome,
    ) -> Result<Linked, StoreError> {
        let mut found = self.inner.resolve(link, digest)?;
        if found.is_damage() {
            let _repository = self.inner.lock_repository(repository);
            let _digest = self.inner.lock_digest(digest);
            found = self.inner.resolve(link, digest)?;
        }
        outcome.counts.links += u64::from(!matches!(found, Linked::Absent));
        if let Linked::Data { target, .. } | Linked::Nothing { target } = &found {
            outcome.note_user(step, target, repository, || By::Link(*digest));
        }
        Ok(found)
    }

    pub(super) fn check_tags(
        &self,
        step: &Step,
        repository: &RepositoryName,
        after: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<Option<String>, StoreError> {
        let names = self.inner.backend.list(&layout::tags(repository), after, NAMES)?;
        for tag in names.iter().filter_map(|name| name.parse::<Tag>().ok()) {
            outcome.counts.tags += 1;
            if step.purpose == Purpose::ForDistribution {
                if let Ok(Some(target)) = self.inner.held_by(&layout::tag_link(repository, &tag)) {
                    outcome.tagged.push(User { repository: repository.clone(), by: By::Manifest(target) });
                }
                continue;
            }
            let mut damage = self.damage_of_tag(step, repository, &tag, outcome)?;
            if damage.is_some() {
                let _repository = self.inner.lock_repository(repository);
                damage = self.damage_of_tag(step, repository, &tag, outcome)?;
            }
            if let Some(damage) = damage {
                outcome.report(repository, layout::tag_link(repository, &tag).as_str().to_owned(), damage);
            }
        }
        Ok(next_of(names))
    }

    fn damage_of_tag(
        &self,
        step: &Step,
        repository: &RepositoryName,
        tag: &Tag,
        outcome: &mut Outcome,
    ) -> Result<Option<Damage>, StoreError> {
        let inner = &self.inner;
        let target = match inner.held_by(&layout::tag_link(repository, tag)) {
            Ok(Some(target)) => target,
            // A tag that was deleted meanwhile is gone with its directory.
            Ok(None) if inner.backend.list(&layout::tag(repository, tag), None, 1)?.is_empty() => return Ok(None),
            Ok(None) => return Ok(Some(Damage::TagWithoutLink { tag: tag.clone() })),
            Err(damage) => return Ok(Some(*damage)),
        };
        outcome.note_user(step, &target, repository, || By::Tag(tag.clone()));
        if inner.backend.stat(&layout::revision_link(repository, &target))?.is_some() {
            // Whatever is wrong with the revision is said there.
            return Ok(None);
        }
        let misplaced = inner.find_manifest(repository, &ManifestReference::Digest(target))?;
        Ok(misplaced.is_none().then(|| Damage::TagDangling { tag: tag.clone(), target }))
    }
}

impl Inner {
    /// The digest that a link holds. Counts and logs nothing: this is for whoever reports it.
    pub(super) fn held_by(&self, link: &Key) -> Result<Option<Digest>, Box<Damage>> {
        let bytes = match self.backend.read(link, 0..layout::MAX_LINK_BYTES) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Box::new(Damage::LinkUnreadable { reason: reason(&error) })),
        };
        if bytes.is_empty() {
            return Err(Box::new(Damage::LinkEmpty));
        }
        let text = String::from_utf8_lossy(&bytes);
        text.parse().map(Some).map_err(|_| Box::new(Damage::LinkGarbled { text: text.into_owned() }))
    }

    /// What a link named after `digest` leads to.
    pub(super) fn resolve(&self, link: &Key, digest: &Digest) -> Result<Linked, StoreError> {
        let target = match self.held_by(link) {
            Ok(Some(target)) => target,
            Ok(None) => return Ok(Linked::Absent),
            Err(damage) => return Ok(Linked::Wrong(*damage)),
        };
        // Distribution's alias links lead from one algorithm to another; within one there is only one right content.
        if target != *digest && target.algorithm() == digest.algorithm() {
            return Ok(Linked::Wrong(Damage::LinkMismatched { digest: *digest, target }));
        }
        Ok(match self.backend.stat(&layout::blob_data(&target))? {
            Some(Stamp { size, .. }) => Linked::Data { target, size },
            None => Linked::Nothing { target },
        })
    }
}

impl Linked {
    fn is_damage(&self) -> bool {
        matches!(self, Self::Nothing { .. } | Self::Wrong(_))
    }
}

impl Outcome {
    pub(super) fn report(&mut self, repository: &RepositoryName, path: String, fact: impl Into<super::Fact>) {
        self.report_repaired(repository, path, fact, None);
    }

    pub(super) fn report_repaired(
        &mut self,
        repository: &RepositoryName,
        path: String,
        fact: impl Into<super::Fact>,
        repaired: Option<Repaired>,
    ) {
        let (repository, fact) = (Some(repository.clone()), fact.into());
        self.findings.push(Finding { path, repository, fact, users: Vec::new(), repaired });
    }

    /// Says who uses a digest, if that was asked or was found to be of interest in this very step.
    pub(super) fn note_user(
        &mut self,
        step: &Step,
        digest: &Digest,
        repository: &RepositoryName,
        by: impl FnOnce() -> By,
    ) {
        let is_new = || self.findings.iter().any(|finding| finding.subject() == Some(*digest));
        if step.watched.contains(digest) || is_new() {
            self.users.push((*digest, User { repository: repository.clone(), by: by() }));
        }
    }
}

/// What the kernel said, without the path that the finding has anyway.
pub(super) fn reason(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The names that are digests.
pub(super) fn digests(algorithm: Algorithm, names: &[String]) -> impl Iterator<Item = Digest> {
    names.iter().filter_map(move |hex| format!("{algorithm}:{hex}").parse().ok())
}

/// Where the next page begins; `None` when this was the last.
pub(super) fn next_of(names: Vec<String>) -> Option<String> {
    if names.len() < NAMES { None } else { names.into_iter().next_back() }
}
