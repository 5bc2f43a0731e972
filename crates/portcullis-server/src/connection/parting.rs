//! How a connection that we end is closed: our side first, then the peer's, so that it can read all that was sent.
//!
//! A socket closed while its peer is still writing is reset, and the peer's kernel then drops what the peer has not read
//! yet. Over HTTP/2 a reading peer always writes: it opens its window as it goes.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// For so long nothing need come from a peer that has not closed its side. The whole is bounded by the connection's end.
const SILENCE: Duration = Duration::from_secs(2);
/// What is discarded in one turn of the task.
const TURN_BYTES: usize = 64 * 1024;

/// A stream whose shutdown waits for the peer's.
#[derive(Debug)]
pub(super) struct Parting<S> {
    stream: S,
    /// There once our side is shut down.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Parting<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, patience: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Parting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let patience = match &mut this.patience {
            Some(patience) => patience,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                this.patience.insert(Box::pin(sleep_until(Instant::now() + SILENCE)))
            }
        };
        let mut buffer = [0; 4096];
        let mut turn = 0;
        while turn < TURN_BYTES {
            let mut read = ReadBuf::new(&mut buffer);
            match pin!(&mut this.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => turn += read.filled().len(),
                // It has closed its side, or is gone: nothing is left to wait for.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if turn > 0 {
                        patience.as_mut().reset(Instant::now() + SILENCE);
                    }
                    return patience.as_mut().poll(cx).map(Ok);
                }
            }
        }
        patience.as_mut().reset(Instant::now() + SILENCE);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Parting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}
