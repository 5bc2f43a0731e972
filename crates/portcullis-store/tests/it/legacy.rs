//! What early releases of Distribution have left: 2.1.0 linked its schema 1 manifests among the layers.

use std::fs;

use portcullis_oci::{Digest, ManifestReference};
use portcullis_store::StoreError;

use crate::{Fixture, name, push, put_manifest, read, sha256, tag, write};

/// A manifest of `layer` in `app`, tagged `1`, as 2.1.0 wrote it.
fn write_misplaced(fixture: &Fixture, layer: &Digest) -> (Digest, Vec<u8>) {
    let content = format!(r#"{{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[{{"blobSum":"{layer}"}}]}}"#);
    let digest = sha256(content.as_bytes());
    write(&fixture.blob_data(&digest), &content);
    write(&fixture.layer_link("app", &digest), digest.to_string());
    write(&fixture.tag_link("app", "1"), digest.to_string());
    (digest, content.into_bytes())
}

#[test]
fn a_manifest_linked_among_the_layers_is_served() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    let (digest, content) = write_misplaced(&fixture, &layer);
    for reference in [ManifestReference::Tag(tag("1")), ManifestReference::Digest(digest)] {
        let found = store.manifest(&name("app"), &reference).unwrap().unwrap();
        assert_eq!((found.digest, &*found.bytes), (digest, content.as_slice()));
    }
    assert!(store.has_manifest(&name("app"), &digest).unwrap());
    assert_eq!(store.health().damaged, 0);
    let users = store.delete_blob(&name("app"), &layer);
    assert!(matches!(&users, Err(StoreError::BlobInUse { manifest, .. }) if **manifest == digest), "{users:?}");
}

#[test]
fn it_is_deleted_wherever_it_is_linked() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    for also_a_revision in [false, true] {
        let (digest, _) = write_misplaced(&fixture, &layer);
        if also_a_revision {
            write(&fixture.revision_link("app", &digest), digest.to_string());
        }
        assert!(store.delete_manifest(&name("app"), &digest).unwrap());
        assert!(!store.delete_manifest(&name("app"), &digest).unwrap());
        assert!(store.manifest(&name("app"), &ManifestReference::Digest(digest)).unwrap().is_none());
        assert_eq!(store.tags(&name("app"), None, 10).unwrap(), Some(Vec::new()));
    }
    assert!(store.delete_blob(&name("app"), &layer).unwrap(), "nothing uses it any more");
}

/// As a blob it could be deleted past its tags, and past the rules for those.
#[test]
fn it_is_not_deleted_as_a_blob() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    let (digest, content) = write_misplaced(&fixture, &layer);
    let refused = |what: &str| {
        let refused = store.delete_blob(&name("app"), &digest);
        assert!(
            matches!(&refused, Err(StoreError::BlobInUse { manifest, .. }) if **manifest == digest),
            "{what}: {refused:?}"
        );
    };
    refused("tagged");
    fs::write(fixture.blob_data(&digest), b"damaged").unwrap();
    refused("tagged and damaged");
    fs::write(fixture.blob_data(&digest), content).unwrap();
    assert!(store.delete_tag(&name("app"), &tag("1")).unwrap());
    refused("untagged");
    // Where it is also linked as a manifest, the other link is a layer's.
    write(&fixture.revision_link("app", &digest), digest.to_string());
    assert!(store.delete_blob(&name("app"), &digest).unwrap());
    assert!(store.has_manifest(&name("app"), &digest).unwrap());
}

#[test]
fn nothing_else_among_the_layers_is_a_manifest() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let large = format!(r#"{{"schemaVersion":1,"fsLayers":[]{}}}"#, " ".repeat(4 << 20));
    for content in [b"a layer".as_slice(), b"", b"{}", index, large.as_bytes()] {
        let digest = push(store, "app", content);
        assert!(store.manifest(&name("app"), &ManifestReference::Digest(digest)).unwrap().is_none());
        assert!(!store.has_manifest(&name("app"), &digest).unwrap());
        assert!(!store.delete_manifest(&name("app"), &digest).unwrap());
        assert_eq!(read(store, "app", &digest).as_deref(), Some(content));
    }
    assert_eq!(store.health().damaged, 0);
    // Deleted as a manifest, it stays where it is the layer of an artifact.
    let wrapped = put_manifest(store, "app", index, &[]);
    assert!(store.delete_manifest(&name("app"), &wrapped).unwrap());
    assert_eq!(read(store, "app", &wrapped).as_deref(), Some(index.as_slice()));
}

#[test]
fn a_damaged_one_is_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    let (digest, content) = write_misplaced(&fixture, &layer);
    let reference = ManifestReference::Tag(tag("1"));
    fs::write(fixture.blob_data(&digest), &content[..20]).unwrap();
    assert!(store.manifest(&name("app"), &reference).unwrap().is_none());
    fs::remove_file(fixture.blob_data(&digest)).unwrap();
    assert!(store.manifest(&name("app"), &reference).unwrap().is_none());
    assert!(store.health().damaged >= 2);
    assert!(store.delete_blob(&name("app"), &layer).unwrap(), "what is not there uses nothing");
}
