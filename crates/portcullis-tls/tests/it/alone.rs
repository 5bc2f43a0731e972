//! Which refusals are a certificate's own, whatever is sent beside it.

use std::sync::LazyLock;

use portcullis_testkit::pki::{Authority, CrlSpec, LeafSpec, Pair, recipe_shaped, self_signed_client};

use crate::fixture::{Trust, certificate, now};

static ROOT: LazyLock<Authority> = LazyLock::new(|| Authority::new("root CA"));

fn root() -> Trust {
    Trust::ca("root", ROOT.cert_der())
}

#[track_caller]
fn check(trust: &Trust, pair: &Pair, is_own: bool) {
    assert_eq!(trust.store().refuses_by_itself(&certificate(pair.cert_der()), now()), is_own);
}

#[test]
fn what_no_chain_would_help() {
    let leaf = ROOT.client("ci-7");
    let print = certificate(leaf.cert_der()).fingerprint().to_string();
    check(&root().and_deny(&print), &leaf, true);
    check(&root().and_deny("name:cn=ci-7 before 9999-01-01T00:00:00Z"), &leaf, true);
    check(&root().and_crl(&ROOT.crl(&CrlSpec::new(1, &[&leaf]))), &leaf, true);
    check(&root(), &ROOT.issue(&LeafSpec::client("a").expired()), true);
    check(&root(), &ROOT.issue(&LeafSpec::client("a").not_yet_valid()), true);
    check(&root(), &self_signed_client("a"), true);
    check(&root().and_deny(&print).and_pin("ci", leaf.cert_der()), &leaf, true);
}

#[test]
fn what_is_trusted_or_may_be_with_another_chain() {
    let issuing = ROOT.intermediate("issuing CA");
    let recipe = recipe_shaped("alice");
    check(&root(), &ROOT.client("ci-7"), false);
    check(&root(), &issuing.client("ci-7"), false);
    check(&root(), &Authority::new("stranger").client("eve"), false);
    check(&root().and_pin("alice", recipe.cert_der()), &recipe, false);
    // The issuer is denied: another one of its name and key may be on another path.
    let issuer = certificate(issuing.cert_der()).fingerprint().to_string();
    check(&root().and_deny(&issuer), &issuing.client("ci-7"), false);
}
