//! `GET /v2/`.

use crate::client::{Protocol, empty, request};
use crate::fixture::{Home, Site, on_both};

#[tokio::test]
async fn every_trusted_peer_gets_200_whatever_the_policy() {
    let home = Home::new();
    home.write_policy("[[rule]]\nca = \"nobody\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    let site = home.serve().await;
    for client in [site.admin(), site.alice()] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let conn = client.connect(protocol).await;
            for path in ["/v2/", "/v2"] {
                let answer = conn.get(path).await.expect(200);
                assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
                assert_eq!(answer.header("x-content-type-options"), "nosniff");
                assert_eq!(answer.json(), serde_json::json!({}));
            }
            assert!(conn.head("/v2/").await.expect(200).body.is_empty());
        }
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    on_both(async |conn, _| {
        for _ in 0..20 {
            conn.get("/v2/").await.expect(200);
        }
        assert!(!conn.is_closed());
    })
    .await;
}

/// A body that nobody asked for must not be taken for the next request.
#[tokio::test]
async fn a_get_with_a_body_does_not_poison_the_connection() {
    let site = Site::start().await;
    let conn = site.admin().http2().await;
    let body = crate::client::full("GET /v2/evil HTTP/1.1\r\n\r\n");
    conn.send(request("GET", "/v2/").body(body).unwrap()).await.expect(200);
    conn.send(request("GET", "/v2/").body(empty()).unwrap()).await.expect(200);
}
