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
    /// What it showed, leaf first; empty: nothing.
    chain: Vec<CertificateDer<'static>>,
    standing: Mutex<Arc<Standing>>,
    generations: Arc<Generations>,
}

/// A verdict that the handshake gave, and the generation that gave it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) generation: Arc<Generation>,
    pub(crate) accepted: Accepted,
}

/// Whom one generation takes a peer for. Made once for all requests that come under it.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) generation: Arc<Generation>,
    pub(crate) caller: Caller,
    /// The same, for people: the pin's name or the certificate's own, and its fingerprint.
    pub(crate) who: Arc<str>,
    /// The last second in which it holds.
    until: Option<OffsetDateTime>,
}

/// A caller, for people.
struct Described<'a>(&'a Caller);

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
        let is_good =
            |verdict: &Verdict| holds(&verdict.generation, Some(verdict.accepted.valid_until()), (&generation, now));
        let judged = judged.filter(is_good).map(|verdict| verdict.accepted);
        match judged.map_or_else(|| generation.tls.trust().judge(&chain, now), Ok) {
            Ok(accepted) => {
                generations.events.accepted(address, accepted.identity(), &chain);
                let standing = Mutex::new(Arc::new(Standing::of(generation, &accepted)));
                Ok(Self { address, chain, standing, generations })
            }
            Err(refusal) => Err(Box::new(RefusedPeer::of_chain(&chain, refusal))),
        }
    }

    /// Of a finished handshake in which nothing was shown, where the configuration lets that in.
    pub(crate) fn anonymous(address: SocketAddr, generations: Arc<Generations>) -> Self {
        generations.events.accepted_anonymous();
        let standing = Mutex::new(Arc::new(Standing::anonymous(generations.current())));
        Self { address, chain: Vec::new(), standing, generations }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it showed, leaf first; empty where that was nothing.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whom it was taken for last, for those who tell of the peer: that may be void by now.
    pub(crate) fn last(&self) -> Arc<Standing> {
        Arc::clone(&self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn events(&self) -> &Events {
        &self.generations.events
    }

    /// The generation in force and whom it takes the peer for.
    ///
    /// # Errors
    /// The peer is no longer trusted: the connection must end.
    pub(crate) fn now(&self) -> Result<Arc<Standing>, Box<RefusedPeer>> {
        let (generation, now) = (self.generations.current(), this_second());
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if !standing.holds(&generation, now) {
            *standing = Arc::new(self.judged_by(generation, now)?);
        }
        Ok(Arc::clone(&standing))
    }

    fn judged_by(&self, generation: Arc<Generation>, now: OffsetDateTime) -> Result<Standing, Box<RefusedPeer>> {
        if self.chain.is_empty() {
            return Ok(Standing::anonymous(generation));
        }
        let refused = |refusal: Refusal| Box::new(RefusedPeer::of_chain(&self.chain, refusal));
        let accepted = generation.tls.trust().judge(&self.chain, now).map_err(refused)?;
        Ok(Standing::of(generation, &accepted))
    }
}

impl Standing {
    fn of(generation: Arc<Generation>, accepted: &Accepted) -> Self {
        let caller = Caller::Trusted(accepted.identity().clone());
        let who = Described(&caller).to_string().into();
        Self { generation, caller, who, until: Some(accepted.valid_until()) }
    }

    fn anonymous(generation: Arc<Generation>) -> Self {
        Self {
            generation,
            caller: Caller::Anonymous,
            who: Described(&Caller::Anonymous).to_string().into(),
            until: None,
        }
    }

    fn holds(&self, in_force: &Generation, now: OffsetDateTime) -> bool {
        holds(&self.generation, self.until, (in_force, now))
    }
}

/// Whether what a generation has found, up to a certain second, is still so.
fn holds(of: &Generation, until: Option<OffsetDateTime>, (in_force, now): (&Generation, OffsetDateTime)) -> bool {
    of.number == in_force.number && until.is_none_or(|until| now <= until)
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
