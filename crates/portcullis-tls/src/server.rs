//! The server's end: its certificate, and the handshake that asks for the peer's.
//!
//! Session resumption is off: a resumed handshake restores the identity without asking the verifier (RFC 8446 §4.2.11;
//! nginx CVE-2025-23419, Go golang/go#77217), and no engine resumes.

use std::sync::{Arc, Mutex};

use portcullis_certs::{Certificate, PrivateKey};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use webpki::EndEntityCert;

use crate::client::certified_key;
use crate::clock::offset_date_time;
use crate::{Accepted, Refusal, RefusedPeer, TlsError, TrustStore, provider};

/// What is offered in ALPN, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The server's certificate and whom it trusts: one complete state, replaced as a whole.
#[derive(Debug)]
pub struct ServerTls {
    certificate: Arc<OneCertificate>,
    chain: Vec<Certificate>,
    trust: Arc<TrustStore>,
}

/// What is asked of a client in its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// A certificate that is trusted; anything else ends the handshake with the exact alert.
    #[default]
    Require,
    /// Nothing: whoever may not come in is told so in an answer, by whoever runs the connection. Where a certificate is
    /// presented its key is proven all the same. No CA names are sent, so that Go clients present what they have.
    Explain,
    /// A certificate that is trusted, or none. One that is presented and refused ends the handshake.
    Optional,
}

/// Where one handshake leaves its verdict on the peer's chain: whom it refused, for the log, or whom it accepted, so that
/// nobody has to judge the same chain by the same trust again.
#[derive(Debug, Clone, Default)]
pub struct VerdictSlot(Arc<Mutex<Option<Result<Accepted, RefusedPeer>>>>);

impl ServerTls {
    /// Puts the server's chain (leaf first), its key and the trust together.
    ///
    /// # Errors
    /// No certificate, a key of another certificate, or a key type that TLS does not take.
    pub fn new(chain: Vec<Certificate>, key: &PrivateKey, trust: Arc<TrustStore>) -> Result<Self, TlsError> {
        let certified = certified_key(&chain, key)?;
        Ok(Self { certificate: Arc::new(OneCertificate(Arc::new(certified))), chain, trust })
    }

    /// The same certificate, with another trust.
    #[must_use]
    pub fn with_trust(&self, trust: Arc<TrustStore>) -> Self {
        Self { certificate: Arc::clone(&self.certificate), chain: self.chain.clone(), trust }
    }

    /// The server's own chain, leaf first.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// Whom the server trusts.
    pub fn trust(&self) -> &Arc<TrustStore> {
        &self.trust
    }

    /// The configuration for one handshake, and the slot that will hold its verdict. One per connection,
    /// because rustls gives a verifier no other way to say more than an alert.
    ///
    /// With [`ClientAuth::Explain`] a finished handshake says nothing about trust: only [`TrustStore::judge`] does.
    ///
    /// # Errors
    /// [`TlsError::Config`], if the provider had no usable suite.
    pub fn handshake(&self, client_auth: ClientAuth) -> Result<(Arc<ServerConfig>, VerdictSlot), TlsError> {
        let slot = VerdictSlot::default();
        let verifier = ClientVerifier { trust: Arc::clone(&self.trust), client_auth, slot: slot.clone() };
        #[expect(clippy::disallowed_methods, reason = "this is the one place for the server's end")]
        let builder = ServerConfig::builder_with_provider(provider());
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&self.certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((Arc::new(config), slot))
    }
}

impl VerdictSlot {
    /// The refused peer, if the handshake ended for that reason.
    pub fn take(&self) -> Option<RefusedPeer> {
        self.lock().take().and_then(Result::err)
    }

    /// Whom the trust of this handshake accepts, if it does. Nothing is proven until the handshake is finished.
    pub fn accepted(&self) -> Option<Accepted> {
        self.lock().as_ref()?.as_ref().ok().cloned()
    }

    fn put(&self, verdict: Result<Accepted, RefusedPeer>) {
        *self.lock() = Some(verdict);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Result<Accepted, RefusedPeer>>> {
        // Nothing panics while it is held; a poisoned slot would still hold a whole value.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The same certificate whatever name was asked for: registries are also reached by address, without SNI.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct ClientVerifier {
    trust: Arc<TrustStore>,
    client_auth: ClientAuth,
    slot: VerdictSlot,
}

impl ClientVerifier {
    fn refuse(&self, certificate: Option<Certificate>, others: &[CertificateDer<'_>], refusal: Refusal) -> Error {
        let error = refusal.to_rustls();
        self.slot.put(Err(RefusedPeer::new(certificate, others, refusal)));
        error
    }
}

fn unread_by_webpki(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    match EndEntityCert::try_from(certificate) {
        Ok(_) => None,
        Err(_) => Certificate::from_der(certificate.clone().into_owned()).ok(),
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_auth == ClientAuth::Require
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match self.client_auth {
            ClientAuth::Require | ClientAuth::Optional => self.trust.hints(),
            ClientAuth::Explain => &[],
        }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Ok(leaf) = Certificate::from_der(end_entity.clone().into_owned()) else {
            // Without its key there is no proof to ask for, whatever the mode.
            return Err(self.refuse(None, intermediates, Refusal::Unreadable));
        };
        match self.trust.judge_leaf(leaf.clone(), intermediates, offset_date_time(now)) {
            Ok(accepted) => {
                self.slot.put(Ok(accepted));
                Ok(ClientCertVerified::assertion())
            }
            Err(refusal) => {
                let error = self.refuse(Some(leaf), intermediates, refusal);
                if self.client_auth == ClientAuth::Explain { Ok(ClientCertVerified::assertion()) } else { Err(error) }
            }
        }
    }

    /// A pin may be something that webpki does not read (X.509 v1). TLS 1.2 has no way to use its key as it is.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if let Some(leaf) = unread_by_webpki(certificate) {
            let version = leaf.facts().version;
            let problem = format!("over TLS 1.2 (X.509 v{version}): use TLS 1.3, or issue it again");
            return Err(self.refuse(Some(leaf), &[], Refusal::Unsupported { problem }));
        }
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    /// What webpki does not read is a pin or, where all are explained to, a stranger's, if it comes here: its key is taken
    /// out and used as it is.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        let Some(leaf) = unread_by_webpki(certificate) else {
            return verify_tls13_signature(message, certificate, signature, algorithms);
        };
        let key = SubjectPublicKeyInfoDer::from(leaf.facts().spki_der.as_slice());
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
