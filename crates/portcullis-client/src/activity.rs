//! How the body of a request gets on. Must not know what is in it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::options::Timeouts;
use crate::refusal::Wait;

/// When an upload last moved; shared between the body that is sent and the deadline.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    last_millis: AtomicU64,
    complete: AtomicBool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last_millis: AtomicU64::new(0), complete: AtomicBool::new(false) }
    }

    /// Bytes moved.
    pub(crate) fn moved(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// The last byte was handed over.
    pub(crate) fn finish(&self) {
        self.moved();
        self.complete.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub(crate) fn is_finished(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Until when something has to happen, and what.
    pub(crate) fn deadline(&self, timeouts: &Timeouts) -> (Instant, Wait) {
        let last = self.start + Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        if self.is_finished() {
            (last + timeouts.commit, Wait::Commit)
        } else {
            (last + timeouts.connect + timeouts.idle, Wait::Bytes)
        }
    }
}
