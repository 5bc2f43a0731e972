//! Paths of more than one step: intermediates sent, missing, known and bad; CAs that share a key; when a verdict ends.

use std::sync::LazyLock;

use portcullis_testkit::pki::{Authority, BasicConstraints, KeyUse, LeafSpec, Pair, recipe_shaped};
use portcullis_tls::{Accepted, Refusal, TrustStore, TrustedBy};
use rustls::AlertDescription;
use time::{Duration, OffsetDateTime};

use crate::fixture::{Trust, certificate, now};
use crate::peer::{Offer, TLS13, chain_of, server, shake};

static ROOT: LazyLock<Authority> = LazyLock::new(|| Authority::new("root CA"));
static ISSUING: LazyLock<Authority> = LazyLock::new(|| ROOT.intermediate("issuing CA"));

fn judge(trust: &TrustStore, offer: &Offer) -> Result<Accepted, Refusal> {
    trust.judge(&chain_of(offer), now())
}

#[track_caller]
fn ca_of(trust: &Trust, offer: &Offer) -> String {
    match judge(&trust.store(), offer).unwrap().identity().trusted_by() {
        TrustedBy::Ca(name) => name.clone(),
        TrustedBy::Pin(name) => panic!("pin:{name}"),
    }
}

#[track_caller]
fn refused(trust: &Trust, offer: &Offer) -> Refusal {
    judge(&trust.store(), offer).unwrap_err()
}

fn below(issuer: &LeafSpec) -> Offer {
    Offer::of(&ROOT.issue(issuer).mint(&LeafSpec::client("ci-7")))
}

fn root() -> Trust {
    Trust::ca("root", ROOT.cert_der())
}

/// To the second, as certificates are.
fn seconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap()
}

#[test]
fn an_intermediate_is_sent_or_known() {
    let sent = Offer::of(&ISSUING.client("ci-7"));
    let alone = sent.with_chain(vec![sent.leaf().to_vec()]);
    let known = root().and_ca("issuing", ISSUING.cert_der());
    assert_eq!(ca_of(&root(), &sent), "root");
    assert_eq!(refused(&root(), &alone), Refusal::UnknownIssuer);
    assert_eq!(ca_of(&known, &alone), "root");
    assert_eq!(ca_of(&known, &sent), "root");

    let chain_material_only = Trust::ca("issuing", ISSUING.cert_der());
    assert_eq!(refused(&chain_material_only, &sent), Refusal::UnknownIssuer, "it is no anchor without its root");
    assert_eq!(chain_material_only.store().counts(), (0, 0));
}

#[test]
fn intermediates_that_may_not_sign() {
    let good = LeafSpec { is_ca: BasicConstraints::CaWithPathLen(0), ..LeafSpec::authority("issuing CA") };
    for (what, spec) in [
        ("keyUsage without keyCertSign", LeafSpec { key_usages: vec![KeyUse::CrlSign], ..good.clone() }),
        ("CA:FALSE", LeafSpec { is_ca: BasicConstraints::NotCa, ..good.clone() }),
        ("no basicConstraints", LeafSpec { is_ca: BasicConstraints::Absent, ..good.clone() }),
    ] {
        assert_eq!(refused(&root(), &below(&spec)), Refusal::UnknownIssuer, "{what}");
    }
    assert_eq!(ca_of(&root(), &below(&good)), "root");
    let critical = below(&LeafSpec { unknown_critical: true, ..good.clone() });
    assert!(matches!(refused(&root(), &critical), Refusal::Unsupported { .. }));
    let server_only = below(&good.clone().server_auth_only());
    assert!(matches!(refused(&root(), &server_only), Refusal::Usage { .. }));
}

/// The date shown is the one that is over: a leaf with months to live "expired" is no help to anybody.
#[test]
fn an_expired_intermediate_says_its_own_date() {
    let expired = LeafSpec::authority("issuing CA").expired();
    let not_after = seconds(expired.not_after);
    let offer = below(&expired);
    assert_eq!(refused(&root(), &offer), Refusal::Expired { not_after });
    let outcome = shake(&server(&root()), Some(&offer), TLS13);
    assert_eq!(outcome.alert, Some(AlertDescription::CertificateExpired));

    let early = LeafSpec::authority("issuing CA").not_yet_valid();
    let not_before = seconds(early.not_before);
    assert_eq!(refused(&root(), &below(&early)), Refusal::NotYetValid { not_before });
}

#[test]
fn the_path_length_counts_for_roots_and_intermediates() {
    let too_deep = ISSUING.intermediate("below pathlen 0").client("ci-7");
    assert_eq!(refused(&root(), &Offer::of(&too_deep)), Refusal::UnknownIssuer);

    let flat =
        Authority::from_spec(&LeafSpec { is_ca: BasicConstraints::CaWithPathLen(0), ..LeafSpec::authority("flat CA") });
    let trust = Trust::ca("flat", flat.cert_der());
    assert_eq!(ca_of(&trust, &Offer::of(&flat.client("ci-7"))), "flat");
    let deep = flat.intermediate("not allowed").client("ci-7");
    assert_eq!(refused(&trust, &Offer::of(&deep)), Refusal::UnknownIssuer);
}

/// A CA for servers, put among the clients' CAs by mistake.
#[test]
fn the_usage_of_a_root_counts() {
    let servers = Authority::from_spec(&LeafSpec::authority("server CA").server_auth_only());
    let trust = Trust::ca("servers", servers.cert_der());
    let refusal = refused(&trust, &Offer::of(&servers.client("ci-7")));
    assert!(matches!(refusal, Refusal::Usage { .. }), "{refusal:?}");
    let both = LeafSpec { client_auth: true, server_auth: true, ..LeafSpec::authority("CA") };
    let both = Authority::from_spec(&both);
    assert_eq!(ca_of(&Trust::ca("both", both.cert_der()), &Offer::of(&both.client("ci-7"))), "both");
}

#[test]
fn name_constraints_of_a_root_count() {
    let spec = LeafSpec { permitted_dns: vec!["good.test".to_owned()], ..LeafSpec::authority("narrow CA") };
    let narrow = Authority::from_spec(&spec);
    let trust = Trust::ca("narrow", narrow.cert_der());
    let named = |dns: &str| LeafSpec { dns: vec![dns.to_owned()], ..LeafSpec::client("ci-7") };
    assert_eq!(ca_of(&trust, &Offer::of(&narrow.issue(&named("a.good.test")))), "narrow");
    assert_eq!(refused(&trust, &Offer::of(&narrow.issue(&named("a.evil.test")))), Refusal::UnknownIssuer);
}

/// A CA renewed with its own key: old and new have one name and one key, and only one of them is valid.
#[test]
fn a_renewed_ca_and_its_expired_predecessor() {
    let old = Authority::from_spec(&LeafSpec::authority("client CA").expired());
    let renewed = old.pair.mint_for(&LeafSpec::authority("client CA"), old.pair.clone_key());
    assert!(certificate(renewed.cert_der()).facts().self_signed);
    let leaf = old.client("ci-7");
    let until = certificate(leaf.cert_der()).facts().not_after;
    for trust in [
        Trust::ca("old", old.cert_der()).and_ca("new", renewed.cert_der()),
        Trust::ca("new", renewed.cert_der()).and_ca("old", old.cert_der()),
    ] {
        assert_eq!(ca_of(&trust, &Offer::of(&leaf)), "new");
        let accepted = judge(&trust.store(), &Offer::of(&leaf)).unwrap();
        assert_eq!(accepted.valid_until(), until, "not when the predecessor expired");
    }
}

#[test]
fn a_verdict_ends_with_the_first_certificate_of_its_path() {
    let in_days = |days| seconds(now() + Duration::days(days));
    let soon = |spec: LeafSpec, days| LeafSpec { not_after: in_days(days), ..spec };
    let check = |root_days, issuing_days, leaf_days, expected| {
        let root = Authority::from_spec(&soon(LeafSpec::authority("root CA"), root_days));
        let issuing = root.issue(&soon(LeafSpec::authority("issuing CA"), issuing_days));
        let leaf = issuing.mint(&soon(LeafSpec::client("ci-7"), leaf_days));
        let trust = Trust::ca("root", root.cert_der()).store();
        let until = judge(&trust, &Offer::of(&leaf)).unwrap().valid_until();
        assert!((until - in_days(expected)).abs() <= Duration::seconds(5), "{until}");
        let chain = chain_of(&Offer::of(&leaf));
        assert!(trust.judge(&chain, until).is_ok());
        assert!(trust.judge(&chain, until + Duration::SECOND).is_err());
    };
    check(30, 20, 10, 10);
    check(30, 10, 20, 10);
    check(10, 30, 20, 10);
}

#[test]
fn a_pin_ends_with_itself() {
    let recipe = recipe_shaped("alice");
    let facts = certificate(recipe.cert_der());
    let (not_before, not_after) = (facts.facts().not_before, facts.facts().not_after);
    let trust = Trust::pin("alice", recipe.cert_der()).store();
    let chain = chain_of(&Offer::of(&recipe));
    assert_eq!(trust.judge(&chain, now()).unwrap().valid_until(), not_after);
    assert!(trust.judge(&chain, not_after).is_ok());
    assert!(trust.judge(&chain, not_before).is_ok());
    let late = trust.judge(&chain, not_after + Duration::SECOND).unwrap_err();
    assert_eq!(late, Refusal::Expired { not_after });
    let early = trust.judge(&chain, not_before - Duration::SECOND).unwrap_err();
    assert_eq!(early, Refusal::NotYetValid { not_before });
}

/// Somebody who answers every question of `openssl req` with Enter gives everything the same name.
#[test]
fn one_name_for_everything() {
    let ca = Authority::new("Internet Widgits");
    let leaf = ca.client("Internet Widgits");
    assert!(certificate(leaf.cert_der()).facts().self_issued);
    assert_eq!(ca_of(&Trust::ca("ca", ca.cert_der()), &Offer::of(&leaf)), "ca");
    assert_eq!(refused(&Trust::default(), &Offer::of(&leaf)), Refusal::SelfSigned, "for all that can be known");

    // An intermediate that shares its name with a pin is still an intermediate.
    let issuing = ROOT.intermediate("Internet Widgits");
    let recipe = recipe_shaped("Internet Widgits");
    let trust = root().and_pin("alice", recipe.cert_der());
    assert_eq!(ca_of(&trust, &Offer::of(&issuing.client("ci-7"))), "root");
}

#[test]
fn rubbish_in_the_chain_does_not_hide_the_issuer() {
    let pair = ISSUING.client("ci-7");
    let [leaf, issuing] = <[Vec<u8>; 2]>::try_from(pair.chain_der()).unwrap();
    let stranger = Authority::new("another CA");
    let chain = vec![leaf, b"rubbish".to_vec(), stranger.cert_der().to_vec(), issuing, ROOT.cert_der().to_vec()];
    assert_eq!(ca_of(&root(), &Offer::of(&pair).with_chain(chain)), "root");
}

/// Work for a stranger is bounded: what comes after the eighth certificate is not looked at.
#[test]
fn a_chain_of_fifty_is_cut_and_refused() {
    let mut issuer: Pair = Authority::new("far away").pair;
    let far_root = issuer.cert_der().to_vec();
    for n in 0..49 {
        issuer = issuer.mint(&LeafSpec::authority(&format!("CA {n}")));
    }
    let offer = Offer::of(&issuer.mint(&LeafSpec::client("ci-7")));
    assert_eq!(offer.chain.len(), 50);
    for trust in [root(), Trust::ca("far", &far_root)] {
        assert_eq!(refused(&trust, &offer), Refusal::UnknownIssuer);
        let outcome = shake(&server(&trust), Some(&offer), TLS13);
        assert_eq!(outcome.alert, Some(AlertDescription::UnknownCA));
    }

    let pair = ISSUING.client("ci-7");
    let padded = |padding: usize| {
        let [leaf, issuing] = <[Vec<u8>; 2]>::try_from(pair.chain_der()).unwrap();
        let mut chain = vec![leaf];
        chain.extend(std::iter::repeat_n(far_root.clone(), padding));
        chain.push(issuing);
        Offer::of(&pair).with_chain(chain)
    };
    assert_eq!(ca_of(&root(), &padded(6)), "root");
    assert_eq!(refused(&root(), &padded(7)), Refusal::UnknownIssuer);
}

/// Seven certificates of one name and many keys, each of which may have issued each other: path building gives up.
#[test]
fn a_maze_of_namesakes_ends() {
    let leaf = Authority::new("maze").issue(&LeafSpec::client("ci-7"));
    let mut chain = leaf.chain_der();
    chain.extend((0..7).map(|_| Authority::new("maze").cert_der().to_vec()));
    let trust = Trust::ca("maze", Authority::new("maze").cert_der());
    assert!(judge(&trust.store(), &Offer::without_key(chain)).is_err());
}

#[test]
fn an_empty_chain_is_unreadable() {
    assert_eq!(root().store().judge(&[], now()).unwrap_err(), Refusal::Unreadable);
}
