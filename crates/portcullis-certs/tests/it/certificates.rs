//! Certificate files, and what certificates say.

use crate::fixture::{bytes, certificate, fixture};
use portcullis_certs::{AltName, Certificate, Fault, Fingerprint, Fix, KeyType, Severity, pem};
use std::path::Path;
use std::process::Command;

type Found = (Option<u32>, Severity, Fault);

fn read(content: &[u8]) -> (Vec<Certificate>, Vec<Found>) {
    let (certificates, findings) = pem::certificates(content, Path::new("x.crt"));
    (certificates, findings.into_iter().map(|f| (f.line, f.severity, f.fault)).collect())
}

/// A file that gives no certificate, for this one reason.
fn check_useless(content: &[u8], line: Option<u32>, fault: Fault) {
    assert_eq!(read(content), (Vec::new(), vec![(line, Severity::Fatal, fault)]));
}

fn openssl_says(name: &str, option: &str) -> String {
    let output =
        Command::new("openssl").args(["x509", "-noout", option, "-in"]).arg(fixture().path(name)).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn leading_text_crlf_and_several_certificates_are_fine() {
    let recipe = bytes("recipe.cert");
    assert!(recipe.starts_with(b"Certificate:"), "the recipe's -text output comes first");
    let crlf = String::from_utf8(recipe.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    let padded = String::from_utf8(recipe.clone()).unwrap().replace('\n', " \t\n").into_bytes();
    let alice = certificate("recipe.cert");
    for content in [recipe.clone(), crlf, padded, recipe.trim_ascii_end().to_vec()] {
        assert_eq!(read(&content), (vec![alice.clone()], Vec::new()));
    }
    let several = [recipe, b"\n# and\n".to_vec(), bytes("ca.crt"), bytes("v1.crt")].concat();
    assert_eq!(read(&several).0, [alice, certificate("ca.crt"), certificate("v1.crt")]);
}

#[test]
fn each_wrong_format_has_its_own_word() {
    check_useless(b"", None, Fault::Empty);
    check_useless(&bytes("ca.der"), None, Fault::DerCertificate);
    check_useless(&bytes("p256.der"), None, Fault::KeyWhereCertificate);
    check_useless(&bytes("rsa.der"), None, Fault::KeyWhereCertificate);
    check_useless(&bytes("encrypted.der"), None, Fault::KeyWhereCertificate);
    check_useless(&bytes("client.p12"), None, Fault::Pkcs12);
    check_useless(&bytes("ca.p7b.der"), None, Fault::Pkcs7);
    check_useless(&bytes("ca.p7b"), Some(1), Fault::Pkcs7);
    check_useless(&bytes("trusted.crt"), Some(1), Fault::TrustedCertificate);
    check_useless(&bytes("rsa.key"), Some(1), Fault::KeyWhereCertificate);
    check_useless(&bytes("rsa.pkcs1.key"), Some(1), Fault::KeyWhereCertificate);
    check_useless(&bytes("encrypted.traditional.key"), Some(1), Fault::KeyWhereCertificate);
    check_useless(&bytes("v1.csr"), Some(1), Fault::OtherBlock { label: "CERTIFICATE REQUEST".into() });
    check_useless(b"<!DOCTYPE html><html>Sign in</html>", None, Fault::Html);
    check_useless(&[b"\xef\xbb\xbf".to_vec(), bytes("ca.crt")].concat(), Some(1), Fault::ByteOrderMark);
    let utf16: Vec<u8> =
        String::from_utf8(bytes("ca.crt")).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    check_useless(&utf16, None, Fault::Utf16);
    let text = String::from_utf8(bytes("ca.crt")).unwrap();
    let indented = text.replace('\n', "\n  ").replacen("-----BEGIN", "  -----BEGIN", 1);
    assert!(matches!(&read(indented.as_bytes()).1[..], [(Some(1), Severity::Fatal, Fault::BadBlock { .. })]));
}

#[test]
fn a_bad_block_among_good_ones_is_named_by_its_line() {
    let good = String::from_utf8(bytes("ca.crt")).unwrap();
    let lines = u32::try_from(good.lines().count()).unwrap();
    let broken =
        ["MII!", "MIIB", ""].map(|body| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"));
    let cut = good.replace("-----END CERTIFICATE-----", "");
    let headers = good.replacen("-----\n", "-----\nComment: hello\n\n", 1);
    let trailing = {
        // A byte more than the certificate's own length.
        let der = [certificate("ca.crt").der().as_ref(), b"\0"].concat();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(&der))
    };
    for bad in broken.iter().chain([&cut, &headers, &trailing]) {
        let (certificates, findings) = read(format!("{good}{bad}{good}").as_bytes());
        assert_eq!(certificates.len(), 2, "{bad}");
        let [(line, Severity::Warning, Fault::BadBlock { label, .. })] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((line, label.as_str()), (&Some(lines + 1), "CERTIFICATE"));
        assert!(matches!(&read(bad.as_bytes()).1[..], [(Some(1), Severity::Fatal, Fault::BadBlock { .. })]));
    }
}

#[test]
fn what_else_a_certificate_file_holds_is_reported() {
    let ca = bytes("ca.crt");
    let lines = u32::try_from(ca.iter().filter(|&&b| b == b'\n').count()).unwrap();
    let with_key = [ca.clone(), bytes("ca.key")].concat();
    assert_eq!(read(&with_key).1, [(Some(lines + 1), Severity::Warning, Fault::KeyAmongCertificates)]);
    let with_request = [ca.clone(), bytes("v1.csr")].concat();
    let fault = Fault::OtherBlock { label: "CERTIFICATE REQUEST".into() };
    assert_eq!(read(&with_request).1, [(Some(lines + 1), Severity::Note, fault)]);
    let hidden = [b"\xef\xbb\xbf".to_vec(), ca.clone(), ca].concat();
    let (certificates, findings) = read(&hidden);
    assert_eq!(certificates.len(), 1);
    assert_eq!(findings, [(Some(1), Severity::Warning, Fault::ByteOrderMark)]);
}

#[test]
fn a_damaged_certificate_is_refused_and_never_panics() {
    let der = certificate("leaf.crt").der().as_ref().to_vec();
    for cut in 0..der.len() {
        assert!(Certificate::from_der(der[..cut].to_vec().into()).is_err());
    }
    for i in 0..der.len() {
        let mut changed = der.clone();
        changed[i] ^= 0x41;
        let _ = Certificate::from_der(changed.into());
    }
}

#[test]
fn facts_of_the_recipe() {
    let alice = certificate("recipe.cert");
    let facts = alice.facts();
    assert_eq!((facts.version, facts.is_ca, facts.self_issued, facts.self_signed), (3, Some(true), true, true));
    assert_eq!(facts.subject.to_string(), "CN=alice,O=Example");
    assert_eq!(facts.key, KeyType::Rsa { bits: 2048 });
    assert_eq!(facts.signature.to_string(), "RSA with SHA-256");
    assert_eq!(facts.key_usage, None);
    assert_eq!(facts.not_after - facts.not_before, time::Duration::days(30));
    let printed = openssl_says("recipe.cert", "-serial").replace("serial=", "");
    assert_eq!(facts.serial, printed.parse().unwrap());
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(fixture().path("recipe.cert"))
        .output()
        .unwrap();
    assert_eq!(alice.fingerprint(), String::from_utf8(output.stdout).unwrap().trim().parse::<Fingerprint>().unwrap());
}

#[test]
fn facts_of_a_client_certificate() {
    let leaf = certificate("leaf.crt");
    let facts = leaf.facts();
    assert_eq!(facts.issuer, certificate("int.crt").facts().subject);
    assert_eq!((facts.is_ca, facts.path_len, facts.self_issued, facts.self_signed), (Some(false), None, false, false));
    let usage = facts.key_usage.unwrap();
    assert!(usage.digital_signature && !usage.key_cert_sign && !usage.crl_sign && !usage.key_encipherment);
    let extended = facts.extended_key_usage.as_ref().unwrap();
    assert!(extended.client_auth && !extended.server_auth && !extended.any);
    assert_eq!(extended.others, ["codeSigning", "1.2.3.4"]);
    let ip = |text: &str| AltName::Ip(text.parse().unwrap());
    let expected = [
        AltName::Dns("a.test".into()),
        ip("10.0.0.1"),
        ip("fd00::1"),
        AltName::Email("a@b.test".into()),
        AltName::Uri("spiffe://t/a".into()),
        AltName::Other("registeredID:1.2.3".into()),
    ];
    assert_eq!(facts.alt_names, expected);
    assert_eq!(facts.key, KeyType::P256);
    assert_eq!(facts.signature.to_string(), "ECDSA with SHA-256");
    assert_eq!(facts.authority_key_id, certificate("int.crt").facts().subject_key_id);
    assert!(facts.authority_key_id.is_some());
    assert_eq!(facts.key_hash, Fingerprint::of(&facts.spki_der));
    assert_eq!(facts.key_hash, certificate("server.crt").facts().key_hash, "the same key in another certificate");
}

#[test]
fn facts_of_authorities_and_oddities() {
    let ca = certificate("ca.crt");
    assert_eq!((ca.facts().is_ca, ca.facts().path_len, ca.facts().self_signed), (Some(true), Some(3), true));
    assert!(ca.facts().key_usage.unwrap().key_cert_sign && ca.facts().unknown_critical.is_empty());
    let v1 = certificate("v1.crt");
    assert_eq!((v1.facts().version, v1.facts().is_ca, v1.facts().self_signed), (1, None, true));
    let odd = certificate("odd.crt");
    assert!(odd.facts().name_constraints.is_some());
    assert_eq!(odd.facts().unknown_critical, ["1.2.3.4"]);
    let again = certificate("ca-again.crt");
    assert_eq!((again.facts().self_issued, again.facts().self_signed), (true, false));
    assert!(certificate("sha1.crt").facts().signature.is_sha1_or_older());
    assert!(certificate("sha1.crt").facts().self_signed, "weak is not the same as unsigned");
    assert_eq!(certificate("pss.crt").facts().signature.to_string(), "RSA-PSS with SHA-256");
    assert!(certificate("pss.crt").facts().self_signed);
    assert_eq!(certificate("rsa1024.crt").facts().key, KeyType::Rsa { bits: 1024 });
    assert!(certificate("rsa1024.crt").facts().self_signed);
    for (name, key) in [("p384.crt", KeyType::P384), ("p521.crt", KeyType::P521), ("ed25519.crt", KeyType::Ed25519)] {
        assert_eq!(certificate(name).facts().key, key);
        assert!(certificate(name).facts().self_signed, "{name}");
    }
}

#[test]
fn signatures_are_checked_against_the_issuer() {
    let (ca, int, leaf) = (certificate("ca.crt"), certificate("int.crt"), certificate("leaf.crt"));
    assert!(int.is_signed_by(&ca) && leaf.is_signed_by(&int) && ca.is_signed_by(&ca));
    assert!(!leaf.is_signed_by(&ca) && !ca.is_signed_by(&int));
    assert!(!certificate("v1.crt").is_signed_by(&ca));
    let mut der = leaf.der().as_ref().to_vec();
    *der.last_mut().unwrap() ^= 1;
    assert!(Certificate::from_der(der.into()).is_ok_and(|forged| !forged.is_signed_by(&int)));
}

#[test]
fn the_suggested_commands_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    for (name, expected) in [("ca.der", "ca.crt"), ("trusted.crt", "ca.crt"), ("ca.p7b", "ca.crt")] {
        // The name is one that a careless quoter would trip over.
        let path = dir.path().join(format!("a';id;' {name}"));
        std::fs::copy(fixture().path(name), &path).unwrap();
        let (_, findings) = pem::read_certificates(&path);
        let Fix::Run(command) = findings[0].fix() else { panic!("{findings:?}") };
        assert!(Command::new("sh").arg("-c").arg(command.to_string()).status().unwrap().success(), "{command}");
        assert_eq!(pem::read_certificates(&path), (vec![certificate(expected)], Vec::new()), "{command}");
    }
    let path = dir.path().join("bom.crt");
    std::fs::write(&path, [b"\xef\xbb\xbf".to_vec(), bytes("ca.crt")].concat()).unwrap();
    let command = pem::read_certificates(&path).1[0].fix().to_string();
    assert!(Command::new("sh").arg("-c").arg(&command).status().unwrap().success());
    assert_eq!(pem::read_certificates(&path).0, [certificate("ca.crt")], "{command}");
}

/// RFC 4648 §4, for a certificate that no program would write.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let quad = |chunk: &[u8]| {
        let number = chunk.iter().fold(0_usize, |n, &b| n << 8 | usize::from(b)) << (8 * (3 - chunk.len()));
        let digit = |i: usize| if i > chunk.len() { '=' } else { char::from(DIGITS[number >> (18 - 6 * i) & 63]) };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(quad).collect()
}
