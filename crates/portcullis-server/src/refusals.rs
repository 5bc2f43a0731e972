//! The refusals of late, kept for whoever asks why: over the admin socket, by a certificate's fingerprint.
//!
//! Bounded, and in memory only: the log and the audit have them all. Must not decide about anybody.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_certs::Fingerprint;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::events::KeyProven;
use crate::generation::Generation;
use crate::reason::Reason;
use crate::status::rfc3339;

/// How many are kept; the one that was seen longest ago goes first.
const KEPT: usize = 256;
/// A chain with more bytes than these is not kept, so that what strangers send fills 4 MiB at most.
const MAX_CHAIN_BYTES: usize = 16 << 10;

/// The reasons that what was sent beside the certificate can be to blame for.
const OF_THE_CHAIN: [&str; 4] = ["unknown-ca", "issuer-not-sent", "revocation-unknown", "unsupported"];

/// The answer to `why`. The keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The certificate that was asked for, `sha256:…`
    pub fingerprint: String,
    /// What the generation in force makes of it; `None` when it has not been refused since the start, so that the server
    /// does not know the certificate.
    pub verdict: Option<PresentVerdict>,
    /// Its refusals of late, the latest first, one for each reason.
    pub refusals: Vec<SeenRefusal>,
}

/// What the trust in force makes of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresentVerdict {
    /// `ca:NAME` or `pin:NAME`, if it is trusted.
    pub trusted_by: Option<String>,
    /// Why not, with the line or the pin that decides, if it is not.
    pub refused: Option<String>,
    /// The number of the generation.
    pub generation: u64,
}

/// One reason for which a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRefusal {
    /// One word for it.
    pub code: String,
    /// What the peer was told.
    pub told: String,
    /// Why, with the line or the pin that decided.
    pub reason: String,
    /// When that was last, RFC 3339.
    pub last: String,
    /// Where the peer was, then.
    pub address: SocketAddr,
    /// How often, while it was kept.
    pub count: u64,
    /// Whether the peer has proven, at least once, that it has the certificate's key: else anybody may have shown it, with
    /// any chain.
    #[serde(default)]
    pub key_proven: bool,
}

/// The refusals of late.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<VecDeque<Seen>>);

#[derive(Debug)]
struct Seen {
    fingerprint: Fingerprint,
    chain: Vec<CertificateDer<'static>>,
    reason: Reason,
    for_the_operator: String,
    last: OffsetDateTime,
    address: SocketAddr,
    count: u64,
    key_proven: KeyProven,
}

impl Refusals {
    /// Keeps one; a peer without a certificate has nothing that it could be asked for by.
    pub(crate) fn note(
        &self,
        address: SocketAddr,
        chain: &[CertificateDer<'_>],
        reason: &Reason,
        for_the_operator: &str,
        key_proven: KeyProven,
    ) {
        let bytes: usize = chain.iter().map(|der| der.len()).sum();
        let Some(leaf) = chain.first().filter(|_| bytes <= MAX_CHAIN_BYTES) else { return };
        let fingerprint = Fingerprint::of(leaf);
        let mut seen = self.lock();
        let is_same = |seen: &Seen| seen.fingerprint == fingerprint && seen.reason.code() == reason.code();
        let before = seen.iter().position(is_same).and_then(|at| seen.remove(at));
        // A chain without the key never takes the place of one that came with it.
        let proven = before.as_ref().filter(|before| before.key_proven == KeyProven::Yes);
        let chain = match (key_proven, proven) {
            (KeyProven::No, Some(proven)) => proven.chain.clone(),
            _ => chain.iter().map(|der| der.clone().into_owned()).collect(),
        };
        let key_proven = if proven.is_some() { KeyProven::Yes } else { key_proven };
        seen.truncate(KEPT - 1);
        seen.push_front(Seen {
            fingerprint,
            chain,
            reason: reason.clone(),
            for_the_operator: for_the_operator.to_owned(),
            last: OffsetDateTime::now_utc(),
            address,
            count: before.map_or(0, |before| before.count) + 1,
            key_proven,
        });
    }

    /// The holder of this chain's first certificate is let in, and has proven its key: what was blamed on another chain,
    /// by whoever showed the certificate without the key, says nothing of it.
    pub(crate) fn let_in(&self, fingerprint: Fingerprint, chain: &[CertificateDer<'static>]) {
        let is_strangers = |seen: &Seen| seen.fingerprint == fingerprint && seen.key_proven == KeyProven::No;
        let mut seen = self.lock();
        seen.retain(|seen| !(is_strangers(seen) && OF_THE_CHAIN.contains(&seen.reason.code())));
        for seen in seen.iter_mut().filter(|seen| is_strangers(seen)) {
            seen.chain = chain.to_vec();
        }
    }

    /// What is known of one certificate, and what `generation` makes of it.
    pub(crate) fn why(&self, fingerprint: Fingerprint, generation: &Generation) -> Why {
        let seen = self.lock();
        let own: Vec<&Seen> = seen.iter().filter(|seen| seen.fingerprint == fingerprint).collect();
        let proven = own.iter().find(|seen| seen.key_proven == KeyProven::Yes);
        let chain = proven.or(own.first()).map(|seen| seen.chain.clone());
        let refusals = own.into_iter().map(Seen::shown).collect();
        drop(seen);
        let verdict = chain.map(|chain| verdict(&chain, generation));
        Why { fingerprint: fingerprint.to_string(), verdict, refusals }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        // Whole at any time: at most one is missing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn shown(&self) -> SeenRefusal {
        SeenRefusal {
            code: self.reason.code().to_owned(),
            told: self.reason.to_string(),
            reason: self.for_the_operator.clone(),
            last: rfc3339(self.last),
            address: self.address,
            count: self.count,
            key_proven: self.key_proven == KeyProven::Yes,
        }
    }
}

fn verdict(chain: &[CertificateDer<'_>], generation: &Generation) -> PresentVerdict {
    let verdict = generation.tls.trust().judge(chain, OffsetDateTime::now_utc());
    let (trusted_by, refused) = match verdict {
        Ok(accepted) => (Some(accepted.identity().trusted_by().to_string()), None),
        Err(refusal) => (None, Some(refusal.to_string())),
    };
    PresentVerdict { trusted_by, refused, generation: generation.number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(refusals: &Refusals, der: &[u8]) {
        let reason = Reason::no_certificate("registry.test");
        refusals.note(
            ([10, 0, 0, 1], 1).into(),
            &[CertificateDer::from(der.to_vec())],
            &reason,
            "because",
            KeyProven::No,
        );
    }

    fn count(refusals: &Refusals, der: &[u8]) -> Option<u64> {
        let seen = refusals.lock();
        seen.iter().find(|seen| seen.fingerprint == Fingerprint::of(der)).map(|seen| seen.count)
    }

    #[test]
    fn the_one_seen_longest_ago_goes_first() {
        let refusals = Refusals::default();
        for number in 0..KEPT {
            note(&refusals, &number.to_be_bytes());
        }
        let (first, second, last) = (0_usize.to_be_bytes(), 1_usize.to_be_bytes(), KEPT.to_be_bytes());
        note(&refusals, &first);
        assert_eq!((count(&refusals, &first), refusals.lock().len()), (Some(2), KEPT));
        note(&refusals, &last);
        assert_eq!((count(&refusals, &first), count(&refusals, &second)), (Some(2), None));
        assert_eq!((count(&refusals, &last), refusals.lock().len()), (Some(1), KEPT));
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let refusals = Refusals::default();
        note(&refusals, &vec![1; MAX_CHAIN_BYTES]);
        note(&refusals, &vec![2; MAX_CHAIN_BYTES + 1]);
        assert_eq!(refusals.lock().len(), 1);
    }
}
