//! Our CA's revocation list as OpenSSL reads it, and what is taken back.

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_certs::state_dir::StateDir;
use portcullis_certs::trust_dir::{DenyEntry, DenyRule, TrustDir};
use portcullis_pki::trust::{TrustRole, add};
use portcullis_pki::{
    Authority, AuthorityKind, ClientRequest, Issued, KeyAlgorithm, PkiError, cut_off, forgive, issue_client,
    latest_cut_off, publish_crl, revoke,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::now;

struct Home {
    dir: TempDir,
    ca: Authority,
}

impl Home {
    fn with_key(algorithm: KeyAlgorithm) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::create(&dir.path().join("ca"), AuthorityKind::Client, "test", algorithm, now()).unwrap();
        let home = Self { dir, ca };
        add(&home.trust(), &home.dir.path().join("ca/ca.crt"), TrustRole::Ca, Some("clients"), now()).unwrap();
        home
    }

    fn new() -> Self {
        Self::with_key(KeyAlgorithm::P256)
    }

    fn trust(&self) -> TrustDir {
        TrustDir::new(self.dir.path().join("trust"))
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.dir.path().join("state"))
    }

    fn client(&self, name: &str) -> Issued {
        issue_client(&self.ca, &ClientRequest::new(name.parse().unwrap()), now()).unwrap()
    }

    fn publish_at(&self, now: OffsetDateTime) -> Option<usize> {
        publish_crl(&self.ca, &self.trust(), &[], now).unwrap().map(|crl| crl.revoked)
    }

    fn revoke(&self, target: &str) {
        revoke(&self.ca.journal().unwrap(), &self.trust(), target, "a test", now()).unwrap();
    }

    /// What `openssl verify -crl_check` says of a certificate.
    fn openssl(&self, issued: &Issued) -> String {
        let leaf = self.dir.path().join("leaf.crt");
        let der = self.dir.path().join("leaf.der");
        fs::write(&der, issued.certificate().der()).unwrap();
        let mut convert = Command::new("openssl");
        convert.args(["x509", "-inform", "DER", "-out"]).arg(&leaf).arg("-in").arg(&der);
        assert!(convert.status().unwrap().success());
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-crl_check", "-CAfile"]).arg(self.dir.path().join("ca/ca.crt"));
        verify.arg("-CRLfile").arg(self.dir.path().join("trust/crls/clients.crl")).arg(&leaf);
        let out = verify.output().unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }
}

#[test]
fn openssl_refuses_the_revoked_and_takes_the_others() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let home = Home::with_key(algorithm);
        let (bad, good) = (home.client("bad"), home.client("good"));
        // Also a list of nobody is one: `openssl` refuses without any.
        assert_eq!(home.publish_at(now()), Some(0));
        assert!(home.openssl(&bad).contains("OK"), "{}", home.openssl(&bad));
        home.revoke("bad");
        assert_eq!(home.publish_at(now()), Some(1));
        assert!(home.openssl(&bad).contains("revoked"), "{}", home.openssl(&bad));
        assert!(home.openssl(&good).contains("OK"), "{}", home.openssl(&good));
    }
}

#[test]
fn a_list_is_made_anew_when_it_is_due_and_not_before() {
    let home = Home::new();
    let read = || home.trust().read().0.crls.remove(0).list;
    assert_eq!(home.publish_at(now()), Some(0));
    let first = read();
    assert_eq!((first.next_update() - first.this_update()).whole_days(), 7);
    assert_eq!(home.publish_at(now() + Duration::hours(23)), None);
    let tomorrow = now() + Duration::hours(25);
    assert_eq!(home.publish_at(tomorrow), Some(0));
    let second = read();
    assert!(second.is_newer_than(&first) && second.number() != first.number());
    // Twice within a second, and with a clock that went back: the number grows all the same.
    let bad = home.client("bad");
    home.revoke("bad");
    assert_eq!(home.publish_at(now()), Some(1));
    let third = read();
    assert!(third.is_newer_than(&second) && third.lists(&bad.certificate().facts().serial));
    // Expired, it needs no entry any more.
    assert_eq!(home.publish_at(now() + Duration::days(91)), Some(0));
    // What was damaged is replaced.
    fs::write(home.dir.path().join("trust/crls/clients.crl"), "garbage").unwrap();
    assert_eq!(home.publish_at(now()), Some(1));
}

#[test]
fn a_ca_that_is_not_trusted_here_has_no_list_here() {
    let home = Home::new();
    fs::remove_file(home.dir.path().join("trust/cas/clients.crt")).unwrap();
    assert_eq!(home.publish_at(now()), None);
    assert!(!home.dir.path().join("trust/crls").exists());
}

#[test]
fn a_cut_off_denies_what_is_older_and_spares_what_comes_after() {
    let home = Home::new();
    let journal = || home.ca.journal().unwrap();
    let old = home.client("ci-7");
    let at = now();
    let cut = |name: &str, before| cut_off(&journal(), &home.trust(), (name, before), "a test", now());
    assert!(matches!(cut("ci-7", at + Duration::HOUR), Err(PkiError::CutOffAhead { .. })));
    assert!(matches!(cut("ci-8", at), Err(PkiError::NothingToRevoke { .. })));
    let (rule, already) = cut("ci-7", at).unwrap();
    assert!(!already && cut("ci-7", at).unwrap().1);
    assert_eq!(home.publish_at(now()), Some(1), "{rule}");
    assert!(home.openssl(&old).contains("revoked"));
    let not_before = latest_cut_off(&home.trust().read().0.deny);
    assert!(not_before.is_some_and(|earliest| earliest >= at && earliest.nanosecond() == 0));
    let later = now() + Duration::seconds(2);
    let request = ClientRequest { not_before, ..ClientRequest::new("ci-7".parse().unwrap()) };
    let new = issue_client(&home.ca, &request, later).unwrap();
    assert!(new.certificate().facts().not_before >= at);
    assert_eq!(home.publish_at(later), None, "the new one is not on the list");
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_forgiven_is_gone_from_both_and_nothing_else_is() {
    let home = Home::new();
    let [one, two] = ["one", "two"].map(|name| home.client(name).entry().fingerprint);
    let (deny, state) = (home.trust().deny_file(), home.state());
    fs::write(&deny, format!("# by hand\n{one} # lost\n{two}\nnonsense\n")).unwrap();
    let (files, _) = home.trust().read();
    assert!(state.remember(&state.lock().unwrap(), &files.deny, []).unwrap());
    assert!(!state.remember(&state.lock().unwrap(), &files.deny, []).unwrap(), "nothing new");
    forgive(&home.trust(), &state, &one.to_string()).unwrap();
    assert_eq!(lines(&deny), ["# by hand".to_owned(), two.to_string(), "nonsense".to_owned()]);
    assert_eq!(lines(&state.deny_file()), [two.to_string()]);
    let again = forgive(&home.trust(), &state, &one.to_string());
    assert!(matches!(again, Err(PkiError::NothingToForgive { known: 1, .. })), "{again:?}");
    // Gone from the list already, as after a restore: what is remembered is what counts.
    fs::remove_file(&deny).unwrap();
    forgive(&home.trust(), &state, &two.to_string()).unwrap();
    assert!(lines(&state.deny_file()).is_empty());
    assert!(forgive(&home.trust(), &state, "nonsense").is_err());
}

#[test]
fn a_list_can_be_forgiven() {
    let home = Home::new();
    home.publish_at(now());
    let (files, _) = home.trust().read();
    let ca_key = home.ca.certificate().facts().key_hash;
    let state = home.state();
    assert!(state.remember(&state.lock().unwrap(), &[], [(ca_key, &files.crls[0].list)]).unwrap());
    assert!(state.read().0.crls.contains_key(&ca_key));
    assert!(matches!(forgive(&home.trust(), &state, "crl:other"), Err(PkiError::NothingToForgive { .. })));
    forgive(&home.trust(), &state, "crl:clients").unwrap();
    assert!(state.read().0.crls.is_empty());
}

/// Two processes write at once; none of their lines is lost or torn.
#[test]
fn many_remember_at_once() {
    let home = Home::new();
    let state = home.state();
    let entries: Vec<DenyEntry> = (0..64_u8)
        .map(|n| DenyEntry { line: 1, rule: DenyRule::Key(portcullis_certs::Fingerprint([n; 32])), note: None })
        .collect();
    std::thread::scope(|scope| {
        for chunk in entries.chunks(16) {
            let state = &state;
            scope.spawn(move || {
                for entry in chunk {
                    state.remember(&state.lock().unwrap(), std::slice::from_ref(entry), []).unwrap();
                }
            });
        }
    });
    let (read, findings) = state.read();
    assert!(findings.is_empty(), "{findings:?}");
    assert!(entries.iter().all(|entry| read.deny.iter().any(|read| read.rule == entry.rule)));
}

/// What the server refuses by its deny list other servers refuse by our list: each kind of line.
#[test]
fn every_kind_of_line_is_on_the_list() {
    let home = Home::new();
    let domain = "example.org".parse().unwrap();
    let request = ClientRequest { trust_domain: Some(domain), ..ClientRequest::new("meant".parse().unwrap()) };
    let meant = issue_client(&home.ca, &request, now()).unwrap();
    let spared = home.client("spared");
    let (facts, tomorrow) = (meant.certificate().facts(), "9999-01-01T00:00:00Z");
    let hex = |fingerprint: portcullis_certs::Fingerprint| fingerprint.to_string().replace("sha256:", "");
    let ca_key = hex(home.ca.certificate().facts().key_hash);
    for rule in [
        meant.certificate().fingerprint().to_string(),
        format!("key:{}", hex(facts.key_hash)),
        format!("serial:{ca_key}:{}", facts.serial),
        format!("name:cn=MEANT before {tomorrow}"),
        format!("name:mean* before {tomorrow}"),
        format!("name:uri=spiffe://example.org/host/meant before {tomorrow}"),
        format!("name:spiffe=spiffe://example.org/* before {tomorrow}"),
    ] {
        let entries = [DenyEntry { line: 1, rule: rule.parse().unwrap(), note: None }];
        // Made anew each time: what is on it changes.
        publish_crl(&home.ca, &home.trust(), &[], now()).unwrap();
        let list = publish_crl(&home.ca, &home.trust(), &entries, now()).unwrap();
        assert_eq!(list.map(|list| list.revoked), Some(1), "{rule}");
        assert!(home.openssl(&meant).contains("revoked"), "{rule}: {}", home.openssl(&meant));
        assert!(home.openssl(&spared).contains("OK"), "{rule}: {}", home.openssl(&spared));
    }
    for rule in [
        format!("serial:{}:{}", hex(facts.key_hash), facts.serial),
        format!("name:o=meant before {tomorrow}"),
        format!("name:dns=meant before {tomorrow}"),
        "name:cn=meant before 2020-01-01T00:00:00Z".to_owned(),
    ] {
        let entries = [DenyEntry { line: 1, rule: rule.parse().unwrap(), note: None }];
        publish_crl(&home.ca, &home.trust(), &entries, now()).unwrap();
        assert!(home.openssl(&meant).contains("OK"), "{rule}: {}", home.openssl(&meant));
    }
    // Of an issuer that is denied nobody is let in.
    let entries = [DenyEntry { line: 1, rule: format!("key:{ca_key}").parse().unwrap(), note: None }];
    publish_crl(&home.ca, &home.trust(), &entries, now()).unwrap();
    assert!([&meant, &spared].iter().all(|issued| home.openssl(issued).contains("revoked")));
}
