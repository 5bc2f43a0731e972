//! What every implementer of the seam for object stores has to keep, and the whole store on one that is no disk.

use std::path::Path;
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, ManifestReference, RepositoryName};

use super::memory::MemoryBackend;
use super::model::ModelDisk;
use crate::backend::{Backend, Reaped};
use crate::disk::RealDisk;
use crate::layout;
use crate::local::LocalBackend;
use crate::upload::random_id;
use crate::{Store, StoreError, StoreOptions};

#[test]
fn all_backends_keep_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let wait = Duration::ZERO;
    check(&LocalBackend::open(RealDisk::open(directory.path()).unwrap(), directory.path(), None, wait).unwrap());
    check(&LocalBackend::open(ModelDisk::new(), Path::new("/data"), None, wait).unwrap());
    check(&MemoryBackend::default());
}

fn check(backend: &dyn Backend) {
    objects(backend);
    retirement(backend);
    quarantine(backend);
    listing(backend);
    stages(backend);
}

fn objects(backend: &dyn Backend) {
    let key = layout::blob_data(&digest(b"objects"));
    assert!(backend.stat(&key).unwrap().is_none());
    assert!(backend.open(&key).unwrap().is_none());
    assert!(backend.read(&key, 0..10).unwrap().is_none());
    assert!(!backend.delete(&key).unwrap());

    backend.put(&key, b"0123456789").unwrap();
    let first = backend.stat(&key).unwrap().unwrap();
    assert_eq!(first.size, 10);
    for (range, expected) in [(0..10, "0123456789"), (0..100, "0123456789"), (3..5, "34"), (10..20, ""), (20..30, "")] {
        let read = backend.read(&key, range.clone()).unwrap().unwrap();
        assert_eq!(read, expected.as_bytes(), "{range:?}");
    }

    let open = backend.open(&key).unwrap().unwrap();
    backend.put(&key, b"9876543210").unwrap();
    let second = backend.stat(&key).unwrap().unwrap();
    assert_ne!(second, first, "same length, another version");
    let mut renewed = second;
    // A file system's clock may stand still for some milliseconds.
    for _ in 0..1000 {
        backend.renew(&key).unwrap();
        renewed = backend.stat(&key).unwrap().unwrap();
        if renewed != second {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(renewed != second && renewed.size == 10);
    assert!((second.written..=backend.now() + 1).contains(&renewed.written), "{renewed:?} after {second:?}");
    let mut bytes = [0; 20];
    assert_eq!(open.read_at(&mut bytes, 2).unwrap(), 8);
    assert_eq!(&bytes[..8], b"23456789", "an open object never changes");

    assert!(backend.delete(&key).unwrap());
    assert!(!backend.delete(&key).unwrap());
    assert_eq!(open.read_at(&mut bytes, 0).unwrap(), 10, "and it stays when it is deleted");
    assert!(backend.stat(&key).unwrap().is_none());
    // What was deleted can come again.
    backend.put(&key, b"").unwrap();
    assert_eq!(backend.stat(&key).unwrap().unwrap().size, 0);
}

fn retirement(backend: &dyn Backend) {
    let [key, other] = [b"one", b"two"].map(|content| layout::blob_data(&digest(content)));
    let read = |key| backend.read(key, 0..10).unwrap();
    assert_eq!(backend.retire(&key, 100).unwrap(), None, "nothing is there");
    assert!(!backend.restore(&key).unwrap());
    assert_eq!(backend.reap(u64::MAX, 10).unwrap(), Reaped::default());

    backend.put(&key, b"first").unwrap();
    assert_eq!(backend.retire(&key, 100).unwrap(), Some(5));
    assert_eq!((backend.stat(&key).unwrap(), backend.retire(&key, 100).unwrap()), (None, None));
    backend.put(&key, b"second").unwrap();
    assert_eq!(backend.retire(&key, 9).unwrap(), Some(6));
    assert!(backend.restore(&key).unwrap());
    assert_eq!(read(&key).unwrap(), b"first", "the last one in time, not in the order of names");
    assert!(backend.restore(&key).unwrap());
    assert_eq!(read(&key).unwrap(), b"second", "and it replaces what is there");
    assert!(!backend.restore(&key).unwrap());

    backend.put(&other, b"12").unwrap();
    assert_eq!(backend.retire(&key, 100).unwrap(), Some(6));
    assert_eq!(backend.retire(&other, 101).unwrap(), Some(2));
    assert_eq!(backend.reap(100, 10).unwrap(), Reaped::default(), "the very second is not before it");
    assert_eq!(backend.reap(102, 1).unwrap(), Reaped { objects: 1, bytes: 6 }, "the oldest first");
    assert!(!backend.restore(&key).unwrap());
    assert!(backend.restore(&other).unwrap());
    assert_eq!(read(&other).unwrap(), b"12");
    assert_eq!(backend.retire(&other, 101).unwrap(), Some(2), "what came back can go again");
    assert_eq!(backend.reap(102, 1).unwrap(), Reaped { objects: 1, bytes: 2 });
    assert_eq!(backend.reap(102, 1).unwrap(), Reaped::default());
}

fn quarantine(backend: &dyn Backend) {
    let digest = digest(b"sound");
    let (key, aside) = (layout::blob_data(&digest), layout::damaged(&digest));
    assert!(!backend.quarantine(&key, &aside).unwrap(), "nothing is there");
    for bytes in [b"first", b"again"] {
        backend.put(&key, bytes).unwrap();
        assert!(backend.quarantine(&key, &aside).unwrap());
        assert_eq!(backend.stat(&key).unwrap(), None);
        assert_eq!(backend.read(&aside, 0..10).unwrap().unwrap(), bytes, "the last one that was moved there");
    }
}

fn listing(backend: &dyn Backend) {
    let app = name("listing/app");
    let below = layout::tags(&app);
    assert!(backend.list(&below, None, 10).unwrap().is_empty());
    for tag in ["b", "a", "a-b", "A", "a.b", "a_b"] {
        backend.put(&layout::tag_link(&app, &tag.parse().unwrap()), b"x").unwrap();
    }
    let list = |after, n| backend.list(&below, after, n).unwrap();
    assert_eq!(list(None, 10), ["A", "a", "a-b", "a.b", "a_b", "b"], "byte order of the names, not of the keys");
    assert_eq!(list(None, 2), ["A", "a"]);
    assert_eq!(list(Some("a"), 2), ["a-b", "a.b"]);
    assert_eq!(list(Some("a/"), 1), ["a_b"], "what sorts between two names");
    assert_eq!(list(Some("b"), 10), [""; 0]);
    assert_eq!(list(None, 0), [""; 0]);

    let tag = layout::tag(&app, &"a".parse().unwrap());
    assert!(backend.delete_below(&tag).unwrap());
    assert!(!backend.delete_below(&tag).unwrap());
    assert_eq!(list(None, 10), ["A", "a-b", "a.b", "a_b", "b"], "only what lies below, not what begins like it");

    // Where there are stamps at all, they tell names that came or went.
    let stamp = || backend.listing_stamp(&below).unwrap();
    let Some(first) = stamp() else { return };
    assert_eq!(stamp(), Some(first));
    std::thread::sleep(Duration::from_millis(20));
    backend.put(&layout::tag_link(&app, &"new".parse().unwrap()), b"x").unwrap();
    let second = stamp().unwrap();
    assert_ne!(first, second, "one came");
    std::thread::sleep(Duration::from_millis(20));
    assert!(backend.delete_below(&layout::tag(&app, &"new".parse().unwrap())).unwrap());
    assert_ne!(stamp(), Some(second), "one went");
    assert_eq!(backend.listing_stamp(&layout::tags(&name("nobody"))).unwrap(), None);
}

fn stages(backend: &dyn Backend) {
    let id = random_id();
    assert!(backend.staged(&id).unwrap().is_none());
    assert!(!backend.discard(&id).unwrap());
    let mut stage = backend.stage(&id, b"first note").unwrap();
    stage.write_pieces_at(&[b"some ", b"", b"bytes"], 0).unwrap();
    stage.write_pieces_at(&[b"BYTES and more"], 5).unwrap();
    stage.cut(10).unwrap();
    stage.note(b"second note").unwrap();
    drop(stage);

    let mut staged = backend.staged(&id).unwrap().unwrap();
    assert_eq!((staged.note.as_slice(), staged.stage.size().unwrap()), (b"second note".as_slice(), 10));
    let mut bytes = [0; 20];
    assert_eq!(staged.stage.read_at(&mut bytes, 5).unwrap(), 5);
    assert_eq!(&bytes[..5], b"BYTES");
    assert_eq!(backend.stages().unwrap(), [id]);

    let key = layout::blob_data(&digest(b"stages"));
    assert!(backend.stat(&key).unwrap().is_none());
    backend.seal(staged.stage.as_mut(), &key).unwrap();
    assert_eq!(backend.read(&key, 0..20).unwrap().unwrap(), b"some BYTES");
    assert!(backend.staged(&id).unwrap().is_none());

    let mut lost = backend.stage(&id, b"note").unwrap();
    assert!(backend.discard(&id).unwrap());
    assert!(matches!(backend.seal(lost.as_mut(), &key), Err(StoreError::UploadUnknown { .. })));
    assert_eq!(backend.read(&key, 0..20).unwrap().unwrap(), b"some BYTES");
    assert!(backend.stages().unwrap().is_empty());
}

#[test]
fn the_store_needs_no_disk() {
    let bucket = MemoryBackend::default();
    let open = || Store::on_backend(Box::new(bucket.clone()), &StoreOptions::default()).unwrap();
    let (app, other, owner) = (name("team/app"), name("other"), "pin:alice");
    let store = open();
    let mut upload = store.start_upload(&app, Algorithm::Sha256, owner).unwrap();
    let id = upload.id();
    upload.append(b"half of ").unwrap();
    upload.save().unwrap();

    // Another replica goes on with it.
    let store = open();
    let mut upload = store.resume_upload(&app, &id, owner).unwrap();
    upload.append(b"a layer").unwrap();
    let layer = digest(b"half of a layer");
    upload.finish(&layer).unwrap();
    assert!(store.mount_blob(&app, &other, &layer).unwrap());
    let manifest = digest(b"{}");
    store.put_manifest(&other, &manifest, b"{}", &["1".parse().unwrap(), "2".parse().unwrap()]).unwrap();

    let store = open();
    assert_eq!(store.stat_blob(&other, &layer).unwrap(), Some(15));
    assert_eq!(store.repositories(None, 10).unwrap(), [other.clone(), app.clone()]);
    let tag = ManifestReference::Tag("2".parse().unwrap());
    assert_eq!(store.manifest(&other, &tag).unwrap().unwrap().digest, manifest);
    assert!(store.delete_manifest(&other, &manifest).unwrap());
    assert!(store.manifest(&other, &tag).unwrap().is_none());
    assert_eq!(store.tags(&other, None, 10).unwrap(), Some(Vec::new()), "it still has a layer");
    assert!(store.delete_blob(&other, &layer).unwrap());
    assert_eq!(store.tags(&other, None, 10).unwrap(), None);
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
