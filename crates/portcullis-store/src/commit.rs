//! One sync for all who wait: while it runs others gather, and the next one is for all of them.
//!
//! A sync that fails fails for everybody who waited for it, and is never tried again for them: the kernel may have dropped
//! the pages. Must not know what is synced.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// For how long nobody should wait for a round after one that took long.
const AVOIDED: Duration = Duration::from_secs(1);

/// Where those meet who want something synced.
#[derive(Debug)]
pub(crate) struct Committer {
    /// A round takes long from here on.
    slow_from: Duration,
    group: Mutex<Group>,
    done: Condvar,
    inside: AtomicUsize,
}

#[derive(Debug, Default)]
struct Group {
    is_running: bool,
    /// The round that begins next.
    next: Arc<Round>,
    begun: u64,
    /// The last round that succeeded.
    succeeded: u64,
    /// When a slow round ended.
    slow: Option<Instant>,
}

/// How a round ended.
#[derive(Debug, Default)]
struct Round(OnceLock<Result<(), Failure>>);

#[derive(Debug)]
struct Failure {
    code: Option<i32>,
    kind: io::ErrorKind,
    text: String,
}

/// A moment, to which later rounds can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// One who wants something synced, for as long as that takes.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    count: usize,
    inside: &'a AtomicUsize,
}

impl Committer {
    pub(crate) fn new(slow_from: Duration) -> Self {
        Self { slow_from, group: Mutex::default(), done: Condvar::new(), inside: AtomicUsize::new(0) }
    }

    /// Counts the caller among those who sync or wait for it.
    pub(crate) fn enter(&self) -> Inside<'_> {
        let count = self.inside.fetch_add(1, Ordering::Relaxed) + 1;
        Inside { count, inside: &self.inside }
    }

    /// Returns when a round that began after this call is over: one that others began, or `sync`, begun here.
    pub(crate) fn join(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut group = self.group();
        let round = Arc::clone(&group.next);
        loop {
            if let Some(result) = round.0.get() {
                return result.as_ref().copied().map_err(Failure::error);
            }
            if !group.is_running {
                break;
            }
            group = self.done.wait(group).unwrap_or_else(PoisonError::into_inner);
        }
        // None runs and ours is not over: it has not begun.
        group.is_running = true;
        group.next = Arc::default();
        group.begun += 1;
        let number = group.begun;
        drop(group);
        let begun = Instant::now();
        let result = sync();
        let mut group = self.group();
        group.is_running = false;
        group.slow = (begun.elapsed() > self.slow_from).then(Instant::now);
        if result.is_ok() {
            group.succeeded = number;
        }
        // Set once: whoever begins a round takes it out of the group first.
        let _ = round.0.set(result.as_ref().copied().map_err(Failure::of));
        drop(group);
        self.done.notify_all();
        result
    }

    /// Whether a round would take long, as far as the last one tells.
    pub(crate) fn is_slow(&self) -> bool {
        self.group().slow.is_some_and(|ended| ended.elapsed() < AVOIDED)
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(self.group().begun)
    }

    /// Whether a round that began after this moment has succeeded.
    pub(crate) fn has_covered(&self, moment: Moment) -> bool {
        self.group().succeeded > moment.0
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside<'_> {
    /// How many were inside when this one came, itself included.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        Self { code: error.raw_os_error(), kind: error.kind(), text: error.to_string() }
    }

    fn error(&self) -> io::Error {
        self.code.map_or_else(|| io::Error::new(self.kind, self.text.clone()), io::Error::from_raw_os_error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A round that runs until it is told how to end.
    fn running<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        committer: &'scope Committer,
    ) -> mpsc::Sender<io::Result<()>> {
        let (tell, told) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        scope.spawn(move || {
            committer.join(|| {
                begin.send(()).unwrap();
                told.recv().unwrap()
            })
        });
        begun.recv().unwrap();
        tell
    }

    /// Waits until so many have joined the round that comes next.
    fn gathered(committer: &Committer, count: usize) {
        while Arc::strong_count(&committer.group().next) <= count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_comes_during_a_round_waits_for_the_next_one_and_all_share_it() {
        let (committer, syncs) = (Committer::new(Duration::MAX), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let first = running(scope, &committer);
            let join = || {
                committer.join(|| {
                    syncs.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
            };
            let waiting: Vec<_> = (0..5).map(|_| scope.spawn(join)).collect();
            gathered(&committer, 5);
            assert_eq!(syncs.load(Ordering::Relaxed), 0);
            first.send(Ok(())).unwrap();
            for waiting in waiting {
                waiting.join().unwrap().unwrap();
            }
        });
        assert_eq!(syncs.into_inner(), 1);
    }

    #[test]
    fn a_failure_is_of_all_who_waited_for_it_and_of_nobody_else() {
        let committer = Committer::new(Duration::MAX);
        std::thread::scope(|scope| {
            let first = running(scope, &committer);
            let join = || committer.join(|| Err(io::ErrorKind::StorageFull.into()));
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(join)).collect();
            gathered(&committer, 3);
            first.send(Ok(())).unwrap();
            for waiting in waiting {
                assert_eq!(waiting.join().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
            }
        });
        committer.join(|| Ok(())).unwrap();
    }

    #[test]
    fn only_a_round_that_began_later_and_succeeded_covers_a_moment() {
        let committer = Committer::new(Duration::MAX);
        let moment = committer.now();
        assert!(!committer.has_covered(moment));
        committer.join(|| Err(io::ErrorKind::Other.into())).unwrap_err();
        assert!(!committer.has_covered(moment));
        std::thread::scope(|scope| {
            let first = running(scope, &committer);
            let during = committer.now();
            first.send(Ok(())).unwrap();
            while !committer.has_covered(moment) {
                std::thread::yield_now();
            }
            assert!(!committer.has_covered(during));
        });
        let inside = [committer.enter(), committer.enter()];
        assert_eq!(inside.each_ref().map(Inside::count), [1, 2]);
        drop(inside);
        assert_eq!(committer.enter().count(), 1);
    }
}
