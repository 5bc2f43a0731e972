//! The deny list, looked up. Its grammar is `portcullis-certs`'.

use std::collections::{HashMap, HashSet};

use portcullis_certs::trust_dir::{DenyEntry, DenyRule};
use portcullis_certs::{AltName, Certificate, CertificateFacts, Fingerprint, Serial, glob};
use time::OffsetDateTime;

use crate::Refusal;

/// Every entry of the file, by what it names. The values are line numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct DenyList {
    certificates: HashMap<Fingerprint, u32>,
    keys: HashMap<Fingerprint, u32>,
    serials: HashMap<(Fingerprint, Serial), u32>,
    serial_values: HashSet<Serial>,
    names: Vec<(NameMatcher, OffsetDateTime, u32)>,
}

impl DenyList {
    pub(crate) fn add(&mut self, entries: &[DenyEntry]) {
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
        self.by_name(leaf).map_or(Ok(()), |line| Err(Refusal::Denied { line }))
    }

    /// Any certificate, by its fingerprint and its key.
    pub(crate) fn check(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let by_certificate = self.certificates.get(&certificate.fingerprint());
        let line = by_certificate.or_else(|| self.keys.get(&certificate.facts().key_hash));
        line.map_or(Ok(()), |line| Err(Refusal::Denied { line: *line }))
    }

    /// By serial, for each CA that may have issued the certificate: its issuer's name is a claim, and a claim is enough
    /// to refuse.
    pub(crate) fn check_serial<'a>(
        &self,
        certificate: &Certificate,
        mut issuers: impl Iterator<Item = &'a Certificate>,
    ) -> Result<(), Refusal> {
        let serial = &certificate.facts().serial;
        if !self.serial_values.contains(serial) {
            return Ok(());
        }
        let line = issuers.find_map(|issuer| self.serials.get(&(issuer.facts().key_hash, serial.clone())));
        line.map_or(Ok(()), |line| Err(Refusal::Denied { line: *line }))
    }

    fn by_name(&self, certificate: &Certificate) -> Option<u32> {
        let facts = certificate.facts();
        self.names
            .iter()
            .find(|(matcher, before, _)| facts.not_before < *before && matcher.matches(facts))
            .map(|(_, _, line)| *line)
    }
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

    /// All common names count, not only the one that is shown: a restriction is never held back.
    fn matches(&self, facts: &CertificateFacts) -> bool {
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
        let is_meant = |kind| match self.kind {
            Some(wanted) => wanted == kind,
            None => !matches!(kind, NameKind::Organization | NameKind::OrganizationalUnit),
        };
        let mut names = common_names.chain(organizations).chain(units).chain(alt_names);
        names.any(|(kind, text)| is_meant(kind) && glob(&self.glob, &text.to_lowercase()))
    }
}
