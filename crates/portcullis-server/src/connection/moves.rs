//! What moves on a connection, and for how long nothing has: its deadlines, without HTTP.
//!
//! Over HTTP/2 an answer that nobody reads stops at the peer's window and not at the socket, so that no write ever
//! waits: bytes are counted here instead.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::config::Limits;
use crate::events::metrics::Traffic;
use crate::slots::Usage;

/// Less than this within `body_timeout` is no answer under way: pings and acknowledgements are that small.
const LEAST_BYTES: u64 = 1024;

/// The clock of one connection.
#[derive(Debug)]
pub(super) struct Moves {
    idle: Duration,
    head: Duration,
    body: Duration,
    is_http2: bool,
    usage: Usage,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answer has not begun.
    asked: usize,
    /// Requests whose answer is on its way.
    sending: usize,
    /// When the last request ended.
    idle_since: Instant,
    /// When the first byte of a request came whose head is not complete.
    head_since: Option<Instant>,
    /// Bytes written since then.
    written: (u64, Instant),
}

/// What is to be done about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Fine,
    /// It has no request, and no right to a place.
    Idle,
    /// Its peer has stopped in the middle.
    Stuck(&'static str),
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Asked(Arc<Moves>);

/// A request whose answer is being sent.
#[derive(Debug)]
pub(super) struct Sending(Arc<Moves>);

/// A stream whose bytes are noted.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    moves: Arc<Moves>,
    traffic: Traffic,
}

impl Moves {
    pub(super) fn new(limits: &Limits, is_http2: bool, usage: Usage) -> Self {
        let now = Instant::now();
        let state = State { asked: 0, sending: 0, idle_since: now, head_since: None, written: (0, now) };
        let (idle, head, body) = (limits.idle_timeout, limits.header_timeout, limits.body_timeout);
        Self { idle, head, body, is_http2, usage, state: Mutex::new(state) }
    }

    /// How often to look: a deadline is kept to within a quarter.
    pub(super) fn tick(&self) -> Duration {
        (self.idle.min(self.head).min(self.body) / 4).max(Duration::from_millis(10))
    }

    pub(super) fn look(&self) -> Look {
        let now = Instant::now();
        let mut state = self.lock();
        if state.asked + state.sending == 0 {
            return match state.head_since {
                Some(since) if now - since >= self.head => Look::Stuck("the head of a request"),
                _ if now - state.idle_since >= self.idle => Look::Idle,
                _ => Look::Fine,
            };
        }
        // A handler has deadlines of its own.
        if state.asked > 0 || state.written.0 >= LEAST_BYTES {
            state.written = (0, now);
        }
        if now - state.written.1 >= self.body { Look::Stuck("the body of an answer") } else { Look::Fine }
    }

    /// The head of a request is here.
    pub(super) fn begin(self: &Arc<Self>) -> Asked {
        let mut state = self.lock();
        state.asked += 1;
        state.head_since = None;
        self.usage.busy();
        Asked(Arc::clone(self))
    }

    /// A request, or one of several.
    fn ended(&self, state: &mut State) {
        state.idle_since = Instant::now();
        if state.asked + state.sending == 0 {
            self.usage.quiet();
        }
    }

    fn note_read(&self) {
        let mut state = self.lock();
        // HTTP/2 has frames that belong to no request.
        if !self.is_http2 && state.asked + state.sending == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn note_written(&self, bytes: usize) {
        self.lock().written.0 += bytes as u64;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    pub(super) fn answered(self) -> Sending {
        let mut state = self.0.lock();
        state.sending += 1;
        state.written = (0, Instant::now());
        drop(state);
        Sending(Arc::clone(&self.0))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.asked -= 1;
        self.0.ended(&mut state);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.sending -= 1;
        self.0.ended(&mut state);
    }
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, moves: Arc<Moves>, traffic: Traffic) -> Self {
        Self { stream, moves, traffic }
    }

    fn note_written(&self, bytes: usize) {
        self.moves.note_written(bytes);
        self.traffic.sent.inc_by(bytes as u64);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            self.moves.note_read();
            self.traffic.received.inc_by(read as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.note_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, pieces))?;
        self.note_written(written);
        Poll::Ready(Ok(written))
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
    use super::*;
    use crate::slots::Slots;

    fn moves(is_http2: bool) -> Arc<Moves> {
        let limits = Limits {
            idle_timeout: Duration::from_mins(2),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_mins(1),
            ..Limits::default()
        };
        let slot = Slots::new(1, 1, 1).take([127, 0, 0, 1].into()).expect("a place");
        Arc::new(Moves::new(&limits, is_http2, slot.usage()))
    }

    /// Time is moved back instead of waited for.
    fn pass(moves: &Moves, seconds: u64) {
        let time = Duration::from_secs(seconds);
        let mut state = moves.lock();
        state.idle_since -= time;
        state.head_since = state.head_since.map(|since| since - time);
        state.written.1 -= time;
    }

    #[test]
    fn between_requests() {
        let moves = moves(false);
        pass(&moves, 119);
        assert_eq!(moves.look(), Look::Fine);
        pass(&moves, 1);
        assert_eq!(moves.look(), Look::Idle);
        drop(moves.begin().answered());
        assert_eq!(moves.look(), Look::Fine);
    }

    #[test]
    fn a_head_that_does_not_end() {
        let moves = moves(false);
        moves.note_read();
        pass(&moves, 29);
        // Dripping does not help.
        moves.note_read();
        assert_eq!(moves.look(), Look::Fine);
        pass(&moves, 1);
        assert_eq!(moves.look(), Look::Stuck("the head of a request"));
        let under_way = moves.begin();
        moves.note_read();
        pass(&moves, 1000);
        assert_eq!(moves.look(), Look::Fine, "its handler has deadlines of its own");
        drop(under_way);
        assert_eq!(moves.look(), Look::Fine);
    }

    #[test]
    fn an_answer_that_does_not_move() {
        let moves = moves(true);
        moves.note_read();
        let answer = moves.begin().answered();
        for _ in 0..5 {
            pass(&moves, 59);
            moves.note_written(2000);
            assert_eq!(moves.look(), Look::Fine);
        }
        pass(&moves, 59);
        moves.note_written(17);
        assert_eq!(moves.look(), Look::Fine);
        let working = moves.begin();
        pass(&moves, 60);
        assert_eq!(moves.look(), Look::Fine, "another request is worked on");
        drop(working);
        pass(&moves, 60);
        assert_eq!(moves.look(), Look::Stuck("the body of an answer"));
        drop(answer);
        assert_eq!(moves.look(), Look::Fine);
    }
}
