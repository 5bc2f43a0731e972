//! A certificate authority on disk: `ca.crt`, `ca.key` (0600) and `issued.jsonl` in a directory of its own (0700). The
//! only holder of a CA's key. One tier: the root signs the leaves, pathlen 0.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use pem_rfc7468::LineEnding;
use portcullis_certs::{Certificate, Fault, Finding, Severity};
use time::{Duration, OffsetDateTime};
use x509_cert::der::Decode as _;
use x509_cert::name::Name;

use crate::journal::{self, EntryKind, Journal, JournalEntry};
use crate::profile::{self, Draft, Issuer};
use crate::{KeyAlgorithm, KeyPair, PkiError, ServerName, constraints, files, signer, verify};

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";

/// For whom an authority signs. Two separate ones make it impossible for a client's certificate to stand in for the
/// registry, whatever a verifier thinks of extendedKeyUsage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorityKind {
    /// For registries.
    Server,
    /// For those who pull and push.
    Client,
}

/// What a new authority is to be.
#[derive(Debug, Clone)]
pub struct AuthorityRequest<'a> {
    /// For whom it signs.
    pub kind: AuthorityKind,
    /// What to call it, usually the registry's host: the common name is `Portcullis client CA <label> <8 hex digits>`,
    /// cut to fit, and different for each generation.
    pub label: &'a str,
    /// The kind of its key.
    pub algorithm: KeyAlgorithm,
    /// Critical name constraints: the CA may certify these names, and what lies below the DNS names, only. Empty, the
    /// default, means none. **Off by default**, for a name that is added later would need a new CA on every client; use
    /// it when all names, or their domain, are known for ten years.
    pub permitted: Vec<ServerName>,
}

/// An authority, opened: its certificate, and its key, which stays in here.
pub struct Authority {
    dir: PathBuf,
    kind: AuthorityKind,
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    /// Makes an authority without name constraints. See [`Authority::create_as`].
    pub fn create(
        dir: &Path,
        kind: AuthorityKind,
        label: &str,
        algorithm: KeyAlgorithm,
        now: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        Self::create_as(dir, &AuthorityRequest { kind, label, algorithm, permitted: Vec::new() }, now)
    }

    /// Makes an authority. A creation that was interrupted is completed, with the key that is there.
    ///
    /// # Errors
    /// [`PkiError::AuthorityExists`] when there is one: nothing is overwritten, [`Authority::open`] it.
    /// [`PkiError::AuthorityIncomplete`] when there is a certificate without its key.
    pub fn create_as(dir: &Path, request: &AuthorityRequest<'_>, now: OffsetDateTime) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE), dir.join(KEY));
        files::create_dir(dir, files::PRIVATE_DIR)?;
        match (is_there(&certificate_path)?, is_there(&key_path)?) {
            (true, true) => return Err(PkiError::AuthorityExists { dir: dir.to_owned() }),
            (true, false) => return Err(PkiError::AuthorityIncomplete { dir: dir.to_owned(), missing: KEY }),
            (false, true) => {}
            (false, false) => {
                let key = KeyPair::generate(request.algorithm)?;
                files::write_new(&key_path, key.to_pem()?.as_bytes(), files::SECRET)?;
            }
        }
        let key = KeyPair::load(&key_path)?;
        let (name, certificate) = self_signed(request, &key, now)?;
        // The journal comes before the certificate, or a crash in between would leave a CA of unknown kind.
        journal::append(dir, &JournalEntry::new(EntryKind::of_authority(request.kind), &name, &certificate))?;
        files::write_new(&certificate_path, pem(&certificate)?.as_bytes(), files::PUBLIC)?;
        Ok(Self { dir: dir.to_owned(), kind: request.kind, certificate, key })
    }

    /// Opens an authority that was made before.
    ///
    /// # Errors
    /// [`PkiError::AuthorityIncomplete`], [`PkiError::AuthorityMismatch`] and [`PkiError::NotInJournal`] when its files
    /// do not fit together; [`PkiError::Files`] when others can read its key.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        for missing in [CERTIFICATE, KEY, journal::FILE] {
            if !is_there(&dir.join(missing))? {
                return Err(PkiError::AuthorityIncomplete { dir: dir.to_owned(), missing });
            }
        }
        let certificate = read_one(&dir.join(CERTIFICATE))?;
        let key = KeyPair::load(&dir.join(KEY))?;
        if certificate.facts().spki_der != key.spki_der() {
            return Err(PkiError::AuthorityMismatch { dir: dir.to_owned() });
        }
        let fingerprint = certificate.fingerprint();
        let own = journal::read(dir)?.entries.into_iter().find(|entry| entry.fingerprint == fingerprint);
        let kind = own
            .and_then(|entry| entry.kind.authority())
            .ok_or_else(|| PkiError::NotInJournal { path: dir.join(journal::FILE), fingerprint })?;
        Ok(Self { dir: dir.to_owned(), kind, certificate, key })
    }

    /// For whom it signs.
    pub const fn kind(&self) -> AuthorityKind {
        self.kind
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Its own certificate.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// For what is signed beside certificates.
    pub(crate) const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// All it ever signed, its own certificate first.
    pub fn journal(&self) -> Result<Journal, PkiError> {
        journal::read(&self.dir)
    }

    /// From an hour ago, but not before `not_before`, until `lifetime` from now, within the CA's own life: what outlives its CA is refused anyhow, and
    /// the date would be a lie (cert-manager#5864).
    pub(crate) fn validity(
        &self,
        lifetime: Duration,
        not_before: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<(OffsetDateTime, OffsetDateTime), PkiError> {
        let facts = self.certificate.facts();
        if lifetime < Duration::MINUTE {
            return Err(PkiError::Lifetime { seconds: lifetime.whole_seconds() });
        }
        let wanted = now.checked_add(lifetime).unwrap_or(facts.not_after);
        let not_after = wanted.min(facts.not_after);
        if not_after < now.saturating_add(Duration::MINUTE) {
            return Err(PkiError::AuthorityExpired { dir: self.dir.clone(), not_after: facts.not_after });
        }
        let backdated = now.saturating_sub(profile::BACKDATE).max(facts.not_before);
        Ok((not_before.map_or(backdated, |earliest| backdated.max(earliest)), not_after))
    }

    /// Signs a leaf. Neither verified nor recorded yet: `issue` does both.
    pub(crate) fn sign(&self, draft: Draft<'_>) -> Result<Certificate, PkiError> {
        let facts = self.certificate.facts();
        let key_id = match &facts.subject_key_id {
            Some(id) => id.clone(),
            None => profile::key_id(&facts.spki_der)?,
        };
        let issuer = Issuer { name: Name::from_der(facts.subject.der())?, key_id };
        signer::sign(draft.builder(issuer)?, &self.key)
    }

    pub(crate) fn record(&self, name: &str, certificate: &Certificate) -> Result<JournalEntry, PkiError> {
        let entry = JournalEntry::new(EntryKind::issued_by(self.kind), name, certificate);
        journal::append(&self.dir, &entry)?;
        Ok(entry)
    }

    pub(crate) fn expect_kind(&self, wanted: AuthorityKind) -> Result<(), PkiError> {
        if self.kind == wanted {
            return Ok(());
        }
        Err(PkiError::WrongAuthority { dir: self.dir.clone(), wanted, found: self.kind })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("dir", &self.dir).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// A certificate as one PEM block, without text before it.
pub(crate) fn pem(certificate: &Certificate) -> Result<String, PkiError> {
    pem_rfc7468::encode_string("CERTIFICATE", LineEnding::LF, certificate.der())
        .map_err(|_| PkiError::Crypto { doing: "encode a certificate" })
}

fn self_signed(
    request: &AuthorityRequest<'_>,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<(String, Certificate), PkiError> {
    let common_name = common_name(request.kind, request.label, &files::random_hex()?);
    let subject = profile::subject(Some(&common_name))?;
    let constraints = if request.permitted.is_empty() { None } else { Some(constraints::permit(&request.permitted)?) };
    let draft = Draft {
        profile: &profile::CA,
        subject: subject.clone(),
        alt_names: Vec::new(),
        spki_der: key.spki_der(),
        not_before: now.saturating_sub(profile::BACKDATE),
        not_after: now.saturating_add(profile::CA.lifetime),
        constraints,
    };
    let issuer = Issuer { name: subject, key_id: profile::key_id(key.spki_der())? };
    let certificate = signer::sign(draft.builder(issuer)?, key)?;
    verify::authority(&certificate, key, request.kind, now)?;
    Ok((common_name, certificate))
}

/// At most 64 characters (RFC 5280 appendix A), of which the label has what is left.
fn common_name(kind: AuthorityKind, label: &str, generation: &str) -> String {
    let prefix = format!("Portcullis {kind} CA");
    let room = 64 - prefix.len() - generation.len() - 2;
    let label: String = label.chars().filter(|c| !c.is_control()).take(room).collect();
    [prefix.as_str(), label.trim(), generation]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn read_one(path: &Path) -> Result<Certificate, PkiError> {
    let (mut certificates, mut findings) = portcullis_certs::pem::read_certificates(path);
    match (certificates.len(), certificates.pop()) {
        (1, Some(certificate)) => return Ok(certificate),
        (0, _) => {}
        (count, _) => {
            findings.push(Finding::new(path, Severity::Fatal, Fault::NotOneCertificate { count }));
        }
    }
    Err(PkiError::Files { findings })
}

/// Whether anything has that name, a link to nothing included.
fn is_there(path: &Path) -> Result<bool, PkiError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PkiError::io("look at", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_fits_and_keeps_its_generation() {
        assert_eq!(
            common_name(AuthorityKind::Client, "registry.test", "0123abcd"),
            "Portcullis client CA registry.test 0123abcd"
        );
        assert_eq!(common_name(AuthorityKind::Server, "", "0123abcd"), "Portcullis server CA 0123abcd");
        let long = common_name(AuthorityKind::Server, &"é\n".repeat(80), "0123abcd");
        assert!(long.chars().count() <= 64 && long.ends_with(" 0123abcd") && !long.contains('\n'), "{long}");
    }
}
