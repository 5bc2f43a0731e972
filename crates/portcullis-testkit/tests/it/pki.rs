use std::fs;
use std::path::Path;

use portcullis_testkit::pki::{Authority, LeafSpec, PairFiles, openssl, recipe_shaped, self_signed_client};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

/// What `openssl x509 -text` says of a certificate.
fn text_of(dir: &Path, pem: &str) -> String {
    fs::write(dir.join("shown.pem"), pem).unwrap();
    String::from_utf8(openssl::run(dir, &["x509", "-in", "shown.pem", "-noout", "-text"])).unwrap()
}

#[test]
fn a_client_verifies_through_an_intermediate() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let root = Authority::new("root");
    let intermediate = root.intermediate("issuing");
    let files = intermediate.client("ci-7").write_pair(dir.path(), "client");
    root.write_ca(dir.path());
    let cert = files.cert.to_str().unwrap();
    let purpose = ["verify", "-purpose", "sslclient", "-CAfile", "ca.crt", "-untrusted", cert, cert];
    openssl::run(dir.path(), &purpose);
}

#[test]
fn the_bad_ones_are_bad_in_the_way_they_say() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let show = |pem: &str| text_of(dir.path(), pem);
    let ca = Authority::new("CA");

    let no_sign = show(&Authority::without_key_cert_sign("CA").cert_pem());
    assert!(no_sign.contains("CRL Sign") && !no_sign.contains("Certificate Sign"), "{no_sign}");
    assert!(!show(&Authority::without_basic_constraints("CA").cert_pem()).contains("Basic Constraints"));
    assert!(show(&Authority::saying_ca_false("CA").cert_pem()).contains("CA:FALSE"));
    assert!(show(&self_signed_client("bob").cert_pem()).contains("CA:FALSE"));
    let server_only = show(&ca.issue(&LeafSpec::client("x").server_auth_only()).cert_pem());
    assert!(server_only.contains("TLS Web Server") && !server_only.contains("TLS Web Client"), "{server_only}");
    assert!(!show(&ca.issue(&LeafSpec::client("x").without_eku()).cert_pem()).contains("Extended Key Usage"));
    let unknown = show(&ca.issue(&LeafSpec { unknown_critical: true, ..LeafSpec::client("x") }).cert_pem());
    assert!(unknown.contains("2.25.4096: critical"), "{unknown}");

    let seconds = |spec: LeafSpec, end: &str| {
        fs::write(dir.path().join("dated.pem"), ca.issue(&spec).cert_pem()).unwrap();
        let verify = std::process::Command::new("openssl")
            .args(["verify", "-CAfile", "ca.crt", "dated.pem"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&verify.stderr).contains(end), "{verify:?}");
    };
    ca.write_ca(dir.path());
    seconds(LeafSpec::client("x").expired(), "certificate has expired");
    seconds(LeafSpec::client("x").not_yet_valid(), "not yet valid");
}

/// The recipe made by rcgen and the recipe made by the page's commands carry the same extensions.
#[test]
fn the_recipe_has_the_shape_of_the_recipe() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let real = openssl::docker_page_recipe(dir.path(), "/CN=alice");
    let real_pem = fs::read_to_string(&real.cert).unwrap();
    assert!(real_pem.starts_with("Certificate:\n"), "-text writes its text before the PEM block");
    let extensions = |pem: &str| -> Vec<String> {
        let text = text_of(dir.path(), pem);
        let lines = text.lines().filter(|line| line.contains("X509v3 ") && line.trim_end().ends_with([':', 'l']));
        let mut names: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
        names.sort();
        names
    };
    let expected = extensions(&real_pem);
    assert!(expected.contains(&"X509v3 Basic Constraints: critical".to_owned()), "{expected:?}");
    assert_eq!(extensions(&recipe_shaped("alice").cert_pem()), expected);
}

#[test]
fn openssl_makes_v1_children_and_encrypted_keys() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let show = |files: &PairFiles| text_of(dir.path(), &fs::read_to_string(&files.cert).unwrap());
    assert!(show(&openssl::v1_self_signed(dir.path(), "old", "/CN=old")).contains("Version: 1 (0x0)"));
    let ca = Authority::new("CA");
    let ca_files = ca.pair.write_pair(dir.path(), "ca");
    assert!(show(&openssl::v1_issued(dir.path(), "leaf", "/CN=leaf", &ca_files)).contains("Version: 1 (0x0)"));

    let alice = recipe_shaped("alice").write_pair(dir.path(), "alice");
    let child = openssl::child_of(dir.path(), "mallory", "/CN=mallory", &alice);
    openssl::run(dir.path(), &["verify", "-CAfile", "alice.cert", child.cert.to_str().unwrap()]);

    let key_text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    openssl::encrypt_pkcs8(&alice.key, &dir.path().join("e8.key"), "secret");
    assert!(key_text("e8.key").starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    openssl::encrypt_traditional(&alice.key, &dir.path().join("et.key"), "secret");
    assert!(key_text("et.key").contains("Proc-Type: 4,ENCRYPTED"));
    openssl::traditional(&alice.key, &dir.path().join("t.key"));
    assert!(key_text("t.key").starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert_eq!(openssl::der_of(&alice.cert)[0], 0x30);
    assert_eq!(openssl::fingerprint_of(&alice.cert).len(), "sha256:".len() + 64);
}

#[test]
fn weak_ones_are_made_too() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let weak = openssl::self_signed_rsa(dir.path(), "weak", "/CN=weak", 1024);
    let sha1 = openssl::self_signed_sha1(dir.path(), "sha1", "/CN=sha1");
    assert!(text_of(dir.path(), &fs::read_to_string(weak.cert).unwrap()).contains("(1024 bit)"));
    assert!(text_of(dir.path(), &fs::read_to_string(sha1.cert).unwrap()).contains("sha1WithRSAEncryption"));
}

#[test]
fn every_certificate_has_its_own_serial_and_a_key_is_renewed_as_it_is() {
    let ca = Authority::new("CA");
    let first = ca.client("ci-7");
    let renewed = ca.pair.mint_for(&LeafSpec::client("ci-7"), first.clone_key());
    assert_ne!(first.cert_der(), renewed.cert_der());
    assert_eq!(first.spki_der(), renewed.spki_der());
    assert_eq!(first.key_der(), renewed.key_der());
}
