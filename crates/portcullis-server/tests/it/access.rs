//! Who may do what: nothing that no rule allows.

use portcullis_certs::{Certificate, Fingerprint};
use portcullis_testkit::pki::{Authority, LeafSpec, Pair, self_signed_client};
use rustls_pki_types::CertificateDer;

use crate::client::{Conn, Protocol, full, request, stream};
use crate::fixture::{Home, Site, sha256};

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

fn fingerprint(pair: &Pair) -> Fingerprint {
    Certificate::from_der(CertificateDer::from(pair.cert_der().to_vec())).unwrap().fingerprint()
}

/// `pull`, `push` and `delete`, as far as the peer may there.
async fn rights(conn: &Conn, repository: &str) -> Vec<&'static str> {
    let manifest = format!("/v2/{repository}/manifests/none");
    let mut rights = Vec::new();
    for (right, method) in [("pull", "GET"), ("push", "PUT"), ("delete", "DELETE")] {
        let answer = conn.send(request(method, &manifest).body(full("")).unwrap()).await;
        if answer.status == 403 {
            answer.expect_error(403, "DENIED");
        } else {
            rights.push(right);
        }
    }
    rights
}

async fn check(conn: &Conn, repository: &str, expected: &[&str]) {
    assert_eq!(rights(conn, repository).await, expected, "{repository}");
}

#[tokio::test]
async fn each_kind_of_rule() {
    let home = Home::new();
    let one = home.client_ca.client("one");
    let (robot, robot2) = (self_signed_client("robot"), self_signed_client("robot"));
    home.add_pin("robot-1", &robot);
    home.add_pin("droid-1", &robot2);
    let other_ca = Authority::new("other CA");
    other_ca.pair.write_crt(&home.path("trust/cas"), "other");
    let stranger = other_ca.client("admin");
    home.write_policy(&format!(
        r#"
[[rule]]
ca = "clients"
repositories = ["team/**"]
allow = ["pull"]

[[rule]]
pin = "robot-*"
repositories = ["*/app"]
allow = ["push"]

[[rule]]
fingerprint = "{}"
repositories = ["own-*"]
allow = ["delete"]

[[rule]]
ca = "other"
fingerprint = "{}"
repositories = ["**"]
allow = ["pull"]
"#,
        fingerprint(&one),
        fingerprint(&one),
    ));
    let site = home.serve().await;
    let (one, robot) = (site.client(&one).http1().await, site.client(&robot).http1().await);
    check(&one, "team/a/b", &["pull"]).await;
    check(&one, "teams/a", &[]).await;
    check(&one, "own-1", &["delete"]).await;
    check(&one, "own-1/x", &[]).await;
    check(&robot, "team/app", &["push"]).await;
    check(&robot, "team/apps", &[]).await;
    check(&robot, "a/team/app", &[]).await;
    // A pin has its own name and no other; a rule for a CA is not for pins.
    check(&site.client(&robot2).http1().await, "team/app", &[]).await;
    check(&site.admin().http1().await, "team/app", &["pull"]).await;
    check(&site.admin().http1().await, "own-1", &[]).await;
    // The last rule asks for both, and no peer has both.
    check(&site.client(&stranger).http1().await, "team/app", &[]).await;
}

/// The same name in the subject gives nothing: only what made the certificate trusted counts.
#[tokio::test]
async fn a_pin_that_is_also_issued_by_the_ca_has_the_pins_rights_only() {
    let home = Home::new();
    let both = home.client_ca.client("both");
    home.add_pin("both", &both);
    let site = home.serve().await;
    check(&site.client(&both).http1().await, "team/app", &[]).await;
}

#[tokio::test]
async fn who_only_pulls_changes_nothing() {
    let site = Site::start().await;
    let admin = site.admin().http1().await;
    let blob = admin.push_blob("team/app", b"a layer").await;
    admin.put_manifest("team/app", "tag", INDEX).await.expect(201);
    let location = admin.start_upload("team/app").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let alice = site.alice().connect(protocol).await;
        alice.get(&format!("/v2/team/app/blobs/{blob}")).await.expect(200);
        alice.get("/v2/team/app/manifests/tag").await.expect(200);
        alice.get("/v2/team/app/tags/list").await.expect(200);
        let digest = sha256(b"bytes");
        for (method, path) in [
            ("PUT", "/v2/team/app/manifests/tag".to_owned()),
            ("PUT", format!("/v2/team/app/manifests/{}?tag=x", sha256(INDEX))),
            ("DELETE", "/v2/team/app/manifests/tag".to_owned()),
            ("DELETE", format!("/v2/team/app/manifests/{}", sha256(INDEX))),
            ("DELETE", format!("/v2/team/app/blobs/{blob}")),
            ("POST", "/v2/team/app/blobs/uploads/".to_owned()),
            ("POST", format!("/v2/team/app/blobs/uploads/?digest={digest}")),
            ("POST", format!("/v2/team/app/blobs/uploads/?mount={blob}&from=team/app")),
            ("GET", location.clone()),
            ("PATCH", location.clone()),
            ("PUT", format!("{location}?digest={digest}")),
            ("DELETE", location.clone()),
        ] {
            let answer = alice.send(request(method, &path).body(full("bytes")).unwrap()).await;
            answer.expect_error(403, "DENIED");
        }
        // Another repository is as if it were not there at all: the same answer whether it exists or not.
        let referrers = format!("/v2/other/referrers/{}", sha256(INDEX));
        for path in ["/v2/other/tags/list", "/v2/none/tags/list", "/v2/other/manifests/tag", &referrers] {
            alice.get(path).await.expect_error(403, "DENIED");
        }
    }
    admin.get("/v2/team/app/manifests/tag").await.expect(200);
    admin.put(&format!("{location}?digest={}", sha256(b"bytes")), "bytes").await.expect(201);
}

#[tokio::test]
async fn a_denial_describes_the_peer_and_no_rule() {
    let home = Home::new();
    let evil = LeafSpec { organizations: vec!["Evil\u{1b}[2J\nOrg".to_owned()], ..LeafSpec::client("ci\u{202e}-7") };
    let evil = home.client_ca.issue(&evil);
    home.write_policy("[[rule]]\npin = \"alice\"\nrepositories = [\"secret-*\"]\nallow = [\"pull\"]\n");
    let own = fingerprint(&evil).to_string();
    let site = home.serve().await;
    let answer = site.client(&evil).http1().await.get("/v2/team/app/tags/list").await;
    assert_eq!(
        answer.json()["errors"][0]["detail"],
        serde_json::json!({"reason": "not-allowed", "action": "pull", "repository": "team/app"})
    );
    let message = answer.expect_error(403, "DENIED");
    assert!(message.contains(&own) && message.contains("pull") && message.contains("team/app"), "{message}");
    for hidden in ["secret", "alice", "clients", "\u{1b}", "\n", "\u{202e}"] {
        assert!(!message.contains(hidden), "{hidden:?} in {message}");
    }
    let alice = site.alice().http1().await;
    let message = alice.get("/v2/team/app/tags/list").await.expect_error(403, "DENIED");
    assert!(message.starts_with("pin:alice (serial "), "{message}");
    assert!(message.contains(&fingerprint(&site.home.alice).to_string()), "{message}");
}

/// What is denied is denied before its body is asked for.
#[tokio::test]
async fn a_denied_body_is_not_asked_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let site = Site::start().await;
    let mut stream = site.alice().tls(Protocol::Http1).await.unwrap();
    let head =
        "PUT /v2/team/app/manifests/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    crate::fixture::within("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
}

/// A peer that is in the middle of a large body still sees why it is refused, not a reset.
#[tokio::test]
async fn a_denial_is_seen_in_the_middle_of_a_large_body() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let site = Site::start().await;
    for _ in 0..3 {
        let mut stream = site.alice().tls(Protocol::Http1).await.unwrap();
        let bytes = 64 << 20;
        let head = format!("PUT /v2/team/app/manifests/x HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // It may stop being taken, but the answer must have come before.
        let _ = crate::fixture::within("the body is taken or not", stream.write_all(&vec![0; bytes])).await;
        let mut answer = [0; 12];
        crate::fixture::within("an answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 403");
    }
}

/// The answer does not wait for a body that its sender is slow with.
#[tokio::test]
async fn a_denial_over_http2_does_not_wait_for_the_body() {
    let site = Site::start().await;
    let conn = site.alice().http2().await;
    let (writer, body) = stream();
    assert!(writer.write("the first piece").await);
    let put = request("PUT", "/v2/team/app/manifests/x").body(body).unwrap();
    let head = crate::fixture::within("the answer's head", conn.begin(put)).await.unwrap();
    assert_eq!(head.status(), 403);
    drop(writer);
}
