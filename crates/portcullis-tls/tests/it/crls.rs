//! Revocation lists: each counts for its own CA, in its place in the order, with its alert.

use std::sync::LazyLock;

use portcullis_certs::trust_dir::TrustFiles;
use portcullis_testkit::pki::{Authority, CrlSpec, KeyUse, LeafSpec, Pair, recipe_shaped};
use portcullis_tls::{CrlFault, CrlPresence, CrlRule, Refusal, StaleCrl, TrustStore};
use rustls::AlertDescription;
use time::Duration;

use crate::fixture::{Trust, certificate, crl, key_hash, now};
use crate::peer::{BOTH, Offer, chain_of, server, shake};

static ROOT: LazyLock<Authority> = LazyLock::new(|| Authority::new("root CA"));
static ISSUING: LazyLock<Authority> = LazyLock::new(|| ROOT.intermediate("issuing CA"));

const REQUIRED: CrlRule = CrlRule { presence: CrlPresence::Required, stale: StaleCrl::Warn };
const CURRENT: CrlRule = CrlRule { presence: CrlPresence::IfPresent, stale: StaleCrl::Reject };
const OFF: CrlRule = CrlRule { presence: CrlPresence::Off, stale: StaleCrl::Reject };

fn root() -> Trust {
    Trust::ca("root", ROOT.cert_der())
}

fn list(number: u64, revoked: &[&Pair]) -> String {
    ROOT.crl(&CrlSpec::new(number, revoked))
}

fn verdict(trust: &Trust, pair: &Pair) -> Result<(), Refusal> {
    trust.store().judge(&chain_of(&Offer::of(pair)), now()).map(|_| ())
}

fn revoked_by(ca: &str) -> Result<(), Refusal> {
    Err(Refusal::Revoked { ca: ca.to_owned() })
}

#[test]
fn a_listed_certificate_is_revoked_and_its_neighbours_are_not() {
    let (bad, good) = (ROOT.client("ci-7"), ROOT.client("ci-8"));
    let trust = root().and_crl(&list(1, &[&bad]));
    for version in BOTH {
        let outcome = shake(&server(&trust), Some(&Offer::of(&bad)), version);
        assert_eq!(outcome.refusal, revoked_by("root").err());
        assert_eq!(outcome.alert, Some(AlertDescription::CertificateRevoked));
        assert!(shake(&server(&trust), Some(&Offer::of(&good)), version).accepted.is_some());
    }
}

/// webpki's default would refuse every certificate of a CA without a list.
#[test]
fn a_ca_without_a_list_locks_nobody_out() {
    let other = Authority::new("other CA");
    let trust = root().and_ca("other", other.cert_der()).and_crl(&list(1, &[]));
    assert_eq!(verdict(&trust, &other.client("a")), Ok(()));
    assert_eq!(verdict(&trust, &ROOT.client("b")), Ok(()));
}

#[test]
fn a_required_list_that_is_missing_refuses_that_ca_alone() {
    let other = Authority::new("other CA");
    let trust = root().and_ca("other", other.cert_der()).and_rule("root", REQUIRED);
    assert_eq!(verdict(&trust, &ROOT.client("a")), Err(Refusal::CrlMissing { ca: "root".to_owned() }));
    assert_eq!(verdict(&trust, &other.client("b")), Ok(()));
    let outcome = shake(&server(&trust), Some(&Offer::of(&ROOT.client("a"))), BOTH[1]);
    assert_eq!(outcome.alert, Some(AlertDescription::UnknownCA));
    assert_eq!(verdict(&trust.and_crl(&list(1, &[])), &ROOT.client("a")), Ok(()));
}

/// Also of an intermediate that only the peer knows: its root's rule holds for it.
#[test]
fn a_required_list_is_required_of_every_issuer_of_the_path() {
    let leaf = ISSUING.client("a");
    let missing = Err(Refusal::CrlMissing { ca: "root".to_owned() });
    let trust = root().and_rule("root", REQUIRED).and_crl(&list(1, &[]));
    assert_eq!(verdict(&trust, &leaf), missing);
    let trust = trust.and_ca("issuing", ISSUING.cert_der()).and_rule("issuing", REQUIRED);
    assert_eq!(verdict(&trust, &leaf), missing);
    assert_eq!(verdict(&trust.and_crl(&ISSUING.crl(&CrlSpec::new(1, &[]))), &leaf), Ok(()));
}

#[test]
fn a_stale_list_still_counts_and_is_refused_where_the_rule_says_so() {
    let (bad, good) = (ROOT.client("ci-7"), ROOT.client("ci-8"));
    let stale = CrlSpec::new(1, &[&bad]).stale();
    let trust = root().and_crl(&ROOT.crl(&stale));
    assert_eq!(verdict(&trust, &bad), revoked_by("root"));
    assert_eq!(verdict(&trust, &good), Ok(()));
    let strict = trust.and_rule("root", CURRENT);
    assert_eq!(verdict(&strict, &bad), revoked_by("root"));
    let next_update = stale.next_update.replace_nanosecond(0).unwrap();
    assert_eq!(verdict(&strict, &good), Err(Refusal::CrlStale { ca: "root".to_owned(), next_update }));
    let outcome = shake(&server(&strict), Some(&Offer::of(&good)), BOTH[0]);
    assert_eq!(outcome.alert, Some(AlertDescription::UnknownCA));
}

/// The verdict of an open connection runs again when the list runs out.
#[test]
fn a_verdict_that_hangs_on_a_current_list_ends_with_it() {
    let good = ROOT.client("ci-8");
    let spec = CrlSpec { next_update: now() + Duration::minutes(5), ..CrlSpec::new(1, &[]) };
    let until = |trust: &Trust| trust.store().judge(&chain_of(&Offer::of(&good)), now()).unwrap().valid_until();
    let trust = root().and_crl(&ROOT.crl(&spec));
    assert_eq!(until(&trust.clone().and_rule("root", CURRENT)), spec.next_update.replace_nanosecond(0).unwrap());
    assert!(until(&trust) > spec.next_update);
    let trust = trust.and_rule("root", CURRENT);
    let at = spec.next_update + Duration::SECOND;
    assert!(matches!(trust.store().judge(&chain_of(&Offer::of(&good)), at), Err(Refusal::CrlStale { .. })));
}

#[test]
fn a_list_that_is_off_is_not_looked_at() {
    let bad = ROOT.client("ci-7");
    let trust = root().and_crl(&ROOT.crl(&CrlSpec::new(1, &[&bad]).stale())).and_rule("root", OFF);
    assert_eq!(verdict(&trust, &bad), Ok(()));
}

/// Deny, CRL, dates, pin, chain: the first that applies decides.
#[test]
fn the_order_of_the_verdict() {
    let expired = ROOT.issue(&LeafSpec::client("old").expired());
    let trust = root().and_crl(&list(1, &[&expired]));
    assert_eq!(verdict(&trust, &expired), revoked_by("root"), "the list comes before the dates");
    let denied = trust.and_deny(&certificate(expired.cert_der()).fingerprint().to_string());
    assert_eq!(verdict(&denied, &expired), Err(Refusal::Denied { line: 1 }), "the deny list comes first");
    let pinned = ROOT.client("ci-7");
    let trust = root().and_pin("ci", pinned.cert_der());
    assert_eq!(verdict(&trust, &pinned), Ok(()));
    assert_eq!(verdict(&trust.and_crl(&list(1, &[&pinned])), &pinned), revoked_by("root"), "and before the pin");
}

/// A new CA of the same name counts from 1 again: its certificate number 7 is not the one that was revoked.
#[test]
fn a_list_counts_for_its_own_key_only() {
    let renewed = Authority::new("root CA");
    let spec = LeafSpec { serial: Some(vec![7]), ..LeafSpec::client("ci-7") };
    let (old, new) = (ROOT.issue(&spec), renewed.issue(&spec));
    let trust = root().and_ca("renewed", renewed.cert_der()).and_crl(&list(1, &[&old]));
    assert_eq!(verdict(&trust, &old), revoked_by("root"));
    assert_eq!(verdict(&trust, &new), Ok(()));
    let pinned = recipe_shaped("alice");
    let trust = trust.and_pin("alice", pinned.cert_der());
    assert_eq!(verdict(&trust, &pinned), Ok(()));
}

#[test]
fn an_intermediate_can_be_revoked() {
    let leaf = ISSUING.client("a");
    assert_eq!(verdict(&root().and_crl(&list(1, &[])), &leaf), Ok(()));
    let trust = root().and_crl(&list(1, &[&ISSUING.pair]));
    assert_eq!(verdict(&trust, &leaf), revoked_by("root"));
    // Also one that lies in trust/cas.
    assert_eq!(verdict(&trust.and_ca("issuing", ISSUING.cert_der()), &leaf), revoked_by("root"));
    let trust = root().and_ca("issuing", ISSUING.cert_der()).and_crl(&ISSUING.crl(&CrlSpec::new(1, &[&leaf])));
    assert_eq!(verdict(&trust, &leaf), revoked_by("issuing"));
}

#[test]
fn lists_that_do_not_check_do_not_count() {
    let bad = ROOT.client("ci-7");
    let fault = |trust: &Trust| {
        let rejected = trust.rejected_crls();
        assert_eq!(verdict(trust, &bad), Ok(()), "{rejected:?}");
        let [rejected] = rejected.as_slice() else { panic!("{rejected:?}") };
        assert_eq!((rejected.path.to_str(), rejected.line), (Some("a.crl"), Some(1)));
        rejected.fault.clone()
    };
    let stranger = Authority::new("stranger");
    assert!(matches!(fault(&root().and_crl(&stranger.crl(&CrlSpec::new(1, &[&bad])))), CrlFault::NoCa { .. }));
    let namesake = Authority::new("root CA");
    let forged = root().and_crl(&namesake.crl(&CrlSpec::new(9, &[&bad])));
    assert_eq!(fault(&forged), CrlFault::OtherKey { ca: "root".to_owned() });
    // A leaf of the CA may not speak for it, whatever name it has.
    let usages = vec![KeyUse::DigitalSignature, KeyUse::CrlSign];
    let impostor = Authority { pair: ROOT.issue(&LeafSpec { key_usages: usages, ..LeafSpec::client("root CA") }) };
    let forged = root().and_crl(&impostor.crl(&CrlSpec::new(9, &[&bad])));
    assert_eq!(fault(&forged), CrlFault::OtherKey { ca: "root".to_owned() });
}

/// The same key, in a certificate whose keyUsage lacks cRLSign.
#[test]
fn a_ca_that_may_not_sign_lists() {
    let signer = Authority::new("quiet CA");
    let usages = vec![KeyUse::KeyCertSign];
    let quiet = LeafSpec { key_usages: usages, ..LeafSpec::authority("quiet CA") };
    let quiet = signer.pair.mint_for(&quiet, signer.pair.clone_key());
    let trust = Trust::ca("quiet", quiet.cert_der()).and_crl(&signer.crl(&CrlSpec::new(1, &[])));
    assert_eq!(trust.rejected_crls()[0].fault, CrlFault::MayNotSign { ca: "quiet".to_owned() });
}

#[test]
fn the_newest_list_wins_whatever_the_order() {
    let (one, two) = (ROOT.client("one"), ROOT.client("two"));
    let (older, newer) = (list(1, &[&one]), list(2, &[&two]));
    for trust in [root().and_crl(&older).and_crl(&newer), root().and_crl(&newer).and_crl(&older)] {
        assert_eq!(verdict(&trust, &one), Ok(()));
        assert_eq!(verdict(&trust, &two), revoked_by("root"));
    }
}

#[test]
fn an_older_list_does_not_take_the_place_of_a_newer_one() {
    let (one, two) = (ROOT.client("one"), ROOT.client("two"));
    let before = root().and_crl(&list(2, &[&one, &two])).store();
    for after in [root().and_crl(&list(1, &[&one])), root()] {
        let (store, kept) = after.store().keeping_crls_of(&before, |_| true);
        assert_eq!(
            kept.iter().map(|crl| (crl.ca.as_str(), crl.ca_key)).collect::<Vec<_>>(),
            [("root", key_hash(ROOT.cert_der()))]
        );
        assert_eq!(store.judge(&chain_of(&Offer::of(&two)), now()).map(|_| ()), revoked_by("root"));
    }
    let (store, kept) = root().and_crl(&list(3, &[&one])).store().keeping_crls_of(&before, |_| true);
    assert!(kept.is_empty());
    assert!(store.judge(&chain_of(&Offer::of(&two)), now()).is_ok());
    assert!(root().store().keeping_crls_of(&before, |_| false).1.is_empty(), "forgiven");
}

/// `trust/` is restored file by file, and looked at four times a second meanwhile.
#[test]
fn a_ca_that_was_away_finds_its_newer_list_again() {
    let two = ROOT.client("two");
    let before = root().and_crl(&list(2, &[&two])).store();
    let other = Authority::new("other CA");
    let (between, _) = Trust::ca("other", other.cert_der()).store().keeping_crls_of(&before, |_| true);
    assert_eq!(between.crls().count(), 0, "without its CA it is not in force");
    let (after, _) = root().and_crl(&list(1, &[])).store().keeping_crls_of(&between, |_| true);
    assert_eq!(after.judge(&chain_of(&Offer::of(&two)), now()).map(|_| ()), revoked_by("root"));
}

#[test]
fn new_lists_count_although_all_else_is_refused() {
    let (one, two) = (ROOT.client("one"), ROOT.client("two"));
    let store = root().and_crl(&list(1, &[&one])).store();
    let namesake = Authority::new("root CA");
    let new = [crl(&list(2, &[&one, &two])), crl(&namesake.crl(&CrlSpec::new(9, &[])))];
    let files = TrustFiles { crls: new.into(), ..TrustFiles::default() };
    let store = store.restricted_by(&[], &files);
    for pair in [&one, &two] {
        assert_eq!(store.judge(&chain_of(&Offer::of(pair)), now()).map(|_| ()), revoked_by("root"));
    }
    assert_eq!(store.crls().count(), 1);
}

const AT: &str = "https://ca.test/1.0/crl";

fn at(uri: &str) -> CrlSpec {
    CrlSpec { for_users_at: vec![uri.to_owned()], ..CrlSpec::new(1, &[]) }
}

fn listed_at(uri: &str) -> LeafSpec {
    LeafSpec { crl_uris: vec![uri.to_owned()], ..LeafSpec::client("ci-7") }
}

/// As step-ca publishes it: onlyContainsUserCerts, and the URI where it is.
#[test]
fn a_list_of_end_entities_is_the_whole_for_a_client() {
    let (bad, good) = (ROOT.client("ci-7"), ROOT.client("ci-8"));
    let trust = root().and_crl(&ROOT.crl(&CrlSpec { serials: vec![bad.serial()], ..at(AT) }));
    assert_eq!(verdict(&trust, &bad), revoked_by("root"));
    assert_eq!(verdict(&trust, &good), Ok(()));
    let required = trust.and_rule("root", REQUIRED);
    assert_eq!(verdict(&required, &good), Ok(()));
    assert_eq!(verdict(&required, &ROOT.issue(&listed_at(AT))), Ok(()));
}

/// A certificate whose CA divides its revocations names the list that it would be on: by another one nobody can say that it
/// is not revoked.
#[test]
fn the_list_of_another_distribution_point_is_none() {
    let elsewhere = ROOT.issue(&listed_at("https://ca.test/shard/2"));
    let missing = Err(Refusal::CrlMissing { ca: "root".to_owned() });
    let trust = root().and_crl(&ROOT.crl(&at(AT)));
    assert_eq!(verdict(&trust, &elsewhere), Ok(()));
    assert_eq!(verdict(&trust.and_rule("root", REQUIRED), &elsewhere), missing);
    // What it names all the same is revoked.
    let named = root().and_crl(&ROOT.crl(&CrlSpec { serials: vec![elsewhere.serial()], ..at(AT) }));
    assert_eq!(verdict(&named, &elsewhere), revoked_by("root"));
}

/// It says nothing of the certificates of CAs.
#[test]
fn a_list_of_end_entities_is_none_for_an_intermediate() {
    let trust = root().and_ca("issuing", ISSUING.cert_der()).and_rule("root", REQUIRED);
    let leaf = ISSUING.client("a");
    let whole = trust.clone().and_crl(&list(1, &[])).and_crl(&ISSUING.crl(&at(AT)));
    assert_eq!(verdict(&whole, &leaf), Ok(()));
    let users = trust.and_crl(&ROOT.crl(&at(AT))).and_crl(&ISSUING.crl(&at(AT)));
    assert_eq!(verdict(&users, &leaf), Err(Refusal::CrlMissing { ca: "root".to_owned() }));
}

/// The newest would take the place of the others, and let in whom they list.
#[test]
fn lists_over_which_a_ca_divides_its_revocations_are_refused() {
    let divided = CrlFault::Divided { ca: "root".to_owned() };
    let fault = |trust: &Trust| trust.rejected_crls().pop().map(|rejected| rejected.fault);
    let shard = |uri: &str| ROOT.crl(&at(uri));
    assert_eq!(fault(&root().and_crl(&shard(AT)).and_crl(&shard("https://ca.test/shard/2"))), Some(divided.clone()));
    assert_eq!(fault(&root().and_crl(&list(1, &[])).and_crl(&shard(AT))), Some(divided));
    assert_eq!(fault(&root().and_crl(&shard(AT)).and_crl(&ROOT.crl(&CrlSpec { number: 2, ..at(AT) }))), None);
}

fn judge(store: &TrustStore, pair: &Pair) -> Result<(), Refusal> {
    store.judge(&chain_of(&Offer::of(pair)), now()).map(|_| ())
}

/// The usual set-up: the root here, the intermediate in the clients' chains.
#[test]
fn the_list_of_an_intermediate_that_is_only_sent() {
    let (bad, good) = (ISSUING.client("bad"), ISSUING.client("good"));
    let list = ISSUING.crl(&CrlSpec::new(1, &[&bad]));
    let trust = root().and_crl(&list);
    let store = trust.store();
    // The second time what was found of the signature is known.
    for _ in 0..2 {
        assert_eq!(judge(&store, &bad), revoked_by("CN=issuing CA"));
        assert_eq!(judge(&store, &good), Ok(()));
    }
    for version in BOTH {
        let outcome = shake(&server(&trust), Some(&Offer::of(&bad)), version);
        assert_eq!(outcome.alert, Some(AlertDescription::CertificateRevoked));
    }
    assert_eq!(verdict(&trust.clone().and_rule("root", OFF), &bad), Ok(()));
    // It is a list of that issuer: for those who must have one.
    let required = root().and_crl(&list_of_root()).and_rule("root", REQUIRED);
    assert_eq!(verdict(&required, &good), Err(Refusal::CrlMissing { ca: "root".to_owned() }));
    assert_eq!(verdict(&required.and_crl(&list), &good), Ok(()));
    let stale = ISSUING.crl(&CrlSpec::new(1, &[]).stale());
    let current = root().and_crl(&stale).and_rule("root", CURRENT);
    assert!(matches!(verdict(&current, &good), Err(Refusal::CrlStale { ca, .. }) if ca == "CN=issuing CA"));
}

fn list_of_root() -> String {
    list(1, &[])
}

#[test]
fn a_list_with_the_name_of_an_intermediate_that_another_key_signed() {
    let bad = ISSUING.client("bad");
    let namesake = Authority::new("issuing CA");
    let usages = vec![KeyUse::KeyCertSign];
    let spec = LeafSpec { key_usages: usages, ..LeafSpec::authority("quiet CA") };
    let quiet = Authority { pair: ROOT.issue(&spec) };
    assert_eq!(verdict(&root().and_crl(&namesake.crl(&CrlSpec::new(1, &[&bad]))), &bad), Ok(()));
    // The same key, in a certificate that may not sign lists.
    let loud = LeafSpec::authority("quiet CA");
    let loud = Authority { pair: ROOT.pair.mint_for(&loud, quiet.pair.clone_key()) };
    let client = quiet.client("a");
    let trust = root().and_crl(&loud.crl(&CrlSpec::new(1, &[&client])));
    assert_eq!(verdict(&trust, &client), Ok(()));
}

#[test]
fn the_newest_list_of_an_intermediate_that_is_only_sent_counts() {
    let (one, two) = (ISSUING.client("one"), ISSUING.client("two"));
    let lists = [ISSUING.crl(&CrlSpec::new(1, &[&one])), ISSUING.crl(&CrlSpec::new(2, &[&two]))];
    let trust = root().and_crl(&lists[0]).and_crl(&lists[1]);
    assert_eq!((verdict(&trust, &one), verdict(&trust, &two)), (Ok(()), revoked_by("CN=issuing CA")));
    // Also where all else of a change is refused.
    let files = TrustFiles { crls: vec![crl(&lists[0])], ..TrustFiles::default() };
    let store = root().store().restricted_by(&[], &files);
    assert_eq!(judge(&store, &one), revoked_by("CN=issuing CA"));
}

/// The number `number`, made so many hours later than [`list`] makes its own.
fn later(number: u64, hours: i64, revoked: &[&Pair]) -> String {
    let spec = CrlSpec::new(number, revoked);
    ROOT.crl(&CrlSpec { this_update: spec.this_update + Duration::hours(hours), ..spec })
}

/// A CA that was set up anew under its old key counts from 1 again: its list was passed over, and whoever it revoked stayed.
#[test]
fn lists_that_disagree_about_which_is_the_newer_count_both() {
    let (one, two) = (ROOT.client("one"), ROOT.client("two"));
    let (old, anew) = (later(500, -2, &[&one]), later(1, -1, &[&two]));
    for lists in [[&old, &anew], [&anew, &old]] {
        let trust = root().and_crl(lists[0]).and_crl(lists[1]);
        assert_eq!((verdict(&trust, &one), verdict(&trust, &two)), (revoked_by("root"), revoked_by("root")));
        let before = root().and_crl(lists[0]).store();
        let (store, kept) = root().and_crl(lists[1]).store().keeping_crls_of(&before, |_| true);
        assert_eq!(kept.len(), 1);
        assert_eq!((judge(&store, &one), judge(&store, &two)), (revoked_by("root"), revoked_by("root")));
        let files = TrustFiles { crls: vec![crl(lists[1])], ..TrustFiles::default() };
        let store = before.restricted_by(&[], &files);
        assert_eq!((judge(&store, &one), judge(&store, &two)), (revoked_by("root"), revoked_by("root")));
    }
    // One that both agree to be newer ends it; so does a forgiven memory.
    let trust = root().and_crl(&old).and_crl(&anew).and_crl(&later(501, 0, &[]));
    assert_eq!((verdict(&trust, &one), verdict(&trust, &two)), (Ok(()), Ok(())));
    let before = root().and_crl(&old).store();
    let (store, _) = root().and_crl(&anew).store().keeping_crls_of(&before, |_| false);
    assert_eq!((judge(&store, &one), judge(&store, &two)), (Ok(()), revoked_by("root")));
}

#[test]
fn lists_that_disagree_are_bounded() {
    let clients: Vec<Pair> = (0..9).map(|n| ROOT.client(&format!("c{n}"))).collect();
    let lists = clients.iter().zip(0..9).map(|(client, n)| later(100 - u64::try_from(n).unwrap(), n - 20, &[client]));
    let lists: Vec<String> = lists.collect();
    let with = |count: usize| lists[..count].iter().fold(root(), |trust, list| trust.and_crl(list)).store();
    let store = with(8);
    assert!(clients[..8].iter().all(|client| judge(&store, client) == revoked_by("root")));
    let store = with(9);
    assert_eq!(judge(&store, &clients[0]), Ok(()), "the one that was made first");
    assert!(clients[1..].iter().all(|client| judge(&store, client) == revoked_by("root")));
}
