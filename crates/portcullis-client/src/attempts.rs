//! When something is tried again: how often, after which pause, and for how long in all. Must not know what it is; the time
//! is given.

use std::time::Duration;

use tokio::time::Instant;

use crate::options::Retries;

/// The attempts at one request, or at one blob with all that it takes.
#[derive(Debug)]
pub(crate) struct Attempts {
    retries: Retries,
    repeated: u32,
    /// Since when nothing has got on.
    failing_since: Option<Instant>,
}

impl Attempts {
    pub(crate) const fn new(retries: Retries) -> Self {
        Self { retries, repeated: 0, failing_since: None }
    }

    /// After a failure: the pause before the next attempt, which is what the peer has asked for where it has
    /// (`Retry-After`). `None`: that was the last one.
    pub(crate) fn pause(&mut self, now: Instant, asked: Option<Duration>) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        let pause = self.retries.pause_before(self.repeated + 1, asked);
        let gone = now.saturating_duration_since(since).saturating_add(pause);
        if self.repeated >= self.retries.limit || gone > self.retries.total {
            return None;
        }
        self.repeated += 1;
        Some(pause)
    }

    /// So much has come or gone that what has failed before counts no more.
    pub(crate) fn got_on(&mut self) {
        (self.repeated, self.failing_since) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempts(limit: u32) -> Attempts {
        let total = 10 * SECOND;
        Attempts::new(Retries { limit, total, pause: Duration::ZERO, max_pause: 30 * SECOND })
    }

    #[test]
    fn they_are_counted_until_something_gets_on() {
        let (mut attempts, now) = (attempts(2), Instant::now());
        for _ in 0..2 {
            assert!(attempts.pause(now, None).is_some() && attempts.pause(now, None).is_some());
            assert_eq!(attempts.pause(now, None), None);
            attempts.got_on();
        }
    }

    #[test]
    fn none_begins_after_the_time_is_over() {
        let start = Instant::now();
        for (gone, asked, expected) in [
            (Duration::ZERO, 10 * SECOND, Some(10 * SECOND)),
            (Duration::ZERO, 10 * SECOND + Duration::from_nanos(1), None),
            (7 * SECOND, 3 * SECOND, Some(3 * SECOND)),
            (8 * SECOND, 3 * SECOND, None),
            (10 * SECOND, Duration::ZERO, Some(Duration::ZERO)),
            (11 * SECOND, Duration::ZERO, None),
        ] {
            let mut attempts = attempts(u32::MAX);
            // It counts from the first failure, however long that attempt took.
            attempts.pause(start, Some(Duration::ZERO)).unwrap();
            assert_eq!(attempts.pause(start + gone, Some(asked)), expected, "{gone:?} {asked:?}");
        }
        let mut attempts = attempts(u32::MAX);
        attempts.pause(start, Some(Duration::ZERO)).unwrap();
        attempts.got_on();
        assert!(attempts.pause(start + 100 * SECOND, Some(Duration::ZERO)).is_some());
    }
}
