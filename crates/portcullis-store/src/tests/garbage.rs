//! What a collection takes, what it leaves and why, and the races it must not lose.

mod held;
mod limits;
mod looks;
mod misplaced;
mod repair;
mod untagged;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, ManifestReference, RepositoryName};

use super::memory::{self, MemoryBackend};
use super::model::{ModelDisk, Trap};
use crate::{
    Collected, Collection, Held, Listed, ReferrersQuery, Removal, Store, StoreError, StoreOptions, Tally, layout,
};

const GRACE: Duration = Duration::from_hours(1);
/// Something done to a store that has a manifest.
type Deed = fn(&Store, &Digest);

const APP: &str = "team/app";

/// The first known race: HEAD says that a layer is there, a collection takes it, the manifest names it.
#[test]
fn what_a_head_has_found_is_there_for_the_manifest_that_follows() {
    // At every step of the collection, before its first too.
    for steps in 0.. {
        let (disk, store) = on_disk(GRACE);
        push(&store, APP, b"config");
        push(&store, APP, b"old layer");
        disk.advance(GRACE * 2);
        let mut collection = (steps > 0).then(|| store.collect(Removal::Real).unwrap());
        for _ in 1..steps {
            collection.as_mut().unwrap().step().unwrap();
        }
        let found = [b"config".as_slice(), b"old layer"].map(|content| has(&store, APP, content));
        finish(collection.unwrap_or_else(|| store.collect(Removal::Real).unwrap()));
        // The next collection does not know of the HEAD, but the link is young.
        finish(store.collect(Removal::Real).unwrap());
        if found != [true; 2] {
            assert!(steps > 3, "it went at once");
            break;
        }
        put(&store, APP, &image(b"config", &[b"old layer"]), "1").expect("what was found is there");
        assert!(has(&store, APP, b"old layer"), "at step {steps}");
    }
}

/// The second: a blob that no manifest has named for long is mounted, and its data goes.
#[test]
fn a_mounted_blob_keeps_its_data_at_every_step_of_a_collection() {
    for steps in 0.. {
        let (disk, store) = on_disk(GRACE);
        push(&store, "source", b"old layer");
        disk.advance(GRACE * 2);
        let mut collection = store.collect(Removal::Real).unwrap();
        let mut goes_on = true;
        for _ in 0..steps {
            goes_on = goes_on && collection.step().unwrap();
        }
        let layer = digest(b"old layer");
        let mounted = store.mount_blob(&name("source"), &name(APP), &layer).unwrap();
        finish(collection);
        finish(store.collect(Removal::Real).unwrap());
        assert_eq!(has(&store, APP, b"old layer"), mounted, "at step {steps}");
        assert!(!has(&store, "source", b"old layer"), "at step {steps}: mounting promises nothing of the source");
        if !goes_on {
            assert!(!mounted);
            break;
        }
    }
}

/// A push of what is there already writes only a link.
#[test]
fn a_push_of_a_dead_blob_brings_it_back_to_life_at_every_step() {
    for steps in 0..20 {
        let (disk, store) = on_disk(GRACE);
        push(&store, "source", b"old layer");
        disk.advance(GRACE * 2);
        let mut collection = store.collect(Removal::Real).unwrap();
        let _ = (0..steps).all(|_| collection.step().unwrap());
        push(&store, APP, b"old layer");
        finish(collection);
        assert!(has(&store, APP, b"old layer"), "at step {steps}");
    }
}

/// Without grace a promise made before the collection began is worth nothing: it has to wait for the whole of a put.
#[test]
fn a_collection_waits_for_manifests_that_are_being_put() {
    let store = in_memory(Duration::ZERO, false).1;
    push(&store, APP, b"config");
    let putting = store.begin_put(&name(APP));
    assert!(has(&store, APP, b"config"));
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| finish(store.collect(Removal::Real).unwrap()));
        std::thread::sleep(Duration::from_millis(50)); // time enough to get it wrong
        let bytes = image(b"config", &[]);
        store.put_manifest(&name(APP), &digest(&bytes), &bytes, &["1".parse().unwrap()]).unwrap();
        drop(putting);
        collecting.join().unwrap();
    });
    assert!(has(&store, APP, b"config"));
}

/// Four clients push and delete while collections without any grace follow each other: a push may be refused, but a
/// manifest that was taken is whole.
#[test]
fn collections_that_never_end_break_no_image() {
    let store = in_memory(Duration::ZERO, true).1;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                finish(store.collect(Removal::Real).unwrap());
                rounds += 1;
            }
            rounds
        });
        let clients: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn({
                    let store = &store;
                    move || push_and_delete(store, client)
                })
            })
            .collect();
        let taken: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        stop.store(true, Ordering::Relaxed);
        assert!(collecting.join().unwrap() > 1 && taken > 0, "nothing happened at the same time");
    });
}

fn push_and_delete(store: &Store, client: usize) -> usize {
    let repository = if client < 2 { APP } else { "other" };
    let mut taken = 0;
    for round in 0..200_usize {
        let layers = [format!("layer {}", round % 3), format!("layer {}", (round + client) % 4)];
        let layers: Vec<&[u8]> = layers.iter().map(String::as_bytes).collect();
        for blob in layers.iter().chain(&[b"config".as_slice()]) {
            push(store, repository, blob);
        }
        let bytes = image(b"config", &layers);
        let tag = client.to_string();
        if put(store, repository, &bytes, &tag).is_ok() {
            taken += 1;
            for layer in &layers {
                assert!(store.open_blob(&name(repository), &digest(layer)).unwrap().is_some(), "{client}, {round}");
            }
        }
        if round % 3 == 0 {
            store.delete_tag(&name(repository), &tag.parse().unwrap()).unwrap();
        }
    }
    taken
}

#[test]
fn a_link_lives_for_the_grace_and_not_longer() {
    let (disk, store) = on_disk(GRACE);
    push(&store, APP, b"layer");
    disk.advance(GRACE.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(finish(store.collect(Removal::Real).unwrap()).removed, Tally::default());
    disk.advance(Duration::from_secs(1));
    let removed = Tally { links: 1, blobs: 1, bytes: 5, manifests: 0 };
    assert_eq!(finish(store.collect(Removal::DryRun).unwrap()).removed, removed);
    assert!(store.open_blob(&name(APP), &digest(b"layer")).unwrap().is_some());
    let done = finish(store.collect(Removal::DryRun).unwrap());
    assert_eq!(done.listed, [Listed::Link(name(APP), digest(b"layer")), Listed::Blob(digest(b"layer"), 5)]);
    assert_eq!(finish(store.collect(Removal::Real).unwrap()).removed, removed);
    assert!(store.open_blob(&name(APP), &digest(b"layer")).unwrap().is_none());
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_old() {
    let (disk, store) = on_disk(GRACE);
    disk.advance(GRACE * 10);
    push(&store, APP, b"from the future");
    disk.set_clock_back(GRACE * 10);
    assert_eq!(finish(store.collect(Removal::Real).unwrap()).removed, Tally::default());
}

#[test]
fn the_trash_is_kept_and_then_emptied() {
    let (disk, store) = on_disk(GRACE);
    push(&store, APP, b"layer");
    disk.advance(GRACE);
    finish(store.collect(Removal::Real).unwrap());
    let in_trash = || disk.tree().into_keys().filter(|path| path.starts_with("portcullis/trash/1")).count();
    assert_eq!(in_trash(), 1);
    disk.advance(Duration::from_hours(24));
    assert_eq!(store.purge_trash().unwrap(), Tally::default());
    disk.advance(Duration::from_secs(1));
    assert_eq!(finish(store.collect(Removal::Real).unwrap()).purged, Tally { blobs: 1, bytes: 5, ..Tally::default() });
    assert_eq!(in_trash(), 0);
}

#[test]
fn when_space_is_short_nothing_waits_in_the_trash() {
    let disk = ModelDisk::new();
    let options = StoreOptions { reserve: 1000, grace: Duration::ZERO, ..StoreOptions::default() };
    let store = Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap();
    push(&store, APP, b"first");
    finish(store.collect(Removal::Real).unwrap());
    push(&store, APP, b"second");
    disk.set_free(999);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!((done.removed.blobs, done.purged.blobs), (1, 1));
    let left: Vec<_> =
        disk.tree().into_keys().filter(|path| path.contains("/trash/") || path.ends_with("/data")).collect();
    assert_eq!(left, ["portcullis/trash/"]);
}

/// A disk that cannot say how much is free is not a full one.
#[test]
fn no_failing_call_empties_the_trash() {
    for at in 1.. {
        let (disk, store) = on_disk(GRACE);
        push(&store, APP, b"in the trash");
        disk.advance(GRACE);
        finish(store.collect(Removal::Real).unwrap());
        push(&store, APP, b"garbage");
        disk.advance(GRACE);
        disk.arm(Some(Trap::Fault(at)));
        let done = store.collect(Removal::Real).and_then(|mut collection| {
            while collection.step()? {}
            Ok(())
        });
        let calls = disk.calls();
        disk.arm(None);
        let files =
            disk.tree().into_values().filter(|bytes| [b"garbage".as_slice(), b"in the trash"].contains(&&bytes[..]));
        assert_eq!(files.count(), 2, "call {at}: {done:?}");
        if calls < at {
            assert!(at > 20);
            break;
        }
    }
}

#[test]
fn schema1_is_understood_also_among_the_layers() {
    let layer = digest(b"layer");
    let schema1 = format!(r#"{{"schemaVersion":1,"name":"a","tag":"1","fsLayers":[{{"blobSum":"{layer}"}}]}}"#);
    let manifest = digest(schema1.as_bytes());
    // As every release links manifests, as Distribution 2.1.0 did, and the same without a tag.
    let places: [Deed; 3] = [
        |store, digest| link(store, &layout::revision_link(&name(APP), digest), digest),
        |store, digest| {
            link(store, &layout::layer_link(&name(APP), digest), digest);
            link(store, &layout::tag_link(&name(APP), &"1".parse().unwrap()), digest);
        },
        |store, digest| link(store, &layout::layer_link(&name(APP), digest), digest),
    ];
    for (number, place) in places.into_iter().enumerate() {
        let (bucket, store) = in_memory(GRACE, false);
        push(&store, APP, b"layer");
        push(&store, APP, b"garbage");
        store.inner.backend.put(&layout::blob_data(&manifest), schema1.as_bytes()).unwrap();
        place(&store, &manifest);
        bucket.advance(GRACE);
        assert_eq!(finish(store.collect(Removal::Real).unwrap()).removed.blobs, 1, "place {number}");
        assert!(has(&store, APP, b"layer"), "place {number}");
        assert!(store.manifest(&name(APP), &ManifestReference::Digest(manifest)).unwrap().is_some(), "place {number}");
    }
}

#[test]
fn an_untagged_manifest_goes_only_when_it_shall() {
    for untagged in [false, true] {
        let (bucket, store) = in_memory(GRACE, untagged);
        push(&store, APP, b"config");
        let [tagged, listed, lone, referrer, stray] = [&[0_u8][..], b"1", b"2", b"3", b"4"].map(|layer| {
            push(&store, APP, layer);
            image(b"config", &[layer])
        });
        let referrer = untagged::with_subject(&referrer, &tagged);
        let stray = untagged::with_subject(&stray, &lone);
        let index = untagged::index(&[&listed]);
        for bytes in [&listed, &lone, &referrer, &stray] {
            store.put_manifest(&name(APP), &digest(bytes), bytes, &[]).unwrap();
        }
        put(&store, APP, &tagged, "image").unwrap();
        put(&store, APP, &index, "index").unwrap();
        bucket.advance(GRACE);
        let done = finish(store.collect(Removal::Real).unwrap());
        let gone = if untagged {
            Tally { manifests: 2, links: 2, blobs: 4, bytes: done.removed.bytes }
        } else {
            Tally::default()
        };
        assert_eq!(done.removed, gone);
        let there = |bytes: &[u8]| store.has_manifest(&name(APP), &digest(bytes)).unwrap();
        assert!(there(&tagged) && there(&listed) && there(&referrer) && there(&index));
        assert_eq!([there(&lone), there(&stray)], [!untagged; 2], "a referrer lives as long as its subject");
        assert_eq!(
            store.referrers(&name(APP), &ReferrersQuery::new(digest(&lone))).unwrap().referrers.len(),
            usize::from(!untagged)
        );
    }
}

#[test]
fn an_error_while_marking_ends_it_before_anything_is_removed() {
    let (mut failed, mut held) = (0, 0);
    for calls in 0.. {
        let (bucket, store) = in_memory(Duration::ZERO, false);
        for repository in [APP, "other"] {
            push(&store, repository, b"config");
            push(&store, repository, repository.as_bytes());
            put(&store, repository, &image(b"config", &[]), "1").unwrap();
        }
        let before = bucket.keys();
        bucket.arm(Some(memory::Trap::Fault(calls)));
        let mut collection = store.collect(Removal::Real).unwrap();
        let ended = loop {
            let marking = collection.so_far().doing == "reading manifests";
            match collection.step() {
                Err(_) => break marking,
                Ok(true) => {}
                Ok(false) if bucket.disarm().is_some() => {
                    assert!(failed > 20 && held > 0, "{failed}, {held}");
                    return;
                }
                Ok(false) => {
                    // Bytes that could not be read may have been a manifest's, unless a manifest names them as a blob:
                    // nothing goes from their repository.
                    for Held { repository, .. } in &collection.so_far().held {
                        let (place, left) = (format!("/{repository}/"), bucket.keys());
                        let of_it = before.iter().filter(|key| key.contains(&place));
                        of_it.for_each(|key| assert!(left.contains(key), "call {calls}: {key}"));
                        held += 1;
                    }
                    break false;
                }
            }
        };
        assert!(!collection.step().unwrap(), "it is over");
        if ended {
            failed += 1;
            bucket.arm(None);
            assert_eq!(bucket.keys(), before, "call {calls}");
        }
    }
}

#[test]
fn one_collection_at_a_time() {
    let (_, store) = in_memory(GRACE, false);
    let first = store.collect(Removal::DryRun).unwrap();
    assert!(matches!(store.collect(Removal::Real), Err(StoreError::Collecting)));
    drop(first);
    assert!(store.collect(Removal::Real).is_ok());
}

fn finish(mut collection: Collection) -> Collected {
    while collection.step().unwrap() {}
    collection.so_far().clone()
}

fn push(store: &Store, repository: &str, content: &[u8]) {
    let mut upload = store.start_upload(&name(repository), Algorithm::Sha256, "pin:alice").unwrap();
    upload.append(content).unwrap();
    upload.finish(&digest(content)).unwrap();
}

/// As the server does it. An error: the blobs that are missing.
fn put(store: &Store, repository: &str, bytes: &[u8], tag: &str) -> Result<(), Vec<Digest>> {
    let repository = name(repository);
    let _putting = store.begin_put(&repository);
    let mut missing = portcullis_oci::Manifest::parse(bytes, None).unwrap().required_blobs();
    missing.retain(|blob| !store.has_blob(&repository, blob).unwrap());
    if missing.is_empty() {
        store.put_manifest(&repository, &digest(bytes), bytes, &[tag.parse().unwrap()]).unwrap();
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn link(store: &Store, key: &layout::Key, digest: &Digest) {
    store.inner.backend.put(key, digest.to_string().as_bytes()).unwrap();
}

fn has(store: &Store, repository: &str, content: &[u8]) -> bool {
    store.has_blob(&name(repository), &digest(content)).unwrap()
}

fn image(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<String> = layers.iter().map(|layer| descriptor(layer)).collect();
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor(config), layers.join(",")).into_bytes()
}

fn descriptor(content: &[u8]) -> String {
    format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, digest(content), content.len())
}

fn on_disk(grace: Duration) -> (ModelDisk, Store) {
    let disk = ModelDisk::new();
    let store = reopen(&disk, grace);
    (disk, store)
}

fn reopen(disk: &ModelDisk, grace: Duration) -> Store {
    let options = StoreOptions { reserve: 0, grace, ..StoreOptions::default() };
    Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap()
}

fn in_memory(grace: Duration, untagged: bool) -> (MemoryBackend, Store) {
    let bucket = MemoryBackend::default();
    bucket.advance(Duration::from_hours(24 * 365));
    let options = StoreOptions { reserve: 0, grace, untagged, ..StoreOptions::default() };
    let store = Store::on_backend(Box::new(bucket.clone()), &options).unwrap();
    (bucket, store)
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
