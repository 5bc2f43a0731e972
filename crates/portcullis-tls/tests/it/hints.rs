//! The CA names of the CertificateRequest: a Go client sends nothing when none of them issued its certificate.

use portcullis_testkit::pki::{Authority, LeafSpec, Pair, recipe_shaped};

use crate::fixture::{Trust, certificate};
use crate::peer::{BOTH, Offer, server, shake};

fn subject(pair: &Pair) -> Vec<u8> {
    certificate(pair.cert_der()).facts().subject.der().to_vec()
}

/// As the peer's TLS library hands them to whoever chooses the certificate.
#[track_caller]
fn hints(trust: &Trust) -> Vec<Vec<u8>> {
    let server = server(trust);
    let [first, second] = BOTH.map(|version| shake(&server, None, version).hints.expect("a certificate is asked for"));
    assert_eq!(first, second);
    let mut hints = first;
    hints.sort();
    hints
}

fn sorted<const N: usize>(mut names: [Vec<u8>; N]) -> Vec<Vec<u8>> {
    names.sort();
    names.to_vec()
}

#[test]
fn what_is_in_them() {
    let root = Authority::new("root CA");
    let issuing = root.intermediate("issuing CA");
    let foreign = Authority::new("CA of a pin");
    let pinned = foreign.client("ci-7");
    let recipe = recipe_shaped("alice");
    let trust = Trust::ca("root", root.cert_der())
        .and_ca("issuing", issuing.cert_der())
        .and_pin("ci-7", pinned.cert_der())
        .and_pin("alice", recipe.cert_der());
    let expected = sorted([subject(&root.pair), subject(&issuing.pair), subject(&foreign.pair), subject(&recipe)]);
    assert_eq!(hints(&trust), expected);

    // Go's rule, byte for byte: the issuer of each of them is listed.
    for pair in [&pinned, &recipe, &issuing.client("x"), &root.client("x")] {
        let issuer = certificate(pair.cert_der()).facts().issuer.der().to_vec();
        assert!(hints(&trust).contains(&issuer));
    }
}

#[test]
fn each_name_once() {
    let root = Authority::new("root CA");
    let twin = Authority::new("root CA");
    let trust = Trust::ca("root", root.cert_der())
        .and_ca("twin", twin.cert_der())
        .and_pin("a", root.client("a").cert_der())
        .and_pin("b", twin.client("b").cert_der());
    assert_eq!(hints(&trust), [subject(&root.pair)]);
}

#[test]
fn what_failed_the_gate_is_not_in_them() {
    let bad = Authority::without_key_cert_sign("no CA");
    let good = Authority::new("root CA");
    assert_eq!(hints(&Trust::ca("bad", bad.cert_der()).and_ca("good", good.cert_der())), [subject(&good.pair)]);
}

#[test]
fn nobody_is_trusted() {
    assert_eq!(hints(&Trust::default()), Vec::<Vec<u8>>::new());
}

/// RFC 8446 §4.2.4 counts each name with its two octets of length.
#[test]
fn full_at_8_kib_and_empty_past_it() {
    let named = |length: usize| Authority::from_spec(&LeafSpec::authority(&"x".repeat(length)));
    let encoded = |pairs: &[Authority]| pairs.iter().map(|ca| subject(&ca.pair).len() + 2).sum::<usize>();
    // A name of 1000 letters takes some octets more; the last one fills up what eight of them leave.
    let mut cas: Vec<Authority> = (0..8).map(|n| named(970 + n)).collect();
    let overhead = subject(&named(200).pair).len() - 200;
    let rest = 8192 - encoded(&cas) - 2 - overhead;
    assert!((130..240).contains(&rest), "the same length of lengths as 200 letters: {rest}");
    let trust = |cas: &[Authority]| cas.iter().fold(Trust::default(), |trust, ca| trust.and_ca("ca", ca.cert_der()));
    cas.push(named(rest));
    assert_eq!(encoded(&cas), 8192);
    assert_eq!(hints(&trust(&cas)).len(), 9);

    let last = cas.pop().unwrap();
    cas.push(named(rest + 1));
    assert_eq!(hints(&trust(&cas)), Vec::<Vec<u8>>::new());
    // Empty means "any": those who are trusted still get in.
    let client = Offer::of(&cas[0].client("ci-7"));
    for version in BOTH {
        assert!(shake(&server(&trust(&cas)), Some(&client), version).accepted.is_some());
        let stranger = Offer::of(&last.client("ci-7"));
        assert!(shake(&server(&trust(&cas)), Some(&stranger), version).accepted.is_none());
    }
}
