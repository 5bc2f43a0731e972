//! What looks at manifests without a client's asking keeps none of them alive.

use portcullis_oci::Tag;

use super::untagged::with_subject;
use super::*;
use crate::fsck::{Fsck, Purpose};
use crate::immutable::ImmutableTags;

/// Does something every half of the grace, and looks whether a dead manifest goes when its time is over.
fn check(what: &str, deed: impl Fn(&Store)) {
    let bucket = MemoryBackend::default();
    bucket.advance(Duration::from_hours(24 * 365));
    let immutable = ImmutableTags::new(|_, tag| (tag.as_str() == "fixed").then(|| "fixed".to_owned()));
    let options = StoreOptions { reserve: 0, grace: GRACE, untagged: true, immutable, ..StoreOptions::default() };
    // What is remembered of an earlier question is another store's.
    let open = || Store::on_backend(Box::new(bucket.clone()), &options).unwrap();
    let store = open();
    push(&store, APP, b"config");
    let dead = dead();
    store.put_manifest(&name(APP), &digest(&dead), &dead, &[]).unwrap();
    let fixed = image(b"config", &[]);
    put(&store, APP, &fixed, "fixed").unwrap();
    drop(store);
    for _ in 0..3 {
        bucket.advance(GRACE / 2);
        deed(&open());
    }
    finish(open().collect(Removal::Real).unwrap());
    let link = layout::revision_link(&name(APP), &digest(&dead));
    assert!(open().inner.backend.stat(&link).unwrap().is_none(), "kept alive by {what}");
}

/// Refers to what is not there, so that nothing keeps it.
fn dead() -> Vec<u8> {
    with_subject(&image(b"config", &[]), b"not here")
}

#[test]
fn no_question_of_ours_keeps_an_untagged_manifest() {
    check("nothing", |_| {});
    check("a collection", |store| {
        finish(store.collect(Removal::Real).unwrap());
    });
    check("a dry run", |store| {
        finish(store.collect(Removal::DryRun).unwrap());
    });
    check("the referrers", |store| {
        store.referrers(&name(APP), &ReferrersQuery::new(digest(b"not here"))).unwrap();
    });
    check("a blob that stays", |store| {
        assert!(matches!(store.delete_blob(&name(APP), &digest(b"config")), Err(StoreError::BlobInUse { .. })));
    });
    check("an immutable tag", |store| {
        let gone = digest(b"no manifest");
        assert!(!store.delete_manifest(&name(APP), &gone).unwrap());
    });
    for purpose in [Purpose::Check, Purpose::Repair, Purpose::ForDistribution] {
        check("a check of the store", |store| {
            let mut run = Fsck::new(purpose);
            while let Some(step) = run.next_step(1 << 20) {
                run.take(store.fsck_step(&step).unwrap());
            }
        });
    }
    check("reading by tag", |store| {
        let tag: Tag = "fixed".parse().unwrap();
        assert!(store.manifest(&name(APP), &ManifestReference::Tag(tag)).unwrap().is_some());
    });
}

/// An index that lists it may follow.
#[test]
fn a_client_that_asks_keeps_it() {
    let keeps = std::panic::catch_unwind(|| {
        check("a client", |store| {
            let reference = ManifestReference::Digest(digest(&dead()));
            store.manifest(&name(APP), &reference).unwrap();
        });
    });
    assert!(keeps.is_err());
}
