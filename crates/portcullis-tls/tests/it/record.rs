//! What a recording client writes down, against our own server and one that asks for nothing.

use std::sync::Arc;

use portcullis_testkit::pki::{Authority, LeafSpec, Pair};
use portcullis_tls::{ClientAuth, OfferedVersions, Recorded, recording_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, Error, ServerConnection};

use crate::fixture::{Trust, certificates, private_key};
use crate::peer::{NAME, pump, server};

/// A handshake with our server; what was recorded, and the client's error.
fn record(trust: &Trust, versions: OfferedVersions, pair: Option<&Pair>) -> (Recorded, Option<Error>) {
    let key = pair.map(|pair| (certificates(&pair.chain_der()), private_key(&pair.key_der())));
    let (config, recorder) =
        recording_config(versions, key.as_ref().map(|(chain, key)| (chain.as_slice(), key))).unwrap();
    let (serving, _slot) = server(trust).handshake(ClientAuth::Require).unwrap();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from(NAME).unwrap()).unwrap();
    let (mut client, mut serving) =
        (Connection::from(client), Connection::from(ServerConnection::new(serving).unwrap()));
    let (error, _) = pump(&mut client, &mut serving);
    (recorder.recorded(), error)
}

#[test]
fn the_chain_and_the_request_are_written_down_though_nothing_is_trusted() {
    let ca = Authority::new("client CA");
    let trust = Trust::ca("ca", ca.cert_der());
    for versions in [OfferedVersions::Both, OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let (recorded, error) = record(&trust, versions, None);
        assert_eq!(recorded.chain.len(), 1, "{versions:?}");
        let request = recorded.request.expect("our server asks");
        assert!(!request.answered && !request.schemes.is_empty());
        let subject = certificates(&[ca.cert_der().to_vec()])[0].facts().subject.der().to_vec();
        assert_eq!(request.authorities, [subject]);
        assert!(matches!(error, Some(Error::AlertReceived(_))), "{error:?}");
    }
}

#[test]
fn a_pair_is_sent_whatever_the_server_lists() {
    let ca = Authority::new("client CA");
    let trust = Trust::ca("ca", ca.cert_der());
    let (recorded, error) = record(&trust, OfferedVersions::Both, Some(&ca.client("ci-7")));
    assert!(recorded.request.unwrap().answered);
    assert_eq!(error, None);
    let stranger = Pair::self_signed(&LeafSpec::client("mallory"));
    let (recorded, error) = record(&trust, OfferedVersions::Both, Some(&stranger));
    assert!(recorded.request.unwrap().answered);
    assert_eq!(error, Some(Error::AlertReceived(rustls::AlertDescription::UnknownCA)));
}

#[test]
fn a_key_of_another_certificate_is_an_error_and_not_a_silent_nothing() {
    let ca = Authority::new("client CA");
    let (one, other) = (ca.client("one"), ca.client("other"));
    let chain = certificates(&one.chain_der());
    let key = private_key(&other.key_der());
    assert!(recording_config(OfferedVersions::Both, Some((&chain, &key))).is_err());
}
