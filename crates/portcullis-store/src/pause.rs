//! A pause of what the store's owner removes by itself, because somebody copies the data: kept beside the data, so that
//! a server that is started anew does not take away under the copier's feet what its predecessor had promised to keep.
//!
//! The store only knows it; whoever collects, empties the trash or expires uploads asks. Must not know who paused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::Backend;
use crate::error::StoreError;
use crate::layout;
use crate::store::Store;

/// Seconds since 1970 need fewer digits for a long time to come.
const MAX_BYTES: u64 = 20;

/// The pause, as this process knows it. Asking never waits for the disk.
#[derive(Debug)]
pub(crate) struct Pause {
    /// Until when, in seconds since 1970 by the storage's clock; 0: there is none.
    until: AtomicU64,
    /// Held while it is written, so that file and memory say the same.
    writing: Mutex<()>,
}

impl Pause {
    /// As an earlier process left it. What holds no time is a pause too, of the longest kind: unreadable never means
    /// that something may go.
    pub(crate) fn read(backend: &dyn Backend) -> Result<Self, StoreError> {
        let text = backend.read(&layout::pause(), 0..MAX_BYTES)?;
        let longest = backend.now().saturating_add(Store::LONGEST_PAUSE.as_secs());
        let until = |text: Vec<u8>| String::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        // A clock that was set back must not make it endless.
        let until = text.map_or(0, |text| until(text).unwrap_or(longest).min(longest));
        Ok(Self { until: AtomicU64::new(until), writing: Mutex::default() })
    }

    fn begin_writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The longest pause: whoever forgets one would fill the disk.
    pub const LONGEST_PAUSE: Duration = Duration::from_hours(24 * 7);

    /// Begins a pause of `time`, of [`Store::LONGEST_PAUSE`] at most, which also binds later processes; it replaces the
    /// one before.
    ///
    /// # Errors
    /// It could not be written: it holds in this process only.
    pub fn pause(&self, time: Duration) -> Result<(), StoreError> {
        let inner = &self.inner;
        let until = inner.backend.now().saturating_add(time.min(Self::LONGEST_PAUSE).as_secs());
        let _writing = inner.pause.begin_writing();
        inner.pause.until.store(until, Ordering::Release);
        inner.backend.put(&layout::pause(), until.to_string().as_bytes())
    }

    /// Ends the pause.
    ///
    /// # Errors
    /// It could not be ended for later processes, and goes on in this one too.
    pub fn resume(&self) -> Result<(), StoreError> {
        let _writing = self.inner.pause.begin_writing();
        self.inner.backend.delete(&layout::pause())?;
        self.inner.pause.until.store(0, Ordering::Release);
        Ok(())
    }

    /// What is left of the pause; `None`: there is none.
    pub fn paused(&self) -> Option<Duration> {
        let left = self.inner.pause.until.load(Ordering::Acquire).saturating_sub(self.inner.backend.now());
        (left > 0).then(|| Duration::from_secs(left))
    }
}
