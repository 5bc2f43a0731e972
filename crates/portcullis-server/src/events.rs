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
use portcullis_tls::{Identity, Refusal, RefusedPeer};
use rustls_pki_types::CertificateDer;

use crate::document::Problem;
use crate::generation::Generation;

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
}

/// A request that has its answer.
pub(crate) struct Answered<'a> {
    pub(crate) address: SocketAddr,
    /// The identity of the verdict before, where the peer is no longer trusted.
    pub(crate) identity: &'a Identity,
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

    pub(crate) fn connection_refused(&self) {
        self.counters.connections_refused.inc();
    }

    pub(crate) fn accepted(&self, address: SocketAddr, identity: &Identity) {
        self.counters.handshake(HandshakeResult::Accepted);
        self.clients.seen(address, identity);
    }

    /// A client certificate that is not trusted. `key_proven`: whether its key was shown too, or anybody may have sent it.
    pub(crate) fn refused(&self, address: SocketAddr, peer: &RefusedPeer) {
        self.counters.handshake(HandshakeResult::Refused(peer.refusal.alert()));
        if let Some(certificate) = &peer.certificate {
            self.clients.forget(certificate.fingerprint());
        }
        self.audit.tell("handshake.refused", || Record {
            peer: Some(address),
            key_proven: peer.certificate.as_ref().map(|_| false),
            reason: Some(Text::of(&peer.refusal)),
            ..Record::about(peer.certificate.as_ref())
        });
    }

    /// Trusted in its handshake, and no longer when that was done: a change of trust came between.
    pub(crate) fn overtaken(&self, address: SocketAddr, leaf: Option<CertificateDer<'static>>, refusal: &Refusal) {
        self.counters.handshake(HandshakeResult::Refused(refusal.alert()));
        let certificate = leaf.and_then(|leaf| Certificate::from_der(leaf).ok());
        self.audit.tell("handshake.refused", || Record {
            peer: Some(address),
            key_proven: Some(true),
            reason: Some(Text::of(refusal)),
            ..Record::about(certificate.as_ref())
        });
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
            trusted_by: Some(Text::of(request.identity.trusted_by())),
            method: Some(Text::of(request.method)),
            path: Some(Text::of(&request.path)),
            repository: operation.repository().map(|name| Text::of(&name)),
            reference: operation.reference().map(|reference| Text::of(&reference)),
            digest: request.digest.filter(|_| request.denied.is_none()).map(|digest| Text::of(&digest)),
            action: operation.action(),
            status: Some(request.status.as_u16()),
            reason: request.denied.map(|reason| Text::of(&reason)),
            ..Record::about(Some(request.identity.certificate()))
        });
    }

    /// An answer that was begun and is cut because its peer may no longer have it.
    pub(crate) fn cut(&self, address: SocketAddr, identity: &Identity, repository: &str, reason: &str) {
        self.counters.bodies_cut.inc();
        self.audit.tell("request.cut", || Record {
            peer: Some(address),
            trusted_by: Some(Text::of(identity.trusted_by())),
            repository: Some(Text::of(&repository)),
            action: Some("pull"),
            reason: Some(Text::of(&reason)),
            ..Record::about(Some(identity.certificate()))
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
