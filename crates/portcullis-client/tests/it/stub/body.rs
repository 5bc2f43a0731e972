//! Bodies that do not end as they should, or when a test says so.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;

use super::Reply;

/// A body that promises `promised` bytes and then breaks, or just ends, or hangs after `sent`.
pub(crate) fn faulty(status: u16, promised: Option<usize>, sent: &[u8], end: End) -> Reply {
    let body = Faulty { sent: Some(Bytes::copy_from_slice(sent)), end, pause: None };
    let mut reply = Response::builder().status(status).body(body.boxed()).unwrap();
    if let Some(promised) = promised {
        reply.headers_mut().insert("content-length", promised.into());
    }
    reply
}

#[derive(Clone, Copy)]
pub(crate) enum End {
    Break,
    Clean,
    Hang,
}

struct Faulty {
    sent: Option<Bytes>,
    end: End,
    /// So that what was sent goes out before the break.
    pause: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Faulty {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        use std::task::Poll;
        match (self.sent.take(), self.end) {
            (Some(sent), _) if !sent.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Ready(Some(Ok(http_body::Frame::data(sent))))
            }
            (_, End::Break) => {
                let pause = || Box::pin(tokio::time::sleep(Duration::from_millis(100)));
                std::task::ready!(self.pause.get_or_insert_with(pause).as_mut().poll(cx));
                Poll::Ready(Some(Err(io::Error::other("told to break off"))))
            }
            (_, End::Clean) => Poll::Ready(None),
            (_, End::Hang) => Poll::Pending,
        }
    }
}

/// What a test sends of a body, and when. `Err` breaks the connection.
pub(crate) type Handed = tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, io::Error>>;

/// A body that comes as the test hands it out, of `promised` bytes.
pub(crate) fn handed(promised: usize, body: Handed) -> Reply {
    let reply = Response::builder().header("content-length", promised);
    reply.body(HandedBody(body).boxed()).unwrap()
}

struct HandedBody(Handed);

impl http_body::Body for HandedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|handed| handed.map(|bytes| bytes.map(http_body::Frame::data)))
    }
}
