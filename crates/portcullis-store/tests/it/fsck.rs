//! A check of the store finds exactly what is wrong, says who is concerned, and loses nothing in repairing it.

mod distribution;
mod repair;

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_oci::{Algorithm, Digest};
use portcullis_store::Store;
use portcullis_store::fsck::{By, Damage, Fact, Finding, Fsck, Missing, Purpose, User};
use serde_json::{Value, json};

use crate::{Fixture, name, push, put_manifest, sha256, tag, write};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The whole run, in steps that read few bytes.
fn fsck(store: &Store, purpose: Purpose) -> Fsck {
    let mut run = Fsck::new(purpose);
    while let Some(step) = run.next_step(1000) {
        run.take(store.fsck_step(&step).unwrap());
    }
    run
}

fn facts(run: &Fsck) -> Vec<Fact> {
    run.findings().iter().map(|finding| finding.fact.clone()).collect()
}

/// The only finding.
fn only(run: &Fsck) -> &Finding {
    let [finding] = run.findings() else { panic!("{:#?}", run.findings()) };
    finding
}

fn descriptor(digest: &impl ToString) -> Value {
    json!({"mediaType": "application/x", "digest": digest.to_string(), "size": 1})
}

fn image(layers: &[Digest]) -> Value {
    let layers: Vec<Value> = layers.iter().map(descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(&sha256(b"{}")), "layers": layers})
}

fn index(children: &[Digest]) -> Value {
    let children: Vec<Value> = children.iter().map(descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
}

fn put(store: &Store, repository: &str, manifest: &Value, tags: &[&str]) -> Digest {
    put_manifest(store, repository, &serde_json::to_vec(manifest).unwrap(), tags)
}

/// Pushes an image of one layer.
fn push_image(store: &Store, repository: &str, layer: &[u8], tags: &[&str]) -> (Digest, Digest) {
    push(store, repository, b"{}");
    let layer = push(store, repository, layer);
    (layer, put(store, repository, &image(&[layer]), tags))
}

fn user(repository: &str, by: By) -> User {
    User { repository: name(repository), by }
}

#[test]
fn a_store_in_order_is_clean() {
    let fixture = Fixture::new();
    let store = fixture.store();
    assert!(fsck(store, Purpose::Check).is_clean(), "an empty one");
    let (_, first) = push_image(store, "team/app", b"layer one", &["1", "latest"]);
    let (_, second) = push_image(store, "team/app", b"layer two", &["2"]);
    push_image(store, "other", b"", &[]);
    put(store, "team/app", &index(&[first, second]), &["multi"]);
    push(store, "only-a-blob", b"layer one");
    let native = Digest::of(Algorithm::Sha512, b"native");
    let mut upload = store.start_upload(&name("other"), Algorithm::Sha512, "pin:alice").unwrap();
    upload.append(b"native").unwrap();
    upload.finish(&native).unwrap();
    put(store, "other", &image(&[native]), &["native"]);
    store.delete_tag(&name("team/app"), &tag("1")).unwrap();

    let run = fsck(store, Purpose::Check);
    assert_eq!(run.findings(), []);
    let counts = run.counts();
    // The manifests of both repositories with layers one and two, the index, the image of an empty layer and the native one.
    assert_eq!((counts.repositories, counts.manifests, counts.tags), (3, 5, 4));
    assert_eq!(counts.blobs, 5 + 5, "each blob and manifest once, in however many repositories");
}

/// Registries take an index whose children are elsewhere: worth a note, and no damage.
#[test]
fn an_index_without_its_children_is_a_note() {
    let fixture = Fixture::new();
    let child = sha256(b"elsewhere");
    let manifest = put(fixture.store(), "app", &index(&[child]), &["sparse"]);
    let run = fsck(fixture.store(), Purpose::Check);
    assert_eq!(facts(&run), [Damage::ChildMissing { manifest, child }.into()]);
    assert!(run.is_clean());
}

#[test]
fn corrupt_bytes_are_found_with_all_that_use_them() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, manifest) = push_image(store, "team/app", b"a layer", &["1"]);
    let (_, other) = push_image(store, "other", b"a layer", &[]);
    push_image(store, "other", b"another layer", &["2"]);
    for (bytes, actual) in [(b"a lay-r".as_slice(), sha256(b"a lay-r")), (b"a l", sha256(b"a l")), (b"", sha256(b""))] {
        fs::write(fixture.blob_data(&layer), bytes).unwrap();
        let run = fsck(store, Purpose::Check);
        let finding = only(&run);
        assert_eq!(finding.fact, Damage::BlobCorrupt { digest: layer, actual, size: bytes.len() as u64 }.into());
        assert_eq!(fixture.path(&finding.path), fixture.blob_data(&layer));
        let users: BTreeSet<User> = finding.users.iter().cloned().collect();
        let expected = [
            user("team/app", By::Link(layer)),
            user("team/app", By::Manifest(manifest)),
            user("other", By::Link(layer)),
            user("other", By::Manifest(other)),
        ];
        assert_eq!(users, expected.into());
        assert!(!run.is_clean());
    }
    fs::write(fixture.blob_data(&layer), b"a layer").unwrap();
    assert!(fsck(store, Purpose::Check).is_clean());
}

#[test]
fn a_corrupt_manifest_names_its_tags_and_indexes() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (_, manifest) = push_image(store, "app", b"a layer", &["1", "latest"]);
    let parent = put(store, "app", &index(&[manifest]), &["multi"]);
    fs::write(fixture.blob_data(&manifest), b"{\"schemaVersion\":2").unwrap();
    let run = fsck(store, Purpose::Check);
    let users: BTreeSet<User> = only(&run).users.iter().cloned().collect();
    let by = [By::Link(manifest), By::Manifest(parent), By::Tag(tag("1")), By::Tag(tag("latest"))];
    assert_eq!(users, by.map(|by| user("app", by)).into());
}

#[test]
fn links_are_told_apart_by_what_is_wrong_with_them() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let nothing = sha256(b"never pushed");
    let cases = [
        (String::new(), Damage::LinkEmpty),
        ("sha256:".to_owned(), Damage::LinkGarbled { text: "sha256:".to_owned() }),
        (format!("{nothing}\n"), Damage::LinkGarbled { text: format!("{nothing}\n") }),
    ];
    let (layer, manifest) = push_image(store, "app", b"a layer", &["1"]);
    push(store, "app", b"a layer of no manifest");
    let free = sha256(b"a layer of no manifest");
    for link in [fixture.layer_link("app", &free), fixture.tag_link("app", "1")] {
        let whole = fs::read(&link).unwrap();
        for (text, damage) in &cases {
            fs::write(&link, text).unwrap();
            let run = fsck(store, Purpose::Check);
            assert_eq!(only(&run).fact, damage.clone().into());
            assert_eq!(fixture.path(&only(&run).path), link);
            assert_eq!(only(&run).repository, Some(name("app")));
        }
        fs::write(&link, whole).unwrap();
    }
    fs::write(fixture.layer_link("app", &free), layer.to_string()).unwrap();
    let run = fsck(store, Purpose::Check);
    assert_eq!(only(&run).fact, Damage::LinkMismatched { digest: free, target: layer }.into());
    fs::remove_file(fixture.layer_link("app", &free)).unwrap();

    fs::write(fixture.tag_link("app", "1"), nothing.to_string()).unwrap();
    let run = fsck(store, Purpose::Check);
    assert_eq!(only(&run).fact, Damage::TagDangling { tag: tag("1"), target: nothing }.into());
    write(&fixture.path("docker/registry/v2/repositories/app/_manifests/tags/1/index/sha256/ab/link"), "");
    fs::remove_dir_all(fixture.tag_link("app", "1").parent().unwrap()).unwrap();
    let run = fsck(store, Purpose::Check);
    assert_eq!(only(&run).fact, Damage::TagWithoutLink { tag: tag("1") }.into());

    fs::write(fixture.revision_link("app", &manifest), "").unwrap();
    assert!(facts(&fsck(store, Purpose::Check)).contains(&Damage::LinkEmpty.into()));
    fs::write(fixture.revision_link("app", &manifest), manifest.to_string()).unwrap();
    fs::remove_file(fixture.blob_data(&manifest)).unwrap();
    assert!(facts(&fsck(store, Purpose::Check)).contains(&Damage::LinkDangling { target: manifest }.into()));
}

/// Distribution's collector of 2.x removes blobs and leaves the layer links: every old volume is full of them.
#[test]
fn links_to_blobs_that_no_manifest_names_are_counted_only() {
    let fixture = Fixture::new();
    let store = fixture.store();
    push_image(store, "app", b"a layer", &["1"]);
    let collected = push(store, "app", b"a layer of no manifest");
    fs::remove_dir_all(fixture.blob_data(&collected).parent().unwrap()).unwrap();
    let run = fsck(store, Purpose::Check);
    assert!(run.is_clean());
    assert_eq!((run.findings(), run.counts().leftovers), ([].as_slice(), 1));
}

#[test]
fn a_manifest_without_its_blobs_says_what_is_missing() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, manifest) = push_image(store, "app", b"a layer", &["1"]);
    let config = sha256(b"{}");
    fs::remove_file(fixture.blob_data(&layer)).unwrap();
    fs::remove_file(fixture.layer_link("app", &config)).unwrap();
    let run = fsck(store, Purpose::Check);
    let expected: [Fact; 2] = [
        Damage::BlobMissing { manifest, blob: config, missing: Missing::Link }.into(),
        Damage::BlobMissing { manifest, blob: layer, missing: Missing::Data }.into(),
    ];
    let found = facts(&run);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(expected.iter().all(|fact| found.contains(fact)), "{found:#?}");
    assert_eq!(run.counts().leftovers, 1);
    let missing = run.findings().iter().find(|finding| finding.fact == expected[0]).unwrap();
    assert!(missing.users.contains(&user("app", By::Tag(tag("1")))), "{missing:?}");

    // A layer that says where else it is need not be here.
    let mut foreign = image(&[]);
    let mut elsewhere = descriptor(&sha256(b"elsewhere"));
    elsewhere["urls"] = json!(["https://layers.test/1"]);
    foreign["layers"] = json!([elsewhere]);
    push(store, "foreign", b"{}");
    put(store, "foreign", &foreign, &["1"]);
    assert_eq!(facts(&fsck(store, Purpose::Check)), found);
}

#[test]
fn what_is_no_manifest_is_named() {
    let fixture = Fixture::new();
    let digest = put_manifest(fixture.store(), "app", b"{\"schemaVersion\":7}", &["1"]);
    let run = fsck(fixture.store(), Purpose::Check);
    let Fact::Damage(Damage::ManifestUnreadable { manifest, reason }) = &only(&run).fact else { panic!("{run:?}") };
    assert_eq!((*manifest, reason.contains("schemaVersion")), (digest, true), "{reason}");
    assert_eq!(only(&run).users.last(), Some(&user("app", By::Tag(tag("1")))));
}

/// Distribution 2.8 takes sha384: its data lies under sha256, its links under a name that is not known here.
#[test]
fn an_algorithm_that_is_not_known_is_named_and_nothing_else() {
    let fixture = Fixture::new();
    let store = fixture.store();
    push(store, "app", b"a layer");
    let hex = "0".repeat(96);
    write(
        &fixture.path(&format!("docker/registry/v2/repositories/app/_layers/sha384/{hex}/link")),
        sha256(b"a layer").to_string(),
    );
    let run = fsck(store, Purpose::Check);
    assert_eq!(only(&run).fact, Damage::UnknownAlgorithm { algorithm: "sha384".to_owned(), names: 1 }.into());
    assert!(only(&run).path.ends_with("repositories/app/_layers/sha384"), "{}", only(&run).path);

    push(store, "app", b"{}");
    let mut manifest = image(&[]);
    manifest["layers"] = json!([descriptor(&format!("sha384:{hex}"))]);
    put(store, "app", &manifest, &["1"]);
    let unreadable = facts(&fsck(store, Purpose::Check)).pop().unwrap();
    assert!(
        matches!(&unreadable, Fact::Damage(Damage::ManifestUnreadable { reason, .. }) if reason.contains("sha384"))
    );
}

/// Kept as JSON after every step and gone on with, it finds the same as a run without a break. No step reads more than
/// it was asked to.
#[test]
fn a_run_can_be_interrupted_after_every_step() {
    const BYTES: u64 = 100;
    let fixture = Fixture::new();
    let store = fixture.store();
    let large: Vec<u8> = (0..=255).cycle().take(1050).collect();
    push_image(store, "app", &large, &["1"]);
    fs::write(fixture.blob_data(&sha256(b"{}")), b"[]").unwrap();
    let whole = fsck(store, Purpose::Check);

    let mut run = Fsck::new(Purpose::Check);
    let mut steps_within = 0;
    while let Some(step) = run.next_step(BYTES) {
        let step = serde_json::from_value(serde_json::to_value(&step).unwrap()).unwrap();
        let before = run.counts().bytes;
        let outcome = serde_json::to_value(store.fsck_step(&step).unwrap()).unwrap();
        run.take(serde_json::from_value(outcome).unwrap());
        let read = run.counts().bytes - before;
        assert!(read <= BYTES, "{read}");
        steps_within += u32::from(read == BYTES);
        run = serde_json::from_value(serde_json::to_value(&run).unwrap()).unwrap();
    }
    assert!(steps_within >= 10, "the large blob took {steps_within} steps");
    assert_eq!(run, whole);
}

#[test]
fn a_step_looks_at_a_thousand_names() {
    let fixture = Fixture::new();
    for at in 0..1001 {
        write(&fixture.tag_link("app", &format!("t{at}")), "");
    }
    let mut run = Fsck::new(Purpose::Check);
    let mut most = 0;
    while let Some(step) = run.next_step(1000) {
        let before = run.findings().len();
        run.take(fixture.store().fsck_step(&step).unwrap());
        most = most.max(run.findings().len() - before);
    }
    assert_eq!((most, run.findings().len(), run.counts().tags), (1000, 1001, 1001));
}

/// A hash of half the old bytes and half the new ones proves nothing about either.
#[test]
fn a_blob_that_changes_while_it_is_hashed_is_hashed_again() {
    let fixture = Fixture::new();
    let layer = push(fixture.store(), "app", &[1; 1000]);
    let mut run = Fsck::new(Purpose::Check);
    let mut is_changed = false;
    while let Some(step) = run.next_step(100) {
        run.take(fixture.store().fsck_step(&step).unwrap());
        if run.counts().bytes == 500 && !is_changed {
            fs::write(fixture.blob_data(&layer), [2; 1000]).unwrap();
            is_changed = true;
        }
    }
    assert!(is_changed);
    assert_eq!(only(&run).fact, Damage::BlobCorrupt { digest: layer, actual: sha256(&[2; 1000]), size: 1000 }.into());
}

/// Pushes and deletes until it is told to stop.
fn churn(store: &Store, worker: u32, stop: &AtomicBool) {
    let mut rounds = 0_u32..;
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.next().unwrap();
        let content = format!("{worker} {}", round % 5);
        let (layer, manifest) = push_image(store, "app", content.as_bytes(), &[&format!("t{worker}")]);
        if round % 2 == 0 {
            store.delete_manifest(&name("app"), &manifest).unwrap();
            // Refused where a manifest that cannot be read at the moment might name it.
            store.delete_blob(&name("app"), &layer).ok();
        }
    }
}

/// Whoever writes meanwhile is never taken for damage.
#[test]
fn pushes_and_deletions_under_way_are_no_damage() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let stop = &stop;
            scope.spawn(move || churn(store, worker, stop));
        }
        let runs = (0..40).map(|_| fsck(store, Purpose::Repair));
        let found = runs.map(|run| facts(&run)).find(|found| !found.is_empty());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(found, None);
    });
}
