//! Private keys in every encoding, and the ones that cannot be used.

use crate::fixture::{bytes, certificate, fixture};
use portcullis_certs::{Encryption, Fault, Finding, Fix, KeyType, PrivateKey, pem};
use std::path::Path;
use std::process::Command;

fn read(content: &[u8]) -> Result<PrivateKey, Finding> {
    pem::private_key(content, Path::new("client.key")).map_err(|mut findings| {
        assert_eq!(findings.len(), 1);
        findings.remove(0)
    })
}

fn check_refused(name: &str, line: Option<u32>, fault: &Fault) {
    let finding = read(&bytes(name)).expect_err(name);
    assert_eq!((finding.line, &finding.fault), (line, fault), "{name}");
}

#[test]
fn all_encodings_of_all_kinds_load_and_match_their_certificate() {
    let cases = [
        ("rsa.key", "recipe.cert", KeyType::Rsa { bits: 2048 }),
        ("rsa.pkcs1.key", "recipe.cert", KeyType::Rsa { bits: 2048 }),
        ("p256.key", "p256.crt", KeyType::P256),
        ("p256.sec1.key", "p256.crt", KeyType::P256),
        ("p384.key", "p384.crt", KeyType::P384),
        ("p384.sec1.key", "p384.crt", KeyType::P384),
        ("p521.key", "p521.crt", KeyType::P521),
        ("p521.sec1.key", "p521.crt", KeyType::P521),
        ("ed25519.key", "ed25519.crt", KeyType::Ed25519),
    ];
    for (key, _, kind) in &cases {
        let loaded = read(&bytes(key)).unwrap_or_else(|finding| panic!("{finding}"));
        assert_eq!(loaded.kind(), kind);
        for (_, cert, other) in &cases {
            assert_eq!(loaded.matches(&certificate(cert)), kind == other, "{key} and {cert}");
        }
    }
    let key = read(&bytes("p256.key")).unwrap();
    assert!(!key.matches(&certificate("ca.crt")), "the same kind, another key");
    assert!(key.clone().matches(&certificate("leaf.crt")));
}

#[test]
fn other_blocks_and_text_before_the_key_are_passed_over() {
    let text = bytes("with-parameters.key");
    assert!(text.starts_with(b"-----BEGIN EC PARAMETERS"));
    assert_eq!(read(&text).unwrap().kind(), &KeyType::P256);
    let combined = [b"Bag Attributes\n".to_vec(), bytes("recipe.cert"), bytes("rsa.key"), bytes("p256.key")].concat();
    assert!(read(&combined).unwrap().matches(&certificate("recipe.cert")));
    let crlf = String::from_utf8(bytes("rsa.key")).unwrap().replace('\n', "\r\n");
    assert!(read(crlf.as_bytes()).is_ok());
}

#[test]
fn each_key_that_cannot_be_used_has_its_own_word() {
    check_refused("encrypted.pkcs8.key", Some(1), &Fault::EncryptedKey { encryption: Encryption::Pkcs8 });
    check_refused("encrypted.traditional.key", Some(1), &Fault::EncryptedKey { encryption: Encryption::Traditional });
    check_refused("ca.crt", Some(1), &Fault::CertificateWhereKey);
    check_refused("trusted.crt", Some(1), &Fault::CertificateWhereKey);
    check_refused("ca.der", None, &Fault::CertificateWhereKey);
    check_refused("p256.der", None, &Fault::DerKey);
    check_refused("client.p12", None, &Fault::Pkcs12);
    check_refused("public.pem", Some(1), &Fault::OtherBlock { label: "PUBLIC KEY".into() });
    assert_eq!(read(b"").unwrap_err().fault, Fault::Empty);
    let unsupported = |name: &str, words: &str| {
        let Fault::UnsupportedKey { reason } = read(&bytes(name)).unwrap_err().fault else { panic!("{name}") };
        assert!(reason.contains(words), "{name}: {reason}");
    };
    unsupported("rsa1024.key", "1024 bits");
    unsupported("rsa1024.pkcs1.key", "1024 bits");
    unsupported("p224.key", "P-224");
    unsupported("p224.sec1.key", "P-224");
    unsupported("ed448.key", "Ed448");
    let openssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nMA==\n-----END OPENSSH PRIVATE KEY-----\n";
    assert!(matches!(read(openssh).unwrap_err().fault, Fault::UnsupportedKey { .. }));
    for text in ["", "MA==", "MII!"] {
        let block = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        assert!(matches!(read(block.as_bytes()).unwrap_err().fault, Fault::BadBlock { .. }), "{text}");
    }
    let wrong_label = String::from_utf8(bytes("rsa.key")).unwrap().replace("PRIVATE KEY", "EC PRIVATE KEY");
    assert!(matches!(read(wrong_label.as_bytes()).unwrap_err().fault, Fault::BadBlock { .. }));
}

#[test]
fn the_command_for_an_encrypted_key_makes_it_usable_and_never_destroys_it() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["encrypted.pkcs8.key", "encrypted.traditional.key"] {
        let path = dir.path().join(name);
        std::fs::copy(fixture().path(name), &path).unwrap();
        let findings = pem::read_private_key(&path).unwrap_err();
        let Fix::Run(command) = findings[0].fix() else { panic!("{findings:?}") };
        let run = |passphrase: &str| {
            let line = command.to_string().replacen(" -in ", &format!(" -passin pass:{passphrase} -in "), 1);
            Command::new("sh").arg("-c").arg(line).output().unwrap().status.success()
        };
        assert!(!run("wrong"));
        assert_eq!(std::fs::read(&path).unwrap(), bytes(name), "a wrong passphrase leaves the key as it was");
        assert!(run("x"));
        assert!(pem::read_private_key(&path).unwrap().matches(&certificate("recipe.cert")));
    }
}

#[test]
fn nothing_shows_a_key() {
    let key = read(&bytes("p256.key")).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey { kind: P256, .. }");
    let damaged = String::from_utf8(bytes("p256.key")).unwrap().replacen("MIG", "MIX", 1);
    let body: String = damaged.lines().nth(1).unwrap().chars().take(16).collect();
    let finding = read(damaged.as_bytes()).unwrap_err();
    assert!(!format!("{finding} {finding:?} {}", finding.fix()).contains(&body));
}
