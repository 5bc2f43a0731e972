//! The client's trust anchors: a host's own roots and the system's, filtered as Docker would.
//!
//! webpki never looks at an anchor's dates, basic constraints or key usage; Go does (measured: `certs-d.md` §6.1 D, E,
//! M, N). So what Go would refuse as an issuer is left out here, and kept aside to say why.

use std::sync::{Arc, LazyLock};

use portcullis_certs::Certificate;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;

use crate::gate::{CaFault, date_fault};

/// A root of the host's directory that names itself as the issuer and cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the issuer {subject} is among the trusted certificates, but {fault}")]
pub struct UnusableAnchor {
    /// The root's subject.
    pub subject: String,
    /// Why it does not count.
    pub fault: CaFault,
}

/// What one registry's certificate is checked against.
#[derive(Debug, Default, Clone)]
pub(crate) struct Anchors {
    /// The host's roots, whole: each is also an exact-match pin (Go's `Roots.contains`).
    pub(crate) host: Vec<Certificate>,
    /// The system's, if they are asked.
    pub(crate) system: Option<Arc<SystemRoots>>,
}

/// The operating system's roots, read once per process.
#[derive(Debug, Default)]
pub(crate) struct SystemRoots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

static SYSTEM: LazyLock<Arc<SystemRoots>> = LazyLock::new(|| Arc::new(SystemRoots::load()));

pub(crate) fn system_roots() -> Arc<SystemRoots> {
    Arc::clone(&SYSTEM)
}

impl SystemRoots {
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` count, as in Go and OpenSSL. What cannot be read is left out, as they do.
    fn load() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::debug!(%error, "a system root could not be read");
        }
        let certificates = loaded.certs;
        let now = OffsetDateTime::now_utc();
        let usable = |der: &&CertificateDer<'static>| {
            Certificate::from_der((*der).clone()).is_ok_and(|certificate| issuer_fault(&certificate, now).is_none())
        };
        let anchors = certificates.iter().filter(usable).filter_map(trust_anchor).collect();
        Self { certificates, anchors }
    }
}

impl Anchors {
    /// Whether exactly this certificate is trusted.
    pub(crate) fn contains(&self, leaf: &CertificateDer<'_>) -> bool {
        let system = self.system.iter().flat_map(|system| &system.certificates);
        self.host.iter().map(Certificate::der).chain(system).any(|root| root == leaf)
    }

    /// The anchors that may issue at `now`.
    pub(crate) fn usable(&self, now: OffsetDateTime) -> Vec<TrustAnchor<'_>> {
        let host = self.host.iter().filter(|root| issuer_fault(root, now).is_none());
        let host = host.filter_map(|root| webpki::anchor_from_trusted_cert(root.der()).ok());
        let system = self.system.iter().flat_map(|system| system.anchors.iter().cloned());
        host.chain(system).collect()
    }

    /// The host's root that is named as issuer and left out, if there is one.
    pub(crate) fn unusable(&self, issuer_names: &[&[u8]], now: OffsetDateTime) -> Option<UnusableAnchor> {
        self.host.iter().find_map(|root| {
            let fault = issuer_fault(root, now)?;
            let facts = root.facts();
            issuer_names
                .contains(&facts.subject.der())
                .then(|| UnusableAnchor { subject: facts.subject.to_string(), fault })
        })
    }
}

/// Go's rules for an issuer (`crypto/x509` verify.go `isValid`, `CheckSignatureFrom`): within its dates; a v3
/// certificate must say CA:TRUE; keyUsage, where present, must allow keyCertSign. v1 and v2 certificates may sign.
fn issuer_fault(certificate: &Certificate, now: OffsetDateTime) -> Option<CaFault> {
    let facts = certificate.facts();
    if let Some(fault) = date_fault(certificate, now) {
        return Some(fault);
    }
    if facts.version == 3 && facts.is_ca != Some(true) {
        return Some(CaFault::NotCa);
    }
    facts.key_usage.as_ref().is_some_and(|usage| !usage.key_cert_sign).then_some(CaFault::KeyUsage)
}

fn trust_anchor(der: &CertificateDer<'static>) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(der).ok().map(|anchor| anchor.to_owned())
}
