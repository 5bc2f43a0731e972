//! Manifests that lie only among the layers, as Distribution 2.1.0 linked them: what they name is alive.

use super::untagged::{index, with_subject};
use super::*;
use crate::Obstacle;

const TAG: &str = "1";

fn schema1(layer: &[u8]) -> Vec<u8> {
    let layer = digest(layer);
    format!(r#"{{"schemaVersion":1,"name":"a","tag":"1","fsLayers":[{{"blobSum":"{layer}"}}]}}"#).into_bytes()
}

/// Links a manifest among the layers, as a blob is.
fn misplace(store: &Store, bytes: &[u8]) {
    store.inner.backend.put(&layout::blob_data(&digest(bytes)), bytes).unwrap();
    link(store, &layout::layer_link(&name(APP), &digest(bytes)), &digest(bytes));
}

fn tag(store: &Store, bytes: &[u8]) {
    link(store, &layout::tag_link(&name(APP), &TAG.parse().unwrap()), &digest(bytes));
}

/// A bucket with an old layer and old garbage.
fn old_layer(untagged: bool) -> (MemoryBackend, Store) {
    let (bucket, store) = in_memory(GRACE, untagged);
    for blob in [b"layer".as_slice(), b"config", b"garbage"] {
        push(&store, APP, blob);
    }
    bucket.advance(GRACE * 2);
    (bucket, store)
}

/// Collects, and asks without promising anything.
fn keeps_the_layer(store: &Store) -> bool {
    finish(store.collect(Removal::Real).unwrap());
    let there = |blob: &[u8]| store.open_blob(&name(APP), &digest(blob)).unwrap().is_some();
    assert!(!there(b"garbage"), "nothing was collected at all");
    there(b"layer")
}

#[test]
fn a_young_one_keeps_its_layers() {
    for untagged in [false, true] {
        let (_, store) = old_layer(untagged);
        misplace(&store, &schema1(b"layer"));
        assert!(keeps_the_layer(&store), "{untagged}");
    }
}

#[test]
fn one_that_an_index_lists_keeps_its_layers() {
    for (untagged, young) in [(false, false), (false, true), (true, false), (true, true)] {
        let (bucket, store) = old_layer(untagged);
        let manifest = schema1(b"layer");
        let index = index(&[&manifest]);
        misplace(&store, &manifest);
        store.put_manifest(&name(APP), &digest(&index), &index, &["list".parse().unwrap()]).unwrap();
        if !young {
            bucket.advance(GRACE * 2);
        }
        assert!(keeps_the_layer(&store), "untagged manifests go: {untagged}, young: {young}");
        assert!(store.manifest(&name(APP), &ManifestReference::Digest(digest(&manifest))).unwrap().is_some());
    }
}

/// Whatever type it has: Distribution would serve it.
#[test]
fn one_that_a_tag_points_to_keeps_what_it_names() {
    for bytes in [image(b"config", &[b"layer"]), schema1(b"layer")] {
        for untagged in [false, true] {
            let (bucket, store) = old_layer(untagged);
            misplace(&store, &bytes);
            tag(&store, &bytes);
            bucket.advance(GRACE * 2);
            assert!(keeps_the_layer(&store));
            let link = layout::layer_link(&name(APP), &digest(&bytes));
            assert!(store.inner.backend.stat(&link).unwrap().is_some(), "and is kept itself");
        }
    }
}

/// Untagged manifests whose one root lies among the layers.
#[test]
fn one_keeps_what_refers_to_it_and_what_it_lists() {
    let listed = image(b"config", &[b"layer"]);
    let subject = schema1(b"config");
    let referrer = with_subject(&listed, &subject);
    for (misplaced, kept) in [(subject, referrer), (index(&[&listed]), listed)] {
        let (bucket, store) = old_layer(true);
        store.put_manifest(&name(APP), &digest(&kept), &kept, &[]).unwrap();
        misplace(&store, &misplaced);
        tag(&store, &misplaced);
        bucket.advance(GRACE * 2);
        assert!(keeps_the_layer(&store));
        let link = layout::revision_link(&name(APP), &digest(&kept));
        assert!(store.inner.backend.stat(&link).unwrap().is_some(), "{}", String::from_utf8_lossy(&kept));
    }
}

/// Which layers it named nobody can say.
#[test]
fn one_that_cannot_be_read_stops_every_removal() {
    let bytes = schema1(b"layer");
    let damages: [(&str, bool, Deed); 8] = [
        ("its data is gone", true, |store, digest| {
            store.inner.backend.delete(&layout::blob_data(digest)).unwrap();
        }),
        ("empty", true, |store, digest| store.inner.backend.put(&layout::blob_data(digest), b"").unwrap()),
        ("zeros", true, |store, digest| store.inner.backend.put(&layout::blob_data(digest), &[0; 100]).unwrap()),
        ("too large", true, |store, digest| {
            store.inner.backend.put(&layout::blob_data(digest), &vec![b' '; 5 << 20]).unwrap();
        }),
        ("garbled link", true, |store, digest| {
            store.inner.backend.put(&layout::layer_link(&name(APP), digest), b"sha256:").unwrap();
        }),
        ("cut short", true, |store, digest| store.inner.backend.put(&layout::blob_data(digest), b"{\"schema").unwrap()),
        ("untagged, cut short", false, |store, digest| {
            store.inner.backend.put(&layout::blob_data(digest), b"{\"schema").unwrap();
        }),
        ("untagged, damaged behind a blank", false, |store, digest| {
            store.inner.backend.put(&layout::blob_data(digest), b"  {\"schemaVersion\":1,").unwrap();
        }),
    ];
    for (what, is_tagged, damage) in damages {
        let (bucket, store) = old_layer(false);
        misplace(&store, &bytes);
        if is_tagged {
            tag(&store, &bytes);
        }
        damage(&store, &digest(&bytes));
        bucket.advance(GRACE * 2);
        let done = finish(store.collect(Removal::Real).unwrap());
        assert_eq!((done.removed, done.held.len()), (Tally::default(), 1), "{what}");
        assert!(
            matches!(&done.held[0].obstacle, Obstacle::Manifest(held, _) if *held == digest(&bytes)),
            "{what}: {:?}",
            done.held
        );
    }
}

/// A schema 1 manifest that this program does not understand, and an index that lists one which cannot be read.
#[test]
fn one_that_cannot_be_understood_stops_every_removal() {
    let odd = br#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha384:1234"}]}"#;
    let (bucket, store) = old_layer(false);
    misplace(&store, odd);
    bucket.advance(GRACE * 2);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!((done.removed, done.held.len()), (Tally::default(), 1));

    let (bucket, store) = old_layer(false);
    let manifest = schema1(b"layer");
    let index = index(&[&manifest]);
    misplace(&store, &manifest);
    store.put_manifest(&name(APP), &digest(&index), &index, &["list".parse().unwrap()]).unwrap();
    store.inner.backend.put(&layout::blob_data(&digest(&manifest)), &[0; 100]).unwrap();
    bucket.advance(GRACE * 2);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!((done.removed, done.held.len()), (Tally::default(), 1));
}

/// A config begins as a manifest does. That it is damaged is no reason to keep anything else.
#[test]
fn a_damaged_config_is_no_manifest() {
    let (bucket, store) = old_layer(false);
    push(&store, APP, b"{}");
    put(&store, APP, &image(b"{}", &[b"layer"]), TAG).unwrap();
    store.inner.backend.put(&layout::blob_data(&digest(b"{}")), b"{").unwrap();
    bucket.advance(GRACE * 2);
    assert!(keeps_the_layer(&store));
}

/// A name without a link is what is left of one that was deleted, and a link without data what Distribution's collector
/// leaves.
#[test]
fn what_is_left_of_a_deleted_one_holds_nothing() {
    let (bucket, store) = old_layer(false);
    misplace(&store, &schema1(b"layer"));
    store.inner.backend.delete(&layout::blob_data(&digest(&schema1(b"layer")))).unwrap();
    bucket.advance(GRACE * 2);
    assert!(!keeps_the_layer(&store));
    tag(&store, &schema1(b"layer"));
    push(&store, APP, b"garbage");
    bucket.advance(GRACE * 2);
    assert!(!keeps_the_layer(&store));
}
