//! Peers that are rustls and nothing of ours: a client that presents any chain with any key, a server that does, and
//! the wire between them.

use std::sync::{Arc, LazyLock, Mutex};

use portcullis_testkit::pki::{Authority, LeafSpec, Pair};
use portcullis_tls::{Accepted, ClientAuth, Refusal, ServerTls, provider};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, Error, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::CertificateDer;

use crate::fixture::{Trust, certificates, ders, key_der, now, private_key};

pub(crate) static TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
pub(crate) static TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [TLS12, TLS13];

/// The registry's name in all tests.
pub(crate) const NAME: &str = "registry.test";

static SERVER_CA: LazyLock<Authority> = LazyLock::new(|| Authority::new("server CA"));
static SERVER: LazyLock<Pair> = LazyLock::new(|| SERVER_CA.server(&[NAME], &[]));
static OTHER_KEY: LazyLock<Pair> = LazyLock::new(|| Pair::self_signed(&LeafSpec::client("a key of its own")));

/// A chain and the key that signs for it, whether or not they belong together.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl Offer {
    pub(crate) fn of(pair: &Pair) -> Self {
        Self { chain: pair.chain_der(), key: pair.key_der() }
    }

    pub(crate) fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Self {
        Self { chain, key }
    }

    /// A chain that is shown without its key. The chain is judged before the signature, so refusals are the same.
    pub(crate) fn without_key(chain: Vec<Vec<u8>>) -> Self {
        Self { chain, key: OTHER_KEY.key_der() }
    }

    pub(crate) fn with_chain(&self, chain: Vec<Vec<u8>>) -> Self {
        Self { chain, key: self.key.clone() }
    }

    pub(crate) fn and_sends(mut self, der: &[u8]) -> Self {
        self.chain.push(der.to_vec());
        self
    }

    pub(crate) fn leaf(&self) -> &[u8] {
        &self.chain[0]
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        let key = provider().key_provider.load_private_key(key_der(&self.key)).unwrap();
        Arc::new(CertifiedKey::new(ders(&self.chain), key))
    }
}

/// Presents the same pair to everybody, and keeps what it was asked.
#[derive(Debug)]
struct Presents {
    pair: Option<Arc<CertifiedKey>>,
    hints: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.hints.lock().unwrap() = Some(hints.iter().map(|name| name.to_vec()).collect());
        self.pair.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Serves(Arc<CertifiedKey>);

impl ResolvesServerCert for Serves {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// How a handshake with our server ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Whether the handshake came to its end.
    pub(crate) is_finished: bool,
    /// The verdict on what the server took, `None` when the handshake failed.
    pub(crate) accepted: Option<Accepted>,
    /// The alert as the client received it.
    pub(crate) alert: Option<AlertDescription>,
    /// What the slot holds afterwards.
    pub(crate) refusal: Option<Refusal>,
    /// Whether the slot names the certificate.
    pub(crate) refused_certificate: Option<Vec<u8>>,
    /// The CA names of the CertificateRequest; `None` when there was none.
    pub(crate) hints: Option<Vec<Vec<u8>>>,
    pub(crate) kinds: [Option<HandshakeKind>; 2],
}

pub(crate) fn server(trust: &Trust) -> ServerTls {
    let chain = certificates(&SERVER.chain_der());
    ServerTls::new(chain, &private_key(&SERVER.key_der()), Arc::new(trust.store())).unwrap()
}

/// A client that believes our server and presents `offer`.
pub(crate) fn client(offer: Option<&Offer>, version: &'static SupportedProtocolVersion) -> TestClient {
    let hints = Arc::default();
    let presents = Presents { pair: offer.map(Offer::certified), hints: Arc::clone(&hints) };
    let mut roots = RootCertStore::empty();
    roots.add(SERVER_CA.cert_der().to_vec().into()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(presents));
    TestClient { config: Arc::new(config), hints }
}

/// One configuration for several connections.
pub(crate) struct TestClient {
    config: Arc<ClientConfig>,
    hints: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
}

impl TestClient {
    pub(crate) fn connect(&self, server: &ServerTls) -> Outcome {
        self.connect_as(server, ClientAuth::Require)
    }

    pub(crate) fn connect_as(&self, server: &ServerTls, client_auth: ClientAuth) -> Outcome {
        let (config, slot) = server.handshake(client_auth).unwrap();
        let client = ClientConnection::new(Arc::clone(&self.config), ServerName::try_from(NAME).unwrap()).unwrap();
        let mut client = Connection::from(client);
        let mut serving = Connection::from(ServerConnection::new(config).unwrap());
        let failed = pump(&mut client, &mut serving);
        let refused = slot.take();
        let alert = match &failed.0 {
            Some(Error::AlertReceived(alert)) => Some(*alert),
            Some(other) => panic!("the client failed by itself: {other}"),
            None => None,
        };
        assert_eq!(alert.is_some(), failed.1.is_some(), "{failed:?}");
        let is_finished = failed.1.is_none();
        let accepted = is_finished.then(|| {
            assert!(!serving.is_handshaking() && !client.is_handshaking());
            let verdict = serving.peer_certificates().map(|chain| server.trust().judge(chain, now()));
            match client_auth {
                ClientAuth::Require => verdict.map(Result::unwrap),
                ClientAuth::Explain | ClientAuth::Optional => verdict.and_then(Result::ok),
            }
        });
        Outcome {
            is_finished,
            accepted: accepted.flatten(),
            alert,
            refused_certificate: refused.as_ref().and_then(|peer| Some(peer.certificate.as_ref()?.der().to_vec())),
            refusal: refused.map(|peer| peer.refusal),
            hints: self.hints.lock().unwrap().clone(),
            kinds: [client.handshake_kind(), serving.handshake_kind()],
        }
    }
}

pub(crate) fn shake(server: &ServerTls, offer: Option<&Offer>, version: &'static SupportedProtocolVersion) -> Outcome {
    client(offer, version).connect(server)
}

/// A server without client authentication that shows `offer` to a client of ours; what the client says of it.
pub(crate) fn visit(config: ClientConfig, offer: &Offer, name: &str) -> Result<(), Error> {
    let serving = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Serves(offer.certified())));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::new(config), name).unwrap());
    let mut serving = Connection::from(ServerConnection::new(Arc::new(serving)).unwrap());
    let (client_error, server_error) = pump(&mut client, &mut serving);
    match client_error {
        Some(error) => Err(error),
        None => {
            assert!(server_error.is_none(), "{server_error:?}");
            assert!(!client.is_handshaking() && client.peer_certificates().is_some());
            Ok(())
        }
    }
}

/// Carries records back and forth until neither end has more to say. The first error of each end.
pub(crate) fn pump(client: &mut Connection, server: &mut Connection) -> (Option<Error>, Option<Error>) {
    let mut errors = (None, None);
    for _ in 0..20 {
        carry(client, server, &mut errors.1);
        carry(server, client, &mut errors.0);
    }
    assert!(!client.wants_write() && !server.wants_write(), "the handshake never ends");
    errors
}

fn carry(from: &mut Connection, to: &mut Connection, error: &mut Option<Error>) {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        *error = to.process_new_packets().err();
    }
}

/// The chain as the crate takes it.
pub(crate) fn chain_of(offer: &Offer) -> Vec<CertificateDer<'static>> {
    ders(&offer.chain)
}
