//! The deny list beats everything, in the handshake and with its own alert.

use std::sync::LazyLock;

use portcullis_testkit::pki::{Authority, LeafSpec, Pair, recipe_shaped};
use portcullis_tls::Refusal;
use rustls::AlertDescription;
use time::Duration;
use time::format_description::well_known::Rfc3339;

use crate::fixture::{Trust, certificate, key_hash, now};
use crate::peer::{BOTH, Offer, chain_of, server, shake};

static ROOT: LazyLock<Authority> = LazyLock::new(|| Authority::new("root CA"));
static ISSUING: LazyLock<Authority> = LazyLock::new(|| ROOT.intermediate("issuing CA"));

fn root() -> Trust {
    Trust::ca("root", ROOT.cert_der())
}

fn hex(fingerprint: portcullis_certs::Fingerprint) -> String {
    fingerprint.to_string().replace("sha256:", "")
}

fn by_key(der: &[u8]) -> String {
    format!("key:{}", hex(key_hash(der)))
}

fn by_certificate(der: &[u8]) -> String {
    certificate(der).fingerprint().to_string()
}

fn by_serial(issuer: &[u8], der: &[u8]) -> String {
    format!("serial:{}:{}", hex(key_hash(issuer)), certificate(der).facts().serial)
}

fn before(matcher: &str, hours_from_now: i64) -> String {
    let moment = (now() + Duration::hours(hours_from_now)).replace_nanosecond(0).unwrap();
    format!("name:{matcher} before {}", moment.format(&Rfc3339).unwrap())
}

/// Denied by the second line, and let in without it.
#[track_caller]
fn denies(trust: &Trust, rule: &str, offer: &Offer) {
    let unrelated = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for version in BOTH {
        let outcome = shake(&server(&trust.clone().and_deny(unrelated)), Some(offer), version);
        assert!(outcome.accepted.is_some(), "without the rule: {outcome:?}");
        let outcome = shake(&server(&trust.clone().and_deny(unrelated).and_deny(rule)), Some(offer), version);
        assert_eq!(outcome.refusal, Some(Refusal::Denied { line: 2 }), "{rule}");
        assert_eq!(outcome.alert, Some(AlertDescription::CertificateRevoked), "{rule}");
        assert_eq!(outcome.refused_certificate.as_deref(), Some(offer.leaf()));
    }
}

#[track_caller]
fn spares(trust: &Trust, rule: &str, offer: &Offer) {
    let store = trust.clone().and_deny(rule).store();
    assert!(store.judge(&chain_of(offer), now()).is_ok(), "{rule}");
}

#[test]
fn a_leaf_by_each_of_its_marks() {
    let leaf = ROOT.client("ci-7");
    let der = leaf.cert_der();
    for rule in [by_certificate(der), by_key(der), by_serial(ROOT.cert_der(), der), before("ci-7", 1)] {
        denies(&root(), &rule, &Offer::of(&leaf));
        spares(&root(), &rule, &Offer::of(&ROOT.client("ci-8")));
    }
}

#[test]
fn a_pin_by_each_of_its_marks() {
    let recipe = recipe_shaped("alice");
    let der = recipe.cert_der();
    for rule in [by_certificate(der), by_key(der), by_serial(der, der), before("alice", 1)] {
        denies(&Trust::pin("alice", der), &rule, &Offer::of(&recipe));
    }
    let leaf = ROOT.client("ci-7");
    let trust = root().and_pin("ci", leaf.cert_der());
    denies(&trust, &by_serial(ROOT.cert_der(), leaf.cert_der()), &Offer::of(&leaf));
}

#[test]
fn a_serial_counts_for_its_own_ca_only() {
    let other = Authority::new("other CA");
    let serial = Some(vec![0x42]);
    let spec = LeafSpec { serial, ..LeafSpec::client("ci-7") };
    let (ours, theirs) = (ROOT.issue(&spec), other.issue(&spec));
    let trust = root().and_ca("other", other.cert_der());
    let rule = by_serial(ROOT.cert_der(), ours.cert_der());
    denies(&trust, &rule, &Offer::of(&ours));
    spares(&trust, &rule, &Offer::of(&theirs));
}

/// The issuer is known from the peer's own chain alone.
#[test]
fn a_serial_of_an_intermediate_that_is_only_sent() {
    let leaf = ISSUING.client("ci-7");
    let rule = by_serial(ISSUING.cert_der(), leaf.cert_der());
    denies(&root(), &rule, &Offer::of(&leaf));
    denies(&root().and_ca("issuing", ISSUING.cert_der()), &rule, &Offer::of(&leaf));
    spares(&root(), &rule, &Offer::of(&ISSUING.client("ci-8")));
}

#[test]
fn an_intermediate_by_each_of_its_marks() {
    let leaf = Offer::of(&ISSUING.client("ci-7"));
    let der = ISSUING.cert_der();
    for rule in [by_certificate(der), by_key(der), by_serial(ROOT.cert_der(), der)] {
        denies(&root(), &rule, &leaf);
        denies(&root().and_ca("issuing", der), &rule, &leaf);
        spares(&root(), &rule, &Offer::of(&ROOT.client("ci-8")));
    }
}

#[test]
fn a_root_by_certificate_and_by_key() {
    for rule in [by_certificate(ROOT.cert_der()), by_key(ROOT.cert_der())] {
        denies(&root(), &rule, &Offer::of(&ROOT.client("ci-7")));
        denies(&root(), &rule, &Offer::of(&ISSUING.client("ci-7")));
    }
}

/// A key stays denied in another certificate: the way around a denial by fingerprint.
#[test]
fn a_key_in_a_new_certificate() {
    let leaf = ROOT.client("ci-7");
    let again: Pair = ROOT.pair.mint_for(&LeafSpec::client("ci-7 again"), leaf.clone_key());
    denies(&root(), &by_key(leaf.cert_der()), &Offer::of(&again));
    spares(&root(), &by_certificate(leaf.cert_der()), &Offer::of(&again));
}

/// `cert revoke NAME`, then a new certificate for the same name.
#[test]
fn a_name_until_a_moment() {
    let leaf = Offer::of(&ROOT.client("ci-7"));
    denies(&root(), &before("ci-7", 1), &leaf);
    spares(&root(), &before("ci-7", -2), &leaf);
    // The second itself is not before it.
    let not_before = certificate(leaf.leaf()).facts().not_before.format(&Rfc3339).unwrap();
    spares(&root(), &format!("name:ci-7 before {not_before}"), &leaf);
}

/// "Everything issued before today" must not take the CA with it, or nobody can be let in again.
#[test]
fn a_name_is_a_leafs() {
    let old = LeafSpec::authority("root CA");
    let old = LeafSpec { not_before: old.not_before - Duration::days(100), ..old };
    let ca = Authority::from_spec(&old);
    let trust = Trust::ca("root", ca.cert_der());
    let rule = before("*", -3);
    spares(&trust, &rule, &Offer::of(&ca.client("ci-7")));
    let early = LeafSpec::client("ci-7");
    let early = LeafSpec { not_before: early.not_before - Duration::hours(5), ..early };
    denies(&trust, &rule, &Offer::of(&ca.issue(&early)));
}

/// The matchers of the policy's grammar, and a bare glob over every name.
#[test]
fn names_of_every_kind() {
    let leaf = ROOT.issue(&LeafSpec {
        dns: vec!["ci-7.test".to_owned()],
        uris: vec!["spiffe://test/host/ci-7".to_owned()],
        emails: vec!["ci@mail.test".to_owned()],
        organizations: vec!["Builders".to_owned()],
        organizational_units: vec!["Night shift".to_owned()],
        ..LeafSpec::client("machine seven")
    });
    let leaf = Offer::of(&leaf);
    for matcher in [
        "machine seven",
        "machine *",
        "ci-7.test",
        "spiffe://test/host/*",
        "*@mail.test",
        "cn=machine seven",
        "dns=*.test",
        "uri=spiffe://*/ci-7",
        "email=ci@mail.test",
        "o=Builders",
        "ou=Night*",
        // Certificates are often made with the case of the request, and the policy does not look at it.
        "dns=CI-7.Test",
        "email=CI@MAIL.test",
        "spiffe=spiffe://test/host/*",
    ] {
        denies(&root(), &before(matcher, 1), &leaf);
    }
    for matcher in ["machine", "cn=ci-7.test", "dns=machine seven", "Builders", "o=Night shift", "cn="] {
        spares(&root(), &before(matcher, 1), &leaf);
    }
}

#[test]
fn denied_comes_before_every_other_reason() {
    let expired = ROOT.issue(&LeafSpec::client("ci-7").expired());
    let stranger = Authority::new("another CA").client("ci-7");
    for leaf in [expired, stranger] {
        let trust = root().and_deny(&by_certificate(leaf.cert_der())).store();
        let refusal = trust.judge(&chain_of(&Offer::of(&leaf)), now()).unwrap_err();
        assert_eq!(refusal, Refusal::Denied { line: 1 });
    }
}

/// Names are compared only once the chain is proven: a stranger with thousands of names would cost a glob for each of
/// them and each rule.
#[test]
fn a_strangers_names_are_not_looked_at() {
    let offer = Offer::of(&Authority::new("another CA").client("ci-7"));
    let trust = root().and_deny(&before("ci-7", 1)).store();
    assert_eq!(trust.judge(&chain_of(&offer), now()).unwrap_err(), Refusal::UnknownIssuer);
}
