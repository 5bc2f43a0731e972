//! The operating system's store of trusted CAs, in the tree of each distribution, and two installs at once.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use portcullis_pki::install::system_trust::{Limits, StoreChange, SystemStore, TrustPlan, TrustRequest, apply, plan};
use portcullis_pki::install::uninstall::{self, Undo, UninstallRequest};
use portcullis_pki::install::{Change, Conflict, Engine, Owner};
use portcullis_pki::{Authority, AuthorityKind, AuthorityRequest, KeyAlgorithm, PkiError};

use super::Fixture;
use crate::{mode, names, now, set_mode};

const DEBIAN: (&str, &str) = ("usr/local/share/ca-certificates", "usr/sbin/update-ca-certificates");

/// Another root that has this store, and in `ca.crt` a CA for `permitted`.
fn machine(store: (&str, &str), permitted: &[&str]) -> Fixture {
    let fixture = Fixture::docker();
    add_store(&fixture, store);
    new_ca(&fixture, "first", permitted);
    fixture
}

fn add_store(fixture: &Fixture, (directory, program): (&str, &str)) {
    let program = fixture.root().join(program);
    fs::create_dir_all(fixture.root().join(directory)).unwrap();
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(program, "").unwrap();
}

fn new_ca(fixture: &Fixture, name: &str, permitted: &[&str]) {
    let dir = fixture.dir.path().join(name);
    let request = AuthorityRequest {
        kind: AuthorityKind::Server,
        label: name,
        algorithm: KeyAlgorithm::P256,
        permitted: permitted.iter().map(|name| name.parse().unwrap()).collect(),
    };
    Authority::create_as(&dir, &request, now()).unwrap();
    fs::copy(dir.join("ca.crt"), fixture.from().join("ca.crt")).unwrap();
}

fn planned(fixture: &Fixture, limits: Limits) -> Result<TrustPlan, PkiError> {
    let (from, root, record) = (fixture.from(), fixture.root(), fixture.record());
    plan(&TrustRequest { host: &fixture.host, from: &from, root: &root, record: &record, limits })
}

#[test]
fn each_distribution_has_its_own_place() {
    let check = |directory: &str, program: &str, suffix: &str, added: &str, removed: &str| {
        let fixture = machine((directory, program), &["registry.test"]);
        let plan = planned(&fixture, Limits::Required).unwrap();
        assert!(names(&fixture.root().join(directory)).is_empty(), "a plan changes nothing");
        apply(&plan).unwrap();
        let written = names(&fixture.root().join(directory));
        let [name] = &written[..] else { panic!("{written:?}") };
        assert!(name.starts_with("portcullis-registry.test_5443-") && name.ends_with(suffix), "{name}");
        let path = fixture.root().join(directory).join(name);
        assert_eq!(mode(&path), 0o644);
        assert_eq!(fs::read(&path).unwrap(), fs::read(fixture.from().join("ca.crt")).unwrap());
        assert_eq!(plan.store.update(&fixture.root(), StoreChange::Added).to_string(), added);
        assert_eq!(plan.store.update(&fixture.root(), StoreChange::Removed).to_string(), removed);

        let again = planned(&fixture, Limits::Required).unwrap();
        assert_eq!((again.steps[0].change, again.stale.len()), (Change::AlreadySo, 0));
        let removals = fixture.removals();
        assert_eq!((removals[0].owner, &removals[0].what), (Some(Owner::SystemStore), &Undo::Remove));
        fixture.with_removal(None, |request| uninstall::apply(request, &removals)).unwrap();
        assert!(names(&fixture.root().join(directory)).is_empty(), "and the directory stays");
    };
    let extract = "/usr/bin/update-ca-trust extract";
    check("etc/pki/ca-trust/source/anchors", "usr/bin/update-ca-trust", ".pem", extract, extract);
    let update = "/usr/sbin/update-ca-certificates";
    check(DEBIAN.0, DEBIAN.1, ".crt", update, &format!("{update} --fresh"));
    check("usr/share/pki/trust/anchors", "usr/sbin/update-ca-certificates", ".pem", update, update);
    let compat = "/usr/bin/trust extract-compat";
    check("etc/ca-certificates/trust-source/anchors", "usr/bin/trust", ".crt", compat, compat);
}

/// SUSE's program has the name of Debian's, and anybody may make Debian's directory there.
#[test]
fn directory_and_program_decide_together() {
    let fixture = machine(("usr/share/pki/trust/anchors", DEBIAN.1), &["registry.test"]);
    fs::create_dir_all(fixture.root().join(DEBIAN.0)).unwrap();
    assert_eq!(SystemStore::find(&fixture.root()).unwrap().systems, "SUSE");

    let fixture = machine(DEBIAN, &["registry.test"]);
    fs::remove_file(fixture.root().join(DEBIAN.1)).unwrap();
    let error = planned(&fixture, Limits::Required).unwrap_err();
    assert!(matches!(error, PkiError::NoSystemStore { .. }), "{error}");
    assert!(error.to_string().contains("/etc/pki/ca-trust/source/anchors (RHEL, Fedora)"), "{error}");
}

#[test]
fn a_ca_that_may_certify_everything_is_refused() {
    let fixture = machine(DEBIAN, &[]);
    let error = planned(&fixture, Limits::Required).unwrap_err();
    assert!(matches!(error, PkiError::UnlimitedCa { .. }), "{error}");
    assert!(error.to_string().contains("--unconstrained") && error.to_string().contains("every name"), "{error}");
    assert_eq!(planned(&fixture, Limits::Waived).unwrap().steps.len(), 1);

    // One that is limited does not speak for another beside it.
    let limited = machine(DEBIAN, &["registry.test"]);
    let both = [fs::read(limited.from().join("ca.crt")).unwrap(), fs::read(fixture.from().join("ca.crt")).unwrap()];
    fs::write(limited.from().join("ca.crt"), both.concat()).unwrap();
    assert!(matches!(planned(&limited, Limits::Required), Err(PkiError::UnlimitedCa { .. })));
    assert_eq!(planned(&limited, Limits::Waived).unwrap().steps.len(), 2, "each CA has a file of its own");
}

#[test]
fn a_new_ca_takes_the_old_ones_place() {
    let fixture = machine(DEBIAN, &["registry.test"]);
    apply(&planned(&fixture, Limits::Required).unwrap()).unwrap();
    let old = names(&fixture.root().join(DEBIAN.0));
    new_ca(&fixture, "second", &["registry.test"]);
    let plan = planned(&fixture, Limits::Required).unwrap();
    assert_eq!((plan.steps[0].change, plan.stale.len()), (Change::Create, 1));
    apply(&plan).unwrap();
    let new = names(&fixture.root().join(DEBIAN.0));
    assert!(new.len() == 1 && new != old, "{old:?} {new:?}");
}

#[test]
fn what_others_put_there_stays() {
    let fixture = machine(DEBIAN, &["registry.test"]);
    let path = planned(&fixture, Limits::Required).unwrap().steps[0].path.clone();
    fs::write(&path, "theirs").unwrap();
    let refused = planned(&fixture, Limits::Required).unwrap_err();
    let expected = [Conflict::Foreign { path: path.clone() }];
    assert!(matches!(&refused, PkiError::InstallRefused { conflicts } if *conflicts == expected), "{refused}");

    fs::remove_file(&path).unwrap();
    let stale = planned(&fixture, Limits::Required).unwrap();
    fs::write(&path, "theirs").unwrap();
    assert!(matches!(apply(&stale), Err(PkiError::ChangedMeanwhile { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
}

#[test]
fn a_link_in_the_other_root_is_not_followed() {
    let fixture = machine(DEBIAN, &["registry.test"]);
    let (link, outside) = (fixture.root().join(DEBIAN.0), fixture.dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(&link).unwrap();
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    assert!(matches!(planned(&fixture, Limits::Required), Err(PkiError::InstallRefused { .. })));
    assert!(names(&outside).is_empty());
}

/// `uninstall` writes the record anew, so that a line appended meanwhile would be lost.
#[test]
fn installs_at_once_keep_each_others_lines() {
    let fixture = Fixture::docker();
    let hosts: Vec<String> = (1..=12).map(|number| format!("r{number}.test")).collect();
    let (from, root, record) = (fixture.from(), fixture.root(), fixture.record());
    let around = |host: &str, rounds: usize| {
        let one = Fixture::new(host, Engine::Docker);
        let scope = &one.scope;
        let removal = UninstallRequest { host: &one.host, owner: None, scope, root: Some(&root), record: &record };
        for round in 0..rounds {
            let request = portcullis_pki::install::InstallRequest {
                host: &one.host,
                from: &from,
                engine: Engine::Docker,
                scope,
                root: Some(&root),
                record: &record,
                pairs: one.pairs,
            };
            portcullis_pki::install::apply(&portcullis_pki::install::plan(&request, now()).unwrap(), now()).unwrap();
            if round + 1 < rounds {
                uninstall::apply(&removal, &uninstall::plan(&removal).unwrap()).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(move || around(host, 5));
        }
    });
    for host in &hosts {
        let host = host.parse().unwrap();
        let scope = &fixture.scope;
        let removal = UninstallRequest { host: &host, owner: None, scope, root: Some(&root), record: &record };
        let removals = uninstall::plan(&removal).unwrap();
        assert_eq!(removals.len(), 3, "{host}");
        assert!(removals.iter().all(|removal| removal.what == Undo::Remove), "{host}: {removals:?}");
    }
}

#[test]
fn an_install_waits_for_the_one_before() {
    let fixture = Fixture::docker();
    let state = fixture.dir.path().join("state");
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    let lock = File::create(fixture.record().with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let is_free = AtomicBool::new(false);
    thread::scope(|scope| {
        let install = scope.spawn(|| {
            fixture.install();
            is_free.load(Ordering::SeqCst)
        });
        thread::sleep(std::time::Duration::from_millis(300));
        assert!(!Path::new(&fixture.directory()).exists());
        is_free.store(true, Ordering::SeqCst);
        drop(lock);
        assert!(install.join().unwrap(), "it went on before");
    });
}

#[test]
fn a_change_since_the_plan_is_not_removed() {
    let fixture = Fixture::docker();
    fixture.install();
    let stale = fixture.removals();
    let path = fixture.directory().join("ca.crt");
    fs::write(&path, "theirs").unwrap();
    let refused = fixture.with_removal(None, |request| uninstall::apply(request, &stale));
    assert!(matches!(refused, Err(PkiError::ChangedMeanwhile { .. })), "{refused:?}");
    assert_eq!(names(&fixture.directory()), ["ca.crt", "client.cert", "client.key"], "and nothing else is");
}
