//! Whom the server lets in, whom it turns away, and the exact words on the wire: TLS 1.2 and 1.3.

use std::sync::LazyLock;

use portcullis_testkit::pki::{
    Authority, BasicConstraints, KeyAlg, KeyUse, LeafSpec, Pair, openssl, recipe_shaped, self_signed_client,
};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use portcullis_tls::{Identity, TrustedBy};
use rustls::AlertDescription::{
    self, BadCertificate, CertificateExpired, CertificateRequired, DecryptError, UnknownCA, UnsupportedCertificate,
};
use rustls::SupportedProtocolVersion;

use crate::fixture::{CLIENT, P256, RSA_1024, Trust, load, openssl_leaf};
use crate::peer::{BOTH, Offer, Outcome, TLS12, TLS13, server, shake};

static CA: LazyLock<Authority> = LazyLock::new(|| Authority::new("client CA"));
static STRANGERS_CA: LazyLock<Authority> = LazyLock::new(|| Authority::new("another CA"));

/// What is expected of a handshake.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// Accepted below the CA `ca`.
    Ca,
    /// Accepted as the pin `pin`.
    Pin,
    /// The `Refusal` that starts so in its `Debug` form, and the alert.
    No(&'static str, AlertDescription),
}
use Want::{Ca, No, Pin};

const STRANGER: Want = No("UnknownIssuer", UnknownCA);
const SELF_SIGNED: Want = No("SelfSigned", UnknownCA);
const CHILD_OF_PIN: Want = No("IssuedByPin { pin: \"pin\" }", UnknownCA);
const USAGE: Want = No("Usage", UnsupportedCertificate);
const UNSUPPORTED: Want = No("Unsupported", UnsupportedCertificate);
const EXPIRED: Want = No("Expired", CertificateExpired);
const EARLY: Want = No("NotYetValid", CertificateExpired);

fn trusted_by(outcome: &Outcome) -> Option<&TrustedBy> {
    outcome.accepted.as_ref().map(|accepted| Identity::trusted_by(accepted.identity()))
}

#[track_caller]
fn check_in(what: &str, trust: &Trust, offer: &Offer, version: &'static SupportedProtocolVersion, want: Want) {
    let outcome = shake(&server(trust), Some(offer), version);
    let case = format!("{what}, {:?}: {outcome:?}", version.version);
    match want {
        Ca => assert_eq!(trusted_by(&outcome), Some(&TrustedBy::Ca("ca".to_owned())), "{case}"),
        Pin => assert_eq!(trusted_by(&outcome), Some(&TrustedBy::Pin("pin".to_owned())), "{case}"),
        No(refusal, alert) => {
            let said = outcome.refusal.as_ref().map(|refusal| format!("{refusal:?}"));
            assert!(said.is_some_and(|said| said.starts_with(refusal)), "{case}");
            assert_eq!(outcome.alert, Some(alert), "{case}");
            assert_eq!(outcome.refused_certificate.as_deref(), Some(offer.leaf()), "{case}");
        }
    }
    assert_eq!(outcome.accepted.is_none(), matches!(want, No(..)), "{case}");
}

#[track_caller]
fn check(what: &str, trust: &Trust, offer: &Offer, want: Want) {
    for version in BOTH {
        check_in(what, trust, offer, version, want);
    }
}

/// A certificate against the three ways to know it: through a CA in `cas/`, as a pin, not at all.
#[track_caller]
fn check_three(what: &str, offer: &Offer, ca: &[u8], [as_ca, as_pin, unknown]: [Want; 3]) {
    check(&format!("{what} below a CA"), &Trust::ca("ca", ca), offer, as_ca);
    check(&format!("{what} pinned"), &Trust::pin("pin", offer.leaf()), offer, as_pin);
    check(&format!("{what} unknown"), &Trust::ca("ca", STRANGERS_CA.cert_der()), offer, unknown);
}

fn with_usage(key_usages: Vec<KeyUse>) -> LeafSpec {
    LeafSpec { key_usages, ..LeafSpec::client("ci-7") }
}

#[test]
fn leaves_of_a_ca() {
    let client = LeafSpec::client("ci-7");
    let key = |alg| LeafSpec { alg, ..client.clone() };
    let as_ca = LeafSpec { is_ca: BasicConstraints::Ca, ..client.clone() };
    let critical = LeafSpec { unknown_critical: true, ..client.clone() };
    for (what, spec, wants) in [
        ("good", client.clone(), [Ca, Pin, STRANGER]),
        ("no extendedKeyUsage", client.clone().without_eku(), [Ca, Pin, STRANGER]),
        ("no keyUsage", with_usage(vec![]), [Ca, Pin, STRANGER]),
        ("no basicConstraints", LeafSpec { is_ca: BasicConstraints::Absent, ..client.clone() }, [Ca, Pin, STRANGER]),
        ("P-384", key(KeyAlg::P384), [Ca, Pin, STRANGER]),
        ("P-521", key(KeyAlg::P521), [Ca, Pin, STRANGER]),
        ("Ed25519", key(KeyAlg::Ed25519), [Ca, Pin, STRANGER]),
        ("RSA 2048", key(KeyAlg::Rsa2048), [Ca, Pin, STRANGER]),
        ("serverAuth only", client.clone().server_auth_only(), [USAGE, Pin, USAGE]),
        ("CA:TRUE", as_ca, [USAGE, Pin, USAGE]),
        ("keyCertSign", with_usage(vec![KeyUse::DigitalSignature, KeyUse::KeyCertSign]), [USAGE, Pin, STRANGER]),
        ("nonRepudiation only", with_usage(vec![KeyUse::NonRepudiation]), [USAGE, Pin, STRANGER]),
        ("keyEncipherment only", with_usage(vec![KeyUse::KeyEncipherment]), [USAGE, Pin, STRANGER]),
        ("expired", client.clone().expired(), [EXPIRED; 3]),
        ("not yet valid", client.clone().not_yet_valid(), [EARLY; 3]),
    ] {
        check_three(what, &Offer::of(&CA.issue(&spec)), CA.cert_der(), wants);
    }
    // webpki does not read it at all: as with v1, TLS 1.2 has no way to use its key.
    let critical = Offer::of(&CA.issue(&critical));
    check("unknown critical extension", &Trust::ca("ca", CA.cert_der()), &critical, UNSUPPORTED);
    let pinned = Trust::pin("pin", critical.leaf());
    check_in("unknown critical extension pinned", &pinned, &critical, TLS13, Pin);
    check_in("unknown critical extension pinned", &pinned, &critical, TLS12, UNSUPPORTED);
}

/// Key too weak, hash too old, any usage: what rcgen does not write.
#[test]
fn leaves_that_only_openssl_makes() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let ca = CA.pair.write_pair(dir.path(), "ca");
    let make = |key: &[&str], extensions: &str, further: &[&str]| {
        load(&openssl_leaf(dir.path(), &ca, key, extensions, further))
    };
    let (chain, key) = make(P256, &CLIENT.replace("clientAuth", "anyExtendedKeyUsage"), &[]);
    check_three("anyExtendedKeyUsage", &Offer::new(chain, key), CA.cert_der(), [USAGE, Pin, USAGE]);
    let (chain, key) = make(P256, CLIENT, &["-sha1"]);
    check_three("SHA-1", &Offer::new(chain, key), CA.cert_der(), [UNSUPPORTED, Pin, STRANGER]);
    let (chain, _) = make(RSA_1024, CLIENT, &[]);
    check_three("RSA 1024", &Offer::without_key(chain), CA.cert_der(), [UNSUPPORTED, UNSUPPORTED, STRANGER]);

    let v1 = load(&openssl::v1_issued(dir.path(), "v1", "/CN=v1", &ca));
    let v1 = Offer::new(v1.0, v1.1);
    check("v1 leaf below a CA", &Trust::ca("ca", CA.cert_der()), &v1, UNSUPPORTED);
    check_in("v1 leaf pinned", &Trust::pin("pin", v1.leaf()), &v1, TLS13, Pin);
    check_in("v1 leaf pinned", &Trust::pin("pin", v1.leaf()), &v1, TLS12, UNSUPPORTED);
}

/// The certificate itself put among the CAs or the pins: stock rustls has it backwards.
#[test]
fn self_signed_ones() {
    for (what, pair) in [
        ("recipe", recipe_shaped("alice")),
        ("CA:FALSE", self_signed_client("alice")),
        ("the CA itself", Authority::new("root").pair),
    ] {
        let offer = Offer::of(&pair);
        check_three(what, &offer, offer.leaf(), [SELF_SIGNED, Pin, SELF_SIGNED]);
    }
}

#[test]
fn the_docker_page_word_for_word() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = load(&openssl::docker_page_recipe(dir.path(), "/C=AU/ST=Some-State/O=Internet Widgits Pty Ltd"));
    let offer = Offer::new(chain, key);
    check_three("the page's recipe", &offer, offer.leaf(), [SELF_SIGNED, Pin, SELF_SIGNED]);

    let (chain, key) = load(&openssl::v1_self_signed(dir.path(), "v1", "/CN=alice"));
    let offer = Offer::new(chain, key);
    check("v1 among the CAs", &Trust::ca("ca", offer.leaf()), &offer, SELF_SIGNED);
    check("v1 unknown", &Trust::default(), &offer, SELF_SIGNED);
    check_in("v1 pinned", &Trust::pin("pin", offer.leaf()), &offer, TLS13, Pin);
    check_in("v1 pinned", &Trust::pin("pin", offer.leaf()), &offer, TLS12, UNSUPPORTED);
}

/// A pin is trusted for itself and signs for nobody, whatever it says of itself.
#[test]
fn children_of_pins() {
    for (what, parent) in [
        ("recipe", recipe_shaped("alice")),
        ("CA:FALSE", self_signed_client("alice")),
        ("ordinary leaf", CA.client("alice")),
        ("CA", Authority::new("root").pair),
    ] {
        let child = Offer::of(&parent.mint(&LeafSpec::client("mallory")));
        let trust = Trust::pin("pin", parent.cert_der());
        check(&format!("child of a pinned {what}"), &trust, &child, CHILD_OF_PIN);
        let beside_ca = trust.clone().and_ca("ca", CA.cert_der());
        check(&format!("child of a pinned {what} beside a CA"), &beside_ca, &child, CHILD_OF_PIN);
        check(&format!("child with its {what} sent"), &trust, &child.and_sends(parent.cert_der()), CHILD_OF_PIN);
    }
    let leaf = CA.client("alice");
    let grandchild = leaf.mint(&LeafSpec::authority("minted CA")).mint(&LeafSpec::client("mallory"));
    let trust = Trust::pin("pin", leaf.cert_der()).and_ca("ca", CA.cert_der());
    check("grandchild of a pinned leaf, whole chain", &trust, &Offer::of(&grandchild), STRANGER);
}

#[test]
fn children_of_what_is_no_ca_but_lies_among_them() {
    for (what, parent, want) in [
        ("recipe: it is a CA, and whoever put it there said so", recipe_shaped("alice"), Ca),
        ("CA:FALSE", self_signed_client("alice"), STRANGER),
        ("ordinary leaf", CA.client("alice"), STRANGER),
        ("keyUsage without keyCertSign", Authority::without_key_cert_sign("CA").pair, STRANGER),
        ("no basicConstraints", Authority::without_basic_constraints("CA").pair, STRANGER),
        ("expired", Authority::expired("CA").pair, STRANGER),
        ("not yet valid", Authority::from_spec(&LeafSpec::authority("CA").not_yet_valid()).pair, STRANGER),
    ] {
        let child = Offer::of(&parent.mint(&LeafSpec::client("ci-7")));
        check(what, &Trust::ca("ca", parent.cert_der()), &child, want);
    }
}

#[test]
fn children_of_v1() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let parent = openssl::v1_self_signed(dir.path(), "v1", "/CN=alice");
    let (chain, key) = load(&openssl::child_of(dir.path(), "child", "/CN=mallory", &parent));
    let (child, parent) = (Offer::new(chain, key), load(&parent).0);
    check("child of a pinned v1", &Trust::pin("pin", &parent[0]), &child, CHILD_OF_PIN);
    check("child of a v1 among the CAs", &Trust::ca("ca", &parent[0]), &child, STRANGER);
}

#[test]
fn an_expired_ca_takes_nobody_with_it() {
    let gone = Authority::expired("old CA");
    let trust = Trust::ca("old", gone.cert_der()).and_ca("ca", CA.cert_der());
    check("its client", &trust, &Offer::of(&gone.client("ci-7")), STRANGER);
    check("the other's", &trust, &Offer::of(&CA.client("ci-7")), Ca);
}

#[test]
fn nobody_without_a_certificate() {
    let server = server(&Trust::ca("ca", CA.cert_der()));
    for version in BOTH {
        let outcome = shake(&server, None, version);
        assert!(outcome.accepted.is_none());
        assert_eq!(outcome.alert, Some(CertificateRequired), "{:?}", version.version);
        assert_eq!(outcome.refusal, None);
    }
}

#[test]
fn nobody_without_the_key() {
    let leaf = CA.client("ci-7");
    let recipe = recipe_shaped("alice");
    let trust = Trust::ca("ca", CA.cert_der()).and_pin("pin", recipe.cert_der());
    for chain in [leaf.chain_der(), recipe.chain_der()] {
        for version in BOTH {
            let outcome = shake(&server(&trust), Some(&Offer::without_key(chain.clone())), version);
            assert!(outcome.accepted.is_none());
            assert_eq!((outcome.alert, outcome.refusal), (Some(DecryptError), None));
        }
    }
}

#[test]
fn nobody_without_the_key_of_a_v1_pin() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let (chain, _) = load(&openssl::v1_self_signed(dir.path(), "v1", "/CN=alice"));
    let trust = Trust::pin("pin", &chain[0]);
    let outcome = shake(&server(&trust), Some(&Offer::without_key(chain)), TLS13);
    assert_eq!((outcome.alert, outcome.refusal), (Some(DecryptError), None));
}

#[test]
fn a_namesake_of_the_ca_signs_for_nobody() {
    let namesake = Authority::new("client CA");
    let offer = Offer::of(&namesake.client("ci-7"));
    check("namesake", &Trust::ca("ca", CA.cert_der()), &offer, No("OtherKey", UnknownCA));
    let both = Trust::ca("other", namesake.cert_der()).and_ca("ca", CA.cert_der());
    check("two CAs of one name", &both, &Offer::of(&CA.client("ci-7")), Ca);
}

#[test]
fn what_is_no_certificate() {
    let leaf = CA.client("ci-7");
    let mut cut = leaf.cert_der().to_vec();
    cut.truncate(cut.len() - 1);
    let mut longer = leaf.cert_der().to_vec();
    longer.push(0);
    for der in [b"not DER".to_vec(), vec![0x30, 0x00], cut, longer] {
        for version in BOTH {
            let outcome =
                shake(&server(&Trust::ca("ca", CA.cert_der())), Some(&Offer::without_key(vec![der.clone()])), version);
            assert_eq!(outcome.alert, Some(BadCertificate), "{outcome:?}");
            assert_eq!(format!("{:?}", outcome.refusal), "Some(Unreadable)");
            assert_eq!(outcome.refused_certificate, None);
        }
    }
}

#[test]
fn a_pin_beats_the_chain_and_what_else_is_sent() {
    let leaf = CA.client("ci-7");
    let trust = Trust::ca("ca", CA.cert_der()).and_pin("pin", leaf.cert_der());
    check("both", &trust, &Offer::of(&leaf), Pin);

    let recipe = recipe_shaped("alice");
    let trust = Trust::pin("pin", recipe.cert_der());
    let offer = Offer::of(&recipe).and_sends(CA.cert_der()).and_sends(b"rubbish").and_sends(recipe.cert_der());
    check("pin with rubbish", &trust, &offer, Pin);
    let second = Offer::of(&CA.client("mallory")).and_sends(recipe.cert_der());
    check("only the first certificate is the peer", &trust, &second, STRANGER);
}

#[test]
fn a_renewed_pin_is_another_certificate() {
    let recipe = recipe_shaped("alice");
    let spec = LeafSpec { is_ca: BasicConstraints::Ca, key_usages: vec![], ..LeafSpec::client("alice") };
    let renewed: Pair = recipe.mint_for(&spec.without_eku(), recipe.clone_key());
    check("same key, same name", &Trust::pin("pin", recipe.cert_der()), &Offer::of(&renewed), SELF_SIGNED);
}
