//! A blob on its way to its peer: the one function that reads blobs for sending is [`BlobBody::poll_chunk`].
//!
//! What is in the page cache is read in the task, into memory that is used again; what is not, on the blocking pool, two
//! chunks ahead.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use portcullis_store::{Blob, StoreError};
use tokio::task::JoinHandle;

use super::buffers::{Buffer, Buffers};
use super::{BodyError, SharedWatch};

/// How many chunks are read ahead from a cold disk.
const AHEAD: usize = 2;
/// How many chunks are taken for cold after one was: the kernel reads ahead too, and asking each time costs a call.
const COLD_CHUNKS: u32 = 16;

/// A part of a blob that is being sent.
pub(crate) struct BlobBody {
    blob: Arc<Blob>,
    /// Where the next read begins, and how much is to be read yet.
    offset: u64,
    unread: u64,
    remaining: u64,
    ahead: VecDeque<JoinHandle<Result<Bytes, StoreError>>>,
    cold: u32,
    waiting: Option<Pin<Box<dyn Future<Output = Buffer> + Send + Sync>>>,
    buffers: Buffers,
    watch: Arc<SharedWatch>,
}

impl BlobBody {
    pub(super) fn new(blob: Blob, offset: u64, length: u64, buffers: Buffers, watch: Arc<SharedWatch>) -> Self {
        Self {
            blob: Arc::new(blob),
            offset,
            unread: length,
            remaining: length,
            ahead: VecDeque::new(),
            cold: 0,
            waiting: None,
            buffers,
            watch,
        }
    }

    /// What is to be sent yet.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) fn watch(&self) -> &Arc<SharedWatch> {
        &self.watch
    }

    /// The next bytes; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.poll_read(cx)).and_then(|chunk| self.sent(chunk));
        Poll::Ready(Some(chunk.inspect_err(|error| self.watch.lock().log_cut(error))))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        if self.ahead.is_empty() {
            let buffer = ready!(self.poll_buffer(cx));
            match self.read_cached(buffer) {
                Ok(chunk) => return Poll::Ready(chunk.map_err(BodyError::from)),
                Err(buffer) => self.read_ahead(buffer),
            }
        }
        while self.ahead.len() < AHEAD && self.cold > 0 && self.unread > 0 {
            // Ahead of what is wanted only while there is enough for all.
            let Some(buffer) = self.buffers.take_now(self.unread) else { break };
            self.read_ahead(buffer);
        }
        let Some(reading) = self.ahead.front_mut() else { return Poll::Ready(Err(BodyError::Short)) };
        let chunk = ready!(Pin::new(reading).poll(cx));
        self.ahead.pop_front();
        Poll::Ready(chunk.map_err(BodyError::from).and_then(|chunk| chunk.map_err(BodyError::from)))
    }

    fn poll_buffer(&mut self, cx: &mut Context<'_>) -> Poll<Buffer> {
        if self.waiting.is_none() {
            if let Some(buffer) = self.buffers.take_now(self.unread) {
                return Poll::Ready(buffer);
            }
            self.waiting = Some(Box::pin(self.buffers.clone().take()));
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Pending };
        let buffer = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(buffer)
    }

    /// From the page cache; `Err` gives the buffer back: it would have to be waited for.
    fn read_cached(&mut self, mut buffer: Buffer) -> Result<Result<Bytes, StoreError>, Buffer> {
        if self.cold > 0 {
            return Err(buffer);
        }
        match self.blob.read_cached(buffer.space(self.unread), self.offset) {
            Ok(Some(read)) => {
                self.took(read as u64);
                Ok(Ok(buffer.filled(read)))
            }
            Ok(None) => {
                self.cold = COLD_CHUNKS;
                Err(buffer)
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn read_ahead(&mut self, mut buffer: Buffer) {
        let (blob, offset, unread) = (Arc::clone(&self.blob), self.offset, self.unread);
        let wanted = buffer.space(unread).len();
        self.took(wanted as u64);
        self.cold = self.cold.saturating_sub(1);
        self.ahead.push_back(tokio::task::spawn_blocking(move || {
            let read = blob.read_at(buffer.space(unread), offset)?;
            // Less than was asked for is the end of the blob, and what follows would have the wrong place.
            Ok(buffer.filled(if read == wanted { read } else { 0 }))
        }));
    }

    fn took(&mut self, bytes: u64) {
        self.offset += bytes;
        self.unread -= bytes;
    }

    fn sent(&mut self, chunk: Bytes) -> Result<Bytes, BodyError> {
        if chunk.is_empty() {
            return Err(BodyError::Short);
        }
        self.watch.lock().passed(chunk.len()).map_err(|denied| BodyError::Denied(denied.to_string()))?;
        self.remaining -= chunk.len() as u64;
        Ok(chunk)
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody")
            .field("offset", &self.offset)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}
