//! The removals, a batch at a time: each looks once more, under the locks, whether it may.

use std::collections::VecDeque;

use portcullis_oci::{Algorithm, Digest};

use super::mark::{Dead, DeadManifest, Link};
use super::names::Names;
use super::{BATCH, Collection, Listed, Removal};
use crate::backend::Reaped;
use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::store::Inner;

/// How many links go while their repository is locked: each waits for a sync.
const LOCKED: usize = 32;

/// All blobs, in order.
#[derive(Debug)]
pub(super) struct Blobs {
    /// By algorithm: the first two hex digits of those that are left.
    prefixes: VecDeque<(Algorithm, Names)>,
    below: Option<(Algorithm, Names)>,
}

impl Default for Blobs {
    fn default() -> Self {
        let prefixes = Algorithm::ALL.into_iter().map(|algorithm| (algorithm, Names::below(layout::blobs(algorithm))));
        Self { prefixes: prefixes.collect(), below: None }
    }
}

impl Blobs {
    /// `None`: there are no more. A batch may be empty.
    pub(super) fn next_batch(&mut self, inner: &Inner) -> Result<Option<Vec<Digest>>, StoreError> {
        let Some((algorithm, names)) = &mut self.below else {
            let Some((algorithm, prefixes)) = self.prefixes.front_mut() else { return Ok(None) };
            match prefixes.next(inner)? {
                Some(digits) => {
                    let first = u8::from_str_radix(&digits, 16).ok();
                    let below = first.map(|first| layout::blobs_that_begin_with(*algorithm, first));
                    self.below = below.map(|below| (*algorithm, Names::below(below)));
                }
                None => drop(self.prefixes.pop_front()),
            }
            return Ok(Some(Vec::new()));
        };
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            match names.next(inner)? {
                Some(hex) => batch.extend(format!("{algorithm}:{hex}").parse::<Digest>().ok()),
                None => {
                    self.below = None;
                    break;
                }
            }
        }
        Ok(Some(batch))
    }
}

impl Collection {
    /// Removes a few of the dead links of a repository, its manifests first, and queues what is left.
    pub(super) fn sweep_links(&mut self, mut dead: Dead) -> Result<(), StoreError> {
        let inner = std::sync::Arc::clone(&self.inner);
        let _repository = inner.lock_repository(&dead.repository);
        for _ in 0..LOCKED {
            if let Some(manifest) = dead.manifests.pop_front() {
                if !self.sweep_manifest(&inner, &dead, &manifest)? {
                    // Somebody needs it after all, and so perhaps all that died with it.
                    dead.manifests.push_front(manifest);
                    dead.spare(&mut self.marks);
                }
            } else if let Some(link) = dead.links.pop_front() {
                self.sweep_link(&inner, &dead, &link)?;
            }
        }
        if dead.len() > 0 {
            self.dead.push_front(dead);
        }
        Ok(())
    }

    fn sweep_manifest(&mut self, inner: &Inner, dead: &Dead, manifest: &DeadManifest) -> Result<bool, StoreError> {
        // Its subject may have come since it was judged, or have gone and come back: who puts a manifest promises it,
        // and has the repository's lock.
        if manifest.subject.is_some_and(|subject| inner.promises.has_link(&dead.repository, &subject)) {
            return Ok(false);
        }
        let link = &manifest.link;
        let key = layout::revision_link(&dead.repository, &link.name);
        let _digest = inner.lock_digest(&link.name);
        if !may_go(inner, dead, &key, link)? {
            return Ok(false);
        }
        if self.removal == Removal::Real {
            inner.backend.delete(&key)?;
            inner.forget_manifest(&dead.repository, &link.name);
        }
        self.done.removed.manifests += 1;
        self.list(Listed::Manifest(dead.repository.clone(), link.name));
        Ok(true)
    }

    fn sweep_link(&mut self, inner: &Inner, dead: &Dead, link: &Link) -> Result<(), StoreError> {
        let key = layout::layer_link(&dead.repository, &link.name);
        let _digest = inner.lock_digest(&link.name);
        if !may_go(inner, dead, &key, link)? {
            self.marks.add(&link.target);
            return Ok(());
        }
        if self.removal == Removal::Real {
            inner.backend.delete(&key)?;
        }
        self.done.removed.links += 1;
        self.list(Listed::Link(dead.repository.clone(), link.name));
        Ok(())
    }

    /// Retires the blobs of a batch that nobody needs.
    pub(super) fn sweep_blobs(&mut self, batch: &[Digest]) -> Result<(), StoreError> {
        let inner = std::sync::Arc::clone(&self.inner);
        self.done.blobs += batch.len() as u64;
        let mut dead = batch.iter().filter(|digest| !self.marks.has(digest)).copied().collect::<Vec<_>>().into_iter();
        let short_of_space = dead.len() > 0 && inner.is_short_of_space()?;
        dead.try_for_each(|digest| {
            let _digest = inner.lock_digest(&digest);
            if inner.promises.has_blob(&digest) {
                return Ok(());
            }
            let data = layout::blob_data(&digest);
            let size = match self.removal {
                Removal::DryRun => inner.backend.stat(&data)?.map(|stamp| stamp.size),
                Removal::Real => inner.remove_blob(&data, short_of_space)?,
            };
            if let Some(size) = size {
                self.done.removed.blobs += 1;
                self.done.removed.bytes += size;
                self.list(Listed::Blob(digest, size));
            }
            Ok(())
        })
    }
}

impl Inner {
    /// Whether less is free than shall be. That it cannot be measured is an error, and no reason to empty the trash.
    fn is_short_of_space(&self) -> Result<bool, StoreError> {
        match self.check_space() {
            Err(StoreError::NoSpace { .. }) => Ok(true),
            measured => measured.map(|()| false),
        }
    }

    /// To the trash, or at once where that has no room: on a full disk it cannot even be made.
    fn remove_blob(&self, data: &Key, short_of_space: bool) -> Result<Option<u64>, StoreError> {
        if !short_of_space {
            match self.backend.retire(data, self.backend.now()) {
                Err(StoreError::NoSpace { .. }) => {}
                done => return done,
            }
        }
        let size = self.backend.stat(data)?.map(|stamp| stamp.size);
        Ok(if self.backend.delete(data)? { size } else { None })
    }

    /// Removes at most `n` blobs from the trash for good: those whose time is over or, when space is short, any.
    pub(super) fn purge(&self, n: usize) -> Result<Reaped, StoreError> {
        let now = self.backend.now();
        let before = if self.is_short_of_space()? { now + 1 } else { now.saturating_sub(self.trash.as_secs()) };
        self.backend.reap(before, n)
    }
}

/// What is gone already may go; what was promised or renewed may not. The caller holds the digest's lock.
fn may_go(inner: &Inner, dead: &Dead, key: &Key, link: &Link) -> Result<bool, StoreError> {
    if inner.promises.has_link(&dead.repository, &link.name) {
        return Ok(false);
    }
    Ok(inner.backend.stat(key)?.is_none_or(|stamp| !inner.is_young(stamp.written)))
}
