//! Manifests: everything that is pushed comes out byte for byte, and what is not whole is refused.

use portcullis_oci::manifest::MAX_BYTES;
use portcullis_testkit::image::{Flavor, Image};
use serde_json::{Value, json};

use crate::client::{Answer, Conn, empty, full, request};
use crate::fixture::{on_both, sha256, sha512};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const EMPTY_INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

async fn push_image(conn: &Conn, repository: &str, image: &Image, reference: &str) -> Answer {
    for blob in image.blobs() {
        conn.push_blob(repository, &blob.bytes).await;
    }
    put_as(conn, repository, reference, &image.manifest.media_type, &image.manifest.bytes).await
}

async fn put_as(conn: &Conn, repository: &str, reference: &str, content_type: &str, bytes: &[u8]) -> Answer {
    let path = format!("/v2/{repository}/manifests/{reference}");
    conn.send(request("PUT", &path).header("content-type", content_type).body(full(bytes.to_vec())).unwrap()).await
}

/// GET and HEAD by `reference` give these bytes with this type and digest.
async fn check_stored(conn: &Conn, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let digest = if reference.starts_with("sha512:") { sha512(bytes) } else { sha256(bytes) };
    let got = conn.get(&path).await.expect(200);
    assert_eq!(got.body, bytes);
    let head = conn.head(&path).await.expect(200);
    assert!(head.body.is_empty());
    for answer in [got, head] {
        assert_eq!(answer.header("content-type"), media_type);
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    }
}

/// Pushes and reads back by tag and by digest.
async fn check_round_trip(conn: &Conn, repository: &str, media_type: &str, bytes: &[u8]) {
    let digest = sha256(bytes).to_string();
    let answer = put_as(conn, repository, "tag", media_type, bytes).await.expect(201);
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(answer.location(), format!("/v2/{repository}/manifests/{digest}"));
    check_stored(conn, repository, "tag", media_type, bytes).await;
    check_stored(conn, repository, &digest, media_type, bytes).await;
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes).to_string(), "size": bytes.len()})
}

fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[tokio::test]
async fn images_byte_for_byte() {
    on_both(async |conn, repository| {
        for flavor in [Flavor::Oci, Flavor::Docker] {
            let image = Image::with_flavor(flavor, 1, &[1000, 0, 30_000]);
            push_image(conn, repository, &image, "first").await.expect(201);
            check_round_trip(conn, repository, &image.manifest.media_type, &image.manifest.bytes).await;
        }
        // Whitespace and the order of keys are the client's.
        let image = Image::new(2, &[10]);
        push_image(conn, repository, &image, "second").await.expect(201);
        let value: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        check_round_trip(conn, repository, OCI_MANIFEST, &[b"\n ", pretty.as_slice(), b"\r\n"].concat()).await;
    })
    .await;
}

#[tokio::test]
async fn indexes_and_lists() {
    on_both(async |conn, repository| {
        let image = Image::new(3, &[100]);
        push_image(conn, repository, &image, "image").await.expect(201);
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image.manifest.descriptor()]});
        check_round_trip(conn, repository, OCI_INDEX, &to_bytes(&index)).await;
        let nested = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_INDEX, &to_bytes(&index))]});
        check_round_trip(conn, repository, OCI_INDEX, &to_bytes(&nested)).await;
        let list = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [image.manifest.descriptor()]});
        check_round_trip(conn, repository, DOCKER_LIST, &to_bytes(&list)).await;
        check_round_trip(conn, repository, OCI_INDEX, EMPTY_INDEX).await;
        // Children may come later, or live elsewhere: sparse indexes are in the specification.
        let sparse = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, b"nowhere")]});
        check_round_trip(conn, repository, OCI_INDEX, &to_bytes(&sparse)).await;
    })
    .await;
}

/// Helm charts, signatures, SBOMs: whatever has config and layers.
#[tokio::test]
async fn artifacts() {
    on_both(async |conn, repository| {
        for content in [&b"{}"[..], b"chart", b"layer"] {
            conn.push_blob(repository, content).await;
        }
        let helm = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.cncf.helm.config.v1+json", b"{}"),
            "layers": [descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart")],
            "annotations": {"org.opencontainers.image.title": "chart"},
        });
        check_round_trip(conn, repository, OCI_MANIFEST, &to_bytes(&helm)).await;
        let artifact = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.sbom",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}").to_string(), "size": 2, "data": "e30="},
            "layers": [],
            // A subject that is not here is no reason to refuse.
            "subject": descriptor(OCI_MANIFEST, b"missing subject"),
            "x-custom": {"kept": [1, 2, 3]},
        });
        check_round_trip(conn, repository, OCI_MANIFEST, &to_bytes(&artifact)).await;
        let own_type = json!({"schemaVersion": 2, "mediaType": "application/vnd.example+json", "config": descriptor("x/y", b"{}")});
        check_round_trip(conn, repository, "application/vnd.example+json", &to_bytes(&own_type)).await;
        let foreign = json!({
            "schemaVersion": 2,
            "config": descriptor("x/y", b"{}"),
            "layers": [
                {"mediaType": "x/y", "digest": sha256(b"far away").to_string(), "size": 8, "urls": ["https://example.test/layer"]},
                descriptor("x/y", b"layer"),
            ],
        });
        check_round_trip(conn, repository, OCI_MANIFEST, &to_bytes(&foreign)).await;
    })
    .await;
}

#[tokio::test]
async fn by_sha512_digest() {
    on_both(async |conn, repository| {
        let digest = sha512(EMPTY_INDEX).to_string();
        let answer = put_as(conn, repository, &digest, OCI_INDEX, EMPTY_INDEX).await.expect(201);
        assert_eq!(answer.header("docker-content-digest"), digest);
        check_stored(conn, repository, &digest, OCI_INDEX, EMPTY_INDEX).await;
        // One body under two digests: neither is an alias of the other.
        let other = format!("/v2/{repository}/manifests/{}", sha256(EMPTY_INDEX));
        conn.get(&other).await.expect_error(404, "MANIFEST_UNKNOWN");
    })
    .await;
}

#[tokio::test]
async fn with_tags_in_the_query() {
    on_both(async |conn, repository| {
        for digest in [sha256(EMPTY_INDEX), sha512(EMPTY_INDEX)] {
            let tags: Vec<String> = (0..12).map(|number| format!("{}-{number}", digest.algorithm())).collect();
            let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
            let path = format!("/v2/{repository}/manifests/{digest}?{}", query.join("&"));
            let answer = conn.put(&path, EMPTY_INDEX).await.expect(201);
            let told: Vec<_> = answer.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
            assert_eq!(told, tags);
            for tag in &tags {
                let answer = conn.head(&format!("/v2/{repository}/manifests/{tag}")).await.expect(200);
                assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            }
        }
        let digest = sha256(EMPTY_INDEX);
        let many = |n: usize| (0..n).map(|number| format!("tag=many-{number}")).collect::<Vec<_>>().join("&");
        let path = format!("/v2/{repository}/manifests/{digest}");
        conn.put(&format!("{path}?{}", many(32)), EMPTY_INDEX).await.expect(201);
        conn.put(&format!("{path}?{}", many(33)), EMPTY_INDEX).await.expect_error(414, "UNSUPPORTED");
        let path = format!("/v2/{repository}/manifests/{digest}?tag=good&tag=-bad");
        conn.put(&path, EMPTY_INDEX).await.expect_error(400, "MANIFEST_INVALID");
        conn.head(&format!("/v2/{repository}/manifests/good")).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn missing_config_and_layers_are_named() {
    on_both(async |conn, repository| {
        let image = Image::new(4, &[10, 20]);
        conn.push_blob(repository, &image.layers[0].bytes).await;
        // In the registry, not in this repository.
        conn.push_blob("elsewhere", &image.layers[1].bytes).await;
        let put = put_as(conn, repository, "tag", OCI_MANIFEST, &image.manifest.bytes).await;
        let missing = [image.config.digest.to_string(), image.layers[1].digest.to_string()];
        assert_eq!(put.json()["errors"][0]["detail"]["digests"], json!(missing));
        let message = put.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
        assert!(missing.iter().all(|digest| message.contains(digest)), "{message}");
        conn.get(&format!("/v2/{repository}/manifests/tag")).await.expect_error(404, "MANIFEST_UNKNOWN");
        push_image(conn, repository, &image, "tag").await.expect(201);
    })
    .await;
}

/// A manifest of many layers must cost no more than its size: the answer, too, is bounded.
#[tokio::test]
async fn thousands_of_missing_layers() {
    on_both(async |conn, repository| {
        let layers: Vec<Value> = (0..20_000_u32).map(|number| descriptor("x/y", &number.to_be_bytes())).collect();
        let manifest = json!({"schemaVersion": 2, "config": descriptor("x/y", b"config"), "layers": layers});
        let answer = put_as(conn, repository, "tag", OCI_MANIFEST, &to_bytes(&manifest)).await;
        assert!(answer.body.len() < 64 << 10, "{} bytes", answer.body.len());
        let message = answer.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
        assert!(message.contains("and 19901 more"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn the_type_must_be_one() {
    on_both(async |conn, repository| {
        for content_type in [OCI_MANIFEST, DOCKER_LIST, "application/json", "text/plain", ""] {
            put_as(conn, repository, "tag", content_type, EMPTY_INDEX).await.expect_error(400, "MANIFEST_INVALID");
        }
        // Parameters and case are no part of a type, and a client may leave the header out.
        for content_type in
            ["application/vnd.oci.image.index.v1+json; charset=utf-8", "APPLICATION/vnd.oci.image.index.v1+JSON"]
        {
            put_as(conn, repository, "tag", content_type, EMPTY_INDEX).await.expect(201);
        }
        conn.put_manifest(repository, "tag", EMPTY_INDEX).await.expect(201);
        let not_text = request("PUT", &format!("/v2/{repository}/manifests/tag"))
            .header("content-type", http::HeaderValue::from_bytes(b"application/\xff").unwrap());
        conn.send(not_text.body(full(EMPTY_INDEX)).unwrap()).await.expect_error(400, "MANIFEST_INVALID");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_manifest() {
    let home = on_both(async |conn, repository| {
        let schema1 =
            format!(r#"{{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[{{"blobSum":"{}"}}]}}"#, sha256(b""));
        let header = json!({"schemaVersion": 2, "mediaType": "application/\r\nx: y", "config": descriptor("x/y", b"")});
        for body in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            "\u{feff}{}",
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":3,"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"config":null,"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:00"}]}"#,
            r#"{"schemaVersion":2,"manifests":[]} trailing"#,
            &schema1,
            &header.to_string(),
            &format!(r#"{{"schemaVersion":2,"manifests":{}"#, "[".repeat(200_000)),
        ] {
            conn.put_manifest(repository, "tag", body.as_bytes()).await.expect_error(400, "MANIFEST_INVALID");
        }
    })
    .await;
    assert!(home.stored().is_empty(), "{:?}", home.stored());
}

fn padded(bytes: usize) -> Vec<u8> {
    let open = r#"{"schemaVersion":2,"manifests":[],"annotations":{"x":""#;
    format!("{open}{}\"}}}}", "x".repeat(bytes - open.len() - 3)).into_bytes()
}

#[tokio::test]
async fn at_the_limit_and_one_past_it() {
    on_both(async |conn, repository| {
        let largest = padded(MAX_BYTES);
        conn.put_manifest(repository, "largest", &largest).await.expect(201);
        assert_eq!(conn.get(&format!("/v2/{repository}/manifests/largest")).await.expect(200).body, largest);
    })
    .await;
    on_both(async |conn, repository| {
        conn.put_manifest(repository, "more", &padded(MAX_BYTES + 1)).await.expect_error(413, "SIZE_INVALID");
    })
    .await;
    // The same without an announced length.
    on_both(async |conn, repository| {
        let (writer, body) = crate::client::stream();
        let writing = tokio::spawn(async move {
            for piece in padded(MAX_BYTES + 1).chunks(65_536) {
                writer.write(piece.to_vec()).await;
            }
        });
        let put = request("PUT", &format!("/v2/{repository}/manifests/more")).body(body).unwrap();
        conn.send(put).await.expect_error(413, "SIZE_INVALID");
        writing.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn under_a_digest_that_is_not_its_own() {
    let home = on_both(async |conn, repository| {
        for digest in [sha256(b"other"), sha512(b"other")] {
            let message = conn.put_manifest(repository, &digest.to_string(), EMPTY_INDEX).await;
            let message = message.expect_error(400, "DIGEST_INVALID");
            assert!(message.contains(&digest.to_string()), "{message}");
        }
    })
    .await;
    assert!(home.stored().is_empty() && home.leftovers().is_empty());
}

#[tokio::test]
async fn what_the_peer_has_is_not_sent_again() {
    on_both(async |conn, repository| {
        conn.put_manifest(repository, "tag", EMPTY_INDEX).await.expect(201);
        let path = format!("/v2/{repository}/manifests/tag");
        let etag = format!("\"{}\"", sha256(EMPTY_INDEX));
        for method in ["GET", "HEAD"] {
            let known = request(method, &path).header("if-none-match", &etag).body(empty()).unwrap();
            let answer = conn.send(known).await.expect(304);
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("etag"), etag);
            let other = request(method, &path).header("if-none-match", "\"sha256:0\"").body(empty()).unwrap();
            conn.send(other).await.expect(200);
        }
    })
    .await;
}

#[tokio::test]
async fn accept_neither_converts_nor_hides() {
    on_both(async |conn, repository| {
        let image = Image::with_flavor(Flavor::Docker, 5, &[10]);
        push_image(conn, repository, &image, "tag").await.expect(201);
        let path = format!("/v2/{repository}/manifests/tag");
        for accept in
            [OCI_MANIFEST, OCI_INDEX, "text/html", "*/*", "", "application/vnd.docker.distribution.manifest.v1+json"]
        {
            let answer =
                conn.send(request("GET", &path).header("accept", accept).body(empty()).unwrap()).await.expect(200);
            assert_eq!(answer.body, image.manifest.bytes, "{accept}");
            assert_eq!(answer.header("content-type"), image.manifest.media_type);
        }
    })
    .await;
}

#[tokio::test]
async fn a_tag_moves() {
    on_both(async |conn, repository| {
        let (one, two) = (padded(100), padded(101));
        conn.put_manifest(repository, "latest", &one).await.expect(201);
        conn.put_manifest(repository, "latest", &two).await.expect(201);
        check_stored(conn, repository, "latest", OCI_INDEX, &two).await;
        check_stored(conn, repository, &sha256(&one).to_string(), OCI_INDEX, &one).await;
    })
    .await;
}

#[tokio::test]
async fn deleted_by_tag_and_by_digest() {
    on_both(async |conn, repository| {
        let manifests = format!("/v2/{repository}/manifests");
        let (body, other) = (padded(100), padded(101));
        for tag in ["one", "two", "three"] {
            conn.put_manifest(repository, tag, &body).await.expect(201);
        }
        conn.put_manifest(repository, "other", &other).await.expect(201);
        conn.delete(&format!("{manifests}/one")).await.expect(202);
        conn.get(&format!("{manifests}/one")).await.expect_error(404, "MANIFEST_UNKNOWN");
        check_stored(conn, repository, "two", OCI_INDEX, &body).await;
        // By digest: with every tag that points to it.
        let digest = sha256(&body);
        conn.delete(&format!("{manifests}/{digest}")).await.expect(202);
        for reference in ["two", "three", &digest.to_string()] {
            conn.get(&format!("{manifests}/{reference}")).await.expect_error(404, "MANIFEST_UNKNOWN");
            conn.delete(&format!("{manifests}/{reference}")).await.expect_error(404, "MANIFEST_UNKNOWN");
        }
        check_stored(conn, repository, "other", OCI_INDEX, &other).await;
        conn.delete("/v2/no/such/manifests/tag").await.expect_error(404, "MANIFEST_UNKNOWN");
    })
    .await;
}

#[tokio::test]
async fn only_in_its_own_repository() {
    on_both(async |conn, repository| {
        conn.put_manifest(repository, "tag", EMPTY_INDEX).await.expect(201);
        for path in ["tag".to_owned(), sha256(EMPTY_INDEX).to_string()] {
            let path = format!("/v2/{repository}/other/manifests/{path}");
            conn.get(&path).await.expect_error(404, "MANIFEST_UNKNOWN");
            assert!(conn.head(&path).await.expect(404).body.is_empty());
        }
    })
    .await;
}
