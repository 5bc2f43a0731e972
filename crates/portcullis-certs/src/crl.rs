//! A certificate revocation list (RFC 5280 §5): what it says, and whom it lists. No verdict, no I/O.
//!
//! Read by our own hand, not by a parser of certificates: a list of another's CA may have half a million entries, and
//! kept as parsed values they would take twenty times the memory. Here an entry is eight bytes beside the list itself.
//! What would make a list mean less than "all that this CA revoked" is refused: delta lists, lists for a part of the
//! certificates (but for the forms of issuingDistributionPoint in `scope.rs`), indirect ones, and critical extensions that
//! nobody here understands.

pub(crate) mod der;
mod scope;

use crate::error::CertsError;
use crate::fingerprint::Serial;
use crate::name::DistinguishedName;
use crate::signature::{self, SignatureKind};
use crate::x509::Certificate;
use der::{Der, Element, INTEGER, SEQUENCE};
pub use scope::CrlScope;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use time::OffsetDateTime;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, X509Name};

/// RFC 5280 §4.1.2.2 allows 20; some CAs use more.
const MAX_SERIAL: usize = 64;

/// A parsed revocation list, immutable and cheap to clone.
#[derive(Clone)]
pub struct RevocationList {
    inner: Arc<Inner>,
}

struct Inner {
    der: Vec<u8>,
    /// Where the signed bytes lie.
    tbs: Range<usize>,
    signature_kind: SignatureKind,
    signature: Vec<u8>,
    issuer: DistinguishedName,
    this_update: OffsetDateTime,
    next_update: OffsetDateTime,
    number: Option<Serial>,
    scope: CrlScope,
    /// In the order of the serials.
    entries: Vec<Entry>,
}

/// Where an entry's serial lies in the DER, without leading zero octets.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    len: u8,
}

impl RevocationList {
    /// Parses one list in DER. Versions 1 and 2 are read (`openssl ca -gencrl` writes version 1 by default).
    ///
    /// # Errors
    /// [`CertsError::RevocationList`]: malformed, or not a whole list of one CA.
    ///
    /// ```
    /// use portcullis_certs::RevocationList;
    /// assert!(RevocationList::from_der(b"not DER".to_vec()).is_err());
    /// ```
    pub fn from_der(der: Vec<u8>) -> Result<Self, CertsError> {
        let inner = parse(der).map_err(|reason| CertsError::RevocationList { reason })?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who says so.
    pub fn issuer(&self) -> &DistinguishedName {
        &self.inner.issuer
    }

    /// When it was made.
    pub fn this_update(&self) -> OffsetDateTime {
        self.inner.this_update
    }

    /// When the next one was to be made at the latest: past it, this one is stale.
    pub fn next_update(&self) -> OffsetDateTime {
        self.inner.next_update
    }

    /// The list's number, which grows with each; version 1 has none.
    pub fn number(&self) -> Option<&Serial> {
        self.inner.number.as_ref()
    }

    /// What it is limited to.
    pub fn scope(&self) -> &CrlScope {
        &self.inner.scope
    }

    /// Whether it is the whole for a certificate of its CA: one that it does not list is not revoked then. A certificate
    /// that says nothing of lists is of a CA that has one.
    pub fn covers(&self, certificate: &Certificate) -> bool {
        let (scope, facts) = (self.scope(), certificate.facts());
        let is_of_its_kind = !scope.only_end_entities || facts.is_ca != Some(true);
        let of_certificate = &facts.crl_uris;
        let is_its_own = scope.uris.is_empty()
            || of_certificate.is_empty()
            || scope.uris.iter().any(|uri| of_certificate.contains(uri));
        is_of_its_kind && is_its_own
    }

    /// How it is signed.
    pub fn signature(&self) -> &SignatureKind {
        &self.inner.signature_kind
    }

    /// How many certificates it lists.
    pub fn len(&self) -> usize {
        self.inner.entries.len()
    }

    /// Whether it lists nobody.
    pub fn is_empty(&self) -> bool {
        self.inner.entries.is_empty()
    }

    /// The list as it came.
    pub fn der(&self) -> &[u8] {
        &self.inner.der
    }

    /// Whether the certificate with this number is revoked. Takes the logarithm of the list's length.
    pub fn lists(&self, serial: &Serial) -> bool {
        let inner = &self.inner;
        inner.entries.binary_search_by(|entry| octets(&inner.der, *entry).cmp(serial.as_octets())).is_ok()
    }

    /// Whether this CA's key made the list's signature. Names and usages are not looked at.
    pub fn is_signed_by(&self, ca: &Certificate) -> bool {
        let inner = &self.inner;
        let Some(tbs) = inner.der.get(inner.tbs.clone()) else { return false };
        signature::holds(&inner.signature_kind, &ca.facts().key, &ca.facts().spki_der, tbs, &inner.signature)
    }

    /// Whether it takes the place of `other`: by number and by the time it was made where both have a number, else by the
    /// time alone. Two lists that disagree, the one with the larger number and the other with the later time, take each
    /// other's place in neither order: a CA whose counter began anew, or whose clock went back, revoked what either names.
    pub fn supersedes(&self, other: &Self) -> bool {
        let (number, others) = (self.number().map(by_size), other.number().map(by_size));
        supersedes((number, self.this_update()), (others, other.this_update()))
    }

    /// Whether it was made after `other`: by number where both have one, else by the time it was made.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        match (self.number(), other.number()) {
            (Some(own), Some(others)) if own != others => by_size(own) > by_size(others),
            _ => self.this_update() > other.this_update(),
        }
    }
}

/// What tells lists of one CA apart: number, as [`by_size`] has it, and time.
pub(crate) type Edition<'a> = (Option<(usize, &'a [u8])>, OffsetDateTime);

/// See [`RevocationList::supersedes`].
pub(crate) fn supersedes(own: Edition<'_>, other: Edition<'_>) -> bool {
    match (own, other) {
        ((Some(number), time), (Some(others), other)) => {
            number >= others && time >= other && (number, time) != (others, other)
        }
        ((_, time), (_, other)) => time > other,
    }
}

/// Numbers without leading zeros: the longer one is the larger.
pub(crate) fn by_size(number: &Serial) -> (usize, &[u8]) {
    (number.as_octets().len(), number.as_octets())
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("issuer", self.issuer())
            .field("number", &self.number())
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

impl PartialEq for RevocationList {
    fn eq(&self, other: &Self) -> bool {
        self.inner.der == other.inner.der
    }
}

impl Eq for RevocationList {}

fn parse(der: Vec<u8>) -> Result<Inner, String> {
    let mut outer = Der::whole(&der, SEQUENCE)?;
    let tbs = outer.take(SEQUENCE, "tbsCertList")?;
    let signed_with = outer.take(SEQUENCE, "signatureAlgorithm")?;
    let signature = match outer.take(der::BIT_STRING, "signature")?.content.split_first() {
        Some((0, octets)) => octets.to_vec(),
        _ => return Err("its signature is malformed".to_owned()),
    };
    outer.end("the list")?;
    let list = TbsCertList::read(Der::new(tbs.content))?;
    if list.signed_with.whole != signed_with.whole {
        return Err("its two signature algorithms differ".to_owned());
    }
    let start = der::offset(&der, tbs.whole).ok_or("its signed part is not part of it")?;
    let mut entries = list.entries.iter().map(|serial| entry(&der, serial)).collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable_by(|a, b| octets(&der, *a).cmp(octets(&der, *b)));
    Ok(Inner {
        tbs: start..start + tbs.whole.len(),
        signature_kind: algorithm(signed_with)?,
        signature,
        issuer: list.issuer,
        this_update: list.this_update,
        next_update: list.next_update,
        number: list.number,
        scope: list.scope,
        entries,
        der,
    })
}

struct TbsCertList<'a> {
    signed_with: Element<'a>,
    issuer: DistinguishedName,
    this_update: OffsetDateTime,
    next_update: OffsetDateTime,
    number: Option<Serial>,
    scope: CrlScope,
    /// The serials' content octets.
    entries: Vec<&'a [u8]>,
}

impl<'a> TbsCertList<'a> {
    fn read(mut tbs: Der<'a>) -> Result<Self, String> {
        let is_v2 = match tbs.take_if(INTEGER)? {
            None => false,
            Some(Element { content: [1], .. }) => true,
            Some(_) => return Err("its version is neither 1 nor 2".to_owned()),
        };
        let signed_with = tbs.take(SEQUENCE, "signature")?;
        let issuer = tbs.take(SEQUENCE, "issuer")?;
        let issuer = match X509Name::from_der(issuer.whole) {
            Ok(([], name)) => DistinguishedName::new(&name),
            _ => return Err("its issuer's name is malformed".to_owned()),
        };
        let this_update = moment(tbs.take_one_of(&der::TIMES, "thisUpdate")?)?;
        let next_update = match tbs.take_if_one_of(&der::TIMES)? {
            Some(time) => moment(time)?,
            // RFC 5280 §5.1.2.5: it must be there. Without it nobody could tell an old list from a good one.
            None => return Err("it has no nextUpdate, so that nobody could tell when it is out of date".to_owned()),
        };
        let entries = tbs.take_if(SEQUENCE)?.map(|list| entries(Der::new(list.content), is_v2)).transpose()?;
        let extensions = tbs.take_if(der::EXPLICIT_0)?.map(|wrapped| list_extensions(wrapped, is_v2)).transpose()?;
        let (number, scope) = extensions.unwrap_or_default();
        tbs.end("its signed part")?;
        Ok(Self { signed_with, issuer, this_update, next_update, number, scope, entries: entries.unwrap_or_default() })
    }
}

fn entries(mut list: Der<'_>, is_v2: bool) -> Result<Vec<&[u8]>, String> {
    let mut serials = Vec::new();
    while !list.is_empty() {
        let mut entry = Der::new(list.take(SEQUENCE, "an entry")?.content);
        serials.push(entry.take(INTEGER, "an entry's serial number")?.content);
        entry.take_one_of(&der::TIMES, "an entry's date")?;
        if let Some(extensions) = entry.take_if(SEQUENCE)? {
            check_v2(is_v2)?;
            check_entry_extensions(extensions)?;
        }
        entry.end("an entry")?;
    }
    Ok(serials)
}

const REASON_CODE: &[u8] = &[0x55, 0x1d, 21];
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 27];
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 29];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];

/// Whatever an entry's reason is, the certificate is revoked (on hold too: nobody can say until when).
fn check_entry_extensions(extensions: Element<'_>) -> Result<(), String> {
    for extension in der::extensions(extensions)? {
        if extension.oid == CERTIFICATE_ISSUER {
            return Err("it is an indirect list: it speaks for other CAs too".to_owned());
        }
        if extension.critical && extension.oid != REASON_CODE {
            return Err(format!("an entry has the critical extension {}, which is not understood", extension.name()));
        }
    }
    Ok(())
}

/// The list's number, if it has one, and what it is limited to.
fn list_extensions(wrapped: Element<'_>, is_v2: bool) -> Result<(Option<Serial>, CrlScope), String> {
    check_v2(is_v2)?;
    let (mut number, mut scope) = (None, CrlScope::default());
    for extension in der::extensions(Der::whole_element(wrapped.content, SEQUENCE)?)? {
        match extension.oid {
            CRL_NUMBER => {
                let digits = Der::whole_element(extension.value, INTEGER)?.content;
                number = Some(serial(digits).ok_or("its number is malformed")?);
            }
            DELTA_CRL_INDICATOR => return Err("it is a delta list: only changes are in it".to_owned()),
            ISSUING_DISTRIBUTION_POINT => scope = CrlScope::read(extension.value)?,
            AUTHORITY_KEY_ID => {}
            _ if extension.critical => {
                return Err(format!("it has the critical extension {}, which is not understood", extension.name()));
            }
            _ => {}
        }
    }
    Ok((number, scope))
}

fn check_v2(is_v2: bool) -> Result<(), String> {
    if is_v2 { Ok(()) } else { Err("it has extensions, and says that it is of version 1".to_owned()) }
}

fn serial(octets: &[u8]) -> Option<Serial> {
    (1..=MAX_SERIAL).contains(&octets.len()).then(|| Serial::from_octets(octets))
}

fn entry(der: &[u8], serial: &[u8]) -> Result<Entry, String> {
    if !(1..=MAX_SERIAL).contains(&serial.len()) {
        return Err(format!("a serial number has {} octets, at most {MAX_SERIAL} are read", serial.len()));
    }
    // As in `Serial`: zero keeps one octet.
    let zeros = serial.iter().take_while(|&&octet| octet == 0).count().min(serial.len() - 1);
    let place = der::offset(der, serial).and_then(|at| u32::try_from(at + zeros).ok());
    let len = u8::try_from(serial.len() - zeros).ok();
    place.zip(len).map(|(at, len)| Entry { at, len }).ok_or_else(|| "it is too large".to_owned())
}

fn octets(der: &[u8], entry: Entry) -> &[u8] {
    let at = entry.at as usize;
    der.get(at..at + usize::from(entry.len)).unwrap_or_default()
}

fn algorithm(element: Element<'_>) -> Result<SignatureKind, String> {
    match AlgorithmIdentifier::from_der(element.whole) {
        Ok(([], identifier)) => Ok(SignatureKind::new(&identifier)),
        _ => Err("its signature algorithm is malformed".to_owned()),
    }
}

fn moment(element: Element<'_>) -> Result<OffsetDateTime, String> {
    match ASN1Time::from_der(element.whole) {
        Ok(([], time)) => OffsetDateTime::from_unix_timestamp(time.timestamp()).map_err(|error| error.to_string()),
        _ => Err("one of its dates is malformed".to_owned()),
    }
}
