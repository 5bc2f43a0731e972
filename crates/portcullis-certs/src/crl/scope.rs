//! Which of its CA's certificates a list speaks of: the issuingDistributionPoint (RFC 5280 §5.2.5).
//!
//! Taken are the two forms under which a list is still the whole for the certificates that a server is shown: limited to
//! end entities, and with the URIs where it is published. Every other form would leave out somebody who is revoked.

use super::der::{Der, Element, SEQUENCE};

/// distributionPoint is a CHOICE, and so explicit; in it fullName is implicit.
const DISTRIBUTION_POINT: u8 = 0xa0;
const FULL_NAME: u8 = 0xa0;
const ONLY_USER: u8 = 0x81;
const ONLY_CA: u8 = 0x82;
const ONLY_SOME_REASONS: u8 = 0x83;
const INDIRECT: u8 = 0x84;
const ONLY_ATTRIBUTE: u8 = 0x85;
/// uniformResourceIdentifier of a GeneralName.
const URI: u8 = 0x86;
/// Each is compared with each of a certificate's.
const MAX_URIS: usize = 16;

/// What a list is limited to. The default: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrlScope {
    /// onlyContainsUserCerts: of the certificates of CAs it says nothing.
    pub only_end_entities: bool,
    /// Where the list is published, as it says itself. A CA that divides its revocations over several lists gives each
    /// another URI, and writes into each certificate (cRLDistributionPoints) which list is its own.
    pub uris: Vec<String>,
}

impl CrlScope {
    /// Of an extension's value.
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        let partial =
            |what: &str| Err(format!("it is a partial list: its issuingDistributionPoint limits it to {what}"));
        let mut point = Der::whole(value, SEQUENCE)?;
        let name = point.take_if(DISTRIBUTION_POINT)?;
        let [user, ca] = [flag(&mut point, ONLY_USER)?, flag(&mut point, ONLY_CA)?];
        if point.take_if(ONLY_SOME_REASONS)?.is_some() {
            return partial("some reasons of revocation (onlySomeReasons)");
        }
        let [indirect, attribute] = [flag(&mut point, INDIRECT)?, flag(&mut point, ONLY_ATTRIBUTE)?];
        point.end("the issuingDistributionPoint")?;
        if ca {
            return partial("the certificates of CAs (onlyContainsCACerts)");
        }
        if indirect {
            return Err("it is an indirect list (indirectCRL): it speaks for other CAs too".to_owned());
        }
        if attribute {
            return partial("attribute certificates (onlyContainsAttributeCerts)");
        }
        if !user && name.is_none() {
            return Err("its issuingDistributionPoint is empty, which RFC 5280 §5.2.5 forbids".to_owned());
        }
        Ok(Self { only_end_entities: user, uris: name.map(uris).transpose()?.unwrap_or_default() })
    }
}

/// A BOOLEAN DEFAULT FALSE.
fn flag(point: &mut Der<'_>, tag: u8) -> Result<bool, String> {
    match point.take_if(tag)?.map(|flag| flag.content) {
        None | Some([0]) => Ok(false),
        Some([0xff]) => Ok(true),
        Some(_) => Err("a flag of its issuingDistributionPoint is malformed".to_owned()),
    }
}

fn uris(name: Element<'_>) -> Result<Vec<String>, String> {
    let other = "it is a partial list: its issuingDistributionPoint has a distribution point that is no URI";
    let mut choice = Der::new(name.content);
    let mut names = Der::new(choice.take_if(FULL_NAME)?.ok_or(other)?.content);
    choice.end("its distribution point's name")?;
    let mut uris = Vec::new();
    while !names.is_empty() {
        let uri = names.take_if(URI)?.ok_or(other)?.content;
        let uri = std::str::from_utf8(uri).ok().filter(|uri| uri.is_ascii() && !uri.is_empty());
        uris.push(uri.ok_or("a URI of its issuingDistributionPoint is malformed")?.to_owned());
        if uris.len() > MAX_URIS {
            return Err(format!("its issuingDistributionPoint has more than {MAX_URIS} URIs"));
        }
    }
    if uris.is_empty() { Err(other.to_owned()) } else { Ok(uris) }
}
