//! Writing the server's `trust/` directory: `trust add`, `trust list`, `trust remove`.
//!
//! The names and the grammar of the directory belong to `portcullis-certs`, what may stand as a CA to `portcullis-tls`.
//! Here is the question in between: an `openssl req -x509` CA and the Docker page's client certificate have the same
//! shape, and to take the second for the first admits everybody who has its key sign something.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use portcullis_certs::trust_dir::TrustDir;
use portcullis_certs::{Certificate, Fault, Finding, Fingerprint, Severity, ShellCommand};
use portcullis_tls::{CaFault, TrustStore, TrustedBy, gate};
use time::OffsetDateTime;

use crate::authority::pem;
use crate::name::{is_name_character, is_safe_name};
use crate::{PkiError, files};

/// What `--as` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustRole {
    /// Nothing was said: a pin where that is the safe reading, an error that shows both commands elsewhere.
    #[default]
    Auto,
    /// Everybody whom it signs.
    Ca,
    /// Exactly this certificate.
    Pin,
}

/// What a trusted file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// In `cas/`.
    Ca,
    /// In `pins/`.
    Pin,
}

/// One file of `trust/`.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// Its name; a pin's identity is `pin:<name>`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Where.
    pub path: PathBuf,
    /// One for a pin, one or more for a CA.
    pub certificates: Vec<Certificate>,
}

/// What `add` did.
#[derive(Debug, Clone)]
pub struct Added {
    /// What is trusted now.
    pub trusted: Trusted,
    /// It was before: nothing was written.
    pub already: bool,
}

/// Trusts the certificates of `file` under `name`, or the file's stem.
///
/// With [`TrustRole::Auto`], a certificate that is no CA, and a self-signed one without keyCertSign (what the Docker
/// page's recipe makes), becomes a pin. The name is never taken from the certificate's subject unless the file's name
/// has no usable character: a pin's name gives rights, and whoever made the certificate chose the subject.
///
/// ```
/// use portcullis_certs::trust_dir::TrustDir;
/// use portcullis_pki::trust::{TrustRole, add};
/// # let home = tempfile::tempdir()?;
/// # let now = time::OffsetDateTime::now_utc();
/// # use portcullis_pki::{Authority, AuthorityKind, KeyAlgorithm};
/// # let file = home.path().join("pki/ca.crt");
/// # Authority::create(&home.path().join("pki"), AuthorityKind::Client, "doc", KeyAlgorithm::P256, now)?;
///
/// let trust = TrustDir::new(home.path().join("trust"));
/// assert!(add(&trust, &file, TrustRole::Auto, None, now).is_err(), "a CA: the operator has to say so");
/// let added = add(&trust, &file, TrustRole::Ca, Some("hosts"), now)?;
/// assert_eq!(added.trusted.path, trust.root.join("cas/hosts.crt"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PkiError::RoleNeeded`] for any other CA, with both commands; [`PkiError::Untrustworthy`] with every reason;
/// [`PkiError::PinNeedsOne`]; [`PkiError::TrustNameTaken`] for a different certificate under that name, and
/// [`PkiError::AlreadyPinned`] for the same one under another.
pub fn add(
    trust: &TrustDir,
    file: &Path,
    role: TrustRole,
    name: Option<&str>,
    now: OffsetDateTime,
) -> Result<Added, PkiError> {
    let certificates = read_all(file)?;
    let role = decide(role, file, &certificates, name)?;
    let name = choose_name(file, &certificates, name)?;
    let path = match role {
        Role::Ca => trust.ca_path(&name)?,
        Role::Pin => trust.pin_path(&name)?,
    };
    let trusted = Trusted { name, role, path, certificates };
    if is_there_already(trust, &trusted)? {
        return Ok(Added { trusted, already: true });
    }
    let faults = faults(&trusted, now);
    if !faults.is_empty() {
        return Err(PkiError::Untrustworthy { path: file.to_owned(), role, faults });
    }
    let text = trusted.certificates.iter().map(pem).collect::<Result<String, _>>()?;
    files::create_dir(trusted.path.parent().unwrap_or(&trust.root), files::PRIVATE_DIR)?;
    files::write_new(&trusted.path, text.as_bytes(), files::PUBLIC)?;
    Ok(Added { trusted, already: false })
}

/// Everything that is trusted, CAs first, with all that is wrong in the directory.
pub fn list(trust: &TrustDir) -> (Vec<Trusted>, Vec<Finding>) {
    let (read, findings) = trust.read();
    let ca = |ca: portcullis_certs::trust_dir::CaFile| Trusted {
        name: ca.name,
        role: Role::Ca,
        path: ca.path,
        certificates: ca.certificates,
    };
    let pin = |pin: portcullis_certs::trust_dir::PinFile| Trusted {
        name: pin.name,
        role: Role::Pin,
        path: pin.path,
        certificates: vec![pin.certificate],
    };
    (read.cas.into_iter().map(ca).chain(read.pins.into_iter().map(pin)).collect(), findings)
}

/// What `remove` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// Certificates that were pinned, and that a CA in `trust/cas` issued, by its name there: they are let in all the same
    /// from now on, with the rights of that CA's clients.
    pub still_let_in: Vec<(Fingerprint, String)>,
}

/// Trusts the file of this name no longer at `now`, whether it can be read or not.
///
/// # Errors
/// [`PkiError::NotTrusted`] with the names there are: a misspelled name must not look like success.
pub fn remove(trust: &TrustDir, name: &str, now: OffsetDateTime) -> Result<Removed, PkiError> {
    let paths = [trust.ca_path(name), trust.pin_path(name)];
    let found: Vec<PathBuf> =
        paths.into_iter().flatten().filter(|path| std::fs::symlink_metadata(path).is_ok()).collect();
    if found.is_empty() {
        let known = list(trust).0.into_iter().map(|trusted| trusted.name).collect();
        return Err(PkiError::NotTrusted { name: name.chars().take(300).collect(), known });
    }
    let (before, _) = trust.read();
    found.iter().try_for_each(|path| files::remove(path))?;
    // What cannot be read is not there for the server either.
    let (files, _) = trust.read();
    let (store, _) = TrustStore::build(&files, now);
    let pinned = before.pins.iter().filter(|pin| found.contains(&pin.path)).map(|pin| &pin.certificate);
    let still_let_in = pinned.filter_map(|certificate| {
        let accepted = store.judge(std::slice::from_ref(certificate.der()), now).ok()?;
        match accepted.identity().trusted_by() {
            TrustedBy::Ca(ca) => Some((certificate.fingerprint(), ca.clone())),
            TrustedBy::Pin(_) => None,
        }
    });
    Ok(Removed { still_let_in: still_let_in.collect(), paths: found })
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "ca",
            Self::Pin => "pin",
        })
    }
}

/// The file, whole: half of it would be a trust that nobody asked for. A private key among the certificates is passed over,
/// for nothing but the certificates is copied.
fn read_all(file: &Path) -> Result<Vec<Certificate>, PkiError> {
    let (certificates, mut findings) = portcullis_certs::pem::read_certificates(file);
    if !certificates.is_empty() {
        findings.retain(|finding| finding.severity > Severity::Note && finding.fault != Fault::KeyAmongCertificates);
        if findings.is_empty() {
            return Ok(certificates);
        }
    }
    Err(PkiError::Files { findings })
}

fn decide(role: TrustRole, file: &Path, certificates: &[Certificate], name: Option<&str>) -> Result<Role, PkiError> {
    let count = certificates.len();
    match role {
        TrustRole::Ca => Ok(Role::Ca),
        TrustRole::Pin if count == 1 => Ok(Role::Pin),
        TrustRole::Auto if count == 1 && certificates.iter().all(is_pin_by_itself) => Ok(Role::Pin),
        TrustRole::Auto if certificates.iter().any(|certificate| certificate.facts().is_ca == Some(true)) => {
            let as_pin = (count == 1).then(|| command(file, "pin", name));
            Err(PkiError::RoleNeeded { path: file.to_owned(), as_ca: command(file, "ca", name), as_pin })
        }
        TrustRole::Auto | TrustRole::Pin => Err(PkiError::PinNeedsOne { path: file.to_owned(), count }),
    }
}

/// It says that it is no CA, or says nothing about signing and is nobody's but its own: the Docker page's recipe.
fn is_pin_by_itself(certificate: &Certificate) -> bool {
    let facts = certificate.facts();
    let may_sign = facts.key_usage.is_some_and(|usage| usage.key_cert_sign);
    facts.is_ca != Some(true) || (facts.self_signed && !may_sign)
}

fn command(file: &Path, role: &str, name: Option<&str>) -> ShellCommand {
    let mut argv: Vec<OsString> = ["portcullis", "trust", "add"].map(OsString::from).to_vec();
    argv.push(file.into());
    argv.extend(["--as", role].map(OsString::from));
    argv.extend(name.into_iter().flat_map(|name| ["--name", name]).map(OsString::from));
    ShellCommand::new(argv)
}

fn choose_name(file: &Path, certificates: &[Certificate], name: Option<&str>) -> Result<String, PkiError> {
    let chosen = name.map_or_else(|| default_name(file, certificates), str::to_owned);
    if is_safe_name(&chosen) {
        Ok(chosen)
    } else {
        Err(PkiError::TrustName { text: chosen.chars().take(300).collect() })
    }
}

fn default_name(file: &Path, certificates: &[Certificate]) -> String {
    let stem = made_safe(&file.file_stem().unwrap_or_default().to_string_lossy());
    let common_name =
        || certificates.first().and_then(|certificate| certificate.facts().subject.common_name()).map(made_safe);
    if stem.is_empty() { common_name().unwrap_or_default() } else { stem }
}

fn made_safe(text: &str) -> String {
    let safe: String = text.chars().map(|c| if is_name_character(c) { c } else { '-' }).collect();
    let safe = safe.trim_start_matches(['.', '-']).trim_end_matches(['.', '-']);
    safe.chars().take(64).collect()
}

/// # Errors
/// When the name, or the pin, is another's.
fn is_there_already(trust: &TrustDir, wanted: &Trusted) -> Result<bool, PkiError> {
    let (present, _) = list(trust);
    if let Some(same) = present.iter().find(|present| present.name == wanted.name) {
        if same.role == wanted.role && same.certificates == wanted.certificates {
            return Ok(true);
        }
        return Err(name_taken(&wanted.name, same.role, &same.path));
    }
    for (role, path) in [(Role::Ca, trust.ca_path(&wanted.name)?), (Role::Pin, trust.pin_path(&wanted.name)?)] {
        // There, and not readable: it is still somebody's.
        if std::fs::symlink_metadata(&path).is_ok() {
            return Err(name_taken(&wanted.name, role, &path));
        }
    }
    let is_same_pin = |present: &&Trusted| {
        (present.role, wanted.role) == (Role::Pin, Role::Pin) && present.certificates == wanted.certificates
    };
    match present.iter().find(is_same_pin) {
        Some(same) => Err(PkiError::AlreadyPinned { name: same.name.clone(), path: same.path.clone() }),
        None => Ok(false),
    }
}

fn name_taken(name: &str, role: Role, path: &Path) -> PkiError {
    PkiError::TrustNameTaken { name: name.to_owned(), role, path: path.to_owned() }
}

/// A CA must pass the server's gate. A pin must be of use: the server leaves an expired one out, and no handshake with a
/// key that TLS does not take any more can succeed.
fn faults(trusted: &Trusted, now: OffsetDateTime) -> Vec<CaFault> {
    let all = trusted.certificates.iter().flat_map(|certificate| gate(certificate, now));
    match trusted.role {
        Role::Ca => all.collect(),
        Role::Pin => all.filter(|fault| matches!(fault, CaFault::Expired { .. } | CaFault::Key { .. })).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_becomes_a_safe_name() {
        let check = |text, expected: &str| assert_eq!(made_safe(text), expected, "{text}");
        check("alice", "alice");
        check("Alice B. (laptop)", "Alice-B.--laptop");
        check("..", "");
        check("--as", "as");
        check("pin:admin/../x", "pin-admin-..-x");
        check("Zoë\u{202e}", "Zo");
        check(&"x".repeat(80), &"x".repeat(64));
    }
}
