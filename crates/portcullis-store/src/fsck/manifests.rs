//! Looks at manifests: whether they can be understood, and whether the repository has all that they name.

use std::collections::BTreeSet;

use portcullis_oci::{Algorithm, Digest, Manifest, RepositoryName, manifest};

use super::Purpose;
use super::finding::{By, Damage, Missing, Repaired};
use super::links::{Linked, digests, next_of};
use super::step::{NAMES, Outcome, Step};
use crate::error::StoreError;
use crate::layout;
use crate::store::Store;

/// How many missing blobs and children of one manifest are named: it can name tens of thousands.
const MAX_OF_ONE: usize = 100;

impl Store {
    pub(super) fn check_revisions(
        &self,
        step: &Step,
        repository: &RepositoryName,
        algorithm: Algorithm,
        after: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<Option<String>, StoreError> {
        let names = self.inner.backend.list(&layout::revisions(repository, algorithm), after, NAMES)?;
        let mut read = 0;
        for digest in digests(algorithm, &names) {
            let found = self.check_revision_link(step, repository, &digest, outcome)?;
            let Some((target, size)) = found else { continue };
            self.check_manifest(step, repository, &digest, &target, outcome)?;
            // Manifests are small as a rule, and need not be.
            read += size;
            if read >= step.bytes || outcome.is_full() {
                return Ok(Some(digest.hex()));
            }
        }
        Ok(next_of(names))
    }

    fn check_manifest(
        &self,
        step: &Step,
        repository: &RepositoryName,
        digest: &Digest,
        target: &Digest,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        outcome.counts.manifests += 1;
        let path = layout::revision_link(repository, digest).as_str().to_owned();
        let manifest = match self.read_manifest(target) {
            Read::Understood(manifest) => *manifest,
            // Said where the blobs were hashed.
            Read::Corrupt => return Ok(()),
            Read::Garbled(reason) => {
                outcome.report(repository, path, Damage::ManifestUnreadable { manifest: *digest, reason });
                return Ok(());
            }
        };
        for named in named_by(&manifest) {
            outcome.note_user(step, &named, repository, || By::Manifest(*digest));
        }
        let required: BTreeSet<Digest> = manifest.required_blobs().into_iter().collect();
        let enough = outcome.findings.len() + MAX_OF_ONE;
        for blob in required {
            if outcome.findings.len() >= enough {
                break;
            }
            if let Some((missing, repaired)) = self.missing(step, repository, digest, &blob)? {
                let damage = Damage::BlobMissing { manifest: *digest, blob, missing };
                outcome.report_repaired(repository, path.clone(), damage, repaired);
            }
        }
        for child in manifest.children() {
            if outcome.findings.len() >= enough {
                break;
            }
            if !self.has_revision(repository, &child.digest)? {
                let child = child.digest;
                outcome.report(repository, path.clone(), Damage::ChildMissing { manifest: *digest, child });
            }
        }
        Ok(())
    }

    /// What the repository lacks of a blob that one of its manifests names, and what a repair has done about it.
    fn missing(
        &self,
        step: &Step,
        repository: &RepositoryName,
        manifest: &Digest,
        blob: &Digest,
    ) -> Result<Option<(Missing, Option<Repaired>)>, StoreError> {
        let inner = &self.inner;
        let link = layout::layer_link(repository, blob);
        if matches!(inner.resolve(&link, blob)?, Linked::Data { .. }) {
            return Ok(None);
        }
        {
            let _repository = inner.lock_repository(repository);
            let _digest = inner.lock_digest(blob);
            let is_gone = inner.backend.stat(&layout::revision_link(repository, manifest))?.is_none();
            if is_gone || matches!(inner.resolve(&link, blob)?, Linked::Data { .. }) {
                return Ok(None);
            }
        }
        // An alias link says where the data was; without a link it can only be under its own name.
        let (leads_to_nothing, target) = match inner.resolve(&link, blob)? {
            Linked::Nothing { target } => (true, target),
            Linked::Absent | Linked::Data { .. } | Linked::Wrong(_) => (false, *blob),
        };
        let has_data = inner.backend.stat(&layout::blob_data(blob))?.is_some();
        let missing = if has_data && !leads_to_nothing { Missing::Link } else { Missing::Data };
        let repaired = match (step.purpose, missing) {
            (Purpose::Repair, Missing::Link) => self.link_again(repository, manifest, blob)?,
            (Purpose::Repair, Missing::Data) if has_data => self.link_again(repository, manifest, blob)?,
            (Purpose::Repair, Missing::Data) => self.bring_back(repository, &link, blob, &target)?,
            (Purpose::Check | Purpose::ForDistribution, _) => None,
        };
        Ok(Some((missing, repaired)))
    }

    fn has_revision(&self, repository: &RepositoryName, child: &Digest) -> Result<bool, StoreError> {
        let link = layout::revision_link(repository, child);
        if matches!(self.inner.resolve(&link, child)?, Linked::Data { .. }) {
            return Ok(true);
        }
        let _repository = self.inner.lock_repository(repository);
        let _digest = self.inner.lock_digest(child);
        Ok(matches!(self.inner.resolve(&link, child)?, Linked::Data { .. }))
    }

    /// The manifest whose data lies under `target`.
    pub(super) fn read_manifest(&self, target: &Digest) -> Read {
        // One byte more than is taken as a manifest, to be found too large.
        let limit = manifest::MAX_BYTES as u64 + 1;
        let data = layout::blob_data(target);
        let Ok(Some(bytes)) = self.inner.backend.read(&data, 0..limit) else { return Read::Corrupt };
        if bytes.len() <= manifest::MAX_BYTES && Digest::of(target.algorithm(), &bytes) != *target {
            return Read::Corrupt;
        }
        match Manifest::parse(&bytes, None) {
            Ok(manifest) => Read::Understood(Box::new(manifest)),
            Err(error) => Read::Garbled(error.to_string()),
        }
    }
}

/// What became of reading a manifest.
pub(super) enum Read {
    Understood(Box<Manifest>),
    /// It does not have its digest, or cannot be read from the disk.
    Corrupt,
    /// It has its digest and is no manifest, for this reason.
    Garbled(String),
}

fn named_by(manifest: &Manifest) -> BTreeSet<Digest> {
    let children = manifest.children().iter().map(|child| child.digest);
    manifest.required_blobs().into_iter().chain(children).collect()
}
