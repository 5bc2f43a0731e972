//! Revocation lists of an [`Authority`], good ones and stale ones.

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, Issuer, KeyIdMethod,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::{Authority, Pair};

/// What a revocation list is to say.
#[derive(Clone, Debug)]
pub struct CrlSpec {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub this_update: OffsetDateTime,
    /// When it is out of date.
    pub next_update: OffsetDateTime,
    /// The serial numbers on it.
    pub serials: Vec<Vec<u8>>,
    /// The URIs of its issuingDistributionPoint, which also says onlyContainsUserCerts, as step-ca's does; empty: no such
    /// extension.
    pub for_users_at: Vec<String>,
}

impl CrlSpec {
    /// Number `number`, made an hour ago, good for a week, over these certificates.
    pub fn new(number: u64, revoked: &[&Pair]) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            number,
            this_update: now - Duration::HOUR,
            next_update: now + Duration::WEEK,
            serials: revoked.iter().map(|pair| pair.serial()).collect(),
            for_users_at: vec![],
        }
    }

    /// The same, out of date since a minute ago.
    #[must_use]
    pub fn stale(self) -> Self {
        Self { next_update: OffsetDateTime::now_utc() - Duration::MINUTE, ..self }
    }
}

impl Authority {
    /// A revocation list, PEM. This authority's keyUsage must have cRLSign, which all but the deliberately bad have.
    pub fn crl(&self, spec: &CrlSpec) -> String {
        let revoked = spec.serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial.clone()),
            revocation_time: spec.this_update,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let point = CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: spec.for_users_at.clone() },
            scope: Some(CrlScope::UserCertsOnly),
        };
        let params = CertificateRevocationListParams {
            this_update: spec.this_update,
            next_update: spec.next_update,
            crl_number: SerialNumber::from(spec.number),
            issuing_distribution_point: Some(point).filter(|_| !spec.for_users_at.is_empty()),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.pair.params, &self.pair.key);
        params.signed_by(&issuer).expect("rcgen signs").pem().expect("rcgen encodes")
    }
}
