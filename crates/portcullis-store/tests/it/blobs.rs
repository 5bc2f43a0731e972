//! A blob from push to delete.

use std::fs;

use portcullis_oci::{Algorithm, Digest};
use portcullis_store::StoreError;

use crate::{Fixture, OWNER, name, push, read, sha256, write};

#[test]
fn what_is_pushed_is_pulled() {
    let mut fixture = Fixture::new();
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let mut upload = fixture.store().start_upload(&name("team/app"), Algorithm::Sha256, OWNER).unwrap();
    for piece in content.chunks(123_457) {
        upload.append(piece).unwrap();
    }
    assert_eq!(upload.offset(), 3_000_000);
    let digest = sha256(&content);
    upload.finish(&digest).unwrap();
    fixture.reopen();

    let store = fixture.store();
    assert_eq!(store.stat_blob(&name("team/app"), &digest).unwrap(), Some(3_000_000));
    assert_eq!(read(store, "team/app", &digest), Some(content.clone()));
    assert_eq!(store.stat_blob(&name("other"), &digest).unwrap(), None, "a blob belongs to its repositories");
    assert!(store.open_blob(&name("other"), &digest).unwrap().is_none());

    let blob = store.open_blob(&name("team/app"), &digest).unwrap().unwrap();
    let mut middle = [0; 1000];
    assert_eq!(blob.read_at(&mut middle, 1_000_000).unwrap(), 1000);
    assert_eq!(middle, content[1_000_000..1_001_000]);
    assert_eq!(blob.read_at(&mut middle, 2_999_500).unwrap(), 500, "less only at the end");
    assert_eq!(blob.read_at(&mut middle, 3_000_000).unwrap(), 0);
    assert_eq!(blob.read_at(&mut middle, u64::MAX >> 1).unwrap(), 0);
}

#[test]
fn the_files_are_those_of_distribution() {
    let fixture = Fixture::new();
    let digest = push(fixture.store(), "team/app", b"a layer");
    assert_eq!(fs::read(fixture.blob_data(&digest)).unwrap(), b"a layer");
    assert_eq!(fs::read_to_string(fixture.layer_link("team/app", &digest)).unwrap(), digest.to_string());
    assert_eq!(fixture.files("docker").len(), 2);
    assert_eq!(fixture.files("portcullis"), ["portcullis/lock"]);
}

#[test]
fn the_empty_blob_is_a_blob() {
    let fixture = Fixture::new();
    let digest = push(fixture.store(), "app", b"");
    assert_eq!(fixture.store().stat_blob(&name("app"), &digest).unwrap(), Some(0));
    assert_eq!(read(fixture.store(), "app", &digest), Some(Vec::new()));
}

#[test]
fn sha512_is_an_equal() {
    let fixture = Fixture::new();
    let digest = Digest::of(Algorithm::Sha512, b"a layer");
    // Hashed on the way, or again at the end when the client had not said what it would finish with.
    for (repository, algorithm) in [("hashed", Algorithm::Sha512), ("again", Algorithm::Sha256)] {
        let mut upload = fixture.store().start_upload(&name(repository), algorithm, OWNER).unwrap();
        assert_eq!(upload.algorithm(), algorithm);
        upload.append(b"a layer").unwrap();
        upload.finish(&digest).unwrap();
        assert_eq!(read(fixture.store(), repository, &digest), Some(b"a layer".to_vec()));
        assert_eq!(read(fixture.store(), repository, &sha256(b"a layer")), None, "no alias is made");
    }
    assert!(fixture.blob_data(&digest).exists());
}

#[test]
fn another_digest_leaves_nothing() {
    let fixture = Fixture::new();
    for expected in [sha256(b"something else"), Digest::of(Algorithm::Sha512, b"something else")] {
        let mut upload = fixture.store().start_upload(&name("app"), Algorithm::Sha256, OWNER).unwrap();
        upload.append(b"a layer").unwrap();
        let id = upload.id();
        match upload.finish(&expected) {
            Err(StoreError::DigestMismatch { expected: named, actual }) => {
                assert_eq!((*named, *actual), (expected, Digest::of(expected.algorithm(), b"a layer")));
            }
            other => panic!("{other:?}"),
        }
        let status = fixture.store().upload_status(&name("app"), &id, OWNER);
        assert!(matches!(status, Err(StoreError::UploadUnknown { .. })), "{status:?}");
    }
    assert_eq!(fixture.files(""), ["portcullis/lock"]);
}

#[test]
fn a_blob_that_is_there_is_only_linked() {
    let fixture = Fixture::new();
    let digest = push(fixture.store(), "first", b"a layer");
    let written = fs::metadata(fixture.blob_data(&digest)).unwrap().modified().unwrap();
    push(fixture.store(), "second", b"a layer");
    assert_eq!(read(fixture.store(), "second", &digest), Some(b"a layer".to_vec()));
    assert_eq!(fs::metadata(fixture.blob_data(&digest)).unwrap().modified().unwrap(), written);
    assert_eq!(fixture.files("portcullis"), ["portcullis/lock"]);
}

#[test]
fn a_blob_of_another_size_is_replaced() {
    let fixture = Fixture::new();
    let digest = push(fixture.store(), "app", b"a layer");
    write(&fixture.blob_data(&digest), b"a la");
    push(fixture.store(), "app", b"a layer");
    assert_eq!(read(fixture.store(), "app", &digest), Some(b"a layer".to_vec()));
}

#[test]
fn a_mount_is_a_link() {
    let fixture = Fixture::new();
    let digest = push(fixture.store(), "from", b"a layer");
    assert!(fixture.store().mount_blob(&name("from"), &name("to/here"), &digest).unwrap());
    assert_eq!(read(fixture.store(), "to/here", &digest), Some(b"a layer".to_vec()));
    assert!(fixture.store().mount_blob(&name("from"), &name("from"), &digest).unwrap(), "also onto itself");

    assert!(!fixture.store().mount_blob(&name("nowhere"), &name("to"), &digest).unwrap());
    assert!(!fixture.store().mount_blob(&name("from"), &name("to"), &sha256(b"nothing")).unwrap());
    fs::remove_file(fixture.blob_data(&digest)).unwrap();
    assert!(!fixture.store().mount_blob(&name("from"), &name("to"), &digest).unwrap(), "a link to nothing");
    assert_eq!(fixture.files("docker/registry/v2/repositories/to/_layers"), [""; 0]);
}

#[test]
fn a_deleted_blob_stays_with_others_and_with_its_readers() {
    let fixture = Fixture::new();
    let digest = push(fixture.store(), "first", b"a layer");
    push(fixture.store(), "second", b"a layer");
    let open = fixture.store().open_blob(&name("first"), &digest).unwrap().unwrap();
    assert!(fixture.store().delete_blob(&name("first"), &digest).unwrap());
    assert!(!fixture.store().delete_blob(&name("first"), &digest).unwrap());
    assert_eq!(read(fixture.store(), "first", &digest), None);
    assert_eq!(read(fixture.store(), "second", &digest), Some(b"a layer".to_vec()));
    let mut bytes = [0; 7];
    assert_eq!(open.read_at(&mut bytes, 0).unwrap(), 7);
    assert_eq!(&bytes, b"a layer");
}
