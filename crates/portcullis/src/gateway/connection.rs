//! One connection of a program on this machine: its head, one request, one answer, and an end that the program can read
//! up to. A connection takes one request, so that where one ends and the next begins is never a question.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use super::exchange::{AnswerBody, Content, Exchange};
use super::peer_user::User;
use super::refusal::Refusal;
use super::rules::Entrance;
use super::{Gateway, head};

/// What is read of a program that is still sending when it has its answer: closed at once, its kernel would drop the
/// answer with the rest.
const PARTING_BYTES: usize = 8 << 20;
const PARTING_SILENCE: Duration = Duration::from_secs(2);

/// Who is at the other end, for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    pub(super) user: Option<User>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unix")?,
        }
        match self.user {
            Some(user) => write!(f, " uid={}", user.number()),
            None => Ok(()),
        }
    }
}

/// Takes one request and answers it. A connection without one is given up when `stop` turns true.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    entrance: Entrance,
    gateway: Arc<Gateway>,
    mut stop: watch::Receiver<bool>,
) {
    let head = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        head = head::read(&mut stream, gateway.stall) => head,
    };
    match head {
        Err(head::HeadFault::Gone) => {}
        Err(fault) => refuse(stream, peer, fault.into(), gateway.stall).await,
        Ok(head) => exchange(stream, head, peer, entrance, gateway).await,
    }
}

/// Says why not, to whoever is not let in as far as a request. It is heard first: to a client that has not asked yet, an
/// answer is an error of another kind.
pub(super) async fn turn_away(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    refusal: Refusal,
    deadline: Duration,
) {
    if head::read(&mut stream, deadline).await.is_ok() {
        refuse(stream, peer, refusal, deadline).await;
    } else {
        tracing::warn!(%peer, reason = %refusal, "connection refused");
    }
}

async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, refusal: Refusal, deadline: Duration) {
    match refusal {
        // Engines try TLS first, with every registry.
        Refusal::Head(_) => tracing::info!(%peer, reason = %refusal, "connection refused"),
        _ => tracing::warn!(%peer, reason = %refusal, "connection refused"),
    }
    let said = timeout(deadline, stream.write_all(&refusal.into_bytes())).await;
    if matches!(said, Ok(Ok(()))) {
        part(&mut stream).await;
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    head: Bytes,
    peer: Peer,
    entrance: Entrance,
    gateway: Arc<Gateway>,
) {
    let (read, write) = tokio::io::split(stream);
    let mut stream = TimeoutStream::new(tokio::io::join(std::io::Cursor::new(head).chain(read), write));
    // Reading has deadlines of its own: while an answer is on its way nothing need come.
    stream.set_write_timeout(Some(gateway.stall));
    let stream: Pin<Box<TimeoutStream<_>>> = Box::pin(stream);
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(answer(&gateway, peer, entrance, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).max_headers(head::MAX_LINES);
    match builder.serve_connection(TokioIo::new(stream), service).without_shutdown().await {
        Ok(parts) => part(&mut parts.io.into_inner()).await,
        // Cut in the middle of an answer, which the program sees by its length.
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
}

async fn answer(gateway: &Gateway, peer: Peer, entrance: Entrance, request: Request<Incoming>) -> Response<AnswerBody> {
    let mut exchange = Exchange::new(peer, &request);
    let (head, incoming) = request.into_parts();
    let body = exchange.body(incoming, gateway.stall);
    let answered = match gateway.rules.judge(entrance, &head.method, &head.uri, &head.headers) {
        Ok(passage) => gateway.forward(&passage, &head.headers, body).await,
        Err(refusal) => Err(refusal),
    };
    let response = answered.unwrap_or_else(|refusal| {
        exchange.refused(&refusal);
        refusal.into_response().map(Content::Whole)
    });
    let status = response.status().as_u16();
    response.map(|content| exchange.answered(status, content))
}

/// Closes our side, and reads on for a moment.
async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut buffer = vec![0; 16 * 1024];
    let mut left = PARTING_BYTES;
    while let Ok(Ok(read @ 1..)) = timeout(PARTING_SILENCE, stream.read(&mut buffer)).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}
