//! What is negotiated: post-quantum key exchange, and every suite that is offered.

use std::sync::Arc;

use portcullis_testkit::pki::{Authority, KeyAlg, LeafSpec};
use portcullis_tls::{ClientAuth, ServerTls, TlsError, TrustStore, install_default_provider, provider};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ClientConfig, ClientConnection, Connection, NamedGroup, RootCertStore, ServerConnection};

use crate::fixture::{Trust, certificates, private_key};
use crate::peer::{NAME, pump};

/// A server with a certificate of this kind and one that a client of this provider gets from it.
fn negotiate(alg: KeyAlg, offered: CryptoProvider) -> (CipherSuite, NamedGroup) {
    let ca = Authority::new("server CA");
    let pair = ca.issue(&LeafSpec { alg, ..LeafSpec::server(&[NAME], &[]) });
    let trust = Trust::default().store();
    let chain = certificates(&pair.chain_der());
    let server = ServerTls::new(chain, &private_key(&pair.key_der()), Arc::new(trust)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.cert_der().to_vec().into()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(offered))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(client), NAME.try_into().unwrap()).unwrap();
    let mut client = Connection::from(client);
    let mut serving =
        Connection::from(ServerConnection::new(server.handshake(ClientAuth::Require).unwrap().0).unwrap());
    // The client has no certificate, so the end is a refusal; by then everything is negotiated and has carried data.
    let (refused, _) = pump(&mut client, &mut serving);
    assert!(matches!(refused, Some(rustls::Error::AlertReceived(_))), "{refused:?}");
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    (suite, client.negotiated_key_exchange_group().unwrap().name())
}

#[test]
fn the_key_exchange_is_post_quantum_and_the_suite_strong() {
    let (suite, group) = negotiate(KeyAlg::P256, (*provider()).clone());
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert!(format!("{suite:?}").starts_with("TLS13_AES"), "{suite:?}");
}

/// Both implementations of the suites (one of them is in use here, by the CPU) speak to each other.
#[test]
fn every_suite_works_against_either_implementation() {
    use rustls::crypto::{aws_lc_rs, ring};
    let ours: Vec<CipherSuite> = provider().cipher_suites.iter().map(rustls::SupportedCipherSuite::suite).collect();
    assert_eq!(ours.len(), 9);
    for suites in [aws_lc_rs::ALL_CIPHER_SUITES, ring::ALL_CIPHER_SUITES] {
        for suite in suites {
            let name = suite.suite();
            assert!(ours.contains(&name), "{name:?}");
            let alg = if format!("{name:?}").contains("_RSA_") { KeyAlg::Rsa2048 } else { KeyAlg::P256 };
            let offered = CryptoProvider { cipher_suites: vec![*suite], ..(*provider()).clone() };
            assert_eq!(negotiate(alg, offered).0, name);
        }
    }
}

#[test]
fn clients_without_the_new_group_are_served() {
    for group in [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1] {
        let kx_groups = provider().kx_groups.iter().copied().filter(|kx| kx.name() == group).collect();
        let offered = CryptoProvider { kx_groups, ..(*provider()).clone() };
        assert_eq!(negotiate(KeyAlg::P256, offered).1, group);
    }
}

#[test]
fn the_default_provider_is_ours_and_may_be_installed_twice() {
    install_default_provider();
    install_default_provider();
    let default = CryptoProvider::get_default().unwrap();
    assert_eq!(default.kx_groups.first().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
}

#[test]
fn a_server_needs_a_certificate_and_its_key() {
    let ca = Authority::new("server CA");
    let (pair, other) = (ca.server(&[NAME], &[]), ca.server(&[NAME], &[]));
    let trust = || -> Arc<TrustStore> { Arc::new(Trust::default().store()) };
    let make = |chain, key: &[u8]| ServerTls::new(chain, &private_key(key), trust());
    let mismatch = make(certificates(&pair.chain_der()), &other.key_der());
    assert!(matches!(mismatch, Err(TlsError::KeyMismatch { .. })), "{mismatch:?}");
    assert!(matches!(make(vec![], &pair.key_der()), Err(TlsError::NoCertificate)));
    let good = make(certificates(&pair.chain_der()), &pair.key_der()).unwrap();
    assert_eq!(good.chain()[0].der().as_ref(), pair.cert_der());
    let shown = format!("{good:?}");
    let key = pair.key_der();
    let secret: String = format!("{:?}", &key[40..48]);
    assert!(!shown.contains(secret.trim_matches(['[', ']'])), "the key is in Debug");
}
