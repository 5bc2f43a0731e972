//! What we put into a certificate, as data: one row per kind of certificate.
//!
//! A certificate is built from its row, the names that were checked, and a public key. Nothing is ever copied from a
//! request: asked for by a CSR, basicConstraints or another usage would be a way to mint a CA. No CDP and no AIA: our
//! revocation list is on the server that checks it.

use aws_lc_rs::digest::{SHA256, digest};
use time::{Duration, OffsetDateTime};
use x509_cert::builder::{self, CertificateBuilder, profile::BuilderProfile};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{Any, Ia5String, OctetString, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::{rfc4519, rfc5280};
use x509_cert::der::{DateTime, Decode as _, Encode as _};
use x509_cert::ext::pkix::constraints::{BasicConstraints, NameConstraints};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_cert::time::{Time, Validity};
use x509_cert::{SubjectPublicKeyInfo, attr::AttributeTypeAndValue};

use crate::{PkiError, ServerName};

/// How far notBefore lies before the moment of issue: clocks of hosts are wrong, and a certificate that is not valid
/// yet gives the same alert as an expired one.
pub const BACKDATE: Duration = Duration::hours(1);

/// What all certificates of one kind have in common.
#[derive(Debug)]
pub struct Profile {
    /// How long it lives unless something else is asked for.
    pub lifetime: Duration,
    /// CA:TRUE with pathlen 0, or CA:FALSE; critical in both cases.
    pub is_ca: bool,
    /// keyUsage, critical.
    pub(crate) key_usage: &'static [KeyUsages],
    /// extendedKeyUsage; a root has none, for Go and OpenSSL would pass it on as a constraint.
    pub(crate) extended_key_usage: Option<ObjectIdentifier>,
}

/// A root that signs leaves itself. cRLSign, because without it its own revocation list would be refused.
pub const CA: Profile = Profile {
    lifetime: Duration::days(3652),
    is_ca: true,
    key_usage: &[KeyUsages::KeyCertSign, KeyUsages::CRLSign],
    extended_key_usage: None,
};

/// A registry.
pub const SERVER: Profile = Profile {
    lifetime: Duration::days(90),
    is_ca: false,
    key_usage: &[KeyUsages::DigitalSignature],
    extended_key_usage: Some(rfc5280::ID_KP_SERVER_AUTH),
};

/// Whoever pulls and pushes.
pub const CLIENT: Profile = Profile {
    lifetime: Duration::days(90),
    is_ca: false,
    key_usage: &[KeyUsages::DigitalSignature],
    extended_key_usage: Some(rfc5280::ID_KP_CLIENT_AUTH),
};

/// One certificate to be made: its profile, and what is its own.
pub(crate) struct Draft<'a> {
    pub(crate) profile: &'static Profile,
    pub(crate) subject: Name,
    pub(crate) alt_names: Vec<GeneralName>,
    pub(crate) spki_der: &'a [u8],
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) constraints: Option<NameConstraints>,
}

/// Who signs: its name byte for byte, and the identifier of its key.
pub(crate) struct Issuer {
    pub(crate) name: Name,
    pub(crate) key_id: Vec<u8>,
}

/// A [`Draft`] and its issuer, as the builder asks for them.
pub(crate) struct Form<'a> {
    draft: Draft<'a>,
    issuer: Issuer,
}

impl<'a> Draft<'a> {
    pub(crate) fn builder(self, issuer: Issuer) -> Result<CertificateBuilder<Form<'a>>, PkiError> {
        let serial = random_serial()?;
        let validity = Validity::new(certificate_time(self.not_before)?, certificate_time(self.not_after)?);
        let spki = SubjectPublicKeyInfo::from_der(self.spki_der)?;
        Ok(CertificateBuilder::new(Form { draft: self, issuer }, serial, validity, spki)?)
    }
}

impl BuilderProfile for Form<'_> {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.name.clone()
    }

    fn get_subject(&self) -> Name {
        self.draft.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let profile = self.draft.profile;
        let subject = tbs.subject();
        let constraints = BasicConstraints { ca: profile.is_ca, path_len_constraint: profile.is_ca.then_some(0) };
        let usage = profile.key_usage.iter().fold(None, |all, &one| Some(all.map_or(one.into(), |all| all | one)));
        let mut all = vec![constraints.to_extension(subject, &[])?];
        if let Some(usage) = usage {
            all.push(KeyUsage(usage).to_extension(subject, &[])?);
        }
        if let Some(purpose) = profile.extended_key_usage {
            all.push(ExtendedKeyUsage(vec![purpose]).to_extension(subject, &[])?);
        }
        if !self.draft.alt_names.is_empty() {
            all.push(SubjectAltName(self.draft.alt_names.clone()).to_extension(subject, &[])?);
        }
        if let Some(constraints) = &self.draft.constraints {
            all.push(constraints.to_extension(subject, &[])?);
        }
        all.push(SubjectKeyIdentifier(OctetString::new(key_id(self.draft.spki_der)?)?).to_extension(subject, &[])?);
        let authority = OctetString::new(self.issuer.key_id.as_slice())?;
        let authority = AuthorityKeyIdentifier { key_identifier: Some(authority), ..Default::default() };
        all.push(authority.to_extension(subject, &[])?);
        Ok(all)
    }
}

/// A name with one common name, or without any when that would not fit (RFC 5280 appendix A: 64 characters).
pub(crate) fn subject(common_name: Option<&str>) -> Result<Name, PkiError> {
    let mut names = RdnSequence::default();
    if let Some(text) = common_name {
        let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
        let mut name = RelativeDistinguishedName::default();
        name.insert(AttributeTypeAndValue { oid: rfc4519::COMMON_NAME, value })?;
        names.push(name);
    }
    Ok(Name::from_der(&names.to_der()?)?)
}

/// The subjectAltName of a server's name. A wildcard is written as it is (RFC 6125 §6.4.3).
pub(crate) fn server_alt_name(name: &ServerName) -> Result<GeneralName, PkiError> {
    Ok(match (name.dns(), name.ip()) {
        (Some(dns), _) => GeneralName::DnsName(Ia5String::new(dns)?),
        (None, Some(address)) => address.into(),
        (None, None) => return Err(PkiError::NoNames),
    })
}

/// RFC 7093 §2 method 1: the leftmost 160 bits of the SHA-256 of the public key's bits.
pub(crate) fn key_id(spki_der: &[u8]) -> Result<Vec<u8>, x509_cert::der::Error> {
    let spki = SubjectPublicKeyInfo::from_der(spki_der)?;
    let bits = spki.subject_public_key.raw_bytes();
    Ok(digest(&SHA256, bits).as_ref().iter().copied().take(20).collect())
}

/// 128 random bits, positive, and never shorter: a leading zero octet would be left out of the encoding.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut octets = [0; 16];
    while octets.first() == Some(&0) {
        aws_lc_rs::rand::fill(&mut octets).map_err(|_| PkiError::Crypto { doing: "make a serial number" })?;
    }
    Ok(SerialNumber::new(&octets)?)
}

/// UTCTime through 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5); whole seconds.
pub(crate) fn certificate_time(date: OffsetDateTime) -> Result<Time, PkiError> {
    let seconds = u64::try_from(date.unix_timestamp()).map_err(|_| PkiError::Date { date })?;
    let date_time = DateTime::from_unix_duration(std::time::Duration::from_secs(seconds));
    Ok(Time::from(date_time.map_err(|_| PkiError::Date { date })?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn dates_through_2049_are_utc_times() {
        let last = certificate_time(datetime!(2049-12-31 23:59:59 UTC)).unwrap();
        let first = certificate_time(datetime!(2050-01-01 00:00:00 UTC)).unwrap();
        assert!(matches!(last, Time::UtcTime(_)));
        assert!(matches!(first, Time::GeneralTime(_)));
        assert_eq!(first.to_unix_duration().as_secs(), last.to_unix_duration().as_secs() + 1);
    }

    #[test]
    fn dates_outside_of_certificates_are_errors() {
        assert!(matches!(certificate_time(datetime!(1969-12-31 23:59:59 UTC)), Err(PkiError::Date { .. })));
    }

    #[test]
    fn serials_are_positive_and_16_octets() {
        for _ in 0..600 {
            let serial = random_serial().unwrap();
            let octets = serial.as_bytes();
            // DER puts a zero octet before a set top bit, or the number would be negative.
            let value = octets.strip_prefix(&[0]).unwrap_or(octets);
            assert_eq!(value.len(), 16);
            assert!(octets[0] < 0x80);
        }
    }
}
