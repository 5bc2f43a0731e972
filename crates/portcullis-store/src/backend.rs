//! The seam for object stores: keys in, whole objects out. No rename, no append and no directory is visible above it.
//!
//! Nothing above this line may assume a local disk, and nothing below it knows what a manifest or a link is.

use std::fmt;
use std::ops::Range;

use portcullis_oci::UploadId;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::layout::{Key, Prefix};

/// Where objects are kept.
///
/// What a call made visible is durable when it returns `Ok`. A call that returns an error leaves an object as it was or,
/// where one existed before, perhaps replaced; it leaves nothing else behind.
pub(crate) trait Backend: fmt::Debug + Send + Sync {
    /// The present version of an object.
    fn stat(&self, key: &Key) -> Result<Option<Stamp>, StoreError>;

    /// Opens an object for many reads.
    fn open(&self, key: &Key) -> Result<Option<Box<dyn Object>>, StoreError>;

    /// The bytes of an object that lie in `range`: fewer when it ends earlier.
    fn read(&self, key: &Key, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(object) = self.open(key)? else { return Ok(None) };
        let end = range.end.min(object.size());
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(range.start)).unwrap_or(usize::MAX)];
        let len = object.read_at(&mut bytes, range.start)?;
        bytes.truncate(len);
        Ok(Some(bytes))
    }

    /// Creates or replaces an object.
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the bytes of several objects durable, out of sight: each is created or replaced when it is
    /// [placed](Prepared::place).
    fn prepare<'a>(&'a self, objects: &[(&Key, &[u8])]) -> Result<Box<dyn Prepared + 'a>, StoreError>;

    /// Removes an object. `false`: it was not there.
    fn delete(&self, key: &Key) -> Result<bool, StoreError>;

    /// Removes every object below a prefix. `false`: there was none.
    fn delete_below(&self, prefix: &Prefix) -> Result<bool, StoreError>;

    /// Makes an object as young as one written now. An error leaves it as it was. A power cut may undo it.
    fn renew(&self, key: &Key) -> Result<(), StoreError>;

    /// The clock by which objects age: seconds since 1970.
    fn now(&self) -> u64;

    /// Takes an object out of sight but keeps its bytes, as retired at `seconds` since 1970. `None`: it was not there;
    /// otherwise its size. A power cut may bring it back.
    fn retire(&self, key: &Key, seconds: u64) -> Result<Option<u64>, StoreError>;

    /// Brings back what was retired under `key` last; it replaces what is there now. `false`: nothing is left of it.
    fn restore(&self, key: &Key) -> Result<bool, StoreError>;

    /// Removes at most `n` of the objects that were retired before `seconds`, for good, the oldest first.
    fn reap(&self, seconds: u64, n: usize) -> Result<Reaped, StoreError>;

    /// Moves an object to another key, where it replaces what is there. `false`: it was not there. A power cut may bring
    /// it back, and loses nothing.
    fn quarantine(&self, key: &Key, to: &Key) -> Result<bool, StoreError>;

    /// At most `n` of the names that follow `prefix/` in keys, up to the next slash, that sort after `after`: in byte
    /// order of the names themselves (a bucket orders `a/…` after `a-b/…`, so its pages need sorting here).
    fn list(&self, prefix: &Prefix, after: Option<&str>, n: usize) -> Result<Vec<String>, StoreError>;

    /// Calls `each` with the names that follow `prefix/` in keys, up to the next slash, in no order, until it returns
    /// `false`. What is there all the time comes once; what comes or goes meanwhile may be among it. Holds no more than a
    /// page of names.
    fn scan(&self, prefix: &Prefix, each: &mut dyn FnMut(&str) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        const PAGE: usize = 1000;
        let mut after: Option<String> = None;
        loop {
            let names = self.list(prefix, after.as_deref(), PAGE)?;
            for name in &names {
                if !each(name)? {
                    return Ok(());
                }
            }
            if names.len() < PAGE {
                return Ok(());
            }
            after = names.into_iter().next_back();
        }
    }

    /// What the names right below a prefix are compared by: it changes whenever one of them comes or goes. `None` where
    /// nothing is there, and where storage has no such thing, as a bucket.
    fn listing_stamp(&self, _prefix: &Prefix) -> Result<Option<ListingStamp>, StoreError> {
        Ok(None)
    }

    /// Begins an object that grows before it has a key, with a note beside it.
    fn stage(&self, id: &UploadId, note: &[u8]) -> Result<Box<dyn Stage>, StoreError>;

    /// Goes on with one, and returns the note last written.
    fn staged(&self, id: &UploadId) -> Result<Option<Staged>, StoreError>;

    /// All objects that grow.
    fn stages(&self) -> Result<Vec<UploadId>, StoreError>;

    /// Makes all bytes of a stage durable and visible under `key`; the stage is gone then. After an error its bytes
    /// cannot be trusted any more: discard it, unless the error is [`StoreError::ReadOnly`].
    fn seal(&self, stage: &mut dyn Stage, key: &Key) -> Result<(), StoreError>;

    /// The same, and then makes a small object that leads to it. After an error those of the two that are new are gone.
    fn seal_with(&self, stage: &mut dyn Stage, key: &Key, link: (&Key, &[u8])) -> Result<(), StoreError>;

    /// Throws a stage away. `false`: there was none.
    fn discard(&self, id: &UploadId) -> Result<bool, StoreError>;

    /// A text that changes whenever bytes of a stage that were not synced may have been lost: a note that carries
    /// another one tells of a time before that.
    fn epoch(&self) -> &str;

    /// Whether the previous owner of the storage ended in another epoch.
    fn epoch_is_new(&self) -> bool;

    /// Free bytes, where that is known.
    fn free(&self) -> Result<Option<u64>, StoreError>;

    /// Why nothing can be written at the moment.
    fn read_only(&self) -> Option<String>;
}

/// Objects whose bytes are there and that are not visible yet. Those that were not placed go when it is dropped.
pub(crate) trait Prepared: fmt::Debug {
    /// Creates or replaces the next `n` objects, one after another in their order. After an error those of them that are
    /// new are gone, and nothing more is to be placed.
    fn place(&mut self, n: usize) -> Result<(), StoreError>;
}

/// An open object. It never changes, and it stays readable when it is deleted.
pub(crate) trait Object: fmt::Debug + Send + Sync {
    fn size(&self) -> u64;

    /// Fills `buf` from `offset` on: less only at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError>;

    /// Reads what can be had without waiting: perhaps less than `buf` holds, in the middle too. `None`: nothing can.
    fn read_cached(&self, _buf: &mut [u8], _offset: u64) -> Result<Option<usize>, StoreError> {
        Ok(None)
    }
}

/// An object that grows. One holder at a time; the caller sees to that.
pub(crate) trait Stage: fmt::Debug + Send + Sync {
    fn id(&self) -> UploadId;

    fn size(&self) -> Result<u64, StoreError>;

    /// Writes pieces that follow one another.
    fn write_pieces_at(&mut self, pieces: &[&[u8]], offset: u64) -> Result<(), StoreError>;

    /// Fills `buf` from `offset` on: less only at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError>;

    fn cut(&mut self, size: u64) -> Result<(), StoreError>;

    /// Makes the bytes written so far outlive an epoch. After an error they cannot be trusted any more: discard it,
    /// unless the error is [`StoreError::ReadOnly`].
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Waits for what it syncs ahead of its end by itself. Errors are those of [`Stage::sync`].
    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Replaces the note. It survives the end of this process; it may be lost or torn when the epoch changes.
    fn note(&mut self, note: &[u8]) -> Result<(), StoreError>;
}

/// An object that grows, as it was found.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) stage: Box<dyn Stage>,
    pub(crate) note: Vec<u8>,
}

/// What was removed for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) objects: usize,
    pub(crate) bytes: u64,
}

/// One version of the names below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListingStamp {
    /// Inode, then when it was modified and when it was changed, in seconds and nanoseconds.
    pub(crate) version: (u64, (i64, i64), (i64, i64)),
}

/// One version of an object: every change of it changes its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// When it was written or renewed: seconds since 1970.
    pub(crate) written: u64,
    /// On a disk inode, seconds and nanoseconds of the change; in memory a counter.
    pub(crate) version: (u64, i64, i64),
}

impl Stamp {
    /// When the object was changed last, in seconds since 1970; 0 where each change has a number of its own.
    pub(crate) fn changed(&self) -> u64 {
        u64::try_from(self.version.1).unwrap_or(u64::MAX)
    }
}
