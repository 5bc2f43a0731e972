//! The client's trust anchors: a host's own roots and the system's, filtered as Docker would.
//!
//! webpki never looks at an anchor's dates, basic constraints or key usage; Go does (measured: `certs-d.md` §6.1 D, E,
//! M, N). So what Go would refuse as an issuer is left out here, and kept aside to say why.

use std::sync::{Arc, LazyLock};

use portcullis_certs::Certificate;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;

use crate::Roots;
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
    issuers: Vec<(Certificate, TrustAnchor<'static>)>,
}

static SYSTEM: LazyLock<Arc<SystemRoots>> = LazyLock::new(|| Arc::new(SystemRoots::load()));

impl SystemRoots {
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` count, as in Go and OpenSSL. What cannot be read is left out, as they do.
    fn load() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::debug!(%error, "a system root could not be read");
        }
        let certificates = loaded.certs;
        let issuer = |der: &CertificateDer<'static>| {
            let anchor = webpki::anchor_from_trusted_cert(der).ok()?.to_owned();
            Some((Certificate::from_der(der.clone()).ok()?, anchor))
        };
        let issuers = certificates.iter().filter_map(issuer).collect();
        Self { certificates, issuers }
    }
}

impl Anchors {
    /// A host's roots, with the system's as the caller chose.
    pub(crate) fn of(host: &[Certificate], roots: Roots) -> Self {
        let with_system = match roots {
            Roots::Merge => true,
            Roots::Only => false,
            Roots::Fallback => host.is_empty(),
        };
        Self { host: host.to_vec(), system: with_system.then(|| Arc::clone(&SYSTEM)) }
    }

    /// Whether exactly this certificate is trusted.
    pub(crate) fn contains(&self, leaf: &CertificateDer<'_>) -> bool {
        let system = self.system.iter().flat_map(|system| &system.certificates);
        self.host.iter().map(Certificate::der).chain(system).any(|root| root == leaf)
    }

    /// The roots that may issue at `now`, and what webpki makes of each, in the same order.
    pub(crate) fn usable(&self, now: OffsetDateTime) -> (Vec<&Certificate>, Vec<TrustAnchor<'_>>) {
        let host = self.host.iter();
        let host = host.filter_map(|root| Some((root, webpki::anchor_from_trusted_cert(root.der()).ok()?)));
        let system = self.system.iter().flat_map(|system| &system.issuers);
        let system = system.map(|(root, anchor)| (root, anchor.clone()));
        host.chain(system).filter(|(root, _)| issuer_fault(root, now).is_none()).unzip()
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
/// certificate must say CA:TRUE; keyUsage, where present, must allow keyCertSign; no critical extension is unknown. v1
/// and v2 certificates may sign.
fn issuer_fault(certificate: &Certificate, now: OffsetDateTime) -> Option<CaFault> {
    let facts = certificate.facts();
    if let Some(fault) = date_fault(certificate, now) {
        return Some(fault);
    }
    if facts.version == 3 && facts.is_ca != Some(true) {
        return Some(CaFault::NotCa);
    }
    if facts.key_usage.as_ref().is_some_and(|usage| !usage.key_cert_sign) {
        return Some(CaFault::KeyUsage);
    }
    let mut unknown = facts.unknown_critical.iter().filter(|oid| !CRITICAL_TO_GO.contains(&oid.as_str()));
    unknown.next().map(|oid| CaFault::CriticalExtension { oid: oid.clone() })
}

/// The policy extensions: Go knows them, webpki does not ask an anchor for its extensions.
const CRITICAL_TO_GO: [&str; 4] = ["2.5.29.32", "2.5.29.33", "2.5.29.36", "2.5.29.54"];
