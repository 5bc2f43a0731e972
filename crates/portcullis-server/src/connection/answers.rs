//! The answers on their way over one connection, looked at while their peer does not read them: a body that is not read is
//! not polled, and cannot end itself when its peer loses the right to it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::body::SharedWatch;

/// How often to see whether an answer has stopped looking for itself.
const LOOK: Duration = Duration::from_millis(250);

/// There are as many as HTTP/2 allows streams.
#[derive(Debug, Default)]
pub(super) struct Answers {
    under_way: Mutex<Vec<Weak<SharedWatch>>>,
    begun: Notify,
}

impl Answers {
    pub(super) fn begun(&self, watch: &Arc<SharedWatch>) {
        self.living(|watches| watches.push(Arc::downgrade(watch)));
        self.begun.notify_one();
    }

    /// Returns when an answer that its peer does not read is no longer for that peer. No time passes here while there is
    /// no answer.
    pub(super) async fn denied(&self) {
        loop {
            if self.living(|watches| watches.is_empty()) {
                self.begun.notified().await;
            }
            tokio::time::sleep(LOOK).await;
            if !self.living(|watches| watches.iter().filter_map(Weak::upgrade).all(|watch| watch.holds())) {
                return;
            }
        }
    }

    fn living<T>(&self, look: impl FnOnce(&mut Vec<Weak<SharedWatch>>) -> T) -> T {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|watch| watch.strong_count() > 0);
        look(&mut under_way)
    }
}
