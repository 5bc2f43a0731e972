//! Listing repositories: only those that the peer may pull from.

use serde_json::json;

use crate::client::Conn;
use crate::fixture::{Site, on_both};

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

async fn pages(conn: &Conn, first: &str) -> Vec<serde_json::Value> {
    let mut path = first.to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = conn.get(&path).await.expect(200);
        pages.push(answer.json()["repositories"].clone());
        let Some(next) = answer.next_page() else { return pages };
        path = next;
        assert!(pages.len() < 20, "without an end");
    }
}

#[tokio::test]
async fn only_what_the_peer_may_pull() {
    let site = Site::start().await;
    let admin = site.admin().http1().await;
    for repository in ["team/b", "a", "team/a", "team-x", "z/z"] {
        admin.put_manifest(repository, "tag", INDEX).await.expect(201);
    }
    let all = json!(["a", "team/a", "team/b", "team-x", "z/z"]);
    assert_eq!(pages(&admin, "/v2/_catalog").await, [all]);
    let alice = site.alice().http2().await;
    assert_eq!(pages(&alice, "/v2/_catalog").await, [json!(["team/a", "team/b"])]);
    // A page is full of what the peer may see, and its link gives nothing else away.
    let answer = alice.get("/v2/_catalog?n=1").await.expect(200);
    assert_eq!(answer.json(), json!({"repositories": ["team/a"]}));
    assert!(answer.header("link").contains("last=team%2Fa"), "{:?}", answer.headers);
    let paged: Vec<_> = pages(&alice, "/v2/_catalog?n=1").await;
    let names: Vec<_> = paged.iter().flat_map(|page| page.as_array().unwrap()).collect();
    assert_eq!(names, ["team/a", "team/b"]);
}

#[tokio::test]
async fn of_nothing_and_of_part() {
    on_both(async |conn, repository| {
        for query in ["n=0", "last=zzz", "last=../../x", "last=", "n=4000000000&last=zzz"] {
            let answer = conn.get(&format!("/v2/_catalog?{query}")).await.expect(200);
            assert!(answer.json()["repositories"].is_array(), "{query}");
            assert!(answer.next_page().is_none(), "{query}");
        }
        conn.get("/v2/_catalog?n=x").await.expect_error(400, "UNSUPPORTED");
        conn.put_manifest(repository, "tag", INDEX).await.expect(201);
        let all = conn.get("/v2/_catalog").await.expect(200).json();
        assert!(all["repositories"].as_array().unwrap().contains(&json!(repository)), "{all}");
    })
    .await;
}
