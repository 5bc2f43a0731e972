//! The deny list, looked up. Its grammar is `portcullis-certs`'.

use std::collections::{HashMap, HashSet};

use portcullis_certs::trust_dir::{DenyEntry, DenyRule};
use portcullis_certs::{AltName, Certificate, Fingerprint, Serial};
use time::OffsetDateTime;

use crate::Refusal;

/// Every entry of the file, by what it names. The values are line numbers.
#[derive(Debug, Default)]
pub(crate) struct DenyList {
    certificates: HashMap<Fingerprint, u32>,
    keys: HashMap<Fingerprint, u32>,
    serials: HashMap<(Fingerprint, Serial), u32>,
    serial_values: HashSet<Serial>,
    names: Vec<(String, OffsetDateTime, u32)>,
}

impl DenyList {
    pub(crate) fn new(entries: &[DenyEntry]) -> Self {
        let mut list = Self::default();
        for DenyEntry { line, rule, .. } in entries {
            match rule {
                DenyRule::Certificate(fingerprint) => {
                    list.certificates.insert(*fingerprint, *line);
                }
                DenyRule::Key(fingerprint) => {
                    list.keys.insert(*fingerprint, *line);
                }
                DenyRule::Serial { ca_key, serial } => {
                    list.serials.insert((*ca_key, serial.clone()), *line);
                    list.serial_values.insert(serial.clone());
                }
                DenyRule::Name { matcher, before } => list.names.push((matcher.clone(), *before, *line)),
            }
        }
        list
    }

    /// By what the certificate itself is. Used for the leaf and for each certificate of its path.
    pub(crate) fn check(&self, certificate: &Certificate) -> Result<(), Refusal> {
        let facts = certificate.facts();
        let line = self
            .certificates
            .get(&certificate.fingerprint())
            .or_else(|| self.keys.get(&facts.key_hash))
            .copied()
            .or_else(|| self.by_name(certificate));
        line.map_or(Ok(()), |line| Err(Refusal::Denied { line }))
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
        let names = || {
            let alt_names = facts.alt_names.iter().filter_map(|name| match name {
                AltName::Dns(text) | AltName::Email(text) | AltName::Uri(text) => Some(text.as_str()),
                AltName::Ip(_) | AltName::Other(_) => None,
            });
            facts.subject.common_name().into_iter().chain(alt_names)
        };
        self.names
            .iter()
            .find(|(matcher, before, _)| facts.not_before < *before && names().any(|name| glob(matcher, name)))
            .map(|(_, _, line)| *line)
    }
}

/// `*` stands for any run of characters; everything else for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("ci-7", "ci-7", true),
            ("ci-7", "ci-77", false),
            ("ci-*", "ci-7", true),
            ("*", "", true),
            ("*.test", "a.test", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "axc", false),
            ("a*a", "a", false),
            ("", "a", false),
            ("ci-?", "ci-7", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
