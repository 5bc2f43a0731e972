//! Each data set through its whole life: pushed, listed, asked for, pulled, referred to, deleted.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_oci::{Algorithm, Digest};
use serde_json::{Value, json};

use super::blobs::{Way, check_pull};
use super::data::{DataSet, Pushed, SETS};
use crate::client::{Conn, full, request};
use crate::fixture::{Site, on_both};

/// Of the manifest that came in under a tag alone, the registry's own digest is the SHA-256.
async fn push(conn: &Conn, repository: &str, set: &DataSet) {
    for ((digest, bytes), way) in set.blobs.iter().zip(Way::ALL.into_iter().cycle()) {
        way.push(conn, repository, digest, bytes).await.expect(201);
    }
    for manifest in &set.manifests {
        for target in targets(manifest) {
            let path = format!("/v2/{repository}/manifests/{target}");
            let put = request("PUT", &path).header("content-type", &manifest.media_type);
            let answer = conn.send(put.body(full(manifest.bytes.clone())).unwrap()).await.expect(201);
            assert_eq!(answer.header("docker-content-digest"), manifest.digest.to_string());
            assert_eq!(answer.location(), format!("/v2/{repository}/manifests/{}", manifest.digest));
            match manifest.subject {
                Some(subject) => assert_eq!(answer.header("oci-subject"), subject.to_string()),
                None => assert!(answer.headers.get("oci-subject").is_none()),
            }
            let told: Vec<&str> = answer.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
            assert_eq!(told, if manifest.tags_in_query { manifest.tags.clone() } else { Vec::new() });
        }
    }
}

/// What a manifest is put to: its digest, each tag, or all tags in the query of the digest.
fn targets(manifest: &Pushed) -> Vec<String> {
    let digest = manifest.digest.to_string();
    if manifest.tags.is_empty() {
        return vec![digest];
    }
    if manifest.tags_in_query {
        let query: Vec<String> = manifest.tags.iter().map(|tag| format!("tag={tag}")).collect();
        return vec![format!("{digest}?{}", query.join("&"))];
    }
    manifest.tags.clone()
}

async fn list(conn: &Conn, repository: &str, set: &DataSet) {
    let expected: BTreeSet<&String> = set.manifests.iter().flat_map(|manifest| &manifest.tags).collect();
    for n in ["", "?n=1", "?n=5"] {
        let mut path = format!("/v2/{repository}/tags/list{n}");
        let mut found: Vec<Value> = Vec::new();
        loop {
            let answer = conn.get(&path).await.expect(200);
            found.extend(answer.json()["tags"].as_array().unwrap().iter().cloned());
            let Some(next) = answer.next_page() else { break };
            path = next;
        }
        assert_eq!(json!(found), json!(expected));
    }
}

async fn head_and_pull(conn: &Conn, repository: &str, set: &DataSet) {
    for (digest, bytes) in &set.blobs {
        check_pull(conn, repository, digest, bytes).await;
    }
    for manifest in &set.manifests {
        for reference in manifest.tags.iter().cloned().chain([manifest.digest.to_string()]) {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let (head, got) = (conn.head(&path).await.expect(200), conn.get(&path).await.expect(200));
            assert!(head.body.is_empty());
            assert_eq!(got.body, manifest.bytes);
            for answer in [head, got] {
                assert_eq!(answer.header("content-type"), manifest.media_type);
                assert_eq!(answer.header("content-length"), manifest.bytes.len().to_string());
                assert_eq!(answer.header("docker-content-digest"), manifest.digest.to_string());
            }
        }
    }
}

/// The referrers of every subject that is named, filtered by every type that there is.
async fn referrers(conn: &Conn, repository: &str, manifests: &[Pushed]) {
    let mut by_subject: BTreeMap<Digest, Vec<&Pushed>> = BTreeMap::new();
    for manifest in manifests {
        // Also those that nobody refers to.
        by_subject.entry(manifest.digest).or_default();
        if let Some(subject) = manifest.subject {
            by_subject.entry(subject).or_default().push(manifest);
        }
    }
    for (subject, mut referrers) in by_subject {
        referrers.sort_by_key(|referrer| referrer.digest);
        let path = format!("/v2/{repository}/referrers/{subject}");
        let all: Vec<Value> = referrers.iter().map(|referrer| descriptor(referrer)).collect();
        let answer = conn.get(&path).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/vnd.oci.image.index.v1+json");
        assert_eq!(answer.json()["manifests"], json!(all));
        assert!(answer.headers.get("oci-filters-applied").is_none());
        let types: BTreeSet<&str> = referrers.iter().filter_map(|one| one.artifact_type.as_deref()).collect();
        for artifact_type in types.into_iter().chain(["application/vnd.example.nobody"]) {
            let wanted: Vec<&Value> = all.iter().filter(|one| one["artifactType"] == artifact_type).collect();
            let escaped = artifact_type.replace('+', "%2B");
            let answer = conn.get(&format!("{path}?artifactType={escaped}")).await.expect(200);
            assert_eq!(answer.header("oci-filters-applied"), "artifactType");
            assert_eq!(answer.json()["manifests"], json!(wanted), "{artifact_type}");
        }
    }
}

fn descriptor(referrer: &Pushed) -> Value {
    let mut descriptor =
        json!({"mediaType": referrer.media_type, "digest": referrer.digest, "size": referrer.bytes.len()});
    if let Some(artifact_type) = &referrer.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if !referrer.annotations.is_null() {
        descriptor["annotations"] = referrer.annotations.clone();
    }
    descriptor
}

/// Tags, then manifests from the last to the first, then blobs: each is gone at once, and nothing else is.
async fn delete(conn: &Conn, repository: &str, set: &DataSet) {
    let manifests = format!("/v2/{repository}/manifests");
    for manifest in set.manifests.iter().rev() {
        for tag in manifest.tags.iter().skip(1) {
            conn.delete(&format!("{manifests}/{tag}")).await.expect(202);
            conn.get(&format!("{manifests}/{tag}")).await.expect_error(404, "MANIFEST_UNKNOWN");
        }
        let by_digest = format!("{manifests}/{}", manifest.digest);
        conn.get(&by_digest).await.expect(200);
        conn.delete(&by_digest).await.expect(202);
        // With the tag that still pointed to it.
        for gone in manifest.tags.iter().take(1).chain([&manifest.digest.to_string()]) {
            conn.get(&format!("{manifests}/{gone}")).await.expect_error(404, "MANIFEST_UNKNOWN");
            conn.head(&format!("{manifests}/{gone}")).await.expect(404);
        }
        if let Some(subject) = manifest.subject {
            let left = conn.get(&format!("/v2/{repository}/referrers/{subject}")).await.expect(200).json();
            let left = left["manifests"].as_array().unwrap();
            assert!(left.iter().all(|one| one["digest"] != json!(manifest.digest)));
        }
    }
    for digest in set.blobs.iter().map(|(digest, _)| digest).collect::<BTreeSet<_>>() {
        let path = format!("/v2/{repository}/blobs/{digest}");
        conn.delete(&path).await.expect(202);
        conn.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
    }
    assert_eq!(conn.get(&format!("/v2/{repository}/tags/list")).await.expect(200).json()["tags"], json!([]));
}

#[tokio::test]
async fn every_set_through_its_life() {
    on_both(async |conn, repository| {
        for (seed, (name, build)) in (0..).zip(SETS) {
            let set = DataSet::build(seed, build);
            let repository = format!("{repository}/s{seed}");
            // Which one it was, where one fails.
            println!("{name} in {repository}");
            push(conn, &repository, &set).await;
            list(conn, &repository, &set).await;
            head_and_pull(conn, &repository, &set).await;
            referrers(conn, &repository, &set.manifests).await;
            delete(conn, &repository, &set).await;
        }
    })
    .await;
}

/// `read-only`: all that is there, to a peer that may only pull, and nothing more.
#[tokio::test]
async fn every_set_to_who_may_only_pull() {
    let site = Site::start().await;
    let (admin, alice) = (site.admin().http2().await, site.alice().http1().await);
    for (seed, (_, build)) in (0..).zip(SETS) {
        let set = DataSet::build(seed, build);
        let repository = format!("team/s{seed}");
        push(&admin, &repository, &set).await;
        list(&alice, &repository, &set).await;
        head_and_pull(&alice, &repository, &set).await;
        referrers(&alice, &repository, &set.manifests).await;
        let manifest = &set.manifests[0];
        let path = format!("/v2/{repository}/manifests/{}", manifest.digest);
        alice.put(&path, manifest.bytes.clone()).await.expect_error(403, "DENIED");
        alice.delete(&path).await.expect_error(403, "DENIED");
    }
}

/// `bad-digest-image`: a manifest pushed by another digest than its own.
#[tokio::test]
async fn a_manifest_under_a_bad_digest() {
    on_both(async |conn, repository| {
        let set = DataSet::build(70, SETS[0].1);
        for (digest, bytes) in &set.blobs {
            Way::PostOnly.push(conn, repository, digest, bytes).await.expect(201);
        }
        for algorithm in Algorithm::ALL {
            let wrong = Digest::of(algorithm, b"something else");
            for target in [wrong.to_string(), format!("{wrong}?tag=bad")] {
                let path = format!("/v2/{repository}/manifests/{target}");
                conn.put(&path, set.manifests[0].bytes.clone()).await.expect_error(400, "DIGEST_INVALID");
            }
            for gone in [wrong.to_string(), "bad".to_owned()] {
                conn.get(&format!("/v2/{repository}/manifests/{gone}")).await.expect(404);
            }
        }
    })
    .await;
}

/// `sparse`, the image: config and layers are always checked here, whatever the suite's flag would like.
#[tokio::test]
async fn an_image_without_its_layers_is_refused() {
    on_both(async |conn, repository| {
        let set = DataSet::build(71, SETS[0].1);
        let (digest, bytes) = &set.blobs[0];
        Way::PostOnly.push(conn, repository, digest, bytes).await.expect(201);
        let answer = conn.put_manifest(repository, "sparse-image", &set.manifests[0].bytes).await;
        let missing: Vec<&Digest> = set.blobs[1..].iter().map(|(digest, _)| digest).collect();
        assert_eq!(answer.json()["errors"][0]["detail"]["digests"], json!(missing));
        answer.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
    })
    .await;
}
