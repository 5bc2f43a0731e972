//! `cert lint` and `cert show`: files without a registry.

use crate::machine::lasting;
use portcullis_certs::pem;
use portcullis_doctor::{lint, view};
use portcullis_testkit::pki::{Authority, LeafSpec, recipe_shaped, write_file};
use std::fs;
use std::path::Path;
use time::OffsetDateTime;

fn codes(path: &Path) -> Vec<&'static str> {
    lint(path, OffsetDateTime::now_utc()).iter().map(|finding| finding.code).collect()
}

/// What a linter of the public web's rules would find nothing in.
#[test]
fn good_files_stay_without_findings() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("a CA");
    ca.write_ca(dir.path());
    let issuing = ca.intermediate("issuing CA");
    issuing.issue(&lasting("ci-7")).write_pair(dir.path(), "client");
    assert_eq!(codes(dir.path()), [""; 0]);
    for name in ["ca.crt", "client.cert", "client.key"] {
        assert_eq!(codes(&dir.path().join(name)), [""; 0], "{name}");
    }
}

#[test]
fn a_directory_is_read_as_engines_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("a CA");
    let (one, other) = (ca.issue(&lasting("one")), ca.issue(&lasting("other")));
    one.write_pair(dir.path(), "client");
    fs::write(dir.path().join("client.key"), other.key_pem()).unwrap();
    write_file(&dir.path().join("orphan.key"), other.key_pem().as_bytes(), 0o600);
    write_file(&dir.path().join("ca.pem"), ca.cert_pem().as_bytes(), 0o644);
    assert_eq!(codes(dir.path()), ["D31", "D21", "D23"]);
}

#[test]
fn a_file_is_linted_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let ca = Authority::expired("old CA");
    ca.write_ca(dir.path());
    assert_eq!(codes(&at("ca.crt")), ["D41"]);
    fs::write(at("x.cert"), recipe_shaped("alice").cert_der()).unwrap();
    assert_eq!(codes(&at("x.cert")), ["D26"]);
    fs::write(at("x.key"), "").unwrap();
    assert_eq!(codes(&at("x.key")), ["D26"]);
    assert_eq!(codes(&at("gone.crt")), ["D36"]);
}

#[test]
fn a_certificate_in_words() {
    let now = OffsetDateTime::now_utc();
    let seen = |text: &str| {
        let (certificates, _) = pem::certificates(text.as_bytes(), Path::new("x"));
        view(&certificates[0], now)
    };
    let ca = Authority::new("a CA");
    assert_eq!(seen(&ca.cert_pem()).role, "a root CA");
    assert_eq!(seen(&ca.intermediate("i").cert_pem()).role, "an intermediate CA");
    let client = seen(&ca.issue(&lasting("ci-7")).cert_pem());
    assert_eq!((client.role.as_str(), client.validity.as_str()), ("a client", "for another 89 days"));
    assert_eq!(client.odd, [""; 0]);
    assert_eq!(seen(&ca.server(&["r.test"], &[]).cert_pem()).role, "a server");
    let expired = seen(&ca.issue(&LeafSpec::client("x").expired()).cert_pem());
    assert_eq!(expired.odd, ["expired 1 day ago"]);
    let nameless = seen(&ca.server(&[], &[]).cert_pem());
    assert!(nameless.odd.iter().any(|odd| odd.contains("without a name")), "{:?}", nameless.odd);
    assert!(seen(&recipe_shaped("alice").cert_pem()).role.contains("Docker's page"));
}
