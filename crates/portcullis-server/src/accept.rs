//! The accept loop and the handshake: a TCP stream becomes a [`Peer`] with an HTTP connection, or is refused with the
//! exact alert and a line in the log.
//!
//! Must not know repositories or the store. Nothing a stranger sends costs more than one handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_certs::Visible;
use portcullis_tls::RefusalSlot;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::app::App;
use crate::connection;
use crate::events::Events;
use crate::events::metrics::HandshakeResult;
use crate::generation::Generations;
use crate::peer::Peer;
use crate::slots::{Slot, Slots};

/// After a fatal alert the peer may still be writing. A socket closed with unread bytes is reset, and the peer's write
/// then fails before it reads the alert: so bytes are discarded for a while, beyond the budget only as fast as costs
/// nothing (16 KiB each 10 ms).
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_READ: usize = 16 * 1024;
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// What Go's `net/http` answers too: engines recognise it.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A TCP stream on which a write that makes no progress fails.
pub(crate) type Stream = std::pin::Pin<Box<TimeoutStream<TcpStream>>>;

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) app: Arc<App>,
    pub(crate) generations: Arc<Generations>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) handshakes: Semaphore,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("plain HTTP on a TLS port")]
    PlainHttp,
    #[error("{0}")]
    Tls(io::Error),
}

/// Accepts until `stop` turns true, then waits for the connections; after `drain_timeout` they are cut.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut backoff = Duration::from_millis(5);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                backoff = Duration::from_millis(5);
                // A mapped address is the IPv4 one it stands for: limits and the log must not see two.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let Some(slot) = shared.slots.take(address.ip()) else {
                    shared.app.events.connection_refused();
                    tracing::debug!(peer = %address, "connection refused: too many");
                    continue;
                };
                connections.spawn(serve(stream, address, slot, Arc::clone(&shared), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(1));
            }
        }
    }
    drop(listener);
    drain(connections, shared.app.limits.drain_timeout).await;
}

async fn drain(mut connections: JoinSet<()>, limit: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests still under way are cut: drain_timeout is over");
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, slot: Slot, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let limit = shared.app.limits.handshake_timeout;
    let result = tokio::time::timeout(limit, handshake(stream, address, &slot, &shared)).await;
    match result {
        Ok(Ok((stream, peer))) => connection::serve(stream, peer, Arc::clone(&shared.app), stop).await,
        Ok(Err(Some(mut refused))) => linger(&mut refused).await,
        Ok(Err(None)) => {}
        Err(_) => {
            tracing::debug!(peer = %address, "handshake given up: handshake_timeout is over");
            shared.app.events.counters.handshake(HandshakeResult::TimedOut);
        }
    }
}

/// The whole way from a TCP stream to a peer; whatever goes wrong is logged here, before the stream of a peer that was
/// told so is given back.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    slot: &Slot,
    shared: &Shared,
) -> Result<(TlsStream<Stream>, Arc<Peer>), Option<Stream>> {
    let mut first = [0];
    // Load balancers connect and leave again to see whether somebody listens.
    if !stream.peek(&mut first).await.is_ok_and(|bytes| bytes > 0) {
        tracing::debug!(peer = %address, "connection ended before its handshake");
        return Err(None);
    }
    // Only who has said something waits for a turn, and for its own address' first: a stranger who stalls takes nobody
    // else's.
    let _own_turn = slot.handshakes().acquire().await.map_err(|_| None)?;
    let _turn = shared.handshakes.acquire().await.map_err(|_| None)?;
    // Small answers should not wait for more: there is never a reason to gather on a request-response stream.
    let _ = stream.set_nodelay(true);
    let generation = shared.generations.current();
    let (config, refused) = generation.tls.handshake().map_err(|error| {
        tracing::error!(%error, "handshakes are not possible");
        None
    })?;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(shared.app.limits.body_timeout));
    // A TLS record begins with its type, 22 for a handshake; an HTTP request with a capital letter.
    let accepted = if first[0].is_ascii_uppercase() {
        Err(refuse_plain_http(Box::pin(stream)).await)
    } else {
        let accepted = TlsAcceptor::from(config).accept(Box::pin(stream)).into_fallible().await;
        accepted.map_err(|(error, stream)| (HandshakeError::Tls(error), stream))
    };
    let stream = accepted.map_err(|(error, stream)| {
        log_failure(&shared.app.events, address, &error, &refused);
        Some(stream)
    })?;
    let chain: Vec<CertificateDer<'static>> =
        stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    let leaf = chain.first().cloned();
    match Peer::new(address, chain, Arc::clone(&shared.generations)) {
        Ok(peer) => Ok((stream, Arc::new(peer))),
        // The generation changed while the handshake ran.
        Err(refusal) => {
            tracing::warn!(peer = %address, reason = %refusal, "connection closed: no longer trusted");
            shared.app.events.overtaken(address, leaf, &refusal);
            Err(None)
        }
    }
}

async fn refuse_plain_http(mut stream: Stream) -> (HandshakeError, Stream) {
    // Whoever does not take the answer has the log's.
    let _ = stream.write_all(PLAIN_HTTP).await;
    (HandshakeError::PlainHttp, stream)
}

/// Closes the writing side, then reads what is still coming, within bounds.
async fn linger<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) {
    let rest = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut buffer = vec![0; LINGER_READ];
        let mut budget = LINGER_BYTES;
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => budget = budget.saturating_sub(read),
            }
            if budget == 0 {
                tokio::time::sleep(LINGER_PAUSE).await;
            }
        }
    };
    // Past the deadline the peer has had its chance.
    let _ = tokio::time::timeout(LINGER_TIME, rest).await;
}

/// A refused client certificate is the event that an operator needs most: always a warning, with everything that the
/// peer claimed. The chain is judged before the handshake's signature, so none of it is proven.
fn log_failure(events: &Events, address: SocketAddr, error: &HandshakeError, refused: &RefusalSlot) {
    if let Some(peer) = refused.take() {
        let facts = peer.certificate.as_ref().map(portcullis_certs::Certificate::facts);
        tracing::warn!(
            peer = %address,
            subject = facts.map(|facts| facts.subject.to_string()),
            issuer = facts.map(|facts| facts.issuer.to_string()),
            serial = facts.map(|facts| facts.serial.to_string()),
            fingerprint = peer.certificate.as_ref().map(|certificate| certificate.fingerprint().to_string()),
            reason = %peer.refusal,
            key_proven = false,
            "client certificate refused"
        );
        events.refused(address, &peer);
        return;
    }
    let (result, reason) = match error {
        HandshakeError::Tls(error) => (tls_result(error), tls_reason(error)),
        HandshakeError::PlainHttp => {
            (HandshakeResult::PlainHttp, "it spoke plain HTTP; this port takes TLS only".to_owned())
        }
    };
    tracing::warn!(peer = %address, reason = %Visible(&reason), "handshake failed");
    events.failed(address, result, &reason);
}

fn tls_result(error: &io::Error) -> HandshakeResult {
    use rustls::{AlertDescription as Alert, Error};
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => HandshakeResult::Refused("certificate_required"),
        // What a client says when it leaves, not that it trusts nobody.
        Some(Error::AlertReceived(Alert::CloseNotify | Alert::UserCanceled)) | None => HandshakeResult::BrokenOff,
        Some(Error::AlertReceived(_)) => HandshakeResult::RefusedByClient,
        Some(_) => HandshakeResult::ProtocolError,
    }
}

/// In plain words, for the three that people ask about.
fn tls_reason(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, Error};
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => {
            "no client certificate was presented: none is installed for this registry, or the client found none that \
             was issued by a CA in the list we send"
                .to_owned()
        }
        Some(Error::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown)) => {
            "the client does not trust this registry's certificate: its directory lacks our ca.crt".to_owned()
        }
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
