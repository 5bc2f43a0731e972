//! What certificates of a host directory can be held against, without the registry. Pure.

use crate::fault::Fault;
use crate::finding::Severity;
use crate::key::PrivateKey;
use crate::pem::Located;
use crate::x509::CertificateFacts;
use time::OffsetDateTime;

type Judgement = (u32, Severity, Fault);

/// A certificate of a `.crt`. Go refuses what an expired root, an issuer without CA:TRUE or one without
/// keyCertSign has signed; rustls' own verifier and OpenSSL judge some of these otherwise.
pub(super) fn root(located: &Located, now: OffsetDateTime) -> Vec<Judgement> {
    let facts = located.certificate.facts();
    let subject = facts.subject.to_string();
    let mut faults = Vec::new();
    if facts.not_after < now {
        faults.push((Severity::Warning, Fault::ExpiredRoot { subject: subject.clone(), not_after: facts.not_after }));
    } else if facts.not_before > now {
        faults.push((Severity::Warning, not_yet_valid(facts)));
    }
    // A v1 certificate has no extensions to say it with: Go lets it sign.
    if facts.version == 3 && facts.is_ca != Some(true) {
        faults.push((Severity::Note, Fault::RootIsLeaf { subject }));
    } else if facts.key_usage.is_some_and(|usage| !usage.key_cert_sign) {
        faults.push((Severity::Warning, Fault::RootCannotSign { subject }));
    }
    faults.into_iter().map(|(severity, fault)| (located.line, severity, fault)).collect()
}

/// The dates of a `.cert`'s certificates. A warning: engines present the pair all the same.
pub(super) fn dates(chain: &[Located], now: OffsetDateTime) -> Vec<Judgement> {
    let fault = |located: &Located| Some((located.line, Severity::Warning, date(located.certificate.facts(), now)?));
    chain.iter().filter_map(fault).collect()
}

/// What else can be said of a `.cert` whose first certificate is known to be the client's.
pub(super) fn chain(chain: &[Located]) -> Vec<Judgement> {
    let usage = chain.first().and_then(|leaf| Some((leaf.line, usage(leaf.certificate.facts())?)));
    let links = chain.iter().zip(chain.iter().skip(1)).filter_map(|(before, located)| {
        let subject = &located.certificate.facts().subject;
        let is_broken = before.certificate.facts().issuer != *subject;
        is_broken.then(|| (located.line, Fault::ChainBroken { subject: subject.to_string() }))
    });
    usage.into_iter().chain(links).map(|(line, fault)| (line, Severity::Warning, fault)).collect()
}

/// Whether a certificate says that it is a CA's: put as `.cert`, it was most likely meant to be a `.crt`.
pub(super) fn looks_like_ca(facts: &CertificateFacts) -> bool {
    facts.is_ca == Some(true) || facts.key_usage.is_some_and(|usage| usage.key_cert_sign)
}

/// Where in the chain the key belongs; `Some(0)` is right.
pub(super) fn position(chain: &[Located], key: &PrivateKey) -> Option<usize> {
    chain.iter().position(|located| key.matches(&located.certificate))
}

fn date(facts: &CertificateFacts, now: OffsetDateTime) -> Option<Fault> {
    if facts.not_after < now {
        Some(Fault::Expired { subject: facts.subject.to_string(), not_after: facts.not_after })
    } else {
        (facts.not_before > now).then(|| not_yet_valid(facts))
    }
}

fn not_yet_valid(facts: &CertificateFacts) -> Fault {
    Fault::NotYetValid { subject: facts.subject.to_string(), not_before: facts.not_before }
}

fn usage(facts: &CertificateFacts) -> Option<Fault> {
    let subject = || facts.subject.to_string();
    if facts.extended_key_usage.as_ref().is_some_and(|usage| !usage.client_auth && !usage.any) {
        return Some(Fault::NotForClients { subject: subject(), lacks: "clientAuth" });
    }
    facts
        .key_usage
        .is_some_and(|usage| !usage.digital_signature)
        .then(|| Fault::NotForClients { subject: subject(), lacks: "digitalSignature" })
}
