//! The loop of the two small listeners beside the registry, the probe and the admin socket: few connections, one HTTP/1.1
//! conversation each, and a short life.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

/// After an error of `accept`, which is the machine's trouble and not the peer's.
const PAUSE: Duration = Duration::from_millis(100);

/// What such a listener may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at once; the next one is closed.
    pub(crate) connections: usize,
    /// A whole connection.
    pub(crate) life: Duration,
}

/// What connections come from.
pub(crate) trait Listener {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Answers until `stop` turns true. `answerer` makes the answering function of one connection.
pub(crate) async fn run<L, A, F>(
    listener: L,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
    answerer: impl Fn(&L::Stream) -> A,
) where
    L: Listener,
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.next() => accepted,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let answer = answerer(&stream);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(bounds.life);
            // Whoever is cut off asks again.
            let _ = tokio::time::timeout(bounds.life, builder.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
    }
}
