//! A client's configuration that takes any certificate and writes down what the server showed: for diagnosis only.
//!
//! Whoever uses it learns what a server is like and must send it nothing that is secret: the connection is encrypted, but
//! to nobody in particular. The verdict on the chain comes afterwards, from [`verify_server`](crate::verify_server).

use std::sync::{Arc, Mutex, PoisonError};

use portcullis_certs::{Certificate, PrivateKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::client::certified_key;
use crate::{TlsError, provider};

/// Which versions a recording client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferedVersions {
    /// TLS 1.3 and 1.2, as engines do.
    Both,
    /// TLS 1.3 only.
    Tls13,
    /// TLS 1.2 only.
    Tls12,
}

/// What a server showed in a handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its certificates, its own first. Empty when the handshake did not come that far.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its CertificateRequest; `None`: it asked for no client certificate.
    pub request: Option<RecordedRequest>,
}

/// What a CertificateRequest said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The DER of the CA names that it listed; empty: it takes any.
    pub authorities: Vec<Vec<u8>>,
    /// The signature schemes that it takes, as in the TLS registry.
    pub schemes: Vec<u16>,
    /// Whether our pair was sent; `false` also when there was none.
    pub answered: bool,
}

/// Where a handshake with [`recording_config`] is written down.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recorded>>);

impl Recorder {
    /// What was written down so far.
    pub fn recorded(&self) -> Recorded {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recorded> {
        // Each change is one assignment, so a panic elsewhere cannot have left it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration that takes **any** server certificate, with the pair to present, and where the handshake is written down.
///
/// The pair is sent whatever CA names the server lists. ALPN offers `http/1.1` only, resumption is off. The handshake's
/// signature is checked: a server that shows a certificate without having its key fails.
///
/// ```
/// use portcullis_tls::{OfferedVersions, recording_config};
/// let (config, recorder) = recording_config(OfferedVersions::Both, None)?;
/// assert_eq!(config.alpn_protocols, [b"http/1.1"]);
/// assert!(recorder.recorded().chain.is_empty());
/// # Ok::<(), portcullis_tls::TlsError>(())
/// ```
///
/// # Errors
/// A key that does not belong to its certificate or that TLS does not take.
pub fn recording_config(
    versions: OfferedVersions,
    pair: Option<(&[Certificate], &PrivateKey)>,
) -> Result<(ClientConfig, Recorder), TlsError> {
    let recorder = Recorder::default();
    let pair = match pair {
        Some((chain, key)) => Some(Arc::new(certified_key(chain, key)?)),
        None => None,
    };
    #[expect(clippy::disallowed_methods, reason = "this is the one place for a client that records")]
    let builder = ClientConfig::builder_with_provider(provider());
    let mut config = builder
        .with_protocol_versions(versions.list())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAny(recorder.clone())))
        .with_client_cert_resolver(Arc::new(Presents { recorder: recorder.clone(), pair }));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok((config, recorder))
}

static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

impl OfferedVersions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Both => &BOTH,
            Self::Tls13 => &BOTH[..1],
            Self::Tls12 => &BOTH[1..],
        }
    }
}

#[derive(Debug)]
struct TakesAny(Recorder);

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        self.0.lock().chain = chain.map(|der| der.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Presents {
    recorder: Recorder,
    pair: Option<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fitting = self.pair.as_ref().filter(|pair| pair.key.choose_scheme(schemes).is_some());
        self.recorder.lock().request = Some(RecordedRequest {
            authorities: hints.iter().map(|name| name.to_vec()).collect(),
            schemes: schemes.iter().map(|scheme| u16::from(*scheme)).collect(),
            answered: fitting.is_some(),
        });
        fitting.map(Arc::clone)
    }

    /// Always: without it rustls would not ask, and the CertificateRequest would not be seen.
    fn has_certs(&self) -> bool {
        true
    }
}
