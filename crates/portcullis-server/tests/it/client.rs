//! A client that says exactly what a test tells it to, over TLS as `portcullis-tls` configures it.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_certs::{Certificate, ClientPair, pem};
use portcullis_oci::Digest;
use portcullis_testkit::pki::{Authority, Pair, PairFiles};
use portcullis_tls::{Roots, client_config};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fixture::{sha256, within};

pub(crate) type TestBody = BoxBody<Bytes, io::Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// One identity towards one server.
pub(crate) struct Client {
    address: SocketAddr,
    /// The address that it comes from.
    from: IpAddr,
    tls: rustls::ClientConfig,
}

/// An open connection.
pub(crate) struct Conn {
    sender: Sender,
    driver: JoinHandle<()>,
    pub(crate) local: SocketAddr,
}

#[derive(Clone)]
enum Sender {
    Http2(http2::SendRequest<TestBody>),
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<TestBody>>>),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The sending half of a body that a test writes piece by piece.
pub(crate) struct BodyWriter(mpsc::Sender<Result<Bytes, io::Error>>);

struct ChannelBody(mpsc::Receiver<Result<Bytes, io::Error>>);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        })
    }
}

impl Protocol {
    fn alpn(self) -> Vec<u8> {
        match self {
            Self::Http1 => b"http/1.1".to_vec(),
            Self::Http2 => b"h2".to_vec(),
        }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, server_ca: &Authority, pair: Option<&Pair>) -> Self {
        Self::with_pair(address, server_ca, pair.map(client_pair).as_ref())
    }

    /// As [`new`](Self::new), from files that the testkit cannot make.
    pub(crate) fn of_files(address: SocketAddr, server_ca: &Authority, files: &PairFiles) -> Self {
        let (cert, key) = (std::fs::read(&files.cert).unwrap(), std::fs::read(&files.key).unwrap());
        Self::with_pair(address, server_ca, Some(&pem_pair(&cert, &key)))
    }

    /// Presents `leaf` in the place of the pair's own certificate, which has the same key.
    pub(crate) fn showing(address: SocketAddr, server_ca: &Authority, pair: &Pair, leaf: Vec<u8>) -> Self {
        let mut pair = client_pair(pair);
        pair.chain[0] = Certificate::from_der(leaf.into()).unwrap();
        Self::with_pair(address, server_ca, Some(&pair))
    }

    fn with_pair(address: SocketAddr, server_ca: &Authority, pair: Option<&ClientPair>) -> Self {
        let der = CertificateDer::from(server_ca.cert_der().to_vec());
        let root = Certificate::from_der(der).unwrap();
        Self { address, from: own_address(), tls: client_config(&[root], Roots::Only, pair).unwrap() }
    }

    pub(crate) fn from(self, from: IpAddr) -> Self {
        Self { from, ..self }
    }

    pub(crate) async fn connect(&self, protocol: Protocol) -> Conn {
        self.try_connect(protocol).await.unwrap()
    }

    pub(crate) async fn http1(&self) -> Conn {
        self.connect(Protocol::Http1).await
    }

    pub(crate) async fn http2(&self) -> Conn {
        self.connect(Protocol::Http2).await
    }

    /// TLS 1.3 has the client finish first, so a refusal is seen with the first answer and not here.
    pub(crate) async fn try_connect(&self, protocol: Protocol) -> io::Result<Conn> {
        let stream = self.tls(protocol).await?;
        let local = stream.get_ref().0.local_addr()?;
        let io = TokioIo::new(stream);
        let (sender, driver) = match protocol {
            Protocol::Http1 => {
                let (sender, conn) = http1::handshake(io).await.map_err(io::Error::other)?;
                (Sender::Http1(Arc::new(tokio::sync::Mutex::new(sender))), tokio::spawn(async { drop(conn.await) }))
            }
            Protocol::Http2 => {
                let (sender, conn) = http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
                (Sender::Http2(sender), tokio::spawn(async { drop(conn.await) }))
            }
        };
        Ok(Conn { sender, driver, local })
    }

    /// The bare TLS stream, for bytes that no HTTP library would send.
    pub(crate) async fn tls(&self, protocol: Protocol) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.tls.clone();
        config.alpn_protocols = vec![protocol.alpn()];
        let name = ServerName::try_from("registry.test").unwrap();
        let stream = tcp_from(self.from, self.address).await?;
        within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }

    /// What a refused peer is told: the error that its first read gives.
    pub(crate) async fn refusal(&self) -> String {
        use tokio::io::AsyncReadExt as _;
        match self.tls(Protocol::Http1).await {
            Err(error) => error.to_string(),
            Ok(mut stream) => {
                within("a refusal", stream.read(&mut [0])).await.expect_err("this peer was let in").to_string()
            }
        }
    }
}

impl Conn {
    /// The answer's head as soon as it is here.
    pub(crate) async fn begin(&self, request: Request<TestBody>) -> Result<Response<Incoming>, hyper::Error> {
        let (mut parts, body) = request.into_parts();
        match &self.sender {
            Sender::Http1(sender) => {
                parts.headers.insert(HOST, HeaderValue::from_static("registry.test"));
                let mut sender = sender.lock().await;
                sender.ready().await?;
                let answer = sender.send_request(Request::from_parts(parts, body));
                drop(sender);
                answer.await
            }
            Sender::Http2(sender) => {
                parts.uri = Uri::try_from(format!("https://registry.test{}", parts.uri)).unwrap();
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(Request::from_parts(parts, body)).await
            }
        }
    }

    pub(crate) async fn try_send(&self, request: Request<TestBody>) -> Result<Answer, hyper::Error> {
        let what = format!("{} {}", request.method(), request.uri());
        within(&what, async {
            let (head, body) = self.begin(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            // In every answer that any test here gets: behind a proxy that ends TLS or renames the host, an absolute one
            // would lead elsewhere.
            if let Some(location) = head.headers.get(LOCATION) {
                assert!(location.as_bytes().starts_with(b"/v2/"), "not relative: {location:?}");
            }
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        })
        .await
    }

    pub(crate) async fn send(&self, request: Request<TestBody>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        self.try_send(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path).body(empty()).unwrap()).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send(request("HEAD", path).body(empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request("DELETE", path).body(empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(request("POST", path).body(full(body)).unwrap()).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(request("PUT", path).body(full(body)).unwrap()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(request("PATCH", path).body(full(body)).unwrap()).await
    }

    pub(crate) async fn put_manifest(&self, repository: &str, reference: &str, body: &[u8]) -> Answer {
        self.put(&format!("/v2/{repository}/manifests/{reference}"), body.to_vec()).await
    }

    /// In one request.
    pub(crate) async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.post(&path, bytes.to_vec()).await.expect(201);
        digest
    }

    /// A session; returns its location.
    pub(crate) async fn start_upload(&self, repository: &str) -> String {
        self.post(&format!("/v2/{repository}/blobs/uploads/"), "").await.expect(202).location()
    }

    /// Waits until the server has closed it.
    pub(crate) async fn closed(&mut self) {
        within("the server closes the connection", &mut self.driver).await.unwrap();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }

    /// An OCI error body with this code; returns its message.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> String {
        let answer = self.expect(status);
        assert_eq!(answer.header(CONTENT_TYPE.as_str()), "application/json");
        let body = answer.json();
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no errors in {body}"));
        assert_eq!(errors.len(), 1, "{body}");
        assert_eq!(errors[0]["code"], code, "{body}");
        let message = errors[0]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{body}");
        message.to_owned()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers.get(name) {
            Some(value) => value.to_str().unwrap(),
            None => panic!("no header {name} in {:?}", self.headers),
        }
    }

    #[track_caller]
    pub(crate) fn location(&self) -> String {
        self.header(LOCATION.as_str()).to_owned()
    }

    /// Where the list goes on.
    #[track_caller]
    pub(crate) fn next_page(&self) -> Option<String> {
        let link = self.headers.get("link")?.to_str().unwrap();
        let path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        let path = path.unwrap_or_else(|| panic!("no link to a next page: {link}"));
        assert!(path.starts_with("/v2/"), "not relative: {path}");
        Some(path.to_owned())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// An address of this machine that nobody else comes from: the log tells peers apart by it, and a port is soon another's.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    [127, 1, high, low].into()
}

pub(crate) async fn tcp_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

pub(crate) fn empty() -> TestBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> TestBody {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body without a length, written by the test.
pub(crate) fn stream() -> (BodyWriter, TestBody) {
    let (sender, receiver) = mpsc::channel(1);
    (BodyWriter(sender), ChannelBody(receiver).boxed())
}

impl BodyWriter {
    /// `false`: nobody takes it any more.
    pub(crate) async fn write(&self, bytes: impl Into<Bytes>) -> bool {
        within("a piece of the body is taken", self.0.send(Ok(bytes.into()))).await.is_ok()
    }

    /// Breaks off in the middle.
    pub(crate) async fn cut(self) {
        let _ = self.0.send(Err(io::Error::other("cut by the test"))).await;
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn client_pair(pair: &Pair) -> ClientPair {
    pem_pair(pair.chain_pem().as_bytes(), pair.key_pem().as_bytes())
}

fn pem_pair(cert: &[u8], key: &[u8]) -> ClientPair {
    let path = std::path::Path::new("test");
    ClientPair {
        name: "test".to_owned(),
        cert_path: "test.cert".into(),
        key_path: "test.key".into(),
        chain: pem::certificates(cert, path).0,
        key: pem::private_key(key, path).unwrap(),
    }
}
