//! Revocation lists, made with `openssl` as users make theirs, and spoilt by hand.

use crate::fixture::{bytes, certificate, fixture, tree};
use portcullis_certs::trust_dir::{TrustDir, TrustFiles};
use portcullis_certs::{CertsError, CrlScope, Fault, RevocationList, Serial, Severity, pem};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// `openssl ca -gencrl` of the fixture's CA, over certificates with these serial numbers.
fn gencrl(revoked: &[&str], extensions: Option<&str>, options: &[&str]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let index: String = revoked
        .iter()
        .map(|serial| format!("R\t401231235959Z\t260101000000Z,keyCompromise\t{serial}\tunknown\t/CN=x\n"))
        .collect();
    fs::write(dir.path().join("index.txt"), index).unwrap();
    fs::write(dir.path().join("number"), "0A00\n").unwrap();
    let section = extensions.map(|lines| format!("[crl_ext]\n{lines}\n")).unwrap_or_default();
    let (crl_number, crl_ext) =
        if extensions.is_some() { ("crlnumber=$dir/number\n", "crl_extensions=crl_ext\n") } else { ("", "") };
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndir={}\ndatabase=$dir/index.txt\n{crl_number}{crl_ext}default_md=sha256\ndefault_crl_days=7\n{section}",
        dir.path().display()
    );
    fs::write(dir.path().join("c.cnf"), config).unwrap();
    let mut command = Command::new("openssl");
    command.args(["ca", "-gencrl", "-config"]).arg(dir.path().join("c.cnf"));
    command.arg("-cert").arg(fixture().path("ca.crt")).arg("-keyfile").arg(fixture().path("ca.key"));
    let made = command.args(options).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

const USUAL: Option<&str> = Some("authorityKeyIdentifier=keyid");

fn read(content: &[u8]) -> (TrustFiles, Vec<(Option<u32>, Fault)>) {
    let dir = tree(&[("crls/ca.crl", content)]);
    let (files, findings) = TrustDir::new(dir.path()).read();
    assert!(findings.iter().all(|finding| finding.severity == Severity::Fatal));
    (files, findings.into_iter().map(|finding| (finding.line, finding.fault)).collect())
}

fn read_one(content: &[u8]) -> RevocationList {
    let (mut files, findings) = read(content);
    assert_eq!((files.crls.len(), findings), (1, Vec::new()));
    files.crls.remove(0).list
}

fn der(pem: &[u8]) -> Vec<u8> {
    read_one(pem).der().to_vec()
}

fn reason(content: &[u8]) -> String {
    match read(content).1.as_slice() {
        [(_, Fault::BadCrl { reason })] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

#[test]
fn what_openssl_writes_is_read() {
    let list = read_one(&gencrl(&["01", "80", "0100", "7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"], USUAL, &[]));
    assert_eq!(list.issuer(), &certificate("ca.crt").facts().subject);
    assert_eq!(list.number(), Some(&serial("0a00")));
    assert_eq!((list.len(), (list.next_update() - list.this_update()).whole_days()), (4, 7));
    for revoked in ["01", "80", "0100", "7fffffffffffffffffffffffffffffff"] {
        assert!(list.lists(&serial(revoked)), "{revoked}");
    }
    for good in ["00", "02", "81", "0101", "010000", "7ffffffffffffffffffffffffffffffe"] {
        assert!(!list.lists(&serial(good)), "{good}");
    }
    assert!(list.is_signed_by(&certificate("ca.crt")) && !list.is_signed_by(&certificate("int.crt")));
}

/// The default of `openssl ca`: its `crlnumber` and `crl_extensions` are comments.
#[test]
fn version_1_is_read() {
    let list = read_one(&gencrl(&["02"], None, &[]));
    assert!(list.number().is_none() && list.lists(&serial("02")) && list.is_signed_by(&certificate("ca.crt")));
    assert!(read_one(&gencrl(&[], None, &[])).is_empty());
}

#[test]
fn der_and_several_blocks_are_read() {
    let (one, two) = (gencrl(&["01"], USUAL, &[]), gencrl(&["02"], USUAL, &[]));
    assert_eq!(read_one(&der(&one)), read_one(&one));
    let (files, findings) = read(&[one.as_slice(), &two].concat());
    assert_eq!((files.crls.len(), findings), (2, Vec::new()));
    assert!(files.crls[1].line > files.crls[0].line);
}

/// Taken for a whole list, each of these would let somebody in who is revoked.
#[test]
fn lists_that_are_not_the_whole_are_refused() {
    for (extensions, words) in [
        ("issuingDistributionPoint=critical,@idp\n[idp]\nonlyCA=TRUE", "onlyContainsCACerts"),
        ("issuingDistributionPoint=critical,@idp\n[idp]\nonlyAA=TRUE", "onlyContainsAttributeCerts"),
        ("issuingDistributionPoint=critical,@idp\n[idp]\nonlysomereasons=keyCompromise", "onlySomeReasons"),
        ("issuingDistributionPoint=critical,@idp\n[idp]\nindirectCRL=TRUE", "indirect"),
        ("issuingDistributionPoint=@idp\n[idp]\nonlyuser=TRUE\nindirectCRL=TRUE", "indirect"),
        ("issuingDistributionPoint=@idp\n[idp]\nonlyuser=TRUE\nonlysomereasons=superseded", "onlySomeReasons"),
        ("issuingDistributionPoint=@idp\n[idp]\nfullname=DNS:x.test", "is no URI"),
        ("issuingDistributionPoint=@idp\n[idp]\nrelativename=rel\n[rel]\nCN=shard 1", "is no URI"),
        ("2.5.29.28=critical,DER:3000", "empty"),
        ("2.5.29.28=critical,DER:3003810101", "malformed"),
        ("2.5.29.28=critical,DER:30038101FF00", "follow"),
        ("2.5.29.28=critical,DER:30048101FF", "length"),
        ("2.5.29.28=critical,DER:3006FF0101FF8101FF", ""),
        ("2.5.29.28=critical,DER:30068101FFFF0101", ""),
        ("2.5.29.28=critical,DER:3007A005A0038601FF", "URI"),
        ("2.5.29.28=critical,DER:3004A002A000", "is no URI"),
        ("2.5.29.27=critical,ASN1:INTEGER:1", "delta"),
        ("2.5.29.27=ASN1:INTEGER:1", "delta"),
        ("1.2.3.4=critical,ASN1:NULL", "1.2.3.4"),
    ] {
        let reason = reason(&gencrl(&["01"], Some(extensions), &[]));
        assert!(reason.contains(words), "{extensions}: {reason}");
    }
    // What is not critical may be passed over (RFC 5280 §5.2).
    read_one(&gencrl(&["01"], Some("1.2.3.4=ASN1:NULL"), &[]));
}

/// The two limits under which a list is still the whole for what a server is shown.
#[test]
fn a_list_of_end_entities_that_says_where_it_is_published_is_read() {
    let scope = |extension: &str| read_one(&gencrl(&["01"], Some(extension), &[])).scope().clone();
    let uris = |uris: &[&str]| uris.iter().map(|&uri| uri.to_owned()).collect::<Vec<_>>();
    assert_eq!(scope("authorityKeyIdentifier=keyid"), CrlScope::default());
    let users = scope("issuingDistributionPoint=critical,@idp\n[idp]\nonlyuser=TRUE");
    assert_eq!(users, CrlScope { only_end_entities: true, uris: vec![] });
    let at = scope("issuingDistributionPoint=@idp\n[idp]\nfullname=URI:http://x.test/1.crl,URI:http://x.test/2.crl");
    let two = uris(&["http://x.test/1.crl", "http://x.test/2.crl"]);
    assert_eq!(at, CrlScope { only_end_entities: false, uris: two });
    // As step-ca writes it.
    let step = "issuingDistributionPoint=critical,@idp\n[idp]\nonlyuser=TRUE\nfullname=URI:https://ca.test/1.0/crl";
    let list = read_one(&gencrl(&["01"], Some(step), &[]));
    assert_eq!(*list.scope(), CrlScope { only_end_entities: true, uris: uris(&["https://ca.test/1.0/crl"]) });
    assert!(list.lists(&serial("01")) && list.is_signed_by(&certificate("ca.crt")));
}

#[test]
fn what_is_no_list_is_told_by_its_name() {
    let list = gencrl(&["01"], USUAL, &[]);
    let cut = &list[..list.len() / 2];
    for (content, code) in [
        (Vec::new(), "D26"),
        (b"x".to_vec(), "D26"),
        (bytes("ca.crt"), "D26"),
        (b"<!DOCTYPE html><title>404</title>".to_vec(), "D26"),
        (cut.to_vec(), "D27"),
        (der(&list)[..100].to_vec(), "T05"),
        ([der(&list), b"x".to_vec()].concat(), "T05"),
        (bytes("ca.der"), "T05"),
    ] {
        let (files, findings) = read(&content);
        assert!(files.crls.is_empty());
        assert_eq!(findings.iter().map(|(_, fault)| fault.code()).collect::<Vec<_>>(), [code], "{findings:?}");
    }
    // One bad block does not take the good one with it: a restriction is never held back.
    let (files, findings) = read(&[cut, b"\n", list.as_slice()].concat());
    assert_eq!((files.crls.len(), findings.len()), (1, 1));
}

#[test]
fn other_names_in_the_directory_are_fatal() {
    let list = gencrl(&["01"], USUAL, &[]);
    let dir = tree(&[("crls/ca.pem", &list), ("crls/.ca.crl.tmp", b"half")]);
    let (files, findings) = TrustDir::new(dir.path()).read();
    let found: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.fault.clone())).collect();
    assert!(files.crls.is_empty());
    assert_eq!(found, [(Severity::Fatal, Fault::IgnoredName { wanted: "ca.crl".to_owned() })]);
}

#[test]
fn the_newer_list_is_told_by_number_then_by_time() {
    let numbered = |number: &str| {
        let text = String::from_utf8(gencrl(&[], USUAL, &[])).unwrap();
        // The number stands as 02 02 0a 00 in the DER; the signature no longer holds, which is not asked here.
        let mut der = der(text.as_bytes());
        let at = der.windows(4).position(|window| window == [2, 2, 0x0a, 0]).unwrap();
        der[at + 2..at + 4].copy_from_slice(&u16::from_str_radix(number, 16).unwrap().to_be_bytes());
        RevocationList::from_der(der).unwrap()
    };
    let (low, high) = (numbered("00ff"), numbered("0100"));
    assert!(high.is_newer_than(&low) && !low.is_newer_than(&high) && !low.is_newer_than(&low));
    let (old, new) = (["-crl_lastupdate", "20260101000000Z"], ["-crl_lastupdate", "20260102000000Z"]);
    let (old, new) = (read_one(&gencrl(&[], None, &old)), read_one(&gencrl(&[], None, &new)));
    assert!(new.is_newer_than(&old) && !old.is_newer_than(&new));
}

/// Every changed octet is noticed by the signature, or by the reader, and none makes it panic.
#[test]
fn no_octet_can_be_changed() {
    let (good, ca) = (der(&gencrl(&["01", "0102"], USUAL, &[])), certificate("ca.crt"));
    for at in 0..good.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= change;
            if let Ok(list) = RevocationList::from_der(bad) {
                assert!(!list.is_signed_by(&ca), "octet {at}");
            }
        }
    }
}

#[test]
fn files_are_bounded() {
    let dir = tree(&[("crls/ca.crl", b"x")]);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("crls/ca.crl")).unwrap();
    for (size, too_large) in [(16 << 20, false), ((16 << 20) + 1, true)] {
        file.set_len(size).unwrap();
        let (_, findings) = TrustDir::new(dir.path()).read();
        assert_eq!(findings[0].fault == Fault::TooLarge { limit: 16 << 20 }, too_large, "{findings:?}");
    }
    for n in 0..5 {
        fs::write(dir.path().join(format!("crls/{n}.crl")), vec![b'x'; 13 << 20]).unwrap();
    }
    let codes = || {
        let (_, findings) = TrustDir::new(dir.path()).read();
        findings.iter().filter(|finding| finding.fault.code() == "T06").count()
    };
    file.set_len(0).unwrap();
    assert_eq!(codes(), 1, "five times 13 MiB are more than 64");
    fs::write(dir.path().join("crls/4.crl"), vec![b'x'; 12 << 20]).unwrap();
    assert_eq!(codes(), 0, "64 MiB are not");
}

#[test]
fn a_certificate_is_no_list() {
    let (certificates, _) = pem::certificates(&bytes("ca.crt"), "f".as_ref());
    let refused = RevocationList::from_der(certificates[0].der().to_vec());
    assert!(matches!(refused, Err(CertsError::RevocationList { .. })), "{refused:?}");
}
