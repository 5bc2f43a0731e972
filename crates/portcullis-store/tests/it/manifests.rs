//! Manifests and their tags.

use std::fs;

use portcullis_oci::{Algorithm, Digest, ManifestReference};
use portcullis_store::{Store, StoreError, StoredManifest};

use crate::{Fixture, name, put_manifest, sha256, tag};

fn by_tag(store: &Store, repository: &str, text: &str) -> Option<StoredManifest> {
    store.manifest(&name(repository), &ManifestReference::Tag(tag(text))).unwrap()
}

fn by_digest(store: &Store, repository: &str, digest: &Digest) -> Option<StoredManifest> {
    store.manifest(&name(repository), &ManifestReference::Digest(*digest)).unwrap()
}

#[test]
fn a_manifest_comes_back_byte_for_byte() {
    let mut fixture = Fixture::new();
    let content = b"{ \"schemaVersion\" : 2 }\n";
    let digest = put_manifest(fixture.store(), "team/app", content, &["1.0", "latest"]);
    fixture.reopen();
    let store = fixture.store();
    for found in
        [by_tag(store, "team/app", "1.0"), by_tag(store, "team/app", "latest"), by_digest(store, "team/app", &digest)]
    {
        assert_eq!(found, Some(StoredManifest { digest, bytes: content.as_slice().into() }));
    }
    assert!(store.has_manifest(&name("team/app"), &digest).unwrap());
    assert!(!store.has_manifest(&name("team"), &digest).unwrap());
    assert!(by_tag(store, "team/app", "2.0").is_none());
    assert!(by_digest(store, "other", &digest).is_none());
    assert!(!store.has_blob(&name("team/app"), &digest).unwrap(), "a manifest is no layer");
}

#[test]
fn the_files_are_those_of_distribution() {
    let fixture = Fixture::new();
    let digest = put_manifest(fixture.store(), "team/app", b"{}", &["1.0"]);
    assert_eq!(fs::read(fixture.blob_data(&digest)).unwrap(), b"{}");
    for link in [fixture.revision_link("team/app", &digest), fixture.tag_link("team/app", "1.0")] {
        assert_eq!(fs::read_to_string(link).unwrap(), digest.to_string());
    }
    assert_eq!(fixture.files("docker").len(), 3, "no index entries");
}

#[test]
fn a_sha512_manifest_is_served_under_its_digest() {
    let fixture = Fixture::new();
    let digest = Digest::of(Algorithm::Sha512, b"{}");
    fixture.store().put_manifest(&name("app"), &digest, b"{}", &[tag("1")]).unwrap();
    assert_eq!(by_tag(fixture.store(), "app", "1").unwrap().digest, digest);
    assert!(by_digest(fixture.store(), "app", &sha256(b"{}")).is_none());
}

#[test]
fn bytes_that_are_not_those_of_the_digest_are_refused() {
    let fixture = Fixture::new();
    let done = fixture.store().put_manifest(&name("app"), &sha256(b"{}"), b"{ }", &[tag("1")]);
    assert!(matches!(done, Err(StoreError::DigestMismatch { .. })), "{done:?}");
    assert_eq!(fixture.files(""), ["portcullis/lock"]);
}

#[test]
fn a_tag_moves() {
    let fixture = Fixture::new();
    let first = put_manifest(fixture.store(), "app", b"{\"first\":1}", &["latest"]);
    let second = put_manifest(fixture.store(), "app", b"{\"second\":2}", &["latest"]);
    assert_eq!(by_tag(fixture.store(), "app", "latest").unwrap().digest, second);
    assert!(by_digest(fixture.store(), "app", &first).is_some(), "the untagged one stays");
}

#[test]
fn deleting_a_tag_leaves_the_manifest() {
    let fixture = Fixture::new();
    let digest = put_manifest(fixture.store(), "app", b"{}", &["1", "2"]);
    // Distribution keeps a history beside the tag; it goes too.
    crate::write(
        &fixture
            .path(&format!("docker/registry/v2/repositories/app/_manifests/tags/1/index/sha256/{}/link", digest.hex())),
        digest.to_string(),
    );
    assert!(fixture.store().delete_tag(&name("app"), &tag("1")).unwrap());
    assert!(!fixture.store().delete_tag(&name("app"), &tag("1")).unwrap());
    assert!(by_tag(fixture.store(), "app", "1").is_none());
    assert!(!fixture.path("docker/registry/v2/repositories/app/_manifests/tags/1").exists());
    assert_eq!(by_tag(fixture.store(), "app", "2").unwrap().digest, digest);
    assert!(by_digest(fixture.store(), "app", &digest).is_some());
    assert_eq!(fixture.files("portcullis"), ["portcullis/lock"]);
}

#[test]
fn deleting_a_manifest_takes_its_tags_with_it() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let digest = put_manifest(store, "app", b"{}", &["1", "2"]);
    let other = put_manifest(store, "app", b"{ }", &["3"]);
    put_manifest(store, "copy", b"{}", &["1"]);
    assert!(store.delete_manifest(&name("app"), &digest).unwrap());
    assert!(!store.delete_manifest(&name("app"), &digest).unwrap());
    assert!(by_digest(store, "app", &digest).is_none());
    assert!(!store.has_manifest(&name("app"), &digest).unwrap());
    assert_eq!(store.tags(&name("app"), None, 10).unwrap(), Some(vec![tag("3")]));
    assert_eq!(by_tag(store, "app", "3").unwrap().digest, other);
    assert_eq!(by_tag(store, "copy", "1").unwrap().digest, digest, "other repositories keep theirs");
    assert_eq!(store.health().damaged, 0);
}

/// Without `tags/` Distribution says that it does not know the repository.
#[test]
fn the_directory_of_the_tags_outlives_the_last_one() {
    let fixture = Fixture::new();
    let digest = put_manifest(fixture.store(), "app", b"{}", &["1"]);
    assert!(fixture.store().delete_tag(&name("app"), &tag("1")).unwrap());
    let tags = fixture.path("docker/registry/v2/repositories/app/_manifests/tags");
    assert_eq!(fs::read_dir(&tags).unwrap().count(), 0);
    put_manifest(fixture.store(), "app", b"{}", &["1"]);
    assert!(fixture.store().delete_manifest(&name("app"), &digest).unwrap());
    assert_eq!(fs::read_dir(&tags).unwrap().count(), 0);
    assert!(!fixture.revision_link("app", &digest).parent().unwrap().exists(), "that of a link goes with it");
}
