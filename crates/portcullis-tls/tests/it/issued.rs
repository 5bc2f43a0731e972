//! What is issued is tried as the peer will try it.

use std::sync::LazyLock;

use portcullis_testkit::pki::{Authority, LeafSpec, Pair};
use portcullis_tls::{CaFault, Refusal, TlsError, verify_issued_client, verify_issued_server, verify_server_chain};
use rustls::{CertificateError, Error};
use time::Duration;

use crate::fixture::{certificate, ders, now};

static CA: LazyLock<Authority> = LazyLock::new(|| Authority::new("CA"));

fn as_client(ca: &Authority, pair: &Pair) -> Result<(), TlsError> {
    verify_issued_client(&ders(&pair.chain_der()), &certificate(ca.cert_der()), now())
}

fn as_server(ca: &Authority, pair: &Pair, name: &str) -> Result<(), TlsError> {
    verify_issued_server(&ders(&pair.chain_der()), &certificate(ca.cert_der()), name, now())
}

#[test]
fn good_clients() {
    as_client(&CA, &CA.client("ci-7")).unwrap();
    as_client(&CA, &CA.intermediate("issuing").client("ci-7")).unwrap();
}

#[test]
fn bad_clients() {
    let refusal = |pair: &Pair| match as_client(&CA, pair) {
        Err(TlsError::IssuedClient(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let client = LeafSpec::client("ci-7");
    assert!(matches!(refusal(&CA.issue(&client.clone().expired())), Refusal::Expired { .. }));
    assert!(matches!(refusal(&CA.issue(&client.clone().not_yet_valid())), Refusal::NotYetValid { .. }));
    assert!(matches!(refusal(&CA.issue(&client.server_auth_only())), Refusal::Usage { .. }));
    assert!(matches!(refusal(&CA.issue(&LeafSpec::authority("sub"))), Refusal::Usage { .. }));
    assert_eq!(refusal(&CA.pair), Refusal::SelfSigned);
    assert_eq!(refusal(&Authority::new("another").client("ci-7")), Refusal::UnknownIssuer);
    assert_eq!(refusal(&Authority::new("CA").client("ci-7")), Refusal::OtherKey);
    let none = verify_issued_client(&[], &certificate(CA.cert_der()), now());
    assert!(matches!(none, Err(TlsError::IssuedClient(Refusal::Unreadable))));
}

#[test]
fn bad_cas_of_clients() {
    for (ca, expected) in [
        (Authority::saying_ca_false("CA"), CaFault::NotCa),
        (Authority::without_key_cert_sign("CA"), CaFault::KeyUsage),
    ] {
        let error = as_client(&ca, &ca.client("ci-7")).unwrap_err();
        assert!(matches!(&error, TlsError::Ca(fault) if *fault == expected), "{error}");
    }
    let gone = Authority::expired("CA");
    assert!(matches!(as_client(&gone, &gone.client("x")), Err(TlsError::Ca(CaFault::Expired { .. }))));
}

#[test]
fn good_servers() {
    let pair = CA.server(&["registry.test"], &["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]);
    for name in ["registry.test", "REGISTRY.test", "192.0.2.7", "2001:db8::7"] {
        as_server(&CA, &pair, name).unwrap();
    }
    let issuing = CA.intermediate("issuing");
    as_server(&CA, &issuing.server(&["registry.test"], &[]), "registry.test").unwrap();
    as_server(&issuing, &issuing.server(&["registry.test"], &[]), "registry.test").unwrap();
}

#[test]
fn bad_servers() {
    let error = |ca: &Authority, spec: &LeafSpec| match as_server(ca, &ca.issue(spec), "registry.test") {
        Err(TlsError::IssuedServer(Error::InvalidCertificate(error))) => error,
        other => panic!("{other:?}"),
    };
    let good = LeafSpec::server(&["registry.test"], &[]);
    assert!(matches!(error(&CA, &good.clone().expired()), CertificateError::ExpiredContext { .. }));
    assert!(matches!(error(&CA, &good.clone().not_yet_valid()), CertificateError::NotValidYetContext { .. }));
    let other = LeafSpec::server(&["other.test"], &[]);
    assert!(matches!(error(&CA, &other), CertificateError::NotValidForNameContext { .. }));
    assert_eq!(
        error(&CA, &LeafSpec { client_auth: true, server_auth: false, ..good.clone() }),
        CertificateError::InvalidPurpose
    );
    let unconstrained = LeafSpec { permitted_dns: vec!["other.test".to_owned()], ..LeafSpec::authority("CA") };
    assert!(matches!(error(&Authority::from_spec(&unconstrained), &good), CertificateError::Other(_)));
    assert!(matches!(error(&Authority::expired("CA"), &good), CertificateError::Other(_)));

    let pair = CA.issue(&good);
    for name in ["", "registry.test:5443", "https://registry.test", "a b", "[2001:db8::7]"] {
        assert!(matches!(as_server(&CA, &pair, name), Err(TlsError::Name { name: said }) if said == name), "{name}");
    }
    let none = verify_issued_server(&[], &certificate(CA.cert_der()), "registry.test", now());
    assert!(matches!(none, Err(TlsError::NoCertificate)));
}

#[test]
fn a_chain_at_another_time_and_against_several_roots() {
    let other = certificate(Authority::new("another").cert_der());
    let ca = certificate(CA.cert_der());
    let chain = ders(&CA.server(&["registry.test"], &[]).chain_der());
    let check = |roots: &[_], days| verify_server_chain(&chain, roots, "registry.test", now() + Duration::days(days));
    check(&[other.clone(), ca.clone()], 0).unwrap();
    check(&[other.clone(), ca.clone()], 29).unwrap();
    assert!(check(&[other.clone(), ca.clone()], 31).is_err());
    assert!(check(&[ca], -1).is_err());
    assert!(check(&[other], 0).is_err());
    assert!(check(&[], 0).is_err());
}
