//! A certificate has one form, or a twin that is known: the signature is the one part that nobody signed. Whoever is denied
//! rewrites it if that can be done, and comes back with another fingerprint.

use std::sync::LazyLock;

use portcullis_certs::Certificate;
use portcullis_testkit::pki::{Authority, Envelope, KeyAlg, LeafSpec, Pair, order, twin};
use portcullis_tls::{Refusal, TrustedBy};
use rustls::AlertDescription;

use crate::fixture::{Trust, certificate, ders, now};
use crate::peer::{BOTH, Offer, server, shake};

static ROOT: LazyLock<Authority> = LazyLock::new(|| Authority::new("root CA"));
const CURVES: [KeyAlg; 3] = [KeyAlg::P256, KeyAlg::P384, KeyAlg::P521];

fn of_kind(alg: KeyAlg) -> Authority {
    Authority::from_spec(&LeafSpec { alg, ..LeafSpec::authority("root CA") })
}

fn by_certificate(der: &[u8]) -> String {
    Certificate::from_der(der.to_vec().into()).unwrap().fingerprint().to_string()
}

/// The pair with its leaf's twin.
fn rewritten(pair: &Pair, signer: KeyAlg) -> Offer {
    let mut chain = pair.chain_der();
    chain[0] = twin(&chain[0], signer);
    Offer::of(pair).with_chain(chain)
}

fn judge(trust: &Trust, chain: &[Vec<u8>]) -> Result<TrustedBy, Refusal> {
    trust.store().judge(&ders(chain), now()).map(|accepted| accepted.identity().trusted_by().clone())
}

#[test]
fn a_line_denies_both_forms_whichever_it_names() {
    for alg in CURVES {
        let ca = of_kind(alg);
        let trust = Trust::ca("root", ca.cert_der());
        let client = ca.client("ci-7");
        let (issued, other) = (Offer::of(&client), rewritten(&client, alg));
        for named in [&issued, &other] {
            for shown in [&issued, &other] {
                for version in BOTH {
                    let outcome = shake(&server(&trust), Some(shown), version);
                    assert!(outcome.accepted.is_some(), "{alg:?}: the twin verifies: {outcome:?}");
                    let denied = trust.clone().and_deny(&by_certificate(named.leaf()));
                    let outcome = shake(&server(&denied), Some(shown), version);
                    assert_eq!(outcome.refusal, Some(Refusal::Denied { line: 1 }), "{alg:?}");
                    assert_eq!(outcome.alert, Some(AlertDescription::CertificateRevoked), "{alg:?}");
                }
            }
        }
        let neighbour = Offer::of(&ca.client("ci-8"));
        assert!(judge(&trust.and_deny(&by_certificate(issued.leaf())), &neighbour.chain).is_ok());
    }
}

/// An intermediate that only the peer sends.
#[test]
fn a_denied_intermediate_is_denied_in_both_forms() {
    let issuing = ROOT.intermediate("issuing CA");
    let chain = issuing.client("ci-7").chain_der();
    let other = vec![chain[0].clone(), twin(&chain[1], KeyAlg::P256)];
    let trust = Trust::ca("root", ROOT.cert_der());
    assert!(judge(&trust, &other).is_ok(), "the twin verifies");
    for named in [&chain[1], &other[1]] {
        let denied = trust.clone().and_deny(&by_certificate(named));
        for shown in [&chain, &other] {
            assert_eq!(judge(&denied, shown), Err(Refusal::Denied { line: 1 }));
        }
    }
}

/// What is both pin and chain has the pin's name only; its twin would be no pin, and have the CA's rights.
#[test]
fn the_twin_of_a_pin_is_let_in_as_nobody() {
    let client = ROOT.client("ci-7");
    let trust = Trust::ca("root", ROOT.cert_der()).and_pin("narrow", client.cert_der());
    for version in BOTH {
        let outcome = shake(&server(&trust), Some(&Offer::of(&client)), version);
        let trusted_by = outcome.accepted.as_ref().map(|accepted| accepted.identity().trusted_by());
        assert_eq!(trusted_by, Some(&TrustedBy::Pin("narrow".to_owned())), "{outcome:?}");
        let outcome = shake(&server(&trust), Some(&rewritten(&client, KeyAlg::P256)), version);
        assert!(matches!(outcome.refusal, Some(Refusal::Unsupported { .. })), "{outcome:?}");
        assert_eq!(outcome.alert, Some(AlertDescription::UnsupportedCertificate));
    }
    let denied = trust.and_deny(&by_certificate(&rewritten(&client, KeyAlg::P256).chain[0]));
    assert_eq!(judge(&denied, &client.chain_der()), Err(Refusal::Denied { line: 1 }), "the pin, by its twin's line");
}

/// Every other way to write the same certificate: what surrounds the signed part, and the signature itself.
#[test]
fn no_other_form_is_accepted() {
    for alg in [KeyAlg::P256, KeyAlg::P384, KeyAlg::P521, KeyAlg::Ed25519, KeyAlg::Rsa2048] {
        let ca = of_kind(alg);
        let trust = Trust::ca("root", ca.cert_der());
        let client = ca.client("ci-7");
        let der = client.cert_der();
        assert!(judge(&trust, &client.chain_der()).is_ok(), "{alg:?}");
        assert!(certificate(der).is_in_its_one_form(), "{alg:?}");
        for (what, other) in around(der).into_iter().chain(signatures(der, alg)) {
            assert_ne!(other, der, "{alg:?}, {what}");
            assert!(judge(&trust, std::slice::from_ref(&other)).is_err(), "{alg:?}, {what}: accepted");
            let parsed = Certificate::from_der(other.into());
            assert!(
                parsed.is_err() || what.starts_with('~') || !parsed.unwrap().is_in_its_one_form(),
                "{alg:?}, {what}"
            );
        }
    }
}

/// What is outside of the signed part, and no signature.
fn around(der: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let whole = Envelope::open(der);
    let inner = whole.close();
    assert_eq!(inner, der);
    let algorithm = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = whole.clone();
        change(&mut changed.algorithm);
        changed.close()
    };
    let longer = |tag: u8, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x84], length.as_slice(), content].concat()
    };
    let content = &der[4..];
    let bits = |unused: u8, last: &[u8]| whole.close_with(&[&[unused], whole.signature.as_slice(), last].concat());
    let long_bits = {
        let signature = longer(0x03, &[&[0], whole.signature.as_slice()].concat());
        let all = [whole.tbs.as_slice(), &whole.algorithm, &signature].concat();
        [&[0x30, 0x82], u16::try_from(all.len()).unwrap().to_be_bytes().as_slice(), &all].concat()
    };
    vec![
        ("a byte behind it", [der, &[0]].concat()),
        ("a length in more octets", longer(0x30, content)),
        ("a length without end", [&[0x30, 0x80], content, &[0, 0]].concat()),
        ("a fourth part", {
            let all = [content, &[0x05, 0]].concat();
            [&[0x30, 0x82], u16::try_from(all.len()).unwrap().to_be_bytes().as_slice(), &all].concat()
        }),
        (
            "NULL after the algorithm's parameters",
            algorithm(&|algorithm| {
                algorithm.extend([0x05, 0]);
                algorithm[1] += 2;
            }),
        ),
        (
            "no parameters, or others",
            algorithm(&|algorithm| {
                let rsa = algorithm.ends_with(&[0x05, 0]);
                let length = algorithm.len();
                if rsa {
                    algorithm.truncate(length - 2);
                } else {
                    algorithm.extend([0x30, 0]);
                }
                algorithm[1] = u8::try_from(algorithm.len() - 2).unwrap();
            }),
        ),
        ("the algorithm's length in two octets", algorithm(&|algorithm| algorithm.insert(1, 0x81))),
        ("seven bits unused", bits(7, &[])),
        ("~a byte more in the signature", bits(0, &[0])),
        ("the signature's length in more octets", long_bits),
    ]
    .into_iter()
    .filter(|(_, other)| other != der)
    .collect()
}

/// Other signatures that say the same numbers, or numbers that are the same to the arithmetic. `~`: in its one form, and no
/// signature of this key.
fn signatures(der: &[u8], signer: KeyAlg) -> Vec<(&'static str, Vec<u8>)> {
    let whole = Envelope::open(der);
    let with = |signature: Vec<u8>| Envelope { signature, ..whole.clone() }.close();
    if !CURVES.contains(&signer) {
        let signature = whole.signature.clone();
        let reversed: Vec<u8> = signature.iter().rev().copied().collect();
        return vec![
            ("~a zero before it", with([&[0], signature.as_slice()].concat())),
            ("~without its last octet", with(signature[..signature.len() - 1].to_vec())),
            ("~backwards", with(reversed)),
            ("~S or s beyond the group", with(added(&signature, signer))),
        ];
    }
    let (r, s) = whole.ecdsa();
    let ecdsa = |r: &[u8], s: &[u8]| whole.with_ecdsa(r, s).close();
    let padded = |number: &[u8]| [&[0], number].concat();
    let n = order(signer);
    let mut long = whole.signature.clone();
    if long[1] < 0x80 {
        long.insert(1, 0x81);
    } else {
        long[1] = 0x82;
        long.insert(2, 0);
    }
    vec![
        ("a zero before r", ecdsa(&padded(&r), &s)),
        ("a zero before s", ecdsa(&r, &padded(&s))),
        ("a byte after s", with([whole.signature.as_slice(), &[0]].concat())),
        ("its length in more octets", with(long)),
        ("~r + n", ecdsa(&plus(&r, &n), &s)),
        ("~s + n", ecdsa(&r, &plus(&s, &n))),
        ("~r for s", ecdsa(&s, &r)),
        ("~n − r", {
            let swapped = Envelope::open(&whole.with_ecdsa(&s, &r).close());
            let (swapped_r, negated) = Envelope::open(&twin(&swapped.close(), signer)).ecdsa();
            ecdsa(&negated, &swapped_r)
        }),
    ]
}

/// RFC 8032 §5.1: L = 2^252 + 27742317777372353535851937790883648493, little-endian.
const L: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// RSA: every bit of it turned. Ed25519: S plus the order of the group.
fn added(signature: &[u8], signer: KeyAlg) -> Vec<u8> {
    if signer != KeyAlg::Ed25519 {
        return signature.iter().map(|octet| !octet).collect();
    }
    let order: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&L[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut carry = 0;
    let (point, scalar) = signature.split_at(32);
    let sum = scalar.iter().zip(&order).map(|(&a, &b)| {
        let octet = u16::from(a) + u16::from(b) + carry;
        carry = octet >> 8;
        u8::try_from(octet & 0xff).unwrap()
    });
    point.iter().copied().chain(sum).collect()
}

/// The sum as the content of a positive INTEGER.
fn plus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let longest = a.len().max(b.len()) + 1;
    let octets = |number: &[u8]| [vec![0; longest - number.len()], number.to_vec()].concat();
    let mut carry = 0;
    let mut sum: Vec<u8> = octets(a)
        .iter()
        .zip(octets(b))
        .rev()
        .map(|(&a, b)| {
            let octet = u16::from(a) + u16::from(b) + carry;
            carry = octet >> 8;
            u8::try_from(octet & 0xff).unwrap()
        })
        .collect();
    sum.reverse();
    let digits: Vec<u8> = sum.into_iter().skip_while(|&octet| octet == 0).collect();
    if digits[0] >= 0x80 { [&[0], digits.as_slice()].concat() } else { digits }
}
