//! What changes while the server runs bites at once, also on what is under way.

use std::fs;
use std::time::Duration;

use http_body_util::BodyExt;
use portcullis_testkit::image::random_bytes;
use portcullis_testkit::pki::{Authority, KeyAlg, recipe_shaped, twin};

use crate::client::{Client, Protocol, empty, request, stream};
use crate::fixture::{Home, Site, fingerprint, sha256, within};
use crate::log;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const LARGE: usize = 96 << 20;
/// Nobody but a fingerprint that does not exist may do anything.
const NOBODY: &str = "[[rule]]\npin = \"nobody\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n";
/// As in the fixture, without push.
const PULL_ONLY: &str = "[[rule]]\nca = \"clients\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n";

#[tokio::test]
async fn a_removed_pin_ends_its_open_connections() {
    for protocol in BOTH {
        let site = Site::start().await;
        let mut alice = site.alice().connect(protocol).await;
        let admin = site.admin().connect(protocol).await;
        alice.get("/v2/").await.expect(200);
        site.home.remove_pin("alice");
        site.reload();
        alice.get("/v2/").await.expect_error(401, "UNAUTHORIZED");
        alice.closed().await;
        let refusal = site.alice().refusal().await;
        assert!(refusal.contains("UnknownCA"), "{refusal}");
        admin.get("/v2/").await.expect(200);
        // And back again.
        site.home.add_pin("alice", &site.home.alice);
        site.reload();
        site.alice().connect(protocol).await.get("/v2/").await.expect(200);
    }
}

#[tokio::test]
async fn a_denied_certificate_ends_its_open_connections() {
    let site = Site::start().await;
    let one = site.home.client_ca.client("one");
    let mut conn = site.client(&one).http1().await;
    let mut waiting = site.client(&one).http2().await;
    let location = conn.start_upload("team/app").await;
    waiting.get("/v2/").await.expect(200);
    fs::write(site.home.path("trust/deny"), format!("{}   # stolen\n", fingerprint(&one))).unwrap();
    site.reload();
    conn.patch(&location, "bytes").await.expect_error(403, "DENIED");
    conn.closed().await;
    waiting.get("/v2/").await.expect_error(401, "UNAUTHORIZED");
    waiting.closed().await;
    let refusal = site.client(&one).refusal().await;
    assert!(refusal.contains("CertificateRevoked"), "{refusal}");
}

/// All threads that may wait for a disk do: listings of a cold volume, a sync that hangs.
#[test]
fn a_revocation_waits_for_no_disk() {
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let site = Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() }.serve().await;
        let [one, two] = ["one", "two"].map(|name| site.home.client_ca.client(name));
        let conn = site.client(&one).http1().await;
        conn.get("/v2/").await.expect(200);
        let (free, waiting) = std::sync::mpsc::channel::<()>();
        let disk = tokio::task::spawn_blocking(move || waiting.recv());
        let deny = site.home.path("trust/deny");
        fs::write(&deny, format!("{}\n", fingerprint(&one))).unwrap();
        within("the change is seen", async {
            while conn.get("/v2/").await.status != 401 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        fs::write(&deny, format!("{}\n{}\n", fingerprint(&one), fingerprint(&two))).unwrap();
        let reloaded = within("who asks", portcullis_server::admin::reload(&site.home.path("run/admin.sock"))).await;
        assert!(reloaded.unwrap().deny_in_force);
        assert!(site.client(&two).refusal().await.contains("CertificateRevoked"));
        free.send(()).unwrap();
        disk.await.unwrap().unwrap();
    });
}

/// The signature is not part of what was signed: whoever is denied can write it anew, and has another fingerprint.
#[tokio::test]
async fn the_twin_of_a_denied_certificate_is_denied() {
    let site = Site::start().await;
    let one = site.home.client_ca.client("one");
    let other = twin(one.cert_der(), KeyAlg::P256);
    let client = Client::showing(site.address, &site.home.server_ca, &one, other.clone());
    let mut open = [client.http1().await, client.http2().await];
    for conn in &open {
        conn.get("/v2/").await.expect(200);
    }
    assert_ne!(other, one.cert_der());
    fs::write(site.home.path("trust/deny"), format!("{}\n", fingerprint(&one))).unwrap();
    site.reload();
    for conn in &mut open {
        conn.get("/v2/").await.expect_error(401, "UNAUTHORIZED");
        conn.closed().await;
    }
    for client in [&client, &site.client(&one)] {
        let refusal = client.refusal().await;
        assert!(refusal.contains("CertificateRevoked"), "{refusal}");
    }
}

#[tokio::test]
async fn a_narrowed_policy_is_asked_at_the_next_request() {
    for protocol in BOTH {
        let site = Site::start().await;
        let conn = site.admin().connect(protocol).await;
        let digest = conn.push_blob("team/app", b"bytes").await;
        let location = conn.start_upload("team/app").await;
        site.home.write_policy(PULL_ONLY);
        site.reload();
        conn.get(&format!("/v2/team/app/blobs/{digest}")).await.expect(200);
        conn.patch(&location, "bytes").await.expect_error(403, "DENIED");
        site.home.write_policy(NOBODY);
        site.reload();
        conn.get(&format!("/v2/team/app/blobs/{digest}")).await.expect_error(403, "DENIED");
        conn.get("/v2/").await.expect(200);
    }
}

#[tokio::test]
async fn a_get_under_way_is_cut() {
    let site = Site::start().await;
    let digest = site.admin().http1().await.push_blob("team/app", &random_bytes(1, LARGE)).await;
    for protocol in BOTH {
        let conn = site.alice().connect(protocol).await;
        let get = request("GET", &format!("/v2/team/app/blobs/{digest}")).body(empty()).unwrap();
        let mut body = conn.begin(get).await.unwrap().into_body();
        let mut got = within("the first bytes", body.frame()).await.unwrap().unwrap().into_data().unwrap().len();
        site.home.remove_pin("alice");
        site.reload();
        let cut = loop {
            match within("the body goes on or ends", body.frame()).await {
                Some(Ok(frame)) => got += frame.into_data().map_or(0, |bytes| bytes.len()),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        // What was on its way, 8 MiB, and what two sockets hold.
        assert!(cut && got < LARGE / 2, "{protocol}: {got} bytes came, cut: {cut}");
        site.home.add_pin("alice", &site.home.alice);
        site.reload();
    }
}

/// Whoever looks for the reason finds it in the log.
#[tokio::test]
async fn a_cut_is_logged() {
    let site = Site::start().await;
    let admin = site.admin().http1().await;
    let digest = admin.push_blob("team/a-cut-is-logged", &random_bytes(2, LARGE)).await;
    for protocol in BOTH {
        let repository = "team/a-cut-is-logged";
        let alice = site.alice().connect(protocol).await;
        let get = request("GET", &format!("/v2/{repository}/blobs/{digest}")).body(empty()).unwrap();
        let body = alice.begin(get).await.unwrap().into_body();
        site.home.remove_pin("alice");
        site.reload();
        assert!(within("the body ends", body.collect()).await.is_err());
        let lines = log::with("peer", &alice.local.to_string());
        let cut = lines.iter().find(|line| line.get("message").contains("cut")).expect("a line about the cut");
        assert_eq!(cut.get("repository"), repository);
        site.home.add_pin("alice", &site.home.alice);
        site.reload();
    }
}

#[tokio::test]
async fn a_patch_under_way_is_stopped() {
    for protocol in BOTH {
        let site = Site::start().await;
        let conn = site.admin().connect(protocol).await;
        let location = conn.start_upload("team/app").await;
        let (writer, body) = stream();
        let patch = request("PATCH", &location).body(body).unwrap();
        let sending = tokio::spawn(async move { conn.send(patch).await });
        for _ in 0..3 {
            assert!(writer.write(vec![1; 1 << 20]).await);
        }
        site.home.write_policy(PULL_ONLY);
        site.reload();
        // It ends though its sender never does.
        for _ in 0..200 {
            if sending.is_finished() || !writer.write(vec![1; 1 << 20]).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        within("an answer", sending).await.unwrap().expect_error(403, "DENIED");
        drop(writer);
    }
}

/// A body can take hours: the right must still be there at its end.
#[tokio::test]
async fn what_is_finished_after_the_right_was_withdrawn_is_refused() {
    for protocol in BOTH {
        let site = Site::start().await;
        let repository = format!("team/{protocol}");
        let start = site.admin().http1().await.start_upload(&repository).await;
        let digest = sha256(b"one two");
        for (method, path) in [
            ("PUT", format!("{start}?digest={digest}")),
            ("POST", format!("/v2/{repository}/blobs/uploads/?digest={digest}")),
            ("PUT", format!("/v2/{repository}/manifests/tag")),
        ] {
            site.home.write_policy("[[rule]]\nca = \"*\"\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n");
            site.reload();
            let conn = site.admin().connect(protocol).await;
            let (writer, body) = stream();
            let finishing = request(method, &path).body(body).unwrap();
            let finishing = tokio::spawn(async move { conn.send(finishing).await });
            let (one, two) = if path.contains("manifests") {
                (r#"{"schemaVersion":2,"#, r#""manifests":[]}"#)
            } else {
                ("one ", "two")
            };
            assert!(writer.write(one).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
            site.home.write_policy(PULL_ONLY);
            site.reload();
            assert!(writer.write(two).await);
            drop(writer);
            within("an answer", finishing).await.unwrap().expect_error(403, "DENIED");
        }
        let admin = site.admin().http1().await;
        admin.head(&format!("/v2/{repository}/blobs/{digest}")).await.expect(404);
        admin.head(&format!("/v2/{repository}/manifests/tag")).await.expect(404);
    }
}

#[tokio::test]
async fn a_broken_generation_is_refused_whole() {
    let site = Site::start().await;
    let conn = site.admin().http1().await;
    site.home.write_policy("[[rule]]\nca = 5\n");
    let new = recipe_shaped("new");
    site.home.add_pin("new", &new);
    let problems = site.handle.reload().expect_err("broken");
    assert!(
        problems.iter().any(|problem| problem.path.ends_with("policy.toml") && problem.line == Some(2)),
        "{problems:?}"
    );
    // The old policy and the old trust are both in force.
    conn.start_upload("team/app").await;
    site.alice().http1().await.get("/v2/").await.expect(200);
    assert!(site.client(&new).refusal().await.contains("UnknownCA"));
    fs::remove_file(site.home.path("policy.toml")).unwrap();
    assert!(site.handle.reload().is_err());
    conn.start_upload("team/app").await;
    site.home.write_policy(PULL_ONLY);
    assert!(site.handle.reload().unwrap() > 1);
    conn.post("/v2/team/app/blobs/uploads/", "").await.expect_error(403, "DENIED");
}

/// To trust somebody no longer is a restriction: nothing else that is wrong holds it back.
#[tokio::test]
async fn what_is_gone_is_out_although_all_else_is_broken() {
    let home = Home::new();
    let other = Authority::new("other CA");
    other.pair.write_crt(&home.path("trust/cas"), "other");
    let [one, narrow, bob] = [other.client("one"), home.client_ca.client("narrow"), recipe_shaped("bob")];
    home.add_pin("narrow", &narrow);
    home.add_pin("bob", &bob);
    let site = home.serve().await;
    let mut open = Vec::new();
    for (pair, protocol) in [&site.home.alice, &one, &narrow].into_iter().zip([BOTH[0], BOTH[1], BOTH[0]]) {
        let conn = site.client(pair).connect(protocol).await;
        conn.get("/v2/").await.expect(200);
        open.push(conn);
    }
    site.home.write_policy("[[rule]\n");
    fs::write(site.home.path("trust/cas/garbage.crt"), "garbage").unwrap();
    site.home.remove_pin("alice");
    // Its CA is trusted: without its pin it would have more rights than with it.
    site.home.remove_pin("narrow");
    fs::remove_file(site.home.path("trust/cas/other.crt")).unwrap();
    site.handle.reload().expect_err("broken");
    for conn in &mut open {
        conn.get("/v2/").await.expect_error(401, "UNAUTHORIZED");
        conn.closed().await;
    }
    for pair in [&site.home.alice, &one, &narrow] {
        let refusal = site.client(pair).refusal().await;
        assert!(refusal.contains("UnknownCA"), "{refusal}");
    }
    // A directory that is not there, or cannot be read, says nothing about what is gone.
    fs::rename(site.home.path("trust/pins"), site.home.path("pins")).unwrap();
    site.handle.reload().expect_err("broken");
    fs::write(site.home.path("trust/pins"), "no directory").unwrap();
    site.handle.reload().expect_err("broken");
    for pair in [&bob, &site.home.admin] {
        site.client(pair).http1().await.get("/v2/").await.expect(200);
    }
}

/// New connections get the new certificate, open ones go on.
#[tokio::test]
async fn the_servers_own_certificate_is_replaced() {
    let site = Site::start().await;
    let conn = site.admin().http1().await;
    let before = conn.get("/v2/").await;
    before.expect(200);
    let renewed = site.home.server_ca.server(&["registry.test"], &[]);
    site.home.write_server(&renewed);
    site.reload();
    conn.get("/v2/").await.expect(200);
    let stream = site.admin().tls(Protocol::Http1).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].as_ref(), renewed.cert_der());
}

/// A certificate that ends while its connection is open.
#[tokio::test]
async fn an_expired_certificate_ends_its_open_connection() {
    use portcullis_testkit::pki::LeafSpec;
    let home = Home::new();
    let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let short = home.client_ca.issue(&LeafSpec { not_after: end, ..LeafSpec::client("short") });
    let site = home.serve().await;
    let mut conn = site.client(&short).http1().await;
    conn.get("/v2/").await.expect(200);
    let left = end - time::OffsetDateTime::now_utc() + time::Duration::milliseconds(1100);
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    let message = conn.get("/v2/").await.expect_error(401, "UNAUTHORIZED");
    assert!(message.contains("expired"), "{message}");
    conn.closed().await;
}
