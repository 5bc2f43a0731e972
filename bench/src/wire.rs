//! One HTTP connection over mutual TLS, as an engine would make it: HTTP/1.1, or HTTP/2 with small or large frames.
//!
//! Every server is offered the same: TLS 1.3, AES-128-GCM first (as Go does) and X25519, so that all do the same work.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::{aws_lc_rs, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Go's `net/http` sets such windows; the frames that it takes have 16 KiB.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// What engines ask for. Distribution has a 404 for whoever does not name the type of an OCI manifest.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, */*";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    /// With the frames that a peer gets which asks for nothing.
    Two,
    /// With frames of 1 MiB.
    TwoLarge,
}

/// The client's certificate, and whom it trusts.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    one: Arc<ClientConfig>,
    two: Arc<ClientConfig>,
}

/// Where a registry is reached, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
}

#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    address: SocketAddr,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Pieces>),
    Two(http2::SendRequest<Pieces>),
}

/// The body of a request: its parts are sent as they are, without a copy.
#[derive(Debug, Default)]
pub(crate) struct Pieces(VecDeque<Bytes>);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// How many bytes the body had.
    pub(crate) length: u64,
}

impl Identity {
    /// From a directory with `ca.crt`, `client.cert` and `client.key`, as engines have it.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
        };
        let (ca, chain, key) = (read("ca.crt")?, read("client.cert")?, read("client.key")?);
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&ca) {
            roots.add(root?)?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&key)?;
        let config = |protocol: &[u8]| configuration(roots.clone(), chain.clone(), key.clone_key(), protocol);
        Ok(Self { one: config(b"http/1.1")?, two: config(b"h2")? })
    }
}

fn configuration(
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    protocol: &[u8],
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites =
        vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256, ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    #[expect(
        clippy::disallowed_methods,
        reason = "the load generator fixes suite and group, and is no part of what ships"
    )]
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let mut config = builder
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

impl Connection {
    pub(crate) async fn open(target: &Target, http: Http) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let config = if http == Http::One { &target.identity.one } else { &target.identity.two };
        let name = ServerName::IpAddress(target.address.ip().into());
        let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        let io = TokioIo::new(tls);
        let sender = match http {
            Http::One => {
                let (sender, connection) = http1::handshake(io).await?;
                // Its end shows in the next request.
                tokio::spawn(async move { connection.await.ok() });
                Sender::One(sender)
            }
            Http::Two | Http::TwoLarge => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
                if http == Http::TwoLarge {
                    builder.max_frame_size(1 << 20);
                }
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(async move { connection.await.ok() });
                Sender::Two(sender)
            }
        };
        Ok(Self { sender, address: target.address })
    }

    /// Sends a request without a body, and throws the answer's away.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, expected: StatusCode) -> anyhow::Result<Answer> {
        self.send(method, path, &[], Pieces::default(), expected).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Pieces,
        expected: StatusCode,
    ) -> anyhow::Result<Answer> {
        let asked = format!("{method} {path}");
        let answer = self.exchange(method, path, headers, body).await.with_context(|| format!("{asked} failed"))?;
        ensure!(answer.status == expected, "{asked}: {} instead of {expected}", answer.status);
        Ok(answer)
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Pieces,
    ) -> anyhow::Result<Answer> {
        let mut request =
            Request::builder().method(method).header("user-agent", "portcullis-bench").header("accept", ACCEPT);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                let request = request.uri(path).header("host", self.address.to_string());
                sender.send_request(request.body(body)?).await?
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                let request = request.uri(format!("https://{}{path}", self.address));
                sender.send_request(request.body(body)?).await?
            }
        };
        let (head, mut body) = response.into_parts();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.into_data().map_or(0, |bytes| bytes.len() as u64);
        }
        Ok(Answer { status: head.status, headers: head.headers, length })
    }
}

impl Answer {
    /// The path of its `Location`, to which the digest of an upload can be added.
    pub(crate) fn location(&self) -> anyhow::Result<String> {
        let Some(location) = self.headers.get("location") else { bail!("an answer has no Location") };
        let location = location.to_str()?;
        Ok(match location.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
            None => location.to_owned(),
        })
    }
}

impl Pieces {
    pub(crate) fn new(parts: impl IntoIterator<Item = Bytes>) -> Self {
        Self(parts.into_iter().filter(|part| !part.is_empty()).collect())
    }

    fn length(&self) -> u64 {
        self.0.iter().map(|part| part.len() as u64).sum()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}
