//! An authority's directory: made once, opened again, never overwritten.

use std::fs;

use portcullis_pki::{Authority, AuthorityKind, AuthorityRequest, ClientRequest, EntryKind, KeyAlgorithm, PkiError};
use portcullis_pki::{ServerRequest, issue_client, issue_server};
use portcullis_testkit::{pki::openssl, skip};
use time::{Duration, OffsetDateTime};

use crate::{create, mode, names, now, set_mode};

#[test]
fn is_made_of_three_files_and_opens_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("pki/client-ca");
    let made = create(&dir, AuthorityKind::Client).unwrap();
    assert_eq!(names(&dir), ["ca.crt", "ca.key", "issued.jsonl"]);
    assert_eq!((mode(&dir), mode(dir.join("ca.crt"))), (0o700, 0o644));
    assert_eq!((mode(dir.join("ca.key")), mode(dir.join("issued.jsonl"))), (0o600, 0o600));

    let opened = Authority::open(&dir).unwrap();
    assert_eq!(opened.kind(), AuthorityKind::Client);
    assert_eq!(opened.certificate(), made.certificate());
    let journal = opened.journal().unwrap();
    assert_eq!(journal.damaged, Vec::<usize>::new());
    assert_eq!(journal.entries.len(), 1);
    assert_eq!(journal.entries[0].kind, EntryKind::ClientCa);
    assert_eq!(journal.entries[0].fingerprint.to_string(), openssl::fingerprint_of(&dir.join("ca.crt")));
    assert!(!format!("{opened:?}").contains("PRIVATE"));
}

#[test]
fn its_certificate_is_what_the_profile_says() {
    let home = tempfile::tempdir().unwrap();
    let ca = create(home.path(), AuthorityKind::Client).unwrap();
    let facts = ca.certificate().facts();
    assert_eq!((facts.version, facts.is_ca, facts.path_len), (3, Some(true), Some(0)));
    assert!(facts.self_signed && facts.extended_key_usage.is_none() && facts.name_constraints.is_none());
    assert_eq!(facts.authority_key_id, facts.subject_key_id);
    let life = facts.not_after - OffsetDateTime::now_utc();
    assert!(life > Duration::days(3650) && life < Duration::days(3654), "{life}");

    let text = String::from_utf8(openssl::run(home.path(), &["x509", "-in", "ca.crt", "-noout", "-text"])).unwrap();
    for line in ["X509v3 Basic Constraints: critical", "X509v3 Key Usage: critical", "Certificate Sign, CRL Sign"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let name = facts.subject.common_name().unwrap();
    let generation = name.strip_prefix("Portcullis client CA registry.test ").unwrap();
    assert!(generation.len() == 8 && u32::from_str_radix(generation, 16).is_ok(), "{name}");
}

#[test]
fn two_generations_have_two_names() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let subject = |dir: &tempfile::TempDir| {
        create(dir.path(), AuthorityKind::Server).unwrap().certificate().facts().subject.to_string()
    };
    assert_ne!(subject(&one), subject(&two));
}

#[test]
fn is_never_made_over_another() {
    let home = tempfile::tempdir().unwrap();
    create(home.path(), AuthorityKind::Client).unwrap();
    let before: Vec<_> =
        ["ca.crt", "ca.key", "issued.jsonl"].map(|name| fs::read(home.path().join(name)).unwrap()).into();
    let error = create(home.path(), AuthorityKind::Client).unwrap_err();
    assert!(matches!(error, PkiError::AuthorityExists { .. }), "{error}");
    let after: Vec<_> =
        ["ca.crt", "ca.key", "issued.jsonl"].map(|name| fs::read(home.path().join(name)).unwrap()).into();
    assert!(before == after);
}

#[test]
fn an_interrupted_creation_is_completed_with_the_same_key() {
    let home = tempfile::tempdir().unwrap();
    let (certificate, key) = (home.path().join("ca.crt"), home.path().join("ca.key"));
    let first = create(home.path(), AuthorityKind::Server).unwrap();
    let key_before = fs::read(&key).unwrap();

    fs::remove_file(&certificate).unwrap();
    let completed = create(home.path(), AuthorityKind::Server).unwrap();
    assert_eq!(fs::read(&key).unwrap(), key_before);
    assert_eq!(completed.certificate().facts().key_hash, first.certificate().facts().key_hash);
    assert_eq!(Authority::open(home.path()).unwrap().certificate(), completed.certificate());

    fs::remove_file(&key).unwrap();
    let error = create(home.path(), AuthorityKind::Server).unwrap_err();
    assert!(matches!(error, PkiError::AuthorityIncomplete { missing: "ca.key", .. }), "{error}");
    assert!(!key.exists());
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    create(one.path(), AuthorityKind::Client).unwrap();
    create(two.path(), AuthorityKind::Client).unwrap();
    let open = || Authority::open(one.path()).unwrap_err();

    let own_key = fs::read(one.path().join("ca.key")).unwrap();
    fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    assert!(matches!(open(), PkiError::AuthorityMismatch { .. }));
    fs::write(one.path().join("ca.key"), "no key").unwrap();
    assert!(matches!(open(), PkiError::Files { .. }));
    fs::write(one.path().join("ca.key"), own_key).unwrap();

    let journal = fs::read(one.path().join("issued.jsonl")).unwrap();
    fs::copy(two.path().join("issued.jsonl"), one.path().join("issued.jsonl")).unwrap();
    assert!(matches!(open(), PkiError::NotInJournal { .. }));
    fs::write(one.path().join("issued.jsonl"), journal).unwrap();

    let both = [fs::read(one.path().join("ca.crt")).unwrap(), fs::read(two.path().join("ca.crt")).unwrap()].concat();
    fs::write(one.path().join("ca.crt"), both).unwrap();
    assert!(matches!(open(), PkiError::Files { .. }));
    fs::remove_file(one.path().join("ca.crt")).unwrap();
    assert!(matches!(open(), PkiError::AuthorityIncomplete { missing: "ca.crt", .. }));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command() {
    let home = tempfile::tempdir().unwrap();
    create(home.path(), AuthorityKind::Client).unwrap();
    let key = home.path().join("ca.key");
    for loose in [0o640, 0o604, 0o644, 0o660] {
        set_mode(&key, loose);
        let error = Authority::open(home.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("chmod 600 {}", key.display())), "{error}");
        assert_eq!(error.fixes().len(), 1);
    }
    set_mode(&key, 0o400);
    Authority::open(home.path()).unwrap();
}

#[test]
fn issues_only_for_its_own_end() {
    let home = tempfile::tempdir().unwrap();
    let server_ca = create(&home.path().join("s"), AuthorityKind::Server).unwrap();
    let client_ca = create(&home.path().join("c"), AuthorityKind::Client).unwrap();
    let server = ServerRequest::new(vec!["registry.test".parse().unwrap()]);
    let client = ClientRequest::new("ci-7".parse().unwrap());
    assert!(matches!(issue_server(&client_ca, &server, now()), Err(PkiError::WrongAuthority { .. })));
    assert!(matches!(issue_client(&server_ca, &client, now()), Err(PkiError::WrongAuthority { .. })));
    assert_eq!(server_ca.journal().unwrap().entries.len(), 1);
}

#[test]
fn name_constraints_hold_for_us_and_for_openssl() {
    let home = tempfile::tempdir().unwrap();
    let request = AuthorityRequest {
        kind: AuthorityKind::Server,
        label: "registry.test",
        algorithm: KeyAlgorithm::P256,
        permitted: vec!["registry.test".parse().unwrap(), "10.77.0.1".parse().unwrap()],
    };
    let ca = Authority::create_as(&home.path().join("ca"), &request, now()).unwrap();
    let text = openssl::run(home.path(), &["x509", "-in", "ca/ca.crt", "-noout", "-text"]);
    assert!(String::from_utf8(text).unwrap().contains("X509v3 Name Constraints: critical"));

    let names = |names: &[&str]| ServerRequest::new(names.iter().map(|name| name.parse().unwrap()).collect());
    let inside = names(&["registry.test", "a.registry.test", "*.registry.test", "10.77.0.1"]);
    issue_server(&ca, &inside, now()).unwrap().write_server(home.path()).unwrap();
    let verified = openssl::run(
        home.path(),
        &["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca/ca.crt", "server.crt"],
    );
    assert_eq!(String::from_utf8(verified).unwrap(), "server.crt: OK\n");

    let error = issue_server(&ca, &names(&["registry.test", "other.test", "10.77.0.2", "fd00::1"]), now()).unwrap_err();
    assert!(error.to_string().contains("other.test, 10.77.0.2, fd00::1:"), "{error}");
    assert_eq!(ca.journal().unwrap().entries.len(), 2);
}

/// `sudo portcullis ...` on the home of a service leaves nothing that the service cannot read.
#[test]
fn as_root_files_belong_to_the_owner_of_their_directory() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let home = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        skip::record("authority::as_root_files_belong_to_the_owner_of_their_directory", "not root");
        return;
    }
    chown(home.path(), Some(65534), Some(65534)).unwrap();
    let dir = home.path().join("pki/client-ca");
    create(&dir, AuthorityKind::Client).unwrap();
    for path in [home.path().join("pki"), dir.clone(), dir.join("ca.key"), dir.join("issued.jsonl"), dir.join("ca.crt")]
    {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65534), "{}", path.display());
    }
    Authority::open(&dir).unwrap();
}
