//! Revoking by name, serial number and fingerprint.

use portcullis_certs::Fingerprint;
use portcullis_certs::trust_dir::{DenyRule, TrustDir};
use portcullis_pki::{
    Authority, AuthorityKind, ClientRequest, Issued, KeyAlgorithm, PkiError, cut_off, issue_client, revoke,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

struct Home {
    dir: TempDir,
    ca: Authority,
    now: OffsetDateTime,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let ca = Authority::create(&dir.path().join("ca"), AuthorityKind::Client, "test", KeyAlgorithm::P256, now);
        std::fs::create_dir_all(dir.path().join("trust")).unwrap();
        Self { ca: ca.unwrap(), now, dir }
    }

    fn client(&self, name: &str, days: i64) -> Issued {
        let request = ClientRequest { lifetime: Duration::days(days), ..ClientRequest::new(name.parse().unwrap()) };
        issue_client(&self.ca, &request, self.now).unwrap()
    }

    fn trust(&self) -> TrustDir {
        TrustDir::new(self.dir.path().join("trust"))
    }

    fn revoke_at(&self, target: &str, now: OffsetDateTime) -> Result<Vec<Fingerprint>, PkiError> {
        let done = revoke(&self.ca.journal().unwrap(), &self.trust(), target, "a test\nof two lines", now)?;
        Ok(done.denied)
    }

    fn revoke(&self, target: &str) -> Result<Vec<Fingerprint>, PkiError> {
        self.revoke_at(target, self.now)
    }

    fn denied(&self) -> Vec<Fingerprint> {
        let (files, findings) = self.trust().read();
        assert!(findings.is_empty(), "{findings:?}");
        let certificate = |rule: &DenyRule| match rule {
            DenyRule::Certificate(fingerprint) => *fingerprint,
            other => panic!("{other}"),
        };
        files.deny.iter().map(|entry| certificate(&entry.rule)).collect()
    }
}

#[test]
fn a_name_means_all_its_certificates_that_have_not_expired() {
    let home = Home::new();
    let short = home.client("ci-7", 1);
    let (long, renewed) = (home.client("ci-7", 90), home.client("ci-7", 90));
    let other = home.client("ci-70", 90);
    let in_two_days = home.now + Duration::days(2);
    let both = [long.entry().fingerprint, renewed.entry().fingerprint];
    assert_eq!(home.revoke_at("ci-7", in_two_days).unwrap(), both);
    assert_eq!(home.denied(), both, "neither {} nor {}", short.entry().fingerprint, other.entry().fingerprint);
    assert_eq!(home.revoke_at("ci-7", in_two_days).unwrap(), [], "the second time there is nothing to do");
    assert_eq!(home.denied(), both);
}

#[test]
fn a_serial_or_a_fingerprint_means_one_certificate() {
    let home = Home::new();
    let (first, second) = (home.client("a", 90), home.client("a", 90));
    assert_eq!(home.revoke(&first.entry().serial.to_string()).unwrap(), [first.entry().fingerprint]);
    assert_eq!(home.revoke(&second.entry().fingerprint.to_string()).unwrap(), [second.entry().fingerprint]);
    let foreign = Fingerprint::of(b"issued elsewhere");
    assert_eq!(home.revoke(&foreign.to_string()).unwrap(), [foreign]);
    assert_eq!(home.denied(), [first.entry().fingerprint, second.entry().fingerprint, foreign]);
}

#[test]
fn a_misspelled_name_is_no_success() {
    let home = Home::new();
    home.client("ci-7", 90);
    for target in ["ci-8", "", "*", "ci-7 ", "sha256:00", "../ci-7"] {
        let error = home.revoke(target).unwrap_err();
        assert!(matches!(&error, PkiError::NothingToRevoke { known, .. } if known == &["ci-7"]), "{error}");
    }
    assert_eq!(home.denied(), []);
}

#[test]
fn the_authority_itself_is_not_a_client() {
    let home = Home::new();
    let name = home.ca.journal().unwrap().entries[0].name.clone();
    assert!(home.revoke(&name).is_err());
}

/// A line that cannot be read may be one more certificate of that name: whoever revokes must know.
#[test]
fn what_the_journal_may_hide_is_told() {
    let home = Home::new();
    let (first, second) = (home.client("ci-7", 90), home.client("ci-7", 90));
    let path = home.dir.path().join("ca/issued.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let damaged = text.replace(&second.entry().serial.to_string(), "what is this");
    std::fs::write(&path, damaged).unwrap();
    let journal = home.ca.journal().unwrap();
    let done = |target: &str| revoke(&journal, &home.trust(), target, "", home.now).unwrap();
    let by_name = done("ci-7");
    assert_eq!((by_name.denied, by_name.unread), (vec![first.entry().fingerprint], vec![3]));
    assert_eq!(done("ci-7").unread, [3], "also the second time");
    assert_eq!(done(&second.entry().fingerprint.to_string()).unread, [0; 0]);
    assert_eq!(done(&first.entry().serial.to_string()).unread, [0; 0]);
    let unknown = revoke(&journal, &home.trust(), &second.entry().serial.to_string(), "", home.now).unwrap_err();
    assert!(unknown.to_string().contains("cannot be read") && unknown.to_string().contains(": 3 "), "{unknown}");
    // By date it needs no line of the journal, nor the name in one.
    cut_off(&journal, &home.trust(), ("ci-8", home.now), "", home.now).unwrap();
}
