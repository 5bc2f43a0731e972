//! How a server stops, how much it takes at once, and both protocols under load.

use std::time::Duration;

use http_body_util::BodyExt;
use portcullis_testkit::image::{Image, random_bytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Conn, Protocol, empty, request};
use crate::fixture::{Home, Site, tcp, until, within};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const LARGE: usize = 48 << 20;

#[tokio::test]
async fn a_stop_lets_a_slow_get_finish() {
    for protocol in BOTH {
        let mut site = Site::start().await;
        let bytes = random_bytes(1, LARGE);
        let mut conn = site.admin().connect(protocol).await;
        let digest = conn.push_blob("team/app", &bytes).await;
        let get = request("GET", &format!("/v2/team/app/blobs/{digest}")).body(empty()).unwrap();
        let mut body = conn.begin(get).await.unwrap().into_body();
        let first = within("the first bytes", body.frame()).await.unwrap().unwrap().into_data().unwrap();
        let mut idle = site.admin().connect(protocol).await;
        idle.get("/v2/").await.expect(200);
        site.begin_stop();
        // Who waits for nothing is let go at once, and nobody new comes in.
        idle.closed().await;
        assert!(tokio::net::TcpStream::connect(site.address).await.is_err());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let rest = within("the rest of the body", body.collect()).await.unwrap().to_bytes();
        assert!([first, rest].concat() == bytes, "another blob came");
        conn.closed().await;
        site.stopped().await;
    }
}

#[tokio::test]
async fn drain_timeout_cuts_who_never_ends() {
    for protocol in BOTH {
        let mut site = Home::with_limits("drain_timeout = \"500ms\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        let digest = conn.push_blob("team/app", &random_bytes(2, LARGE)).await;
        let get = request("GET", &format!("/v2/team/app/blobs/{digest}")).body(empty()).unwrap();
        let body = conn.begin(get).await.unwrap().into_body();
        site.begin_stop();
        site.stopped().await;
        assert!(within("the body ends", body.collect()).await.is_err(), "{protocol}");
    }
}

/// A handshake that has begun must not keep a stop from ending.
#[tokio::test]
async fn a_stop_does_not_wait_for_handshakes() {
    let site = Home::with_limits("drain_timeout = \"500ms\"").serve().await;
    let _stalled = tcp(site.address).await;
    site.stopped().await;
}

#[tokio::test]
async fn the_same_home_again() {
    let mut site = Site::start().await;
    let image = Image::new(3, &[5000]);
    push(&site.admin().http1().await, "team/app", &image).await;
    for protocol in BOTH {
        site = site.stopped().await.serve().await;
        pull(&site.admin().connect(protocol).await, "team/app", &image).await;
    }
}

#[tokio::test]
async fn push_by_one_protocol_and_pull_by_the_other() {
    let site = Site::start().await;
    for (pushing, pulling) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let image = Image::new(4, &[100, 2_000_000, 0]);
        let repository = format!("team/{pushing}");
        push(&site.admin().connect(pushing).await, &repository, &image).await;
        pull(&site.alice().connect(pulling).await, &repository, &image).await;
    }
}

async fn push(conn: &Conn, repository: &str, image: &Image) {
    for blob in image.blobs() {
        let location = conn.start_upload(repository).await;
        conn.patch(&location, blob.bytes.clone()).await.expect(202);
        conn.put(&format!("{location}?digest={}", blob.digest), "").await.expect(201);
    }
    conn.put_manifest(repository, "latest", &image.manifest.bytes).await.expect(201);
}

async fn pull(conn: &Conn, repository: &str, image: &Image) {
    let manifest = conn.get(&format!("/v2/{repository}/manifests/latest")).await.expect(200);
    assert_eq!(manifest.body, image.manifest.bytes);
    for blob in image.blobs() {
        assert!(conn.get(&format!("/v2/{repository}/blobs/{}", blob.digest)).await.expect(200).body == blob.bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_gets_at_once() {
    let site = Site::start().await;
    let bytes = random_bytes(5, 1_500_000);
    let digest = site.admin().http1().await.push_blob("team/app", &bytes).await;
    let path = format!("/v2/team/app/blobs/{digest}");
    let shared = std::sync::Arc::new(site.alice().http2().await);
    let mut gets = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (own, shared) = (site.alice().http1().await, std::sync::Arc::clone(&shared));
        let (own_path, shared_path) = (path.clone(), path.clone());
        gets.spawn(async move { own.get(&own_path).await.expect(200).body });
        gets.spawn(async move { shared.get(&shared_path).await.expect(200).body });
    }
    let all = within("all of them", gets.join_all()).await;
    assert_eq!(all.len(), 64);
    assert!(all.iter().all(|body| *body == bytes));
}

#[tokio::test]
async fn connections_per_address() {
    let site = Home::with_limits("connections_per_address = 2").serve().await;
    let client = site.admin();
    let first = client.http1().await;
    let second = client.http1().await;
    first.get("/v2/").await.expect(200);
    second.get("/v2/").await.expect(200);
    assert!(client.tls(Protocol::Http1).await.is_err(), "a third one came in");
    site.admin().http1().await.get("/v2/").await.expect(200);
    drop(first);
    // Its place is free as soon as the server has seen it go.
    within("a place", async {
        while client.tls(Protocol::Http1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    second.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn plain_http_is_told_so() {
    let site = Site::start().await;
    let mut stream = tcp(site.address).await;
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: registry.test\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"), "{answer}");
}

/// TLS 1.3 lets a client send before it is judged: what it sent must not turn the alert into a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_peer_sees_the_alert_whatever_it_has_sent() {
    let site = Site::start().await;
    let stranger = portcullis_testkit::pki::Authority::new("stranger").client("mallory");
    for (client, alert) in [(site.client(&stranger), "UnknownCA"), (site.anonymous(), "CertificateRequired")] {
        for round in 0..50 {
            let mut stream = client.tls(Protocol::Http1).await.unwrap();
            let head = "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n";
            let sent = async {
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&vec![0; 1 << 20]).await?;
                stream.flush().await
            };
            within("the body is taken", sent).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
            let error = within("the alert", stream.read(&mut [0])).await.expect_err("let in");
            assert!(error.to_string().contains(alert), "round {round}: {error}");
        }
    }
}

#[tokio::test]
async fn an_abandoned_upload_is_thrown_away() {
    let site = Home::with_storage("upload_expiry = \"1s\"").serve().await;
    let conn = site.admin().http1().await;
    let location = conn.start_upload("team/app").await;
    conn.get(&location).await.expect(204);
    until("nothing is left of it", || site.home.leftovers().is_empty()).await;
    conn.get(&location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn no_upload_is_thrown_away_in_read_only_mode() {
    let site = Site::start().await;
    site.admin().http1().await.start_upload("team/app").await;
    let mut home = site.stopped().await;
    home.storage = "upload_expiry = \"1s\"\nmode = \"read-only\"\n".to_owned();
    let mut site = home.serve().await;
    tokio::time::sleep(Duration::from_millis(2500)).await; // time enough to get it wrong
    assert!(!site.home.leftovers().is_empty(), "it expired");
    // What was held up then goes.
    site.home.storage.clear();
    site.home.write_config("mode = \"read-write\"\n");
    site.reload();
    until("nothing is left of it", || site.home.leftovers().is_empty()).await;
}
