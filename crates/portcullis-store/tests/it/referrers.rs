//! Referrers, and blobs that are in use.

use portcullis_oci::Digest;
use portcullis_store::StoreError;

use crate::{Fixture, name, push, put_manifest, sha256};

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
    let referrers = fixture.store().referrers(&name("app"), subject).unwrap();
    referrers.iter().map(|referrer| referrer.digest).collect()
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
    let referrers = fixture.store().referrers(&name("app"), &subject).unwrap();
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
    let found = store.referrers(&name("app"), &subject).unwrap();
    assert_eq!(found.iter().map(|referrer| referrer.digest).collect::<Vec<_>>(), [digest]);
}
