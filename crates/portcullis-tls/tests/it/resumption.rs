//! No session comes back without a verdict.

use portcullis_testkit::pki::{Authority, LeafSpec};
use rustls::HandshakeKind;

use crate::fixture::{Trust, certificate};
use crate::peer::{BOTH, Offer, client, server};

/// The client's own side offers resumption (rustls' default): it is the server that has nothing to resume.
#[test]
fn the_second_connection_is_a_whole_handshake() {
    let ca = Authority::new("client CA");
    let server = server(&Trust::ca("ca", ca.cert_der()));
    for version in BOTH {
        let client = client(Some(&Offer::of(&ca.client("ci-7"))), version);
        for _ in 0..3 {
            let outcome = client.connect(&server);
            assert!(outcome.accepted.is_some());
            for kind in outcome.kinds {
                assert!(
                    matches!(kind, Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)),
                    "{kind:?} in {:?}",
                    version.version
                );
            }
        }
    }
}

/// What resumption would break: the one who was let in is denied on the next connection.
#[test]
fn a_denial_meets_the_next_connection() {
    let ca = Authority::new("client CA");
    let leaf = ca.issue(&LeafSpec::client("ci-7"));
    let trust = Trust::ca("ca", ca.cert_der());
    let denied = trust.clone().and_deny(&certificate(leaf.cert_der()).fingerprint().to_string());
    for version in BOTH {
        let client = client(Some(&Offer::of(&leaf)), version);
        assert!(client.connect(&server(&trust)).accepted.is_some());
        assert!(client.connect(&server(&denied)).accepted.is_none());
    }
}
