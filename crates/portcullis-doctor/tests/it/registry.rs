//! A registry on loopback that is as wrong as a test wants: rustls and nothing of ours.

use portcullis_testkit::pki::Pair;
use portcullis_tls::provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What it does about client certificates.
pub(crate) enum Clients {
    NotAsked,
    /// Required, from this CA (DER).
    From(Vec<u8>),
}

/// From a path to a whole HTTP answer.
pub(crate) type Answer = fn(&str) -> String;

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    /// How many connections came with a client certificate.
    pub(crate) presented: Arc<AtomicUsize>,
}

impl Registry {
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

pub(crate) fn ok(_: &str) -> String {
    answer(200, "OK", "", "{}")
}

pub(crate) fn answer(status: u16, reason: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} {reason}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

pub(crate) fn start(server: &Pair, clients: Clients, answer: Answer) -> Registry {
    start_with(server, clients, answer, rustls::ALL_VERSIONS)
}

pub(crate) fn start_with(
    server: &Pair,
    clients: Clients,
    answer: Answer,
    versions: &[&'static SupportedProtocolVersion],
) -> Registry {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        Clients::NotAsked => builder.with_no_client_auth(),
        Clients::From(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(ca)).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = server.chain_der().into_iter().map(CertificateDer::from).collect();
    let config = Arc::new(builder.with_single_cert(chain, PrivatePkcs8KeyDer::from(server.key_der()).into()).unwrap());
    let presented = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&presented);
    let address = listen(move |tcp| serve(tcp, &config, answer, &counter));
    Registry { address, presented }
}

/// What speaks no TLS.
pub(crate) fn start_plain(said: &'static str) -> SocketAddr {
    listen(move |mut tcp| {
        let mut buffer = [0; 1024];
        let _ = tcp.read(&mut buffer);
        let _ = tcp.write_all(said.as_bytes());
    })
}

/// A port on which nothing listens.
pub(crate) fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    // It ends with the process.
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(tcp));
        }
    });
    address
}

fn serve(mut tcp: TcpStream, config: &Arc<ServerConfig>, answer: Answer, presented: &AtomicUsize) {
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
    while tls.is_handshaking() {
        if tls.complete_io(&mut tcp).is_err() {
            // The alert is under way: what the client has sent is read, so that no reset overtakes it.
            while tls.wants_write() && tls.write_tls(&mut tcp).is_ok() {}
            let _ = tcp.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut tcp, &mut std::io::sink());
            return;
        }
    }
    if tls.peer_certificates().is_some() {
        presented.fetch_add(1, Ordering::SeqCst);
    }
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match Stream::new(&mut tls, &mut tcp).read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    let text = String::from_utf8(request).unwrap();
    let path = text.split(' ').nth(1).unwrap();
    let _ = Stream::new(&mut tls, &mut tcp).write_all(answer(path).as_bytes());
    tls.send_close_notify();
    let _ = tls.complete_io(&mut tcp);
}
