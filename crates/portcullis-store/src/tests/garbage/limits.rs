//! A collection remembers no more than it may, and takes all that is dead all the same.

use super::untagged::{index, with_subject};
use super::*;
use crate::Obstacle;
use crate::collect::Limits;

const PLENTY: Limits = Limits { dead: 1000, marks: 1000, known: 1000 };

/// Five images, two of them untagged, with a referrer and an index, and as much garbage.
fn filled(untagged: bool) -> (MemoryBackend, Store, Vec<Vec<u8>>) {
    let (bucket, store) = in_memory(GRACE, untagged);
    push(&store, APP, b"config");
    let mut images = Vec::new();
    for number in 0..5_u8 {
        push(&store, APP, &[b'l', number]);
        push(&store, APP, &[b'g', number]);
        images.push(image(b"config", &[&[b'l', number]]));
    }
    let signature = with_subject(&image(b"config", &[]), &images[0]);
    let list = index(&[&images[1], &images[2]]);
    for bytes in &images {
        store.put_manifest(&name(APP), &digest(bytes), bytes, &[]).unwrap();
    }
    store.put_manifest(&name(APP), &digest(&signature), &signature, &[]).unwrap();
    put(&store, APP, &images[0], "image").unwrap();
    store.put_manifest(&name(APP), &digest(&list), &list, &["list".parse().unwrap()]).unwrap();
    bucket.advance(GRACE * 2);
    (bucket, store, images)
}

fn collect(store: &Store, limits: Limits) -> Collected {
    finish(store.collect_within(limits, Removal::Real).unwrap())
}

/// What is left, whatever it takes to get there.
#[test]
fn with_little_room_the_same_goes_as_with_much() {
    for untagged in [false, true] {
        let (bucket, store, _) = filled(untagged);
        let all = collect(&store, PLENTY);
        assert_eq!((all.removed.links, all.removed.manifests), if untagged { (7, 2) } else { (5, 0) });
        let left = bucket.keys();
        for limits in [
            Limits { marks: 5, ..PLENTY },
            Limits { marks: 1, ..PLENTY },
            Limits { dead: 1, ..PLENTY },
            Limits { dead: 3, ..PLENTY },
            Limits { dead: 2, marks: 3, ..PLENTY },
        ] {
            let (bucket, store, _) = filled(untagged);
            let mut done = collect(&store, limits);
            // A part of the blobs has had its turn before the last links went: the next collection takes them.
            done.removed.blobs += collect(&store, limits).removed.blobs;
            assert_eq!(bucket.keys(), left, "{limits:?}");
            assert_eq!((done.removed.links, done.removed.manifests), (all.removed.links, all.removed.manifests));
            assert_eq!(done.removed.blobs, all.removed.blobs, "{limits:?}");
        }
    }
}

#[test]
fn what_has_no_room_in_a_dry_run_is_said() {
    let (_, store, _) = filled(false);
    for (limits, more) in [
        (Limits { dead: 5, ..PLENTY }, false),
        (Limits { dead: 4, ..PLENTY }, true),
        // Config, five layers, the bytes of seven manifests.
        (Limits { marks: 13, ..PLENTY }, false),
        (Limits { marks: 12, ..PLENTY }, true),
    ] {
        let done = finish(store.collect_within(limits, Removal::DryRun).unwrap());
        assert_eq!(done.more, more, "{limits:?}");
    }
}

#[test]
fn a_repository_that_names_more_than_is_remembered_is_left_alone() {
    let (_, store, _) = filled(false);
    // Two tags; config and five layers, two children and a subject.
    let known = 2 + 6 + 2 + 1;
    let done = collect(&store, Limits { known: known - 1, ..PLENTY });
    assert_eq!(done.held[0].obstacle, Obstacle::TooMany(known - 1));
    assert_eq!((done.removed, done.held.len(), done.more), (Tally::default(), 1, false));
    assert_eq!(collect(&store, Limits { known, ..PLENTY }).removed.links, 5);
}

/// The names of a large manifest take room too.
#[test]
fn a_manifest_weighs_what_it_names() {
    let (bucket, store) = in_memory(GRACE, true);
    let layers: Vec<Vec<u8>> = (0..63_u8).map(|number| vec![number]).collect();
    push(&store, APP, b"config");
    for layer in &layers {
        push(&store, APP, layer);
    }
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let large = image(b"config", &layers);
    store.put_manifest(&name(APP), &digest(&large), &large, &[]).unwrap();
    bucket.advance(GRACE * 2);
    for (dead, goes) in [(2, 0), (3, 1)] {
        assert_eq!(collect(&store, Limits { dead, ..PLENTY }).removed.manifests, goes);
    }
}
