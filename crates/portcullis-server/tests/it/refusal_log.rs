//! What an operator reads about peers that were not let in.

use portcullis_testkit::pki::{Authority, LeafSpec, Pair};
use tracing::Level;

use crate::client::{Client, Protocol};
use crate::fixture::{Home, Site, tcp, until, within};
use crate::log::{self, Line};

/// The line about a peer that the server refuses; it appears when the server has noticed.
async fn line_about(client: &Client) -> Line {
    use tokio::io::AsyncReadExt as _;
    let mut stream = client.tls(Protocol::Http1).await.unwrap();
    let local = stream.get_ref().0.local_addr().unwrap().to_string();
    within("a refusal", stream.read(&mut [0])).await.expect_err("let in");
    until("a line in the log", || !log::with("peer", &local).is_empty()).await;
    let lines = log::with("peer", &local);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

async fn refused(site: &Site, pair: &Pair) -> Line {
    let line = line_about(&site.client(pair)).await;
    assert_eq!((line.level, line.get("message")), (Level::WARN, "client certificate refused"));
    assert_eq!(line.get("key_proven"), "false");
    line
}

#[tokio::test]
async fn a_refused_certificate_with_everything_it_claims() {
    let site = Site::start().await;
    let ca = Authority::new("Their CA");
    let serial = vec![0x4f, 0x00, 0x9c];
    let mallory = ca.issue(&LeafSpec { serial: Some(serial), ..LeafSpec::client("mallory") });
    let line = refused(&site, &mallory).await;
    assert_eq!((line.get("subject"), line.get("issuer")), ("CN=mallory", "CN=Their CA"));
    assert_eq!(line.get("serial"), "4f009c");
    let der = rustls_pki_types::CertificateDer::from(mallory.cert_der().to_vec());
    let fingerprint = portcullis_certs::Certificate::from_der(der).unwrap().fingerprint().to_string();
    assert_eq!(line.get("fingerprint"), fingerprint);
    assert!(line.get("reason").contains("not trusted here"), "{line:?}");
}

/// Nothing of it is proven yet: a stranger fills no disk with it.
#[tokio::test]
async fn what_a_stranger_claims_is_cut() {
    let site = Site::start().await;
    let (ca, long) = (Authority::new(&"\u{1b}".repeat(10_000)), "x".repeat(10_000));
    let line = refused(&site, &ca.client(&long)).await;
    for (field, begin) in [("subject", "CN=xxx"), ("issuer", "CN=\\u{1b}")] {
        assert!(line.get(field).starts_with(begin) && line.get(field).chars().count() < 200, "{line:?}");
    }
    assert!(line.get("told").len() < 1500, "{line:?}");
}

#[tokio::test]
async fn each_reason() {
    let site = Site::start().await;
    let home = &site.home;
    let child = home.alice.mint(&LeafSpec::client("child of a pin"));
    for (pair, reason) in [
        (home.client_ca.issue(&LeafSpec::client("a").expired()), "expired"),
        (home.client_ca.issue(&LeafSpec::client("a").not_yet_valid()), "not valid before"),
        (home.client_ca.issue(&LeafSpec::client("a").server_auth_only()), "clientAuth"),
        (portcullis_testkit::pki::self_signed_client("a"), "not pinned"),
        (child, "pin:alice"),
    ] {
        let line = refused(&site, &pair).await;
        assert!(line.get("reason").contains(reason), "{reason}: {line:?}");
    }
}

#[tokio::test]
async fn text_that_would_forge_a_line_is_made_visible() {
    let site = Site::start().await;
    let hostile = "ok\u{1b}[2J\r\n2026-01-01 INFO admin logged in\u{202e}\u{7f}";
    let spec = LeafSpec { organizations: vec![hostile.to_owned()], ..LeafSpec::client(hostile) };
    let ca = Authority::new(hostile);
    let line = refused(&site, &ca.issue(&spec)).await;
    for field in ["subject", "issuer", "reason"] {
        let text = line.get(field);
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{field}: {text:?}");
    }
    assert!(line.get("subject").contains("\\u{1b}"), "{line:?}");
}

/// A peer that holds its connection open after the alert is logged like any other.
#[tokio::test]
async fn a_refused_peer_that_stays() {
    let site = Home::with_limits("handshake_timeout = \"500ms\"").serve().await;
    let stranger = Authority::new("stranger").client("mallory");
    let stream = site.client(&stranger).tls(Protocol::Http1).await.unwrap();
    let local = stream.get_ref().0.local_addr().unwrap().to_string();
    until("a line in the log", || !log::with("peer", &local).is_empty()).await;
    assert_eq!(log::with("peer", &local)[0].get("message"), "client certificate refused");
    drop(stream);
}

#[tokio::test]
async fn no_certificate() {
    let site = Site::start().await;
    let line = line_about(&site.anonymous()).await;
    assert_eq!((line.level, line.get("message")), (Level::WARN, "handshake failed"));
    assert!(line.get("reason").contains("no client certificate was presented"), "{line:?}");
}

/// The client that does not trust us: its alert is told in words, and its bytes are not.
#[tokio::test]
async fn a_client_that_refuses_us() {
    let site = Site::start().await;
    let client = Client::new(site.address, &Authority::new("another CA"), Some(&site.home.admin));
    let before = log::with("message", "handshake failed").len();
    assert!(client.tls(Protocol::Http1).await.is_err());
    until("a line in the log", || {
        let lines = log::with("message", "handshake failed");
        lines.len() > before && lines.iter().any(|line| line.get("reason").contains("lacks our ca.crt"))
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_tls() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let site = Home::with_limits("handshake_timeout = \"2s\"").serve().await;
    for bytes in
        [&b"\x1b[2J\n\n\n\n\n\n\n\n\n\n"[..], b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut stream = tcp(site.address).await;
        let local = stream.local_addr().unwrap().to_string();
        stream.write_all(bytes).await.unwrap();
        let _ = within("the end", stream.read_to_end(&mut Vec::new())).await;
        until("a line in the log", || !log::with("peer", &local).is_empty()).await;
        let line = log::with("peer", &local).remove(0);
        assert_eq!(line.get("message"), "handshake failed", "{bytes:?}");
        assert!(!line.get("reason").chars().any(char::is_control), "{line:?}");
    }
}

/// Who asked for what, in one line, with nothing in it that could be another one.
#[tokio::test]
async fn the_access_log() {
    let site = Site::start().await;
    let conn = site.alice().http1().await;
    conn.get("/v2/team/app/tags/list?n=1").await.expect(404);
    conn.get("/v2/%1b%0a/tags/list").await.expect(400);
    let lines = log::with("peer", &conn.local.to_string());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((lines[0].level, lines[0].get("message")), (Level::INFO, "request"));
    assert!(lines[0].get("who").starts_with("pin:alice (sha256:"), "{lines:?}");
    assert_eq!(
        (lines[0].get("method"), lines[0].get("path"), lines[0].get("status")),
        ("GET", "/v2/team/app/tags/list", "404")
    );
    assert!(!lines[1].get("path").contains('\u{1b}'), "{lines:?}");
    // Who is no longer trusted was somebody.
    site.home.remove_pin("alice");
    site.reload();
    conn.get("/v2/team/app/tags/list").await.expect(403);
    until("the line", || {
        let lines = log::with("peer", &conn.local.to_string());
        lines.iter().any(|line| {
            line.get("message") == "request" && line.get("status") == "403" && line.get("who").starts_with("pin:alice")
        })
    })
    .await;
}
