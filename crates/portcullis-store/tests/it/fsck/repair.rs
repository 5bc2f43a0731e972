//! Repairs: corrupt bytes out of the way, what is in the trash back, links that a manifest needs.

use std::fs;
use std::path::PathBuf;

use portcullis_oci::{Algorithm, Digest};
use portcullis_store::fsck::{Damage, Purpose, Repaired};

use super::{fsck, image, only, push_image, put};
use crate::{Fixture, name, push, read, sha256, write};

/// Where the collector puts what it takes.
fn trash(fixture: &Fixture, digest: &Digest) -> PathBuf {
    fixture.path(&format!("portcullis/trash/1700000000/{}-{}", digest.algorithm(), digest.hex()))
}

#[test]
fn corrupt_bytes_are_moved_aside_and_a_push_repairs_the_rest() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, _) = push_image(store, "app", b"a layer", &["1"]);
    fs::write(fixture.blob_data(&layer), b"a lay-r").unwrap();
    push(store, "app", b"a layer");
    assert_eq!(read(store, "app", &layer).unwrap(), b"a lay-r", "of the same size: only a hash tells");

    let run = fsck(store, Purpose::Repair);
    let Some(Repaired::MovedAside { to }) = &only(&run).repaired else { panic!("{run:?}") };
    assert_eq!(fs::read(fixture.path(to)).unwrap(), b"a lay-r");
    assert!(!run.is_clean());
    assert_eq!(read(store, "app", &layer), None);
    assert!(!fsck(store, Purpose::Check).is_clean(), "its links lead to nothing now");
    push(store, "app", b"a layer");
    assert_eq!(read(store, "app", &layer).unwrap(), b"a layer");
    assert!(fsck(store, Purpose::Check).is_clean());
}

#[test]
fn a_check_alone_changes_nothing() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, _) = push_image(store, "app", b"a layer", &["1"]);
    fs::write(fixture.blob_data(&layer), b"a lay-r").unwrap();
    fs::remove_file(fixture.layer_link("app", &sha256(b"{}"))).unwrap();
    let before = fixture.files("");
    assert_eq!(fsck(store, Purpose::Check), fsck(store, Purpose::Check));
    assert_eq!(fixture.files(""), before);
}

#[test]
fn what_lies_in_the_trash_comes_back() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, manifest) = push_image(store, "app", b"a layer", &["1"]);
    let (lost, _) = push_image(store, "app", b"a lost layer", &["2"]);
    write(&trash(&fixture, &layer), b"a layer");
    write(&trash(&fixture, &lost), b"a lost layer");
    fs::write(fixture.blob_data(&layer), b"a lay-r").unwrap();
    fs::remove_file(fixture.blob_data(&lost)).unwrap();
    fs::remove_file(fixture.layer_link("app", &lost)).unwrap();

    let run = fsck(store, Purpose::Repair);
    assert!(run.findings().iter().all(|finding| finding.repaired == Some(Repaired::BroughtBack)), "{run:#?}");
    assert_eq!(read(store, "app", &layer).unwrap(), b"a layer");
    assert_eq!(read(store, "app", &lost).unwrap(), b"a lost layer", "with its link, since a manifest needs it");
    assert!(fsck(store, Purpose::Check).is_clean());
    assert!(store.has_manifest(&name("app"), &manifest).unwrap());
}

/// An alias link of Distribution's says under which digest the data was.
#[test]
fn the_data_of_an_alias_comes_back() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let alias = Digest::of(Algorithm::Sha512, b"a layer");
    let layer = push(store, "app", b"a layer");
    push(store, "app", b"{}");
    write(&fixture.layer_link("app", &alias), layer.to_string());
    put(store, "app", &image(&[alias]), &["1"]);
    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    write(&trash(&fixture, &layer), b"a layer");
    let run = fsck(store, Purpose::Repair);
    assert_eq!(only(&run).repaired, Some(Repaired::BroughtBack), "{run:#?}");
    assert_eq!(read(store, "app", &alias).unwrap(), b"a layer");

    // The data may also lie under the name itself, with a link to what is no longer there.
    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    write(&fixture.blob_data(&alias), b"a layer");
    let run = fsck(store, Purpose::Repair);
    assert_eq!(only(&run).repaired, Some(Repaired::Linked), "{run:#?}");
    assert_eq!(read(store, "app", &alias).unwrap(), b"a layer");
}

#[test]
fn what_comes_back_is_hashed() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, _) = push_image(store, "app", b"a layer", &["1"]);
    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    write(&trash(&fixture, &layer), b"a lay-r");
    let run = fsck(store, Purpose::Repair);
    let last = run.findings().last().unwrap();
    let expected = Damage::BlobCorrupt { digest: layer, actual: sha256(b"a lay-r"), size: 7 };
    assert_eq!((&last.fact, matches!(last.repaired, Some(Repaired::MovedAside { .. }))), (&expected.into(), true));
    assert_eq!(read(store, "app", &layer), None, "it is absent again, not wrong");
}

/// A repository never gets a blob that it did not have: a link is written for a manifest that names it, for nothing else.
#[test]
fn a_link_comes_back_only_for_a_manifest_that_needs_it() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, _) = push_image(store, "app", b"a layer", &["1"]);
    let free = push(store, "app", b"a layer of no manifest");
    push(store, "other", b"{}");
    for link in [fixture.layer_link("app", &layer), fixture.layer_link("app", &free)] {
        fs::write(link, "").unwrap();
    }
    let run = fsck(store, Purpose::Repair);
    let linked: Vec<_> = run.findings().iter().filter(|finding| finding.repaired.is_some()).collect();
    let [linked] = linked[..] else { panic!("{run:#?}") };
    assert_eq!(linked.repaired, Some(Repaired::Linked));
    assert_eq!(read(store, "app", &layer).unwrap(), b"a layer");
    assert_eq!(read(store, "app", &free), None);
    assert_eq!(read(store, "other", &layer), None);

    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    push(store, "third", b"{}");
    put(store, "third", &image(&[layer]), &["1"]);
    fsck(store, Purpose::Repair);
    assert_eq!(read(store, "third", &layer), None, "there is no data to link to");
}
