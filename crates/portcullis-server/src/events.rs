//! What happened, told to those who watch: counters for `/metrics`, lines for the audit, the clients that came.
//!
//! The one value that connections, requests and generations tell. Telling never waits and never fails; what an event
//! means is decided here, when it happened is decided there. Must not decide about peers.

pub(crate) mod audit;
mod audit_writer;
mod changes;
pub(crate) mod clients;
pub(crate) mod metrics;
pub(crate) mod operation;

use std::net::SocketAddr;

use http::{Method, StatusCode};
use portcullis_certs::Certificate;
use portcullis_tls::{Identity, RefusedPeer, TrustStore};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::document::Problem;
use crate::generation::Generation;
use crate::policy::Caller;
use crate::reason::Reason;
use crate::refusals::Refusals;

use self::audit::{Audit, Record, Text};
use self::clients::Clients;
use self::metrics::{Counters, HandshakeResult};
use self::operation::Operation;

/// Where everything is told.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) counters: Counters,
    pub(crate) clients: Clients,
    pub(crate) audit: Audit,
    pub(crate) refusals: Refusals,
}

/// Whether a refused peer's key signed the handshake, or anybody may have sent the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyProven {
    Yes,
    No,
}

/// A request that has its answer.
pub(crate) struct Answered<'a> {
    pub(crate) address: SocketAddr,
    /// As of the verdict before, where the peer is no longer trusted.
    pub(crate) caller: &'a Caller,
    pub(crate) operation: &'a Operation,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) status: StatusCode,
    /// Of what was stored, as the answer says it.
    pub(crate) digest: Option<&'a str>,
    /// Why it was denied, if it was.
    pub(crate) denied: Option<&'a str>,
}

impl Events {
    /// Handshakes and requests are counted in any case; `audit` decides where the lines go.
    pub(crate) fn new(audit: Audit) -> Self {
        Self { audit, ..Self::default() }
    }

    /// A client that has proven its key; `chain` is what it sent.
    pub(crate) fn accepted(&self, address: SocketAddr, identity: &Identity, chain: &[CertificateDer<'static>]) {
        self.counters.handshake(HandshakeResult::Accepted);
        self.clients.seen(address, identity);
        self.refusals.let_in(identity.fingerprint(), chain);
    }

    /// Whoever shows no certificate, where that is let in.
    pub(crate) fn accepted_anonymous(&self) {
        self.counters.handshake(HandshakeResult::Accepted);
    }

    /// A client certificate that is not trusted, or no longer, by `trust`; `told` is what its peer is told.
    pub(crate) fn refused(
        &self,
        address: SocketAddr,
        peer: &RefusedPeer,
        told: &Reason,
        key_proven: KeyProven,
        trust: &TrustStore,
    ) {
        self.counters.handshake(HandshakeResult::Refused(peer.refusal.alert()));
        if let Some(certificate) = &peer.certificate
            && self.is_about_its_holder(certificate, key_proven, trust)
        {
            self.clients.forget(certificate.fingerprint());
            let chain: Vec<_> = std::iter::once(certificate.der()).chain(&peer.others).cloned().collect();
            self.refusals.note(address, &chain, told, &peer.refusal.to_string(), key_proven);
        }
        self.audit.tell("handshake.refused", || Record {
            peer: Some(address),
            key_proven: peer.certificate.as_ref().map(|_| key_proven == KeyProven::Yes),
            reason: Some(Text::of(&peer.refusal)),
            ..Record::about(peer.certificate.as_ref())
        });
    }

    /// Whether a refusal may change what is known of the certificate's holder. Of a client that was let in, whose
    /// certificate anybody may show without its key and with any chain, only if no chain would help.
    fn is_about_its_holder(&self, certificate: &Certificate, key_proven: KeyProven, trust: &TrustStore) -> bool {
        let Some(by) = self.clients.trusted_by(certificate.fingerprint()) else { return true };
        let is_gone = !trust.certificates().any(|(present, _)| present == by);
        key_proven == KeyProven::Yes || is_gone || trust.refuses_by_itself(certificate, OffsetDateTime::now_utc())
    }

    /// A handshake that came to nothing for another reason than the peer's certificate.
    pub(crate) fn failed(&self, address: SocketAddr, result: HandshakeResult, reason: &str) {
        self.counters.handshake(result);
        self.audit.tell("handshake.refused", || Record {
            peer: Some(address),
            reason: Some(Text::of(&reason)),
            ..Record::default()
        });
    }

    pub(crate) fn answered(&self, request: &Answered<'_>) {
        let operation = request.operation;
        self.counters.request(operation.name(), request.status);
        let event = match (request.denied, operation.done(request.status)) {
            (Some(_), _) => "request.denied",
            (None, Some(event)) => event,
            (None, None) => return,
        };
        self.audit.tell(event, || Record {
            peer: Some(request.address),
            trusted_by: Some(trusted_by(request.caller)),
            method: Some(Text::of(request.method)),
            path: Some(Text::of(&request.path)),
            repository: operation.repository().map(Text::of),
            reference: operation.reference().map(Text::of),
            digest: request.digest.filter(|_| request.denied.is_none()).map(|digest| Text::of(&digest)),
            action: operation.action(),
            status: Some(request.status.as_u16()),
            reason: request.denied.map(|reason| Text::of(&reason)),
            ..Record::about(certificate(request.caller))
        });
    }

    /// An answer that was begun and is cut because its peer may no longer have it.
    pub(crate) fn cut(&self, address: SocketAddr, caller: &Caller, repository: &str, reason: &str) {
        self.counters.bodies_cut.inc();
        self.audit.tell("request.cut", || Record {
            peer: Some(address),
            trusted_by: Some(trusted_by(caller)),
            repository: Some(Text::of(&repository)),
            action: Some("pull"),
            reason: Some(Text::of(&reason)),
            ..Record::about(certificate(caller))
        });
    }

    /// `before`: `None` at the start.
    pub(crate) fn trust_changed(&self, before: Option<&Generation>, after: &Generation) {
        if before.is_some() {
            self.counters.reloads_accepted.inc();
        }
        self.audit.tell("trust.changed", || {
            let changes = changes::between(before, after);
            Record {
                generation: Some(after.number),
                added: changes.added,
                removed: changes.removed,
                ..Record::default()
            }
        });
    }

    pub(crate) fn trust_refused(&self, in_force: u64, problems: &[Problem]) {
        self.counters.reloads_refused.inc();
        self.audit.tell("trust.refused", || Record {
            generation: Some(in_force),
            problems: audit::listed(problems.iter().map(Text::of)),
            ..Record::default()
        });
    }
}

fn trusted_by(caller: &Caller) -> Text {
    match caller {
        Caller::Trusted(identity) => Text::of(identity.trusted_by()),
        Caller::Anonymous => Text::of(&"anonymous"),
    }
}

fn certificate(caller: &Caller) -> Option<&Certificate> {
    match caller {
        Caller::Trusted(identity) => Some(identity.certificate()),
        Caller::Anonymous => None,
    }
}
