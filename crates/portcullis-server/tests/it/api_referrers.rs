//! Listing what refers to a manifest.

use serde_json::{Value, json};

use crate::client::{Answer, Conn};
use crate::fixture::{on_both, sha256};

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// An index of this artifact type about `subject`, which need not be there.
fn about(subject: &[u8], artifact_type: &str) -> Vec<u8> {
    let subject = json!({"mediaType": INDEX_TYPE, "digest": sha256(subject).to_string(), "size": subject.len()});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "artifactType": artifact_type,
        "manifests": [],
        "subject": subject,
        "annotations": {"made.for": artifact_type},
    });
    serde_json::to_vec(&index).unwrap()
}

async fn put(conn: &Conn, repository: &str, bytes: &[u8]) -> Answer {
    conn.put_manifest(repository, &sha256(bytes).to_string(), bytes).await.expect(201)
}

async fn list(conn: &Conn, path: &str) -> Vec<Value> {
    let answer = conn.get(path).await.expect(200);
    assert_eq!(answer.header("content-type"), INDEX_TYPE);
    let index = answer.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX_TYPE)));
    index["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn listed_filtered_and_gone() {
    on_both(async |conn, repository| {
        let path = format!("/v2/{repository}/referrers/{}", sha256(INDEX));
        assert!(list(conn, &path).await.is_empty(), "of a repository that is not there");
        let (signature, sbom) = (about(INDEX, "x/signature"), about(INDEX, "x/sbom"));
        for referrer in [&signature, &sbom] {
            let answer = put(conn, repository, referrer).await;
            assert_eq!(answer.header("oci-subject"), sha256(INDEX).to_string());
        }
        put(conn, repository, &about(b"another subject", "x/sbom")).await;
        let mut digests = [&signature, &sbom].map(|bytes| sha256(bytes).to_string());
        digests.sort();
        let found = list(conn, &path).await;
        assert_eq!(found.iter().map(|one| one["digest"].as_str().unwrap()).collect::<Vec<_>>(), digests);
        let filtered = conn.get(&format!("{path}?artifactType=x/sbom")).await.expect(200);
        assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
        let filtered = filtered.json()["manifests"].clone();
        let expected = json!([{
            "mediaType": INDEX_TYPE,
            "digest": sha256(&sbom).to_string(),
            "size": sbom.len(),
            "artifactType": "x/sbom",
            "annotations": {"made.for": "x/sbom"},
        }]);
        assert_eq!(filtered, expected);
        assert!(list(conn, &format!("{path}?artifactType=x/none")).await.is_empty());
        conn.delete(&format!("/v2/{repository}/manifests/{}", sha256(&sbom))).await.expect(202);
        assert_eq!(list(conn, &path).await.len(), 1);
        conn.get(&format!("/v2/{repository}/referrers/latest")).await.expect_error(400, "DIGEST_INVALID");
    })
    .await;
}

#[tokio::test]
async fn in_pages() {
    on_both(async |conn, repository| {
        for number in 0..5 {
            put(conn, repository, &about(INDEX, &format!("x/{number}"))).await;
        }
        let mut path = format!("/v2/{repository}/referrers/{}?n=2", sha256(INDEX));
        let mut sizes = Vec::new();
        loop {
            sizes.push(list(conn, &path).await.len());
            let Some(next) = conn.get(&path).await.next_page() else { break };
            path = next;
        }
        assert_eq!(sizes, [2, 2, 1]);
    })
    .await;
}
