//! Real volumes are damaged: what cannot be right is absent and counted, never an error.

use std::fs;

use portcullis_oci::{Algorithm, Digest, ManifestReference};

use crate::{Fixture, name, push, put_manifest, read, sha256, tag, write};

const GARBLED: &[&[u8]] = &[
    b"",
    b"sha256:",
    b"\0\0\0\0\0\0\0\0",
    b"md5:d41d8cd98f00b204e9800998ecf8427e",
    b"sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
    b"../../../../../../etc/passwd",
    &[0xff; 300],
];

#[test]
fn a_garbled_layer_link_is_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let digest = push(store, "app", b"a layer");
    for (at, garbled) in GARBLED.iter().enumerate() {
        fs::write(fixture.layer_link("app", &digest), garbled).unwrap();
        assert_eq!(read(store, "app", &digest), None, "{garbled:?}");
        assert_eq!(store.stat_blob(&name("app"), &digest).unwrap(), None);
        assert!(!store.mount_blob(&name("app"), &name("to"), &digest).unwrap());
        assert_eq!(store.health().damaged, 3 * (at as u64 + 1));
    }
    push(store, "app", b"a layer");
    assert_eq!(read(store, "app", &digest), Some(b"a layer".to_vec()), "a push repairs it");
}

#[test]
fn a_garbled_tag_or_revision_is_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let digest = put_manifest(store, "app", b"{}", &["1"]);
    for garbled in GARBLED {
        fs::write(fixture.tag_link("app", "1"), garbled).unwrap();
        assert!(store.manifest(&name("app"), &ManifestReference::Tag(tag("1"))).unwrap().is_none(), "{garbled:?}");
    }
    for garbled in GARBLED {
        fs::write(fixture.revision_link("app", &digest), garbled).unwrap();
        assert!(store.manifest(&name("app"), &ManifestReference::Digest(digest)).unwrap().is_none(), "{garbled:?}");
        assert!(!store.has_manifest(&name("app"), &digest).unwrap());
    }
    assert_eq!(store.health().damaged, 3 * GARBLED.len() as u64);
    put_manifest(store, "app", b"{}", &["1"]);
    assert!(store.manifest(&name("app"), &ManifestReference::Tag(tag("1"))).unwrap().is_some());
}

#[test]
fn links_to_nothing_are_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    let manifest = put_manifest(store, "app", b"{}", &["1"]);
    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    fs::remove_file(fixture.blob_data(&manifest)).unwrap();
    assert_eq!(read(store, "app", &layer), None);
    assert_eq!(store.stat_blob(&name("app"), &layer).unwrap(), None);
    assert!(store.manifest(&name("app"), &ManifestReference::Tag(tag("1"))).unwrap().is_none());
    assert!(!store.has_manifest(&name("app"), &manifest).unwrap());

    let dangling = sha256(b"never pushed");
    fs::write(fixture.tag_link("app", "1"), dangling.to_string()).unwrap();
    assert!(store.manifest(&name("app"), &ManifestReference::Tag(tag("1"))).unwrap().is_none());
    assert_eq!(store.health().damaged, 5);
}

/// What a server that does not sync leaves after a power cut: the name without the bytes.
#[test]
fn data_that_was_never_filled_is_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    let empty = push(store, "app", b"");
    let manifest = put_manifest(store, "app", b"{}", &["1"]);
    fs::write(fixture.blob_data(&layer), b"").unwrap();
    fs::write(fixture.blob_data(&manifest), b"").unwrap();
    assert_eq!(read(store, "app", &layer), None);
    assert_eq!(store.stat_blob(&name("app"), &layer).unwrap(), None);
    assert!(!store.mount_blob(&name("app"), &name("to"), &layer).unwrap());
    assert!(!store.has_manifest(&name("app"), &manifest).unwrap());
    assert_eq!(store.health().damaged, 4);
    assert_eq!(read(store, "app", &empty), Some(Vec::new()), "the empty blob is whole");
    assert_eq!(store.health().damaged, 4);
    push(store, "app", b"a layer");
    assert_eq!(read(store, "app", &layer), Some(b"a layer".to_vec()), "a push repairs it");
}

#[test]
fn a_manifest_that_does_not_have_its_digest_is_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let digest = put_manifest(store, "app", b"{\"whole\":1}", &["1"]);
    for damaged in [b"".as_slice(), b"{\"whole\"", b"{\"whole\":2}"] {
        fs::write(fixture.blob_data(&digest), damaged).unwrap();
        assert!(store.manifest(&name("app"), &ManifestReference::Digest(digest)).unwrap().is_none());
    }
    assert_eq!(store.health().damaged, 3);
    put_manifest(store, "app", b"{\"whole\":1}", &[]);
    assert!(store.manifest(&name("app"), &ManifestReference::Tag(tag("1"))).unwrap().is_some(), "a push repairs it");
}

#[test]
fn files_where_directories_should_be_and_the_other_way_round() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    fs::remove_file(fixture.layer_link("app", &layer)).unwrap();
    fs::create_dir(fixture.layer_link("app", &layer)).unwrap();
    assert_eq!(read(store, "app", &layer), None);
    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    fs::create_dir(fixture.blob_data(&layer)).unwrap();
    assert_eq!(store.stat_blob(&name("app"), &layer).unwrap(), None);

    write(&fixture.path("docker/registry/v2/repositories/flat/_manifests/tags"), b"a file");
    write(&fixture.path("docker/registry/v2/repositories/file"), b"a file");
    assert_eq!(store.tags(&name("flat"), None, 10).unwrap(), Some(Vec::new()));
    assert_eq!(store.tags(&name("file"), None, 10).unwrap(), None);
    assert!(store.manifest(&name("flat"), &ManifestReference::Tag(tag("1"))).unwrap().is_none());
    assert!(!store.delete_tag(&name("flat"), &tag("1")).unwrap());
    assert!(!store.delete_manifest(&name("file"), &layer).unwrap());
}

/// Distribution's alias links lead to another algorithm; within one, other content under this name is damage.
#[test]
fn a_link_to_other_content_is_absent() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, other) = (push(store, "app", b"a layer"), push(store, "app", b"another"));
    fs::write(fixture.layer_link("app", &layer), other.to_string()).unwrap();
    assert_eq!(read(store, "app", &layer), None);
    assert_eq!(store.stat_blob(&name("app"), &layer).unwrap(), None);
    let manifest = put_manifest(store, "app", b"{}", &["1"]);
    let other = put_manifest(store, "app", b"{ }", &[]);
    fs::write(fixture.revision_link("app", &manifest), other.to_string()).unwrap();
    assert!(!store.has_manifest(&name("app"), &manifest).unwrap());
    for reference in [ManifestReference::Digest(manifest), ManifestReference::Tag(tag("1"))] {
        assert!(store.manifest(&name("app"), &reference).unwrap().is_none(), "{reference}");
    }
    assert!(store.health().damaged >= 5);
    push(store, "app", b"a layer");
    put_manifest(store, "app", b"{}", &[]);
    assert_eq!(read(store, "app", &layer), Some(b"a layer".to_vec()), "a push repairs it");
    assert!(store.has_manifest(&name("app"), &manifest).unwrap());
}

#[test]
fn alias_links_of_distribution_are_read_and_not_spread() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let canonical = push(store, "app", b"a layer");
    let alias = Digest::of(Algorithm::Sha512, b"a layer");
    write(&fixture.layer_link("app", &alias), canonical.to_string());
    assert_eq!(read(store, "app", &alias), Some(b"a layer".to_vec()));
    assert_eq!(store.stat_blob(&name("app"), &alias).unwrap(), Some(7));
    assert!(!store.mount_blob(&name("app"), &name("to"), &alias).unwrap());

    // Pushed again by a client that has not asked: from then on it is a blob of its own.
    let mut upload = store.start_upload(&name("app"), Algorithm::Sha512, crate::OWNER).unwrap();
    upload.append(b"a layer").unwrap();
    upload.finish(&alias).unwrap();
    assert_eq!(read(store, "app", &alias), Some(b"a layer".to_vec()));
    assert!(store.delete_blob(&name("app"), &canonical).unwrap());
    assert_eq!(read(store, "app", &alias), Some(b"a layer".to_vec()));
    assert!(store.mount_blob(&name("app"), &name("to"), &alias).unwrap());

    let canonical = put_manifest(store, "app", b"{}", &["1"]);
    let alias = Digest::of(Algorithm::Sha512, b"{}");
    write(&fixture.revision_link("app", &alias), canonical.to_string());
    let found = store.manifest(&name("app"), &ManifestReference::Digest(alias)).unwrap().unwrap();
    assert_eq!((found.digest, &*found.bytes), (alias, b"{}".as_slice()));
    assert!(store.has_manifest(&name("app"), &alias).unwrap());
    assert!(store.delete_manifest(&name("app"), &alias).unwrap());
    assert!(store.manifest(&name("app"), &ManifestReference::Tag(tag("1"))).unwrap().is_some(), "only the alias went");
    assert_eq!(store.health().damaged, 0);
}
