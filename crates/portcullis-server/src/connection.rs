//! One HTTP connection of a peer: HTTP/1.1 or HTTP/2, as ALPN decided; ended when it idles or is stuck, when the server
//! stops, and when its peer is no longer trusted.

mod answers;
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
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
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

/// Serves until the peer leaves or has to.
pub(crate) async fn serve(
    stream: TlsStream<Stream>,
    peer: Arc<Peer>,
    app: Arc<App>,
    usage: Usage,
    mut stop: watch::Receiver<bool>,
) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let windows = is_http2.then(|| app.windows.share());
    let builder = builder(&app.limits, windows.as_ref());
    let drain_timeout = app.limits.drain_timeout;
    let moves = Arc::new(Moves::new(&app.limits, is_http2, usage));
    let session =
        Arc::new(Session { app, peer, moves: Arc::clone(&moves), answers: Answers::default(), end: Notify::new() });
    let requests = Arc::clone(&session);
    let service = service_fn(move |request| answer(Arc::clone(&requests), request));
    let stream = TokioIo::new(Watched::new(
        Parting::new(stream),
        Arc::clone(&moves),
        session.app.events.counters.traffic.clone(),
    ));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut denied = pin!(session.answers.denied());
    let mut closing: Option<Instant> = None;
    loop {
        let wake = closing.unwrap_or_else(|| Instant::now() + moves.tick());
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %session.peer.address(), error = %Chain(&*error), "connection ended");
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop), if closing.is_none() => {
                connection.as_mut().graceful_shutdown();
                closing = Some(Instant::now() + drain_timeout);
            }
            () = denied.as_mut() => return,
            () = session.end.notified(), if closing.is_none() => {
                connection.as_mut().graceful_shutdown();
                closing = Some(Instant::now() + CLOSE_TIME);
            }
            () = sleep_until(wake) => match moves.look() {
                _ if closing.is_some() => return,
                Look::Fine => {}
                Look::Idle => {
                    connection.as_mut().graceful_shutdown();
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

/// ALPN has decided already: guessing from the first bytes would wait for them without a deadline (hyper PR #4171).
///
/// hyper's own `header_read_timeout` runs from the end of the request before, which makes it a second, shorter idle
/// timeout: [`Moves`] has ours.
fn builder(limits: &Limits, http2: Option<&windows::Share>) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let Some(windows) = http2 else {
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).keep_alive(true);
        return builder.http1_only();
    };
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(windows.stream())
        .initial_connection_window_size(windows.connection())
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(1 << 20)
        .keep_alive_interval(limits.body_timeout)
        .keep_alive_timeout(limits.body_timeout);
    builder.http2_only()
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
