//! A repair of the store in the middle of a collection: what it brings back stays.

use super::*;
use crate::fsck::{Fsck, Purpose};

fn repair(store: &Store) {
    let mut run = Fsck::new(Purpose::Repair);
    while let Some(step) = run.next_step(1 << 20) {
        run.take(store.fsck_step(&step).unwrap());
    }
}

/// An image whose layer lies in the trash, by its own name or by that of an alias link, with or without the link.
#[test]
fn what_it_brings_back_stays_at_every_step() {
    let alias = Digest::of(Algorithm::Sha512, b"layer");
    let own = image(b"config", &[b"layer"]);
    let aliased = String::from_utf8(own.clone()).unwrap().replace(&digest(b"layer").to_string(), &alias.to_string());
    for (bytes, named, has_link) in
        [(own.clone(), digest(b"layer"), true), (own, digest(b"layer"), false), (aliased.into_bytes(), alias, true)]
    {
        for steps in 0.. {
            let (bucket, store) = in_memory(GRACE, false);
            for blob in [b"config".as_slice(), b"layer", b"garbage"] {
                push(&store, APP, blob);
            }
            let layer_link = layout::layer_link(&name(APP), &named);
            if has_link {
                link(&store, &layer_link, &digest(b"layer"));
            } else {
                store.inner.backend.delete(&layer_link).unwrap();
            }
            store.put_manifest(&name(APP), &digest(&bytes), &bytes, &["1".parse().unwrap()]).unwrap();
            let data = layout::blob_data(&digest(b"layer"));
            store.inner.backend.retire(&data, store.inner.backend.now()).unwrap().unwrap();
            bucket.advance(GRACE * 2);

            let mut collection = store.collect(Removal::Real).unwrap();
            let goes_on = (0..steps).all(|_| collection.step().unwrap());
            let is_there = || store.open_blob(&name(APP), &named).unwrap().is_some();
            repair(&store);
            assert!(is_there(), "after {steps} steps it is not brought back");
            finish(collection);
            finish(store.collect(Removal::Real).unwrap());
            assert!(is_there(), "after {steps} steps it is lost again; {named}, with a link: {has_link}");
            if !goes_on {
                assert!(steps > 5);
                break;
            }
        }
    }
}
