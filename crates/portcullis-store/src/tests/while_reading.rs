//! What is written to a repository while somebody reads all of it: nobody is locked out, and nothing of it is missed.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use portcullis_oci::{Digest, Manifest, ManifestReference, Tag};

use super::model::{ModelDisk, Trap};
use super::world::{name, sha256};
use crate::{ReferrersQuery, Store, StoreError, StoreOptions};

const APP: &str = "team/app";
/// For what waits for a lock: time enough to get it wrong.
const BRIEFLY: Duration = Duration::from_millis(30);

fn open(disk: &ModelDisk) -> Store {
    let options = StoreOptions { reserve: 0, ..StoreOptions::default() };
    Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap()
}

/// A repository of five tagged images, each with a config of its own.
fn filled() -> (ModelDisk, Store) {
    let disk = ModelDisk::new();
    let store = open(&disk);
    for number in 0..5 {
        push(&store, &[number]);
        put(&store, &image(&[number], None), &[&format!("old{number}")]).unwrap();
    }
    (disk, store)
}

fn push(store: &Store, content: &[u8]) {
    let mut upload = store.start_upload(&name(APP), portcullis_oci::Algorithm::Sha256, "pin:alice").unwrap();
    upload.append(content).unwrap();
    upload.finish(&sha256(content)).unwrap();
}

/// As the server does it. `false`: what it names is not there.
fn put(store: &Store, bytes: &[u8], tags: &[&str]) -> Result<bool, StoreError> {
    let repository = name(APP);
    let _putting = store.begin_put(&repository);
    for blob in Manifest::parse(bytes, None).unwrap().required_blobs() {
        if !store.has_blob(&repository, &blob)? {
            return Ok(false);
        }
    }
    let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    store.put_manifest(&repository, &sha256(bytes), bytes, &tags).map(|()| true)
}

fn descriptor(content: &[u8]) -> String {
    format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, sha256(content), content.len())
}

fn image(config: &[u8], subject: Option<&[u8]>) -> Vec<u8> {
    let subject = subject.map(|subject| format!(r#","subject":{}"#, descriptor(subject))).unwrap_or_default();
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[]{subject}}}"#, descriptor(config)).into_bytes()
}

fn referrers(store: &Store, subject: &[u8]) -> Vec<Digest> {
    let page = store.referrers(&name(APP), &ReferrersQuery::new(sha256(subject))).unwrap();
    page.referrers.iter().map(|referrer| referrer.digest).collect()
}

/// Holds `reading` at each of its disk calls in turn, writes meanwhile, and lets `look` see what they came to. Returns how
/// often the write was done before the reading went on.
fn at_every_call<R: Send, W: Send>(
    reading: impl Fn(&Store) -> R + Sync,
    write: impl Fn(&Store) -> W + Sync,
    look: impl Fn(&Store, R, W, u64),
) -> usize {
    let mut free = 0;
    for at in 1.. {
        let (disk, store) = filled();
        // What was remembered while it was filled is another store's.
        drop(store);
        let store = open(&disk);
        disk.arm(Some(Trap::Hold(at)));
        let (tell, told) = mpsc::channel();
        let (read, written, was_held) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| reading(&store));
            while !disk.holds() && !reader.is_finished() {
                std::thread::sleep(Duration::from_micros(200));
            }
            let was_held = disk.holds();
            let writer = scope.spawn(|| {
                let written = write(&store);
                let _ = tell.send(());
                written
            });
            match told.recv_timeout(BRIEFLY) {
                Ok(()) => free += usize::from(was_held),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            disk.arm(None);
            (reader.join().unwrap(), writer.join().unwrap(), was_held)
        });
        look(&store, read, written, at);
        if !was_held {
            assert!(at > 10, "it made {at} calls");
            break;
        }
    }
    free
}

#[test]
fn the_first_question_about_referrers_locks_nobody_out_and_misses_nothing() {
    let new = image(&[0], Some(b"subject"));
    let free = at_every_call(
        |store| referrers(store, b"subject"),
        |store| put(store, &new, &["new"]).unwrap(),
        |store, first, written, at| {
            assert!(written && store.knows_referrers(&name(APP)), "call {at}");
            assert!(first.len() <= 1);
            assert_eq!(referrers(store, b"subject"), [sha256(&new)], "call {at}");
        },
    );
    assert!(free > 10, "writers had to wait: {free}");
}

#[test]
fn a_referrer_that_is_deleted_while_they_are_read_is_not_listed() {
    // One that was there from the beginning.
    let old = image(&[1], None);
    at_every_call(
        |store| referrers(store, b"subject"),
        |store| {
            let referrer = image(&[1], Some(b"subject"));
            put(store, &referrer, &[]).unwrap();
            store.delete_manifest(&name(APP), &sha256(&referrer)).unwrap()
                && store.has_manifest(&name(APP), &sha256(&old)).unwrap()
        },
        |store, _, written, at| {
            assert!(written, "call {at}");
            assert_eq!(referrers(store, b"subject"), [], "call {at}");
        },
    );
}

#[test]
fn a_blob_that_a_manifest_begins_to_name_while_it_is_deleted_stays() {
    let new = image(b"a blob of nobody", None);
    let (mut refused, mut deleted) = (0, 0);
    let free = at_every_call(
        |store| {
            push(store, b"a blob of nobody");
            store.delete_blob(&name(APP), &sha256(b"a blob of nobody"))
        },
        |store| put(store, &new, &[]).unwrap(),
        |store, done, written, at| {
            let has = store.has_blob(&name(APP), &sha256(b"a blob of nobody")).unwrap();
            let manifest = store.has_manifest(&name(APP), &sha256(&new)).unwrap();
            assert_eq!(manifest, written, "call {at}");
            assert!(has || !manifest, "call {at}: the manifest lacks its blob; deleted: {done:?}");
            if let Err(error) = done {
                assert!(matches!(error, StoreError::BlobInUse { .. }), "call {at}: {error:?}");
            }
        },
    );
    assert!(free > 10, "writers had to wait: {free}");
    // Both ends are met when nothing is held.
    for named in [false, true] {
        let (_, store) = filled();
        push(&store, b"a blob of nobody");
        if named {
            put(&store, &new, &[]).unwrap();
        }
        match store.delete_blob(&name(APP), &sha256(b"a blob of nobody")) {
            Ok(true) => deleted += 1,
            Err(StoreError::BlobInUse { .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((deleted, refused), (1, 1));
}

#[test]
fn a_tag_that_is_set_while_its_manifest_is_deleted_goes_too_or_brings_it_back() {
    let bytes = image(&[2], None);
    let free = at_every_call(
        |store| store.delete_manifest(&name(APP), &sha256(&bytes)).unwrap(),
        |store| put(store, &bytes, &["new"]).unwrap(),
        |store, deleted, written, at| {
            assert!(deleted && written, "call {at}");
            let tag: Tag = "new".parse().unwrap();
            let tags = store.tags(&name(APP), None, 10).unwrap().unwrap();
            let found = store.manifest(&name(APP), &ManifestReference::Tag(tag.clone())).unwrap();
            assert_eq!(tags.contains(&tag), found.is_some(), "call {at}: a tag of nothing");
            assert!(!tags.contains(&"old2".parse().unwrap()), "call {at}");
        },
    );
    assert!(free > 10, "writers had to wait: {free}");
}

/// More than a reading keeps: it is made once more, under the lock, and referrers are not remembered.
#[test]
fn more_writes_than_are_kept_are_missed_neither() {
    // At its first call, and while the first manifest is read.
    for (deletes, call) in [(true, 1), (false, 8)] {
        let (disk, store) = filled();
        drop(store);
        let store = open(&disk);
        // Three of them are more than eight mebibytes.
        let mut large = image(&[2], None);
        large.splice(1..1, vec![b' '; 3 << 20]);
        disk.arm(Some(Trap::Hold(call)));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                if deletes {
                    assert!(store.delete_manifest(&name(APP), &sha256(&large)).unwrap());
                } else {
                    referrers(&store, b"subject");
                }
            });
            while !disk.holds() {
                assert!(!reader.is_finished(), "it makes less than {call} calls");
                std::thread::sleep(Duration::from_millis(1));
            }
            for tag in ["1", "2", "3"] {
                assert!(put(&store, &large, &[tag]).unwrap());
            }
            disk.arm(None);
            reader.join().unwrap();
        });
        if deletes {
            let tags = store.tags(&name(APP), None, 10).unwrap().unwrap();
            assert!(tags.iter().all(|tag| tag.as_str().starts_with("old")), "{tags:?}");
        } else {
            assert!(!store.knows_referrers(&name(APP)));
            referrers(&store, b"subject");
            assert!(store.knows_referrers(&name(APP)), "the next question is less disturbed");
        }
    }
}
