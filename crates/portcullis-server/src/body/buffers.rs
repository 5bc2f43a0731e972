//! Memory for blobs on their way to peers: one pool for all answers, used again and again.
//!
//! However many pull at once, their chunks take [`POOL_BYTES`] at most. Chunks are large while there is room, small when it
//! runs short; then whoever wants one waits. Peers that do not read keep what they have been given: so that they cannot
//! stop all the others, who has waited for [`PATIENCE`] gets a crumb beside the pool, of which each request has one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all chunks take together, but for crumbs.
const POOL_BYTES: usize = 24 << 20;
/// Large reads cost least per byte (4 KiB ones cost 30 times the CPU).
const LARGE: usize = 256 * 1024;
const SMALL: usize = 64 * 1024;
const CRUMB: usize = 16 * 1024;
/// Below so much free memory chunks are small.
const SHORT_BYTES: usize = POOL_BYTES / 2;
const PATIENCE: Duration = Duration::from_millis(500);
/// What is kept for the next answers when nothing is sent.
const KEPT_BYTES: usize = 4 << 20;

/// The pool. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Buffers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    /// In units of [`SMALL`].
    room: Arc<Semaphore>,
    free: Mutex<VecDeque<Vec<u8>>>,
}

/// A chunk to read into. It goes back to the pool when the last bytes of it are dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    filled: usize,
    pool: Arc<Pool>,
    /// None: it is a crumb.
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self::of(POOL_BYTES)
    }
}

impl Buffers {
    fn of(bytes: usize) -> Self {
        Self(Arc::new(Pool { room: Arc::new(Semaphore::new(bytes / SMALL)), free: Mutex::default() }))
    }

    /// A chunk for at most `wanted` bytes, if there is one.
    pub(crate) fn take_now(&self, wanted: u64) -> Option<Buffer> {
        let is_short = self.0.room.available_permits() * SMALL < SHORT_BYTES;
        let size = if is_short || wanted <= SMALL as u64 { SMALL } else { LARGE };
        self.take_of(size).or_else(|| self.take_of(SMALL))
    }

    /// A chunk, as soon as there is one.
    pub(crate) async fn take(self) -> Buffer {
        let room = tokio::time::timeout(PATIENCE, Arc::clone(&self.0.room).acquire_owned()).await;
        let room = room.ok().and_then(Result::ok);
        let size = if room.is_some() { SMALL } else { CRUMB };
        self.buffer(size, room)
    }

    fn take_of(&self, size: usize) -> Option<Buffer> {
        let units = u32::try_from(size / SMALL).unwrap_or(1);
        let room = Arc::clone(&self.0.room).try_acquire_many_owned(units).ok()?;
        Some(self.buffer(size, Some(room)))
    }

    fn buffer(&self, size: usize, room: Option<OwnedSemaphorePermit>) -> Buffer {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.iter().position(|memory| memory.len() == size);
        let memory = at.and_then(|at| free.swap_remove_back(at));
        drop(free);
        Buffer { memory: memory.unwrap_or_else(|| vec![0; size]), filled: 0, pool: Arc::clone(&self.0), _room: room }
    }
}

impl Buffer {
    /// Where to read `wanted` bytes to, or as many as there is room for.
    pub(crate) fn space(&mut self, wanted: u64) -> &mut [u8] {
        let len = usize::try_from(wanted).unwrap_or(usize::MAX).min(self.memory.len());
        &mut self.memory[..len]
    }

    /// The first `filled` bytes, which were read.
    pub(crate) fn filled(mut self, filled: usize) -> Bytes {
        self.filled = filled.min(self.memory.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.iter().map(Vec::len).sum::<usize>() + memory.len() <= KEPT_BYTES {
            free.push_back(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(buffers: &[Buffer]) -> Vec<usize> {
        buffers.iter().map(|buffer| buffer.memory.len()).collect()
    }

    #[test]
    fn chunks_are_large_then_small_then_there_are_none() {
        let pool = Buffers::default();
        let taken: Vec<Buffer> = std::iter::from_fn(|| pool.take_now(u64::MAX)).collect();
        let sizes = sizes(&taken);
        assert_eq!(sizes.iter().sum::<usize>(), POOL_BYTES);
        assert_eq!(sizes.iter().filter(|size| **size == LARGE).count(), POOL_BYTES / 2 / LARGE + 1);
        assert!(sizes.is_sorted_by(|a, b| a >= b));
        drop(taken);
        assert!(pool.take_now(u64::MAX).is_some());
    }

    #[test]
    fn bytes_give_their_chunk_back_when_the_last_of_them_goes() {
        let pool = Buffers::of(SMALL);
        let bytes = pool.take_now(1).unwrap().filled(10);
        let part = bytes.slice(3..5);
        drop(bytes);
        assert!(pool.take_now(1).is_none());
        drop(part);
        assert!(pool.take_now(1).is_some());
    }

    #[test]
    fn what_lies_idle_is_bounded() {
        let pool = Buffers::default();
        drop(std::iter::from_fn(|| pool.take_now(u64::MAX)).collect::<Vec<_>>());
        assert!(pool.0.free.lock().unwrap().iter().map(Vec::len).sum::<usize>() <= KEPT_BYTES);
    }

    #[test]
    fn old_bytes_are_never_sent() {
        let pool = Buffers::of(SMALL);
        let mut buffer = pool.take_now(1).unwrap();
        buffer.space(8).copy_from_slice(b"secrets!");
        drop(buffer.filled(8));
        let buffer = pool.take_now(1).unwrap();
        assert_eq!(buffer.filled(0), Bytes::new());
    }

    #[tokio::test]
    async fn who_waits_gets_what_comes_back_or_a_crumb() {
        let pool = Buffers::of(SMALL);
        let held = pool.take_now(1).unwrap();
        let crumb = pool.clone().take().await;
        assert_eq!(sizes(&[crumb]), [CRUMB]);
        let waiting = tokio::spawn(pool.clone().take());
        tokio::task::yield_now().await;
        drop(held);
        assert_eq!(sizes(&[waiting.await.unwrap()]), [SMALL]);
    }
}
