//! DER to facts, over x509-parser. Knows no files.

use super::{AltName, CertificateFacts, ExtendedKeyUsage, KeyType, KeyUsage, NameConstraints, NameSubtree};
use crate::fingerprint::{Fingerprint, Serial};
use crate::name::DistinguishedName;
use crate::signature::{self, SignatureKind};
use crate::visible::Visible;
use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;
use time::OffsetDateTime;
use x509_parser::certificate::{TbsCertificate, X509Certificate};
use x509_parser::extensions::{DistributionPointName, GeneralName, GeneralSubtree, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

pub(super) struct Parsed {
    pub(super) facts: CertificateFacts,
    pub(super) tbs: Range<usize>,
    pub(super) signature: Vec<u8>,
}

pub(super) fn parse(der: &[u8]) -> Result<Parsed, String> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| reason(&error))?;
    if !rest.is_empty() {
        return Err(format!("{} bytes follow the certificate", rest.len()));
    }
    let tbs = &certificate.tbs_certificate;
    // Go refuses the difference; the inner one is what was signed.
    if tbs.signature != certificate.signature_algorithm {
        return Err("its two signature algorithms differ".to_owned());
    }
    let mut facts = facts(tbs)?;
    let mut seen = HashSet::new();
    for extension in tbs.extensions() {
        if !seen.insert(extension.oid.as_bytes()) {
            return Err(format!("the extension {} is there twice", extension.oid.to_id_string()));
        }
        read_extension(&mut facts, extension)?;
    }
    let signature = certificate.signature_value.data.to_vec();
    facts.self_issued = facts.subject == facts.issuer;
    facts.self_signed =
        facts.self_issued && signature::holds(&facts.signature, &facts.key, &facts.spki_der, tbs.as_ref(), &signature);
    let start = offset(der, tbs.as_ref()).ok_or("its signed part is not part of it")?;
    let range = start..start + tbs.as_ref().len();
    Ok(Parsed { facts, tbs: range, signature })
}

fn facts(tbs: &TbsCertificate<'_>) -> Result<CertificateFacts, String> {
    Ok(CertificateFacts {
        version: u8::try_from(tbs.version().0).ok().filter(|v| *v < 3).ok_or("its version is not 1, 2 or 3")? + 1,
        subject: DistinguishedName::new(tbs.subject()),
        issuer: DistinguishedName::new(tbs.issuer()),
        serial: Serial::from_octets(tbs.raw_serial()),
        serial_is_negative: tbs.raw_serial().first().is_some_and(|first| first & 0x80 != 0),
        not_before: moment(tbs.validity().not_before)?,
        not_after: moment(tbs.validity().not_after)?,
        alt_names: Vec::new(),
        is_ca: None,
        path_len: None,
        key_usage: None,
        extended_key_usage: None,
        key: key_type(&tbs.subject_pki),
        signature: SignatureKind::new(&tbs.signature),
        spki_der: tbs.subject_pki.raw.to_vec(),
        key_hash: Fingerprint::of(tbs.subject_pki.raw),
        subject_key_id: None,
        authority_key_id: None,
        self_issued: false,
        self_signed: false,
        crl_uris: Vec::new(),
        name_constraints: None,
        unknown_critical: Vec::new(),
    })
}

/// What webpki's path building handles: keyUsage, subjectAltName, basicConstraints, nameConstraints, CRL distribution points,
/// extKeyUsage. It refuses a certificate with any other critical extension.
const HANDLED: [&str; 6] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37"];

/// subjectKeyIdentifier and authorityKeyIdentifier: read here, though no verifier needs them.
const KEY_IDS: [&str; 2] = ["2.5.29.14", "2.5.29.35"];

fn read_extension(facts: &mut CertificateFacts, extension: &X509Extension<'_>) -> Result<(), String> {
    let oid = extension.oid.to_id_string();
    let is_handled = HANDLED.contains(&oid.as_str());
    if extension.critical && !is_handled {
        facts.unknown_critical.push(oid.clone());
    }
    match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(constraints) => {
            facts.is_ca = Some(constraints.ca);
            facts.path_len = constraints.path_len_constraint;
        }
        ParsedExtension::KeyUsage(usage) => facts.key_usage = Some(key_usage(*usage)),
        ParsedExtension::ExtendedKeyUsage(usage) => facts.extended_key_usage = Some(extended_key_usage(usage)),
        ParsedExtension::SubjectAlternativeName(names) => {
            facts.alt_names = names.general_names.iter().map(alt_name).collect();
        }
        ParsedExtension::NameConstraints(constraints) => {
            facts.name_constraints = Some(NameConstraints {
                permitted: subtrees(constraints.permitted_subtrees.as_deref()),
                excluded: subtrees(constraints.excluded_subtrees.as_deref()),
            });
        }
        ParsedExtension::CRLDistributionPoints(points) => {
            let names = points.points.iter().filter_map(|point| match &point.distribution_point {
                Some(DistributionPointName::FullName(names)) => Some(names),
                _ => None,
            });
            facts.crl_uris = names.flatten().filter_map(uri).collect();
        }
        ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key_id = Some(id.0.to_vec()),
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
        }
        ParsedExtension::ParseError { .. } if is_handled || KEY_IDS.contains(&oid.as_str()) => {
            return Err(format!("its extension {oid} is malformed"));
        }
        _ => {}
    }
    Ok(())
}

fn uri(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    }
}

fn key_usage(usage: x509_parser::extensions::KeyUsage) -> KeyUsage {
    KeyUsage {
        digital_signature: usage.digital_signature(),
        content_commitment: usage.non_repudiation(),
        key_encipherment: usage.key_encipherment(),
        data_encipherment: usage.data_encipherment(),
        key_agreement: usage.key_agreement(),
        key_cert_sign: usage.key_cert_sign(),
        crl_sign: usage.crl_sign(),
    }
}

fn extended_key_usage(usage: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> ExtendedKeyUsage {
    let named = [
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let named = named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    ExtendedKeyUsage {
        server_auth: usage.server_auth,
        client_auth: usage.client_auth,
        any: usage.any,
        others: named.chain(usage.other.iter().map(x509_parser::der_parser::Oid::to_id_string)).collect(),
    }
}

fn alt_name(name: &GeneralName<'_>) -> AltName {
    match name {
        GeneralName::DNSName(name) => AltName::Dns((*name).to_owned()),
        GeneralName::RFC822Name(name) => AltName::Email((*name).to_owned()),
        GeneralName::URI(uri) => AltName::Uri((*uri).to_owned()),
        GeneralName::IPAddress(octets) => {
            ip(octets).map_or_else(|| AltName::Other("IP address of a wrong length".to_owned()), AltName::Ip)
        }
        GeneralName::DirectoryName(name) => AltName::Other(format!("dirName:{}", DistinguishedName::new(name))),
        GeneralName::OtherName(oid, _) => AltName::Other(format!("otherName:{}", oid.to_id_string())),
        GeneralName::RegisteredID(oid) => AltName::Other(format!("registeredID:{}", oid.to_id_string())),
        GeneralName::X400Address(_) => AltName::Other("x400Address".to_owned()),
        GeneralName::EDIPartyName(_) => AltName::Other("ediPartyName".to_owned()),
        // Still one of its kind: whoever asks for the only URI must not be told that there is one less.
        GeneralName::Invalid(tag, octets) => match tag.0 {
            1 => AltName::Email(String::from_utf8_lossy(octets).into_owned()),
            2 => AltName::Dns(String::from_utf8_lossy(octets).into_owned()),
            6 => AltName::Uri(String::from_utf8_lossy(octets).into_owned()),
            _ => AltName::Other("invalid".to_owned()),
        },
    }
}

fn subtrees(subtrees: Option<&[GeneralSubtree<'_>]>) -> Vec<NameSubtree> {
    subtrees.unwrap_or_default().iter().map(|subtree| name_subtree(&subtree.base)).collect()
}

fn name_subtree(base: &GeneralName<'_>) -> NameSubtree {
    match base {
        GeneralName::DNSName(base) => NameSubtree::Dns((*base).to_owned()),
        GeneralName::IPAddress(range) if matches!(range.len(), 8 | 32) => {
            let (network, mask) = range.split_at(range.len() / 2);
            NameSubtree::Ip { network: network.to_vec(), mask: mask.to_vec() }
        }
        GeneralName::IPAddress(_) | GeneralName::Invalid(..) => NameSubtree::Malformed,
        _ => NameSubtree::Other,
    }
}

pub(super) fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn key_type(spki: &SubjectPublicKeyInfo<'_>) -> KeyType {
    let oid = spki.algorithm.algorithm.to_id_string();
    match oid.as_str() {
        "1.2.840.113549.1.1.1" => match spki.parsed() {
            Ok(PublicKey::RSA(key)) => KeyType::Rsa { bits: bits(key.modulus) },
            _ => KeyType::Other("RSA, malformed".to_owned()),
        },
        "1.2.840.113549.1.1.10" => KeyType::Other("RSA-PSS".to_owned()),
        "1.2.840.10045.2.1" => curve(spki),
        "1.2.840.10040.4.1" => KeyType::Other("DSA".to_owned()),
        "1.3.101.112" => KeyType::Ed25519,
        "1.3.101.113" => KeyType::Other("Ed448".to_owned()),
        _ => KeyType::Other(oid),
    }
}

fn curve(spki: &SubjectPublicKeyInfo<'_>) -> KeyType {
    let oid = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    match oid.as_deref() {
        Some("1.2.840.10045.3.1.7") => KeyType::P256,
        Some("1.3.132.0.34") => KeyType::P384,
        Some("1.3.132.0.35") => KeyType::P521,
        Some("1.3.132.0.33") => KeyType::Other("P-224".to_owned()),
        Some("1.3.132.0.10") => KeyType::Other("secp256k1".to_owned()),
        Some(other) => KeyType::Other(format!("EC curve {other}")),
        None => KeyType::Other("EC curve with explicit parameters".to_owned()),
    }
}

/// The size of a big-endian number in bits.
pub(crate) fn bits(octets: &[u8]) -> u32 {
    let zeros = octets.iter().take_while(|&&octet| octet == 0).count();
    match octets.get(zeros..) {
        Some([first, rest @ ..]) => u32::try_from(rest.len())
            .map_or(u32::MAX, |n| n.saturating_mul(8))
            .saturating_add(8 - first.leading_zeros()),
        _ => 0,
    }
}

fn moment(time: ASN1Time) -> Result<OffsetDateTime, String> {
    OffsetDateTime::from_unix_timestamp(time.timestamp()).map_err(|error| error.to_string())
}

/// Where a part lies in the whole. The parser hands out slices of its input.
fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() <= whole.len()).then_some(start)
}

/// The parser's word for it, which may quote the certificate.
fn reason(error: &x509_parser::nom::Err<x509_parser::error::X509Error>) -> String {
    let text = match error {
        x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => error.to_string(),
        x509_parser::nom::Err::Incomplete(_) => "it is cut short".to_owned(),
    };
    Visible(&text).to_string()
}
