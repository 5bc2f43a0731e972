//! Issuing: what is asked for in, a verified certificate with its key out, and the files of both.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_certs::Certificate;
use time::{Duration, OffsetDateTime};
use x509_cert::der::asn1::Ia5String;
use x509_cert::ext::pkix::name::GeneralName;

use crate::authority::pem;
use crate::journal::JournalEntry;
use crate::profile::{self, Draft};
use crate::{
    Authority, AuthorityKind, ClientName, KeyAlgorithm, KeyPair, PkiError, ServerName, TrustDomain, constraints, files,
    verify,
};

/// A registry's certificate, asked for.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// Every name and address that clients type; at least one. The first DNS name is the common name too, which nobody
    /// checks.
    pub names: Vec<ServerName>,
    /// Its key.
    pub key: KeySource,
    /// How long from now; cut to the CA's own life. A minute at least.
    pub lifetime: Duration,
}

/// A client's certificate, asked for.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// Who it is: the common name.
    pub name: ClientName,
    /// Its key.
    pub key: KeySource,
    /// How long from now; cut to the CA's own life. A minute at least.
    pub lifetime: Duration,
    /// The earliest start of its life, where backdating would go beyond it: the latest cut-off of the deny list.
    pub not_before: Option<OffsetDateTime>,
    /// With one, the certificate has the URI `spiffe://<trust domain>/host/<name>`; without, it has no alternative name.
    pub trust_domain: Option<TrustDomain>,
}

/// Where the key of a new certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A new one.
    Generate(KeyAlgorithm),
    /// One of our own that is there: a renewal keeps the key, so that one file changes and no reader ever sees a pair
    /// that does not fit.
    Existing(PathBuf),
}

/// A certificate that was issued, verified and recorded, and that is not in a file yet.
pub struct Issued {
    certificate: Certificate,
    entry: JournalEntry,
    key: KeyPair,
}

impl ServerRequest {
    /// With a new P-256 key, for 90 days.
    pub fn new(names: Vec<ServerName>) -> Self {
        Self { names, key: KeySource::Generate(KeyAlgorithm::P256), lifetime: profile::SERVER.lifetime }
    }
}

impl ClientRequest {
    /// With a new P-256 key, for 90 days, without a SPIFFE id.
    pub fn new(name: ClientName) -> Self {
        let key = KeySource::Generate(KeyAlgorithm::P256);
        Self { name, key, lifetime: profile::CLIENT.lifetime, not_before: None, trust_domain: None }
    }
}

impl KeySource {
    /// The key at `path` if there is one, else a new one: what completes a creation that was interrupted between the key
    /// and its certificate.
    pub fn at(path: PathBuf, otherwise: KeyAlgorithm) -> Self {
        if fs::symlink_metadata(&path).is_ok() { Self::Existing(path) } else { Self::Generate(otherwise) }
    }

    fn key(&self) -> Result<KeyPair, PkiError> {
        match self {
            Self::Generate(algorithm) => KeyPair::generate(*algorithm),
            Self::Existing(path) => KeyPair::load(path),
        }
    }
}

/// Issues a registry's certificate.
///
/// # Errors
/// [`PkiError::WrongAuthority`] when `authority` is not a server CA; [`PkiError::NoNames`],
/// [`PkiError::OutsideConstraints`], [`PkiError::Lifetime`], [`PkiError::AuthorityExpired`] before anything is signed;
/// [`PkiError::Unverified`] when the result would be refused. In none of these cases is anything recorded or written.
pub fn issue_server(authority: &Authority, request: &ServerRequest, now: OffsetDateTime) -> Result<Issued, PkiError> {
    authority.expect_kind(AuthorityKind::Server)?;
    let names = without_repeats(&request.names);
    let first = names.first().ok_or(PkiError::NoNames)?.to_string();
    let outside = constraints::outside(authority.certificate(), &names)?;
    if !outside.is_empty() {
        return Err(PkiError::OutsideConstraints { names: outside });
    }
    let (not_before, not_after) = authority.validity(request.lifetime, None, now)?;
    let key = request.key.key()?;
    let certificate = authority.sign(Draft {
        profile: &profile::SERVER,
        subject: profile::subject(server_common_name(&names).as_deref())?,
        alt_names: names.iter().map(profile::server_alt_name).collect::<Result<_, _>>()?,
        spki_der: key.spki_der(),
        not_before,
        not_after,
        constraints: None,
    })?;
    verify::server(&certificate, authority.certificate(), &names, now)?;
    verify::belongs(&certificate, &key)?;
    let entry = authority.record(&first, &certificate)?;
    Ok(Issued { certificate, entry, key })
}

/// Issues a client's certificate.
///
/// # Errors
/// [`PkiError::WrongAuthority`] when `authority` is not a client CA, and otherwise as [`issue_server`].
pub fn issue_client(authority: &Authority, request: &ClientRequest, now: OffsetDateTime) -> Result<Issued, PkiError> {
    authority.expect_kind(AuthorityKind::Client)?;
    let (not_before, not_after) = authority.validity(request.lifetime, request.not_before, now)?;
    let id = request.trust_domain.as_ref().map(|domain| domain.host_id(&request.name));
    let uri = |id: String| Ok::<_, PkiError>(GeneralName::UniformResourceIdentifier(Ia5String::new(&id)?));
    let key = request.key.key()?;
    let certificate = authority.sign(Draft {
        profile: &profile::CLIENT,
        subject: profile::subject(Some(request.name.as_str()))?,
        alt_names: id.map(uri).transpose()?.into_iter().collect(),
        spki_der: key.spki_der(),
        not_before,
        not_after,
        constraints: None,
    })?;
    verify::client(&certificate, authority.certificate(), now)?;
    verify::belongs(&certificate, &key)?;
    let entry = authority.record(request.name.as_str(), &certificate)?;
    Ok(Issued { certificate, entry, key })
}

impl Issued {
    /// The certificate.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its line in the journal.
    pub const fn entry(&self) -> &JournalEntry {
        &self.entry
    }

    /// Writes `server.crt` (0644) and `server.key` (0600) into `dir`, made with 0700 if it is missing. The root is in no
    /// chain: who does not have it already does not trust it either.
    ///
    /// An older `server.crt` for the same key is replaced in one step; a key is never overwritten.
    ///
    /// # Errors
    /// [`PkiError::KeyExists`] when another key is there.
    pub fn write_server(&self, dir: &Path) -> Result<(), PkiError> {
        files::create_dir(dir, files::PRIVATE_DIR)?;
        self.write_key(&dir.join("server.key"))?;
        files::replace(&dir.join("server.crt"), pem(&self.certificate)?.as_bytes(), files::PUBLIC)
    }

    /// Writes what Docker wants of a host's directory into `dir`: `ca.crt` (the registry's CA, which is not the one that
    /// issued this certificate), `client.cert` (both 0644) and `client.key` (0600); the directory 0700.
    ///
    /// # Errors
    /// [`PkiError::KeyExists`] when another key is there.
    pub fn write_client(&self, dir: &Path, server_ca: &Certificate) -> Result<(), PkiError> {
        files::create_dir(dir, files::PRIVATE_DIR)?;
        self.write_key(&dir.join("client.key"))?;
        files::replace(&dir.join("ca.crt"), pem(server_ca)?.as_bytes(), files::PUBLIC)?;
        files::replace(&dir.join("client.cert"), pem(&self.certificate)?.as_bytes(), files::PUBLIC)
    }

    fn write_key(&self, path: &Path) -> Result<(), PkiError> {
        match files::write_new(path, self.key.to_pem()?.as_bytes(), files::SECRET) {
            Err(PkiError::Exists { .. }) => {}
            written => return written,
        }
        if KeyPair::load(path)?.spki_der() == self.key.spki_der() {
            return Ok(());
        }
        Err(PkiError::KeyExists { path: path.to_owned() })
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("entry", &self.entry).finish_non_exhaustive()
    }
}

fn without_repeats(names: &[ServerName]) -> Vec<ServerName> {
    let mut seen = HashSet::new();
    names.iter().filter(|name| seen.insert(*name)).cloned().collect()
}

/// The first DNS name, else the first address; one that does not fit into a common name is passed over.
fn server_common_name(names: &[ServerName]) -> Option<String> {
    let fits = |name: &&ServerName| name.to_string().len() <= 64;
    let dns = names.iter().filter(fits).find(|name| name.dns().is_some());
    dns.or_else(|| names.iter().find(fits)).map(ToString::to_string)
}
