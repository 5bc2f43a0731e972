//! The audit: one JSON line per decision, in a file that is followed when it is moved.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use portcullis_server::{Server, ServerError};
use portcullis_testkit::pki::{Authority, LeafSpec};
use serde_json::Value;

use crate::client::{Protocol, request};
use crate::fixture::{Home, Site, fingerprint, tcp, until, within};
use crate::log;

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

fn audited() -> Home {
    let home = Home::new();
    let file = home.path("audit.jsonl");
    Home { top: format!("{}[audit]\nfile = \"{}\"\n", home.top, file.display()), ..home }
}

fn file(site: &Site) -> PathBuf {
    site.home.path("audit.jsonl")
}

/// Every line is a whole JSON object with a time and an event.
fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect();
    for line in &lines {
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["event"].is_string(), "{line}");
    }
    lines
}

async fn events(site: &Site, event: &str, count: usize) -> Vec<Value> {
    let of = || lines(&file(site)).into_iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    until(&format!("{count} lines about {event}"), || of().len() >= count).await;
    let found = of();
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

#[tokio::test]
async fn pushes_deletions_and_denials() {
    let site = audited().serve().await;
    let admin = site.admin().http1().await;
    let blob = admin.push_blob("team/app", b"a layer").await;
    admin.put_manifest("team/app", "v1", INDEX).await.expect(201);
    admin.get("/v2/team/app/manifests/v1").await.expect(200);
    admin.delete("/v2/team/app/manifests/v1").await.expect(202);
    admin.delete(&format!("/v2/team/app/blobs/{blob}")).await.expect(202);
    admin.delete("/v2/team/app/manifests/v1").await.expect(404);
    site.alice().http2().await.get("/v2/other/tags/list").await.expect(403);

    let pushed = events(&site, "push", 2).await;
    assert_eq!((&pushed[0]["reference"], &pushed[0]["status"]), (&blob.to_string().into(), &201.into()));
    assert_eq!((&pushed[1]["repository"], &pushed[1]["reference"]), (&"team/app".into(), &"v1".into()));
    assert!(pushed[1]["digest"].as_str().unwrap().starts_with("sha256:"), "{pushed:?}");
    for line in &pushed {
        assert_eq!((&line["subject"], &line["trusted_by"]), (&"CN=admin".into(), &"ca:clients".into()));
        assert_eq!((&line["fingerprint"], &line["action"]), (&fingerprint(&site.home.admin).into(), &"push".into()));
        assert_eq!(line["peer"], admin.local.to_string());
    }
    let deleted = events(&site, "delete", 2).await;
    assert_eq!((&deleted[0]["reference"], &deleted[1]["reference"]), (&"v1".into(), &blob.to_string().into()));
    let denied = events(&site, "request.denied", 1).await;
    assert_eq!((&denied[0]["trusted_by"], &denied[0]["path"]), (&"pin:alice".into(), &"/v2/other/tags/list".into()));
    assert_eq!((&denied[0]["action"], &denied[0]["status"]), (&"pull".into(), &403.into()));
    assert!(denied[0]["reason"].as_str().unwrap().contains("may not pull"), "{denied:?}");
    assert_eq!(denied[0]["repository"], "other");
}

/// Whoever has an upload's id may write to what an anonymous peer uploads.
#[tokio::test]
async fn no_line_has_the_id_of_an_upload() {
    let site = audited().serve().await;
    let admin = site.admin().http1().await;
    let location = admin.start_upload("team/secret-upload").await;
    let (_, id) = location.rsplit_once('/').unwrap();
    admin.patch(&location, "bytes").await.expect(202);
    site.alice().http1().await.patch(&location, "bytes").await.expect(403);
    admin.delete(&location).await.expect(204);
    let denied = events(&site, "request.denied", 1).await;
    let shown = "/v2/team/secret-upload/blobs/uploads/…";
    assert_eq!(denied[0]["path"], shown);
    until("three lines in the log", || log::with("path", shown).len() == 3).await;
    assert!(log::with("path", &location).is_empty());
    assert!(!fs::read_to_string(file(&site)).unwrap().contains(id));
}

/// Whatever was asked for: in which repository, and what there, as far as it was named.
#[tokio::test]
async fn a_denial_names_the_repository() {
    let site = audited().serve().await;
    let alice = site.alice().http1().await;
    let digest = crate::fixture::sha256(b"x").to_string();
    let upload = "/v2/team/app/blobs/uploads/5e0f5a5e-6c5c-4a56-9a4e-2f6d8f0c1d11";
    alice.get("/v2/other/manifests/v1").await.expect(403);
    alice.get(&format!("/v2/other/blobs/{digest}")).await.expect(403);
    alice.get(&format!("/v2/other/referrers/{digest}")).await.expect(403);
    alice.head("/v2/other/manifests/v1").await.expect(403);
    alice.head(&format!("/v2/other/blobs/{digest}")).await.expect(403);
    alice.patch(upload, "x").await.expect(403);
    let denied = events(&site, "request.denied", 6).await;
    for (line, (repository, reference, action)) in denied.iter().zip([
        ("other", Some("v1"), "pull"),
        ("other", Some(digest.as_str()), "pull"),
        ("other", Some(digest.as_str()), "pull"),
        ("other", Some("v1"), "pull"),
        ("other", Some(digest.as_str()), "pull"),
        ("team/app", None, "push"),
    ]) {
        assert_eq!((&line["repository"], &line["action"]), (&repository.into(), &action.into()), "{line}");
        assert_eq!(line.get("reference").and_then(Value::as_str), reference, "{line}");
    }
}

/// What nobody may is as much a denial as what this peer may not.
#[tokio::test]
async fn an_immutable_tag_is_a_denial() {
    let site = Home { storage: "immutable = [\"**:v*\"]\n".to_owned(), ..audited() }.serve().await;
    let admin = site.admin().http2().await;
    admin.put_manifest("team/app", "v1", INDEX).await.expect(201);
    admin.put_manifest("team/app", "v1", br#"{"schemaVersion":2,"manifests":[] }"#).await.expect(403);
    admin.delete("/v2/team/app/manifests/v1").await.expect(403);

    let denied = events(&site, "request.denied", 2).await;
    for (line, action) in denied.iter().zip(["push", "delete"]) {
        assert_eq!((&line["action"], &line["status"]), (&action.into(), &403.into()));
        assert_eq!((&line["repository"], &line["reference"]), (&"team/app".into(), &"v1".into()));
        assert_eq!((&line["subject"], line.get("digest")), (&"CN=admin".into(), None));
        assert!(line["reason"].as_str().unwrap().contains("**:v*"), "{line}");
    }
    events(&site, "push", 1).await;
}

#[tokio::test]
async fn refused_handshakes() {
    let site = audited().serve().await;
    let hostile = "evil\u{1b}[2J\n{\"event\":\"push\"}\u{202e}";
    let mallory = Authority::new("Their CA").issue(&LeafSpec::client(hostile));
    site.client(&mallory).refusal().await;
    site.anonymous().refusal().await;
    let mut plain = tcp(site.address).await;
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = events(&site, "handshake.refused", 3).await;
    assert_eq!(
        (&refused[0]["fingerprint"], &refused[0]["issuer"]),
        (&fingerprint(&mallory).into(), &"CN=Their CA".into())
    );
    assert_eq!(refused[0]["key_proven"], false);
    let subject = refused[0]["subject"].as_str().unwrap();
    assert!(subject.contains("evil") && !subject.contains('\u{202e}') && !subject.contains('\u{1b}'), "{subject}");
    assert!(refused[1]["reason"].as_str().unwrap().contains("no client certificate"), "{refused:?}");
    assert!(refused[1].get("subject").is_none(), "{refused:?}");
    assert!(refused[2]["reason"].as_str().unwrap().contains("plain HTTP"), "{refused:?}");
}

/// A certificate can be as long as a handshake: its line is not.
#[tokio::test]
async fn a_line_has_an_end() {
    let site = audited().serve().await;
    let long = LeafSpec { organizations: vec!["o".repeat(40_000)], ..LeafSpec::client(&"\u{202e}".repeat(9000)) };
    site.client(&Authority::new(&"i".repeat(9000)).issue(&long)).refusal().await;
    events(&site, "handshake.refused", 1).await;
    let text = fs::read_to_string(file(&site)).unwrap();
    assert!(text.lines().all(|line| line.len() < 8 << 10), "{} bytes", text.len());
}

#[tokio::test]
async fn changes_of_trust() {
    let site = audited().serve().await;
    let first = events(&site, "trust.changed", 1).await;
    let texts = |line: &Value, key: &str| {
        let texts = line[key].as_array().cloned().unwrap_or_default();
        texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(first[0]["generation"], 1);
    let alice = format!("pin:alice {}", fingerprint(&site.home.alice));
    assert!(texts(&first[0], "added").contains(&alice), "{first:?}");
    site.home.remove_pin("alice");
    fs::write(site.home.path("trust/deny"), format!("{}  # lost\n", fingerprint(&site.home.admin))).unwrap();
    site.reload();
    until("the change", || lines(&file(&site)).iter().any(|line| texts(line, "removed").contains(&alice))).await;
    let denied = format!("deny {}", fingerprint(&site.home.admin));
    until("the line", || lines(&file(&site)).iter().any(|line| texts(line, "added").contains(&denied))).await;
    // What is refused is a line too, and says why.
    site.home.write_policy("[[rule]]\nca = 5\n");
    site.handle.reload().unwrap_err();
    until("the refusal", || {
        let refused = |line: &Value| {
            line["event"] == "trust.refused"
                && texts(line, "problems").iter().any(|text| text.contains("policy.toml:2"))
        };
        lines(&file(&site)).iter().any(refused)
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_cut() {
    let site = audited().serve().await;
    let large = portcullis_testkit::image::random_bytes(1, 64 << 20);
    let digest = site.admin().http1().await.push_blob("team/app", &large).await;
    let alice = site.alice().connect(Protocol::Http1).await;
    let get = request("GET", &format!("/v2/team/app/blobs/{digest}")).body(crate::client::empty()).unwrap();
    let body = alice.begin(get).await.unwrap().into_body();
    site.home.remove_pin("alice");
    site.reload();
    let _ = within("the body ends", http_body_util::BodyExt::collect(body)).await;
    let cut = events(&site, "request.cut", 1).await;
    assert_eq!((&cut[0]["trusted_by"], &cut[0]["repository"]), (&"pin:alice".into(), &"team/app".into()));
}

#[tokio::test]
async fn the_file_is_private_appended_to_and_followed() {
    let home = audited();
    fs::write(home.path("audit.jsonl"), "{\"time\":\"0Z\",\"event\":\"before\"}\n").unwrap();
    let site = home.serve().await;
    let path = file(&site);
    events(&site, "before", 1).await;
    site.anonymous().refusal().await;
    events(&site, "handshake.refused", 1).await;
    // logrotate's way.
    let moved = site.home.path("audit.jsonl.1");
    fs::rename(&path, &moved).unwrap();
    until("a new file", || path.exists()).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    site.anonymous().refusal().await;
    events(&site, "handshake.refused", 1).await;
    assert_eq!(lines(&moved).iter().filter(|line| line["event"] == "handshake.refused").count(), 1);
    // Its copytruncate: the next line stands at the beginning.
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    site.anonymous().refusal().await;
    events(&site, "handshake.refused", 1).await;
}

/// What was told before a stop is on file after it.
#[tokio::test]
async fn a_stop_writes_what_is_queued() {
    let site = audited().serve().await;
    for _ in 0..20 {
        site.anonymous().refusal().await;
    }
    let home = site.stopped().await;
    let lines = lines(&home.path("audit.jsonl"));
    assert_eq!(lines.iter().filter(|line| line["event"] == "handshake.refused").count(), 20);
}

#[tokio::test]
async fn what_cannot_be_written_to_is_told_at_the_start() {
    for (to, words) in [("/dev/null", "no file"), ("missing/audit.jsonl", "No such file"), ("trust", "no file")] {
        let home = Home::new();
        let home = Home { top: format!("{}[audit]\nfile = \"{to}\"\n", home.top), ..home };
        let error = Server::open(home.config()).expect_err("it opened");
        assert!(matches!(&error, ServerError::Audit { .. }), "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("audit.file"), "{error}");
    }
}

/// Nothing that is secret, and nothing that an upload's address could be guessed from.
#[tokio::test]
async fn no_query_and_no_key() {
    let site = audited().serve().await;
    site.alice().http1().await.get("/v2/other/tags/list?token=s3cret&n=1").await.expect(403);
    events(&site, "request.denied", 1).await;
    let text = fs::read_to_string(file(&site)).unwrap();
    assert!(!text.contains("s3cret") && !text.contains("PRIVATE"), "{text}");
}
