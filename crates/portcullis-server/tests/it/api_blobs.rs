//! Reading blobs.

use portcullis_testkit::image::random_bytes;

use crate::client::{Answer, Conn, Protocol, empty, request};
use crate::fixture::{Site, on_both, sha256};

async fn get_range(conn: &Conn, path: &str, range: &str) -> Answer {
    conn.send(request("GET", path).header("range", range).body(empty()).unwrap()).await
}

#[tokio::test]
async fn whole_and_head() {
    on_both(async |conn, repository| {
        let bytes = random_bytes(1, 700_000);
        let digest = conn.push_blob(repository, &bytes).await.to_string();
        let path = format!("/v2/{repository}/blobs/{digest}");
        let got = conn.get(&path).await.expect(200);
        assert_eq!(got.body, bytes);
        let head = conn.head(&path).await.expect(200);
        assert!(head.body.is_empty());
        for answer in [got, head] {
            assert_eq!(answer.header("content-length"), "700000");
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("content-type"), "application/octet-stream");
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        }
    })
    .await;
}

/// The conformance suite's ranges, on a blob that has 4000 bytes.
#[tokio::test]
async fn ranges() {
    on_both(async |conn, repository| {
        let bytes = random_bytes(2, 4000);
        let digest = conn.push_blob(repository, &bytes).await;
        let path = format!("/v2/{repository}/blobs/{digest}");
        for (range, expected, header) in [
            ("bytes=500-1499", &bytes[500..1500], "bytes 500-1499/4000"),
            ("bytes=500-", &bytes[500..], "bytes 500-3999/4000"),
            ("bytes=-500", &bytes[3500..], "bytes 3500-3999/4000"),
            ("bytes=2000-5000", &bytes[2000..], "bytes 2000-3999/4000"),
            ("bytes=0-0", &bytes[..1], "bytes 0-0/4000"),
            ("bytes=-9999", &bytes[..], "bytes 0-3999/4000"),
        ] {
            let answer = get_range(conn, &path, range).await.expect(206);
            assert_eq!(answer.body, expected, "{range}");
            assert_eq!(answer.header("content-range"), header);
            assert_eq!(answer.header("content-length"), expected.len().to_string());
        }
        for range in ["bytes=5000-10000", "bytes=500-0", "bytes=4000-", "bytes=-0"] {
            let answer = get_range(conn, &path, range).await;
            assert_eq!(answer.header("content-range"), "bytes */4000", "{range}");
            answer.expect_error(416, "SIZE_INVALID");
        }
        // RFC 9110 §14.2: what is no range, or one of a unit we do not know, is as if it were not there.
        for range in ["lines=0-1", "bytes=a-b", "bytes=0-1,3-4"] {
            assert_eq!(get_range(conn, &path, range).await.expect(200).body, bytes, "{range}");
        }
    })
    .await;
}

/// RFC 9110 §13.1.5: the range counts only while the peer's part is of this very content.
#[tokio::test]
async fn a_range_that_continues_other_content_is_the_whole() {
    on_both(async |conn, repository| {
        let bytes = random_bytes(3, 4000);
        let digest = conn.push_blob(repository, &bytes).await;
        let path = format!("/v2/{repository}/blobs/{digest}");
        for (validator, status) in [
            (format!("\"{digest}\""), 206),
            ("\"sha256:other\"".to_owned(), 200),
            ("Mon, 01 Jan 2024 00:00:00 GMT".to_owned(), 200),
        ] {
            let request = request("GET", &path).header("range", "bytes=10-19").header("if-range", &validator);
            conn.send(request.body(empty()).unwrap()).await.expect(status);
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_blob() {
    on_both(async |conn, repository| {
        let digest = conn.push_blob(repository, b"").await;
        let path = format!("/v2/{repository}/blobs/{digest}");
        let answer = conn.get(&path).await.expect(200);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("content-length"), "0");
        assert_eq!(conn.head(&path).await.expect(200).header("content-length"), "0");
        assert_eq!(get_range(conn, &path, "bytes=0-").await.expect(416).header("content-range"), "bytes */0");
    })
    .await;
}

#[tokio::test]
async fn what_the_peer_has_is_not_sent_again() {
    on_both(async |conn, repository| {
        let digest = conn.push_blob(repository, b"known").await;
        let path = format!("/v2/{repository}/blobs/{digest}");
        for (known, status) in [
            (format!("\"{digest}\""), 304),
            (format!("W/\"{digest}\""), 304),
            (format!("\"x\", \"{digest}\""), 304),
            ("*".to_owned(), 304),
            ("\"x\"".to_owned(), 200),
        ] {
            for method in ["GET", "HEAD"] {
                let request = request(method, &path).header("if-none-match", &known);
                let answer = conn.send(request.body(empty()).unwrap()).await;
                assert_eq!(answer.header("etag"), format!("\"{digest}\""));
                let answer = answer.expect(status);
                assert_eq!(answer.body.is_empty(), status == 304 || method == "HEAD");
            }
        }
        let unknown = format!("/v2/{repository}/blobs/{}", sha256(b"never pushed"));
        let request = request("GET", &unknown).header("if-none-match", "*");
        conn.send(request.body(empty()).unwrap()).await.expect_error(404, "BLOB_UNKNOWN");
    })
    .await;
}

#[tokio::test]
async fn only_through_the_repositorys_own_link() {
    on_both(async |conn, repository| {
        let digest = conn.push_blob(repository, repository.as_bytes()).await;
        for other in [format!("{repository}/below"), "team".to_owned(), "elsewhere".to_owned()] {
            let path = format!("/v2/{other}/blobs/{digest}");
            let message = conn.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
            assert!(message.contains(&digest.to_string()), "{message}");
            assert!(conn.head(&path).await.expect(404).body.is_empty());
        }
        // A manifest's bytes are stored as a blob, and are none of the repository's.
        let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
        conn.put_manifest(repository, "index", manifest).await.expect(201);
        let path = format!("/v2/{repository}/blobs/{}", sha256(manifest));
        conn.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
    })
    .await;
}

#[tokio::test]
async fn deleted_unless_a_manifest_needs_it() {
    on_both(async |conn, repository| {
        let digest = conn.push_blob(repository, b"{}").await;
        conn.push_blob("team/other", b"{}").await;
        let path = format!("/v2/{repository}/blobs/{digest}");
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{digest}","size":2}},"layers":[]}}"#);
        conn.put_manifest(repository, "tag", manifest.as_bytes()).await.expect(201);
        let refused = conn.delete(&path).await;
        assert_eq!(refused.header("allow"), "GET, HEAD");
        let message = refused.expect_error(405, "UNSUPPORTED");
        assert!(message.contains(&sha256(manifest.as_bytes()).to_string()), "{message}");
        conn.delete(&format!("/v2/{repository}/manifests/{}", sha256(manifest.as_bytes()))).await.expect(202);
        conn.delete(&path).await.expect(202);
        conn.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
        conn.delete(&path).await.expect_error(404, "BLOB_UNKNOWN");
        // Others have theirs.
        conn.get(&format!("/v2/team/other/blobs/{digest}")).await.expect(200);
    })
    .await;
}

/// The pages are thrown out of memory, as they are when a registry has more blobs than that.
#[tokio::test]
async fn what_is_not_in_memory_comes_whole_too() {
    let site = Site::start().await;
    let bytes = random_bytes(9, 5_000_000);
    let digest = site.admin().http1().await.push_blob("team/app", &bytes).await;
    let hex = digest.to_string().replace("sha256:", "");
    let data = site.home.stored().into_iter().find(|path| path.ends_with(format!("{hex}/data"))).unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let file = std::fs::File::open(&data).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let conn = site.admin().connect(protocol).await;
        let path = format!("/v2/team/app/blobs/{digest}");
        assert_eq!(get_range(&conn, &path, "bytes=100-4200000").await.expect(206).body, bytes[100..=4_200_000]);
        assert_eq!(conn.get(&path).await.expect(200).body, bytes);
    }
    site.stopped().await;
}
