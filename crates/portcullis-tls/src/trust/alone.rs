//! What is wrong with a certificate whatever is sent beside it.
//!
//! Certificates are public. Who has one and not its key can put any chain beside it, and have it refused for that chain.

use portcullis_certs::Certificate;
use time::OffsetDateTime;

use super::{TrustStore, check_dates, check_leaf_usage};

impl TrustStore {
    /// Whether no chain would make this client certificate trusted at `now`: it is on the deny list or on the revocation
    /// list of a CA here, it is out of its dates, it is self-signed and no pin, or its own usages forbid it. Only such a
    /// refusal says something of its holder where the handshake's signature was not verified; any other may be the
    /// fault of what was sent with it.
    ///
    /// Each of its names is held against each line of the deny list: not for what a stranger sends, only for a
    /// certificate that was trusted before.
    pub fn refuses_by_itself(&self, certificate: &Certificate, now: OffsetDateTime) -> bool {
        let cas = self.cas_named(certificate.facts().issuer.der());
        if self.check_deny(certificate).is_err()
            || self.crls.check_claimed(certificate, cas).is_err()
            || check_dates(certificate, now).is_err()
            || self.deny.check_names(certificate).is_err()
        {
            return true;
        }
        let is_pin = self.pins.contains_key(&certificate.fingerprint());
        !is_pin && (certificate.facts().self_signed || check_leaf_usage(certificate).is_err())
    }
}
