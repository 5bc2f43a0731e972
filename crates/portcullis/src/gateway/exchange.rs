//! One request with its answer: its bodies, with their deadlines, and its one line in the log when the last byte is sent
//! or the peer has left. Must not know what was asked.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use portcullis_certs::Visible;
use portcullis_client::{ClientError, RelayedBody};
use tokio::time::{Sleep, sleep};

use super::connection::Peer;
use super::refusal::Refusal;

/// The line in the log, written when it is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    peer: Peer,
    method: Method,
    path: String,
    begun: Instant,
    status: Option<u16>,
    reason: Option<String>,
    received: Arc<AtomicU64>,
    sent: u64,
    complete: bool,
}

/// What the peer sends. It ends in an error when nothing comes for too long.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    stall: Duration,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
    received: Arc<AtomicU64>,
    fault: BodyFault,
}

/// Why a request's body broke off, for whoever does not see the body any more.
#[derive(Debug, Clone, Default)]
pub(super) struct BodyFault(Arc<Mutex<Option<Refusal>>>);

/// What the peer gets.
#[derive(Debug)]
pub(super) struct AnswerBody {
    content: Content,
    exchange: Exchange,
}

#[derive(Debug)]
pub(super) enum Content {
    Whole(Bytes),
    Relayed(RelayedBody),
}

impl Exchange {
    pub(super) fn new<B>(peer: Peer, request: &Request<B>) -> Self {
        Self {
            peer,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            begun: Instant::now(),
            status: None,
            reason: None,
            received: Arc::default(),
            sent: 0,
            complete: false,
        }
    }

    /// The request's body.
    pub(super) fn body(&self, incoming: Incoming, stall: Duration) -> RequestBody {
        RequestBody {
            incoming,
            stall,
            deadline: Box::pin(sleep(stall)),
            waiting: false,
            received: Arc::clone(&self.received),
            fault: BodyFault::default(),
        }
    }

    /// Why the gateway itself answers.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.reason = Some(refusal.to_string());
    }

    pub(super) fn answered(mut self, status: u16, content: Content) -> AnswerBody {
        self.status = Some(status);
        AnswerBody { content, exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        tracing::info!(
            peer = %self.peer,
            method = %self.method,
            path = %Visible(&self.path),
            status = self.status,
            reason = self.reason,
            received = self.received.load(Ordering::Relaxed),
            sent = self.sent,
            complete = self.complete,
            ms = self.begun.elapsed().as_millis(),
            "request"
        );
    }
}

impl BodyFault {
    pub(super) fn take(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, refusal: Refusal) -> io::Error {
        let error = io::Error::other(refusal.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        error
    }
}

impl RequestBody {
    pub(super) fn fault(&self) -> BodyFault {
        self.fault.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = false;
                match frame {
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        this.received.fetch_add(bytes as u64, Ordering::Relaxed);
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Some(Err(error)) => Poll::Ready(Some(Err(this.fault.set(Refusal::BodyCut(error.to_string()))))),
                    None => Poll::Ready(None),
                }
            }
            Poll::Pending => {
                if !this.waiting {
                    this.waiting = true;
                    this.deadline.as_mut().reset(tokio::time::Instant::now() + this.stall);
                }
                ready!(this.deadline.as_mut().poll(cx));
                Poll::Ready(Some(Err(this.fault.set(Refusal::BodyStalled(this.stall)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = &mut *self;
        let frame = match &mut this.content {
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Content::Relayed(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => this.exchange.sent += frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(error)) => this.exchange.reason = Some(error.to_string()),
            None => this.exchange.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Relayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Relayed(body) => body.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // hyper does not ask for an end that it knows of.
        self.exchange.complete |= self.is_end_stream();
    }
}
