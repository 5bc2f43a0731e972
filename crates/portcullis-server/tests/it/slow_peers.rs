//! Every wait has a deadline: peers that stall, at each place where one can.

use std::time::Duration;

use portcullis_testkit::image::random_bytes;
use portcullis_testkit::pki::Pair;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Protocol, empty, own_address, request, stream, tcp_from};
use crate::fixture::{Home, Site, fingerprint, tcp, until, within};
use crate::log;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
/// Nobody but the CA's clients may anything.
const NARROWED: &str = "[[rule]]\nca = \"clients\"\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n";

/// Everything until the server closes, however it does.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = within("the server closes the connection", stream.read_to_end(&mut all)).await;
    all
}

#[tokio::test]
async fn a_handshake_that_never_begins_or_never_ends() {
    let site = Home::with_limits("handshake_timeout = \"500ms\"").serve().await;
    let mut silent = tcp(site.address).await;
    // A record's head that announces more than ever comes.
    let mut stalled = tcp(site.address).await;
    stalled.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut plain = tcp(site.address).await;
    plain.write_all(b"G").await.unwrap();
    for stream in [&mut silent, &mut stalled, &mut plain] {
        until_closed(stream).await;
    }
    site.admin().http1().await.get("/v2/").await.expect(200);
}

/// Peers that only hold a connection open must not take everybody's turn.
#[tokio::test]
async fn stalled_handshakes_do_not_keep_others_from_theirs() {
    let site = Home::with_limits("handshakes = 4\nhandshake_timeout = \"5s\"").serve().await;
    let (strangers, mut silent) = (own_address(), Vec::new());
    for _ in 0..10 {
        silent.push(tcp_from(strangers, site.address).await.unwrap());
    }
    site.admin().from(strangers).http1().await.get("/v2/").await.expect(200);
    // Those who have begun take the turns of their own address only.
    for stream in &mut silent {
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    site.admin().http1().await.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn an_idle_connection() {
    for protocol in BOTH {
        let site = Home::with_limits("idle_timeout = \"500ms\"").serve().await;
        let mut conn = site.admin().connect(protocol).await;
        conn.get("/v2/").await.expect(200);
        conn.closed().await;
        // One that never asks anything.
        site.admin().connect(protocol).await.closed().await;
    }
}

/// Idle is idle: the deadline of a request's head begins with its first byte.
#[tokio::test]
async fn idle_for_longer_than_header_timeout() {
    for protocol in BOTH {
        let site = Home::with_limits("header_timeout = \"300ms\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(800)).await;
            conn.get("/v2/").await.expect(200);
        }
    }
}

/// A request that takes longer than `idle_timeout` is not idle.
#[tokio::test]
async fn a_long_request_is_not_idle() {
    for protocol in BOTH {
        let site = Home::with_limits("idle_timeout = \"300ms\"\nheader_timeout = \"300ms\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        let location = conn.start_upload("team/app").await;
        let (writer, body) = stream();
        let patch = request("PATCH", &location).body(body).unwrap();
        let sending = tokio::spawn(async move { conn.send(patch).await });
        for _ in 0..6 {
            assert!(writer.write("piece").await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        drop(writer);
        assert_eq!(sending.await.unwrap().expect(202).header("range"), "0-29");
    }
}

#[tokio::test]
async fn a_head_that_stalls_or_drips() {
    let site = Home::with_limits("header_timeout = \"700ms\"").serve().await;
    let mut stalled = site.admin().tls(Protocol::Http1).await.unwrap();
    stalled.write_all(b"GET /v2/ HTTP/1.1\r\nhost: ").await.unwrap();
    until_closed(&mut stalled).await;
    // After a whole request, and one byte at a time.
    let mut dripping = site.admin().tls(Protocol::Http1).await.unwrap();
    dripping.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within("an answer", dripping.read_exact(&mut answer)).await.unwrap();
    let (mut read, mut write) = tokio::io::split(dripping);
    let drip = tokio::spawn(async move {
        for byte in b"GET /v2/ HTTP/1.1\r\n".iter().chain(b"x: y\r\n".iter().cycle()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    until_closed(&mut read).await;
    drip.abort();
}

#[tokio::test]
async fn a_body_that_stalls_gets_408() {
    for protocol in BOTH {
        let site = Home::with_limits("body_timeout = \"500ms\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        let location = conn.start_upload("team/app").await;
        for (method, path) in [("PATCH", location.as_str()), ("PUT", "/v2/team/app/manifests/tag")] {
            let conn = site.admin().connect(protocol).await;
            let (writer, body) = stream();
            assert!(writer.write("the first piece").await);
            let answer = conn.send(request(method, path).body(body).unwrap()).await;
            answer.expect_error(408, "BLOB_UPLOAD_INVALID");
            drop(writer);
        }
        assert_eq!(conn.get(&location).await.expect(204).header("range"), "0-0");
    }
}

/// A peer that does not read its answer holds the server's memory: not for longer than `body_timeout`.
#[tokio::test]
async fn an_answer_that_nobody_reads() {
    let site = Home::with_limits("body_timeout = \"700ms\"").serve().await;
    let digest = site.admin().http1().await.push_blob("team/app", &random_bytes(1, 48 << 20)).await;
    let mut stream = site.alice().tls(Protocol::Http1).await.unwrap();
    let get = format!("GET /v2/team/app/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let got = until_closed(&mut stream).await.len();
    assert!(got < 48 << 20, "all {got} bytes came");
}

/// Over HTTP/2 the peer's window stops the stream, not the socket.
#[tokio::test]
async fn an_http2_answer_that_nobody_reads() {
    let mut home = Home::with_limits("body_timeout = \"700ms\"");
    home.top = "probe = \"off\"\n".to_owned();
    let socket = home.path("run/admin.sock");
    let site = home.serve().await;
    let digest = site.admin().http1().await.push_blob("team/app", &random_bytes(1, 48 << 20)).await;
    let mut conn = site.alice().http2().await;
    let get = request("GET", &format!("/v2/team/app/blobs/{digest}")).body(empty()).unwrap();
    let body = conn.begin(get).await.unwrap().into_body();
    conn.closed().await;
    drop(body);
    let status = portcullis_server::admin::status(&socket).await.unwrap();
    assert!(status.connections <= 1, "{status:?}");
}

/// Who has stalled is not looked at when its next bytes come: they may never come. `body_timeout` is far above a test's
/// patience.
#[tokio::test]
async fn a_sender_that_has_stalled_is_stopped_when_it_is_denied() {
    for protocol in BOTH {
        for what in ["upload", "manifest"] {
            let site = Home::with_limits("body_timeout = \"10m\"").serve().await;
            let mut conn = site.admin().connect(protocol).await;
            let location = conn.start_upload("team/app").await;
            let (method, path) = match what {
                "upload" => ("PATCH", location.as_str()),
                _ => ("PUT", "/v2/team/app/manifests/tag"),
            };
            let (writer, body) = stream();
            assert!(writer.write("the first half").await);
            let sending = conn.send(request(method, path).body(body).unwrap());
            let deny = async {
                // Denied before its first byte has come it would be refused as every request is.
                tokio::time::sleep(Duration::from_millis(700)).await;
                deny(&site, &site.home.admin);
            };
            let (answer, ()) = tokio::join!(sending, deny);
            answer.expect_error(403, "DENIED");
            conn.closed().await;
            let told = log::with("peer", &conn.local.to_string());
            let denied = told.iter().find(|line| line.fields["message"] == "request denied").unwrap();
            assert!(denied.get("reason").contains("deny list (line 1)"), "{protocol} {what}: {denied:?}");
            drop(writer);
        }
    }
}

/// Nobody polls the body of an answer that is not read.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut_when_its_peer_is_denied() {
    for protocol in BOTH {
        for narrowed in [false, true] {
            let site = Home::with_limits("body_timeout = \"10m\"").serve().await;
            let digest = site.admin().http1().await.push_blob("team/app", &random_bytes(1, 48 << 20)).await;
            let mut conn = site.alice().connect(protocol).await;
            let get = request("GET", &format!("/v2/team/app/blobs/{digest}")).body(empty()).unwrap();
            let body = conn.begin(get).await.unwrap().into_body();
            // Until both sockets, or the stream's window, are full.
            tokio::time::sleep(Duration::from_millis(700)).await;
            if narrowed {
                site.home.write_policy(NARROWED);
            } else {
                deny(&site, &site.home.alice);
            }
            let peer = conn.local.to_string();
            let cut = || log::with("peer", &peer).into_iter().find(|line| line.fields["message"] == "an answer is cut");
            until("the cut is told", || cut().is_some()).await;
            assert_eq!(cut().unwrap().get("repository"), "team/app");
            let ended = || log::with("peer", &peer).into_iter().find(|line| line.fields["message"] == "request");
            until("the request ends", || ended().is_some()).await;
            assert_eq!(ended().unwrap().get("complete"), "false", "{protocol}");
            let got = within("the body ends", http_body_util::BodyExt::collect(body)).await;
            assert!(got.is_err(), "{protocol}: the whole body came");
            conn.closed().await;
        }
    }
}

fn deny(site: &Site, pair: &Pair) {
    std::fs::write(site.home.path("trust/deny"), format!("{}  # test\n", fingerprint(pair))).unwrap();
}

/// Each piece of a body keeps the buffer that it was read into: single bytes must not wait for one another until half a
/// megabyte of them, and thousands of times as much in buffers, is there.
#[tokio::test]
async fn a_body_of_single_bytes_is_written_as_it_comes() {
    let site = Home::new().serve().await;
    let location = site.admin().http1().await.start_upload("team/app").await;
    let mut stream = site.admin().tls(Protocol::Http1).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 301\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..300 {
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let id = location.rsplit('/').next().unwrap();
    let data = site.home.path(&format!("data/portcullis/uploads/{id}/data"));
    until("most bytes are written", || std::fs::metadata(&data).is_ok_and(|data| data.len() > 150)).await;
    stream.write_all(b"x").await.unwrap();
    let mut answer = [0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");
}
