//! What a certificate shall say: the knobs, and their translation to rcgen. Knows nothing of signing or files.

use std::net::IpAddr;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints as PathLen, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, RsaKeySize, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// The description of a certificate. Start from [`LeafSpec::client`], [`LeafSpec::server`] or [`LeafSpec::authority`]
/// and change what the test is about with struct update syntax; every field is written as it stands.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// The subject's common name; `None` leaves the subject without one.
    pub cn: Option<String>,
    /// The subject's organisations (O).
    pub organizations: Vec<String>,
    /// The subject's organisational units (OU).
    pub organizational_units: Vec<String>,
    /// DNS names in subjectAltName.
    pub dns: Vec<String>,
    /// Addresses in subjectAltName.
    pub ips: Vec<IpAddr>,
    /// URIs in subjectAltName.
    pub uris: Vec<String>,
    /// E-mail addresses in subjectAltName.
    pub emails: Vec<String>,
    /// extendedKeyUsage clientAuth. With neither this nor `server_auth` there is no such extension.
    pub client_auth: bool,
    /// extendedKeyUsage serverAuth.
    pub server_auth: bool,
    /// First second of validity.
    pub not_before: OffsetDateTime,
    /// Last second of validity.
    pub not_after: OffsetDateTime,
    /// keyUsage (critical); empty: no such extension.
    pub key_usages: Vec<KeyUse>,
    /// basicConstraints.
    pub is_ca: BasicConstraints,
    /// The key that is generated for it.
    pub alg: KeyAlg,
    /// Whether an authorityKeyIdentifier is written.
    pub authority_key_id: bool,
    /// DNS subtrees in a critical nameConstraints; empty: no such extension.
    pub permitted_dns: Vec<String>,
    /// URIs in cRLDistributionPoints; empty: no such extension.
    pub crl_uris: Vec<String>,
    /// A critical extension that nobody knows.
    pub unknown_critical: bool,
    /// Big-endian; `None` draws a fresh one.
    pub serial: Option<Vec<u8>>,
}

impl LeafSpec {
    /// A good client certificate: P-256, CA:FALSE, digitalSignature, clientAuth, 30 days.
    pub fn client(cn: &str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            cn: Some(cn.to_owned()),
            organizations: vec![],
            organizational_units: vec![],
            dns: vec![],
            ips: vec![],
            uris: vec![],
            emails: vec![],
            client_auth: true,
            server_auth: false,
            not_before: now - Duration::HOUR,
            not_after: now + Duration::days(30),
            key_usages: vec![KeyUse::DigitalSignature],
            is_ca: BasicConstraints::NotCa,
            alg: KeyAlg::P256,
            authority_key_id: true,
            permitted_dns: vec![],
            crl_uris: vec![],
            unknown_critical: false,
            serial: None,
        }
    }

    /// A good server certificate for these names; its CN is the first of them.
    pub fn server(dns: &[&str], ips: &[IpAddr]) -> Self {
        Self {
            cn: dns.first().map(|&name| name.to_owned()),
            dns: dns.iter().map(|&name| name.to_owned()).collect(),
            ips: ips.to_vec(),
            client_auth: false,
            server_auth: true,
            ..Self::client("")
        }
    }

    /// A sound CA: CA:TRUE without a path length, keyCertSign and cRLSign, no extendedKeyUsage, ten years.
    pub fn authority(cn: &str) -> Self {
        Self {
            client_auth: false,
            not_after: OffsetDateTime::now_utc() + Duration::days(3650),
            key_usages: vec![KeyUse::KeyCertSign, KeyUse::CrlSign],
            is_ca: BasicConstraints::Ca,
            authority_key_id: false,
            ..Self::client(cn)
        }
    }

    /// The same, over since yesterday.
    #[must_use]
    pub fn expired(self) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - Duration::days(30), not_after: now - Duration::DAY, ..self }
    }

    /// The same, valid from tomorrow.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now + Duration::DAY, not_after: now + Duration::days(30), ..self }
    }

    /// The same with extendedKeyUsage serverAuth and nothing else.
    #[must_use]
    pub fn server_auth_only(self) -> Self {
        Self { client_auth: false, server_auth: true, ..self }
    }

    /// The same without extendedKeyUsage.
    #[must_use]
    pub fn without_eku(self) -> Self {
        Self { client_auth: false, server_auth: false, ..self }
    }

    pub(super) fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.serial_number = Some(SerialNumber::from(self.serial.clone().unwrap_or_else(fresh_serial)));
        params.subject_alt_names = self.alt_names();
        params.distinguished_name = self.subject();
        params.is_ca = self.is_ca.to_rcgen();
        params.key_usages = self.key_usages.iter().map(|&usage| usage.to_rcgen()).collect();
        params.extended_key_usages = self.extended_key_usages();
        params.use_authority_key_identifier_extension = self.authority_key_id;
        if !self.permitted_dns.is_empty() {
            let permitted_subtrees = self.permitted_dns.iter().cloned().map(GeneralSubtree::DnsName).collect();
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
        }
        if !self.crl_uris.is_empty() {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris: self.crl_uris.clone() }];
        }
        if self.unknown_critical {
            // An arc under the documentation OID 2.25 (X.667); the content is the DER of NULL.
            let mut extension = CustomExtension::from_oid_content(&[2, 25, 4096], vec![0x05, 0x00]);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
        params
    }

    fn subject(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        // rcgen keeps one value per attribute type, so only the first O and OU are written.
        for organization in self.organizations.iter().take(1) {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        for unit in self.organizational_units.iter().take(1) {
            name.push(DnType::OrganizationalUnitName, unit.as_str());
        }
        if let Some(cn) = &self.cn {
            name.push(DnType::CommonName, cn.as_str());
        }
        name
    }

    fn alt_names(&self) -> Vec<SanType> {
        let dns = self.dns.iter().map(|name| SanType::DnsName(name.as_str().try_into().unwrap()));
        let ips = self.ips.iter().copied().map(SanType::IpAddress);
        let uris = self.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        let emails = self.emails.iter().map(|email| SanType::Rfc822Name(email.as_str().try_into().unwrap()));
        dns.chain(ips).chain(uris).chain(emails).collect()
    }

    fn extended_key_usages(&self) -> Vec<ExtendedKeyUsagePurpose> {
        let server = self.server_auth.then_some(ExtendedKeyUsagePurpose::ServerAuth);
        let client = self.client_auth.then_some(ExtendedKeyUsagePurpose::ClientAuth);
        server.into_iter().chain(client).collect()
    }
}

/// What basicConstraints says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasicConstraints {
    /// No such extension (and no subjectKeyIdentifier).
    Absent,
    /// CA:FALSE.
    NotCa,
    /// CA:TRUE.
    Ca,
    /// CA:TRUE with a path length.
    CaWithPathLen(u8),
}

impl BasicConstraints {
    fn to_rcgen(self) -> IsCa {
        match self {
            Self::Absent => IsCa::NoCa,
            Self::NotCa => IsCa::ExplicitNoCa,
            Self::Ca => IsCa::Ca(PathLen::Unconstrained),
            Self::CaWithPathLen(length) => IsCa::Ca(PathLen::Constrained(length)),
        }
    }
}

/// A bit of keyUsage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// digitalSignature.
    DigitalSignature,
    /// contentCommitment, formerly nonRepudiation.
    NonRepudiation,
    /// keyEncipherment.
    KeyEncipherment,
    /// keyCertSign.
    KeyCertSign,
    /// cRLSign.
    CrlSign,
}

impl KeyUse {
    fn to_rcgen(self) -> KeyUsagePurpose {
        match self {
            Self::DigitalSignature => KeyUsagePurpose::DigitalSignature,
            Self::NonRepudiation => KeyUsagePurpose::ContentCommitment,
            Self::KeyEncipherment => KeyUsagePurpose::KeyEncipherment,
            Self::KeyCertSign => KeyUsagePurpose::KeyCertSign,
            Self::CrlSign => KeyUsagePurpose::CrlSign,
        }
    }
}

/// The kind of key; signatures use its usual hash. Weaker ones come from [`super::openssl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlg {
    /// ECDSA P-256.
    P256,
    /// ECDSA P-384.
    P384,
    /// ECDSA P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 4096 bits (slow to make: a second or more).
    Rsa4096,
}

impl KeyAlg {
    pub(super) fn generate(self) -> KeyPair {
        let made = match self {
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        made.expect("rcgen makes keys of this kind")
    }
}

/// Sixteen octets, positive, different for every certificate of this and of other test processes.
fn fresh_serial() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
    let mut serial = vec![0x01];
    serial.extend(&nanoseconds.to_be_bytes()[9..]);
    serial.extend(process::id().to_be_bytes());
    serial.extend(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes()[4..]);
    serial
}
