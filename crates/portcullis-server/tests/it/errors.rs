//! Every wrong path, name and method has its status and a well-formed body.

use crate::client::{empty, full, request};
use crate::fixture::{on_both, sha256};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ID: &str = "00112233-4455-6677-8899-aabbccddeeff";

#[tokio::test]
async fn paths_that_are_none() {
    on_both(async |conn, _| {
        for path in [
            "/",
            "/v1/",
            "/v3/",
            "/v2/a",
            "/v2/a/b/c",
            "/v2/a/manifests",
            "/v2/a/manifests/x/y",
            "/v2/a/tags",
            "/v2/a/tags/list/",
            "/v2/_catalog/",
            "/v2/a%2Fb/tags/list",
            "/v2/%ff/tags/list",
            "/v2/%252e/tags/list",
            "/favicon.ico",
            "/v2x/",
        ] {
            conn.get(path).await.expect_error(404, "UNSUPPORTED");
        }
    })
    .await;
}

#[tokio::test]
async fn names_that_are_none() {
    let long = format!("/v2/{}/tags/list", "a".repeat(300));
    on_both(async |conn, _| {
        for path in [
            "/v2/A/tags/list",
            "/v2/a//b/tags/list",
            "/v2//tags/list",
            "/v2/tags/list",
            "/v2/../tags/list",
            "/v2/a/../b/tags/list",
            "/v2/a/%2e%2e/tags/list",
            "/v2/a/./tags/list",
            "/v2/-a/tags/list",
            "/v2/a_/tags/list",
            "/v2/a___b/tags/list",
            "/v2/a%00/tags/list",
            "/v2/%C3%A9/tags/list",
            &long,
        ] {
            conn.get(path).await.expect_error(400, "NAME_INVALID");
        }
    })
    .await;
}

#[tokio::test]
async fn references_that_are_none() {
    let long = format!("/v2/a/manifests/{}", "t".repeat(129));
    on_both(async |conn, _| {
        for path in ["/v2/a/manifests/", "/v2/a/manifests/-x", "/v2/a/manifests/.x", "/v2/a/manifests/a%20b", &long] {
            conn.get(path).await.expect_error(404, "MANIFEST_UNKNOWN");
            conn.put(path, "{}").await.expect_error(400, "MANIFEST_INVALID");
        }
        let head = conn.send(request("HEAD", "/v2/a/manifests/.INVALID_MANIFEST_NAME").body(empty()).unwrap()).await;
        assert_eq!(head.status, 404);
        let delete = request("DELETE", "/v2/a/manifests/.INVALID_MANIFEST_NAME").body(empty()).unwrap();
        conn.send(delete).await.expect_error(404, "MANIFEST_UNKNOWN");
        let upper = format!("/v2/a/manifests/{}", DIGEST.to_uppercase().replace("SHA256", "sha256"));
        for path in [
            "/v2/a/manifests/sha256:00",
            "/v2/a/manifests/sha256:",
            "/v2/a/manifests/:",
            "/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/a/blobs/latest",
            "/v2/a/blobs/sha256:zz",
            "/v2/a/blobs/",
            &upper,
        ] {
            conn.get(path).await.expect_error(400, "DIGEST_INVALID");
        }
        conn.put("/v2/a/manifests/sha256:00", "{}").await.expect_error(400, "DIGEST_INVALID");
    })
    .await;
}

#[tokio::test]
async fn methods_that_a_path_does_not_take() {
    on_both(async |conn, _| {
        let manifest = "GET, HEAD, PUT, DELETE";
        let (blob, upload) = (format!("/v2/a/blobs/{DIGEST}"), format!("/v2/a/blobs/uploads/{ID}"));
        for (method, path, allowed) in [
            ("POST", "/v2/", "GET, HEAD"),
            ("DELETE", "/v2/", "GET, HEAD"),
            ("OPTIONS", "/v2/", "GET, HEAD"),
            ("BREW", "/v2/", "GET, HEAD"),
            ("POST", "/v2/a/tags/list", "GET, HEAD"),
            ("PATCH", "/v2/a/manifests/x", manifest),
            ("POST", "/v2/a/manifests/x", manifest),
            ("PUT", blob.as_str(), "GET, HEAD, DELETE"),
            ("GET", "/v2/a/blobs/uploads/", "POST"),
            ("GET", "/v2/a/blobs/uploads", "POST"),
            ("POST", upload.as_str(), "GET, PATCH, PUT, DELETE"),
        ] {
            let answer = conn.send(request(method, path).body(empty()).unwrap()).await;
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            answer.expect_error(405, "UNSUPPORTED");
        }
    })
    .await;
}

#[tokio::test]
async fn uploads_that_are_none() {
    on_both(async |conn, _| {
        for id in [ID, "x", "..", "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF"] {
            let path = format!("/v2/a/blobs/uploads/{id}");
            for (method, path) in [
                ("GET", path.clone()),
                ("PATCH", path.clone()),
                ("DELETE", path.clone()),
                ("PUT", format!("{path}?digest={DIGEST}")),
            ] {
                let answer = conn.send(request(method, &path).body(full("bytes")).unwrap()).await;
                answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn queries_that_are_wrong() {
    on_both(async |conn, _| {
        let uploads = "/v2/a/blobs/uploads/";
        for (query, code) in [
            ("digest=x", "DIGEST_INVALID"),
            ("digest=", "DIGEST_INVALID"),
            ("digest-algorithm=md5", "DIGEST_INVALID"),
            ("mount=x&from=b", "DIGEST_INVALID"),
            (&format!("digest={DIGEST}&digest={DIGEST}"), "DIGEST_INVALID"),
            (&format!("mount={DIGEST}&from=B"), "NAME_INVALID"),
            (&format!("mount={DIGEST}&from=../b"), "NAME_INVALID"),
        ] {
            conn.post(&format!("{uploads}?{query}"), "").await.expect_error(400, code);
        }
        let location = conn.start_upload("a").await;
        for query in ["", "?digest=", "?digest=sha256:00", "?digest=md5:00"] {
            conn.put(&format!("{location}{query}"), "").await.expect_error(400, "DIGEST_INVALID");
        }
        // None of them ended the upload.
        conn.put(&format!("{location}?digest={}", sha256(b"x")), "x").await.expect(201);
    })
    .await;
}

/// HEAD has the status of GET and never a body, on a connection that goes on.
#[tokio::test]
async fn errors_of_head_have_no_body() {
    on_both(async |conn, _| {
        for (path, status) in [
            ("/nowhere", 404),
            ("/v2/A/manifests/x", 400),
            ("/v2/a/manifests/x", 404),
            (&format!("/v2/a/blobs/{DIGEST}"), 404),
            ("/v2/a/tags/list", 404),
        ] {
            assert!(conn.head(path).await.expect(status).body.is_empty(), "{path}");
        }
        conn.get("/v2/").await.expect(200);
    })
    .await;
}

/// A refused request with a body leaves the connection usable, when the body is small enough to be read over.
#[tokio::test]
async fn a_refused_body_does_not_end_the_connection() {
    on_both(async |conn, _| {
        for _ in 0..3 {
            conn.put("/v2/A/manifests/x", vec![b'x'; 100_000]).await.expect_error(400, "NAME_INVALID");
            conn.get("/v2/").await.expect(200);
        }
        assert!(!conn.is_closed());
    })
    .await;
}
