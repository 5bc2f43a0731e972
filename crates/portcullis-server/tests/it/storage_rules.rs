//! What `[storage]` says of content: read-only, immutable tags, indexes that are not whole.

use portcullis_oci::{Algorithm, Digest};
use serde_json::json;

use crate::client::{Protocol, full, request};
use crate::fixture::{Home, Site, sha256, until};

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
const OTHER: &[u8] = br#"{"schemaVersion":2,"manifests":[] }"#;
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn read_only_and_back_without_a_restart() {
    let site = Site::start().await;
    let conn = site.admin().http2().await;
    let blob = conn.push_blob("team/app", b"blob").await;
    conn.put_manifest("team/app", "tag", INDEX).await.expect(201);
    let location = conn.start_upload("team/app").await;
    conn.patch(&location, "one ").await.expect(202);

    site.home.write_config("mode = \"read-only\"\n");
    site.reload();
    let finish = format!("{location}?digest={}", sha256(b"one two"));
    for (method, path, body) in [
        ("POST", "/v2/team/app/blobs/uploads/", ""),
        ("POST", "/v2/team/new/blobs/uploads/", ""),
        ("POST", &format!("/v2/team/new/blobs/uploads/?mount={blob}&from=team/app"), ""),
        ("PATCH", &location, "two"),
        ("PUT", &finish, "two"),
        ("DELETE", &location, ""),
        ("PUT", "/v2/team/app/manifests/tag", "{}"),
        ("DELETE", "/v2/team/app/manifests/tag", ""),
        ("DELETE", &format!("/v2/team/app/manifests/{}", sha256(INDEX)), ""),
        ("DELETE", &format!("/v2/team/app/blobs/{blob}"), ""),
    ] {
        let answer = conn.send(request(method, path).body(full(body)).unwrap()).await;
        assert_eq!(answer.header("allow"), "GET, HEAD", "{method} {path}");
        let message = answer.expect_error(405, "UNSUPPORTED");
        assert!(message.contains("read-only") && message.contains("`mode`"), "{message}");
    }
    conn.get("/v2/team/app/manifests/tag").await.expect(200);
    conn.get(&format!("/v2/team/app/blobs/{blob}")).await.expect(200);
    conn.get("/v2/team/app/tags/list").await.expect(200);
    // Who has no right there is told that, and nothing of the registry's state.
    site.alice().http1().await.post("/v2/team/app/blobs/uploads/", "").await.expect_error(403, "DENIED");

    // A config that cannot be read changes nothing.
    site.home.write_config("mode = \"read-mostly\"\n");
    let problems = site.handle.reload().unwrap_err();
    assert!(problems.iter().any(|problem| problem.message.contains("read-mostly")), "{problems:?}");
    conn.post("/v2/team/app/blobs/uploads/", "").await.expect(405);

    site.home.write_config("mode = \"read-write\"\n");
    site.reload();
    conn.put(&finish, "two").await.expect(201);
}

/// Nobody has to ask for it: the file is watched.
#[tokio::test]
async fn read_only_from_the_start_until_the_file_changes() {
    let home = Home::with_storage("mode = \"read-only\"");
    home.write_config("");
    let site = home.serve().await;
    let conn = site.admin().http1().await;
    conn.post("/v2/team/app/blobs/uploads/", "").await.expect(405);
    let generation = site.handle.reload().unwrap();
    conn.post("/v2/team/app/blobs/uploads/", "").await.expect(405);
    let text = std::fs::read_to_string(site.home.path("config.toml")).unwrap();
    std::fs::write(site.home.path("config.toml"), text.replace("read-only", "read-write")).unwrap();
    let seen = std::sync::atomic::AtomicBool::new(false);
    for _ in 0..200 {
        if conn.post("/v2/team/app/blobs/uploads/", "").await.status == 202 {
            seen.store(true, std::sync::atomic::Ordering::Relaxed);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    until("it is writable", || seen.load(std::sync::atomic::Ordering::Relaxed)).await;
    assert!(site.handle.reload().unwrap() > generation);
}

#[tokio::test]
async fn immutable_tags() {
    let site = Home::with_storage("immutable = [\"release/**:v*\", \"team/**:1.*\"]").serve().await;
    for protocol in BOTH {
        let conn = site.admin().connect(protocol).await;
        let manifests = format!("/v2/release/{protocol}/manifests");
        let (digest, other) = (sha256(INDEX), sha256(OTHER));
        for _ in 0..2 {
            conn.put(&format!("{manifests}/v1"), INDEX).await.expect(201);
        }
        conn.put(&format!("{manifests}/{digest}?tag=v1&tag=latest"), INDEX).await.expect(201);
        for (method, path) in [
            ("PUT", format!("{manifests}/v1")),
            ("PUT", format!("{manifests}/{other}?tag=new&tag=v1")),
            ("DELETE", format!("{manifests}/v1")),
            ("DELETE", format!("{manifests}/{digest}")),
        ] {
            let answer = conn.send(request(method, &path).body(full(OTHER)).unwrap()).await;
            let message = answer.expect_error(403, "DENIED");
            for told in ["v1", "release/**:v*", &digest.to_string()] {
                assert!(message.contains(told), "{told} in {message}");
            }
        }
        conn.get(&format!("{manifests}/new")).await.expect(404);
        conn.get(&format!("{manifests}/{other}")).await.expect(404);
        assert_eq!(conn.get(&format!("{manifests}/v1")).await.expect(200).body, INDEX);
        // The same bytes under another digest are another digest.
        let sha512 = Digest::of(Algorithm::Sha512, INDEX);
        conn.put(&format!("{manifests}/{sha512}?tag=v1"), INDEX).await.expect_error(403, "DENIED");
        // Tags that no rule names move and go.
        conn.put(&format!("{manifests}/latest"), OTHER).await.expect(201);
        conn.delete(&format!("{manifests}/latest")).await.expect(202);
        conn.delete(&format!("{manifests}/{other}")).await.expect(202);
    }
}

#[tokio::test]
async fn two_that_set_an_immutable_tag_at_once() {
    let site = Home::with_storage("immutable = [\"**:v*\"]").serve().await;
    let (one, two) = (site.admin().http1().await, site.admin().http2().await);
    for round in 0..20 {
        let tag = format!("v{round}");
        let puts = tokio::join!(one.put_manifest("team/app", &tag, INDEX), two.put_manifest("team/app", &tag, OTHER));
        let mut statuses = [puts.0.status, puts.1.status];
        let winner = if statuses[0] == 201 { INDEX } else { OTHER };
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 403], "{tag}");
        assert_eq!(one.get(&format!("/v2/team/app/manifests/{tag}")).await.expect(200).body, winner);
    }
}

#[tokio::test]
async fn children_that_are_missing_can_be_refused() {
    let site = Home::with_storage("missing_children = \"refuse\"").serve().await;
    let conn = site.admin().http1().await;
    let index = |digest: Digest, size: usize| {
        let child = json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size});
        json!({"schemaVersion": 2, "manifests": [child]}).to_string().into_bytes()
    };
    let body = index(sha256(INDEX), INDEX.len());
    let message = conn.put_manifest("team/app", "tag", &body).await.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
    assert!(message.contains(&sha256(INDEX).to_string()), "{message}");
    // Another repository's is not this one's.
    conn.put_manifest("team/other", "child", INDEX).await.expect(201);
    conn.put_manifest("team/app", "tag", &body).await.expect(404);
    conn.put_manifest("team/app", "child", INDEX).await.expect(201);
    conn.put_manifest("team/app", "tag", &body).await.expect(201);
    // A subject may always come later.
    let subject = json!({"mediaType": "x/y", "digest": sha256(b"later"), "size": 5});
    let about = json!({"schemaVersion": 2, "manifests": [], "subject": subject}).to_string();
    conn.put_manifest("team/app", "about", about.as_bytes()).await.expect(201);
}

/// An engine would refuse to pull it: better the one who builds it is told.
#[tokio::test]
async fn a_descriptor_that_lies_about_a_size() {
    let site = Site::start().await;
    let conn = site.admin().http1().await;
    let (config, layer) = (conn.push_blob("team/app", b"{}").await, conn.push_blob("team/app", b"layer").await);
    let manifest = |config_size: u64, layer_size: u64| {
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "x/y", "digest": config, "size": config_size},
            "layers": [{"mediaType": "x/y", "digest": layer, "size": layer_size}],
        })
    };
    for (config_size, layer_size, named) in [(3, 5, config), (2, 4, layer), (2, 6, layer), (2, 0, layer)] {
        let body = manifest(config_size, layer_size).to_string();
        let message = conn.put_manifest("team/app", "tag", body.as_bytes()).await.expect_error(400, "MANIFEST_INVALID");
        assert!(message.contains(&named.to_string()), "{message}");
    }
    // The same layer twice, once with a lie.
    let mut twice = manifest(2, 5);
    twice["layers"].as_array_mut().unwrap().push(json!({"mediaType": "x/y", "digest": layer, "size": 7}));
    conn.put_manifest("team/app", "tag", twice.to_string().as_bytes()).await.expect_error(400, "MANIFEST_INVALID");
    conn.put_manifest("team/app", "tag", manifest(2, 5).to_string().as_bytes()).await.expect(201);
}
