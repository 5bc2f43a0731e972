//! A collection that is said to run ends in the report too, however its work ends.

use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

use super::{GcResult, State};
use crate::status;

/// Held while a collection works. When that panics, nobody else says that it is over, and none could ever begin again.
pub(super) struct Running<'a>(pub(super) &'a Mutex<State>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let status = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).status;
        if let Some(mut report) = status.running.take() {
            report.failed =
                Some("it ended in a panic, which is a fault of this program: its log says where".to_owned());
            report.result = Some(GcResult::Failed);
            report.ended = Some(status::rfc3339(OffsetDateTime::now_utc()));
            status.last = Some(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gc::{GcReport, Removal};

    #[test]
    fn a_collection_that_panics_is_over() {
        let state = Mutex::new(State::default());
        let begin = || {
            state.lock().unwrap_or_else(PoisonError::into_inner).status.running =
                Some(GcReport::begin(1, Removal::Real));
        };
        begin();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _running = Running(&state);
            // As it may be in the middle of telling how far it is.
            let _state = state.lock();
            panic!("on purpose");
        }));
        assert!(done.is_err());
        let status = state.lock().unwrap_or_else(PoisonError::into_inner).status.clone();
        let last = status.last.unwrap();
        assert!(status.running.is_none() && last.failed.is_some() && last.ended.is_some());

        // One that ended by itself is not touched.
        drop(Running(&state));
        assert_eq!(state.lock().unwrap_or_else(PoisonError::into_inner).status.last, Some(last));
    }
}
