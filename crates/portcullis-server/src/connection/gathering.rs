//! Reads from a socket in large pieces: rustls asks for 4 KiB at a time, which makes five system calls for each record of
//! a push. Must not know what is read.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Four records of TLS.
const GATHERED: usize = 64 * 1024;

/// A stream that can read ahead while more comes than is asked for. It holds memory for that only meanwhile.
#[derive(Debug)]
pub(crate) struct Gathering<S> {
    stream: S,
    ahead: BytesMut,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A stranger gets no memory.
    Forbidden,
    /// All that came had room where it was asked for.
    Quiet,
    /// More came than was asked for.
    Busy,
}

impl<S> Gathering<S> {
    /// One that does not, until [`Gathering::begin`].
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ahead: BytesMut::new(), state: State::Forbidden }
    }

    pub(crate) fn begin(&mut self) {
        self.state = State::Quiet;
    }
}

impl<S: AsyncRead + Unpin> Gathering<S> {
    fn poll_directly(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let asked = into.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        if self.state == State::Quiet && asked > 0 && into.remaining() == 0 {
            self.state = State::Busy;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ahead.reserve(GATHERED);
        let read = pin!(self.stream.read_buf(&mut self.ahead)).poll(cx);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            (self.ahead, self.state) = (BytesMut::new(), State::Quiet);
        }
        read.map_ok(drop)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            if this.state != State::Busy {
                return this.poll_directly(cx, into);
            }
            ready!(this.poll_ahead(cx))?;
        }
        let taken = this.ahead.len().min(into.remaining());
        into.put_slice(&this.ahead[..taken]);
        this.ahead.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Sends `sent` and its end, and reads it in pieces of 4 KiB, as rustls does.
    async fn read(stream: &mut Gathering<tokio::io::DuplexStream>) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => return all,
                count => all.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn all_that_comes_is_read_in_its_order() {
        for length in [0, 1, 4095, 4096, 4097, GATHERED, GATHERED + 4096, GATHERED + 4097, 5 * GATHERED + 1] {
            let (mut peer, ours) = tokio::io::duplex(3 * GATHERED);
            let sent = content(length);
            let mut stream = Gathering::new(ours);
            stream.begin();
            let sending = async {
                peer.write_all(&sent).await.unwrap();
                drop(peer);
            };
            let ((), got) = tokio::join!(sending, read(&mut stream));
            assert!(got == sent, "{length}");
            assert_eq!(stream.ahead.capacity(), 0, "{length}");
        }
    }

    #[tokio::test]
    async fn nothing_is_read_ahead_for_a_stranger_or_without_need() {
        let (mut peer, ours) = tokio::io::duplex(GATHERED);
        let mut stream = Gathering::new(ours);
        peer.write_all(&content(10_000)).await.unwrap();
        let mut piece = [0; 4096];
        stream.read_exact(&mut piece).await.unwrap();
        stream.read_exact(&mut piece).await.unwrap();
        assert_eq!(stream.ahead.capacity(), 0);
        stream.begin();
        assert_eq!(stream.read(&mut piece).await.unwrap(), 10_000 - 2 * 4096);
        assert_eq!((stream.ahead.capacity(), stream.state), (0, State::Quiet));
    }

    #[tokio::test]
    async fn what_it_held_is_let_go_when_nothing_comes() {
        let (mut peer, ours) = tokio::io::duplex(GATHERED);
        let mut stream = Gathering::new(ours);
        stream.begin();
        peer.write_all(&content(6000)).await.unwrap();
        let mut piece = [0; 4096];
        stream.read_exact(&mut piece).await.unwrap();
        assert_eq!(stream.read(&mut piece).await.unwrap(), 6000 - 4096);
        assert!(stream.ahead.capacity() > 0);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_read(&mut context, &mut ReadBuf::new(&mut piece)).is_pending());
        assert_eq!((stream.ahead.capacity(), stream.state), (0, State::Quiet));
    }
}
