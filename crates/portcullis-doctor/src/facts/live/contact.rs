//! One conversation with a TLS server: handshake, one request, the head of the answer, everything written down.
//!
//! In TLS 1.3 a client has finished before the server judges its certificate, so the verdict comes with the first read.
//! When the server closes with our request unread, the reset can overtake its alert: then the handshake is made again and
//! followed by nothing but reading.

use portcullis_certs::{Certificate, PrivateKey, RegistryHost, TlsVersion};
use portcullis_client::Failure;
use portcullis_tls::{OfferedVersions, RecordedRequest, Recorder, recording_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ProtocolVersion, Stream};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::http::{self, Answer};

const CONNECT: Duration = Duration::from_secs(3);
/// One read or write.
const STEP: Duration = Duration::from_secs(3);
/// The whole conversation.
const WHOLE: Duration = Duration::from_secs(10);
/// How long a server may take for its verdict when nothing else is asked of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a server is and under which name.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) host: RegistryHost,
}

/// A conversation, as far as it came.
#[derive(Debug, Clone)]
pub struct Contact {
    /// The server's certificates, its own first; empty when there was no handshake.
    pub chain: Vec<Certificate>,
    /// Certificates of the chain that could not be parsed.
    pub unreadable: usize,
    /// The version that was agreed on.
    pub version: Option<TlsVersion>,
    /// The cipher suite, in rustls' spelling.
    pub suite: Option<String>,
    /// The key exchange group, in rustls' spelling.
    pub group: Option<String>,
    /// The server's CertificateRequest; `None`: it asked for no client certificate.
    pub request: Option<RecordedRequest>,
    /// How it ended.
    pub end: ContactEnd,
}

/// How a conversation ended.
#[derive(Debug, Clone)]
pub enum ContactEnd {
    /// With an answer.
    Answered(Box<Answer>),
    /// Without one.
    Failed(Failure),
}

/// Whether a version of TLS can be agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTrial {
    /// Which.
    pub version: TlsVersion,
    /// Whether the handshake came as far as the server's certificate; otherwise why not.
    pub result: Result<(), Failure>,
}

impl Contact {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.end {
            ContactEnd::Answered(answer) => Some(answer),
            ContactEnd::Failed(_) => None,
        }
    }

    /// Why there was no answer.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.end {
            ContactEnd::Answered(_) => None,
            ContactEnd::Failed(failure) => Some(failure),
        }
    }
}

impl Peer {
    pub(super) fn new(address: SocketAddr, host: &RegistryHost) -> Self {
        Self { address, host: host.clone() }
    }

    /// Whether something listens.
    pub(super) fn reach(&self) -> Result<(), io::ErrorKind> {
        self.connect().map(|_| ()).map_err(|error| error.kind())
    }

    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect_timeout(&self.address, CONNECT)?;
        tcp.set_read_timeout(Some(STEP))?;
        tcp.set_write_timeout(Some(STEP))?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// Connects, shakes hands with the pair if there is one, and asks for `path`.
pub(super) fn contact(
    peer: &Peer,
    versions: OfferedVersions,
    pair: Option<(&[Certificate], &PrivateKey)>,
    path: &str,
) -> Contact {
    let mut talk = talk(peer, versions, pair, Some(path));
    let asked = talk.request.as_ref().is_some_and(|request| request.answered || pair.is_none());
    let lost = matches!(&talk.end, ContactEnd::Failed(failure) if !failure.is_about_identity());
    if asked && lost && !talk.chain.is_empty() {
        let listened = self::talk(peer, versions, pair, None);
        if listened.failure().is_some_and(Failure::is_about_identity) {
            talk.end = listened.end;
        }
    }
    talk
}

/// Tries each version apart, at the same time.
pub(super) fn versions(peer: &Peer) -> Vec<VersionTrial> {
    let trial = |version, offered| {
        let talk = talk(peer, offered, None, None);
        let result = match talk.end {
            ContactEnd::Failed(failure) if talk.chain.is_empty() => Err(failure),
            _ => Ok(()),
        };
        VersionTrial { version, result }
    };
    thread::scope(|scope| {
        let old = scope.spawn(|| trial(TlsVersion::V1_2, OfferedVersions::Tls12));
        let new = trial(TlsVersion::V1_3, OfferedVersions::Tls13);
        old.join().ok().into_iter().chain([new]).collect()
    })
}

/// `path`: what to ask for; `None`: only listen for what the server has to say.
fn talk(
    peer: &Peer,
    versions: OfferedVersions,
    pair: Option<(&[Certificate], &PrivateKey)>,
    path: Option<&str>,
) -> Contact {
    let opened = recording_config(versions, pair).map_err(|error| Failure::Tls { reason: error.to_string() });
    let (config, recorder) = match opened {
        Ok(opened) => opened,
        Err(failure) => return Contact::new(&Recorder::default(), None, ContactEnd::Failed(failure)),
    };
    let opened = open(peer, config);
    let (mut tls, mut tcp) = match opened {
        Ok(opened) => opened,
        Err(error) => return Contact::new(&recorder, None, ContactEnd::Failed(Failure::of(&error))),
    };
    let end = match converse(&mut tls, &mut tcp, peer, path) {
        Ok(answer) => ContactEnd::Answered(Box::new(answer)),
        Err(error) => ContactEnd::Failed(Failure::of(&error)),
    };
    Contact::new(&recorder, Some(&tls), end)
}

fn open(peer: &Peer, config: rustls::ClientConfig) -> io::Result<(ClientConnection, TcpStream)> {
    let name = ServerName::try_from(peer.host.server_name().to_owned()).map_err(io::Error::other)?;
    let tcp = peer.connect()?;
    let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok((tls, tcp))
}

fn converse(tls: &mut ClientConnection, tcp: &mut TcpStream, peer: &Peer, path: Option<&str>) -> io::Result<Answer> {
    let started = Instant::now();
    while tls.is_handshaking() {
        tls.complete_io(tcp)?;
    }
    match path {
        Some(path) => Stream::new(tls, tcp).write_all(http::request(&peer.host, path).as_bytes())?,
        None => tcp.set_read_timeout(Some(PATIENCE))?,
    }
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = match Stream::new(tls, tcp).read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            // Many servers close without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !received.is_empty() => break,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if http::is_complete(&received) || received.len() >= http::LIMIT {
            break;
        }
        if started.elapsed() > WHOLE {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Answer::parse(&received).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Contact {
    fn new(recorder: &Recorder, tls: Option<&ClientConnection>, end: ContactEnd) -> Self {
        let recorded = recorder.recorded();
        let sent = recorded.chain.len();
        let chain: Vec<Certificate> =
            recorded.chain.into_iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        Self {
            unreadable: sent - chain.len(),
            chain,
            version: tls.and_then(version),
            suite: tls.and_then(|tls| tls.negotiated_cipher_suite()).map(|suite| format!("{:?}", suite.suite())),
            group: tls.and_then(|tls| tls.negotiated_key_exchange_group()).map(|group| format!("{:?}", group.name())),
            request: recorded.request,
            end,
        }
    }
}

fn version(tls: &ClientConnection) -> Option<TlsVersion> {
    match tls.protocol_version()? {
        ProtocolVersion::TLSv1_2 => Some(TlsVersion::V1_2),
        ProtocolVersion::TLSv1_3 => Some(TlsVersion::V1_3),
        _ => None,
    }
}
