//! Bodies, in and out: a blob on its way to a peer, and what a peer sends. Every wait has a deadline.

pub(crate) mod buffers;
mod sending;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portcullis_store::{Blob, StoreError};

use crate::access::{Denied, Permit, Pull, Right};
use crate::config::Limits;
use crate::error::{ApiError, Chain};

use self::buffers::Buffers;
use self::sending::BlobBody;

/// A streaming body looks at its permit after so many bytes, or so much time.
const CHECK_BYTES: u64 = 8 << 20;
const CHECK_TIME: Duration = Duration::from_millis(500);
/// Who reads has looked before: after so much time nobody polls the body. With `connection::answers`' steps it is a second.
const UNREAD_TIME: Duration = Duration::from_millis(750);
/// What is read of a body that nobody wants, before the connection is closed.
const DISCARD_BYTES: usize = 8 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Whoever sends nothing for so long sends nothing that would have to be read first.
const DISCARD_SILENCE: Duration = Duration::from_millis(250);

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// None, or none left.
    Empty,
    /// From memory.
    Full(Bytes),
    /// From the store.
    Blob(Box<BlobBody>),
}

/// Why a body that was begun could not be ended. The peer sees the connection cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the blob is shorter than it was when it was opened")]
    Short,
    #[error("the permit no longer holds: {0}")]
    Denied(String),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// The watch of an answer, for the answer itself while it is read, and for its connection while it is not.
#[derive(Debug)]
pub(crate) struct SharedWatch(Mutex<Watch<Pull>>);

/// A permit that is looked at again while a body streams.
#[derive(Debug)]
pub(crate) struct Watch<A> {
    permit: Permit<A>,
    bytes: u64,
    since: Instant,
}

/// What a peer sends, frame by frame.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    pace: Pace,
    received: Arc<AtomicU64>,
    /// The peer waits to be asked for it (`Expect: 100-continue`), and reading is asking.
    unasked: bool,
}

/// How slow a peer may be: so many bytes each second, on the average of each `stall` that is waited for it, and never
/// nothing for that long. Only what is waited counts: a slow disk is not the peer's fault.
#[derive(Debug)]
struct Pace {
    stall: Duration,
    least: u64,
    waited: Duration,
    bytes: u64,
}

impl ResponseBody {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(bytes.into())
    }

    /// `remaining` bytes of the blob, from `offset` on.
    pub(crate) fn blob(blob: Blob, offset: u64, remaining: u64, permit: Permit<Pull>, buffers: &Buffers) -> Self {
        let watch = Arc::new(SharedWatch(Mutex::new(Watch::new(permit))));
        Self::Blob(Box::new(BlobBody::new(blob, offset, remaining, buffers.clone(), watch)))
    }

    /// Of a body that takes as long as its peer likes.
    pub(crate) fn watch(&self) -> Option<&Arc<SharedWatch>> {
        match self {
            Self::Blob(blob) => Some(blob.watch()),
            Self::Empty | Self::Full(_) => None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Blob(blob) => blob.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Blob(blob) => blob.remaining() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Blob(blob) => SizeHint::with_exact(blob.remaining()),
        }
    }
}

impl SharedWatch {
    /// Whether the answer may go on, as far as nobody else has looked; where it may not, that is told.
    pub(crate) fn holds(&self) -> bool {
        let mut watch = self.lock();
        if watch.since.elapsed() < UNREAD_TIME {
            return true;
        }
        let Err(denied) = watch.look() else { return true };
        watch.log_cut(&BodyError::Denied(denied.to_string()));
        false
    }

    fn lock(&self) -> MutexGuard<'_, Watch<Pull>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Right> Watch<A> {
    pub(crate) fn new(permit: Permit<A>) -> Self {
        Self { permit, bytes: 0, since: Instant::now() }
    }

    /// `bytes` more have passed; now and then the permit is looked at.
    fn passed(&mut self, bytes: usize) -> Result<(), Denied> {
        self.bytes += bytes as u64;
        if self.bytes < CHECK_BYTES && self.since.elapsed() < CHECK_TIME {
            return Ok(());
        }
        self.look()
    }

    fn look(&mut self) -> Result<(), Denied> {
        (self.bytes, self.since) = (0, Instant::now());
        self.permit.check()
    }

    /// The next bytes of `body`. The permit is looked at while they are waited for too: a sender that has stalled must not
    /// keep what it holds.
    pub(crate) async fn next_of(&mut self, body: &mut RequestBody) -> Result<Option<Bytes>, ApiError> {
        let mut next = pin!(body.next());
        let bytes = loop {
            match tokio::time::timeout(CHECK_TIME, next.as_mut()).await {
                Ok(bytes) => break bytes?,
                Err(_) => self.look()?,
            }
        };
        self.passed(bytes.as_ref().map_or(0, Bytes::len))?;
        Ok(bytes)
    }

    /// The status was sent long ago: nobody else says why the peer got half a blob.
    fn log_cut(&self, error: &BodyError) {
        let (peer, repository) = (self.permit.peer().address(), self.permit.repository());
        if let BodyError::Denied(reason) = error {
            tracing::warn!(%peer, %repository, reason = %error, "an answer is cut");
            self.permit.peer().events().cut(peer, &self.permit.peer().last().caller, repository.as_str(), reason);
        } else {
            tracing::error!(%peer, %repository, reason = %Chain(error), "an answer is cut");
        }
    }

    pub(crate) fn into_permit(self) -> Permit<A> {
        self.permit
    }
}

impl RequestBody {
    /// `received` counts its bytes.
    pub(crate) fn new(incoming: Incoming, headers: &HeaderMap, limits: &Limits, received: Arc<AtomicU64>) -> Self {
        let pace = Pace::new(limits.body_timeout, limits.body_rate);
        Self { incoming, pace, received, unasked: headers.contains_key(EXPECT) }
    }

    /// How many bytes it has at least: all of them where their number was announced.
    pub(crate) fn announced(&self) -> u64 {
        self.incoming.size_hint().lower()
    }

    /// The next bytes, within the deadline; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.unasked = false;
        loop {
            let begun = Instant::now();
            let frame = tokio::time::timeout(self.pace.stall, self.incoming.frame()).await;
            match frame.map_err(|_| self.pace.stalled())? {
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::BodyCut { reason: error.to_string() }),
                Some(Ok(frame)) => {
                    // Empty frames and trailers say nothing.
                    let bytes = frame.into_data().unwrap_or_default();
                    self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.pace.passed(begun.elapsed(), bytes.len() as u64)?;
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body, if it has at most `limit` bytes, while the permit that is watched holds.
    pub(crate) async fn whole<A: Right>(&mut self, limit: usize, watch: &mut Watch<A>) -> Result<Bytes, ApiError> {
        let too_large = || ApiError::TooLarge { limit: limit as u64 };
        if self.announced() > limit as u64 {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(bytes) = watch.next_of(self).await? {
            if whole.len() + bytes.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// Reads on for a moment after an error: a peer that is still sending when the connection closes sees a reset in
    /// place of the answer.
    pub(crate) async fn discard(&mut self) {
        if self.unasked {
            return;
        }
        let mut left = DISCARD_BYTES;
        let drain = async {
            while let Ok(Ok(Some(bytes))) = tokio::time::timeout(DISCARD_SILENCE, self.next()).await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    return;
                }
            }
        };
        // Past the deadline the peer has had its chance.
        let _ = tokio::time::timeout(DISCARD_TIME, drain).await;
    }
}

impl Pace {
    /// `rate`: bytes each second.
    fn new(stall: Duration, rate: u64) -> Self {
        let least = u128::from(rate) * stall.as_millis() / 1000;
        Self { stall, least: u64::try_from(least).unwrap_or(u64::MAX), waited: Duration::ZERO, bytes: 0 }
    }

    /// `bytes` came after `waited`.
    fn passed(&mut self, waited: Duration, bytes: u64) -> Result<(), ApiError> {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.stall {
            return Ok(());
        }
        if self.bytes < self.least {
            return Err(self.stalled());
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }

    fn stalled(&self) -> ApiError {
        ApiError::BodyStalled { seconds: self.stall.as_secs(), bytes: self.bytes, least: self.least.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_link_is_slow_enough_and_a_drip_is_not() {
        // 1 KiB/s for a minute, at the limit and one byte below it.
        for (last, allowed) in [(1024, true), (1023, false)] {
            let mut pace = Pace::new(Duration::from_mins(1), 1024);
            for _ in 0..59 {
                assert!(pace.passed(SECOND, 1024).is_ok());
            }
            assert_eq!(pace.passed(SECOND, last).is_ok(), allowed);
        }
    }

    #[test]
    fn each_minute_counts_for_itself() {
        let mut pace = Pace::new(Duration::from_mins(1), 1024);
        // A burst is no credit for the minutes after it.
        assert!(pace.passed(Duration::from_mins(1), 100 << 20).is_ok());
        assert!(pace.passed(59 * SECOND, 1).is_ok());
        assert!(pace.passed(SECOND, 1).is_err());
    }

    #[test]
    fn what_comes_at_once_is_never_slow() {
        let mut pace = Pace::new(Duration::from_mins(1), 1024);
        for _ in 0..100_000 {
            assert!(pace.passed(Duration::ZERO, 1).is_ok());
        }
    }
}
