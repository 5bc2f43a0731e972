//! Referrers, and blobs that are in use.

use std::fs;

use portcullis_oci::Digest;
use portcullis_store::fsck::{Fsck, Purpose};
use portcullis_store::{ReferrersQuery, Store, StoreError, StoreOptions};

use crate::{Fixture, name, push, put_manifest, sha256, write};

const CONFIG: &[u8] = b"{}";

fn manifest(extra: &str) -> Vec<u8> {
    let config = sha256(CONFIG);
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.example.config","digest":"{config}","size":2}},"layers":[]{extra}}}"#
    )
    .into_bytes()
}

fn referring_to(subject: &Digest, extra: &str) -> Vec<u8> {
    manifest(&format!(r#","subject":{{"mediaType":"application/x","digest":"{subject}","size":1}}{extra}"#))
}

fn put(fixture: &Fixture, bytes: &[u8]) -> Digest {
    put_manifest(fixture.store(), "app", bytes, &[])
}

fn found(fixture: &Fixture, subject: &Digest) -> Vec<Digest> {
    let page = fixture.store().referrers(&name("app"), &ReferrersQuery::new(*subject)).unwrap();
    page.referrers.iter().map(|referrer| referrer.digest).collect()
}

#[test]
fn are_found_whether_they_came_before_or_after_the_first_question_and_after_a_restart() {
    let mut fixture = Fixture::new();
    let subject = sha256(b"not here yet");
    let before = put(&fixture, &referring_to(&subject, ""));
    assert_eq!(found(&fixture, &subject), [before]);
    let after = put(&fixture, &referring_to(&subject, r#","artifactType":"application/vnd.example.sbom""#));
    let mut both = vec![before, after];
    both.sort();
    assert_eq!(found(&fixture, &subject), both);
    fixture.reopen();
    assert_eq!(found(&fixture, &subject), both);
    assert!(fixture.store().delete_manifest(&name("app"), &before).unwrap());
    assert_eq!(found(&fixture, &subject), [after]);
    assert_eq!(found(&fixture, &before), []);
}

#[test]
fn carry_type_and_annotations() {
    let fixture = Fixture::new();
    let subject = sha256(b"subject");
    let typed = put(&fixture, &referring_to(&subject, r#","artifactType":"a/b","annotations":{"k":"v"}"#));
    let plain = put(&fixture, &referring_to(&subject, ""));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[],"subject":{{"mediaType":"application/x","digest":"{subject}","size":1}}}}"#
    );
    let index = put(&fixture, index.as_bytes());
    let referrers = fixture.store().referrers(&name("app"), &ReferrersQuery::new(subject)).unwrap().referrers;
    let of = |digest: Digest| referrers.iter().find(|referrer| referrer.digest == digest).unwrap();
    assert_eq!(of(typed).artifact_type.as_deref(), Some("a/b"));
    assert_eq!(of(typed).annotations.get("k").map(String::as_str), Some("v"));
    assert_eq!(of(plain).artifact_type.as_deref(), Some("application/vnd.example.config"), "the config's type");
    assert_eq!(of(index).artifact_type, None);
    assert_eq!(of(index).media_type, "application/vnd.oci.image.index.v1+json");
}

#[test]
fn a_blob_stays_while_a_manifest_names_it_or_cannot_be_understood() {
    let fixture = Fixture::new();
    let config = push(fixture.store(), "app", CONFIG);
    let user = put(&fixture, &manifest(""));
    let refused = fixture.store().delete_blob(&name("app"), &config).unwrap_err();
    assert!(matches!(&refused, StoreError::BlobInUse { manifest, .. } if **manifest == user), "{refused}");
    assert!(fixture.store().delete_manifest(&name("app"), &user).unwrap());
    let riddle = put(&fixture, b"not a manifest");
    let refused = fixture.store().delete_blob(&name("app"), &config).unwrap_err();
    assert!(matches!(&refused, StoreError::BlobInUse { manifest, .. } if **manifest == riddle), "{refused}");
    assert!(fixture.store().delete_manifest(&name("app"), &riddle).unwrap());
    assert!(fixture.store().delete_blob(&name("app"), &config).unwrap());
}

/// As Go writes it.
#[test]
fn a_referrer_with_nulls_is_listed() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let subject = sha256(b"a subject");
    let nulls = format!(
        r#"{{"mediaType":"application/x","digest":"{subject}","size":9,"urls":null,"annotations":null,"platform":{{}}}}"#
    );
    let body = format!(r#"{{"schemaVersion":2,"config":{nulls},"layers":null,"subject":{nulls},"annotations":null}}"#);
    let digest = put_manifest(store, "app", body.as_bytes(), &[]);
    let found = store.referrers(&name("app"), &ReferrersQuery::new(subject)).unwrap().referrers;
    assert_eq!(found.iter().map(|referrer| referrer.digest).collect::<Vec<_>>(), [digest]);
}

/// A store with so much room for referrers, and five of them, two of another type whose name is as long.
fn with_room(bytes: usize) -> (Fixture, Vec<Digest>) {
    let mut fixture = Fixture::new();
    fixture.store = None;
    let options = StoreOptions { reserve: 0, cache_bytes: 4 * bytes, ..StoreOptions::default() };
    fixture.store = Some(Store::open(fixture.directory.path(), &options).unwrap());
    let mut all: Vec<Digest> = (0..5)
        .map(|number| {
            let artifact_type = if number < 2 { "a/some" } else { "a/many" };
            let extra = format!(r#","artifactType":"{artifact_type}","annotations":{{"number":"{number:0100}"}}"#);
            put(&fixture, &referring_to(&sha256(b"subject"), &extra))
        })
        .collect();
    all.sort();
    (fixture, all)
}

fn pages(fixture: &Fixture, query: &ReferrersQuery) -> Vec<Vec<Digest>> {
    let mut pages: Vec<Vec<Digest>> = Vec::new();
    let mut query = query.clone();
    loop {
        let page = fixture.store().referrers(&name("app"), &query).unwrap();
        let digests: Vec<Digest> = page.referrers.iter().map(|referrer| referrer.digest).collect();
        query.after = digests.last().copied();
        pages.push(digests);
        if !page.more {
            return pages;
        }
    }
}

/// Whether they are remembered, or read for each page because there is no room for them.
#[test]
fn come_in_pages_of_so_many_and_of_so_many_bytes() {
    for (room, known) in [(1 << 20, true), (2000, false)] {
        let (fixture, all) = with_room(room);
        let query = ReferrersQuery::new(sha256(b"subject"));
        assert_eq!(pages(&fixture, &query), std::slice::from_ref(&all));
        assert_eq!(fixture.store().knows_referrers(&name("app")), known);
        for (most, expected) in [(5, vec![5]), (4, vec![4, 1]), (2, vec![2, 2, 1]), (1, vec![1; 5])] {
            let found = pages(&fixture, &ReferrersQuery { most, ..query.clone() });
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), expected);
            assert_eq!(found.concat(), all);
        }
        let json = fixture.store().referrers(&name("app"), &query).unwrap().referrers;
        let bytes = 2 * (serde_json::to_vec(&json[0]).unwrap().len() + 1);
        for (most_bytes, expected) in [(bytes, vec![2, 2, 1]), (bytes - 1, vec![1; 5]), (0, vec![1; 5])] {
            let found = pages(&fixture, &ReferrersQuery { most_bytes, ..query.clone() });
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{most_bytes}");
            assert_eq!(found.concat(), all);
        }
        let few = ReferrersQuery { artifact_type: Some("a/some".to_owned()), most: 1, ..query.clone() };
        assert_eq!(pages(&fixture, &few).iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);

        // Our own writes are followed either way.
        let new = put(&fixture, &referring_to(&sha256(b"subject"), ""));
        assert!(fixture.store().delete_manifest(&name("app"), &all[0]).unwrap());
        let mut expected = [&all[1..], &[new]].concat();
        expected.sort();
        assert_eq!(pages(&fixture, &query), [expected]);
        assert_eq!(fixture.store().knows_referrers(&name("app")), known);
    }
}

#[test]
fn the_repository_that_was_asked_about_longest_ago_is_forgotten_first() {
    let (fixture, _) = with_room(5000);
    let store = fixture.store();
    for repository in ["second", "third"] {
        for number in 0..3 {
            let extra = format!(r#","annotations":{{"number":"{number}"}}"#);
            put_manifest(store, repository, &referring_to(&sha256(b"subject"), &extra), &[]);
        }
    }
    let ask = |repository: &str| {
        let page = store.referrers(&name(repository), &ReferrersQuery::new(sha256(b"subject"))).unwrap();
        (page.referrers.len(), ["app", "second", "third"].map(|repository| store.knows_referrers(&name(repository))))
    };
    assert_eq!(ask("app"), (5, [true, false, false]));
    assert_eq!(ask("second"), (3, [false, true, false]), "there is no room for both");
    assert_eq!(ask("third"), (3, [false, true, true]));
    assert_eq!(ask("second"), (3, [false, true, true]));
    assert_eq!(ask("app"), (5, [true, false, false]));
}

#[test]
fn what_goes_makes_room() {
    let (fixture, all) = with_room(8000);
    assert_eq!(found(&fixture, &sha256(b"subject")), all);
    // Each time as much comes as goes, and in all far more than there is room for.
    for number in 0..30 {
        let referrer =
            put(&fixture, &referring_to(&sha256(b"subject"), &format!(r#","annotations":{{"n":"{number}"}}"#)));
        assert!(fixture.store().delete_manifest(&name("app"), &referrer).unwrap());
        assert!(fixture.store().knows_referrers(&name("app")), "forgotten after {number}");
    }
    assert_eq!(found(&fixture, &sha256(b"subject")), all);
}

#[test]
fn follow_a_repair_of_the_store() {
    let (fixture, all) = with_room(1 << 20);
    let repair = || {
        let mut run = Fsck::new(Purpose::Repair);
        while let Some(step) = run.next_step(1 << 20) {
            run.take(fixture.store().fsck_step(&step).unwrap());
        }
    };
    let data = fixture.blob_data(&all[0]);
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, b"{}").unwrap();
    assert_eq!(found(&fixture, &sha256(b"subject")), all[1..], "what is damaged is absent");
    write(&fixture.path(&format!("portcullis/trash/1700000000/sha256-{}", all[0].hex())), &bytes);
    repair();
    assert_eq!(found(&fixture, &sha256(b"subject")), all, "it came back from the trash");
    fs::write(&data, b"{}").unwrap();
    repair();
    assert_eq!(found(&fixture, &sha256(b"subject")), all[1..], "it was moved aside");
}
