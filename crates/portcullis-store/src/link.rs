//! Links: small objects that hold a digest as text, and so make content visible in a repository.
//!
//! Real volumes are damaged, and 2.x servers wrote links in place, without a sync: a link that is empty, garbled or
//! points to nothing is as if it were not there. It is counted, and never an error.

use std::sync::atomic::Ordering;

use portcullis_oci::Digest;

use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::store::Inner;

impl Inner {
    /// What a link points to.
    pub(crate) fn read_link(&self, link: &Key) -> Result<Option<Digest>, StoreError> {
        let Some(text) = self.backend.read(link, 0..layout::MAX_LINK_BYTES)? else { return Ok(None) };
        let digest = held_by(&text);
        if digest.is_none() {
            self.note_damage(link, "it holds no digest");
        }
        Ok(digest)
    }

    /// The same for whoever looks at it a second time: damage is not counted.
    pub(crate) fn peek_link(&self, link: &Key) -> Result<Option<Digest>, StoreError> {
        Ok(self.backend.read(link, 0..layout::MAX_LINK_BYTES)?.as_deref().and_then(held_by))
    }

    /// What a link that is named after `digest` points to: that digest, or one of another algorithm (Distribution's alias
    /// links). Within one algorithm there is only one right content.
    pub(crate) fn read_link_of(&self, link: &Key, digest: &Digest) -> Result<Option<Digest>, StoreError> {
        let target = self.read_link(link)?;
        if target.is_some_and(|target| target != *digest && target.algorithm() == digest.algorithm()) {
            self.note_damage(link, "it holds the digest of something else");
            return Ok(None);
        }
        Ok(target)
    }

    /// Whether data of this size can be what `link` promises; counted if it cannot. Only hashing would tell all that is
    /// cut short, but the usual damage, a file that was made and never filled, shows in its size.
    pub(crate) fn is_plausible(&self, link: &Key, target: &Digest, size: Option<u64>) -> bool {
        let damage = match size {
            None => "it points to nothing",
            Some(0) if *target != Digest::of(target.algorithm(), b"") => "it points to an empty file",
            Some(_) => return true,
        };
        self.note_damage(link, damage);
        false
    }

    /// Makes content visible through a link that has only one right content. The caller holds the digest's lock.
    ///
    /// An alias link that leads to data is right as well, and is replaced in one step: there is no moment, and no error,
    /// after which neither is there.
    pub(crate) fn write_link(&self, link: &Key, digest: &Digest) -> Result<(), StoreError> {
        let text = digest.to_string();
        if self.is_whole_alias(link, digest)? {
            return self.backend.put(link, text.as_bytes());
        }
        self.put_fixed(link, text.as_bytes()).map(drop)
    }

    /// The same for `data` that was written a moment ago, under the same lock: without the link nobody could reach it,
    /// so after an error it goes again, and with it the space it takes.
    pub(crate) fn write_first_link(&self, link: &Key, digest: &Digest, data: &Key) -> Result<(), StoreError> {
        let done = self.write_link(link, digest);
        // In the place of an alias the link may be there in spite of the error, and durable or not.
        if done.is_err() && self.peek_link(link).is_ok_and(|target| target.as_ref() != Some(digest)) {
            // Best effort: the collector finds what stays.
            let _ = self.backend.delete(data);
        }
        done
    }

    fn is_whole_alias(&self, link: &Key, digest: &Digest) -> Result<bool, StoreError> {
        match self.peek_link(link)? {
            Some(target) if target.algorithm() != digest.algorithm() => {
                Ok(self.backend.stat(&layout::blob_data(&target))?.is_some())
            }
            _ => Ok(false),
        }
    }

    /// Writes an object that has only one right content. What is there and right is left alone: while the digest's
    /// lock is held, what is visible is durable. What is there and wrong is removed first, so that after an error
    /// nothing is visible that may not be durable. `false`: it was there.
    pub(crate) fn put_fixed(&self, key: &Key, bytes: &[u8]) -> Result<bool, StoreError> {
        match self.backend.read(key, 0..bytes.len() as u64 + 1)? {
            Some(present) if present == bytes => return Ok(false),
            Some(_) => self.backend.delete(key).map(drop)?,
            None => {}
        }
        self.backend.put(key, bytes).map(|()| true)
    }

    /// Counts something damaged that is treated as absent.
    pub(crate) fn note_damage(&self, key: &Key, what: &'static str) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(key = key.as_str(), what, "treated as absent");
    }
}

fn held_by(text: &[u8]) -> Option<Digest> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
