//! What of the files of `trust/` comes to count: CAs through the gate, pins, and the names that clients are told.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_certs::trust_dir::{CaFile, PinFile};
use portcullis_certs::{Certificate, Fingerprint};
use rustls::DistinguishedName;
use rustls_pki_types::TrustAnchor;
use time::OffsetDateTime;

use super::{Anchor, CaRejected, Intermediate, Pin};
use crate::gate::{CaFault, gate, shape_faults};

/// Above this many bytes of CA names the list is sent empty, which means "any" (RFC 8446 §4.2.4).
const MAX_HINT_BYTES: usize = 8 * 1024;

/// The CAs that pass the gate, and what is wrong with the others.
pub(super) fn admit_cas(files: &[CaFile], now: OffsetDateTime) -> (Vec<Anchor>, Vec<Intermediate>, Vec<CaRejected>) {
    let (mut anchors, mut intermediates, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        for certificate in &file.certificates {
            let faults = gate(certificate, now);
            let facts = certificate.facts();
            // An expired CA is reported and kept out below, at each verdict: it may be "not yet valid" only until noon.
            let Some(root) = trust_anchor(certificate).filter(|_| shape_faults(certificate).is_empty()) else {
                rejected.push(rejection(file, certificate, faults));
                continue;
            };
            if !faults.is_empty() {
                rejected.push(rejection(file, certificate, faults));
            }
            if facts.self_issued {
                anchors.push(Anchor { name: file.name.clone(), certificate: certificate.clone(), root });
            } else {
                intermediates.push(Intermediate { name: file.name.clone(), certificate: certificate.clone() });
            }
        }
    }
    (anchors, intermediates, rejected)
}

fn rejection(file: &CaFile, certificate: &Certificate, faults: Vec<CaFault>) -> CaRejected {
    CaRejected { path: file.path.clone(), subject: certificate.facts().subject.to_string(), faults }
}

pub(super) fn pin(file: &PinFile) -> (Fingerprint, Pin) {
    let pin = Pin { name: file.name.clone(), certificate: file.certificate.clone() };
    (file.certificate.fingerprint(), pin)
}

fn trust_anchor(certificate: &Certificate) -> Option<TrustAnchor<'static>> {
    webpki::anchor_from_trusted_cert(certificate.der()).ok().map(|anchor| anchor.to_owned())
}

/// The names for the CertificateRequest.
pub(super) fn hints(
    anchors: &[Anchor],
    intermediates: &[Intermediate],
    pins: &HashMap<Fingerprint, Pin>,
) -> Arc<[DistinguishedName]> {
    let cas = anchors.iter().map(|ca| &ca.certificate).chain(intermediates.iter().map(|ca| &ca.certificate));
    let mut names: Vec<&[u8]> = cas.map(|ca| ca.facts().subject.der()).collect();
    names.extend(pins.values().map(|pin| pin.certificate.facts().issuer.der()));
    names.sort_unstable();
    names.dedup();
    let bytes: usize = names.iter().map(|name| name.len() + 2).sum();
    if bytes > MAX_HINT_BYTES {
        return Arc::new([]);
    }
    names.into_iter().map(|name| DistinguishedName::from(name.to_vec())).collect()
}
