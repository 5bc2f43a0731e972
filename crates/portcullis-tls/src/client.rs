//! The client's end: Docker's verdicts on a registry's certificate, and one pair to present.

use std::sync::Arc;

use portcullis_certs::{Certificate, ClientPair, PrivateKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use time::OffsetDateTime;
use webpki::EndEntityCert;

use crate::anchor::{Purpose, check_root};
use crate::clock::{offset_date_time, unix_time};
use crate::roots::Anchors;
use crate::{TlsError, provider};

const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Which roots a registry's certificate may come from (`--roots`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Roots {
    /// The directory's and the system's: what Docker does since 1.13.
    #[default]
    Merge,
    /// The directory's alone, even when there are none.
    Only,
    /// The system's only when the directory has none: what engines before 1.13 did.
    Fallback,
}

/// The TLS configuration for one registry: `host_roots` from its certificate directory, and the pair to present.
///
/// The pair is sent whatever CA names the server lists: whether it fits is for the server to say, which then names the
/// reason. Name, dates and usage of the registry's certificate are always checked; resumption is off; ALPN offers `h2`
/// and `http/1.1`.
///
/// # Errors
/// A key that does not belong to its certificate or that TLS does not take.
pub fn client_config(
    host_roots: &[Certificate],
    roots: Roots,
    pair: Option<&ClientPair>,
) -> Result<ClientConfig, TlsError> {
    let anchors = Anchors::of(host_roots, roots);
    let resolver = match pair {
        Some(pair) => OnePair(Some(Arc::new(certified_key(&pair.chain, &pair.key)?))),
        None => OnePair(None),
    };
    #[expect(clippy::disallowed_methods, reason = "this is the one place for the client's end")]
    let builder = ClientConfig::builder_with_provider(provider());
    let mut config = builder
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { anchors }))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The same for a proxy that is spoken to over TLS, which is asked for a tunnel with HTTP/1.1's `CONNECT`.
///
/// # Errors
/// As [`client_config`].
pub fn proxy_config(
    host_roots: &[Certificate],
    roots: Roots,
    pair: Option<&ClientPair>,
) -> Result<ClientConfig, TlsError> {
    let mut config = client_config(host_roots, roots, pair)?;
    config.alpn_protocols.retain(|protocol| protocol == b"http/1.1");
    Ok(config)
}

/// A chain with its key, as rustls signs with it. Takes v1 certificates too, which rustls' own check refuses to read.
pub(crate) fn certified_key(chain: &[Certificate], key: &PrivateKey) -> Result<CertifiedKey, TlsError> {
    let leaf = chain.first().ok_or(TlsError::NoCertificate)?;
    if !key.matches(leaf) {
        return Err(TlsError::KeyMismatch { subject: leaf.facts().subject.to_string() });
    }
    let signing = provider().key_provider.load_private_key(key.der().clone_key())?;
    Ok(CertifiedKey::new(chain.iter().map(|certificate| certificate.der().clone()).collect(), signing))
}

#[derive(Debug)]
struct OnePair(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for OnePair {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.as_ref().filter(|pair| pair.key.choose_scheme(schemes).is_some()).map(Arc::clone)
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) anchors: Anchors,
}

impl ServerVerifier {
    /// Docker's verdict: an exact match among the roots is trusted as it is, else a path to a usable root must exist.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.anchors.contains(leaf) {
            return check_pinned(leaf, now);
        }
        let time = offset_date_time(now);
        let (roots, anchors) = self.anchors.usable(time);
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| rustls_error(&error))?;
        let verified = end_entity.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &anchors,
            intermediates,
            now,
            Purpose::Server,
            None,
            Some(&|path| check_path(path, &roots, &anchors)),
        );
        match verified {
            Ok(_) => Ok(()),
            Err(webpki::Error::UnknownIssuer) => Err(self.explain_unknown_issuer(leaf, intermediates, time)),
            Err(error) => Err(rustls_error(&error)),
        }
    }

    fn explain_unknown_issuer(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Error {
        let chain: Vec<Certificate> = std::iter::once(leaf)
            .chain(intermediates)
            .filter_map(|der| Certificate::from_der(der.clone().into_owned()).ok())
            .collect();
        let issuers: Vec<&[u8]> = chain.iter().map(|certificate| certificate.facts().issuer.der()).collect();
        let error = match self.anchors.unusable(&issuers, now) {
            Some(unusable) => CertificateError::Other(OtherError(Arc::new(unusable))),
            None => CertificateError::UnknownIssuer,
        };
        Error::InvalidCertificate(error)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now)?;
        verify_name(end_entity, server_name)?;
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

/// webpki wants two labels after a star; Go, and so every engine, takes `*.internal` for `registry.internal`.
fn verify_name(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let refused = match verify_server_name(&ParsedCertificate::try_from(leaf)?, name) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    let certificate = Certificate::from_der(leaf.clone().into_owned());
    match (certificate, name) {
        (Ok(certificate), ServerName::DnsName(name)) if certificate.is_for(name.as_ref()) => Ok(()),
        _ => Err(refused),
    }
}

/// Dates and usage of a certificate that is trusted by exact match; its CA bit does not matter.
fn check_pinned(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let invalid = |error| Err(Error::InvalidCertificate(error));
    let Ok(certificate) = Certificate::from_der(leaf.clone().into_owned()) else {
        return invalid(CertificateError::BadEncoding);
    };
    let (facts, time) = (certificate.facts(), offset_date_time(now));
    if time > facts.not_after {
        return invalid(CertificateError::ExpiredContext { time: now, not_after: unix_time(facts.not_after) });
    }
    if time < facts.not_before {
        return invalid(CertificateError::NotValidYetContext { time: now, not_before: unix_time(facts.not_before) });
    }
    match &facts.extended_key_usage {
        Some(usage) if !usage.server_auth && !usage.any => invalid(CertificateError::InvalidPurpose),
        _ => Ok(()),
    }
}

/// webpki takes an intermediate whose keyUsage lacks keyCertSign and asks little of a root; Go does not
/// (`CheckSignatureFrom`, `isValid`).
fn check_path(
    path: &webpki::VerifiedPath<'_>,
    roots: &[&Certificate],
    anchors: &[TrustAnchor<'_>],
) -> Result<(), webpki::Error> {
    let at = anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
    let root = at.and_then(|at| roots.get(at)).ok_or(webpki::Error::UnknownIssuer)?;
    check_root(root, path.intermediate_certificates().count(), Purpose::Server)?;
    for intermediate in path.intermediate_certificates() {
        let certificate = Certificate::from_der(intermediate.der().into_owned()).map_err(|_| webpki::Error::BadDer)?;
        if certificate.facts().key_usage.as_ref().is_some_and(|usage| !usage.key_cert_sign) {
            return Err(webpki::Error::UnknownIssuer);
        }
    }
    Ok(())
}

fn rustls_error(error: &webpki::Error) -> Error {
    use webpki::Error as E;
    Error::InvalidCertificate(match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time: *time, not_after: *not_after },
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time: *time, not_before: *not_before }
        }
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => CertificateError::InvalidPurpose,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    })
}
