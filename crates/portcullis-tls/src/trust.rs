//! The server's verdict on a client certificate: our own function over webpki's path building.
//!
//! The order is fixed: deny list, dates, pin, chain. A pin is the SHA-256 of one certificate: it is trusted for
//! itself, signs for nobody, and needs no CA bit either way (the Docker page's `openssl req -new -x509` makes a
//! self-signed CA:TRUE certificate, which webpki refuses as a client's and would admit as everybody's issuer).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_certs::trust_dir::{CaFile, PinFile, TrustFiles};
use portcullis_certs::{Certificate, Fingerprint};
use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::clock::unix_time;
use crate::deny::DenyList;
use crate::gate::{CaFault, date_fault, gate, is_weak, shape_faults};
use crate::{Refusal, provider};

/// The longest chain that is looked at, leaf included. Each further certificate costs a stranger nothing and us a parse.
const MAX_CHAIN: usize = 8;
/// Above this many bytes of CA names the list is sent empty, which means "any" (RFC 8446 §4.2.4).
const MAX_HINT_BYTES: usize = 8 * 1024;

/// Everything that decides whom the server trusts, complete and unchangeable.
#[derive(Debug)]
pub struct TrustStore {
    anchors: Vec<Anchor>,
    trust_anchors: Vec<TrustAnchor<'static>>,
    intermediates: Vec<Certificate>,
    pins: HashMap<Fingerprint, Pin>,
    deny: DenyList,
    hints: Arc<[DistinguishedName]>,
}

/// A verdict in favour. Only [`TrustStore::judge`] makes one.
#[derive(Debug, Clone)]
pub struct Accepted {
    identity: Identity,
    valid_until: OffsetDateTime,
}

/// Who the peer is: its certificate, and what made it trusted.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: Arc<Certificate>,
    trusted_by: TrustedBy,
}

/// What made a certificate trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedBy {
    /// It is itself the pin of this name.
    Pin(String),
    /// It was issued below the CA of this name (the file's stem in `trust/cas`).
    Ca(String),
}

/// A certificate in `trust/cas` that does not pass the gate.
#[derive(Debug, Clone)]
pub struct CaRejected {
    /// The file.
    pub path: PathBuf,
    /// Which certificate of it.
    pub subject: String,
    /// Everything that is wrong.
    pub faults: Vec<CaFault>,
}

#[derive(Debug)]
struct Anchor {
    name: String,
    certificate: Certificate,
}

#[derive(Debug)]
struct Pin {
    name: String,
    certificate: Certificate,
}

impl TrustStore {
    /// Builds the store from what `trust/` holds. CAs that do not pass the gate are left out and reported; whether that
    /// refuses the whole is the caller's decision ([`CaRejected::only_expired`] never does).
    pub fn build(files: &TrustFiles, now: OffsetDateTime) -> (Self, Vec<CaRejected>) {
        let (anchors, intermediates, rejected) = admit_cas(&files.cas, now);
        let pins: HashMap<_, _> = files.pins.iter().map(pin).collect();
        let hints = hints(&anchors, &intermediates, &pins);
        let trust_anchors = anchors.iter().filter_map(|anchor| trust_anchor(&anchor.certificate)).collect();
        let deny = DenyList::new(&files.deny);
        (Self { anchors, trust_anchors, intermediates, pins, deny, hints }, rejected)
    }

    /// The names for the CertificateRequest: CA subjects, pin issuers and known intermediates; empty above 8 KiB.
    ///
    /// A Go client (docker, podman, containerd) whose certificate was issued by none of these names sends nothing at
    /// all (Go `crypto/tls` common.go, `SupportsCertificate`).
    pub fn hints(&self) -> &Arc<[DistinguishedName]> {
        &self.hints
    }

    /// How many CAs and pins are trusted.
    pub fn counts(&self) -> (usize, usize) {
        (self.anchors.len(), self.pins.len())
    }

    /// The names of the CAs, as rules may use them.
    pub fn ca_names(&self) -> impl Iterator<Item = &str> {
        self.anchors.iter().map(|anchor| anchor.name.as_str())
    }

    /// The names of the pins, without `pin:`, as rules may use them.
    pub fn pin_names(&self) -> impl Iterator<Item = &str> {
        self.pins.values().map(|pin| pin.name.as_str())
    }

    /// Judges the chain a peer presented, leaf first, at `now`.
    ///
    /// # Errors
    /// The [`Refusal`] whose alert the handshake must send.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: OffsetDateTime) -> Result<Accepted, Refusal> {
        let leaf = chain.first().ok_or(Refusal::Unreadable)?;
        let leaf = Certificate::from_der(leaf.clone().into_owned()).map_err(|_| Refusal::Unreadable)?;
        self.judge_leaf(leaf, chain.get(1..).unwrap_or_default(), now)
    }

    /// As [`judge`](Self::judge), for a leaf that is parsed already.
    pub(crate) fn judge_leaf(
        &self,
        leaf: Certificate,
        others: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Result<Accepted, Refusal> {
        self.check_deny(&leaf)?;
        check_dates(&leaf, now)?;
        if let Some(pin) = self.pins.get(&leaf.fingerprint()) {
            let valid_until = leaf.facts().not_after;
            return Ok(Accepted::new(leaf, TrustedBy::Pin(pin.name.clone()), valid_until));
        }
        let (ca, valid_until) = self.judge_chain(&leaf, others, now)?;
        Ok(Accepted::new(leaf, TrustedBy::Ca(ca), valid_until))
    }

    fn check_deny(&self, leaf: &Certificate) -> Result<(), Refusal> {
        self.deny.check(leaf)?;
        let issuer = leaf.facts().issuer.der();
        let cas = self.anchors.iter().map(|anchor| &anchor.certificate).chain(&self.intermediates);
        self.deny.check_serial(leaf, cas.filter(|ca| ca.facts().subject.der() == issuer))
    }

    /// The name of the CA that the path ends at, and when the first certificate of the path expires.
    fn judge_chain(
        &self,
        leaf: &Certificate,
        others: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Result<(String, OffsetDateTime), Refusal> {
        self.check_issuer(leaf)?;
        let presented = others.iter().take(MAX_CHAIN - 1).map(AsRef::<[u8]>::as_ref);
        let known = self.intermediates.iter().map(|certificate| certificate.der().as_ref());
        let intermediates: Vec<CertificateDer<'_>> = presented.chain(known).map(CertificateDer::from).collect();
        let anchors: Vec<TrustAnchor<'_>> = self
            .anchors
            .iter()
            .zip(&self.trust_anchors)
            .filter(|(anchor, _)| date_fault(&anchor.certificate, now).is_none())
            .map(|(_, trust_anchor)| trust_anchor.clone())
            .collect();
        let end_entity = EndEntityCert::try_from(leaf.der()).map_err(|error| refusal_of(&error, leaf))?;
        let algorithms = provider().signature_verification_algorithms;
        let path = end_entity
            .verify_for_usage(
                algorithms.all,
                &anchors,
                &intermediates,
                unix_time(now),
                KeyUsage::client_auth(),
                None,
                Some(&|path| self.check_path(path, now)),
            )
            .map_err(|error| refusal_of(&error, leaf))?;
        check_leaf_usage(leaf)?;
        let anchor = self.anchor_of(&path).ok_or(Refusal::UnknownIssuer)?;
        self.deny.check(&anchor.certificate)?;
        let mut valid_until = leaf.facts().not_after.min(anchor.certificate.facts().not_after);
        for intermediate in path.intermediate_certificates() {
            let certificate =
                Certificate::from_der(intermediate.der().into_owned()).map_err(|_| Refusal::Unreadable)?;
            self.deny.check(&certificate)?;
            valid_until = valid_until.min(certificate.facts().not_after);
        }
        Ok((anchor.name.clone(), valid_until))
    }

    /// What is told apart before webpki looks: these three all read "unknown issuer" to it, or worse.
    fn check_issuer(&self, leaf: &Certificate) -> Result<(), Refusal> {
        let facts = leaf.facts();
        if facts.self_issued {
            return Err(Refusal::SelfSigned);
        }
        let issuer = facts.issuer.der();
        let is_ca = self.anchors.iter().any(|anchor| anchor.certificate.facts().subject.der() == issuer);
        let pin = self.pins.values().find(|pin| pin.certificate.facts().subject.der() == issuer);
        match pin {
            Some(pin) if !is_ca => Err(Refusal::IssuedByPin { pin: pin.name.clone() }),
            _ => Ok(()),
        }
    }

    /// webpki lets a CA without keyCertSign, or with a weak key, stand in the middle of a path; the gate does not.
    fn check_path(&self, path: &VerifiedPath<'_>, now: OffsetDateTime) -> Result<(), webpki::Error> {
        for intermediate in path.intermediate_certificates() {
            let certificate =
                Certificate::from_der(intermediate.der().into_owned()).map_err(|_| webpki::Error::BadDer)?;
            if !gate(&certificate, now).is_empty() {
                return Err(webpki::Error::UnknownIssuer);
            }
        }
        self.anchor_of(path).map(|_| ()).ok_or(webpki::Error::UnknownIssuer)
    }

    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Option<&Anchor> {
        let found = path.anchor();
        let index = self.trust_anchors.iter().position(|anchor| {
            anchor.subject == found.subject && anchor.subject_public_key_info == found.subject_public_key_info
        })?;
        self.anchors.get(index)
    }
}

impl CaRejected {
    /// Whether only its dates are wrong. Expiry leaves out that one CA and never refuses the others.
    pub fn only_expired(&self) -> bool {
        self.faults.iter().all(|fault| matches!(fault, CaFault::Expired { .. } | CaFault::NotYetValid { .. }))
    }
}

impl Accepted {
    fn new(leaf: Certificate, trusted_by: TrustedBy, valid_until: OffsetDateTime) -> Self {
        Self { identity: Identity { certificate: Arc::new(leaf), trusted_by }, valid_until }
    }

    /// Who the peer is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the first certificate of the path expires: the verdict is void from then on.
    pub fn valid_until(&self) -> OffsetDateTime {
        self.valid_until
    }
}

impl Identity {
    /// The certificate presented.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What made it trusted.
    pub fn trusted_by(&self) -> &TrustedBy {
        &self.trusted_by
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }
}

fn admit_cas(files: &[CaFile], now: OffsetDateTime) -> (Vec<Anchor>, Vec<Certificate>, Vec<CaRejected>) {
    let (mut anchors, mut intermediates, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        for certificate in &file.certificates {
            let faults = gate(certificate, now);
            let facts = certificate.facts();
            // An expired CA is reported and kept out below, at each verdict: it may be "not yet valid" only until noon.
            if !shape_faults(certificate).is_empty() || trust_anchor(certificate).is_none() {
                rejected.push(rejection(file, certificate, faults));
                continue;
            }
            if !faults.is_empty() {
                rejected.push(rejection(file, certificate, faults));
            }
            if facts.self_issued {
                anchors.push(Anchor { name: file.name.clone(), certificate: certificate.clone() });
            } else {
                intermediates.push(certificate.clone());
            }
        }
    }
    (anchors, intermediates, rejected)
}

fn rejection(file: &CaFile, certificate: &Certificate, faults: Vec<CaFault>) -> CaRejected {
    CaRejected { path: file.path.clone(), subject: certificate.facts().subject.to_string(), faults }
}

fn pin(file: &PinFile) -> (Fingerprint, Pin) {
    let pin = Pin { name: file.name.clone(), certificate: file.certificate.clone() };
    (file.certificate.fingerprint(), pin)
}

fn trust_anchor(certificate: &Certificate) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(certificate.der()).ok().map(|anchor| anchor.to_owned())
}

fn hints(
    anchors: &[Anchor],
    intermediates: &[Certificate],
    pins: &HashMap<Fingerprint, Pin>,
) -> Arc<[DistinguishedName]> {
    let cas = anchors.iter().map(|anchor| &anchor.certificate).chain(intermediates);
    let mut names: Vec<&[u8]> = cas.map(|ca| ca.facts().subject.der()).collect();
    names.extend(pins.values().map(|pin| pin.certificate.facts().issuer.der()));
    names.sort_unstable();
    names.dedup();
    let bytes: usize = names.iter().map(|name| name.len() + 2).sum();
    if bytes > MAX_HINT_BYTES {
        return Arc::new([]);
    }
    names.into_iter().map(|name| DistinguishedName::from(name.to_vec())).collect()
}

fn check_dates(leaf: &Certificate, now: OffsetDateTime) -> Result<(), Refusal> {
    match date_fault(leaf, now) {
        Some(CaFault::Expired { not_after }) => Err(Refusal::Expired { not_after }),
        Some(CaFault::NotYetValid { not_before }) => Err(Refusal::NotYetValid { not_before }),
        _ => Ok(()),
    }
}

/// What webpki does not look at in a leaf. RFC 5280 §4.2.1.3: a TLS client signs, so digitalSignature must be allowed;
/// OpenSSL refuses without it, Go does not: the safe reading wins.
fn check_leaf_usage(leaf: &Certificate) -> Result<(), Refusal> {
    let facts = leaf.facts();
    if let Some(usage) = &facts.key_usage {
        if usage.key_cert_sign {
            return Err(Refusal::Usage { problem: "its keyUsage is a CA's (keyCertSign)" });
        }
        if !usage.digital_signature {
            return Err(Refusal::Usage { problem: "its keyUsage lacks digitalSignature" });
        }
    }
    if is_weak(&facts.key) {
        return Err(Refusal::Unsupported { problem: format!("its key is too weak ({})", facts.key) });
    }
    Ok(())
}

fn refusal_of(error: &webpki::Error, leaf: &Certificate) -> Refusal {
    use webpki::Error as E;
    match error {
        E::CaUsedAsEndEntity => Refusal::Usage { problem: "it is a CA's (CA:TRUE)" },
        E::RequiredEkuNotFoundContext(_) => {
            Refusal::Usage { problem: "its extendedKeyUsage, or an issuer's, lacks clientAuth" }
        }
        E::CertExpired { .. } => Refusal::Expired { not_after: leaf.facts().not_after },
        E::CertNotValidYet { .. } => Refusal::NotYetValid { not_before: leaf.facts().not_before },
        E::InvalidSignatureForPublicKey => Refusal::BadSignature,
        E::UnsupportedCertVersion => {
            Refusal::Unsupported { problem: format!("X.509 v{}, issue it again as v3", leaf.facts().version) }
        }
        E::UnsupportedCriticalExtension => {
            Refusal::Unsupported { problem: "a critical extension is not understood".to_owned() }
        }
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            Refusal::Unsupported { problem: format!("signed with {}", leaf.facts().signature) }
        }
        E::BadDer | E::TrailingData(_) | E::BadDerTime => Refusal::Unreadable,
        // Path building failed in one way or another: constraints, budget, an issuer that does not fit.
        _ => Refusal::UnknownIssuer,
    }
}
