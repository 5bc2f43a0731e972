//! What we issue, judged by OpenSSL and by webpki.

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_certs::{AltName, Certificate};
use portcullis_pki::{Authority, AuthorityKind, ClientRequest, EntryKind, Issued, KeyAlgorithm, KeySource, PkiError};
use portcullis_pki::{ServerRequest, issue_client, issue_server};
use portcullis_testkit::pki::openssl;
use rustls_pki_types::UnixTime;
use time::{Duration, OffsetDateTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{create, mode, names, now};

fn server(names: &[&str]) -> ServerRequest {
    ServerRequest::new(names.iter().map(|name| name.parse().unwrap()).collect())
}

fn client(name: &str) -> ClientRequest {
    ClientRequest::new(name.parse().unwrap())
}

/// `openssl verify`, which says more on its standard output than its exit code does.
fn openssl_takes(purpose: &str, ca: &Path, certificate: &Path) -> bool {
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(ca).arg(certificate);
    verify.output().unwrap().status.success()
}

fn webpki_takes(usage: KeyUsage, ca: &Certificate, certificate: &Certificate) -> Result<(), webpki::Error> {
    let anchors = [anchor_from_trusted_cert(ca.der()).unwrap()];
    let seconds = u64::try_from(now().unix_timestamp()).unwrap();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let certificate = EndEntityCert::try_from(certificate.der())?;
    certificate.verify_for_usage(algorithms, &anchors, &[], time, usage, None, None).map(|_| ())
}

fn check_server(ca: &Authority, issued: &Issued, dir: &Path) {
    issued.write_server(dir).unwrap();
    let ca_file = ca.directory().join("ca.crt");
    assert!(openssl_takes("sslserver", &ca_file, &dir.join("server.crt")));
    assert!(!openssl_takes("sslclient", &ca_file, &dir.join("server.crt")));
    webpki_takes(KeyUsage::server_auth(), ca.certificate(), issued.certificate()).unwrap();
    webpki_takes(KeyUsage::client_auth(), ca.certificate(), issued.certificate()).unwrap_err();
}

fn check_client(ca: &Authority, issued: &Issued, dir: &Path) {
    issued.write_client(dir, ca.certificate()).unwrap();
    let ca_file = ca.directory().join("ca.crt");
    assert!(openssl_takes("sslclient", &ca_file, &dir.join("client.cert")));
    assert!(!openssl_takes("sslserver", &ca_file, &dir.join("client.cert")));
    webpki_takes(KeyUsage::client_auth(), ca.certificate(), issued.certificate()).unwrap();
    webpki_takes(KeyUsage::server_auth(), ca.certificate(), issued.certificate()).unwrap_err();
}

/// Every kind of CA with every kind of leaf. Each leaf's key is made once and kept, as a renewal does.
#[test]
fn every_algorithm_passes_openssl_and_webpki() {
    let home = tempfile::tempdir().unwrap();
    for ca_algorithm in KeyAlgorithm::ALL {
        let authority = |kind: AuthorityKind| {
            let dir = home.path().join(format!("{kind}-ca-{ca_algorithm}"));
            Authority::create(&dir, kind, "registry.test", ca_algorithm, now()).unwrap()
        };
        let (server_ca, client_ca) = (authority(AuthorityKind::Server), authority(AuthorityKind::Client));
        for algorithm in KeyAlgorithm::ALL {
            let dir = home.path().join(algorithm.as_str());
            let key = KeySource::at(dir.join("server.key"), algorithm);
            let request =
                ServerRequest { key, ..server(&["registry.test", "*.registry.test", "10.77.0.1", "fd00::1"]) };
            check_server(&server_ca, &issue_server(&server_ca, &request, now()).unwrap(), &dir);
            let key = KeySource::Existing(dir.join("server.key"));
            let request = ClientRequest { key, ..client("ci-7") };
            check_client(&client_ca, &issue_client(&client_ca, &request, now()).unwrap(), &dir);
        }
    }
}

#[test]
fn a_server_certificate_is_what_the_profile_says() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Server).unwrap();
    let request = server(&["10.77.0.1", "registry.test", "Registry.Test.", "*.registry.test", "fd00::1"]);
    let issued = issue_server(&ca, &request, now()).unwrap();
    let facts = issued.certificate().facts();
    assert_eq!(facts.subject.common_name(), Some("registry.test"));
    let expected = [
        AltName::Ip("10.77.0.1".parse().unwrap()),
        AltName::Dns("registry.test".to_owned()),
        AltName::Dns("*.registry.test".to_owned()),
        AltName::Ip("fd00::1".parse().unwrap()),
    ];
    assert_eq!(facts.alt_names, expected);
    assert_eq!((facts.is_ca, facts.path_len), (Some(false), None));
    let usage = facts.key_usage.unwrap();
    assert!(usage.digital_signature && !usage.key_cert_sign && !usage.key_encipherment);
    let purposes = facts.extended_key_usage.as_ref().unwrap();
    assert!(purposes.server_auth && !purposes.client_auth && !purposes.any && purposes.others.is_empty());
    assert_eq!(facts.issuer, ca.certificate().facts().subject);
    assert_eq!(facts.authority_key_id, ca.certificate().facts().subject_key_id);
    assert!(facts.subject_key_id.is_some());
    assert_eq!(facts.serial.as_octets().len(), 16);

    issued.write_server(home.path()).unwrap();
    let text = openssl::run(home.path(), &["x509", "-in", "server.crt", "-noout", "-text"]);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("X509v3 Key Usage: critical\n                Digital Signature\n"), "{text}");
    assert!(!text.contains("CRL Distribution") && !text.contains("Authority Information Access"), "{text}");
}

#[test]
fn a_server_known_by_address_only_has_a_common_name_too() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Server).unwrap();
    let issued = issue_server(&ca, &server(&["10.77.0.1"]), now()).unwrap();
    assert_eq!(issued.certificate().facts().subject.common_name(), Some("10.77.0.1"));
    // A name of 65 characters and more fits into no common name; openssl -x509_strict wants the SAN critical then.
    let long = format!("{}.{}.test", "a".repeat(40), "b".repeat(40));
    let issued = issue_server(&ca, &server(&[&long]), now()).unwrap();
    assert_eq!(issued.certificate().facts().subject.common_name(), None);
    check_server(&ca, &issued, &home.path().join("long"));
}

#[test]
fn a_client_certificate_names_its_client() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Client).unwrap();
    let plain = issue_client(&ca, &client("ci-7"), now()).unwrap();
    assert_eq!(plain.certificate().facts().subject.to_string(), "CN=ci-7");
    assert_eq!(plain.certificate().facts().alt_names, []);
    let request = ClientRequest { trust_domain: Some("example.com".parse().unwrap()), ..client("ci-7") };
    let named = issue_client(&ca, &request, now()).unwrap();
    let uri = AltName::Uri("spiffe://example.com/host/ci-7".to_owned());
    assert_eq!(named.certificate().facts().alt_names, [uri]);
}

#[test]
fn is_backdated_and_never_outlives_its_authority() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Client).unwrap();
    let (start, end) = (ca.certificate().facts().not_before, ca.certificate().facts().not_after);
    let life = |lifetime: Duration, now: OffsetDateTime| {
        let issued = issue_client(&ca, &ClientRequest { lifetime, ..client("ci-7") }, now).unwrap();
        (issued.certificate().facts().not_before, issued.certificate().facts().not_after)
    };
    let later = start + Duration::days(30);
    assert_eq!(life(Duration::days(90), later), (later - Duration::HOUR, later + Duration::days(90)));
    assert_eq!(life(Duration::days(9000), later), (later - Duration::HOUR, end));
    assert_eq!(life(Duration::MAX, later), (later - Duration::HOUR, end));
    // Not before its authority either.
    assert_eq!(life(Duration::HOUR, start), (start, start + Duration::HOUR));
    let last = end - Duration::days(1);
    assert_eq!(life(Duration::days(90), last).1, end);

    let issue = |lifetime, now| issue_client(&ca, &ClientRequest { lifetime, ..client("ci-7") }, now).unwrap_err();
    assert!(matches!(issue(Duration::days(1), end), PkiError::AuthorityExpired { .. }));
    assert!(matches!(issue(Duration::ZERO, later), PkiError::Lifetime { seconds: 0 }));
    assert!(matches!(issue(Duration::days(-1), later), PkiError::Lifetime { .. }));
    assert!(matches!(issue(Duration::MIN, later), PkiError::Lifetime { .. }));
    // Before the authority's own time nobody would take it, and we say so before anything is recorded.
    let recorded = ca.journal().unwrap().entries.len();
    assert!(matches!(issue(Duration::days(1), start - Duration::days(9)), PkiError::Unverified { .. }));
    assert_eq!(ca.journal().unwrap().entries.len(), recorded);
}

#[test]
fn a_server_without_a_name_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Server).unwrap();
    assert!(matches!(issue_server(&ca, &server(&[]), now()), Err(PkiError::NoNames)));
}

#[test]
fn the_journal_has_a_line_for_each() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Client).unwrap();
    let issued = ["ci-7", "ci-8", "ci-7"].map(|name| issue_client(&ca, &client(name), now()).unwrap());
    let journal = ca.journal().unwrap();
    let of_leaves = &journal.entries[1..];
    assert_eq!(of_leaves.iter().collect::<Vec<_>>(), issued.iter().map(Issued::entry).collect::<Vec<_>>());
    for (entry, issued) in of_leaves.iter().zip(&issued) {
        let facts = issued.certificate().facts();
        assert_eq!(entry.kind, EntryKind::Client);
        assert_eq!((entry.fingerprint, &entry.serial), (issued.certificate().fingerprint(), &facts.serial));
        assert_eq!((entry.not_before, entry.not_after), (facts.not_before, facts.not_after));
    }
    let lines = fs::read_to_string(home.path().join("issued.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    assert!(lines.lines().nth(2).unwrap().starts_with(r#"{"name":"ci-8","kind":"client","serial":""#), "{lines}");
}

#[test]
fn a_client_directory_is_a_docker_host_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("clients/ci-7");
    crate::client_directory(&dir);
    assert_eq!(names(&dir), ["ca.crt", "client.cert", "client.key"]);
    let modes = names(&dir).iter().map(|name| mode(dir.join(name))).collect::<Vec<_>>();
    assert_eq!((mode(&dir), modes), (0o700, vec![0o644, 0o644, 0o600]));
    let public = |args: &[&str]| openssl::run(&dir, args);
    assert_eq!(
        public(&["pkey", "-in", "client.key", "-pubout"]),
        public(&["x509", "-in", "client.cert", "-noout", "-pubkey"])
    );
}

#[test]
fn a_renewal_keeps_the_key_and_another_key_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(&home.path().join("ca"), AuthorityKind::Server).unwrap();
    let dir = home.path().join("server");
    issue_server(&ca, &server(&["registry.test"]), now()).unwrap().write_server(&dir).unwrap();
    let key = fs::read(dir.join("server.key")).unwrap();
    let first = fs::read(dir.join("server.crt")).unwrap();

    let renewal = ServerRequest { key: KeySource::Existing(dir.join("server.key")), ..server(&["a.test"]) };
    issue_server(&ca, &renewal, now()).unwrap().write_server(&dir).unwrap();
    assert_eq!(fs::read(dir.join("server.key")).unwrap(), key);
    let second = fs::read(dir.join("server.crt")).unwrap();
    assert_ne!(first, second);

    let stranger = issue_server(&ca, &server(&["registry.test"]), now()).unwrap();
    assert!(matches!(stranger.write_server(&dir), Err(PkiError::KeyExists { .. })));
    assert_eq!(fs::read(dir.join("server.key")).unwrap(), key);
    assert_eq!(fs::read(dir.join("server.crt")).unwrap(), second);
}

/// Keys as openssl users have them: PKCS#8, PKCS#1, SEC1.
#[test]
fn issues_for_keys_that_openssl_made() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(&home.path().join("ca"), AuthorityKind::Server).unwrap();
    let dir = home.path();
    openssl::run(dir, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "rsa.key"]);
    openssl::run(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "ec.key"]);
    openssl::run(dir, &["genpkey", "-algorithm", "ED25519", "-out", "ed.key"]);
    openssl::traditional(&dir.join("rsa.key"), &dir.join("pkcs1.key"));
    openssl::traditional(&dir.join("ec.key"), &dir.join("sec1.key"));
    for name in ["rsa", "ec", "ed", "pkcs1", "sec1"] {
        let path = dir.join(format!("{name}.key"));
        crate::set_mode(&path, 0o600);
        let request = ServerRequest { key: KeySource::Existing(path), ..server(&["registry.test"]) };
        check_server(&ca, &issue_server(&ca, &request, now()).unwrap(), &dir.join(name));
    }
}

#[test]
fn refuses_keys_it_cannot_or_must_not_use() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(&home.path().join("ca"), AuthorityKind::Server).unwrap();
    let dir = home.path();
    let issue = |name: &str| {
        let request = ServerRequest { key: KeySource::Existing(dir.join(name)), ..server(&["registry.test"]) };
        issue_server(&ca, &request, now()).unwrap_err()
    };
    openssl::run(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", "p521.key"]);
    openssl::run(dir, &["genrsa", "-out", "weak.key", "1024"]);
    openssl::run(dir, &["genpkey", "-algorithm", "ED25519", "-out", "open.key"]);
    openssl::encrypt_pkcs8(&dir.join("open.key"), &dir.join("encrypted.key"), "secret");
    for name in ["p521.key", "weak.key", "encrypted.key"] {
        crate::set_mode(dir.join(name), 0o600);
        assert!(matches!(issue(name), PkiError::UnsupportedKey { .. } | PkiError::Files { .. }), "{name}");
    }
    crate::set_mode(dir.join("open.key"), 0o644);
    assert!(issue("open.key").to_string().contains("chmod 600 "), "{}", issue("open.key"));
    assert!(matches!(issue("missing.key"), PkiError::Io { .. }));
    assert_eq!(ca.journal().unwrap().entries.len(), 1);
}
