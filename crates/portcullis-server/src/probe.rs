//! The second listener, without TLS, for those who must ask without a certificate: is it alive, is it ready.
//! Details are given on loopback only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::events::metrics;
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
    if let (&Method::GET | &Method::HEAD, "/metrics") = (request.method(), request.uri().path()) {
        return metrics(inside);
    }
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            let problems = status::not_ready(inside);
            let (status, word) = if problems.is_empty() {
                (StatusCode::OK, "ok\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            };
            (status, if details { word.to_owned() + &detailed(inside, &problems) } else { word.to_owned() })
        }
        _ => (StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

fn detailed(inside: &Inside, problems: &[String]) -> String {
    let line = |word: &str, text: &String| format!("{word}: {text}\n");
    let not_ready = problems.iter().map(|text| line("not ready", text));
    let degraded = status::degraded(inside);
    let refused = status::refused(inside);
    let degraded = degraded.iter().map(|text| line("degraded", text));
    not_ready.chain(degraded).chain(refused.iter().map(|text| line("not in force", text))).collect()
}

/// For whoever reaches the port: nothing in it names a client or a repository.
fn metrics(inside: &Inside) -> Response<Full<Bytes>> {
    // Writing into a String cannot fail.
    let mut response = Response::new(Full::from(metrics::page(inside).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}
