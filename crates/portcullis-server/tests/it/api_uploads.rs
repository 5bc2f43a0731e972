//! Uploads in every form, and everything that can be wrong with one.

use portcullis_testkit::image::random_bytes;
use portcullis_testkit::pki::Pair;

use crate::client::{Answer, Conn, Protocol, full, request, stream};
use crate::fixture::{Home, Site, on_both, sha256, sha512, until};

const WRONG: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

async fn patch_range(conn: &Conn, location: &str, range: &str, bytes: &[u8]) -> Answer {
    conn.send(request("PATCH", location).header("content-range", range).body(full(bytes.to_vec())).unwrap()).await
}

#[track_caller]
fn assert_created(answer: Answer, repository: &str, digest: &str) {
    let answer = answer.expect(201);
    assert_eq!(answer.location(), format!("/v2/{repository}/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest);
}

async fn assert_stored(conn: &Conn, repository: &str, digest: &str, bytes: &[u8]) {
    assert_eq!(conn.get(&format!("/v2/{repository}/blobs/{digest}")).await.expect(200).body, bytes);
}

#[tokio::test]
async fn in_one_request() {
    let home = on_both(async |conn, repository| {
        let bytes = random_bytes(1, 1_500_000);
        let digest = sha256(&bytes).to_string();
        let answer = conn.post(&format!("/v2/{repository}/blobs/uploads/?digest={digest}"), bytes.clone()).await;
        assert_created(answer, repository, &digest);
        assert_stored(conn, repository, &digest, &bytes).await;
    })
    .await;
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
}

#[tokio::test]
async fn post_then_put() {
    let home = on_both(async |conn, repository| {
        let bytes = random_bytes(2, 100_000);
        let digest = sha256(&bytes).to_string();
        let start = conn.post(&format!("/v2/{repository}/blobs/uploads/"), "").await.expect(202);
        assert_eq!(start.header("range"), "0-0");
        let id = start.header("docker-upload-uuid");
        assert!(start.location().ends_with(id));
        let answer = conn.put(&format!("{}?digest={digest}", start.location()), bytes.clone()).await;
        assert_created(answer, repository, &digest);
        assert_stored(conn, repository, &digest, &bytes).await;
        // The session is over.
        conn.get(&start.location()).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    })
    .await;
    assert!(home.leftovers().is_empty());
}

#[tokio::test]
async fn streamed() {
    let home = on_both(async |conn, repository| {
        let bytes = random_bytes(3, 3_000_000);
        let digest = sha256(&bytes).to_string();
        let location = conn.start_upload(repository).await;
        let (writer, body) = stream();
        let pieces = bytes.clone();
        let writing = tokio::spawn(async move {
            for piece in pieces.chunks(70_001) {
                writer.write(piece.to_vec()).await;
            }
        });
        let answer = conn.send(request("PATCH", &location).body(body).unwrap()).await.expect(202);
        writing.await.unwrap();
        assert_eq!(answer.header("range"), "0-2999999");
        assert_created(conn.put(&format!("{location}?digest={digest}"), "").await, repository, &digest);
        assert_stored(conn, repository, &digest, &bytes).await;
    })
    .await;
    assert!(home.leftovers().is_empty());
}

#[tokio::test]
async fn in_chunks_with_a_last_one_in_the_put() {
    let home = on_both(async |conn, repository| {
        let bytes = random_bytes(4, 30_000);
        let digest = sha256(&bytes).to_string();
        let location = conn.start_upload(repository).await;
        let first = patch_range(conn, &location, "0-9999", &bytes[..10_000]).await.expect(202);
        assert_eq!((first.header("range"), first.location()), ("0-9999", location.clone()));
        // The form that RFC 9110 has, which some clients send.
        let second = patch_range(conn, &location, "bytes 10000-19999/30000", &bytes[10_000..20_000]).await.expect(202);
        assert_eq!(second.header("range"), "0-19999");
        let status = conn.get(&location).await.expect(204);
        assert_eq!((status.header("range"), status.location()), ("0-19999", location.clone()));
        let last = request("PUT", &format!("{location}?digest={digest}"))
            .header("content-range", "20000-29999")
            .body(full(bytes[20_000..].to_vec()));
        assert_created(conn.send(last.unwrap()).await, repository, &digest);
        assert_stored(conn, repository, &digest, &bytes).await;
    })
    .await;
    assert!(home.leftovers().is_empty());
}

#[tokio::test]
async fn out_of_order_says_where_it_stands_and_loses_nothing() {
    on_both(async |conn, repository| {
        let bytes = random_bytes(5, 3000);
        let digest = sha256(&bytes).to_string();
        let location = conn.start_upload(repository).await;
        patch_range(conn, &location, "0-999", &bytes[..1000]).await.expect(202);
        for range in ["0-999", "500-1499", "2000-2999", "18446744073709551613-18446744073709551614"] {
            let answer = patch_range(conn, &location, range, &bytes[..1000]).await;
            assert_eq!((answer.header("range"), answer.location()), ("0-999", location.clone()), "{range}");
            answer.expect_error(416, "BLOB_UPLOAD_INVALID");
        }
        for range in ["x", "5-4", "", "1000"] {
            patch_range(conn, &location, range, &bytes[..1000]).await.expect_error(416, "BLOB_UPLOAD_INVALID");
        }
        let last = request("PUT", &format!("{location}?digest={digest}")).header("content-range", "2000-2999");
        let answer = conn.send(last.body(full(bytes[2000..].to_vec())).unwrap()).await;
        assert_eq!(answer.header("range"), "0-999");
        answer.expect_error(416, "BLOB_UPLOAD_INVALID");
        // And it can go on.
        patch_range(conn, &location, "1000-2999", &bytes[1000..]).await.expect(202);
        assert_created(conn.put(&format!("{location}?digest={digest}"), "").await, repository, &digest);
    })
    .await;
}

#[tokio::test]
async fn a_chunk_of_another_size_than_it_says_is_not_kept() {
    on_both(async |conn, repository| {
        let location = conn.start_upload(repository).await;
        for range in ["0-10", "0-8"] {
            patch_range(conn, &location, range, b"ten bytes!").await.expect_error(400, "SIZE_INVALID");
        }
        assert_eq!(conn.get(&location).await.expect(204).header("range"), "0-0");
        patch_range(conn, &location, "0-9", b"ten bytes!").await.expect(202);
    })
    .await;
}

/// The closing PUT is held to what it says too, and what was saved before it is not lost.
#[tokio::test]
async fn a_last_chunk_of_another_size_than_it_says() {
    on_both(async |conn, repository| {
        let location = conn.start_upload(repository).await;
        conn.patch(&location, "ten bytes!").await.expect(202);
        let path = format!("{location}?digest={}", sha256(b"ten bytes!more"));
        for (range, status) in [("10-12", 400), ("10-14", 400), ("9-12", 416), ("10-13", 201)] {
            let put = request("PUT", &path).header("content-range", range).body(full("more")).unwrap();
            conn.send(put).await.expect(status);
        }
    })
    .await;
}

#[tokio::test]
async fn cancelled() {
    let home = on_both(async |conn, repository| {
        let location = conn.start_upload(repository).await;
        conn.patch(&location, "something").await.expect(202);
        assert!(conn.delete(&location).await.expect(204).body.is_empty());
        for method in ["GET", "PATCH", "DELETE"] {
            let answer = conn.send(request(method, &location).body(full("")).unwrap()).await;
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let put = conn.put(&format!("{location}?digest={}", sha256(b"something")), "").await;
        put.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    })
    .await;
    assert!(home.leftovers().is_empty());
}

#[tokio::test]
async fn by_sha512() {
    on_both(async |conn, repository| {
        let bytes = random_bytes(6, 50_000);
        let digest = sha512(&bytes).to_string();
        let start = conn.post(&format!("/v2/{repository}/blobs/uploads/?digest-algorithm=sha512"), "").await;
        let location = start.expect(202).location();
        conn.patch(&location, bytes.clone()).await.expect(202);
        assert_created(conn.put(&format!("{location}?digest={digest}"), "").await, repository, &digest);
        assert_stored(conn, repository, &digest, &bytes).await;
        // Without the announcement, and in one request.
        let more = random_bytes(7, 50_000);
        let digest = sha512(&more).to_string();
        let location = conn.start_upload(repository).await;
        assert_created(conn.put(&format!("{location}?digest={digest}"), more.clone()).await, repository, &digest);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_created(conn.post(&path, more).await, repository, &digest);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_digest_in_each_form_leaves_nothing() {
    let home = on_both(async |conn, repository| {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        conn.post(&format!("{uploads}?digest={WRONG}"), "bytes").await.expect_error(400, "DIGEST_INVALID");
        let location = conn.start_upload(repository).await;
        conn.put(&format!("{location}?digest={WRONG}"), "bytes").await.expect_error(400, "DIGEST_INVALID");
        let location = conn.start_upload(repository).await;
        conn.patch(&location, "bytes").await.expect(202);
        conn.put(&format!("{location}?digest={WRONG}"), "").await.expect_error(400, "DIGEST_INVALID");
        let location = conn.start_upload(repository).await;
        conn.patch(&location, "by").await.expect(202);
        let message = conn.put(&format!("{location}?digest={WRONG}"), "tes").await.expect_error(400, "DIGEST_INVALID");
        assert!(message.contains(WRONG) && message.contains(&sha256(b"bytes").to_string()), "{message}");
        conn.get(&location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    })
    .await;
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
    assert!(home.stored().is_empty(), "{:?}", home.stored());
}

#[tokio::test]
async fn mounted() {
    on_both(async |conn, repository| {
        let digest = conn.push_blob("source/app", repository.as_bytes()).await.to_string();
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let mount = conn.post(&format!("{uploads}?mount={digest}&from=source/app"), "").await;
        assert_created(mount, repository, &digest);
        assert_stored(conn, repository, &digest, repository.as_bytes()).await;
        for query in
            [format!("mount={WRONG}&from=source/app"), format!("mount={digest}&from=no/such"), format!("mount={WRONG}")]
        {
            let answer = conn.post(&format!("{uploads}?{query}"), "").await.expect(202);
            conn.delete(&answer.location()).await.expect(204);
        }
    })
    .await;
}

/// Whoever may not read the source must not learn that it has the blob.
#[tokio::test]
async fn a_mount_needs_the_right_to_pull_from_the_source() {
    let home = Home::new();
    home.write_policy(
        r#"
[[rule]]
ca = "*"
repositories = ["secret/**", "public/**"]
allow = ["pull", "push"]

[[rule]]
pin = "alice"
repositories = ["mine", "public/**"]
allow = ["pull", "push"]
"#,
    );
    let site = home.serve().await;
    let (admin, alice) = (site.admin().http1().await, site.alice().http1().await);
    let secret = admin.push_blob("secret/app", b"secret").await;
    let public = admin.push_blob("public/app", b"public").await;
    alice.post(&format!("/v2/mine/blobs/uploads/?mount={secret}&from=secret/app"), "").await.expect(202);
    alice.head(&format!("/v2/mine/blobs/{secret}")).await.expect(404);
    alice.post(&format!("/v2/mine/blobs/uploads/?mount={public}&from=public/app"), "").await.expect(201);
    // Not without naming it either, though the blob has just come in.
    alice.post(&format!("/v2/mine/blobs/uploads/?mount={secret}"), "").await.expect(202);
    alice.post(&format!("/v2/mine/blobs/uploads/?mount={public}"), "").await.expect(201);
    // Not even by way of a push of the digest alone.
    alice.post(&format!("/v2/mine/blobs/uploads/?digest={secret}"), "").await.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn an_empty_blob_in_every_form() {
    on_both(async |conn, repository| {
        let digest = sha256(b"").to_string();
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        assert_created(conn.post(&format!("{uploads}?digest={digest}"), "").await, repository, &digest);
        let location = conn.start_upload(repository).await;
        assert_created(conn.put(&format!("{location}?digest={digest}"), "").await, repository, &digest);
        let location = conn.start_upload(repository).await;
        assert_eq!(conn.patch(&location, "").await.expect(202).header("range"), "0-0");
        assert_created(conn.put(&format!("{location}?digest={digest}"), "").await, repository, &digest);
    })
    .await;
}

#[tokio::test]
async fn a_body_cut_short_is_forgotten_and_the_upload_goes_on() {
    let site = Site::start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let conn = site.admin().connect(protocol).await;
        let repository = format!("team/{protocol}");
        let bytes = random_bytes(8, 2_000_000);
        let digest = sha256(&bytes).to_string();
        let location = conn.start_upload(&repository).await;
        conn.patch(&location, bytes[..1000].to_vec()).await.expect(202);
        for method in ["PATCH", "PUT"] {
            let doomed = site.admin().connect(protocol).await;
            let (writer, body) = stream();
            let target = if method == "PUT" { format!("{location}?digest={digest}") } else { location.clone() };
            let request = request(method, &target).body(body).unwrap();
            let sending = tokio::spawn(async move { doomed.try_send(request).await.is_err() });
            assert!(writer.write(bytes[1000..1_500_000].to_vec()).await);
            writer.cut().await;
            assert!(sending.await.unwrap(), "an answer to half a body");
            let status = resumable(&conn, &location).await;
            assert_eq!(status.header("range"), "0-999", "{method}");
        }
        conn.patch(&location, bytes[1000..].to_vec()).await.expect(202);
        assert_created(conn.put(&format!("{location}?digest={digest}"), "").await, &repository, &digest);
    }
    let home = site.stopped().await;
    assert!(home.leftovers().is_empty(), "{:?}", home.leftovers());
}

/// The upload's status once the server has noticed that the request before is gone.
async fn resumable(conn: &Conn, location: &str) -> Answer {
    for _ in 0..500 {
        let answer = patch_range(conn, location, "1000-999", b"").await;
        // An impossible range, so that nothing is written: 416 means that the upload is free again.
        if answer.status == 416 {
            return conn.get(location).await.expect(204);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the upload is never free again");
}

/// Its name was never told to anybody: nobody can go on with it.
#[tokio::test]
async fn a_single_request_upload_cut_short_leaves_nothing() {
    let site = Site::start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let conn = site.admin().connect(protocol).await;
        let (writer, body) = stream();
        let request = request("POST", &format!("/v2/team/app/blobs/uploads/?digest={WRONG}")).body(body).unwrap();
        let sending = tokio::spawn(async move { conn.try_send(request).await.is_err() });
        assert!(writer.write(random_bytes(9, 1_500_000)).await);
        let home = &site.home;
        until("the upload is begun", || !home.leftovers().is_empty()).await;
        writer.cut().await;
        assert!(sending.await.unwrap(), "an answer to half a body");
        until("the upload is gone", || home.leftovers().is_empty()).await;
    }
}

#[tokio::test]
async fn belongs_to_who_opened_it_and_where() {
    let home = Home::new();
    let (ci, other): (Pair, Pair) = (home.client_ca.client("ci"), home.client_ca.client("ci"));
    let site = home.serve().await;
    let (ci, other) = (site.client(&ci).http1().await, site.client(&other).http1().await);
    let location = ci.start_upload("team/app").await;
    let elsewhere = location.replace("team/app", "team/other");
    let digest = sha256(b"bytes");
    // The same name in another certificate is another identity.
    for (conn, location) in [(&other, &location), (&ci, &elsewhere), (&other, &elsewhere)] {
        for (method, target) in [
            ("GET", location.clone()),
            ("PATCH", location.clone()),
            ("PUT", format!("{location}?digest={digest}")),
            ("DELETE", location.clone()),
        ] {
            let answer = conn.send(request(method, &target).body(full("bytes")).unwrap()).await;
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    ci.put(&format!("{location}?digest={digest}"), "bytes").await.expect(201);
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let site = Site::start().await;
    let (first, second) = (site.admin().http1().await, site.admin().http1().await);
    let location = first.start_upload("team/app").await;
    let (writer, body) = stream();
    let patch = request("PATCH", &location).body(body).unwrap();
    let writing = tokio::spawn(async move { first.send(patch).await });
    assert!(writer.write("one ").await);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let answer = second.patch(&location, "").await;
    assert_eq!(answer.header("retry-after"), "5");
    answer.expect_error(409, "BLOB_UPLOAD_INVALID");
    assert!(writer.write("two").await);
    drop(writer);
    assert_eq!(writing.await.unwrap().expect(202).header("range"), "0-6");
}

/// What was acknowledged survives the end of the process, and the next one goes on with it.
#[tokio::test]
async fn goes_on_after_a_restart() {
    let site = Site::start().await;
    let conn = site.admin().http1().await;
    let location = conn.start_upload("team/app").await;
    conn.patch(&location, "one ").await.expect(202);
    drop(conn);
    let site = site.stopped().await.serve().await;
    let conn = site.admin().http1().await;
    assert_eq!(conn.get(&location).await.expect(204).header("range"), "0-3");
    conn.put(&format!("{location}?digest={}", sha256(b"one two")), "two").await.expect(201);
}
