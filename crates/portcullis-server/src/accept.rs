//! The accept loop and the handshake: a TCP stream becomes a [`Peer`] with an HTTP connection, or is refused with the
//! exact alert and a line in the log.
//!
//! Must not know repositories or the store. Nothing a stranger sends costs more than one handshake.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use portcullis_certs::Visible;
use portcullis_tls::{ClientAuth, RefusedPeer, VerdictSlot};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::io::{AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::app::App;
use crate::connection;
use crate::connection::gathering::Gathering;
use crate::connection::refused::{self, Stranger};
use crate::events::KeyProven;
use crate::events::metrics::HandshakeResult;
use crate::generation::Generations;
use crate::lanes::{Lanes, Part};
use crate::peer::{Peer, Verdict};
use crate::reason::{Reason, Short, own_host};
use crate::slots::{Place, Slot, Slots};
use crate::turns::{self, Turns};

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

/// The alert for it.
const CERTIFICATE_REQUIRED: &str = "certificate_required";
/// What the operator may look for.
const NO_CERTIFICATE: &str = "no client certificate was presented: none is installed for this registry, or the client \
                              found none that was issued by a CA in the list we send";

/// A TCP stream on which a write that makes no progress fails.
pub(crate) type Stream = Gathering<Pin<Box<TimeoutStream<TcpStream>>>>;

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) app: Arc<App>,
    pub(crate) generations: Arc<Generations>,
    pub(crate) slots: Arc<Slots>,
    /// The places of peers that are not let in and are told why: they take none of the others'.
    pub(crate) strangers: Arc<Slots>,
    pub(crate) handshakes: Turns,
    pub(crate) client_auth: ClientAuth,
}

/// Whom a finished handshake is with.
enum Session {
    Known(Arc<Peer>),
    Stranger(Stranger),
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
    let lanes = Lanes::new();
    let mut backoff = Duration::from_millis(5);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = async { shared.slots.room().await; listener.accept().await } => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                backoff = Duration::from_millis(5);
                // A mapped address is the IPv4 one it stands for: limits and the log must not see two.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let Some(slot) = shared.slots.take(address.ip()) else {
                    shared.app.events.counters.connections_refused.inc();
                    tracing::debug!(peer = %address, "connection refused: too many");
                    continue;
                };
                let whose = slot.address();
                lanes.begin(whose, Box::pin(serve(stream, address, slot, Arc::clone(&shared), stop.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(1));
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(shared.app.limits.drain_timeout, lanes.end()).await.is_err() {
        let connections = shared.slots.count();
        tracing::warn!(connections, "requests still under way are cut: drain_timeout is over");
    }
}

/// From the TCP stream on; what is left to do once the peer is known.
async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    slot: Slot,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Option<Part<()>> {
    let place = slot.place();
    let rest = unless_given_up(&place, address, meet(stream, address, slot, shared, stop)).await??;
    let rest: Part<()> = Box::pin(async move {
        unless_given_up(&place, address, rest).await;
    });
    Some(rest)
}

/// `None`: another connection got the place.
async fn unless_given_up<T>(place: &Place, address: SocketAddr, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = place.given_up() => {
            tracing::debug!(peer = %address, "connection closed: it makes room for a new one");
            None
        }
        done = work => Some(done),
    }
}

/// The handshake, and the parting from whoever is refused in it. Each part is in a box of its own: what the handshake
/// needed is given back when it is done, and an idle connection takes no more than it must.
async fn meet(
    stream: TcpStream,
    address: SocketAddr,
    slot: Slot,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> Option<Part<()>> {
    let limit = shared.app.limits.handshake_timeout;
    let result = tokio::time::timeout(limit, Box::pin(handshake(stream, address, &slot, &shared))).await;
    match result {
        Ok(Ok((stream, Session::Known(peer)))) => {
            let app = Arc::clone(&shared.app);
            Some(Box::pin(async move { connection::serve(stream, peer, app, slot.usage(), stop).await }))
        }
        Ok(Ok((stream, Session::Stranger(stranger)))) => {
            let Some(place) = shared.strangers.take(address.ip()) else {
                tracing::debug!(peer = %address, "no reason is given: too many peers are given theirs");
                return None;
            };
            // Whoever reads its reason keeps its place: it is short enough.
            place.usage().busy();
            drop(slot);
            let app = Arc::clone(&shared.app);
            Some(Box::pin(async move {
                let _place = place;
                refused::serve(stream, stranger, app, stop).await;
            }))
        }
        Ok(Err(Some(mut refused))) => {
            Box::pin(linger(&mut refused)).await;
            None
        }
        Ok(Err(None)) => None,
        Err(_) => {
            tracing::debug!(peer = %address, "handshake given up: handshake_timeout is over");
            shared.app.events.counters.handshake(HandshakeResult::TimedOut);
            None
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
) -> Result<(Box<TlsStream<Stream>>, Session), Option<Stream>> {
    let mut first = [0];
    // Load balancers connect and leave again to see whether somebody listens.
    if !stream.peek(&mut first).await.is_ok_and(|bytes| bytes > 0) {
        tracing::debug!(peer = %address, "connection ended before its handshake");
        return Err(None);
    }
    // Only who has said something waits for a turn, and for its own address' first: a stranger who stalls takes nobody
    // else's.
    let _own_turn = slot.handshakes().take().await.ok_or(None)?;
    let _turn = shared.handshakes.take().await.ok_or(None)?;
    tokio::select! {
        () = turns::outstayed([slot.handshakes(), &shared.handshakes]) => {
            tracing::debug!(peer = %address, "handshake given up: it stalls, and others wait");
            shared.app.events.counters.handshake(HandshakeResult::TimedOut);
            Err(None)
        }
        done = shake_hands(stream, address, first[0], shared) => done,
    }
}

/// From the first byte on.
async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    first: u8,
    shared: &Shared,
) -> Result<(Box<TlsStream<Stream>>, Session), Option<Stream>> {
    // Small answers should not wait for more: there is never a reason to gather on a request-response stream.
    let _ = stream.set_nodelay(true);
    let generation = shared.generations.current();
    let (config, verdict) = generation.tls.handshake(shared.client_auth).map_err(|error| {
        tracing::error!(%error, "handshakes are not possible");
        None
    })?;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(shared.app.limits.body_timeout));
    let stream = Gathering::new(Box::pin(stream));
    // A TLS record begins with its type, 22 for a handshake; an HTTP request with a capital letter.
    let accepted = if first.is_ascii_uppercase() {
        Err(refuse_plain_http(stream).await)
    } else {
        let accepted = TlsAcceptor::from(config).accept(stream).into_fallible().await;
        accepted.map_err(|(error, stream)| (HandshakeError::Tls(error), stream))
    };
    let stream = accepted.map_err(|(error, stream)| {
        log_failure(address, &error, &verdict, shared);
        Some(stream)
    })?;
    let judged = verdict.accepted().map(|accepted| Verdict { generation, accepted });
    match session(address, &stream, judged, shared) {
        Some(session) => Ok((Box::new(stream), session)),
        None => Err(None),
    }
}

/// `None`: the generation changed while the handshake ran, and does not let the peer in.
fn session(
    address: SocketAddr,
    stream: &TlsStream<Stream>,
    judged: Option<Verdict>,
    shared: &Shared,
) -> Option<Session> {
    let generations = Arc::clone(&shared.generations);
    let chain: Vec<CertificateDer<'static>> =
        stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    let peer = match (chain.is_empty(), shared.client_auth) {
        (true, ClientAuth::Optional) => return Some(Session::Known(Arc::new(Peer::anonymous(address, generations)))),
        // rustls has refused it where a certificate is required.
        (true, ClientAuth::Require | ClientAuth::Explain) => None,
        (false, _) => match Peer::new(address, chain, judged, generations) {
            Ok(peer) => return Some(Session::Known(Arc::new(peer))),
            Err(refused) => Some(refused),
        },
    };
    let stranger = Stranger { address, peer, generation: shared.generations.current(), port: shared.app.port };
    log_stranger(&stranger, shared);
    (shared.client_auth == ClientAuth::Explain).then_some(Session::Stranger(stranger))
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
        let mut budget = LINGER_BYTES;
        loop {
            match discard(stream).await {
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

/// Reads what is there. No memory is held for what is not: thousands may linger.
async fn discard<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); LINGER_READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}

/// A refused client certificate is the event that an operator needs most: always a warning, with everything that the
/// peer claimed. The chain is judged before the handshake's signature, so none of it is proven.
fn log_failure(address: SocketAddr, error: &HandshakeError, refused: &VerdictSlot, shared: &Shared) {
    if let Some(peer) = refused.take() {
        log_refused(address, &peer, KeyProven::No, shared);
        return;
    }
    let (result, reason) = match error {
        HandshakeError::Tls(error) => (tls_result(error), tls_reason(error)),
        HandshakeError::PlainHttp => {
            (HandshakeResult::PlainHttp, "it spoke plain HTTP; this port takes TLS only".to_owned())
        }
    };
    let told = is_without_certificate(error).then(|| no_certificate(shared).to_string());
    tracing::warn!(peer = %address, reason = %Visible(&reason), told, "handshake failed");
    shared.app.events.failed(address, result, &reason);
}

fn tls_result(error: &io::Error) -> HandshakeResult {
    use rustls::{AlertDescription as Alert, Error};
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => HandshakeResult::Refused(CERTIFICATE_REQUIRED),
        // What a client says when it leaves, not that it trusts nobody.
        Some(Error::AlertReceived(Alert::CloseNotify | Alert::UserCanceled)) | None => HandshakeResult::BrokenOff,
        Some(Error::AlertReceived(_)) => HandshakeResult::RefusedByClient,
        Some(_) => HandshakeResult::ProtocolError,
    }
}

/// Its handshake came to its end, and it is not let in.
fn log_stranger(stranger: &Stranger, shared: &Shared) {
    let address = stranger.address;
    let Some(peer) = &stranger.peer else {
        let told = no_certificate(shared);
        tracing::warn!(peer = %address, reason = NO_CERTIFICATE, %told, "no client certificate");
        shared.app.events.failed(address, HandshakeResult::Refused(CERTIFICATE_REQUIRED), NO_CERTIFICATE);
        return;
    };
    log_refused(address, peer, KeyProven::Yes, shared);
}

fn log_refused(address: SocketAddr, peer: &RefusedPeer, key_proven: KeyProven, shared: &Shared) {
    let reason = Reason::refused(peer, OffsetDateTime::now_utc());
    let facts = peer.certificate.as_ref().map(portcullis_certs::Certificate::facts);
    tracing::warn!(
        peer = %address,
        subject = facts.map(|facts| Short(&facts.subject).to_string()),
        issuer = facts.map(|facts| Short(&facts.issuer).to_string()),
        serial = facts.map(|facts| facts.serial.to_string()),
        fingerprint = peer.certificate.as_ref().map(|certificate| certificate.fingerprint().to_string()),
        reason = %peer.refusal,
        told = %reason,
        key_proven = key_proven == KeyProven::Yes,
        "client certificate refused"
    );
    let generation = shared.generations.current();
    shared.app.events.refused(address, peer, &reason, key_proven, generation.tls.trust());
}

fn no_certificate(shared: &Shared) -> Reason {
    Reason::no_certificate(&own_host(shared.generations.current().tls.chain().first(), shared.app.port))
}

fn is_without_certificate(error: &HandshakeError) -> bool {
    let HandshakeError::Tls(error) = error else { return false };
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::NoCertificatesPresented))
}

/// In plain words, for the three that people ask about.
fn tls_reason(error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, Error};
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => NO_CERTIFICATE.to_owned(),
        Some(Error::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown)) => {
            "the client does not trust this registry's certificate: its directory lacks our ca.crt".to_owned()
        }
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}
