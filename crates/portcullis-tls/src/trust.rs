//! The server's verdict on a client certificate: our own function over webpki's path building.
//!
//! The order is fixed: deny list, revocation list of any CA here that issued it, dates, pin, chain. Only the deny list's names wait until the pin or the chain is
//! proven: a stranger's certificate holds thousands of names, and each would be held against each rule. A pin is the SHA-256 of one certificate: it is trusted for
//! itself, signs for nobody, and needs no CA bit either way (the Docker page's `openssl req -new -x509` makes a
//! self-signed CA:TRUE certificate, which webpki refuses as a client's and would admit as everybody's issuer).

mod admission;
mod alone;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_certs::trust_dir::{CrlFile, DenyEntry, TrustFiles};
use portcullis_certs::{Certificate, Fingerprint, RevocationList};
use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;
use webpki::{EndEntityCert, VerifiedPath};

use crate::anchor::{Purpose, check_root};
use crate::clock::unix_time;
use crate::crls::{CaCrl, CrlRejected, CrlRules, Crls, NamedCa};
use crate::deny::DenyList;
use crate::gate::{CaFault, date_fault, gate, is_weak};
use crate::{Refusal, provider};
use admission::{admit_cas, hints, pin};

/// The longest chain that is looked at, leaf included. Each further certificate costs a stranger nothing and us a parse.
pub(crate) const MAX_CHAIN: usize = 8;

/// Everything that decides whom the server trusts, complete and unchangeable.
#[derive(Debug, Clone)]
pub struct TrustStore {
    anchors: Vec<Anchor>,
    intermediates: Vec<Intermediate>,
    pins: HashMap<Fingerprint, Pin>,
    /// What was a pin before the last restriction: nothing else makes it trusted until a whole generation says so.
    withdrawn: HashSet<Fingerprint>,
    deny: DenyList,
    crls: Crls,
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

impl fmt::Display for TrustedBy {
    /// `pin:NAME` or `ca:NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin(name) => write!(f, "pin:{name}"),
            Self::Ca(name) => write!(f, "ca:{name}"),
        }
    }
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

#[derive(Debug, Clone)]
struct Anchor {
    name: String,
    certificate: Certificate,
    /// Its name and key, as webpki wants them.
    root: TrustAnchor<'static>,
}

#[derive(Debug, Clone)]
struct Intermediate {
    /// The file's stem.
    name: String,
    certificate: Certificate,
}

#[derive(Debug, Clone)]
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
        let deny = DenyList::of(&files.deny);
        let withdrawn = HashSet::new();
        let mut store = Self { anchors, intermediates, pins, withdrawn, deny, crls: Crls::default(), hints };
        store.set_crl_rules(&CrlRules::new());
        (store, rejected)
    }

    /// The same trust with the revocation lists of its CAs, and what is asked of them. The newest list of each CA
    /// counts, and all of those that disagree about which is the newest; those that no CA here signed, or may sign, are
    /// reported.
    #[must_use]
    pub fn with_crls(mut self, files: &[CrlFile], rules: &CrlRules) -> (Self, Vec<CrlRejected>) {
        self.set_crl_rules(rules);
        let mut crls = std::mem::take(&mut self.crls);
        let rejected = crls.add(&self.named_cas(), files);
        self.crls = crls;
        (self, rejected)
    }

    /// The same trust, where the lists of `earlier` that are newer than its own stay in force: a list that was replaced
    /// by an older one, or taken away, would let the revoked in again. `is_kept` is asked for each CA's key. Returns those
    /// that stayed.
    #[must_use]
    pub fn keeping_crls_of(mut self, earlier: &Self, is_kept: impl Fn(Fingerprint) -> bool) -> (Self, Vec<CaCrl>) {
        let kept = self.crls.keep_newer(&earlier.crls, is_kept);
        (self, kept)
    }

    /// The same trust with more on its deny list, with those of the revocation lists that count and are newer, and without
    /// the CAs and pins whose files are gone: what is in force when everything else of a change is refused.
    #[must_use]
    pub fn restricted_by(&self, entries: &[DenyEntry], files: &TrustFiles) -> Self {
        let mut store = self.clone();
        store.deny.add(entries);
        let mut crls = std::mem::take(&mut store.crls);
        // What does not count has been reported with the change that was refused.
        let _ = crls.add(&store.named_cas(), &files.crls);
        store.crls = crls;
        store.withdraw(files);
        store
    }

    /// A directory that cannot be read says nothing about what is gone.
    fn withdraw(&mut self, files: &TrustFiles) {
        let is_there =
            |listed: &Option<HashSet<String>>, name: &str| listed.as_ref().is_none_or(|all| all.contains(name));
        self.anchors.retain(|anchor| is_there(&files.listed_cas, &anchor.name));
        self.intermediates.retain(|ca| is_there(&files.listed_cas, &ca.name));
        let gone = self.pins.extract_if(|_, pin| !is_there(&files.listed_pins, &pin.name));
        // A CA may have issued it: it must not come to have that CA's rights by what takes away its own.
        self.withdrawn.extend(gone.map(|(fingerprint, _)| fingerprint));
        self.hints = hints(&self.anchors, &self.intermediates, &self.pins);
    }

    /// The revocation lists in force, by the CAs that have one: several of a CA where numbers and dates disagree about which
    /// is the newest. A list that is only kept until its CA comes back is not among them, nor one whose CA is not here.
    pub fn crls(&self) -> impl Iterator<Item = &CaCrl> {
        let is_here = |crl: &&CaCrl| self.named_cas().any(|ca| ca.certificate.facts().key_hash == crl.ca_key);
        self.crls.iter().filter(is_here)
    }

    /// Every revocation list that may come to count, whoever's it is.
    pub fn revocation_lists(&self) -> impl Iterator<Item = &RevocationList> {
        self.crls.all()
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

    /// Every anchor and pin, with the name that it gives to those it makes trusted.
    pub fn certificates(&self) -> impl Iterator<Item = (TrustedBy, &Certificate)> {
        let anchors = self.anchors.iter().map(|anchor| (TrustedBy::Ca(anchor.name.clone()), &anchor.certificate));
        let pins = self.pins.values().map(|pin| (TrustedBy::Pin(pin.name.clone()), &pin.certificate));
        anchors.chain(pins)
    }

    /// Every CA and intermediate, by the name of its file, with the SHA-256 of its key.
    pub fn ca_keys(&self) -> impl Iterator<Item = (&str, Fingerprint)> {
        self.named_cas().map(|ca| (ca.name, ca.certificate.facts().key_hash))
    }

    /// The names of the CAs, as rules may use them.
    pub fn ca_names(&self) -> impl Iterator<Item = &str> {
        self.anchors.iter().map(|anchor| anchor.name.as_str())
    }

    /// How many CAs are trusted as their subjects tell them apart, in however many files. One that was renewed is one.
    pub fn distinct_cas(&self) -> usize {
        let subjects: HashSet<&[u8]> =
            self.anchors.iter().map(|anchor| anchor.certificate.facts().subject.der()).collect();
        subjects.len()
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
        self.crls.check_claimed(&leaf, self.cas_named(leaf.facts().issuer.der()))?;
        check_dates(&leaf, now)?;
        if let Some(pin) = self.pins.get(&leaf.fingerprint()) {
            self.deny.check_names(&leaf)?;
            check_key(&leaf)?;
            let valid_until = leaf.facts().not_after;
            return Ok(Accepted::new(leaf, TrustedBy::Pin(pin.name.clone()), valid_until));
        }
        if !self.pins.is_empty() && leaf.twins().any(|twin| self.pins.contains_key(&twin)) {
            // It would have the rights of its CA, where the pin has its own alone.
            let problem = "its signature is written in another way than it was issued with".to_owned();
            return Err(Refusal::Unsupported { problem });
        }
        let (ca, valid_until) = self.judge_chain(&leaf, others, now)?;
        if std::iter::once(leaf.fingerprint()).chain(leaf.twins()).any(|form| self.withdrawn.contains(&form)) {
            return Err(Refusal::UnknownIssuer);
        }
        Ok(Accepted::new(leaf, TrustedBy::Ca(ca), valid_until))
    }

    /// Every certificate that may issue: the anchors, then the intermediates.
    fn cas(&self) -> impl Iterator<Item = &Certificate> {
        self.named_cas().map(|ca| ca.certificate)
    }

    /// Those whose subject is this name.
    fn cas_named(&self, subject: &[u8]) -> impl Iterator<Item = &Certificate> {
        self.cas().filter(move |ca| ca.facts().subject.der() == subject)
    }

    fn named_cas(&self) -> impl Iterator<Item = NamedCa<'_>> + Clone {
        let anchors = self.anchors.iter().map(|ca| NamedCa { name: &ca.name, certificate: &ca.certificate });
        anchors.chain(self.intermediates.iter().map(|ca| NamedCa { name: &ca.name, certificate: &ca.certificate }))
    }

    fn set_crl_rules(&mut self, rules: &CrlRules) {
        let mut crls = Crls::default();
        crls.set_rules(self.named_cas(), rules);
        self.crls = crls;
    }

    fn check_deny(&self, leaf: &Certificate) -> Result<(), Refusal> {
        self.deny.check_claims(leaf, self.cas_named(leaf.facts().issuer.der()))
    }

    /// The name of the CA that the path ends at, and when the first certificate of the path expires.
    fn judge_chain(
        &self,
        leaf: &Certificate,
        others: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Result<(String, OffsetDateTime), Refusal> {
        if leaf.facts().self_signed {
            return Err(Refusal::SelfSigned);
        }
        let (anchor, intermediates) = self.find_path(leaf, others, now).map_err(|error| self.refusal(&error, leaf))?;
        self.deny.check_names(leaf)?;
        check_leaf_usage(leaf)?;
        let root = &anchor.certificate;
        let issuers = || intermediates.iter().chain([root]);
        // Here the issuers are certain, and those that the peer sent are among them.
        let mut valid_until = leaf.facts().not_after;
        for (certificate, issuer) in std::iter::once(leaf).chain(&intermediates).zip(issuers()) {
            if !certificate.is_in_its_one_form() {
                return Err(Refusal::Unreadable);
            }
            self.deny.check_serial(certificate, std::iter::once(issuer))?;
            self.deny.check(issuer)?;
            let list_ends = self.crls.check_issued(certificate, issuer, &anchor.name, now)?;
            valid_until = list_ends.into_iter().chain([issuer.facts().not_after]).fold(valid_until, Ord::min);
        }
        Ok((anchor.name.clone(), valid_until))
    }

    /// The first path to an anchor that is valid at `now`: that anchor, and what lies between, the leaf's issuer first.
    fn find_path(
        &self,
        leaf: &Certificate,
        others: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Result<(&Anchor, Vec<Certificate>), webpki::Error> {
        let presented = others.iter().take(MAX_CHAIN - 1).map(AsRef::<[u8]>::as_ref);
        let known = self.intermediates.iter().map(|ca| ca.certificate.der().as_ref());
        let intermediates: Vec<CertificateDer<'_>> = presented.chain(known).map(CertificateDer::from).collect();
        let valid = self.anchors.iter().filter(|anchor| date_fault(&anchor.certificate, now).is_none());
        let (anchors, trust_anchors): (Vec<&Anchor>, Vec<TrustAnchor<'_>>) =
            valid.map(|anchor| (anchor, anchor.root.clone())).unzip();
        // By address: a CA that was renewed with its key is there twice, with one name and one key.
        let anchor_of = |path: &VerifiedPath<'_>| {
            let at = trust_anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
            at.and_then(|at| anchors.get(at).copied()).ok_or(webpki::Error::UnknownIssuer)
        };
        let end_entity = EndEntityCert::try_from(leaf.der())?;
        let path = end_entity.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &trust_anchors,
            &intermediates,
            unix_time(now),
            Purpose::Client,
            None,
            Some(&|path| check_path(path, &anchor_of(path)?.certificate, now)),
        )?;
        Ok((anchor_of(&path)?, parsed_intermediates(&path)?))
    }

    /// What only we can tell: webpki says "unknown issuer" to it, or worse.
    fn refusal(&self, error: &webpki::Error, leaf: &Certificate) -> Refusal {
        let facts = leaf.facts();
        let issuer = facts.issuer.der();
        let refusal = Refusal::of(error, leaf);
        let is_named = self.cas_named(issuer).next().is_some();
        // Whether a CA has the name is nothing that whoever writes it into a certificate of its own shall learn.
        if facts.self_issued && (!is_named || matches!(refusal, Refusal::UnknownIssuer | Refusal::OtherKey)) {
            return Refusal::SelfSigned;
        }
        if is_named {
            return refusal;
        }
        let parents = self.pins.values().filter(|pin| pin.certificate.facts().subject.der() == issuer);
        match parents.map(|pin| &pin.name).min() {
            Some(pin) => Refusal::IssuedByPin { pin: pin.clone() },
            None => refusal,
        }
    }
}

/// webpki lets a CA without keyCertSign, or with a weak key, stand in the middle of a path; the gate does not.
fn check_path(path: &VerifiedPath<'_>, root: &Certificate, now: OffsetDateTime) -> Result<(), webpki::Error> {
    let intermediates = parsed_intermediates(path)?;
    if !intermediates.iter().all(|certificate| gate(certificate, now).is_empty()) {
        return Err(webpki::Error::UnknownIssuer);
    }
    check_root(root, intermediates.len(), Purpose::Client)
}

fn parsed_intermediates(path: &VerifiedPath<'_>) -> Result<Vec<Certificate>, webpki::Error> {
    let parsed = |der: CertificateDer<'_>| Certificate::from_der(der.into_owned()).map_err(|_| webpki::Error::BadDer);
    path.intermediate_certificates().map(|certificate| parsed(certificate.der())).collect()
}

impl CaRejected {
    /// Whether only its dates are wrong. Expiry leaves out that one CA and never refuses the others.
    pub fn only_expired(&self) -> bool {
        let is_date = |fault: &CaFault| matches!(fault, CaFault::Expired { .. } | CaFault::NotYetValid { .. });
        // None at all: webpki could not make an anchor of it, which is not a matter of time.
        !self.faults.is_empty() && self.faults.iter().all(is_date)
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
    check_key(leaf)
}

/// No handshake with such a key would succeed: the reason is better than the failed signature.
fn check_key(leaf: &Certificate) -> Result<(), Refusal> {
    let key = &leaf.facts().key;
    if is_weak(key) {
        return Err(Refusal::Unsupported { problem: format!("its key is too weak ({key})") });
    }
    Ok(())
}
