//! What a running server says about itself, to its probes and over its socket.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_certs::{AltName, CertificateFacts, Visible};
use portcullis_store::Store;
use portcullis_tls::TrustedBy;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::events::Events;
use crate::gc::{Collector, GcStatus};
use crate::generation::{Generation, Generations};
use crate::slots::Slots;

/// The parts of a running server that its status is read from.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) listen: SocketAddr,
    pub(crate) generations: Arc<Generations>,
    pub(crate) store: Store,
    pub(crate) collector: Arc<Collector>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) events: Arc<Events>,
    pub(crate) since: OffsetDateTime,
}

/// How long before its end an anchor of trust is warned of at most; what lives shortly, as what `openssl req -x509`
/// makes, in its last third.
const ANCHOR_NOTICE: time::Duration = time::Duration::days(30);

/// The answer to `status`. The keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Since when, RFC 3339.
    pub since: String,
    /// The number of the trust generation in force.
    pub generation: u64,
    /// Since when that is in force, RFC 3339.
    pub generation_since: String,
    /// CAs trusted.
    pub cas: usize,
    /// Pins trusted.
    pub pins: usize,
    /// The revocation lists in force.
    pub crls: Vec<CrlInForce>,
    /// The server's own certificate.
    pub certificate: OwnCertificate,
    /// Connections open now.
    pub connections: usize,
    /// Uploads begun and not ended.
    pub open_uploads: usize,
    /// Links and manifests met since the start that are damaged and treated as absent; the log names each.
    pub damaged: u64,
    /// Garbage collections of this server: the one under way and the last one, without what a dry run lists.
    pub gc: GcStatus,
    /// Why the files as they are now are not in force; empty when they are.
    pub refused: Vec<String>,
    /// Why the server is not ready; empty when it is.
    pub not_ready: Vec<String>,
    /// What is wrong although it is ready; empty when nothing is.
    pub degraded: Vec<String>,
}

/// A revocation list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrlInForce {
    /// Its CA's name in `trust/cas`.
    pub ca: String,
    /// Its number, hexadecimal; version 1 has none.
    pub number: Option<String>,
    /// When it was made, RFC 3339.
    pub this_update: String,
    /// When the next one is due, RFC 3339.
    pub next_update: String,
    /// How many certificates are on it.
    pub revoked: usize,
}

/// The server's own certificate, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCertificate {
    /// Its names.
    pub names: Vec<String>,
    /// Its last second, RFC 3339.
    pub not_after: String,
    /// `sha256:…`
    pub fingerprint: String,
}

pub(crate) fn read(inside: &Inside) -> Status {
    let generation = inside.generations.current();
    let (cas, pins) = generation.tls.trust().counts();
    let health = inside.store.health();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        listen: inside.listen,
        since: rfc3339(inside.since),
        generation: generation.number,
        generation_since: rfc3339(generation.since),
        cas,
        pins,
        crls: crls(&generation),
        certificate: own_certificate(generation.tls.chain()),
        connections: inside.slots.count(),
        open_uploads: health.open_uploads,
        damaged: health.damaged,
        gc: inside.collector.status().in_short(),
        refused: refused(inside),
        not_ready: not_ready(inside),
        degraded: degraded(inside),
    }
}

/// Why a load balancer should send nobody here.
pub(crate) fn not_ready(inside: &Inside) -> Vec<String> {
    let mut reasons = Vec::new();
    let generation = inside.generations.current();
    if let Some(leaf) = generation.tls.chain().first() {
        let not_after = leaf.facts().not_after;
        if OffsetDateTime::now_utc() > not_after {
            reasons.push(format!("the server's certificate expired on {}", rfc3339(not_after)));
        }
    }
    reasons
}

/// What somebody should look at, while pulls go on. Only one process can own the data: to send its clients away would
/// send them nowhere.
pub(crate) fn degraded(inside: &Inside) -> Vec<String> {
    let read_only = inside.store.health().read_only;
    let read_only = read_only.map(|reason| format!("the store is read-only, pushes are refused: {reason}"));
    let not_remembered = inside.generations.not_remembered();
    let first = read_only.into_iter().chain(not_remembered);
    first.chain(warnings(&inside.generations.current(), OffsetDateTime::now_utc())).collect()
}

/// Why the files as they are now are not in force.
pub(crate) fn refused(inside: &Inside) -> Vec<String> {
    inside.generations.refused().iter().map(ToString::to_string).collect()
}

/// What an operator must know although the server works, at `now`: beside what was wrong with the files, what time alone
/// brings about.
fn warnings(generation: &Generation, now: OffsetDateTime) -> Vec<String> {
    generation.warnings.iter().map(ToString::to_string).chain(aging(generation, now)).collect()
}

/// What time alone brings about. Each sentence stays the same until what it is about is replaced, or out of date.
pub(crate) fn aging(generation: &Generation, now: OffsetDateTime) -> Vec<String> {
    let crls = generation.tls.trust().crls();
    let crls = crls.filter_map(|crl| old_crl(&crl.ca, crl.list.this_update(), crl.list.next_update(), now));
    let leaf = generation.tls.chain().first().map(portcullis_certs::Certificate::facts);
    let leaf = leaf.filter(|facts| is_in_last_third(facts.not_before, facts.not_after, now)).map(|facts| {
        let end = rfc3339(facts.not_after);
        format!("the server's certificate ends on {end}: `portcullis maintain` renews it where the CA is")
    });
    let anchors = generation.tls.trust().certificates();
    let anchors =
        anchors.filter_map(|(anchor, certificate)| old_anchor(&anchor, certificate.facts(), generation.since, now));
    crls.chain(leaf).chain(anchors).collect()
}

/// One that had ended before it was loaded is among the warnings of the loading.
fn old_anchor(
    anchor: &TrustedBy,
    facts: &CertificateFacts,
    loaded: OffsetDateTime,
    now: OffsetDateTime,
) -> Option<String> {
    let end = facts.not_after;
    if end <= loaded || end - now > notice(facts.not_before, end) {
        return None;
    }
    let (is, end) = (if end <= now { "has been out of date since" } else { "is good until" }, rfc3339(end));
    let lost = match anchor {
        TrustedBy::Ca(_) => "nobody whom it issued is let in after that",
        TrustedBy::Pin(_) => "it is not let in after that",
    };
    Some(format!("{anchor} {is} {end}, and {lost}: `portcullis trust add` its successor before"))
}

/// Whose CA is ours cannot be known here (its key is elsewhere), so this is said of every list.
fn old_crl(ca: &str, this_update: OffsetDateTime, next_update: OffsetDateTime, now: OffsetDateTime) -> Option<String> {
    let due = rfc3339(next_update);
    if now > next_update {
        return Some(format!("the revocation list of the CA {ca} is out of date since {due}: get the newest from it"));
    }
    is_in_last_third(this_update, next_update, now).then(|| {
        format!(
            "the revocation list of the CA {ca} is good until {due} only: `portcullis maintain` makes our own CA's anew, \
             another's is to be fetched"
        )
    })
}

fn notice(begin: OffsetDateTime, end: OffsetDateTime) -> time::Duration {
    ANCHOR_NOTICE.min((end - begin) / 3)
}

fn is_in_last_third(begin: OffsetDateTime, end: OffsetDateTime, now: OffsetDateTime) -> bool {
    end - now < (end - begin) / 3
}

fn crls(generation: &Generation) -> Vec<CrlInForce> {
    let mut crls: Vec<CrlInForce> = generation
        .tls
        .trust()
        .crls()
        .map(|crl| CrlInForce {
            ca: crl.ca.clone(),
            number: crl.list.number().map(ToString::to_string),
            this_update: rfc3339(crl.list.this_update()),
            next_update: rfc3339(crl.list.next_update()),
            revoked: crl.list.len(),
        })
        .collect();
    crls.sort_by(|a, b| a.ca.cmp(&b.ca));
    crls
}

fn own_certificate(chain: &[portcullis_certs::Certificate]) -> OwnCertificate {
    let Some(leaf) = chain.first() else {
        return OwnCertificate { names: Vec::new(), not_after: String::new(), fingerprint: String::new() };
    };
    OwnCertificate {
        names: leaf.facts().alt_names.iter().filter_map(name).collect(),
        not_after: rfc3339(leaf.facts().not_after),
        fingerprint: leaf.fingerprint().to_string(),
    }
}

/// What a client may have typed.
fn name(name: &AltName) -> Option<String> {
    match name {
        AltName::Dns(name) => Some(Visible(name).to_string()),
        AltName::Ip(address) => Some(address.to_string()),
        AltName::Email(_) | AltName::Uri(_) | AltName::Other(_) => None,
    }
}

/// To the second, in UTC.
pub(crate) fn rfc3339(time: OffsetDateTime) -> String {
    let time = time.replace_nanosecond(0).unwrap_or(time);
    // Fails only outside of the years 0 to 9999.
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn a_list_is_told_of_from_its_last_third_on() {
        let begin = OffsetDateTime::UNIX_EPOCH;
        let end = begin + Duration::days(9);
        let said = |now| old_crl("clients", begin, end, now);
        assert_eq!(said(end - Duration::days(3)), None);
        let third = said(end - Duration::days(3) + Duration::SECOND).expect("told");
        assert!(third.contains("clients is good until 1970-01-10T00:00:00Z only"), "{third}");
        assert_eq!(said(end), Some(third));
        assert!(said(end + Duration::SECOND).expect("told").contains("is out of date since 1970-01-10T00:00:00Z"));
    }

    #[test]
    fn an_anchor_is_told_of_in_its_last_month_and_in_a_short_lifes_last_third() {
        let end = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(notice(end - Duration::days(3650), end), Duration::days(30));
        assert_eq!(notice(end - Duration::days(90), end), Duration::days(30));
        assert_eq!(notice(end - Duration::days(30), end), Duration::days(10));
    }
}
