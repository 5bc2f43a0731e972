//! Listing tags.

use serde_json::json;

use crate::client::Conn;
use crate::fixture::on_both;

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

async fn push_tags(conn: &Conn, repository: &str, tags: &[&str]) {
    for tag in tags {
        conn.put_manifest(repository, tag, INDEX).await.expect(201);
    }
}

#[tokio::test]
async fn in_byte_order() {
    on_both(async |conn, repository| {
        push_tags(conn, repository, &["b", "a", "B", "_x", "10", "9", "a.b", "a-b"]).await;
        let answer = conn.get(&format!("/v2/{repository}/tags/list")).await.expect(200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(answer.headers.get("link").is_none());
        assert_eq!(answer.json(), json!({"name": repository, "tags": ["10", "9", "B", "_x", "a", "a-b", "a.b", "b"]}));
    })
    .await;
}

/// HEAD has what GET has, but the body.
#[tokio::test]
async fn asked_for_with_head() {
    on_both(async |conn, repository| {
        push_tags(conn, repository, &["a", "b"]).await;
        for path in [
            format!("/v2/{repository}/tags/list?n=1"),
            "/v2/_catalog?n=1".to_owned(),
            format!("/v2/{repository}/referrers/{}", crate::fixture::sha256(INDEX)),
        ] {
            let (got, head) = (conn.get(&path).await.expect(200), conn.head(&path).await.expect(200));
            assert!(head.body.is_empty());
            assert_eq!(head.header("content-length"), got.body.len().to_string(), "{path}");
            for name in ["content-type", "link"] {
                assert_eq!(head.headers.get(name), got.headers.get(name), "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn pages() {
    on_both(async |conn, repository| {
        push_tags(conn, repository, &["t1", "t2", "t3", "t4", "t5"]).await;
        let mut path = format!("/v2/{repository}/tags/list?n=2");
        let mut pages = Vec::new();
        loop {
            let answer = conn.get(&path).await.expect(200);
            pages.push(answer.json()["tags"].clone());
            let Some(next) = answer.next_page() else { break };
            path = next;
        }
        assert_eq!(pages, [json!(["t1", "t2"]), json!(["t3", "t4"]), json!(["t5"])]);
    })
    .await;
}

#[tokio::test]
async fn last_and_n() {
    on_both(async |conn, repository| {
        push_tags(conn, repository, &["a", "b", "c"]).await;
        for (query, expected, more) in [
            ("last=a", json!(["b", "c"]), false),
            ("last=aa", json!(["b", "c"]), false),
            ("last=c", json!([]), false),
            ("last=../../x", json!(["a", "b", "c"]), false),
            ("n=1&last=a", json!(["b"]), true),
            ("n=3", json!(["a", "b", "c"]), false),
            ("n=4000000000", json!(["a", "b", "c"]), false),
            ("n=0", json!([]), false),
            ("unknown=1", json!(["a", "b", "c"]), false),
        ] {
            let answer = conn.get(&format!("/v2/{repository}/tags/list?{query}")).await.expect(200);
            assert_eq!(answer.json()["tags"], expected, "{query}");
            assert_eq!(answer.headers.get("link").is_some(), more, "{query}");
        }
        for query in ["n=x", "n=-1", "n=", "n=1&n=2", "last=a&last=b"] {
            conn.get(&format!("/v2/{repository}/tags/list?{query}")).await.expect_error(400, "UNSUPPORTED");
        }
    })
    .await;
}

#[tokio::test]
async fn of_no_repository_and_of_one_without_tags() {
    on_both(async |conn, repository| {
        let path = format!("/v2/{repository}/tags/list");
        conn.get(&path).await.expect_error(404, "NAME_UNKNOWN");
        conn.push_blob(repository, b"a layer").await;
        assert_eq!(conn.get(&path).await.expect(200).json()["tags"], json!([]));
        push_tags(conn, repository, &["only"]).await;
        conn.delete(&format!("/v2/{repository}/manifests/only")).await.expect(202);
        assert_eq!(conn.get(&path).await.expect(200).json()["tags"], json!([]));
    })
    .await;
}
