//! Garbage collection in a running server: asked for, on its schedule, and what it says of itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use portcullis_oci::Digest;
use portcullis_server::gc::{GcCounts, GcReport, GcResult, Removal};
use portcullis_server::{Config, Gc, Server};
use portcullis_server::{admin, gc};
use tokio::net::TcpListener;

use crate::admin::status;
use crate::fixture::{Home, Site, sha256, until, within};
use crate::metrics::{page, value};

/// A server with a socket, and two blobs in `team/app` of which an image names one; both were pushed long ago.
async fn with_garbage() -> (Site, PathBuf, Digest, Digest) {
    with_garbage_in(Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() }).await
}

async fn with_garbage_in(home: Home) -> (Site, PathBuf, Digest, Digest) {
    let socket = home.path("run/admin.sock");
    let site = home.serve().await;
    let conn = site.admin().http1().await;
    let [named, unnamed] = [conn.push_blob("team/app", b"{}").await, conn.push_blob("team/app", b"garbage").await];
    let image = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{named}","size":2}},"layers":[]}}"#
    );
    assert_eq!(conn.put_manifest("team/app", "1", image.as_bytes()).await.status, StatusCode::CREATED);
    site.home.stored().iter().filter(|path| path.ends_with("link")).for_each(|link| age(link));
    status(&socket).await;
    (site, socket, named, unnamed)
}

/// Makes a link two hours old.
fn age(link: &Path) {
    let time = SystemTime::now() - Duration::from_hours(2);
    File::options().write(true).open(link).unwrap().set_modified(time).unwrap();
}

async fn collect(socket: &Path, removal: Removal) -> GcReport {
    let started = admin::start_gc(socket, removal).await.unwrap();
    assert!(started.begun);
    within("the end of the collection", async {
        loop {
            match admin::gc(socket).await.unwrap().last {
                Some(last) if last.number == started.number => return last,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_no_manifest_names_goes_when_it_is_asked_for() {
    let (site, socket, named, unnamed) = with_garbage().await;
    let conn = site.admin().http1().await;
    let expected = GcCounts { manifests: 0, links: 1, blobs: 1, bytes: 7 };

    let told = collect(&socket, Removal::DryRun).await;
    assert_eq!((told.dry_run, told.removed, told.failed), (true, expected, None));
    let kinds: Vec<_> = told.listed.iter().map(|one| (one.kind.as_str(), one.digest.as_str())).collect();
    let unnamed_text = unnamed.to_string();
    assert_eq!(kinds, [("link", unnamed_text.as_str()), ("blob", unnamed_text.as_str())]);
    assert_eq!(status(&socket).await.gc.last.unwrap().listed, [], "a status is short");
    assert!(
        site.home
            .path(&format!("data/docker/registry/v2/blobs/sha256/{}/{}/data", &unnamed.hex()[..2], unnamed.hex()))
            .exists()
    );

    let done = collect(&socket, Removal::Real).await;
    assert_eq!((done.number, done.dry_run, done.removed), (2, false, expected));
    assert!(done.ended.is_some() && done.listed.is_empty());
    for (digest, expected) in [(named, StatusCode::OK), (unnamed, StatusCode::NOT_FOUND)] {
        assert_eq!(conn.get(&format!("/v2/team/app/blobs/{digest}")).await.status, expected);
    }
    assert_eq!(conn.get("/v2/team/app/manifests/1").await.status, StatusCode::OK);
    let gc = status(&socket).await.gc;
    assert_eq!((gc.running, gc.last), (None, Some(done)));
    assert_eq!(collect(&socket, Removal::Real).await.removed, GcCounts::default());
}

/// The first known race, over the wire: the client believes a HEAD, and need not push again.
#[tokio::test]
async fn a_head_keeps_a_blob_for_the_manifest_that_follows() {
    let (site, socket, _, unnamed) = with_garbage().await;
    let conn = site.admin().http1().await;
    assert_eq!(conn.head(&format!("/v2/team/app/blobs/{unnamed}")).await.status, StatusCode::OK);
    assert_eq!(collect(&socket, Removal::Real).await.removed, GcCounts::default());
    let image = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{unnamed}","size":7}},"layers":[]}}"#
    );
    assert_eq!(conn.put_manifest("team/app", "2", image.as_bytes()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_stops_it_is_named() {
    let (site, socket, ..) = with_garbage().await;
    let broken = sha256(b"not here");
    let link =
        format!("data/docker/registry/v2/repositories/team/app/_manifests/revisions/sha256/{}/link", broken.hex());
    std::fs::create_dir_all(site.home.path(&link).parent().unwrap()).unwrap();
    std::fs::write(site.home.path(&link), broken.to_string()).unwrap();
    let done = collect(&socket, Removal::Real).await;
    assert_eq!((done.removed, done.repositories_held), (GcCounts::default(), 1));
    let held = &done.held[0];
    assert_eq!((held.repository.as_str(), held.kind.as_str()), ("team/app", "manifest"));
    assert_eq!((&held.name, held.reason.as_str()), (&broken.to_string(), "its bytes are missing or damaged"));
    assert_eq!(status(&socket).await.gc.last, Some(done));
}

#[tokio::test]
async fn nothing_is_removed_in_read_only_mode() {
    let (site, socket, ..) = with_garbage().await;
    site.home.write_config("mode = \"read-only\"\n");
    site.reload();
    let before = site.home.stored();
    let refused = collect(&socket, Removal::Real).await;
    assert!(refused.failed.unwrap().contains("storage.mode"));
    let expected = GcCounts { manifests: 0, links: 1, blobs: 1, bytes: 7 };
    let told = collect(&socket, Removal::DryRun).await;
    assert_eq!((told.removed, told.failed), (expected, None));
    assert_eq!((refused.removed, site.home.stored()), (GcCounts::default(), before));

    site.home.write_config("mode = \"read-write\"\n");
    site.reload();
    assert_eq!(collect(&socket, Removal::Real).await.removed, expected);
}

#[tokio::test]
async fn the_schedule_is_kept() {
    let (site, socket, _, unnamed) = with_garbage().await;
    let home = site.stopped().await;
    let mut config: Config = home.config();
    config.gc.interval = Some(Duration::from_millis(50));
    let server = Server::open(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = tokio::spawn(server.run(listener, std::future::pending()));
    within("two collections", async {
        while status(&socket).await.gc.last.is_none_or(|last| last.number < 2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    running.abort();
    assert!(home.stored().iter().all(|path| !path.to_string_lossy().contains(&unnamed.hex())));
}

/// What `docs/backup.md` promises to who copies the data: nothing goes, whatever happens to the server meanwhile.
#[tokio::test]
async fn a_pause_keeps_everything_and_outlives_the_server() {
    let home = Home { top: "probe = \"off\"\n".to_owned(), ..Home::with_storage("upload_expiry = \"1s\"") };
    let (site, socket, _, unnamed) = with_garbage_in(home).await;
    let paused = admin::pause_gc(&socket, Duration::from_hours(1)).await.unwrap().paused.unwrap();
    assert!((3000..=3600).contains(&paused), "{paused}");
    let upload = site.admin().http1().await.start_upload("team/app").await;
    let kept = |home: &Home| home.stored().iter().any(|path| path.to_string_lossy().contains(&unnamed.hex()));
    let mut home = site.stopped().await;
    for _ in 0..2 {
        let site = home.serve().await;
        assert!(status(&socket).await.gc.paused.is_some_and(|left| left <= paused));
        let started = admin::start_gc(&socket, Removal::Real).await.unwrap();
        assert!(!started.begun && started.paused.is_some(), "{started:?}");
        assert_eq!(collect(&socket, Removal::DryRun).await.removed.blobs, 1, "what removes nothing goes on");
        // Longer than the upload may be left alone.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        site.admin().http1().await.get(&upload).await.expect(204);
        home = site.stopped().await;
    }
    // Nor does a collection without a server, or one whose schedule says that it is time.
    let config = Config { gc: Gc { interval: Some(Duration::from_millis(50)), ..Gc::default() }, ..home.config() };
    let alone = gc::collect(&config, Removal::Real, |_| {}).unwrap();
    assert_eq!((alone.result, alone.removed), (Some(GcResult::Paused), GcCounts::default()));
    assert!(alone.failed.unwrap().contains("collections are paused for another"));
    let server = Server::open(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = tokio::spawn(server.run(listener, std::future::pending()));
    status(&socket).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((status(&socket).await.gc.last, kept(&home)), (None, true));
    assert_eq!(admin::pause_gc(&socket, Duration::ZERO).await.unwrap().paused, None);
    until("the upload expires", || home.leftovers().is_empty()).await;
    assert_eq!(collect(&socket, Removal::Real).await.result, Some(GcResult::Done));
    running.abort();
    assert!(!kept(&home));
}

#[tokio::test]
async fn a_pause_ends_by_itself() {
    let (_site, socket, ..) = with_garbage().await;
    admin::pause_gc(&socket, Duration::from_secs(2)).await.unwrap();
    assert!(!admin::start_gc(&socket, Removal::Real).await.unwrap().begun);
    within("the end of the pause", async {
        while !admin::start_gc(&socket, Removal::Real).await.unwrap().begun {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(status(&socket).await.gc.paused, None);
}

#[tokio::test]
async fn a_pause_ends_the_collection_under_way() {
    // On a disk the directories alone would take minutes.
    let data = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let storage = format!("data = {:?}\n", data.path());
    let home = Home { top: "probe = \"off\"\n".to_owned(), storage, ..Home::new() };
    let tree = data.path().join("docker/registry/v2/repositories");
    for number in 0..20_000 {
        std::fs::create_dir_all(tree.join(format!("r{number:05}/_layers/sha256"))).unwrap();
    }
    let socket = home.path("run/admin.sock");
    let _site = home.serve().await;
    status(&socket).await;
    // It may be through before it is asked to stop.
    for _ in 0..10 {
        let number = admin::start_gc(&socket, Removal::Real).await.unwrap().number;
        admin::pause_gc(&socket, Duration::from_hours(1)).await.unwrap();
        let ended = within("the end", async {
            loop {
                match status(&socket).await.gc.last.filter(|last| last.number == number) {
                    Some(last) => return last,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        })
        .await;
        admin::pause_gc(&socket, Duration::ZERO).await.unwrap();
        if ended.result == Some(GcResult::Paused) {
            assert!(ended.repositories < 20_000 && ended.failed.is_some(), "{ended:?}");
            return;
        }
    }
    panic!("no collection was stopped");
}

#[tokio::test]
async fn what_is_counted() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let storage = "[gc]\ntrash = \"0s\"\n".to_owned();
    let (site, socket, ..) =
        with_garbage_in(Home { top: format!("probe = \"{free}\"\n"), storage, ..Home::new() }).await;
    let check = async |expected: &[(&str, Option<f64>)]| {
        let page = page(free).await;
        for (series, expected) in expected {
            assert_eq!(value(&page, series), *expected, "{series}\n{page}");
        }
    };
    let runs = |result: &str| format!("portcullis_gc_runs_total{{result=\"{result}\"}}");
    let (done, held) = (runs("done"), runs("held"));
    check(&[(&done, None), ("portcullis_gc_last_end_time_seconds", None), ("portcullis_gc_paused", Some(0.0))]).await;
    collect(&socket, Removal::DryRun).await;
    check(&[(&done, None), ("portcullis_gc_removed_blobs_total", Some(0.0))]).await;
    collect(&socket, Removal::Real).await;
    check(&[
        (&done, Some(1.0)),
        ("portcullis_gc_removed_links_total", Some(1.0)),
        ("portcullis_gc_removed_blobs_total", Some(1.0)),
        ("portcullis_gc_removed_bytes_total", Some(7.0)),
        ("portcullis_gc_removed_untagged_total", Some(0.0)),
        ("portcullis_gc_running", Some(0.0)),
        ("portcullis_gc_held_repositories", Some(0.0)),
    ])
    .await;
    let text = page(free).await;
    assert!(value(&text, "portcullis_gc_last_duration_seconds").is_some_and(|seconds| seconds > 0.0), "{text}");
    assert!(value(&text, "portcullis_gc_last_end_time_seconds").is_some_and(|time| time > 1.7e9), "{text}");
    // Another second than that in which it was moved to the trash.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stranger = site.home.path("data/docker/registry/v2/repositories/team/OLD");
    std::fs::create_dir_all(stranger.join("x")).unwrap();
    collect(&socket, Removal::Real).await;
    check(&[
        (&held, Some(1.0)),
        ("portcullis_gc_strangers", Some(1.0)),
        ("portcullis_gc_freed_blobs_total", Some(1.0)),
        ("portcullis_gc_freed_bytes_total", Some(7.0)),
    ])
    .await;
    admin::pause_gc(&socket, Duration::from_hours(1)).await.unwrap();
    check(&[("portcullis_gc_paused", Some(1.0))]).await;
    admin::pause_gc(&socket, Duration::ZERO).await.unwrap();
    site.home.write_config("");
    std::fs::write(site.home.path("config.toml"), "[storage]\nmode = \"read-only\"\n").unwrap();
    site.reload();
    collect(&socket, Removal::Real).await;
    check(&[(&runs("read_only"), Some(1.0)), (&done, Some(1.0))]).await;
}
