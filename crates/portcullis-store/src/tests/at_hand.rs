//! What was read lately is never older than the files.

use std::path::Path;
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, ManifestReference};

use super::model::ModelDisk;
use super::world::{name, sha256};
use crate::disk::{Access, Disk as _};
use crate::{Store, StoreOptions, layout};

const REPOSITORY: &str = "team/app";

/// A store with a manifest under `1.0` and a layer, both read twice, the second time long after they were written.
fn known() -> (ModelDisk, Store, Digest) {
    let disk = ModelDisk::new();
    let options = StoreOptions { reserve: 0, ..StoreOptions::default() };
    let store = Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap();
    let layer = sha256(b"a layer");
    let mut upload = store.start_upload(&name(REPOSITORY), Algorithm::Sha256, "pin:alice").unwrap();
    upload.append(b"a layer").unwrap();
    upload.finish(&layer).unwrap();
    put(&store, b"{}");
    read(&store);
    disk.advance(Duration::from_secs(10));
    read(&store);
    (disk, store, layer)
}

fn put(store: &Store, manifest: &[u8]) {
    store.put_manifest(&name(REPOSITORY), &sha256(manifest), manifest, &["1.0".parse().unwrap()]).unwrap();
}

fn by_tag() -> ManifestReference {
    ManifestReference::Tag("1.0".parse().unwrap())
}

fn read(store: &Store) -> Option<Vec<u8>> {
    store.stat_blob(&name(REPOSITORY), &sha256(b"a layer")).unwrap();
    store.manifest(&name(REPOSITORY), &by_tag()).unwrap().map(|found| found.bytes.to_vec())
}

fn at_hand(store: &Store, reference: &ManifestReference) -> Option<Vec<u8>> {
    store.manifest_at_hand(&name(REPOSITORY), reference).map(|found| found.bytes.to_vec())
}

#[test]
fn what_was_read_is_at_hand() {
    let (_, store, layer) = known();
    assert_eq!(at_hand(&store, &by_tag()), Some(b"{}".to_vec()));
    assert_eq!(store.stat_blob_at_hand(&name(REPOSITORY), &layer).unwrap(), Some(7));
    let by_digest = ManifestReference::Digest(sha256(b"{}"));
    assert_eq!(at_hand(&store, &by_digest), None, "nobody has read it so");
    store.manifest(&name(REPOSITORY), &by_digest).unwrap();
    assert_eq!(at_hand(&store, &by_digest), Some(b"{}".to_vec()));
    assert_eq!(store.manifest_at_hand(&name("other"), &by_tag()), None);
    assert_eq!(store.stat_blob_at_hand(&name("other"), &layer).unwrap(), None);
}

#[test]
fn a_tag_that_moves_is_read_again() {
    let (disk, store, _) = known();
    put(&store, b"[]");
    assert_eq!(at_hand(&store, &by_tag()), None);
    assert_eq!(read(&store), Some(b"[]".to_vec()));
    assert_eq!(at_hand(&store, &by_tag()), None, "it could change again within the same tick of the clock");
    disk.advance(Duration::from_secs(10));
    read(&store);
    assert_eq!(at_hand(&store, &by_tag()), Some(b"[]".to_vec()));
}

#[test]
fn what_goes_is_not_at_hand() {
    type Remove = fn(&ModelDisk, &Store);
    let removals: [Remove; 4] = [
        |_, store| assert!(store.delete_tag(&name(REPOSITORY), &"1.0".parse().unwrap()).unwrap()),
        |_, store| assert!(store.delete_manifest(&name(REPOSITORY), &sha256(b"{}")).unwrap()),
        // Behind the store's back.
        |disk, _| {
            disk.remove_file(layout::revision_link(&name(REPOSITORY), &sha256(b"{}")).as_str()).unwrap();
        },
        |disk, _| {
            disk.advance(Duration::from_secs(1));
            let file = disk.open(layout::blob_data(&sha256(b"{}")).as_str(), Access::Write).unwrap();
            disk.write_at(&file, b"[]", 0).unwrap();
        },
    ];
    for (number, remove) in removals.iter().enumerate() {
        let (disk, store, _) = known();
        remove(&disk, &store);
        assert_eq!(at_hand(&store, &by_tag()), None, "{number}");
        assert_eq!(read(&store), None, "{number}");
    }
}

#[test]
fn a_layer_that_goes_is_not_at_hand() {
    let (_, store, layer) = known();
    // What cannot be understood may name it.
    assert!(store.delete_manifest(&name(REPOSITORY), &sha256(b"{}")).unwrap());
    assert!(store.delete_blob(&name(REPOSITORY), &layer).unwrap());
    assert_eq!(store.stat_blob_at_hand(&name(REPOSITORY), &layer).unwrap(), None);
}

#[test]
fn who_works_on_the_digest_is_waited_for_elsewhere() {
    let (_, store, layer) = known();
    let held = store.inner.lock_digest(&layer);
    assert_eq!(store.stat_blob_at_hand(&name(REPOSITORY), &layer).unwrap(), None);
    drop(held);
    assert_eq!(store.stat_blob_at_hand(&name(REPOSITORY), &layer).unwrap(), Some(7));
}

#[test]
fn an_answer_from_memory_is_a_promise_too() {
    let (disk, store, layer) = known();
    disk.advance(Duration::from_mins(20));
    let link = layout::layer_link(&name(REPOSITORY), &layer);
    let before = disk.stat(link.as_str()).unwrap().modified;
    assert_eq!(store.stat_blob_at_hand(&name(REPOSITORY), &layer).unwrap(), Some(7));
    assert!(disk.stat(link.as_str()).unwrap().modified > before, "a quarter of the grace is over: it is renewed");
}
