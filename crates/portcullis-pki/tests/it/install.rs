//! Installing a client's directory into the directories of engines, below another root.

mod engines;
mod record;
mod system_trust;

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_certs::RegistryHost;
use portcullis_certs::{Fault, Severity};
use portcullis_pki::PkiError;
use portcullis_pki::install::uninstall::{self, Removal, UninstallRequest};
use portcullis_pki::install::{
    Change, Conflict, Engine, InstallRequest, Installed, OtherPairs, Owner, Plan, Scope, apply, plan,
};
use tempfile::TempDir;

use crate::{client_directory, mode, names, now, set_mode};

struct Fixture {
    dir: TempDir,
    host: RegistryHost,
    engine: Engine,
    scope: Scope,
    pairs: OtherPairs<'static>,
}

impl Fixture {
    fn new(host: &str, engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        client_directory(&dir.path().join("ci-7"));
        fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir, host: host.parse().unwrap(), engine, scope: Scope::System, pairs: OtherPairs::Stop }
    }

    fn docker() -> Self {
        Self::new("registry.test:5443", Engine::Docker)
    }

    fn from(&self) -> PathBuf {
        self.dir.path().join("ci-7")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn record(&self) -> PathBuf {
        self.dir.path().join("state/installed.jsonl")
    }

    fn with<T>(&self, act: impl FnOnce(&InstallRequest<'_>) -> T) -> T {
        let (from, root, record) = (self.from(), self.root(), self.record());
        let (host, engine, scope) = (&self.host, self.engine, &self.scope);
        act(&InstallRequest { host, from: &from, engine, scope, root: Some(&root), record: &record, pairs: self.pairs })
    }

    fn with_removal<T>(&self, owner: Option<Owner>, act: impl FnOnce(&UninstallRequest<'_>) -> T) -> T {
        let (root, record) = (self.root(), self.record());
        let (host, scope) = (&self.host, &self.scope);
        act(&UninstallRequest { host, owner, scope, root: Some(&root), record: &record })
    }

    fn removals(&self) -> Vec<Removal> {
        self.with_removal(None, |request| uninstall::plan(request).unwrap())
    }

    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself has one lifetime, not any")]
    fn directory(&self) -> PathBuf {
        self.with(|request| request.directory())
    }

    fn plan(&self) -> Result<Plan, PkiError> {
        self.with(|request| plan(request, now()))
    }

    fn install(&self) -> Installed {
        apply(&self.plan().unwrap(), now()).unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        self.plan().unwrap().steps.iter().map(|step| step.change).collect()
    }

    fn conflicts(&self) -> Vec<Conflict> {
        match self.plan() {
            Err(PkiError::InstallRefused { conflicts }) => conflicts,
            other => panic!("{other:?}"),
        }
    }

    /// A new certificate with a new key, for the same name.
    fn reissue(&self) {
        fs::remove_dir_all(self.from()).unwrap();
        client_directory(&self.from());
    }
}

fn contents(dir: &Path) -> Vec<Vec<u8>> {
    ["ca.crt", "client.cert", "client.key"].iter().map(|name| fs::read(dir.join(name)).unwrap()).collect()
}

#[test]
fn fresh_then_again() {
    let fixture = Fixture::docker();
    let dir = fixture.root().join("etc/docker/certs.d/registry.test:5443");
    assert_eq!(fixture.directory(), dir);
    assert_eq!(fixture.changes(), [Change::Create; 3]);

    let installed = fixture.install();
    assert_eq!(installed.findings, []);
    assert_eq!((installed.certs.roots.len(), installed.certs.pairs.len()), (1, 1));
    assert_eq!(installed.certs.pairs[0].chain[0].facts().subject.to_string(), "CN=ci-7");
    assert_eq!(names(&dir), ["ca.crt", "client.cert", "client.key"]);
    assert_eq!(names(dir.parent().unwrap()), ["registry.test:5443"], "nothing else is left");
    assert_eq!(contents(&dir), contents(&fixture.from()));
    for (path, bits) in [("", 0o755), ("..", 0o755), ("ca.crt", 0o644), ("client.cert", 0o644), ("client.key", 0o600)] {
        assert_eq!(mode(dir.join(path)), bits, "{path}");
    }
    assert_eq!(mode(fixture.record()), 0o600);

    assert!(fixture.plan().unwrap().is_done());
    let record = fs::read(fixture.record()).unwrap();
    fixture.install();
    assert_eq!(fs::read(fixture.record()).unwrap(), record, "what was not written is not recorded");
}

#[test]
fn a_plan_changes_nothing_and_hides_the_key() {
    let fixture = Fixture::docker();
    let plan = fixture.plan().unwrap();
    assert!(!plan.is_done());
    assert!(names(&fixture.root()).is_empty() && !fixture.record().exists());
    assert!(!format!("{plan:?}").contains("contents"), "{plan:?}");
}

#[test]
fn each_engine_has_its_own_place() {
    let check = |engine, scope: Scope, expected: &str| {
        let fixture = Fixture { scope, ..Fixture::new("[fd00::1]:5000", engine) };
        assert_eq!(fixture.directory(), fixture.root().join(expected));
        let installed = fixture.install();
        assert_eq!((installed.findings.len(), installed.certs.pairs.len()), (0, 1), "{:?}", installed.findings);
        assert!(fixture.plan().unwrap().is_done());
    };
    let user =
        |config_home: Option<&str>| Scope::User { home: "/home/bob".into(), config_home: config_home.map(Into::into) };
    check(Engine::Docker, Scope::System, "etc/docker/certs.d/[fd00::1]:5000");
    check(Engine::Podman, Scope::System, "etc/containers/certs.d/[fd00::1]:5000");
    check(Engine::Docker, user(None), "home/bob/.config/docker/certs.d/[fd00::1]:5000");
    check(Engine::Docker, user(Some("/cfg")), "cfg/docker/certs.d/[fd00::1]:5000");
    check(Engine::Podman, user(Some("/cfg")), "home/bob/.config/containers/certs.d/[fd00::1]:5000");
}

#[test]
fn a_host_without_port_has_a_directory_without_port() {
    let fixture = Fixture::new("Registry.Test", Engine::Docker);
    fixture.install();
    assert_eq!(names(&fixture.root().join("etc/docker/certs.d")), ["Registry.Test"]);
}

#[test]
fn a_renewal_replaces_what_we_wrote() {
    let fixture = Fixture::docker();
    fixture.install();
    fixture.reissue();
    assert!(fixture.changes().iter().all(|change| matches!(change, Change::Replace { .. })));
    let installed = fixture.install();
    assert_eq!(installed.findings, []);
    assert_eq!(contents(&fixture.directory()), contents(&fixture.from()));
    assert_eq!(names(&fixture.directory()), ["ca.crt", "client.cert", "client.key"]);
    assert_eq!(mode(fixture.directory().join("client.key")), 0o600);
}

/// Cut off between the renames of the key and of the certificate, the next run goes on from there.
#[test]
fn an_interrupted_renewal_is_completed() {
    let fixture = Fixture::docker();
    fixture.install();
    fixture.reissue();
    fs::copy(fixture.from().join("client.key"), fixture.directory().join("client.key")).unwrap();
    assert!(matches!(fixture.changes()[..], [Change::Replace { .. }, Change::AlreadySo, Change::Replace { .. }]));
    assert_eq!(fixture.install().findings, []);
}

#[test]
fn a_file_that_is_not_ours_is_never_replaced() {
    for name in ["ca.crt", "client.key", "client.cert"] {
        let fixture = Fixture::docker();
        fs::create_dir_all(fixture.directory()).unwrap();
        let path = fixture.directory().join(name);
        fs::write(&path, "theirs").unwrap();
        assert_eq!(fixture.conflicts(), [Conflict::Foreign { path: path.clone() }]);
        let said = fixture.plan().unwrap_err().to_string();
        assert!(said.contains(&format!("mv {0} {0}.old", path.display())), "{said}");
        assert_eq!(names(&fixture.directory()), [name]);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }
}

#[test]
fn a_file_of_ours_that_was_changed_is_theirs() {
    let fixture = Fixture::docker();
    fixture.install();
    let path = fixture.directory().join("ca.crt");
    let changed = [fs::read(&path).unwrap(), b"# and a comment\n".to_vec()].concat();
    fs::write(&path, &changed).unwrap();
    fixture.reissue();
    assert_eq!(fixture.conflicts(), [Conflict::Foreign { path: path.clone() }]);
    assert_eq!(fs::read(&path).unwrap(), changed);
}

#[test]
fn every_conflict_is_told() {
    let fixture = Fixture::docker();
    let dir = fixture.directory();
    fs::create_dir_all(dir.join("client.key")).unwrap();
    fs::write(dir.join("ca.crt"), "theirs").unwrap();
    fs::write(dir.join("bob.cert"), "theirs").unwrap();
    fs::write(dir.join("corporate.crt"), "another root is no conflict").unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.join("client.cert")).unwrap();
    let expected = [
        Conflict::ForeignPair { path: dir.join("bob.cert") },
        Conflict::Foreign { path: dir.join("ca.crt") },
        Conflict::NotAFile { path: dir.join("client.key") },
        Conflict::NotAFile { path: dir.join("client.cert") },
    ];
    assert_eq!(fixture.conflicts(), expected);
}

#[test]
fn what_is_there_with_the_same_content_stays() {
    let fixture = Fixture::docker();
    fs::create_dir_all(fixture.directory()).unwrap();
    for name in ["ca.crt", "client.key"] {
        fs::copy(fixture.from().join(name), fixture.directory().join(name)).unwrap();
    }
    set_mode(fixture.directory().join("client.key"), 0o644);
    assert_eq!(fixture.changes(), [Change::AlreadySo, Change::Tighten, Change::Create]);
    assert_eq!(fixture.install().findings, []);
    assert_eq!(mode(fixture.directory().join("client.key")), 0o600);
    assert!(fixture.plan().unwrap().is_done());
    assert_eq!(fs::read_to_string(fixture.record()).unwrap().lines().count(), 1);
}

#[test]
fn a_change_since_the_plan_is_not_overwritten() {
    let fixture = Fixture::docker();
    let path = fixture.directory().join("ca.crt");
    let stale = fixture.plan().unwrap();
    fs::create_dir_all(fixture.directory()).unwrap();
    fs::write(&path, "theirs").unwrap();
    assert!(matches!(apply(&stale, now()), Err(PkiError::ChangedMeanwhile { .. })));
    assert_eq!(names(&fixture.directory()), ["ca.crt"]);
    assert_eq!(names(fixture.directory().parent().unwrap()), ["registry.test:5443"]);

    fs::remove_file(&path).unwrap();
    let stale = fixture.plan().unwrap();
    fs::write(&path, "theirs").unwrap();
    assert!(matches!(apply(&stale, now()), Err(PkiError::ChangedMeanwhile { .. })));

    fs::remove_dir_all(fixture.directory()).unwrap();
    fixture.install();
    fixture.reissue();
    let stale = fixture.plan().unwrap();
    fs::write(&path, "theirs").unwrap();
    assert!(matches!(apply(&stale, now()), Err(PkiError::ChangedMeanwhile { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    assert_eq!(names(&fixture.directory()), ["ca.crt", "client.cert", "client.key"], "no temporary file is left");
}

#[test]
fn a_link_does_not_lead_out_of_the_other_root() {
    let fixture = Fixture::docker();
    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, fixture.root().join("etc")).unwrap();
    assert_eq!(fixture.conflicts(), [Conflict::LinkBelowRoot { path: fixture.root().join("etc") }]);
    assert!(names(&outside).is_empty());
}

#[test]
fn a_source_that_is_not_sound_is_not_installed() {
    let break_it = |act: &dyn Fn(&Path)| {
        let fixture = Fixture::docker();
        act(&fixture.from());
        let error = fixture.plan().unwrap_err();
        assert!(names(&fixture.root()).is_empty());
        error
    };
    for name in ["ca.crt", "client.cert", "client.key"] {
        let error = break_it(&|from| fs::remove_file(from.join(name)).unwrap());
        assert!(error.to_string().contains(name), "{error}");
        let error = break_it(&|from| fs::write(from.join(name), "garbage").unwrap());
        assert!(matches!(error, PkiError::Files { .. }), "{error}");
    }
    let other = tempfile::tempdir().unwrap();
    client_directory(other.path());
    let error = break_it(&|from| {
        fs::copy(other.path().join("client.key"), from.join("client.key")).unwrap();
    });
    assert!(matches!(error, PkiError::Files { .. }), "{error}");
    let error = break_it(&|from| set_mode(from.join("client.key"), 0o644));
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

/// Podman reads the first directory it finds and no other: the files of the one it read until now are told.
#[test]
fn a_directory_that_is_masked_is_told() {
    let fixture = Fixture::new("registry.test:5443", Engine::Podman);
    let masked = fixture.root().join("etc/docker/certs.d/registry.test:5443");
    fs::create_dir_all(&masked).unwrap();
    let installed = fixture.install();
    let finding = &installed.findings[0];
    assert_eq!((finding.path.as_path(), finding.severity), (masked.as_path(), Severity::Warning));
    assert_eq!(finding.fault, Fault::Masked { by: fixture.directory() });
}
