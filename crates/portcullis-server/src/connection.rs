//! One HTTP connection of a peer: HTTP/1.1 or HTTP/2, as ALPN decided; ended when it idles or is stuck, when the server
//! stops, and when its peer is no longer trusted.

mod answers;
pub(crate) mod gathering;
mod moves;
mod parting;
pub(crate) mod refused;
pub(crate) mod windows;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::accept::Stream;
use crate::app::{App, EndConnection, respond};
use crate::body::BodyError;
use crate::config::Limits;
use crate::error::Chain;
use crate::exchange::AnswerBody;
use crate::peer::Peer;
use crate::slots::Usage;

use self::answers::Answers;
use self::moves::{Look, Moves, Watched};
use self::parting::Parting;

const MAX_FRAME: u32 = 1 << 20;
const MAX_STREAMS: u32 = 100;
/// The end of a connection that was asked to end.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What the requests of one connection share.
#[derive(Debug)]
struct Session {
    app: Arc<App>,
    peer: Arc<Peer>,
    moves: Arc<Moves>,
    answers: Answers,
    end: Notify,
}

/// An answer's body that keeps its request under way until it has been sent or dropped.
#[derive(Debug)]
struct TrackedBody {
    body: AnswerBody,
    _sending: moves::Sending,
}

/// The HTTP of one connection, as ALPN decided: guessing from the first bytes would wait for them without a deadline
/// (hyper PR #4171). On the heap, where each has its own size.
enum Http {
    One(Pin<Box<http1::Connection<Io, Requests>>>),
    Two(Pin<Box<http2::Connection<Io, Requests, TokioExecutor>>>),
}

type Io = TokioIo<Watched<Parting<Box<TlsStream<Stream>>>>>;

/// Answers requests.
#[derive(Debug)]
struct Requests(Arc<Session>);

/// Serves until the peer leaves or has to.
pub(crate) async fn serve(
    mut stream: Box<TlsStream<Stream>>,
    peer: Arc<Peer>,
    app: Arc<App>,
    usage: Usage,
    mut stop: watch::Receiver<bool>,
) {
    stream.get_mut().0.begin();
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let windows = is_http2.then(|| app.windows.share());
    let drain_timeout = app.limits.drain_timeout;
    let moves = Arc::new(Moves::new(&app.limits, is_http2, usage));
    let session =
        Arc::new(Session { app, peer, moves: Arc::clone(&moves), answers: Answers::default(), end: Notify::new() });
    let mut connection = Http::new(stream, &session, windows.as_ref());
    let mut denied = pin!(session.answers.denied());
    let mut closing: Option<Instant> = None;
    loop {
        let wake = closing.unwrap_or_else(|| Instant::now() + moves.tick());
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %session.peer.address(), error = %Chain(&error), "connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if closing.is_none() => {
                connection.graceful_shutdown();
                closing = Some(Instant::now() + drain_timeout);
            }
            () = denied.as_mut() => return,
            () = session.end.notified(), if closing.is_none() => {
                connection.graceful_shutdown();
                closing = Some(Instant::now() + CLOSE_TIME);
            }
            () = sleep_until(wake) => match moves.look() {
                _ if closing.is_some() => return,
                Look::Fine => {}
                Look::Idle => {
                    connection.graceful_shutdown();
                    closing = Some(Instant::now() + CLOSE_TIME);
                }
                Look::Stuck(what) => {
                    tracing::debug!(peer = %session.peer.address(), what, "connection cut: nothing moved");
                    return;
                }
            }
        }
    }
}

async fn answer(session: Arc<Session>, request: Request<Incoming>) -> Result<Response<TrackedBody>, Infallible> {
    let under_way = session.moves.begin();
    let response = respond(&session.app, &session.peer, request).await;
    if response.extensions().get::<EndConnection>().is_some() {
        session.end.notify_one();
    }
    if let Some(watch) = response.body().watch() {
        session.answers.begun(watch);
    }
    Ok(response.map(|body| TrackedBody { body, _sending: under_way.answered() }))
}

impl Http {
    fn new(stream: Box<TlsStream<Stream>>, session: &Arc<Session>, windows: Option<&windows::Share>) -> Self {
        let (moves, traffic) = (Arc::clone(&session.moves), session.app.events.counters.traffic.clone());
        let stream = TokioIo::new(Watched::new(Parting::new(stream), moves, traffic));
        let requests = Requests(Arc::clone(session));
        match windows {
            Some(windows) => {
                Self::Two(Box::pin(http2(&session.app.limits, windows).serve_connection(stream, requests)))
            }
            None => Self::One(Box::pin(http1().serve_connection(stream, requests))),
        }
    }

    fn graceful_shutdown(&mut self) {
        match self {
            Self::One(connection) => connection.as_mut().graceful_shutdown(),
            Self::Two(connection) => connection.as_mut().graceful_shutdown(),
        }
    }
}

impl Future for Http {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match &mut *self {
            Self::One(connection) => connection.as_mut().poll(cx),
            Self::Two(connection) => connection.as_mut().poll(cx),
        }
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// On the heap, and only while it goes on: hyper keeps room for it in each connection.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(answer(Arc::clone(&self.0), request))
    }
}

/// hyper's own `header_read_timeout` runs from the end of the request before, which makes it a second, shorter idle
/// timeout: [`Moves`] has ours.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).keep_alive(true);
    builder
}

fn http2(limits: &Limits, windows: &windows::Share) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(windows.stream())
        .initial_connection_window_size(windows.connection())
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(1 << 20)
        .keep_alive_interval(limits.body_timeout)
        .keep_alive_timeout(limits.body_timeout);
    builder
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
