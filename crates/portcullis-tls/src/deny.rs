//! The deny list, looked up: the one judgement of whom its lines name, for the handshake, for our CA's revocation list and
//! for whoever would use a key again. Its grammar is `portcullis-certs`'.

use std::collections::{HashMap, HashSet};

use portcullis_certs::trust_dir::{DenyEntry, DenyRule};
use portcullis_certs::{AltName, Certificate, CertificateFacts, Fingerprint, Serial, glob};
use time::OffsetDateTime;

use crate::Refusal;

/// Every entry of the file, by what it names. The values are line numbers.
///
/// ```
/// use portcullis_certs::trust_dir::DenyEntry;
/// use portcullis_tls::{DenyList, IssuedRecord};
///
/// let rule = "name:cn=ci-* before 2026-11-01T00:00:00Z".parse()?;
/// let deny = DenyList::of(&[DenyEntry { line: 1, rule, note: None }]);
/// let serial = "0a0b".parse()?;
/// let issued = IssuedRecord {
///     fingerprint: portcullis_certs::Fingerprint([1; 32]),
///     key: None,
///     serial: &serial,
///     issuer_key: portcullis_certs::Fingerprint([2; 32]),
///     not_before: time::OffsetDateTime::UNIX_EPOCH,
///     common_name: "ci-7",
///     uri: None,
/// };
/// assert!(deny.denies_issued(&issued));
/// assert!(!deny.denies_issued(&IssuedRecord { common_name: "web-1", ..issued }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default, Clone)]
pub struct DenyList {
    certificates: HashMap<Fingerprint, u32>,
    keys: HashMap<Fingerprint, u32>,
    serials: HashMap<(Fingerprint, Serial), u32>,
    serial_values: HashSet<Serial>,
    names: Vec<(NameMatcher, OffsetDateTime, u32)>,
}

/// A client's certificate that is not at hand: what its issuer wrote down of it.
#[derive(Debug, Clone, Copy)]
pub struct IssuedRecord<'a> {
    /// The SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// The SHA-256 of its SubjectPublicKeyInfo; `None` where that was not written down.
    pub key: Option<Fingerprint>,
    /// Its serial number.
    pub serial: &'a Serial,
    /// The SHA-256 of its issuer's SubjectPublicKeyInfo.
    pub issuer_key: Fingerprint,
    /// The start of its life.
    pub not_before: OffsetDateTime,
    /// Its only common name.
    pub common_name: &'a str,
    /// Its only alternative name, if it has one.
    pub uri: Option<&'a str>,
}

impl DenyList {
    /// Of these entries, whichever files they come from.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a DenyEntry>) -> Self {
        let mut list = Self::default();
        list.add(entries);
        list
    }

    /// Whether a line names a client's certificate: by fingerprint, key, name, or its serial at one of the `cas` that has
    /// its issuer's name. An issuer that is denied itself is another question.
    pub fn denies<'a>(&self, certificate: &'a Certificate, cas: impl IntoIterator<Item = &'a Certificate>) -> bool {
        let issuer = certificate.facts().issuer.der();
        let named = cas.into_iter().filter(|ca| ca.facts().subject.der() == issuer);
        self.check_claims(certificate, named).is_err() || self.check_names(certificate).is_err()
    }

    /// The same for a certificate of which only a record is left.
    pub fn denies_issued(&self, issued: &IssuedRecord<'_>) -> bool {
        let common_name = (NameKind::CommonName, issued.common_name);
        let names = || std::iter::once(common_name).chain(issued.uri.map(|uri| (NameKind::Uri, uri)));
        self.by_mark(&issued.fingerprint, issued.key.as_ref()).is_some()
            || self.by_serial(issued.serial, std::iter::once(issued.issuer_key)).is_some()
            || self.by_name(issued.not_before, names).is_some()
    }

    /// Whether a line names an issuer, by its fingerprint or key: then nothing that it has issued is let in. Names never
    /// mean an issuer.
    pub fn denies_issuer(&self, ca: &Certificate) -> bool {
        self.check(ca).is_err()
    }

    /// A certificate by its fingerprint, its key and its serial, which is looked up for each of the `cas` of its issuer's
    /// name: that name is a claim, and a claim is enough to refuse.
    pub(crate) fn check_claims<'a>(
        &self,
        certificate: &'a Certificate,
        cas: impl Iterator<Item = &'a Certificate>,
    ) -> Result<(), Refusal> {
        self.check(certificate)?;
        let itself = Some(certificate).filter(|certificate| certificate.facts().self_issued);
        self.check_serial(certificate, cas.chain(itself))
    }

    pub(crate) fn add<'a>(&mut self, entries: impl IntoIterator<Item = &'a DenyEntry>) {
        for DenyEntry { line, rule, .. } in entries {
            match rule {
                DenyRule::Certificate(fingerprint) => {
                    self.certificates.insert(*fingerprint, *line);
                }
                DenyRule::Key(fingerprint) => {
                    self.keys.insert(*fingerprint, *line);
                }
                DenyRule::Serial { ca_key, serial } => {
                    self.serials.insert((*ca_key, serial.clone()), *line);
                    self.serial_values.insert(serial.clone());
                }
                DenyRule::Name { matcher, before } => {
                    self.names.push((NameMatcher::new(matcher), *before, *line));
                }
            }
        }
    }

    /// A leaf by its names. Never a CA: `name:* before` some day is how everything is issued anew, and the CA is older
    /// than that day.
    pub(crate) fn check_names(&self, leaf: &Certificate) -> Result<(), Refusal> {
        let facts = leaf.facts();
        refused(self.by_name(facts.not_before, || names_of(facts)))
    }

    /// Any certificate, by its fingerprint and its key. In whichever form it is shown: whoever is denied can write the twin
    /// of its certificate.
    pub(crate) fn check(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let as_shown = self.by_mark(&certificate.fingerprint(), Some(&certificate.facts().key_hash));
        let twin = || certificate.twins().find_map(|twin| self.by_mark(&twin, None));
        refused(as_shown.or_else(twin))
    }

    /// By serial, for each of these issuers.
    pub(crate) fn check_serial<'a>(
        &self,
        certificate: &Certificate,
        issuers: impl Iterator<Item = &'a Certificate>,
    ) -> Result<(), Refusal> {
        refused(self.by_serial(&certificate.facts().serial, issuers.map(|issuer| issuer.facts().key_hash)))
    }

    fn by_mark(&self, fingerprint: &Fingerprint, key: Option<&Fingerprint>) -> Option<u32> {
        let by_key = || key.and_then(|key| self.keys.get(key));
        self.certificates.get(fingerprint).or_else(by_key).copied()
    }

    fn by_serial(&self, serial: &Serial, mut issuer_keys: impl Iterator<Item = Fingerprint>) -> Option<u32> {
        if !self.serial_values.contains(serial) {
            return None;
        }
        issuer_keys.find_map(|key| self.serials.get(&(key, serial.clone())).copied())
    }

    fn by_name<'a, N>(&self, not_before: OffsetDateTime, names: impl Fn() -> N) -> Option<u32>
    where
        N: Iterator<Item = (NameKind, &'a str)>,
    {
        let mut rules = self.names.iter();
        let found = rules.find(|(matcher, before, _)| not_before < *before && matcher.matches(names()));
        found.map(|(_, _, line)| *line)
    }
}

fn refused(line: Option<u32>) -> Result<(), Refusal> {
    line.map_or(Ok(()), |line| Err(Refusal::Denied { line }))
}

/// All common names count, not only the one that is shown: a restriction is never held back.
fn names_of(facts: &CertificateFacts) -> impl Iterator<Item = (NameKind, &str)> {
    let alt_names = facts.alt_names.iter().filter_map(|name| match name {
        AltName::Dns(text) => Some((NameKind::Dns, text.as_str())),
        AltName::Email(text) => Some((NameKind::Email, text.as_str())),
        AltName::Uri(text) => Some((NameKind::Uri, text.as_str())),
        AltName::Ip(_) | AltName::Other(_) => None,
    });
    let subject = &facts.subject;
    let common_names = subject.common_names().map(|text| (NameKind::CommonName, text));
    let organizations = subject.organizations().map(|text| (NameKind::Organization, text));
    let units = subject.organizational_units().map(|text| (NameKind::OrganizationalUnit, text));
    common_names.chain(organizations).chain(units).chain(alt_names)
}

/// `cn=`, `o=`, `ou=`, `dns=`, `email=`, `uri=` or `spiffe=` and a glob for names of that kind; without, a glob for any
/// common or alternative name. Case never counts: the policy does not look at it in DNS names and in the domain of an e-mail
/// address, and what it lets in a line here must be able to keep out.
#[derive(Debug, Clone)]
struct NameMatcher {
    kind: Option<NameKind>,
    glob: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameKind {
    CommonName,
    Organization,
    OrganizationalUnit,
    Dns,
    Email,
    Uri,
}

impl NameMatcher {
    fn new(text: &str) -> Self {
        let kind = |word: &str| {
            Some(match word {
                "cn" => NameKind::CommonName,
                "o" => NameKind::Organization,
                "ou" => NameKind::OrganizationalUnit,
                "dns" => NameKind::Dns,
                "email" => NameKind::Email,
                "uri" | "spiffe" => NameKind::Uri,
                _ => return None,
            })
        };
        match text.split_once('=').and_then(|(word, glob)| Some((kind(word)?, glob))) {
            Some((kind, glob)) => Self { kind: Some(kind), glob: glob.to_lowercase() },
            None => Self { kind: None, glob: text.to_lowercase() },
        }
    }

    fn matches<'a>(&self, mut names: impl Iterator<Item = (NameKind, &'a str)>) -> bool {
        let is_meant = |kind| match self.kind {
            Some(wanted) => wanted == kind,
            None => !matches!(kind, NameKind::Organization | NameKind::OrganizationalUnit),
        };
        names.any(|(kind, text)| is_meant(kind) && glob(&self.glob, &text.to_lowercase()))
    }
}
