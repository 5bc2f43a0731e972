//! Immutable tags: once set they stay, and so does what they need.

use std::path::Path;
use std::sync::Barrier;

use portcullis_oci::ManifestReference;
use portcullis_store::{ImmutableTags, Store, StoreError, StoreOptions};

use crate::{name, push, put_manifest, sha256, tag};

/// Tags that begin with `v` are immutable in `release`.
fn open(directory: &Path) -> Store {
    let immutable = ImmutableTags::new(|repository, tag| {
        (repository.as_str() == "release" && tag.as_str().starts_with('v')).then(|| "release:v*".to_owned())
    });
    Store::open(directory, &StoreOptions { reserve: 0, immutable, ..StoreOptions::default() }).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(done: Result<T, StoreError>, by: &str) {
    match done {
        Err(StoreError::TagImmutable { tag, rule, .. }) => {
            assert_eq!((tag.as_str(), rule.as_str()), (by, "release:v*"));
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn points_to(store: &Store, tag_name: &str) -> Option<Vec<u8>> {
    let reference = ManifestReference::Tag(tag(tag_name));
    store.manifest(&name("release"), &reference).unwrap().map(|manifest| manifest.bytes.to_vec())
}

#[test]
fn a_set_tag_neither_moves_nor_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let release = name("release");
    put_manifest(&store, "release", b"{}", &["v1", "latest"]);
    put_manifest(&store, "release", b"{}", &["v1"]);
    let other = sha256(b"{ }");
    for tags in [vec![tag("v1")], vec![tag("new"), tag("v1"), tag("v2")]] {
        refused(store.put_manifest(&release, &other, b"{ }", &tags), "v1");
    }
    assert_eq!((points_to(&store, "new"), points_to(&store, "v2")), (None, None), "all or nothing");
    assert!(!store.has_manifest(&release, &other).unwrap());
    refused(store.delete_tag(&release, &tag("v1")), "v1");
    refused(store.delete_manifest(&release, &sha256(b"{}")), "v1");
    assert_eq!(points_to(&store, "v1").as_deref(), Some(&b"{}"[..]));
    assert_eq!(points_to(&store, "latest").as_deref(), Some(&b"{}"[..]), "no other tag of it went");
    // Other tags of it, and the same tag elsewhere, are free.
    assert!(store.delete_tag(&release, &tag("latest")).unwrap());
    put_manifest(&store, "elsewhere", b"{}", &["v1"]);
    put_manifest(&store, "elsewhere", b"{ }", &["v1"]);
    assert!(store.delete_manifest(&name("elsewhere"), &other).unwrap());
    // What is not there can be asked to go.
    assert!(!store.delete_tag(&release, &tag("v2")).unwrap());
    assert!(!store.delete_manifest(&release, &other).unwrap());
}

#[test]
fn what_an_immutable_tag_needs_stays_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let release = name("release");
    let config = push(&store, "release", b"config");
    let descriptor = |digest| format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":6}}"#);
    let image = format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, descriptor(config));
    let image = put_manifest(&store, "release", image.as_bytes(), &[]);
    let index = |child| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(child));
    let inner = put_manifest(&store, "release", index(image).as_bytes(), &["inner"]);
    put_manifest(&store, "release", index(inner).as_bytes(), &["v1"]);
    for digest in [image, inner] {
        refused(store.delete_manifest(&release, &digest), "v1");
    }
    assert!(matches!(store.delete_blob(&release, &config), Err(StoreError::BlobInUse { .. })));
    assert!(points_to(&store, "inner").is_some());
}

/// The look and the write are one: of two that set the tag at once, one is told that it came too late.
#[test]
fn two_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for round in 0..50 {
        let tag_name = format!("v{round}");
        let barrier = Barrier::new(2);
        let put = |content: String| {
            barrier.wait();
            store.put_manifest(&name("release"), &sha256(content.as_bytes()), content.as_bytes(), &[tag(&tag_name)])
        };
        let contents = [format!("{{\"a\":{round}}}"), format!("{{\"b\":{round}}}")];
        let done = std::thread::scope(|scope| {
            let threads = contents.clone().map(|content| scope.spawn(|| put(content)));
            threads.map(|thread| thread.join().unwrap())
        });
        let winners: Vec<&String> =
            contents.iter().zip(&done).filter(|(_, done)| done.is_ok()).map(|(c, _)| c).collect();
        assert_eq!(winners.len(), 1, "{done:?}");
        assert_eq!(points_to(&store, &tag_name).as_deref(), Some(winners[0].as_bytes()));
    }
}
