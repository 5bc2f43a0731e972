//! Certificates from strangers: whatever the bytes are, there is a verdict, and no byte of a trusted one can be changed.

use std::sync::LazyLock;

use portcullis_testkit::pki::{Authority, LeafSpec, recipe_shaped};
use portcullis_tls::{TrustStore, TrustedBy, verify_server_chain};
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;

use crate::fixture::{Trust, certificate, now};

struct World {
    trust: TrustStore,
    root: Vec<u8>,
    /// Leaf and intermediate.
    chain: Vec<Vec<u8>>,
    pin: Vec<u8>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = Authority::new("root CA");
    let spec = LeafSpec {
        dns: vec!["ci-7.test".to_owned()],
        uris: vec!["spiffe://test/ci-7".to_owned()],
        server_auth: true,
        ..LeafSpec::client("ci-7")
    };
    let leaf = root.intermediate("issuing CA").issue(&spec);
    let pin = recipe_shaped("alice").cert_der().to_vec();
    let trust = Trust::ca("root", root.cert_der())
        .and_pin("alice", &pin)
        .and_deny("name:cn=nobody* before 2999-01-01T00:00:00Z")
        .and_deny("serial:0000000000000000000000000000000000000000000000000000000000000000:00");
    World { trust: trust.store(), root: root.cert_der().to_vec(), chain: leaf.chain_der(), pin }
});

/// Both verdicts on any chain. A plain function, for a fuzzer to call.
fn judge(chain: &[Vec<u8>]) -> Option<TrustedBy> {
    let ders: Vec<CertificateDer<'_>> = chain.iter().map(|der| der.as_slice().into()).collect();
    let _ = verify_server_chain(&ders, &[certificate(&WORLD.root)], "ci-7.test", now());
    WORLD.trust.judge(&ders, now()).ok().map(|accepted| accepted.identity().trusted_by().clone())
}

#[test]
fn the_unchanged_are_accepted() {
    assert_eq!(judge(&WORLD.chain), Some(TrustedBy::Ca("root".to_owned())));
    assert_eq!(judge(std::slice::from_ref(&WORLD.pin)), Some(TrustedBy::Pin("alice".to_owned())));
}

/// Every single bit of both, one after the other.
#[test]
fn no_bit_of_a_leaf_or_a_pin_can_be_flipped() {
    for original in [&WORLD.chain[0], &WORLD.pin] {
        for bit in 0..original.len() * 8 {
            let mut changed = original.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let chain = [changed, WORLD.chain[1].clone()];
            assert_eq!(judge(&chain), None, "bit {bit} of {}", certificate(original).facts().subject);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_have_a_verdict(chain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        prop_assert_eq!(judge(&chain), None);
    }

    /// Several bytes replaced, cut out or doubled, in any certificate of the chain.
    #[test]
    fn mutated_chains_have_a_verdict(
        which in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut chain = vec![WORLD.chain[0].clone(), WORLD.chain[1].clone(), WORLD.pin.clone()];
        let original = chain[which].clone();
        for (at, byte, kind) in edits {
            let der = &mut chain[which];
            let at = at.index(der.len());
            match kind {
                0 => der[at] = byte,
                1 => drop(der.remove(at)),
                _ => der.insert(at, byte),
            }
        }
        let changed = chain[which] != original;
        let verdict = judge(&chain);
        // A leaf or its issuer that was changed is refused; the third certificate is not needed.
        prop_assert_eq!(verdict.is_some(), !changed || which == 2);
        chain.rotate_left(which);
        prop_assert!(!changed || judge(&chain).is_none());
    }
}
