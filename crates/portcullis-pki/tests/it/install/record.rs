//! What `uninstall` does with a record that somebody else has written.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use portcullis_certs::Fingerprint;
use portcullis_pki::PkiError;
use portcullis_pki::install::uninstall::{self, Undo, UninstallRequest};
use portcullis_pki::install::{Engine, apply, plan};

use super::Fixture;
use crate::{now, set_mode};

const TEXT: &str = "[a]\nauth sufficient pam_rootok.so\n";

/// Puts a file there, and a line about it into the record: the whole file, or its last line.
fn forge(fixture: &Fixture, engine: &str, path: &Path, block: Option<&str>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, TEXT).unwrap();
    let sha256 = Fingerprint::of(block.unwrap_or(TEXT).as_bytes()).to_string();
    let block = block.map(|block| format!(r#","block":{block:?}"#)).unwrap_or_default();
    let path = path.display();
    let host = &fixture.host;
    let line = format!(r#"{{"host":"{host}","engine":"{engine}","path":"{path}","sha256":"{sha256}"{block}}}"#);
    let record = fixture.record();
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    set_mode(record.parent().unwrap(), 0o700);
    let before = fs::read_to_string(&record).unwrap_or_default();
    fs::write(&record, format!("{before}{line}\n")).unwrap();
    set_mode(&record, 0o600);
}

fn undone(fixture: &Fixture) -> Vec<Undo> {
    fixture.with_removal(None, |request| {
        let removals = uninstall::plan(request).unwrap();
        uninstall::apply(request, &removals).unwrap();
        removals.into_iter().map(|removal| removal.what).collect()
    })
}

#[test]
fn nothing_is_touched_but_where_install_writes() {
    let fixture = Fixture::docker();
    let (root, directory) = (fixture.root(), fixture.directory());
    let block = Some("auth sufficient pam_rootok.so\n");
    let places = [
        ("docker", root.join("etc/shadow"), None),
        ("docker", fixture.dir.path().join("client.key"), None),
        ("docker", directory.join("../other.test/client.key"), None),
        ("docker", directory.join("hosts.toml"), None),
        ("docker", directory.with_file_name("other.test").join("client.cert"), None),
        ("docker", root.join("etc/pam.d/su"), block),
        ("docker", directory.join("client.cert"), block),
        ("podman", directory.join("client.key"), None),
        ("buildkit", root.join("etc/buildkit/other.toml"), block),
        ("buildkit", root.join("etc/buildkit/buildkitd.toml"), None),
        ("system", root.join("etc/ssl/portcullis-registry.test_5443-1.crt"), None),
        ("system", root.join("usr/local/share/ca-certificates/theirs.crt"), None),
        ("nothing", directory.join("ca.crt"), None),
    ];
    fs::create_dir_all(&directory).unwrap();
    for (engine, path, block) in &places {
        forge(&fixture, engine, path, *block);
    }
    assert_eq!(undone(&fixture), vec![Undo::Elsewhere; places.len()]);
    for (_, path, _) in &places {
        assert_eq!(fs::read_to_string(path).unwrap(), TEXT, "{}", path.display());
    }
    assert_eq!(undone(&fixture).len(), places.len(), "it is said again");
}

#[test]
fn where_install_writes_it_is_taken_away() {
    let fixture = Fixture::docker();
    let system = fixture.root().join("usr/local/share/ca-certificates/portcullis-registry.test_5443-1.crt");
    let config = fixture.root().join("etc/buildkit/buildkitd.toml");
    forge(&fixture, "docker", &fixture.directory().join("ci-7.cert"), None);
    forge(&fixture, "system", &system, None);
    forge(&fixture, "buildkit", &config, Some("auth sufficient pam_rootok.so\n"));
    assert!(matches!(&undone(&fixture)[..], [Undo::Remove, Undo::Remove, Undo::TakeOut(_)]));
    assert!(!system.exists() && !fixture.directory().exists());
    assert_eq!(fs::read_to_string(&config).unwrap(), "[a]\n");
}

#[test]
fn a_link_leads_nowhere() {
    let fixture = Fixture::docker();
    fixture.install();
    let (directory, moved) = (fixture.directory(), fixture.dir.path().join("moved"));
    fs::rename(&directory, &moved).unwrap();
    symlink(&moved, &directory).unwrap();
    assert_eq!(undone(&fixture), [Undo::Elsewhere, Undo::Elsewhere, Undo::Elsewhere]);
    assert!(moved.join("client.key").exists());
}

#[test]
fn a_record_that_others_can_write_is_refused() {
    let fixture = Fixture::docker();
    fixture.install();
    let record = fixture.record();
    let is_refused = || {
        let planned = fixture.with_removal(None, uninstall::plan);
        let of_files = |error: &PkiError| matches!(error, PkiError::Files { .. });
        assert!(planned.as_ref().is_err_and(of_files), "{planned:?}");
        assert!(fixture.plan().as_ref().is_err_and(of_files));
    };
    set_mode(&record, 0o622);
    is_refused();
    set_mode(&record, 0o600);
    set_mode(record.parent().unwrap(), 0o777);
    is_refused();
    set_mode(record.parent().unwrap(), 0o700);
    assert_eq!(fixture.removals().len(), 3);
    if rustix::process::geteuid().is_root() {
        chown(&record, Some(65534), None).unwrap();
        is_refused();
        chown(&record, Some(0), None).unwrap();
        chown(record.parent().unwrap(), Some(65534), None).unwrap();
        is_refused();
    }
}

#[test]
fn a_record_that_is_a_link_is_neither_read_nor_appended_to() {
    let fixture = Fixture::docker();
    let (record, target) = (fixture.record(), fixture.dir.path().join("shadow"));
    let planned = fixture.plan().unwrap();
    fs::create_dir(record.parent().unwrap()).unwrap();
    set_mode(record.parent().unwrap(), 0o700);
    fs::write(&target, "").unwrap();
    symlink(&target, &record).unwrap();
    assert!(apply(&planned, now()).is_err(), "it came after the plan");
    assert!(fixture.plan().is_err());
    assert!(fixture.with_removal(None, uninstall::plan).is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "");
}

/// An image may have `/var` lead to the host's.
#[test]
fn a_record_in_an_image_is_the_images() {
    let fixture = Fixture::new("registry.test:5443", Engine::Docker);
    let (root, outside) = (fixture.root(), fixture.dir.path().join("host"));
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join("var")).unwrap();
    let record = root.join("var/lib/portcullis-install/installed.jsonl");
    let removal =
        fixture.with_removal(None, |request| uninstall::plan(&UninstallRequest { record: &record, ..*request }));
    assert!(matches!(removal, Err(PkiError::InstallRefused { .. })), "{removal:?}");
    let install = fixture.with(|request| {
        let request = portcullis_pki::install::InstallRequest { record: &record, ..request.clone() };
        plan(&request, now()).map(drop)
    });
    assert!(matches!(install, Err(PkiError::InstallRefused { .. })), "{install:?}");
    assert!(crate::names(&outside).is_empty());
}
