//! Garbage collection in a running server: asked for, on its schedule, and what it says of itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use portcullis_oci::Digest;
use portcullis_server::admin;
use portcullis_server::gc::{GcCounts, GcReport, Removal};
use portcullis_server::{Config, Server};
use tokio::net::TcpListener;

use crate::admin::status;
use crate::fixture::{Home, Site, sha256, within};

/// A server with a socket, and two blobs in `team/app` of which an image names one; both were pushed long ago.
async fn with_garbage() -> (Site, PathBuf, Digest, Digest) {
    let home = Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() };
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
