//! The clients that were let in lately, for the question whose certificate ends next.
//!
//! In memory and bounded: after a start it fills again as clients come. Must not know why anybody was let in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_certs::Fingerprint;
use portcullis_tls::{Identity, TrustedBy};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::events::audit::Text;
use crate::status::rfc3339;

/// How many certificates are remembered; past it the one that was longest unseen goes.
const MOST: usize = 10_000;
/// A certificate unseen for so long has been replaced, or its host is gone: nobody needs to be warned of its end.
const REMEMBERED: Duration = Duration::days(7);

/// Certificates by fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<Fingerprint, Known>>);

#[derive(Debug)]
struct Known {
    who: Text,
    trusted_by: TrustedBy,
    address: IpAddr,
    not_after: OffsetDateTime,
    last_seen: OffsetDateTime,
}

/// A client that was let in lately. The keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenClient {
    /// The certificate's subject.
    pub subject: String,
    /// `ca:NAME` or `pin:NAME`.
    pub trusted_by: String,
    /// `sha256:…`
    pub fingerprint: String,
    /// Its last second, RFC 3339.
    pub not_after: String,
    /// When its last handshake was, RFC 3339.
    pub last_seen: String,
    /// Where that came from.
    pub address: IpAddr,
}

impl Clients {
    pub(crate) fn seen(&self, address: SocketAddr, identity: &Identity) {
        let facts = identity.certificate().facts();
        let now = OffsetDateTime::now_utc();
        let mut known = self.lock();
        if let Some(known) = known.get_mut(&identity.fingerprint()) {
            (known.last_seen, known.address) = (now, address.ip());
            known.trusted_by.clone_from(identity.trusted_by());
            return;
        }
        if known.len() >= MOST {
            let oldest = known.iter().min_by_key(|(_, known)| known.last_seen).map(|(fingerprint, _)| *fingerprint);
            oldest.and_then(|fingerprint| known.remove(&fingerprint));
        }
        let new = Known {
            who: Text::of(&facts.subject),
            trusted_by: identity.trusted_by().clone(),
            address: address.ip(),
            not_after: facts.not_after,
            last_seen: now,
        };
        known.insert(identity.fingerprint(), new);
    }

    /// What it was let in for, if it was of late.
    pub(crate) fn trusted_by(&self, fingerprint: Fingerprint) -> Option<TrustedBy> {
        self.lock().get(&fingerprint).map(|known| known.trusted_by.clone())
    }

    /// It is no longer let in.
    pub(crate) fn forget(&self, fingerprint: Fingerprint) {
        self.lock().remove(&fingerprint);
    }

    /// How many end within each of these times, and how many there are.
    pub(crate) fn ending_within<const N: usize>(&self, times: [Duration; N]) -> ([usize; N], usize) {
        let now = OffsetDateTime::now_utc();
        let known = self.current(now);
        (times.map(|time| known.values().filter(|known| known.not_after <= now + time).count()), known.len())
    }

    /// All of them, whose end is next first.
    pub(crate) fn list(&self) -> Vec<SeenClient> {
        let known = self.current(OffsetDateTime::now_utc());
        let mut all: Vec<_> = known.iter().collect();
        all.sort_by_key(|(fingerprint, known)| (known.not_after, **fingerprint));
        let client = |(fingerprint, known): (&Fingerprint, &Known)| SeenClient {
            subject: known.who.as_str().to_owned(),
            trusted_by: Text::of(&known.trusted_by).as_str().to_owned(),
            fingerprint: fingerprint.to_string(),
            not_after: rfc3339(known.not_after),
            last_seen: rfc3339(known.last_seen),
            address: known.address,
        };
        all.into_iter().map(client).collect()
    }

    /// Without those that have ended or were not seen for long.
    fn current(&self, now: OffsetDateTime) -> MutexGuard<'_, HashMap<Fingerprint, Known>> {
        let mut known = self.lock();
        known.retain(|_, known| known.not_after >= now && now - known.last_seen <= REMEMBERED);
        known
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
