//! The stub's TLS: a verdict per client certificate, so that every alert can be asked for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use portcullis_testkit::pki::Pair;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// How the stub's TLS behaves.
#[derive(Clone, Debug)]
pub(crate) struct TlsSetup {
    certificate: Vec<CertificateDer<'static>>,
    key: Arc<Vec<u8>>,
    pub(crate) version: &'static SupportedProtocolVersion,
    pub(crate) alpn: &'static [&'static [u8]],
    /// Whether a client without a certificate is refused.
    pub(crate) mandatory: bool,
    /// After a refusal the connection is dropped at once, unread data and all.
    pub(crate) rude: bool,
    /// Clients whose connection is closed right after the handshake, without a word.
    pub(crate) hang_up_on: HashSet<String>,
    clients: HashMap<Vec<u8>, (String, Option<CertificateError>)>,
    pub(crate) presented: Arc<Mutex<Vec<String>>>,
}

pub(crate) const H2: &[&[u8]] = &[b"h2"];
pub(crate) const H1: &[&[u8]] = &[b"http/1.1"];

impl TlsSetup {
    pub(crate) fn new(server: &Pair) -> Self {
        Self {
            certificate: server.chain_der().into_iter().map(CertificateDer::from).collect(),
            key: Arc::new(server.key_der()),
            version: &rustls::version::TLS13,
            alpn: &[b"h2", b"http/1.1"],
            mandatory: true,
            rude: false,
            hang_up_on: HashSet::new(),
            clients: HashMap::new(),
            presented: Arc::default(),
        }
    }

    pub(crate) fn accept(mut self, name: &str, pair: &Pair) -> Self {
        self.clients.insert(pair.cert_der().to_vec(), (name.to_owned(), None));
        self
    }

    /// A certificate that is not known at all is refused as well, with `unknown_ca`.
    pub(crate) fn refuse(mut self, name: &str, pair: &Pair, error: CertificateError) -> Self {
        self.clients.insert(pair.cert_der().to_vec(), (name.to_owned(), Some(error)));
        self
    }

    pub(crate) fn name_of(&self, certificate: &CertificateDer<'_>) -> String {
        self.clients.get(certificate.as_ref()).map_or_else(|| "stranger".to_owned(), |(name, _)| name.clone())
    }
}

pub(crate) fn server_config(setup: &TlsSetup) -> ServerConfig {
    #[expect(clippy::disallowed_methods, reason = "a server that misbehaves is not one that portcullis-tls makes")]
    let builder = ServerConfig::builder_with_provider(portcullis_tls::provider());
    let mut config = builder
        .with_protocol_versions(&[setup.version])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Verdicts(setup.clone())))
        .with_single_cert(setup.certificate.clone(), PrivateKeyDer::try_from(setup.key.to_vec()).unwrap())
        .unwrap();
    config.alpn_protocols = setup.alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

#[derive(Debug)]
struct Verdicts(TlsSetup);

impl ClientCertVerifier for Verdicts {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.mandatory
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.presented.lock().unwrap().push(self.0.name_of(leaf));
        match self.0.clients.get(leaf.as_ref()) {
            Some((_, None)) => Ok(ClientCertVerified::assertion()),
            Some((_, Some(error))) => Err(error.clone().into()),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &portcullis_tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &portcullis_tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        portcullis_tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
