//! What HTTP/2 peers may have in flight towards us: wide windows as long as few want them, out of one budget for all.
//!
//! What lies in a window and is not read yet is memory of ours, and a window once given stays for the life of its
//! connection. So each connection gets a share of what is left, down to the least that the protocol has.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// RFC 9113 §6.9.2: a connection has so much before anybody says anything.
const LEAST: u32 = 65_535;
/// What all connections have beyond that, together.
const BUDGET: usize = 64 << 20;
/// What one has beyond that at most: with 4 MiB a push over a link of 100 ms round trip gets 320 Mbit/s.
const MOST: usize = 4 << 20;
/// What one stream has at most, so that no one fills its connection's window: with 1 MiB it gets a quarter of that.
const STREAM: u32 = 1 << 20;
/// The share of what is left that one connection takes.
const PART: usize = 8;
const UNIT: usize = 64 << 10;

/// The budget. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Windows(Arc<Semaphore>);

/// The windows of one connection; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    connection: u32,
    _taken: Option<OwnedSemaphorePermit>,
}

impl Default for Windows {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET / UNIT)))
    }
}

impl Windows {
    pub(crate) fn share(&self) -> Share {
        let wanted = (self.0.available_permits() / PART).min(MOST / UNIT);
        let units = u32::try_from(wanted).unwrap_or(0);
        let taken = Arc::clone(&self.0).try_acquire_many_owned(units).ok().filter(|_| units > 0);
        let raised = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT;
        Share { connection: LEAST + u32::try_from(raised).unwrap_or(0), _taken: taken }
    }
}

impl Share {
    /// Bytes that all streams together may have in flight.
    pub(crate) fn connection(&self) -> u32 {
        self.connection
    }

    /// Bytes that one of them may.
    pub(crate) fn stream(&self) -> u32 {
        self.connection.min(STREAM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_stay_within_the_budget() {
        let windows = Windows::default();
        let mut shares: Vec<Share> = (0..4096).map(|_| windows.share()).collect();
        assert!(shares.is_sorted_by(|a, b| a.connection() >= b.connection()));
        let raised = |shares: &[Share]| shares.iter().map(|share| (share.connection() - LEAST) as usize).sum::<usize>();
        assert_eq!((raised(&shares[..1]), raised(&shares[4095..])), (MOST, 0), "the first, and whoever comes last");
        assert!((BUDGET / 2..=BUDGET).contains(&raised(&shares)));
        shares.truncate(1);
        assert_eq!(windows.share().connection(), shares[0].connection(), "what is given back is there for the next");
    }

    #[test]
    fn a_stream_has_no_more_than_its_connection() {
        let windows = Windows::default();
        let shares: Vec<Share> = (0..4096).map(|_| windows.share()).collect();
        let streams = [&shares[0], &shares[4095]].map(Share::stream);
        assert_eq!(streams, [STREAM, LEAST]);
        assert!(shares.iter().all(|share| (LEAST..=share.connection()).contains(&share.stream())));
    }
}
