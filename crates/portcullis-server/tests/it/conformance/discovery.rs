//! `empty`, `missing-manifest` and `invalid-digest-format`.

use portcullis_oci::{Algorithm, Digest};
use serde_json::json;

use crate::client::{full, request};
use crate::fixture::on_both;

#[tokio::test]
async fn an_empty_repository() {
    on_both(async |conn, repository| {
        conn.get(&format!("/v2/{repository}/tags/list")).await.expect_error(404, "NAME_UNKNOWN");
        conn.push_blob(repository, b"a layer").await;
        let tags = conn.get(&format!("/v2/{repository}/tags/list")).await.expect(200);
        assert_eq!(tags.json(), json!({"name": repository, "tags": []}));
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, b"nobody refers to it");
            // 404 would tell a client to keep referrers under tags.
            for name in [repository, "no/such/repository"] {
                let answer = conn.get(&format!("/v2/{name}/referrers/{digest}")).await.expect(200);
                assert_eq!(answer.header("content-type"), "application/vnd.oci.image.index.v1+json");
                assert_eq!(answer.json()["manifests"], json!([]));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_manifest() {
    on_both(async |conn, repository| {
        for reference in [
            "missing".to_owned(),
            Digest::of(Algorithm::Sha256, b"").to_string(),
            Digest::of(Algorithm::Sha512, b"").to_string(),
        ] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            conn.get(&path).await.expect_error(404, "MANIFEST_UNKNOWN");
            assert!(conn.head(&path).await.expect(404).body.is_empty());
            conn.delete(&path).await.expect_error(404, "MANIFEST_UNKNOWN");
        }
    })
    .await;
}

#[tokio::test]
async fn an_invalid_digest_format() {
    on_both(async |conn, repository| {
        let hex = "0".repeat(64);
        for digest in [
            "sha256:too-short".to_owned(),
            "sha256:".to_owned(),
            format!("sha256:{}", hex.replace('0', "g")),
            format!("sha256:{hex}0"),
            format!("sha512:{hex}"),
            format!("md5:{}", &hex[..32]),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256%3A{}", &hex[1..]),
        ] {
            for (method, path) in [
                ("PUT", format!("/v2/{repository}/manifests/{digest}")),
                ("GET", format!("/v2/{repository}/manifests/{digest}")),
                ("GET", format!("/v2/{repository}/blobs/{digest}")),
                ("POST", format!("/v2/{repository}/blobs/uploads/?digest={digest}")),
                ("GET", format!("/v2/{repository}/referrers/{digest}")),
            ] {
                let answer = conn.send(request(method, &path).body(full("{}")).unwrap()).await;
                answer.expect_error(400, "DIGEST_INVALID");
            }
        }
    })
    .await;
}
