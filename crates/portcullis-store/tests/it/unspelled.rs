//! Names on a real disk that are no text: nothing of the store's has one, and nothing may be taken for absent because of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_store::{Collected, Obstacle, Removal, Store, StoreOptions};

use crate::{Fixture, TREE, name, push, put_manifest, sha256};

fn bytes(text: &[u8]) -> &OsStr {
    OsStr::from_bytes(text)
}

/// A store in which everything is old at once.
fn without_grace(fixture: &mut Fixture) -> Store {
    fixture.store = None;
    let options = StoreOptions { reserve: 0, grace: Duration::ZERO, trash: Duration::ZERO, ..StoreOptions::default() };
    Store::open(fixture.directory.path(), &options).unwrap()
}

fn collect(store: &Store) -> Collected {
    let mut collection = store.collect(Removal::Real).unwrap();
    while collection.step().unwrap() {}
    collection.so_far().clone()
}

#[test]
fn a_repository_moved_under_one_keeps_every_blob() {
    let mut fixture = Fixture::new();
    let config = push(fixture.store(), "team/app", b"config");
    put_manifest(fixture.store(), "team/app", b"{}", &["1"]);
    let repositories = fixture.path(&format!("{TREE}/repositories"));
    let (from, to) = (repositories.join("team/app"), repositories.join("team").join(bytes(b"app-\xff.old")));
    fs::rename(&from, &to).unwrap();
    let store = without_grace(&mut fixture);
    for _ in 0..2 {
        let done = collect(&store);
        assert_eq!(done.strangers, ["team/app-\u{fffd}.old"]);
        assert_eq!(done.removed.blobs, 0);
    }
    fs::rename(&to, &from).unwrap();
    assert!(store.has_blob(&name("team/app"), &config).unwrap());
    drop(store);
    fixture.reopen();
    assert_eq!(fixture.store().repositories(None, 10).unwrap(), [name("team/app")]);
}

#[test]
fn links_below_one_hold_their_repository() {
    for place in ["_layers", "_manifests/revisions"] {
        let mut fixture = Fixture::new();
        push(fixture.store(), "app", b"a layer");
        let place = fixture.path(&format!("{TREE}/repositories/app/{place}"));
        fs::create_dir_all(place.join(bytes(b"sha\xff")).join("some")).unwrap();
        let done = collect(&without_grace(&mut fixture));
        assert_eq!((done.removed.links, done.held.len()), (0, 1));
        assert_eq!(done.held[0].obstacle, Obstacle::Algorithm("sha\u{fffd}".to_owned()));
    }
}

#[test]
fn a_start_and_the_trash_pass_them_by() {
    let mut fixture = Fixture::new();
    push(fixture.store(), "app", b"garbage");
    fixture.store = None;
    let strange: Vec<PathBuf> = ["portcullis/tmp", "portcullis/uploads", "portcullis/trash/1", "portcullis/trash"]
        .into_iter()
        .map(|place| fixture.path(place).join(bytes(b"\xff")))
        .collect();
    for path in &strange {
        fs::create_dir_all(path).unwrap();
    }
    let store = without_grace(&mut fixture);
    assert_eq!(collect(&store).removed.blobs, 1);
    std::thread::sleep(Duration::from_millis(1100)); // a second of the file system's clock
    assert_eq!(store.purge_trash().unwrap().blobs, 1);
    assert!(strange.iter().all(|path| path.exists()));
    assert!(!fixture.blob_data(&sha256(b"garbage")).exists());
}
