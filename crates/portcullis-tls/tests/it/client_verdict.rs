//! What our client says of a registry's certificate: Docker's verdicts, row by row of the measured table.

use std::net::IpAddr;
use std::sync::LazyLock;

use portcullis_certs::{Certificate, ClientPair};
use portcullis_testkit::pki::{
    Authority, BasicConstraints, KeyAlg, KeyUse, LeafSpec, Pair, openssl, recipe_shaped, self_signed_client,
};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use portcullis_tls::{CaFault, ClientAuth, Roots, TlsError, UnusableAnchor, client_config, verify_server_chain};
use rustls::AlertDescription::{CertificateRequired, UnknownCA};
use rustls::{CertificateError, Error, OtherError};

use crate::fixture::{P256, RSA_1024, Trust, certificate, certificates, ders, load, now, openssl_leaf, private_key};
use crate::peer::{NAME, Offer, pump, server, visit};

static CA: LazyLock<Authority> = LazyLock::new(|| Authority::new("server CA"));

fn verdict(ca_crt: &[&[u8]], offer: &Offer, name: &str) -> Result<(), CertificateError> {
    let roots: Vec<Certificate> = ca_crt.iter().map(|der| certificate(der)).collect();
    visit(client_config(&roots, Roots::Only, None).unwrap(), offer, name).map_err(|error| match error {
        Error::InvalidCertificate(error) => error,
        other => panic!("{other}"),
    })
}

#[track_caller]
fn accepts(what: &str, ca_crt: &[u8], offer: &Offer) {
    assert_eq!(verdict(&[ca_crt], offer, NAME), Ok(()), "{what}");
}

fn spec() -> LeafSpec {
    LeafSpec::server(&[NAME], &[])
}

/// The anchor that was left out, found as a caller with only a `dyn Error` finds it.
#[track_caller]
fn unusable(ca_crt: &[u8], offer: &Offer) -> UnusableAnchor {
    let Err(CertificateError::Other(OtherError(cause))) = verdict(&[ca_crt], offer, NAME) else {
        panic!("{:?}", verdict(&[ca_crt], offer, NAME));
    };
    let mut next: Option<&dyn std::error::Error> = Some(&*cause);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<UnusableAnchor>() {
            return found.clone();
        }
        next = error.source();
    }
    panic!("not in the chain of {cause}");
}

#[test]
fn a_b_c_exact_matches() {
    let self_signed = |is_ca| LeafSpec { is_ca, authority_key_id: false, ..spec() };
    let a = Pair::self_signed(&self_signed(BasicConstraints::Ca).without_eku());
    let b = Pair::self_signed(&self_signed(BasicConstraints::NotCa));
    let c = CA.server(&[NAME], &[]);
    for (what, pair) in [("A: CA:TRUE", a), ("B: CA:FALSE", b), ("C: a leaf without its issuer", c)] {
        let offer = Offer::of(&pair);
        accepts(what, pair.cert_der(), &offer);
        assert_eq!(verdict(&[CA.cert_der()], &offer, NAME).is_ok(), what.starts_with('C'));
        let named = verdict(&[pair.cert_der()], &offer, "other.test");
        assert!(matches!(named, Err(CertificateError::NotValidForNameContext { .. })), "{what}: {named:?}");
    }
    // The key must be there too: an exact match is public.
    let config = client_config(&[certificate(CA.client("x").cert_der())], Roots::Only, None).unwrap();
    assert!(visit(config, &Offer::of(&CA.server(&[NAME], &[])), NAME).is_err());
    let copied = Offer::without_key(CA.server(&[NAME], &[]).chain_der());
    assert_eq!(verdict(&[copied.leaf()], &copied, NAME), Err(CertificateError::BadSignature));
}

#[test]
fn a_pinned_server_still_has_dates_and_usage() {
    let expired = CA.issue(&spec().expired());
    let early = CA.issue(&spec().not_yet_valid());
    let client_only = CA.issue(&LeafSpec { client_auth: true, server_auth: false, ..spec() });
    let check = |pair: &Pair| verdict(&[pair.cert_der()], &Offer::of(pair), NAME).unwrap_err();
    assert!(matches!(check(&expired), CertificateError::ExpiredContext { .. }));
    assert!(matches!(check(&early), CertificateError::NotValidYetContext { .. }));
    assert_eq!(check(&client_only), CertificateError::InvalidPurpose);
}

#[test]
fn d_e_m_n_issuers_that_are_none() {
    let seconds = |fault: &CaFault| matches!(fault, CaFault::Expired { .. });
    let d = Authority::expired("CA of D");
    let found = unusable(d.cert_der(), &Offer::of(&d.server(&[NAME], &[])));
    assert!(seconds(&found.fault) && found.subject.contains("CA of D"), "{found}");
    let early = Authority::from_spec(&LeafSpec::authority("early CA").not_yet_valid());
    let found = unusable(early.cert_der(), &Offer::of(&early.server(&[NAME], &[])));
    assert!(matches!(found.fault, CaFault::NotYetValid { .. }), "{found}");
    for (what, ca, fault) in [
        ("E", Authority::without_basic_constraints("CA of E"), CaFault::NotCa),
        ("M", Authority::saying_ca_false("CA of M"), CaFault::NotCa),
        ("N", Authority::without_key_cert_sign("CA of N"), CaFault::KeyUsage),
    ] {
        let found = unusable(ca.cert_der(), &Offer::of(&ca.server(&[NAME], &[])));
        assert_eq!(found.fault, fault, "{what}");
        assert!(found.to_string().contains(&format!("CN=CA of {what}")), "{found}");
    }
    // The child of a leaf that is pinned.
    let leaf = CA.server(&[NAME], &[]);
    let child = Offer::of(&leaf.mint(&spec()));
    let child = child.with_chain(vec![child.leaf().to_vec()]);
    assert_eq!(unusable(leaf.cert_der(), &child).fault, CaFault::NotCa);
    // A good root beside the bad one counts.
    let both = [d.cert_der(), CA.cert_der()];
    assert_eq!(verdict(&both, &Offer::of(&CA.server(&[NAME], &[])), NAME), Ok(()));
}

#[test]
fn f_j_k_what_only_openssl_makes() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let server = format!("basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:{NAME}\n");
    let v1 = openssl::v1_self_signed(dir.path(), "v1", "/CN=v1 CA");
    let (chain, key) = load(&openssl_leaf(dir.path(), &v1, P256, &server, &[]));
    accepts("F: a v1 CA", &load(&v1).0[0], &Offer::new(chain, key));

    let ca = CA.pair.write_pair(dir.path(), "ca");
    let make = |key: &[&str], extensions: &str, further: &[&str]| {
        load(&openssl_leaf(dir.path(), &ca, key, extensions, further))
    };
    // As in Go, the chain is good; no handshake here follows, because no scheme takes such a key.
    let (chain, _) = make(RSA_1024, &server, &[]);
    verify_server_chain(&ders(&chain), &[certificate(CA.cert_der())], NAME, now()).expect("J: RSA 1024");
    let (chain, key) = make(P256, &server, &["-sha1"]);
    let sha1 = Offer::new(chain, key);
    assert!(verdict(&[CA.cert_der()], &sha1, NAME).is_err(), "K: SHA-1");
    accepts("K pinned: nobody's signature is relied on", sha1.leaf(), &sha1);

    let (chain, key) = make(P256, &server.replace("serverAuth", "anyExtendedKeyUsage"), &[]);
    let any = Offer::new(chain, key);
    accepts("any usage", CA.cert_der(), &any);
    accepts("any usage, pinned", any.leaf(), &any);
}

#[test]
fn g_h_names() {
    let ip: IpAddr = "192.0.2.7".parse().unwrap();
    let named = |dns: &[&str], ips: &[IpAddr]| Offer::of(&CA.issue(&LeafSpec::server(dns, ips)));
    let check = |offer: &Offer, name: &str| verdict(&[CA.cert_der()], offer, name);
    let not_for = |result: Result<(), CertificateError>| {
        assert!(matches!(result, Err(CertificateError::NotValidForNameContext { .. })), "{result:?}");
    };
    let cn_only = LeafSpec { cn: Some(NAME.to_owned()), ..LeafSpec::server(&[], &[]) };
    not_for(check(&Offer::of(&CA.issue(&cn_only)), NAME));
    not_for(check(&named(&[NAME], &[]), "192.0.2.7"));
    not_for(check(&named(&["192.0.2.7"], &[]), "192.0.2.7"));
    assert_eq!(check(&named(&[], &[ip]), "192.0.2.7"), Ok(()));
    not_for(check(&named(&[], &[ip]), "192.0.2.8"));
    not_for(check(&named(&[], &[ip]), NAME));
    let v6: IpAddr = "2001:db8::7".parse().unwrap();
    assert_eq!(check(&named(&[], &[v6]), "2001:db8::7"), Ok(()));
    let wildcard = named(&["*.registry.test"], &[]);
    assert_eq!(check(&wildcard, "a.registry.test"), Ok(()));
    not_for(check(&wildcard, "a.b.registry.test"));
    not_for(check(&wildcard, NAME));
    // As in Go; webpki wants two labels after the star.
    assert_eq!(check(&named(&["*.test"], &[]), NAME), Ok(()));
    not_for(check(&named(&["*"], &[]), "registry"));
    assert_eq!(check(&named(&["REGISTRY.test"], &[]), NAME), Ok(()));
    not_for(check(&named(&["registry.test.evil"], &[]), NAME));
}

#[test]
fn i_usage_of_the_leaf_and_above() {
    let check = |ca: &Authority, spec: &LeafSpec| verdict(&[ca.cert_der()], &Offer::of(&ca.issue(spec)), NAME);
    let client_only = LeafSpec { client_auth: true, server_auth: false, ..spec() };
    assert_eq!(check(&CA, &client_only), Err(CertificateError::InvalidPurpose));
    assert_eq!(check(&CA, &spec().without_eku()), Ok(()));
    assert_eq!(check(&CA, &LeafSpec { client_auth: true, ..spec() }), Ok(()));

    let clients = LeafSpec { client_auth: true, ..LeafSpec::authority("client CA") };
    let issuing = CA.issue(&clients).mint(&spec());
    assert_eq!(verdict(&[CA.cert_der()], &Offer::of(&issuing), NAME), Err(CertificateError::InvalidPurpose));
    // Go asks the root too (`checkChainForKeyUsage`); webpki does not.
    let refused = check(&Authority::from_spec(&clients), &spec());
    assert!(refused.is_err(), "a CA for clients vouches for no registry");
}

#[test]
fn l_intermediates() {
    let issuing = CA.intermediate("issuing CA");
    let whole = Offer::of(&issuing.server(&[NAME], &[]));
    let alone = whole.with_chain(vec![whole.leaf().to_vec()]);
    accepts("whole", CA.cert_der(), &whole);
    assert_eq!(verdict(&[CA.cert_der()], &alone, NAME), Err(CertificateError::UnknownIssuer), "L1");
    accepts("L2: the intermediate is in ca.crt", issuing.cert_der(), &alone);

    let sly = LeafSpec { key_usages: vec![KeyUse::DigitalSignature], ..LeafSpec::authority("no signer") };
    let below = Offer::of(&CA.issue(&sly).mint(&spec()));
    assert_eq!(verdict(&[CA.cert_der()], &below, NAME), Err(CertificateError::UnknownIssuer));
    let leaf = CA.server(&[NAME], &[]);
    let below = Offer::of(&leaf.mint(&spec()));
    assert!(verdict(&[CA.cert_der()], &below, NAME).is_err(), "a leaf signs for nobody");
}

#[test]
fn the_path_length_of_a_root_counts() {
    let flat = LeafSpec { is_ca: BasicConstraints::CaWithPathLen(0), ..LeafSpec::authority("flat CA") };
    let flat = Authority::from_spec(&flat);
    accepts("directly below", flat.cert_der(), &Offer::of(&flat.server(&[NAME], &[])));
    let deep = Offer::of(&flat.intermediate("not allowed").server(&[NAME], &[]));
    assert!(verdict(&[flat.cert_der()], &deep, NAME).is_err());
}

#[test]
fn strangers_and_nobody() {
    let offer = Offer::of(&CA.server(&[NAME], &[]));
    let stranger = Authority::new("another CA");
    assert_eq!(verdict(&[stranger.cert_der()], &offer, NAME), Err(CertificateError::UnknownIssuer));
    assert_eq!(verdict(&[], &offer, NAME), Err(CertificateError::UnknownIssuer), "no roots, nobody");
    let namesake = Authority::new("server CA");
    assert_eq!(verdict(&[namesake.cert_der()], &offer, NAME), Err(CertificateError::BadSignature));
    let own = Offer::of(&recipe_shaped(NAME));
    assert!(verdict(&[CA.cert_der()], &own, NAME).is_err());
    assert_eq!(
        verdict(&[CA.cert_der()], &Offer::without_key(vec![b"rubbish".to_vec()]), NAME),
        Err(CertificateError::BadEncoding)
    );
}

#[test]
fn every_key_kind_serves() {
    for alg in [KeyAlg::P256, KeyAlg::P384, KeyAlg::P521, KeyAlg::Ed25519, KeyAlg::Rsa2048] {
        accepts(&format!("{alg:?}"), CA.cert_der(), &Offer::of(&CA.issue(&LeafSpec { alg, ..spec() })));
    }
}

/// The pair is sent whatever CA names the server lists, and what the server refuses comes back as its alert.
#[test]
fn the_pair_is_presented() {
    let client_ca = Authority::new("client CA");
    let leaf = client_ca.client("ci-7");
    let recipe = recipe_shaped("alice");
    let trust = Trust::ca("ca", client_ca.cert_der()).and_pin("alice", recipe.cert_der());
    let server = server(&trust);
    let connect = |pair: Option<&Pair>| {
        let pair = pair.map(|pair| client_pair(pair, pair));
        let roots = [server.chain()[0].clone()];
        let config = client_config(&roots, Roots::Only, pair.as_ref()).unwrap();
        assert!(config.alpn_protocols.iter().map(Vec::as_slice).eq([b"h2".as_slice(), b"http/1.1"]));
        let name = NAME.try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap().into();
        let (config, _slot) = server.handshake(ClientAuth::Require).unwrap();
        let mut serving = rustls::ServerConnection::new(config).unwrap().into();
        let (error, _) = pump(&mut client, &mut serving);
        assert_eq!(client.alpn_protocol(), Some(b"h2".as_slice()));
        error
    };
    assert_eq!(connect(Some(&leaf)), None);
    assert_eq!(connect(Some(&recipe)), None);
    assert_eq!(connect(Some(&self_signed_client("stranger"))), Some(Error::AlertReceived(UnknownCA)));
    assert_eq!(connect(None), Some(Error::AlertReceived(CertificateRequired)));
}

fn client_pair(certificate: &Pair, key: &Pair) -> ClientPair {
    ClientPair {
        name: "client".to_owned(),
        cert_path: "client.cert".into(),
        key_path: "client.key".into(),
        chain: certificates(&certificate.chain_der()),
        key: private_key(&key.key_der()),
    }
}

#[test]
fn a_pair_that_is_none() {
    let (one, other) = (CA.client("one"), CA.client("other"));
    let error = client_config(&[], Roots::Only, Some(&client_pair(&one, &other))).unwrap_err();
    assert!(matches!(error, TlsError::KeyMismatch { ref subject } if subject.contains("one")), "{error}");
    let empty = ClientPair { chain: vec![], ..client_pair(&one, &one) };
    assert!(matches!(client_config(&[], Roots::Only, Some(&empty)), Err(TlsError::NoCertificate)));
}
