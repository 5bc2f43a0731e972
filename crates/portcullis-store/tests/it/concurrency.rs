//! Many requests at once, and a process that is killed among them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use portcullis_oci::{Algorithm, ManifestReference};
use portcullis_store::{Store, StoreError};

use crate::{Fixture, OWNER, name, open, push, put_manifest, read, sha256, tag};

const CHILD_DATA: &str = "PORTCULLIS_STORE_TEST_DATA";

#[test]
fn pushes_and_deletes_of_the_same_names_never_fail() {
    let fixture = Fixture::new();
    let store = fixture.store();
    thread::scope(|scope| {
        for worker in 0..6_usize {
            scope.spawn(move || {
                for round in 0..25_usize {
                    churn(store, worker, round);
                }
            });
        }
    });
    assert_eq!(store.health().damaged, 0);
    assert_eq!(store.health().open_uploads, 0);
    assert_eq!(fixture.files("portcullis"), ["portcullis/lock"]);
    // And what is pushed now stays.
    let digest = push(store, "shared", b"layer 0");
    assert_eq!(read(store, "shared", &digest), Some(b"layer 0".to_vec()));
}

/// Pushes content that others push too, and deletes what others have pushed.
fn churn(store: &Store, worker: usize, round: usize) {
    let content = format!("layer {}", round % 3);
    let digest = push(store, "shared", content.as_bytes());
    let seen = read(store, "shared", &digest);
    assert!(seen.is_none_or(|bytes| bytes == content.as_bytes()));
    store.mount_blob(&name("shared"), &name("mounted"), &digest).unwrap();
    put_manifest(store, "shared", manifest(round % 3).as_bytes(), &["latest", "other"]);
    store.tags(&name("shared"), None, 10).unwrap();
    match (worker + round) % 4 {
        0 => drop(store.delete_blob(&name("shared"), &digest).unwrap()),
        1 => drop(store.delete_tag(&name("shared"), &tag("latest")).unwrap()),
        2 => drop(store.delete_manifest(&name("shared"), &sha256(manifest(0).as_bytes())).unwrap()),
        _ => {}
    }
}

/// Between the check of what a manifest names and its writing nothing of that may go: both would be acknowledged.
#[test]
fn what_a_manifest_under_way_names_is_not_deleted() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let layer = push(store, "app", b"a layer");
    let (told, heard) = mpsc::channel();
    thread::scope(|scope| {
        let putting = store.begin_put(&name("app"));
        assert!(store.has_blob(&name("app"), &layer).unwrap());
        scope.spawn(move || told.send(store.delete_blob(&name("app"), &layer)).unwrap());
        // Long enough for a delete that does not wait; one that waits passes however long this is.
        assert!(heard.recv_timeout(Duration::from_millis(300)).is_err(), "it did not wait");
        let descriptor = format!(r#"{{"mediaType":"application/x","digest":"{layer}","size":7}}"#);
        let image = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#);
        put_manifest(store, "app", image.as_bytes(), &[]);
        drop(putting);
        assert!(matches!(heard.recv().unwrap(), Err(StoreError::BlobInUse { .. })));
    });
    assert_eq!(read(store, "app", &layer), Some(b"a layer".to_vec()));
}

/// The children of an index that an immutable tag is about to name.
#[test]
fn a_child_is_not_deleted_under_an_index_under_way() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let child = put_manifest(store, "app", manifest(0).as_bytes(), &[]);
    let (told, heard) = mpsc::channel();
    thread::scope(|scope| {
        let putting = store.begin_put(&name("app"));
        assert!(store.has_manifest(&name("app"), &child).unwrap());
        scope.spawn(move || told.send(store.delete_manifest(&name("app"), &child)).unwrap());
        assert!(heard.recv_timeout(Duration::from_millis(300)).is_err(), "it did not wait");
        drop(putting);
        assert!(heard.recv().unwrap().unwrap(), "nothing holds it");
    });
}

fn manifest(n: usize) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[],"n":{n}}}"#)
}

#[test]
fn one_writer_at_a_time() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let id = store.start_upload(&name("app"), Algorithm::Sha256, OWNER).unwrap().id();
    let writing = AtomicBool::new(false);
    let write = || {
        let Ok(mut upload) = store.resume_upload(&name("app"), &id, OWNER) else { return };
        assert!(!writing.swap(true, Ordering::SeqCst), "two writers");
        upload.append(b"x").unwrap();
        writing.store(false, Ordering::SeqCst);
        upload.save().unwrap();
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| write()));
        }
    });
    let upload = store.resume_upload(&name("app"), &id, OWNER).unwrap();
    let content = vec![b'x'; usize::try_from(upload.offset()).unwrap()];
    upload.finish(&sha256(&content)).unwrap();
}

/// Not a test of its own: what the killed process does. It says what was acknowledged, a line each.
#[test]
fn child_that_pushes_until_it_is_killed() {
    let Some(data) = std::env::var_os(CHILD_DATA) else { return };
    let store = open(data.as_ref()).unwrap();
    for number in 0..10_000 {
        let digest = push(&store, "app", format!("layer {number}").as_bytes());
        println!("\nblob {digest}.");
        let content = format!("{{\"layers\":\"{digest}\"}}");
        let digest = put_manifest(&store, "app", content.as_bytes(), &[&format!("t{number}"), "latest"]);
        println!("\nmanifest {digest} t{number}.");
        let mut upload = store.start_upload(&name("app"), Algorithm::Sha256, OWNER).unwrap();
        upload.append(content.as_bytes()).unwrap();
        let id = upload.id();
        println!("\nupload {id} {}.", upload.save().unwrap());
    }
}

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    for round in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "concurrency::child_that_pushes_until_it_is_killed"])
            .env(CHILD_DATA, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed after a number of acknowledgements, not after a time: how far it gets in a time is the machine's affair.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said: Vec<String> =
            lines.by_ref().filter(|line| is_acknowledgement(line)).take(4 + 7 * round).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last of these and its death counts too; only whole lines do.
        said.extend(lines.filter(|line| is_acknowledgement(line)));

        let store = open(directory.path()).unwrap();
        assert!(said.len() >= 4 + 7 * round, "round {round}: {said:?}");
        for line in &said {
            check_line(&store, line);
        }
        assert!(std::fs::read_dir(directory.path().join("portcullis/tmp")).unwrap().next().is_none());
        assert_eq!(store.health().damaged, 0);
        // The lock went with its holder, and pushing goes on.
        push(&store, "app", b"after");
    }
}

/// A line of the child that was not cut off by its death: each ends with a full stop.
fn is_acknowledgement(line: &str) -> bool {
    ["blob ", "manifest ", "upload "].iter().any(|word| line.starts_with(word)) && line.ends_with('.')
}

fn check_line(store: &Store, line: &str) {
    match line.trim_end_matches('.').split(' ').collect::<Vec<_>>()[..] {
        ["blob", digest] => {
            let digest = digest.parse().unwrap();
            let bytes = read(store, "app", &digest).unwrap_or_else(|| panic!("{line} is lost"));
            assert_eq!(sha256(&bytes), digest);
        }
        ["manifest", digest, text] => {
            let found = store.manifest(&name("app"), &ManifestReference::Tag(tag(text))).unwrap();
            assert_eq!(found.unwrap_or_else(|| panic!("{line} is lost")).digest.to_string(), digest);
        }
        ["upload", id, offset] => {
            let found = store.upload_status(&name("app"), &id.parse().unwrap(), OWNER).unwrap();
            assert_eq!(found.to_string(), offset, "{line}");
        }
        _ => panic!("{line} is no acknowledgement"),
    }
}
