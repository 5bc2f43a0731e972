//! One request with its answer, until the last byte of that is sent or given up: what holds its place among the requests
//! under way, and writes its one line into the log. Must not know what was asked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame, SizeHint};
use portcullis_certs::Visible;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::{BodyError, ResponseBody, SharedWatch};

/// A request under way. Its end, however it comes, is the line in the log.
#[derive(Debug)]
pub(crate) struct Exchange {
    peer: SocketAddr,
    who: Arc<str>,
    method: Method,
    path: String,
    begun: Instant,
    /// None while there is no answer: who leaves before it gets none.
    status: Option<u16>,
    received: Arc<AtomicU64>,
    sent: u64,
    complete: bool,
    slot: Option<OwnedSemaphorePermit>,
}

/// The body of an answer, with the request that it ends.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: ResponseBody,
    exchange: Exchange,
}

impl Exchange {
    /// `who` the peer is when it asks.
    pub(crate) fn new(peer: SocketAddr, who: Arc<str>, method: &Method, path: &str) -> Self {
        Self {
            peer,
            who,
            method: method.clone(),
            path: path.to_owned(),
            begun: Instant::now(),
            status: None,
            received: Arc::default(),
            sent: 0,
            complete: false,
            slot: None,
        }
    }

    /// Counts the bytes of the request's body.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Given back when all is sent.
    pub(crate) fn holds(&mut self, slot: Option<OwnedSemaphorePermit>) {
        self.slot = slot;
    }

    pub(crate) fn answered(mut self, status: u16, body: ResponseBody) -> AnswerBody {
        self.status = Some(status);
        AnswerBody { body, exchange: self }
    }
}

impl AnswerBody {
    pub(crate) fn watch(&self) -> Option<&Arc<SharedWatch>> {
        self.body.watch()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        tracing::info!(
            peer = %self.peer,
            who = %self.who,
            method = %self.method,
            path = %Visible(&self.path),
            status = self.status,
            received = self.received.load(Ordering::Relaxed),
            sent = self.sent,
            complete = self.complete,
            ms = self.begun.elapsed().as_millis(),
            "request"
        );
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.exchange.complete = self.body.is_end_stream();
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.exchange.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
