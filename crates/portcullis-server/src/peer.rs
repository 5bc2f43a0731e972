//! Who is at the other end of a connection, and whether it still may be.
//!
//! Only `accept` makes a [`Peer`], from a finished handshake. The verdict runs again, whole, when the trust generation
//! changed or a certificate of the path expired; until then it is cached per connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_tls::{Accepted, Identity, Refusal, TrustedBy};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::events::Events;
use crate::generation::{Generation, Generations};

/// A peer that proved its key in the handshake.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    generations: Arc<Generations>,
    verdict: Mutex<Verdict>,
}

/// A verdict and the generation that gave it.
#[derive(Debug, Clone)]
struct Verdict {
    generation: Arc<Generation>,
    accepted: Accepted,
}

/// A peer's identity, for people: the pin's name or the certificate's own, and its fingerprint.
pub(crate) struct Described<'a>(pub(crate) &'a Identity);

impl Peer {
    /// From the chain of a finished handshake, judged by the generation now in force (the handshake's may be older).
    pub(crate) fn new(
        address: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
        generations: Arc<Generations>,
    ) -> Result<Self, Refusal> {
        let generation = generations.current();
        let accepted = generation.tls.trust().judge(&chain, OffsetDateTime::now_utc())?;
        generations.events.accepted(address, accepted.identity());
        Ok(Self { address, chain, generations, verdict: Mutex::new(Verdict { generation, accepted }) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The verdict that was given last, for those who tell of the peer: it may be void by now.
    pub(crate) fn last(&self) -> Accepted {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).accepted.clone()
    }

    pub(crate) fn events(&self) -> &Events {
        &self.generations.events
    }

    /// The generation in force and the identity it gives the peer.
    ///
    /// # Errors
    /// The peer is no longer trusted: the connection must end.
    pub(crate) fn now(&self) -> Result<(Arc<Generation>, Accepted), Refusal> {
        let now = OffsetDateTime::now_utc();
        let generation = self.generations.current();
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict.generation.number != generation.number || now > verdict.accepted.valid_until() {
            let accepted = generation.tls.trust().judge(&self.chain, now)?;
            *verdict = Verdict { generation, accepted };
        }
        Ok((Arc::clone(&verdict.generation), verdict.accepted.clone()))
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trusted_by() {
            pin @ TrustedBy::Pin(_) => write!(f, "{pin}"),
            TrustedBy::Ca(_) => write!(f, "{}", self.0.certificate().facts().subject),
        }?;
        write!(f, " ({})", self.0.fingerprint())
    }
}
