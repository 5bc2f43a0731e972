//! The revocation list of an authority of ours: what its certificates are on the deny list for, as other servers (nginx,
//! Envoy) understand it, and as our own reads it.
//!
//! Seven days until the next one is due, made anew on each revocation and by `maintain` once a day, so that it does not
//! lapse because nobody was revoked (vault#9319). Verified as its readers will before it is written.

use std::path::PathBuf;

use pem_rfc7468::LineEnding;
use portcullis_certs::trust_dir::{CaFile, CrlFile, DenyEntry, TrustDir};
use portcullis_certs::{RevocationList, Serial};
use portcullis_tls::DenyList;
use time::{Duration, OffsetDateTime};
use x509_cert::builder::CrlBuilder;
use x509_cert::crl::RevokedCert;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::CrlNumber;
use x509_cert::serial_number::SerialNumber;

use crate::journal::Journal;
use crate::{Authority, PkiError, files, profile, signer};

/// How long a list says it is good for.
pub const LIFETIME: Duration = Duration::days(7);
/// After so long it is made anew, whether or not anybody was revoked.
const REBUILD_AFTER: Duration = Duration::days(1);

/// A revocation list that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedCrl {
    /// The file, PEM.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// How many certificates are on it.
    pub revoked: usize,
    /// When the next one is due.
    pub next_update: OffsetDateTime,
}

/// Writes the authority's list into `trust/crls` where it is due: there is none, it is a day old, or other
/// certificates are denied by now; `also_denied` is what is remembered beside the deny list. `None` when it is not due, or when `trust/cas` does not have the authority.
///
/// # Errors
/// [`PkiError::UnverifiedCrl`] when the list would not be accepted; nothing is written then.
pub fn publish_crl(
    authority: &Authority,
    trust: &TrustDir,
    also_denied: &[DenyEntry],
    now: OffsetDateTime,
) -> Result<Option<PublishedCrl>, PkiError> {
    let (present, _) = trust.read();
    let is_authority = |ca: &&CaFile| ca.certificates.contains(authority.certificate());
    let Some(ca) = present.cas.iter().find(is_authority) else { return Ok(None) };
    let path = trust.crl_path(&ca.name)?;
    let denied: Vec<&DenyEntry> = present.deny.iter().chain(also_denied).collect();
    let serials = revoked(&authority.journal()?, authority, &denied, now);
    let newest = newest(authority, &present.crls);
    let is_good = |list: &RevocationList| {
        let is_same = list.len() == serials.len() && serials.iter().all(|serial| list.lists(serial));
        now < list.this_update() + REBUILD_AFTER && is_same
    };
    if newest.is_some_and(is_good) && path.exists() {
        return Ok(None);
    }
    let number = next_number(newest, now);
    let list = make(authority, number, &serials, now)?;
    verify(authority, &list, number, &serials)?;
    let text = pem_rfc7468::encode_string("X509 CRL", LineEnding::LF, list.der())
        .map_err(|_| PkiError::Crypto { doing: "encode a revocation list" })?;
    files::create_dir(&trust.crls_dir(), files::PRIVATE_DIR)?;
    files::replace(&path, text.as_bytes(), files::PUBLIC)?;
    Ok(Some(PublishedCrl { path, number, revoked: serials.len(), next_update: list.next_update() }))
}

/// Unexpired certificates only: the others are refused for their dates, and the list would grow for ever (vault#3328).
fn revoked(journal: &Journal, authority: &Authority, denied: &[&DenyEntry], now: OffsetDateTime) -> Vec<Serial> {
    let (own, key) = (authority.certificate().fingerprint(), authority.certificate().facts().key_hash);
    let deny = DenyList::of(denied.iter().copied());
    let all = deny.denies_issuer(authority.certificate());
    let live = journal.entries.iter().filter(|entry| entry.not_after > now && entry.fingerprint != own);
    live.filter(|entry| all || deny.denies_issued(&entry.record(key))).map(|entry| entry.serial.clone()).collect()
}

fn newest<'a>(authority: &Authority, crls: &'a [CrlFile]) -> Option<&'a RevocationList> {
    let own = crls.iter().map(|crl| &crl.list).filter(|list| list.is_signed_by(authority.certificate()));
    own.fold(None, |newest, list| match newest {
        Some(newest) if !list.is_newer_than(newest) => Some(newest),
        _ => Some(list),
    })
}

/// Seconds since 1970, which grow even when the list before is lost; one more than that list where clocks went back.
fn next_number(newest: Option<&RevocationList>, now: OffsetDateTime) -> u64 {
    let before = newest.and_then(RevocationList::number).map(Serial::as_octets).unwrap_or_default();
    let before = before.iter().fold(0_u64, |sum, &octet| sum.saturating_mul(256).saturating_add(u64::from(octet)));
    u64::try_from(now.unix_timestamp()).unwrap_or(0).max(before.saturating_add(1))
}

fn make(
    authority: &Authority,
    number: u64,
    serials: &[Serial],
    now: OffsetDateTime,
) -> Result<RevocationList, PkiError> {
    let date = profile::certificate_time(now)?;
    let entry = |serial: &Serial| {
        Ok(RevokedCert {
            serial_number: SerialNumber::new(serial.as_octets())?,
            revocation_date: date,
            crl_entry_extensions: None,
        })
    };
    let entries = serials.iter().map(entry).collect::<Result<Vec<_>, PkiError>>()?;
    let issuer = x509_cert::Certificate::from_der(authority.certificate().der())?;
    let builder = CrlBuilder::new_with_this_update(&issuer, CrlNumber::try_from(number)?, date)?
        .with_next_update(Some(profile::certificate_time(now + LIFETIME)?));
    // RFC 5280 §5.1.2.6: where nobody is revoked, the sequence must be absent.
    let builder = if entries.is_empty() { builder } else { builder.with_certificates(entries.into_iter()) };
    let list = signer::sign_list(builder, authority.key())?;
    Ok(RevocationList::from_der(list.to_der()?)?)
}

fn verify(authority: &Authority, list: &RevocationList, number: u64, serials: &[Serial]) -> Result<(), PkiError> {
    let has_number = list.number() == Some(&Serial::from_octets(&number.to_be_bytes()));
    let is_whole = list.len() == serials.len() && serials.iter().all(|serial| list.lists(serial));
    let may_sign = authority.certificate().facts().key_usage.is_none_or(|usage| usage.crl_sign);
    let is_ours = list.issuer() == &authority.certificate().facts().subject;
    let is_signed = list.is_signed_by(authority.certificate());
    if has_number && is_whole && may_sign && is_ours && is_signed {
        return Ok(());
    }
    Err(PkiError::UnverifiedCrl { dir: authority.directory().to_owned() })
}
