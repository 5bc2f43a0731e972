//! The three ways in which a client is asked for its certificate.

use portcullis_testkit::pki::{Authority, LeafSpec, Pair, openssl, recipe_shaped};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use portcullis_tls::{ClientAuth, Refusal};
use rustls::AlertDescription;

use crate::fixture::{CLIENT, RSA_1024, Trust, load, openssl_leaf};
use crate::peer::{BOTH, Offer, Outcome, TLS13, client, server};

struct Ends {
    trust: Trust,
    good: Pair,
    bad: Vec<Pair>,
}

fn ends() -> Ends {
    let ca = Authority::new("client CA");
    Ends {
        trust: Trust::ca("clients", ca.cert_der()),
        good: ca.client("good"),
        bad: vec![
            Authority::new("another CA").client("eve"),
            ca.issue(&LeafSpec::client("late").expired()),
            ca.issue(&LeafSpec::client("web").server_auth_only()),
            recipe_shaped("alice"),
        ],
    }
}

/// On both versions of TLS, of which the last outcome comes back.
#[track_caller]
fn shake(trust: &Trust, client_auth: ClientAuth, offer: Option<&Offer>) -> Outcome {
    let server = server(trust);
    let [first, second] = BOTH.map(|version| client(offer, version).connect_as(&server, client_auth));
    assert_eq!(first.is_finished, second.is_finished);
    assert_eq!(first.refusal, second.refusal);
    second
}

#[test]
fn explain_finishes_every_handshake_and_remembers_why_it_should_not_have() {
    let Ends { trust, good, bad } = ends();
    let outcome = shake(&trust, ClientAuth::Explain, Some(&Offer::of(&good)));
    assert!(outcome.accepted.is_some() && outcome.refusal.is_none());
    for pair in &bad {
        let outcome = shake(&trust, ClientAuth::Explain, Some(&Offer::of(pair)));
        assert!(outcome.is_finished && outcome.accepted.is_none() && outcome.refusal.is_some(), "{outcome:?}");
    }
    let outcome = shake(&trust, ClientAuth::Explain, None);
    assert!(outcome.is_finished && outcome.accepted.is_none() && outcome.refusal.is_none(), "{outcome:?}");
}

/// Without its key a certificate is nobody's, in every mode: what is explained is explained to its owner.
#[test]
fn the_key_is_always_proven() {
    let Ends { trust, good, bad } = ends();
    for pair in bad.iter().chain([&good]) {
        for client_auth in [ClientAuth::Require, ClientAuth::Explain, ClientAuth::Optional] {
            let outcome = shake(&trust, client_auth, Some(&Offer::without_key(pair.chain_der())));
            assert!(!outcome.is_finished && outcome.alert.is_some(), "{outcome:?}");
        }
    }
}

/// What ends such a handshake is the signature, and the log still has the reason for which it would have been refused.
#[test]
fn the_reason_stays_where_the_key_is_not_proven() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("client CA");
    let files = openssl_leaf(dir.path(), &ca.pair.write_pair(dir.path(), "ca"), RSA_1024, CLIENT, &[]);
    let offer = Offer::without_key(load(&files).0);
    let trust = Trust::ca("clients", ca.cert_der());
    let outcome = client(Some(&offer), TLS13).connect_as(&server(&trust), ClientAuth::Explain);
    assert!(!outcome.is_finished, "{outcome:?}");
    assert!(matches!(outcome.refusal, Some(Refusal::Unsupported { .. })), "{outcome:?}");
}

/// X.509 v1, which webpki does not read: its key is proven over TLS 1.3 all the same.
#[test]
fn explain_reads_what_webpki_does_not() {
    skip_unless!(Need::Program("openssl"));
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = load(&openssl::v1_self_signed(dir.path(), "old", "/CN=old"));
    let trust = ends().trust;
    let offer = Offer::new(chain.clone(), key);
    let outcome = client(Some(&offer), TLS13).connect_as(&server(&trust), ClientAuth::Explain);
    assert!(outcome.is_finished && outcome.refusal == Some(Refusal::SelfSigned), "{outcome:?}");
    let stolen = Offer::without_key(chain);
    assert!(!client(Some(&stolen), TLS13).connect_as(&server(&trust), ClientAuth::Explain).is_finished);
}

#[test]
fn optional_takes_none_and_refuses_what_is_presented() {
    let Ends { trust, good, bad } = ends();
    let outcome = shake(&trust, ClientAuth::Optional, None);
    assert!(outcome.is_finished && outcome.accepted.is_none(), "{outcome:?}");
    assert!(shake(&trust, ClientAuth::Optional, Some(&Offer::of(&good))).accepted.is_some());
    for pair in &bad {
        let required = shake(&trust, ClientAuth::Require, Some(&Offer::of(pair)));
        let outcome = shake(&trust, ClientAuth::Optional, Some(&Offer::of(pair)));
        assert!(!outcome.is_finished && outcome.alert == required.alert, "{outcome:?}");
    }
    let outcome = client(None, TLS13).connect_as(&server(&trust), ClientAuth::Require);
    assert_eq!(outcome.alert, Some(AlertDescription::CertificateRequired));
}

/// A Go client sends nothing when no name fits: where everything is explained, it shall send what it has.
#[test]
fn explain_names_no_cas() {
    let trust = ends().trust;
    for (client_auth, names) in [(ClientAuth::Require, 1), (ClientAuth::Optional, 1), (ClientAuth::Explain, 0)] {
        let hints = shake(&trust, client_auth, None).hints.expect("a certificate is asked for");
        assert_eq!(hints.len(), names, "{client_auth:?}");
    }
}
