//! Hashes every blob and manifest again, a few MiB at a time, in the order of their digests.

use portcullis_oci::{Algorithm, Digest, Hasher};

use super::Purpose;
use super::finding::{Damage, Finding};
use super::links::reason;
use super::step::{NAMES, Outcome, Place, Step, Within};
use crate::backend::{Object, Stamp};
use crate::error::StoreError;
use crate::layout;
use crate::store::Store;

const BUFFER: usize = 256 * 1024;

/// Where among the blobs a step begins: algorithm, first two digits, the last name looked at, and the blob under way.
type At = (Algorithm, u8, Option<String>, Option<Within>);

/// How the hash of one blob ended.
enum Hashed {
    /// Not yet: the step has read enough.
    Paused(Within),
    /// It is gone, or another version took its place.
    Changed,
    Whole,
    Damaged(Damage, Stamp),
}

impl Store {
    /// Goes on from `at` until `bytes` are read or enough names were looked at.
    pub(super) fn check_blobs(
        &self,
        step: &Step,
        at: At,
        bytes: u64,
        outcome: &mut Outcome,
    ) -> Result<Option<Place>, StoreError> {
        let (algorithm, prefix, mut after, mut within) = at;
        let names =
            self.inner.backend.list(&layout::blobs_that_begin_with(algorithm, prefix), after.as_deref(), NAMES)?;
        let is_last_page = names.len() < NAMES;
        for name in names {
            // What is no digest is none of ours and harms nobody.
            if let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() {
                let left = bytes.saturating_sub(outcome.counts.bytes);
                if left == 0 {
                    return Ok(Some(Place::Blobs { algorithm, prefix, after, within: None }));
                }
                let under_way = within.take().filter(|within| within.digest == digest);
                match self.hash_blob(&digest, under_way, left, outcome)? {
                    Hashed::Paused(within) => {
                        return Ok(Some(Place::Blobs { algorithm, prefix, after, within: Some(within) }));
                    }
                    Hashed::Changed => {}
                    Hashed::Whole => outcome.counts.blobs += 1,
                    Hashed::Damaged(damage, stamp) => {
                        outcome.counts.blobs += 1;
                        self.report_blob(step, &digest, damage, stamp, outcome)?;
                    }
                }
            }
            after = Some(name);
        }
        if is_last_page {
            return Ok(Some(Place::after_prefix(algorithm, prefix)));
        }
        Ok(Some(Place::Blobs { algorithm, prefix, after, within: None }))
    }

    /// Hashes the first of these, as far as `bytes` go.
    pub(super) fn check_again(
        &self,
        step: &Step,
        digests: &[Digest],
        within: Option<Within>,
        bytes: u64,
        outcome: &mut Outcome,
    ) -> Result<Option<Place>, StoreError> {
        let Some((digest, rest)) = digests.split_first() else { return Ok(None) };
        let again = |digests: &[Digest], within| Some(Place::Again { digests: digests.to_vec(), within });
        match self.hash_blob(digest, within.filter(|within| within.digest == *digest), bytes, outcome)? {
            Hashed::Paused(within) => return Ok(again(digests, Some(within))),
            Hashed::Changed | Hashed::Whole => {}
            Hashed::Damaged(damage, stamp) => self.report_blob(step, digest, damage, stamp, outcome)?,
        }
        Ok(again(rest, None))
    }

    fn hash_blob(
        &self,
        digest: &Digest,
        under_way: Option<Within>,
        bytes: u64,
        outcome: &mut Outcome,
    ) -> Result<Hashed, StoreError> {
        let key = layout::blob_data(digest);
        let Some(stamp) = self.inner.backend.stat(&key)? else { return Ok(Hashed::Changed) };
        let unreadable = |error: &StoreError| {
            let damage = Damage::BlobUnreadable { digest: *digest, reason: reason(error) };
            Hashed::Damaged(damage, stamp)
        };
        let object = match self.inner.backend.open(&key) {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(Hashed::Changed),
            Err(error) => return Ok(unreadable(&error)),
        };
        let resumed = under_way.filter(|within| within.stamp == stamp);
        let resumed = resumed.and_then(|within| Some((within.hasher()?, within.offset)));
        let (mut hasher, mut offset) = resumed.unwrap_or_else(|| (Hasher::new(digest.algorithm()), 0));
        match hash(object.as_ref(), &mut hasher, &mut offset, bytes) {
            Err(error) => return Ok(unreadable(&error)),
            Ok(read) => outcome.counts.bytes += read,
        }
        if offset < object.size() {
            let state = hasher.save();
            return Ok(Hashed::Paused(Within { digest: *digest, offset, state, stamp }));
        }
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(Hashed::Whole);
        }
        Ok(Hashed::Damaged(Damage::BlobCorrupt { digest: *digest, actual, size: offset }, stamp))
    }

    /// A blob that a push has replaced meanwhile is no finding.
    fn report_blob(
        &self,
        step: &Step,
        digest: &Digest,
        damage: Damage,
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let key = layout::blob_data(digest);
        let _digest = self.inner.lock_digest(digest);
        if self.inner.backend.stat(&key)? != Some(stamp) {
            return Ok(());
        }
        // What cannot be read may be readable tomorrow, on another cable.
        let is_certain = matches!(damage, Damage::BlobCorrupt { .. });
        let repaired = if step.purpose == Purpose::Repair && is_certain { self.replace_corrupt(digest)? } else { None };
        let (path, fact) = (key.as_str().to_owned(), damage.into());
        outcome.findings.push(Finding { path, repository: None, fact, users: Vec::new(), repaired });
        Ok(())
    }
}

/// Reads on until the end or until `bytes` were read. Returns how many.
fn hash(object: &dyn Object, hasher: &mut Hasher, offset: &mut u64, bytes: u64) -> Result<u64, StoreError> {
    let mut buffer = vec![0; BUFFER];
    let mut read = 0;
    while read < bytes {
        let wanted = usize::try_from(bytes - read).map_or(BUFFER, |left| left.min(BUFFER));
        let got = object.read_at(&mut buffer[..wanted], *offset)?;
        if got == 0 {
            break;
        }
        hasher.update(&buffer[..got]);
        *offset += got as u64;
        read += got as u64;
    }
    Ok(read)
}
