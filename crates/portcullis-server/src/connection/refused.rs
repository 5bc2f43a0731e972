//! The connection of a peer that is not let in and is told why: `client_auth = "explain"`.
//!
//! Such a peer has no [`Peer`](crate::peer::Peer), and with that no way to a permit. Every request gets the one answer; no
//! body is read; the connection has few bytes, few streams and a short life, and goes after its first answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use portcullis_certs::{Certificate, Visible};
use portcullis_oci::Endpoint;
use portcullis_tls::RefusedPeer;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio_rustls::server::TlsStream;

use super::parting::Parting;
use crate::accept::Stream;
use crate::api::base;
use crate::app::App;
use crate::body::ResponseBody;
use crate::error::{ApiError, DockerChallenge};
use crate::events::operation::Operation;
use crate::generation::Generation;
use crate::reason::{Reason, typed_host};

/// The whole connection.
const LIFE: Duration = Duration::from_secs(10);
/// Its end, of which that.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Engines ask for a few things at once.
const MAX_STREAMS: u32 = 8;
const WINDOW: u32 = 64 << 10;
const MAX_HEADERS: u32 = 16 << 10;

/// A peer that is not let in. Nothing of it is a proof of anything.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) address: SocketAddr,
    /// `None`: it showed no certificate.
    pub(crate) peer: Option<Box<RefusedPeer>>,
    /// The one that refused it.
    pub(crate) generation: Arc<Generation>,
    /// Where the registry listens.
    pub(crate) port: u16,
}

impl Stranger {
    /// What it is told, by a registry that clients call `host`.
    pub(crate) fn reason(&self, host: &str) -> Reason {
        match &self.peer {
            Some(peer) => Reason::refused(peer, OffsetDateTime::now_utc()),
            None => Reason::no_certificate(host),
        }
    }

    fn own_certificate(&self) -> Option<&Certificate> {
        self.generation.tls.chain().first()
    }

    fn answer(&self, app: &App, request: &Request<Incoming>) -> Response<ResponseBody> {
        let endpoint = Endpoint::parse(request.method(), request.uri().path(), request.uri().query());
        let host = typed_host(request.uri(), request.headers(), self.own_certificate(), self.port);
        let reason = self.reason(&host);
        let operation = Operation::of(&endpoint);
        let error = match endpoint {
            Ok(Endpoint::Base) => {
                ApiError::Unauthorized { reason, also: DockerChallenge::new(request.headers(), &host) }
            }
            _ => ApiError::Stranger(reason),
        };
        let mut response = error.into_response(&operation);
        if request.method() == Method::HEAD {
            *response.body_mut() = ResponseBody::Empty;
        }
        base::add_headers(&mut response);
        app.events.counters.request(operation.name(), response.status());
        if request.version() < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        tracing::info!(
            peer = %self.address,
            method = %request.method(),
            path = %Visible(request.uri().path()),
            status = response.status().as_u16(),
            "request of a peer that is not let in"
        );
        response
    }
}

/// Answers until the first answer has been given, the time is over, or the server stops.
pub(crate) async fn serve(
    stream: Box<TlsStream<Stream>>,
    stranger: Stranger,
    app: Arc<App>,
    mut stop: watch::Receiver<bool>,
) {
    let builder = builder(stream.get_ref().1.alpn_protocol() == Some(b"h2"));
    let answered = Arc::new(Notify::new());
    let told = Arc::clone(&answered);
    let service = service_fn(move |request| {
        let response = stranger.answer(&app, &request);
        told.notify_one();
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Parting::new(stream)), service));
    let mut tired = pin!(tokio::time::sleep(LIFE.saturating_sub(CLOSE_TIME)));
    let mut over = pin!(tokio::time::sleep(LIFE));
    let mut is_closing = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = over.as_mut() => return,
            _ = stop.wait_for(|stop| *stop) => return,
            () = tired.as_mut(), if !is_closing => {
                connection.as_mut().graceful_shutdown();
                is_closing = true;
            }
            () = answered.notified(), if !is_closing => {
                connection.as_mut().graceful_shutdown();
                is_closing = true;
            }
        }
    }
}

fn builder(is_http2: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(LIFE).keep_alive(false).max_buf_size(WINDOW as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS);
    if is_http2 { builder.http2_only() } else { builder.http1_only() }
}
