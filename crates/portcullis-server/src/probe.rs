//! The second listener, without TLS, for those who must ask without a certificate: is it alive, is it ready.
//! Details are given on loopback only.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::status::{self, Inside};

/// Probes at once, and how long one may take: whoever reaches this port is not known.
const CONNECTIONS: usize = 64;
const LIFE: Duration = Duration::from_secs(10);

/// Answers probes until `stop` turns true.
pub(crate) async fn run(listener: TcpListener, inside: Arc<Inside>, mut stop: watch::Receiver<bool>) {
    let details = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let inside = Arc::clone(&inside);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&inside, &request, details);
                async { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(LIFE);
            // A probe that is cut off asks again.
            let _ = tokio::time::timeout(LIFE, builder.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
}

fn answer(inside: &Inside, request: &Request<Incoming>, details: bool) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            let problems = status::not_ready(inside);
            match (problems.is_empty(), details) {
                (true, _) => (StatusCode::OK, "ok\n".to_owned()),
                (false, true) => (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n"),
                (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
            }
        }
        _ => (StatusCode::NOT_FOUND, "/livez and /readyz are here\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
