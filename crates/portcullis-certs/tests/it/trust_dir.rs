//! The server's `trust/` directory.

use crate::fixture::{bytes, certificate, tree};
use portcullis_certs::trust_dir::{DenyEntry, DenyRule, TrustDir, TrustFiles};
use portcullis_certs::{Fault, Severity};
use std::fs;
use std::path::Path;

fn read(root: &Path) -> (TrustFiles, Vec<(String, Option<u32>, Fault)>) {
    let (files, findings) = TrustDir::new(root).read();
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    let fatal = findings.iter().filter(|finding| finding.severity == Severity::Fatal);
    let findings = fatal.map(|finding| (relative(&finding.path), finding.line, finding.fault.clone())).collect();
    (files, findings)
}

#[test]
fn what_is_right_is_read() {
    let bundle = [bytes("ca.crt"), bytes("int.crt")].concat();
    let print = certificate("leaf.crt").fingerprint();
    let deny = format!("# who may not\n{print} # ops, 2026, lost\n");
    let dir = tree(&[
        ("cas/main.crt", &bundle),
        ("pins/alice.crt", &bytes("recipe.cert")),
        ("pins/v1.crt", &bytes("v1.crt")),
        ("deny", deny.as_bytes()),
    ]);
    let (files, findings) = read(dir.path());
    assert_eq!(findings, []);
    assert_eq!(files.cas.len(), 1);
    assert_eq!((files.cas[0].name.as_str(), files.cas[0].certificates.len()), ("main", 2));
    let pins: Vec<_> = files.pins.iter().map(|pin| (pin.name.as_str(), pin.certificate.clone())).collect();
    assert_eq!(pins, [("alice", certificate("recipe.cert")), ("v1", certificate("v1.crt"))]);
    let note = Some("ops, 2026, lost".to_owned());
    assert_eq!(files.deny, [DenyEntry { line: 2, rule: DenyRule::Certificate(print), note }]);
}

#[test]
fn missing_parts_are_empty_and_a_missing_whole_is_fatal() {
    let dir = tree(&[]);
    let (files, findings) = read(dir.path());
    assert!(findings.is_empty() && files.cas.is_empty() && files.pins.is_empty() && files.deny.is_empty());
    let none = dir.path().join("none");
    assert_eq!(read(&none).1, [(String::new(), None, Fault::DirectoryMissing)]);
}

#[test]
fn a_kubernetes_volume_is_read_once() {
    let dir = tree(&[("cas/..2026_01/ca.crt", &bytes("ca.crt")), ("cas/.ca.crt.tmp", b"half")]);
    std::os::unix::fs::symlink("..2026_01", dir.path().join("cas/..data")).unwrap();
    std::os::unix::fs::symlink("..data/ca.crt", dir.path().join("cas/ca.crt")).unwrap();
    let (files, findings) = read(dir.path());
    assert_eq!((files.cas.len(), findings), (1, Vec::new()));
}

#[test]
fn everything_that_is_not_right_is_fatal_and_the_rest_is_read() {
    let two = [bytes("ca.crt"), bytes("int.crt")].concat();
    let half = [bytes("ca.crt"), b"-----BEGIN CERTIFICATE-----\n".to_vec()].concat();
    let with_key = [bytes("int.crt"), bytes("int.key")].concat();
    let deny = format!("sha256:nonsense\nkey:{}\n", "ab".repeat(32));
    let dir = tree(&[
        ("cas/empty.crt", b""),
        ("cas/good.crt", &bytes("ca.crt")),
        ("cas/half.crt", &half),
        ("cas/with-key.crt", &with_key),
        ("crls/ca.crl", b"x"),
        ("deny", deny.as_bytes()),
        ("pins/a b.crt", &bytes("v1.crt")),
        ("pins/again.crt", &bytes("recipe.cert")),
        ("pins/alice.crt", &bytes("recipe.cert")),
        ("pins/two.crt", &two),
    ]);
    fs::create_dir(dir.path().join("pins/dir.crt")).unwrap();
    let (files, findings) = read(dir.path());
    let found: Vec<_> = findings.iter().map(|(path, line, fault)| (path.as_str(), *line, fault.code())).collect();
    let lines = |content: &[u8]| u32::try_from(content.iter().filter(|&&b| b == b'\n').count()).unwrap();
    let expected = [
        ("cas/empty.crt", None, "D26"),
        ("cas/half.crt", Some(lines(&bytes("ca.crt")) + 1), "D27"),
        ("cas/with-key.crt", Some(lines(&bytes("int.crt")) + 1), "D28"),
        ("pins/a b.crt", None, "T02"),
        ("pins/dir.crt", None, "D36"),
        ("pins/two.crt", None, "T01"),
        ("pins/alice.crt", None, "T03"),
        ("crls/ca.crl", None, "D26"),
        ("deny", Some(1), "T04"),
    ];
    assert_eq!(found, expected);
    assert_eq!(files.cas.iter().map(|ca| ca.name.as_str()).collect::<Vec<_>>(), ["good", "half", "with-key"]);
    assert_eq!(files.deny.len(), 1, "a restriction is never held back");
}

#[test]
fn files_under_other_names_are_not_passed_over_in_silence() {
    let dir = tree(&[("cas/ca.pem", &bytes("ca.crt")), ("pins/alice.CRT", &bytes("recipe.cert"))]);
    let (_, findings) = TrustDir::new(dir.path()).read();
    let found: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.fault.clone())).collect();
    let ignored = |wanted: &str| (Severity::Warning, Fault::IgnoredName { wanted: wanted.to_owned() });
    assert_eq!(found, [ignored("ca.crt"), ignored("alice.crt")]);
}

#[test]
fn names_cannot_leave_the_directory() {
    let trust = TrustDir::new("/t");
    assert_eq!(trust.ca_path("a.B_9-x").unwrap(), Path::new("/t/cas/a.B_9-x.crt"));
    for name in ["", ".", "..", ".x", "a/b", "../x", "a b", "ü", "a\n", &"x".repeat(65)] {
        assert!(trust.pin_path(name).is_err() && trust.ca_path(name).is_err(), "{name:?}");
    }
}
