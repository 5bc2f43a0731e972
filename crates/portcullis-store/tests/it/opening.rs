//! Opening a data directory: the lock, the modes, what an earlier process left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_store::{Store, StoreError, StoreOptions};

use crate::{Fixture, name, open, push, put_manifest, read, sha256, tag, write};

#[test]
fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/admin.sock");
    let options = StoreOptions { socket: Some(socket.clone()), ..StoreOptions::default() };
    let store = Store::open(directory.path(), &options).unwrap();
    let clone = store.clone();
    drop(store);
    let error = open(directory.path()).unwrap_err();
    let lock = directory.path().join("portcullis/lock");
    let pid = std::process::id();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is in use by process {pid} (socket {}): stop that process, or wait for it with `lock_wait`",
            lock.display(),
            socket.display()
        )
    );
    match error {
        StoreError::Locked { path, pid: Some(found), socket: Some(at) } => {
            assert_eq!((path, found, at), (lock, pid, socket));
        }
        other => panic!("{other:?}"),
    }
    drop(clone);
    open(directory.path()).unwrap();
}

#[test]
fn a_lock_file_that_says_nothing_still_locks() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(directory.path()).unwrap();
    fs::write(directory.path().join("portcullis/lock"), "not json").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { pid: None, socket: None, .. }), "{error:?}");
    assert!(error.to_string().contains("is in use: stop"), "{error}");
}

#[test]
fn a_start_waits_for_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let begun = Instant::now();
    let options = StoreOptions { lock_wait: Duration::from_millis(120), ..StoreOptions::default() };
    assert!(matches!(Store::open(directory.path(), &options), Err(StoreError::Locked { .. })));
    assert!(begun.elapsed() >= Duration::from_millis(120));

    let options = StoreOptions { lock_wait: Duration::from_mins(1), ..StoreOptions::default() };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| Store::open(directory.path(), &options));
        thread::sleep(Duration::from_millis(100));
        drop(store);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn an_open_upload_keeps_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let upload = store.start_upload(&name("app"), portcullis_oci::Algorithm::Sha256, "pin:alice").unwrap();
    drop(store);
    assert!(matches!(open(directory.path()), Err(StoreError::Locked { .. })));
    drop(upload);
    open(directory.path()).unwrap();
}

#[test]
fn modes_are_distributions_there_and_private_here() {
    let fixture = Fixture::new();
    let layer = push(fixture.store(), "app", b"a layer");
    put_manifest(fixture.store(), "app", b"{}", &["1"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    // The process's umask may take bits away, never add any.
    let probe = fixture.path("probe");
    fs::create_dir(&probe).unwrap();
    let umask = 0o777 & !mode(&probe);
    for ours in ["portcullis", "portcullis/tmp", "portcullis/uploads"] {
        assert_eq!(mode(&fixture.path(ours)), 0o700, "{ours}");
    }
    let mut above = fixture.layer_link("app", &layer);
    assert_eq!(mode(&above), 0o644 & !umask);
    assert_eq!(mode(&fixture.blob_data(&layer)), 0o644 & !umask);
    assert_eq!(mode(&fixture.tag_link("app", "1")), 0o644 & !umask);
    while above.pop() && above != fixture.directory.path() {
        assert_eq!(mode(&above), 0o755 & !umask, "{}", above.display());
    }
}

#[test]
fn temporaries_of_an_earlier_process_are_removed_and_nothing_else() {
    let mut fixture = Fixture::new();
    let layer = push(fixture.store(), "app", b"a layer");
    fixture.store = None;
    let outside = fixture.path("outside");
    write(&outside.join("kept"), b"kept");
    write(&fixture.path("portcullis/tmp/17"), b"half of a");
    write(&fixture.path("portcullis/tmp/18/data"), b"half of a");
    std::os::unix::fs::symlink(&outside, fixture.path("portcullis/tmp/19")).unwrap();
    fixture.reopen();
    assert_eq!(fixture.files("portcullis"), ["portcullis/lock"]);
    assert_eq!(fixture.files("outside"), ["outside/kept"]);
    assert_eq!(read(fixture.store(), "app", &layer), Some(b"a layer".to_vec()));
}

#[test]
fn a_volume_of_distribution_is_served_as_it_is() {
    let mut fixture = Fixture::new();
    fixture.store = None;
    fs::remove_dir_all(fixture.path("portcullis")).unwrap();
    let (layer, manifest) = (sha256(b"a layer"), sha256(b"{}"));
    write(&fixture.blob_data(&layer), b"a layer");
    write(&fixture.blob_data(&manifest), b"{}");
    write(&fixture.layer_link("library/app", &layer), layer.to_string());
    write(&fixture.revision_link("library/app", &manifest), manifest.to_string());
    write(&fixture.tag_link("library/app", "1"), manifest.to_string());
    let before = fixture.files("docker");

    fixture.reopen();
    let store = fixture.store();
    assert_eq!(read(store, "library/app", &layer), Some(b"a layer".to_vec()));
    let reference = portcullis_oci::ManifestReference::Tag(tag("1"));
    assert_eq!(store.manifest(&name("library/app"), &reference).unwrap().unwrap().digest, manifest);
    assert_eq!(store.repositories(None, 10).unwrap(), [name("library/app")]);
    assert_eq!(fixture.files("docker"), before);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("file/data");
    fs::write(directory.path().join("file"), b"").unwrap();
    let error = open(&data).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", data.display()));
    assert!(std::error::Error::source(&error).is_some());
}
