//! `trust add`, `list` and `remove`, with certificates that openssl made.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_certs::Certificate;
use portcullis_certs::trust_dir::TrustDir;
use portcullis_pki::trust::{Added, Role, TrustRole, add, list, remove};
use portcullis_pki::{AuthorityKind, PkiError};
use portcullis_testkit::pki::{Authority, LeafSpec, Pair, openssl, recipe_shaped};
use portcullis_tls::CaFault;
use tempfile::TempDir;

use crate::{create, mode, names, now};

struct Fixture {
    dir: TempDir,
    trust: TrustDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trust = TrustDir::new(dir.path().join("trust"));
        Self { dir, trust }
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    fn add(&self, file: &Path, role: TrustRole, name: Option<&str>) -> Result<Added, PkiError> {
        add(&self.trust, file, role, name, now())
    }

    fn names(&self) -> Vec<(String, Role)> {
        let (trusted, findings) = list(&self.trust);
        assert_eq!(findings, [], "what we write is in order");
        trusted.into_iter().map(|trusted| (trusted.name, trusted.role)).collect()
    }
}

#[test]
fn the_docker_pages_certificate_becomes_a_pin() {
    let fixture = Fixture::new();
    let made = openssl::docker_page_recipe(fixture.dir.path(), "/CN=x");
    assert!(fs::read_to_string(&made.cert).unwrap().starts_with("Certificate:"), "the recipe's -text is there");

    let added = fixture.add(&made.cert, TrustRole::Auto, Some("alice")).unwrap();
    assert!(!added.already);
    assert_eq!((added.trusted.role, added.trusted.name.as_str()), (Role::Pin, "alice"));
    let written = fixture.trust.root.join("pins/alice.crt");
    assert_eq!(added.trusted.path, written);
    assert_eq!(openssl::fingerprint_of(&written), openssl::fingerprint_of(&made.cert));
    assert!(fs::read_to_string(&written).unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!((mode(&written), mode(fixture.trust.pins_dir())), (0o644, 0o700));

    assert!(fixture.add(&made.cert, TrustRole::Pin, Some("alice")).unwrap().already);
    assert_eq!(fixture.names(), [("alice".to_owned(), Role::Pin)]);
}

#[test]
fn certificates_that_are_no_ca_become_pins() {
    let fixture = Fixture::new();
    let v1 = openssl::v1_self_signed(fixture.dir.path(), "old", "/CN=old");
    assert_eq!(fixture.add(&v1.cert, TrustRole::Auto, None).unwrap().trusted.name, "old");
    let leaf = fixture.file("leaf.pem", Authority::new("ca").client("leaf").cert_pem());
    assert_eq!(fixture.add(&leaf, TrustRole::Auto, None).unwrap().trusted.role, Role::Pin);
    assert_eq!(fixture.names(), [("leaf".to_owned(), Role::Pin), ("old".to_owned(), Role::Pin)]);
}

#[test]
fn a_ca_is_trusted_only_when_somebody_says_so() {
    let fixture = Fixture::new();
    let ca = create(&fixture.dir.path().join("pki"), AuthorityKind::Client).unwrap();
    let file = ca.directory().join("ca.crt");
    let error = fixture.add(&file, TrustRole::Auto, Some("ours")).unwrap_err();
    let said = error.to_string();
    let command = format!("portcullis trust add {} --as", file.display());
    assert!(said.contains(&format!("{command} pin --name ours ")), "{said}");
    assert!(said.contains(&format!("{command} ca --name ours ")), "{said}");
    assert!(!fixture.trust.root.exists(), "nothing was written");

    assert_eq!(fixture.add(&file, TrustRole::Ca, Some("ours")).unwrap().trusted.role, Role::Ca);
    assert!(fixture.add(&file, TrustRole::Ca, Some("ours")).unwrap().already);
    assert_eq!(fixture.names(), [("ours".to_owned(), Role::Ca)]);
}

/// Somebody else's intermediate without keyUsage signs, and is not its own: no pin by itself.
#[test]
fn an_intermediate_is_asked_about() {
    let fixture = Fixture::new();
    let file = fixture.file(
        "sub.pem",
        Authority::new("root").issue(&LeafSpec { key_usages: vec![], ..LeafSpec::authority("sub") }).cert_pem(),
    );
    assert!(matches!(fixture.add(&file, TrustRole::Auto, None), Err(PkiError::RoleNeeded { as_pin: Some(_), .. })));
}

#[test]
fn what_the_server_would_not_load_is_refused_with_every_reason() {
    let fixture = Fixture::new();
    let refuse = |file: &Path, role| match fixture.add(file, role, None) {
        Err(PkiError::Untrustworthy { faults, .. }) => faults,
        other => panic!("{other:?}"),
    };
    let leaf = fixture.file("leaf.pem", Authority::new("ca").client("leaf").cert_pem());
    assert_eq!(refuse(&leaf, TrustRole::Ca), [CaFault::NotCa, CaFault::KeyUsage]);
    let spec = LeafSpec { is_ca: portcullis_testkit::pki::BasicConstraints::NotCa, ..LeafSpec::authority("x") };
    let bad = fixture.file("bad.pem", Authority::from_spec(&spec.expired()).cert_pem());
    let faults = refuse(&bad, TrustRole::Ca);
    assert!(matches!(faults.as_slice(), [CaFault::NotCa, CaFault::Expired { .. }]), "{faults:?}");
    assert!(matches!(refuse(&bad, TrustRole::Pin).as_slice(), [CaFault::Expired { .. }]));
    let weak = openssl::self_signed_rsa(fixture.dir.path(), "weak", "/CN=weak", 1024);
    assert!(matches!(refuse(&weak.cert, TrustRole::Pin).as_slice(), [CaFault::Key { .. }]));
    assert!(!fixture.trust.root.exists());
}

#[test]
fn a_pin_is_one_certificate_and_a_ca_may_be_several() {
    let fixture = Fixture::new();
    let (one, two) = (recipe_shaped("one").cert_pem(), recipe_shaped("two").cert_pem());
    let both = fixture.file("both.pem", format!("{one}{two}"));
    assert!(matches!(fixture.add(&both, TrustRole::Pin, None), Err(PkiError::PinNeedsOne { count: 2, .. })));
    assert!(matches!(fixture.add(&both, TrustRole::Auto, None), Err(PkiError::RoleNeeded { as_pin: None, .. })));
    let leaves = fixture
        .file("leaves.pem", Authority::new("a").client("x").cert_pem() + &Authority::new("b").client("y").cert_pem());
    assert!(matches!(fixture.add(&leaves, TrustRole::Auto, None), Err(PkiError::PinNeedsOne { count: 2, .. })));

    let cas = fixture.file("cas.pem", Authority::new("a").cert_pem() + &Authority::new("b").cert_pem());
    assert_eq!(fixture.add(&cas, TrustRole::Ca, None).unwrap().trusted.certificates.len(), 2);
    assert_eq!(fixture.names(), [("cas".to_owned(), Role::Ca)]);
}

#[test]
fn a_name_belongs_to_one_certificate_and_a_pin_has_one_name() {
    let fixture = Fixture::new();
    let one = fixture.file("one.pem", recipe_shaped("one").cert_pem());
    let two = fixture.file("two.pem", recipe_shaped("two").cert_pem());
    fixture.add(&one, TrustRole::Pin, Some("alice")).unwrap();
    for role in [TrustRole::Pin, TrustRole::Ca] {
        let error = fixture.add(&two, role, Some("alice")).unwrap_err();
        assert!(matches!(&error, PkiError::TrustNameTaken { role: Role::Pin, .. }), "{error}");
    }
    let error = fixture.add(&one, TrustRole::Pin, Some("bob")).unwrap_err();
    assert!(matches!(&error, PkiError::AlreadyPinned { name, .. } if name == "alice"), "{error}");
    assert_eq!(fixture.names(), [("alice".to_owned(), Role::Pin)]);
    // A file under that name that cannot be read is somebody's too.
    fs::write(fixture.trust.root.join("pins/carol.crt"), "garbage").unwrap();
    assert!(matches!(fixture.add(&two, TrustRole::Pin, Some("carol")), Err(PkiError::TrustNameTaken { .. })));
}

#[test]
fn names_come_from_the_operator() {
    let fixture = Fixture::new();
    let pem = recipe_shaped("admin").cert_pem();
    let laptop = fixture.file("Bob's laptop.pem", &pem);
    assert_eq!(fixture.add(&laptop, TrustRole::Pin, None).unwrap().trusted.name, "Bob-s-laptop");
    for name in ["", "..", "../x", "a/b", ".hidden", "-x", &"x".repeat(65)] {
        let error = fixture.add(&laptop, TrustRole::Pin, Some(name)).unwrap_err();
        assert!(matches!(error, PkiError::TrustName { .. }), "{name}: {error}");
    }
    // Only a file name without one usable character leaves the choice to the certificate.
    let nameless = fixture.file("ж.pem", recipe_shaped("carol").cert_pem());
    assert_eq!(fixture.add(&nameless, TrustRole::Pin, None).unwrap().trusted.name, "carol");
}

#[test]
fn what_is_no_certificate_is_refused() {
    let fixture = Fixture::new();
    let key = openssl::docker_page_recipe(fixture.dir.path(), "/CN=x").key;
    let der = fixture.file("der.crt", recipe_shaped("x").cert_der());
    let missing = fixture.dir.path().join("missing.pem");
    for file in [&key, &der, &missing, &fixture.file("empty.pem", "")] {
        let error = fixture.add(file, TrustRole::Pin, Some("x")).unwrap_err();
        assert!(matches!(&error, PkiError::Files { findings } if !findings.is_empty()), "{error}");
    }
    assert!(!fixture.trust.root.exists());
}

#[test]
fn half_a_file_is_not_trusted_and_a_key_is_not_copied() {
    let fixture = Fixture::new();
    let pair = recipe_shaped("x");
    let torn = pair.cert_pem().replacen("MII", "!!!", 1);
    let file = fixture.file("torn.pem", format!("{}{torn}", pair.cert_pem()));
    assert!(matches!(fixture.add(&file, TrustRole::Pin, None), Err(PkiError::Files { .. })));

    let made = openssl::docker_page_recipe(fixture.dir.path(), "/CN=x");
    let both = [fs::read(&made.cert).unwrap(), fs::read(&made.key).unwrap()].concat();
    let added = fixture.add(&fixture.file("both.pem", both), TrustRole::Pin, None).unwrap();
    assert!(!fs::read_to_string(added.trusted.path).unwrap().contains("PRIVATE"));
}

#[test]
fn removing_takes_away_that_name_only() {
    let fixture = Fixture::new();
    for name in ["alice", "bob"] {
        let file = fixture.file(name, recipe_shaped(name).cert_pem());
        fixture.add(&file, TrustRole::Pin, None).unwrap();
    }
    let remove = |trust: &_, name| remove(trust, name, now());
    let removed = remove(&fixture.trust, "alice").unwrap();
    assert_eq!(removed.paths, [fixture.trust.root.join("pins/alice.crt")]);
    assert_eq!(removed.still_let_in, []);
    assert_eq!(names(&fixture.trust.pins_dir()), ["bob.crt"]);
    for wrong in ["alice", "Bob", "../pins/bob", ""] {
        let error = remove(&fixture.trust, wrong).unwrap_err().to_string();
        assert!(error.ends_with("the names are: bob"), "{error}");
    }
    // What cannot be read can be removed.
    fs::write(fixture.trust.root.join("pins/bad.crt"), "garbage").unwrap();
    remove(&fixture.trust, "bad").unwrap();
    assert_eq!(names(&fixture.trust.pins_dir()), ["bob.crt"]);
}

/// A pin has its own rights only; without it a CA's client has the CA's.
#[test]
fn who_is_let_in_all_the_same_is_told() {
    let fixture = Fixture::new();
    let ca = Authority::new("a CA");
    let [narrow, denied] = ["narrow", "denied"].map(|name| ca.client(name));
    fixture.add(&fixture.file("hosts", ca.cert_pem()), TrustRole::Ca, None).unwrap();
    for (name, pair) in [("narrow", &narrow), ("denied", &denied)] {
        fixture.add(&fixture.file(name, pair.cert_pem()), TrustRole::Pin, None).unwrap();
    }
    let fingerprint = |pair: &Pair| Certificate::from_der(pair.cert_der().to_vec().into()).unwrap().fingerprint();
    fs::write(fixture.trust.deny_file(), format!("{}\n", fingerprint(&denied))).unwrap();
    let removed = remove(&fixture.trust, "narrow", now()).unwrap();
    assert_eq!(removed.still_let_in, [(fingerprint(&narrow), "hosts".to_owned())]);
    assert_eq!(remove(&fixture.trust, "denied", now()).unwrap().still_let_in, []);
}
