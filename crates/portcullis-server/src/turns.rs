//! Who may be in a handshake: so many at once, and whoever stalls gives its turn to whoever waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// An honest handshake has two round trips and a millisecond of work: so many looks, half a second, are enough over any
/// link, and with them a queue of stalled peers moves on twice a second. Looks are counted, not the clock: where this
/// machine is so busy that it comes late to look, it came as late to what the peer had sent.
const FAIR: u32 = 10;
const LOOK: Duration = Duration::from_millis(50);

/// Turns to handshake.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Semaphore,
    waiting: AtomicUsize,
}

/// Counts whoever waits, and no longer once it has a turn or has gone.
struct Waiting<'a>(&'a AtomicUsize);

impl Turns {
    pub(crate) fn new(limit: usize) -> Self {
        Self { free: Semaphore::new(limit), waiting: AtomicUsize::new(0) }
    }

    /// The next turn; `None` only when the server is gone.
    pub(crate) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.free.acquire().await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Done when a turn that begins now has lasted long enough and somebody waits for one of these.
pub(crate) async fn outstayed(turns: [&Turns; 2]) {
    for _ in 0..FAIR {
        tokio::time::sleep(LOOK).await;
    }
    while turns.iter().all(|turns| turns.waiting.load(Ordering::Relaxed) == 0) {
        tokio::time::sleep(LOOK).await;
    }
}
