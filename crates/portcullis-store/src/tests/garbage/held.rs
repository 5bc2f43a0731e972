//! What a collection leaves alone because something cannot be read or understood.

use portcullis_oci::{Algorithm, Digest};

use super::{APP, Deed, GRACE, digest, finish, has, image, in_memory, link, name, on_disk, push, put, reopen};
use crate::{Obstacle, Removal, Tally, layout};

#[test]
fn a_manifest_that_cannot_be_understood_stops_every_removal_in_its_repository() {
    let artifact = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#;
    let (bucket, store) = in_memory(GRACE, false);
    for repository in [APP, "other"] {
        push(&store, repository, repository.as_bytes());
    }
    push(&store, APP, b"shared");
    push(&store, "other", b"shared");
    store.put_manifest(&name(APP), &digest(artifact), artifact, &[]).unwrap();
    bucket.advance(GRACE);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!(done.removed, Tally { links: 2, blobs: 1, bytes: 5, manifests: 0 });
    assert_eq!((done.repositories_held, done.held.len()), (1, 1));
    assert_eq!(done.held[0].repository, name(APP));
    assert!(matches!(&done.held[0].obstacle, Obstacle::Manifest(digest, _) if *digest == super::digest(artifact)));
    assert!(has(&store, APP, b"shared") && has(&store, APP, APP.as_bytes()));
    assert!(!has(&store, "other", b"shared"));

    // What stops it can be deleted, as the report says.
    assert!(store.delete_manifest(&name(APP), &digest(artifact)).unwrap());
    bucket.advance(GRACE);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!((done.removed.links, done.removed.blobs, done.held.len()), (2, 3, 0));
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
}

#[test]
fn a_damaged_manifest_stops_them_too() {
    let damages: [Deed; 4] = [
        |store, digest| assert!(store.inner.backend.delete(&layout::blob_data(digest)).unwrap()),
        |store, digest| store.inner.backend.put(&layout::blob_data(digest), b"{\"schema").unwrap(),
        |store, digest| store.inner.backend.put(&layout::revision_link(&name(APP), digest), b"").unwrap(),
        |store, digest| store.inner.backend.put(&layout::revision_link(&name(APP), digest), b"sha256:").unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let (bucket, store) = in_memory(GRACE, false);
        push(&store, APP, b"config");
        push(&store, APP, b"unnamed");
        let bytes = image(b"config", &[]);
        put(&store, APP, &bytes, "1").unwrap();
        damage(&store, &digest(&bytes));
        bucket.advance(GRACE);
        let done = finish(store.collect(Removal::Real).unwrap());
        assert_eq!((done.removed, done.held.len()), (Tally::default(), 1), "damage {number}");
        assert!(has(&store, APP, b"config") && has(&store, APP, b"unnamed"), "damage {number}");
    }
}

#[test]
fn a_tag_that_cannot_be_read_keeps_untagged_manifests() {
    let (bucket, store) = in_memory(GRACE, true);
    push(&store, APP, b"config");
    put(&store, APP, &image(b"config", &[]), "1").unwrap();
    store.inner.backend.put(&layout::tag_link(&name(APP), &"1".parse().unwrap()), b"").unwrap();
    bucket.advance(GRACE);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!(done.removed, Tally::default());
    assert!(matches!(&done.held[0].obstacle, Obstacle::Tag(tag) if tag.as_str() == "1"));
}

/// A repository that somebody moved aside, under a name that no repository can have, has links that nobody can see.
#[test]
fn no_blob_goes_while_a_directory_of_the_repositories_is_none() {
    let (disk, store) = on_disk(GRACE);
    push(&store, APP, b"layer");
    push(&store, "other", b"unnamed");
    drop(store);
    let repositories = layout::repositories_below("");
    let [from, to] = [APP, "team/App.old"].map(|name| format!("{}/{name}", repositories.as_str()));
    disk.move_directory(&from, &to);
    disk.advance(GRACE);
    let store = reopen(&disk, GRACE);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!(done.strangers, ["team/App.old"]);
    assert_eq!(done.removed, Tally { links: 1, ..Tally::default() });
    disk.move_directory(&to, &from);
    assert!(has(&store, APP, b"layer"));
}

/// Distribution also takes sha384.
#[test]
fn links_by_an_unknown_algorithm_keep_what_they_resolve_to() {
    let (bucket, store) = in_memory(GRACE, false);
    push(&store, APP, b"layer");
    let name384 = format!("sha384:{}", "a".repeat(96));
    link(&store, &layout::layer_link_of(&name(APP), &name384).unwrap(), &digest(b"layer"));
    bucket.advance(GRACE);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!((done.removed, done.held.len()), (Tally { links: 1, ..Tally::default() }, 0));
    let [_, revisions] = layout::algorithms(&name(APP));
    bucket.put_raw(&format!("{}/{}/link", revisions.as_str(), name384.replace(':', "/")), name384.as_bytes());
    push(&store, APP, b"another");
    bucket.advance(GRACE);
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!((done.removed, &done.held[0].obstacle), (Tally::default(), &Obstacle::Algorithm("sha384".to_owned())));
}

/// Distribution stores what is pushed with a sha512 under its sha256, and links the sha512 to that.
#[test]
fn an_alias_link_keeps_the_blob_it_resolves_to() {
    let alias = Digest::of(Algorithm::Sha512, b"layer");
    let named = format!(r#"{{"mediaType":"application/x","digest":"{alias}","size":5}}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{named},"layers":[]}}"#).into_bytes();
    let fill = || {
        let (bucket, store) = in_memory(GRACE, false);
        push(&store, APP, b"layer");
        link(&store, &layout::layer_link(&name(APP), &alias), &digest(b"layer"));
        put(&store, APP, &manifest, "1").unwrap();
        bucket.advance(GRACE);
        (bucket, store)
    };
    let (_, store) = fill();
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!(done.removed, Tally { links: 1, ..Tally::default() }, "no manifest names the sha256");
    assert_eq!(store.stat_blob(&name(APP), &alias).unwrap(), Some(5));

    // Which blob a damaged one stood for nobody knows.
    let (_, store) = fill();
    store.inner.backend.put(&layout::layer_link(&name(APP), &alias), b"").unwrap();
    let done = finish(store.collect(Removal::Real).unwrap());
    assert_eq!(done.removed, Tally::default());
    assert_eq!(done.held[0].obstacle, Obstacle::Link(alias));
}
