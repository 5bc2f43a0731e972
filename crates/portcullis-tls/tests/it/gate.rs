//! What may stand in `trust/cas`: every reason against it, and every kind of key for it.

use portcullis_testkit::pki::{Authority, BasicConstraints, KeyAlg, KeyUse, LeafSpec, openssl, recipe_shaped};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use portcullis_tls::{CaFault, CaRejected, gate};
use time::Duration;

use crate::fixture::{Trust, certificate, load, now};

fn faults(der: &[u8]) -> Vec<CaFault> {
    gate(&certificate(der), now())
}

fn faults_of(spec: &LeafSpec) -> Vec<CaFault> {
    faults(Authority::from_spec(spec).cert_der())
}

#[test]
fn good_ones_of_each_key_kind() {
    for alg in [KeyAlg::P256, KeyAlg::P384, KeyAlg::P521, KeyAlg::Ed25519, KeyAlg::Rsa2048] {
        let spec = LeafSpec { alg, ..LeafSpec::authority("CA") };
        assert_eq!(faults_of(&spec), [], "{alg:?}");
    }
    assert_eq!(faults(recipe_shaped("a CA without keyUsage").cert_der()), []);
    let root = Authority::new("root");
    assert_eq!(faults(root.intermediate("issuing").cert_der()), []);
}

#[test]
fn each_fault_alone() {
    let good = LeafSpec::authority("CA");
    let cases = [
        (LeafSpec { is_ca: BasicConstraints::NotCa, ..good.clone() }, CaFault::NotCa),
        (LeafSpec { is_ca: BasicConstraints::Absent, ..good.clone() }, CaFault::NotCa),
        (LeafSpec { key_usages: vec![KeyUse::CrlSign], ..good.clone() }, CaFault::KeyUsage),
        (LeafSpec { unknown_critical: true, ..good.clone() }, CaFault::CriticalExtension { oid: "2.25.4096".into() }),
    ];
    for (spec, fault) in cases {
        assert_eq!(faults_of(&spec), [fault]);
    }
    let found = faults_of(&good.clone().expired());
    assert!(matches!(found.as_slice(), [CaFault::Expired { .. }]), "{found:?}");
    let found = faults_of(&good.not_yet_valid());
    assert!(matches!(found.as_slice(), [CaFault::NotYetValid { .. }]), "{found:?}");
}

#[test]
fn each_fault_that_only_openssl_makes() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let v1 = load(&openssl::v1_self_signed(dir.path(), "v1", "/CN=v1")).0;
    assert_eq!(faults(&v1[0]), [CaFault::Version { version: 1 }]);
    let sha1 = load(&openssl::self_signed_sha1(dir.path(), "sha1", "/CN=sha1")).0;
    assert_eq!(faults(&sha1[0]), [CaFault::Signature { algorithm: "RSA with SHA-1".into() }]);
    for (bits, expected) in [(1024, "RSA 1024"), (2047, "RSA 2047")] {
        let weak = load(&openssl::self_signed_rsa(dir.path(), "rsa", "/CN=rsa", bits)).0;
        assert_eq!(faults(&weak[0]), [CaFault::Key { key: expected.into() }]);
    }
}

#[test]
fn every_fault_is_reported() {
    let spec = LeafSpec {
        is_ca: BasicConstraints::NotCa,
        key_usages: vec![KeyUse::DigitalSignature],
        unknown_critical: true,
        ..LeafSpec::authority("CA")
    };
    let found = faults_of(&spec.expired());
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn the_last_and_the_first_second() {
    let ca = certificate(Authority::new("CA").cert_der());
    let (first, last) = (ca.facts().not_before, ca.facts().not_after);
    assert_eq!(gate(&ca, first), []);
    assert_eq!(gate(&ca, last), []);
    assert_eq!(gate(&ca, first - Duration::SECOND), [CaFault::NotYetValid { not_before: first }]);
    assert_eq!(gate(&ca, last + Duration::SECOND), [CaFault::Expired { not_after: last }]);
}

/// Expiry leaves out one CA and refuses nothing; everything else is the operator's mistake.
#[test]
fn what_is_rejected_and_whether_it_is_only_the_date() {
    let good = Authority::new("good");
    let cases = [
        (Authority::expired("expired"), true),
        (Authority::from_spec(&LeafSpec::authority("early").not_yet_valid()), true),
        (Authority::saying_ca_false("CA:FALSE"), false),
        (Authority::from_spec(&LeafSpec { key_usages: vec![], ..LeafSpec::client("both") }.expired()), false),
    ];
    for (ca, only_expired) in cases {
        let (store, rejected) = Trust::ca("bad", ca.cert_der()).and_ca("good", good.cert_der()).build();
        let [rejected] = <[_; 1]>::try_from(rejected).unwrap();
        assert_eq!(rejected.path.to_str(), Some("bad.crt"));
        assert_eq!(rejected.subject, certificate(ca.cert_der()).facts().subject.to_string());
        assert!(!rejected.faults.is_empty());
        assert_eq!(rejected.only_expired(), only_expired, "{rejected:?}");
        assert!(store.ca_names().any(|name| name == "good"));
    }
}

/// What the gate passes and webpki cannot read is rejected without a fault, and that is no matter of time.
#[test]
fn no_fault_at_all_is_not_only_the_date() {
    let rejected = CaRejected { path: "x.crt".into(), subject: "CN=x".to_owned(), faults: vec![] };
    assert!(!rejected.only_expired());
}
