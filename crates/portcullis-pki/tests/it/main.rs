//! The crate against other people's programs and real directories.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod authority;
mod crl;
mod install;
mod issue;
mod revoke;
mod trust;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use portcullis_pki::{Authority, AuthorityKind, ClientRequest, KeyAlgorithm, PkiError, issue_client};
use time::OffsetDateTime;

/// The lower bits of a file's mode.
fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The real clock: `openssl verify` has no other.
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn create(dir: &Path, kind: AuthorityKind) -> Result<Authority, PkiError> {
    Authority::create(dir, kind, "registry.test", KeyAlgorithm::P256, now())
}

/// A client's directory as `cert new client` leaves it, with a new key.
fn client_directory(dir: &Path) {
    let pki = tempfile::tempdir().unwrap();
    let server_ca = create(&pki.path().join("server-ca"), AuthorityKind::Server).unwrap();
    let client_ca = create(&pki.path().join("client-ca"), AuthorityKind::Client).unwrap();
    let issued = issue_client(&client_ca, &ClientRequest::new("ci-7".parse().unwrap()), now()).unwrap();
    issued.write_client(dir, server_ca.certificate()).unwrap();
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
