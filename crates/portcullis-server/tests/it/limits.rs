//! Every bound that can be set: at the limit, and one past it.

use std::fs;
use std::time::Duration;

use portcullis_testkit::image::random_bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Answer, Client, Conn, Protocol, empty, request, stream};
use crate::fixture::{Home, Site, sha256, until, within};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

/// A GET of a large blob whose body nobody reads: a request that stays under way.
async fn hold(conn: &Conn, path: &str) -> hyper::body::Incoming {
    let answer = conn.begin(request("GET", path).body(empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

#[track_caller]
fn assert_too_many(answer: Answer) {
    assert_eq!(answer.header("retry-after"), "5");
    answer.expect_error(429, "TOOMANYREQUESTS");
}

#[tokio::test]
async fn requests_under_way() {
    for protocol in BOTH {
        let site = Home::with_limits("requests = 2\nrequest_wait = \"300ms\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        let path = format!("/v2/team/app/blobs/{}", conn.push_blob("team/app", &random_bytes(1, 32 << 20)).await);
        let location = conn.start_upload("team/app").await;
        let ended = conn.start_upload("team/app").await;
        conn.delete(&ended).await.expect(204);
        let holders = [site.admin().connect(protocol).await, site.admin().connect(protocol).await];
        let first = hold(&holders[0], &path).await;
        conn.get("/v2/").await.expect(200);
        let second = hold(&holders[1], &path).await;
        assert_too_many(conn.get("/v2/").await);
        assert_too_many(conn.post("/v2/team/app/blobs/uploads/", "").await);
        // Nobody gets past by the name of an upload that there is not, or no longer.
        assert_too_many(conn.patch(&ended, "one ").await);
        assert_too_many(conn.put(&format!("{ended}?digest={}", sha256(b"x")), "x").await);
        assert_too_many(conn.patch("/v2/team/app/blobs/uploads/00112233-4455-6677-8899-aabbccddeeff", "one ").await);
        // What was begun goes on: its bytes would be lost.
        conn.patch(&location, "one ").await.expect(202);
        conn.put(&format!("{location}?digest={}", sha256(b"one two")), "two").await.expect(201);
        drop((first, second));
        drop(holders);
        for _ in 0..100 {
            if conn.get("/v2/").await.status == 200 {
                break;
            }
        }
        conn.get("/v2/").await.expect(200);
    }
}

#[tokio::test]
async fn one_request_too_many_waits_for_its_turn() {
    let site = Home::with_limits("requests = 1\nrequest_wait = \"1m\"").serve().await;
    let (holder, conn) = (site.admin().http2().await, site.admin().http1().await);
    let path = format!("/v2/team/app/blobs/{}", conn.push_blob("team/app", &random_bytes(1, 32 << 20)).await);
    let held = hold(&holder, &path).await;
    let waiting = tokio::spawn(async move { conn.get("/v2/").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it did not wait");
    drop(held);
    waiting.await.unwrap().expect(200);
}

/// At the limit a blob is taken in every form, and one byte more in none.
#[tokio::test]
async fn the_largest_blob() {
    for protocol in BOTH {
        let site = Home::with_limits("blob = \"1000\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        let uploads = "/v2/team/app/blobs/uploads/";
        for (size, status) in [(1000, 201), (1001, 413)] {
            let bytes = random_bytes(size as u64, size);
            let digest = sha256(&bytes);
            conn.post(&format!("{uploads}?digest={digest}"), bytes.clone()).await.expect(status);
            let conn = site.admin().connect(protocol).await;
            let location = conn.start_upload("team/app").await;
            conn.put(&format!("{location}?digest={digest}"), bytes.clone()).await.expect(status);
            let conn = site.admin().connect(protocol).await;
            let location = conn.start_upload("team/app").await;
            conn.patch(&location, bytes[..600].to_vec()).await.expect(202);
            let last = conn.put(&format!("{location}?digest={digest}"), bytes[600..].to_vec()).await;
            if status == 413 {
                let message = last.expect_error(413, "SIZE_INVALID");
                assert!(message.contains("1000"), "{message}");
                let conn = site.admin().connect(protocol).await;
                assert_eq!(conn.get(&location).await.expect(204).header("range"), "0-599");
                conn.delete(&location).await.expect(204);
            }
            // Without an announced length.
            let conn = site.admin().connect(protocol).await;
            let (writer, body) = stream();
            let post = request("POST", &format!("{uploads}?digest={digest}")).body(body).unwrap();
            let sending = tokio::spawn(async move { conn.send(post).await });
            for piece in bytes.chunks(300) {
                writer.write(piece.to_vec()).await;
            }
            drop(writer);
            sending.await.unwrap().expect(status);
        }
        let home = site.stopped().await;
        let stray: Vec<_> = home.leftovers().into_iter().filter(|path| !path.ends_with("state")).collect();
        assert!(stray.iter().all(|path| fs::metadata(path).unwrap().len() == 0), "{stray:?}");
    }
}

#[tokio::test]
async fn the_largest_manifest() {
    let site = Home::with_limits(&format!("manifest = \"{}\"", INDEX.len())).serve().await;
    let conn = site.admin().http1().await;
    conn.put_manifest("team/app", "fits", INDEX).await.expect(201);
    conn.put_manifest("team/app", "more", &[INDEX, b" "].concat()).await.expect_error(413, "SIZE_INVALID");
}

#[tokio::test]
async fn uploads_that_are_open() {
    let site = Home::with_limits("open_uploads = 2").serve().await;
    let conn = site.admin().http1().await;
    let uploads = "/v2/team/app/blobs/uploads/";
    let (first, second) = (conn.start_upload("team/app").await, conn.start_upload("team/app").await);
    assert_too_many(conn.post(uploads, "").await);
    assert_too_many(conn.post(&format!("{uploads}?digest={}", sha256(b"x")), "x").await);
    conn.delete(&first).await.expect(204);
    conn.post(&format!("{uploads}?digest={}", sha256(b"x")), "x").await.expect(201);
    let third = conn.start_upload("team/app").await;
    assert_too_many(conn.post(uploads, "").await);
    // One that nobody has gone on with for an hour makes room.
    let id = second.rsplit('/').next().unwrap();
    let state = site.home.path(&format!("data/portcullis/uploads/{id}/state"));
    let mut raw: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    raw["saved_at"] = (raw["saved_at"].as_u64().unwrap() - 3600).into();
    fs::write(&state, raw.to_string()).unwrap();
    conn.post(uploads, "").await.expect(202);
    conn.get(&second).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    conn.get(&third).await.expect(204);
}

/// All work for the disk behind one thread: slower, and never stuck.
#[test]
fn a_single_disk_thread() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let site = Site::start().await;
        let bytes = random_bytes(3, 3_000_000);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (conn, bytes) = (site.admin().http2().await, bytes.clone());
            tasks.spawn(async move {
                let repository = format!("team/{number}");
                let digest = conn.push_blob(&repository, &bytes).await;
                conn.put_manifest(&repository, "tag", INDEX).await.expect(201);
                conn.get(&format!("/v2/{repository}/blobs/{digest}")).await.expect(200).body.len()
            });
        }
        assert_eq!(tasks.join_all().await, [bytes.len(); 8]);
        site.stopped().await;
    });
}

/// Slow is not stuck: what comes at the least rate there is goes on for as long as it takes, and a drip ends.
#[tokio::test]
async fn a_body_that_drips() {
    for protocol in BOTH {
        let site = Home::with_limits("body_timeout = \"800ms\"\nbody_rate = \"4 KiB\"").serve().await;
        let conn = site.admin().connect(protocol).await;
        for (piece, status) in [(4096, 202), (10, 408)] {
            let location = conn.start_upload("team/app").await;
            drip(site.admin().connect(protocol).await, &location, piece).await.expect(status);
        }
    }
}

/// A PATCH of pieces of that size, ten in a second, for three seconds or until it is answered.
async fn drip(conn: Conn, location: &str, piece: usize) -> Answer {
    let (writer, body) = stream();
    let patch = request("PATCH", location).body(body).unwrap();
    let sending = tokio::spawn(async move { conn.send(patch).await });
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if sending.is_finished() || !writer.write(vec![b'x'; piece]).await {
            break;
        }
    }
    drop(writer);
    sending.await.unwrap()
}

/// The catalog looks at as much as it must, and a page never ends with a name that its reader may not see.
#[tokio::test]
async fn a_catalog_of_more_than_anybody_reads() {
    // On a disk the directories alone would take minutes.
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let home = Home::with_storage(&format!("data = {:?}", data.path()));
    let tree = data.path().join("docker/registry/v2/repositories");
    for number in 0..10_500 {
        fs::create_dir_all(tree.join(format!("secret/r{number:05}/_layers/sha256"))).unwrap();
    }
    fs::create_dir_all(tree.join("team/app/_layers/sha256")).unwrap();
    let site = home.serve().await;
    let answer = site.alice().http1().await.get("/v2/_catalog?n=5").await.expect(200);
    assert_eq!(answer.json(), serde_json::json!({ "repositories": ["team/app"] }));
    assert_eq!(answer.next_page(), None);
    let admin = site.admin().http1().await;
    let (mut path, mut pages, mut names) = ("/v2/_catalog".to_owned(), 0, 0);
    loop {
        let answer = admin.get(&path).await.expect(200);
        names += answer.json()["repositories"].as_array().unwrap().len();
        pages += 1;
        let Some(next) = answer.next_page() else { break };
        path = next;
    }
    assert_eq!((names, pages), (10_501, 11));
}

/// A page has a thousand, whatever is asked for, and nothing is lost between two of them.
#[tokio::test]
async fn a_page_of_more_than_a_thousand() {
    // On a disk the files alone would take minutes.
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let home = Home::with_storage(&format!("data = {:?}", data.path()));
    let repository = data.path().join("docker/registry/v2/repositories/team/app");
    let put = |path: std::path::PathBuf, content: &[u8]| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let store = |body: &[u8]| {
        let (digest, hex) = (sha256(body), sha256(body).hex());
        put(data.path().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2])), body);
        put(repository.join(format!("_manifests/revisions/sha256/{hex}/link")), digest.to_string().as_bytes());
        digest
    };
    let subject = store(INDEX);
    let mut expected = Vec::new();
    for number in 0..2001 {
        let tag = format!("_manifests/tags/t{number:04}/current/link");
        put(repository.join(tag), subject.to_string().as_bytes());
        let about = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"artifactType":"x/{number}","subject":{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{subject}","size":{}}}}}"#,
            INDEX.len()
        );
        expected.push(store(about.as_bytes()).to_string());
    }
    expected.sort();
    let site = home.serve().await;
    let conn = site.admin().http1().await;
    let all = async |first: String, names: &dyn Fn(&Answer) -> Vec<String>| {
        let (mut path, mut sizes, mut found) = (first, Vec::new(), Vec::new());
        loop {
            let answer = conn.get(&path).await.expect(200);
            let page = names(&answer);
            sizes.push(page.len());
            found.extend(page);
            let Some(next) = answer.next_page() else { return (sizes, found) };
            path = next;
        }
    };
    let tags = |answer: &Answer| -> Vec<String> {
        let tags = answer.json()["tags"].as_array().unwrap().clone();
        tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
    };
    let digests = |answer: &Answer| -> Vec<String> {
        let manifests = answer.json()["manifests"].as_array().unwrap().clone();
        manifests.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect()
    };
    let every_tag: Vec<String> = (0..2001).map(|number| format!("t{number:04}")).collect();
    for n in ["?n=1001", "?n=100000", "?n=1000", ""] {
        let (sizes, found) = all(format!("/v2/team/app/tags/list{n}"), &tags).await;
        assert_eq!((sizes, found), (vec![1000, 1000, 1], every_tag.clone()), "tags{n}");
        let (sizes, mut found) = all(format!("/v2/team/app/referrers/{subject}{n}"), &digests).await;
        found.sort();
        assert_eq!((sizes, found), (vec![1000, 1000, 1], expected.clone()), "referrers{n}");
    }
    let (sizes, found) = all("/v2/team/app/tags/list?n=1001&last=t0999".to_owned(), &tags).await;
    assert_eq!((sizes, found.as_slice()), (vec![1000, 1], &every_tag[1000..]));
}

/// However many connections there are, what their peers may have in flight beyond the protocol's least is bounded.
#[tokio::test]
async fn http2_windows_come_out_of_one_budget() {
    const LEAST: u64 = 65_535;
    let site = Site::start().await;
    let admin = site.admin();
    let mut connections = Vec::new();
    for _ in 0..48 {
        connections.push(windows(&admin).await);
    }
    let of_connections: Vec<u64> = connections.iter().map(|(_, [connection, _])| *connection).collect();
    assert_eq!((of_connections[0], of_connections[47]), (LEAST + (4 << 20), LEAST));
    assert!(of_connections.iter().map(|window| window - LEAST).sum::<u64>() <= 64 << 20, "{of_connections:?}");
    assert!(connections.iter().all(|(_, [connection, stream])| stream <= connection && *stream <= 1 << 20));
    drop(connections);
    let wide = Box::pin(async { while windows(&admin).await.1[0] < LEAST + (4 << 20) {} });
    within("their windows are given back", wide).await;
}

/// Opens a connection and reads what it gives: the windows of the connection and of each stream.
async fn windows(client: &Client) -> (impl Sized, [u64; 2]) {
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut stream = client.tls(Protocol::Http2).await.unwrap();
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0], &PING].concat();
    stream.write_all(&hello).await.unwrap();
    let ([mut connection, mut of_streams], mut pongs) = ([65_535, 65_535], 0);
    // What is sent of its own accord comes before the answer to a second ping.
    while pongs < 2 {
        let mut head = [0; 9];
        within("a frame", stream.read_exact(&mut head)).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        within("a frame's payload", stream.read_exact(&mut payload)).await.unwrap();
        let number = |bytes: &[u8]| u64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        match head[3] {
            // SETTINGS, of which 4 is INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2).
            4 => {
                let window = payload.chunks_exact(6).find(|one| one[1] == 4);
                of_streams = window.map_or(of_streams, |one| number(&one[2..]));
            }
            // WINDOW_UPDATE.
            8 => connection += number(&payload),
            6 if head[4] == 1 => {
                pongs += 1;
                stream.write_all(&PING).await.unwrap();
            }
            _ => {}
        }
    }
    (stream, [connection, of_streams])
}

/// A peer that leaves in the middle, and what it had sent and got, is one line too.
#[tokio::test]
async fn the_access_log_counts_bytes() {
    let lines = |path: &str| crate::log::with("path", path);
    for protocol in BOTH {
        let site = Site::start().await;
        let repository = format!("team/log-{protocol}");
        let conn = site.admin().connect(protocol).await;
        let digest = conn.push_blob(&repository, &random_bytes(4, 32 << 20)).await;
        let posted = format!("/v2/{repository}/blobs/uploads/");
        until("the POST's line", || !lines(&posted).is_empty()).await;
        let line = lines(&posted).remove(0);
        assert_eq!((line.get("received"), line.get("sent"), line.get("status")), ("33554432", "0", "201"));
        assert_eq!(line.get("complete"), "true");

        let path = format!("/v2/{repository}/blobs/{digest}");
        conn.get(&path).await.expect(200);
        until("the GET's line", || !lines(&path).is_empty()).await;
        assert_eq!((lines(&path)[0].get("sent"), lines(&path)[0].get("complete")), ("33554432", "true"));
        let leaving = site.admin().connect(protocol).await;
        drop(hold(&leaving, &path).await);
        drop(leaving);
        until("the cut GET's line", || lines(&path).len() == 2).await;
        let line = lines(&path).remove(1);
        assert_eq!((line.get("status"), line.get("complete")), ("200", "false"));
        assert!(line.get("sent").parse::<u64>().unwrap() < 33_554_432, "{line:?}");

        let location = conn.start_upload(&repository).await;
        let leaving = site.admin().connect(protocol).await;
        let (writer, body) = stream();
        let patch = request("PATCH", &location).body(body).unwrap();
        let sending = tokio::spawn(async move { leaving.try_send(patch).await.is_err() });
        assert!(writer.write(random_bytes(5, 1_500_000)).await);
        let id = location.rsplit('/').next().unwrap();
        let data = site.home.path(&format!("data/portcullis/uploads/{id}/data"));
        until("bytes arrive", || fs::metadata(&data).is_ok_and(|data| data.len() > 0)).await;
        writer.cut().await;
        assert!(sending.await.unwrap());
        let patched = location.replace(id, "…");
        until("the cut PATCH's line", || !lines(&patched).is_empty()).await;
        let line = lines(&patched).remove(0);
        assert_eq!(line.get("method"), "PATCH");
        assert!(line.get("received").parse::<u64>().unwrap() > 500_000, "{line:?}");
    }
}
