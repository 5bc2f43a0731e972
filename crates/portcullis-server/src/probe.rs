//! The second listener, without TLS, for those who must ask without a certificate: is it alive, is it ready.
//! Details are given on loopback only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::side::{self, Bounds};
use crate::status::{self, Inside};

/// Whoever reaches this port is not known.
const BOUNDS: Bounds = Bounds { connections: 64, life: Duration::from_secs(10) };

/// Answers probes until `stop` turns true.
pub(crate) async fn run(listener: TcpListener, inside: Arc<Inside>, stop: watch::Receiver<bool>) {
    let details = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let answerer = |_: &_| {
        let inside = Arc::clone(&inside);
        move |request| std::future::ready(answer(&inside, &request, details))
    };
    side::run(listener, BOUNDS, stop, answerer).await;
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
