//! Who is at the other end of a connection, and whether it still may be.
//!
//! Only `accept` makes a [`Peer`], from a finished handshake. The verdict runs again, whole, when the trust generation
//! changed or a certificate of the path expired; until then it is cached per connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_tls::{Accepted, Refusal, RefusedPeer, TrustedBy};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::events::Events;
use crate::generation::{Generation, Generations};
use crate::policy::Caller;

/// A peer that proved its key in the handshake, or one that showed none where that is let in.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    /// `None`: nothing was shown.
    shown: Option<Shown>,
    generations: Arc<Generations>,
}

#[derive(Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    verdict: Mutex<Verdict>,
}

/// A verdict and the generation that gave it.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) generation: Arc<Generation>,
    pub(crate) accepted: Accepted,
}

/// A caller, for people: the pin's name or the certificate's own, and its fingerprint.
pub(crate) struct Described<'a>(pub(crate) &'a Caller);

impl Peer {
    /// From the chain of a finished handshake and the handshake's own verdict on it, which counts while its generation is
    /// in force; otherwise the one that is judges.
    pub(crate) fn new(
        address: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
        judged: Option<Verdict>,
        generations: Arc<Generations>,
    ) -> Result<Self, Box<RefusedPeer>> {
        let (generation, now) = (generations.current(), this_second());
        let judged = judged.filter(|verdict| verdict.holds(&generation, now)).map(|verdict| verdict.accepted);
        match judged.map_or_else(|| generation.tls.trust().judge(&chain, now), Ok) {
            Ok(accepted) => {
                generations.events.accepted(address, accepted.identity(), &chain);
                let shown = Shown { chain, verdict: Mutex::new(Verdict { generation, accepted }) };
                Ok(Self { address, shown: Some(shown), generations })
            }
            Err(refusal) => Err(Box::new(RefusedPeer::of_chain(&chain, refusal))),
        }
    }

    /// Of a finished handshake in which nothing was shown, where the configuration lets that in.
    pub(crate) fn anonymous(address: SocketAddr, generations: Arc<Generations>) -> Self {
        generations.events.accepted_anonymous();
        Self { address, shown: None, generations }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it showed, leaf first; empty where that was nothing.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        self.shown.as_ref().map_or(&[], |shown| &shown.chain)
    }

    /// Whom it was taken for last, for those who tell of the peer: that may be void by now.
    pub(crate) fn last(&self) -> Caller {
        let Some(shown) = &self.shown else { return Caller::Anonymous };
        let verdict = shown.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        Caller::Trusted(verdict.accepted.identity().clone())
    }

    pub(crate) fn events(&self) -> &Events {
        &self.generations.events
    }

    /// The generation in force and whom it takes the peer for.
    ///
    /// # Errors
    /// The peer is no longer trusted: the connection must end.
    pub(crate) fn now(&self) -> Result<(Arc<Generation>, Caller), Box<RefusedPeer>> {
        let generation = self.generations.current();
        let Some(shown) = &self.shown else { return Ok((generation, Caller::Anonymous)) };
        let refused = |refusal| Box::new(RefusedPeer::of_chain(&shown.chain, refusal));
        let verdict = shown.verdict_of(generation).map_err(refused)?;
        Ok((verdict.generation, Caller::Trusted(verdict.accepted.identity().clone())))
    }
}

impl Verdict {
    fn holds(&self, in_force: &Generation, now: OffsetDateTime) -> bool {
        self.generation.number == in_force.number && now <= self.accepted.valid_until()
    }
}

impl Shown {
    fn verdict_of(&self, generation: Arc<Generation>) -> Result<Verdict, Refusal> {
        let now = this_second();
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if !verdict.holds(&generation, now) {
            let accepted = generation.tls.trust().judge(&self.chain, now)?;
            *verdict = Verdict { generation, accepted };
        }
        Ok(verdict.clone())
    }
}

/// A certificate is valid to the end of the second that its notAfter names (RFC 5280 §4.1.2.5), and the handshake's clock
/// has seconds: with a finer one here, who comes within that second would be let in there and cut off here, untold.
fn this_second() -> OffsetDateTime {
    OffsetDateTime::now_utc().truncate_to_second()
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caller::Trusted(identity) = self.0 else { return f.write_str("anonymous") };
        match identity.trusted_by() {
            pin @ TrustedBy::Pin(_) => write!(f, "{pin}"),
            TrustedBy::Ca(_) => write!(f, "{}", identity.certificate().facts().subject),
        }?;
        write!(f, " ({})", identity.fingerprint())
    }
}
