//! The journal of an authority, `issued.jsonl`: one JSON line per certificate it signed, its own first. Append-only, and
//! synced before the certificate is handed out: what is not in it was never issued, so that revoking by name finds all.

use std::fs;
use std::io;
use std::path::Path;

use portcullis_certs::{AltName, Certificate, Fingerprint, Serial};
use portcullis_tls::IssuedRecord;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{AuthorityKind, PkiError, files};

/// The journal's name in an authority's directory.
pub(crate) const FILE: &str = "issued.jsonl";

/// A journal that grew beyond this is not read into memory: 100,000 certificates take a third of it.
const MAX_BYTES: u64 = 128 << 20;

/// What a journal says, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Journal {
    /// The certificates, in the order of issue.
    pub entries: Vec<JournalEntry>,
    /// Lines that cannot be read, counted from 1: cut short by a crash (then nothing was issued) or damaged.
    pub damaged: Vec<usize>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// What it is.
    pub kind: EntryKind,
    /// The client's name, the first name of a server, or the common name of the authority.
    pub name: String,
    /// Its serial number.
    pub serial: Serial,
    /// The SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// The SHA-256 of its SubjectPublicKeyInfo. `None` in lines of before this was written down.
    pub key: Option<Fingerprint>,
    /// The URI that it has beside its name, if it has one.
    pub uri: Option<String>,
    /// The start of its life, backdated.
    pub not_before: OffsetDateTime,
    /// The end of its life.
    pub not_after: OffsetDateTime,
}

/// What a line of the journal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// The authority itself, one that issues for registries.
    ServerCa,
    /// The authority itself, one that issues for clients.
    ClientCa,
    /// A registry's certificate.
    Server,
    /// A client's certificate.
    Client,
}

/// The line as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    kind: EntryKind,
    serial: String,
    fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    not_before: String,
    not_after: String,
}

impl Journal {
    /// The journal in an authority's directory, without its key. A missing journal is an empty one.
    ///
    /// # Errors
    /// [`PkiError::Io`] when it is there and cannot be read, or is larger than 128 MiB.
    pub fn of(dir: &Path) -> Result<Self, PkiError> {
        read(dir)
    }
}

impl JournalEntry {
    pub(crate) fn new(kind: EntryKind, name: &str, certificate: &Certificate) -> Self {
        let facts = certificate.facts();
        Self {
            kind,
            name: name.to_owned(),
            serial: facts.serial.clone(),
            fingerprint: certificate.fingerprint(),
            key: Some(facts.key_hash),
            uri: facts.alt_names.iter().find_map(|name| match name {
                AltName::Uri(uri) => Some(uri.clone()),
                _ => None,
            }),
            not_before: facts.not_before,
            not_after: facts.not_after,
        }
    }

    /// As the deny list judges it; `issuer_key` is the authority's.
    pub(crate) fn record(&self, issuer_key: Fingerprint) -> IssuedRecord<'_> {
        IssuedRecord {
            fingerprint: self.fingerprint,
            key: self.key,
            serial: &self.serial,
            issuer_key,
            not_before: self.not_before,
            common_name: &self.name,
            uri: self.uri.as_deref(),
        }
    }

    fn to_line(&self) -> Result<String, PkiError> {
        let date = |date: OffsetDateTime| date.format(&Rfc3339).map_err(|_| PkiError::Date { date });
        let line = Line {
            name: self.name.clone(),
            kind: self.kind,
            serial: self.serial.to_string(),
            fingerprint: self.fingerprint.to_string(),
            key: self.key.map(|key| key.to_string()),
            uri: self.uri.clone(),
            not_before: date(self.not_before)?,
            not_after: date(self.not_after)?,
        };
        serde_json::to_string(&line).map_err(|_| PkiError::Crypto { doing: "encode a line of the journal" })
    }

    fn from_line(text: &str) -> Option<Self> {
        let line: Line = serde_json::from_str(text).ok()?;
        Some(Self {
            kind: line.kind,
            name: line.name,
            serial: line.serial.parse().ok()?,
            fingerprint: line.fingerprint.parse().ok()?,
            key: line.key.map(|key| key.parse()).transpose().ok()?,
            uri: line.uri,
            not_before: OffsetDateTime::parse(&line.not_before, &Rfc3339).ok()?,
            not_after: OffsetDateTime::parse(&line.not_after, &Rfc3339).ok()?,
        })
    }
}

impl EntryKind {
    pub(crate) const fn of_authority(kind: AuthorityKind) -> Self {
        match kind {
            AuthorityKind::Server => Self::ServerCa,
            AuthorityKind::Client => Self::ClientCa,
        }
    }

    pub(crate) const fn issued_by(kind: AuthorityKind) -> Self {
        match kind {
            AuthorityKind::Server => Self::Server,
            AuthorityKind::Client => Self::Client,
        }
    }

    /// The kind of authority that the line is about.
    pub(crate) const fn authority(self) -> Option<AuthorityKind> {
        match self {
            Self::ServerCa => Some(AuthorityKind::Server),
            Self::ClientCa => Some(AuthorityKind::Client),
            Self::Server | Self::Client => None,
        }
    }
}

pub(crate) fn append(dir: &Path, entry: &JournalEntry) -> Result<(), PkiError> {
    files::append_line(&dir.join(FILE), &entry.to_line()?)
}

/// Everything that can be read. A missing journal is an empty one.
pub(crate) fn read(dir: &Path) -> Result<Journal, PkiError> {
    let path = dir.join(FILE);
    let text = match bounded(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Journal::default()),
        Err(error) => return Err(PkiError::io("read", &path)(error)),
    };
    let mut journal = Journal::default();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        match JournalEntry::from_line(line) {
            Some(entry) => journal.entries.push(entry),
            None => journal.damaged.push(index + 1),
        }
    }
    Ok(journal)
}

fn bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn entry() -> JournalEntry {
        JournalEntry {
            kind: EntryKind::Client,
            name: "ci-7".to_owned(),
            serial: "0a0b".parse().unwrap(),
            fingerprint: Fingerprint([7; 32]),
            key: Some(Fingerprint([8; 32])),
            uri: Some("spiffe://test/host/ci-7".to_owned()),
            not_before: datetime!(2026-11-23 16:00:00 UTC),
            not_after: datetime!(2027-02-21 17:00:00 UTC),
        }
    }

    #[test]
    fn a_line_as_it_is_written() {
        let expected = format!(
            r#"{{"name":"ci-7","kind":"client","serial":"0a0b","fingerprint":"sha256:{}","key":"sha256:{}","uri":"spiffe://test/host/ci-7","not_before":"2026-11-23T16:00:00Z","not_after":"2027-02-21T17:00:00Z"}}"#,
            "07".repeat(32),
            "08".repeat(32)
        );
        assert_eq!(entry().to_line().unwrap(), expected);
        assert_eq!(JournalEntry::from_line(&expected), Some(entry()));
        let earlier = r#"{"name":"ci-7","kind":"client","serial":"0a0b","fingerprint":"sha256:FF","not_before":"2026-11-23T16:00:00Z","not_after":"2027-02-21T17:00:00Z"}"#;
        let earlier = earlier.replace("FF", &"07".repeat(32));
        assert_eq!(JournalEntry::from_line(&earlier), Some(JournalEntry { key: None, uri: None, ..entry() }));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Journal::default());
        append(dir.path(), &entry()).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join(FILE))
            .and_then(|mut file| {
                use std::io::Write as _;
                file.write_all(b"{\"name\":\"ci")
            })
            .unwrap();
        append(dir.path(), &entry()).unwrap();
        let journal = read(dir.path()).unwrap();
        assert_eq!((journal.entries, journal.damaged), (vec![entry(), entry()], vec![2]));
    }
}
