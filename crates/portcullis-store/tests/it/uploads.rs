//! An upload across requests, owners and restarts.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_oci::{Algorithm, UploadId};
use portcullis_store::{Store, StoreError, StoreOptions};

use crate::{Fixture, OWNER, name, read, sha256};

/// Begins an upload, appends and saves.
fn begin(store: &Store, content: &[u8]) -> UploadId {
    let mut upload = store.start_upload(&name("team/app"), Algorithm::Sha256, OWNER).unwrap();
    upload.append(content).unwrap();
    let id = upload.id();
    assert_eq!(upload.save().unwrap(), content.len() as u64);
    id
}

fn finish(fixture: &Fixture, id: &UploadId, rest: &[u8], whole: &[u8]) {
    let mut upload = fixture.store().resume_upload(&name("team/app"), id, OWNER).unwrap();
    upload.append(rest).unwrap();
    upload.finish(&sha256(whole)).unwrap();
    assert_eq!(read(fixture.store(), "team/app", &sha256(whole)), Some(whole.to_vec()));
    assert_eq!(fixture.files("portcullis"), ["portcullis/lock"]);
}

fn status(fixture: &Fixture, id: &UploadId) -> Result<u64, StoreError> {
    fixture.store().upload_status(&name("team/app"), id, OWNER)
}

fn data(fixture: &Fixture, id: &UploadId) -> PathBuf {
    fixture.path(&format!("portcullis/uploads/{id}/data"))
}

fn edit_state(fixture: &Fixture, id: &UploadId, edit: impl Fn(&str) -> String) {
    let path = fixture.path(&format!("portcullis/uploads/{id}/state"));
    let state = fs::read_to_string(&path).unwrap();
    let edited = edit(&state);
    assert_ne!(edited, state);
    fs::write(path, edited).unwrap();
}

fn of_another_boot(state: &str) -> String {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    state.replace(boot_id.trim_end(), "00000000-0000-0000-0000-000000000000")
}

fn assert_unknown<T>(done: Result<T, StoreError>) {
    match done {
        Err(StoreError::UploadUnknown { .. }) => {}
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it is known"),
    }
}

#[test]
fn an_upload_goes_on_after_a_restart() {
    let mut fixture = Fixture::new();
    let id = begin(fixture.store(), b"one ");
    assert_eq!(fixture.store().health().open_uploads, 1);
    fixture.reopen();
    assert_eq!(fixture.store().health().open_uploads, 1);
    assert_eq!(status(&fixture, &id).unwrap(), 4);
    finish(&fixture, &id, b"two", b"one two");
    assert_eq!(fixture.store().health().open_uploads, 0);
    assert_unknown(status(&fixture, &id));
}

#[test]
fn an_upload_is_listed_while_it_is_open() {
    let mut fixture = Fixture::new();
    let listed = |fixture: &Fixture, id: &UploadId| fixture.store().lists_upload(id);
    let [cancelled, finished] = [b"one ", b"two "].map(|content| begin(fixture.store(), content));
    let stranger = UploadId::from_bytes([7; 16]);
    assert_eq!([&cancelled, &finished, &stranger].map(|id| listed(&fixture, id)), [true, true, false]);
    fixture.reopen();
    assert!(listed(&fixture, &finished), "also after a restart");
    fixture.store().resume_upload(&name("team/app"), &cancelled, OWNER).unwrap().cancel().unwrap();
    finish(&fixture, &finished, b"more", b"two more");
    assert_eq!([&cancelled, &finished].map(|id| listed(&fixture, id)), [false, false]);
    // Nobody becomes listed by being asked for.
    assert_unknown(status(&fixture, &stranger));
    assert_unknown(fixture.store().resume_upload(&name("team/app"), &stranger, OWNER));
    assert!(!listed(&fixture, &stranger));
}

#[test]
fn an_upload_is_there_before_its_first_byte() {
    let mut fixture = Fixture::new();
    let id = fixture.store().start_upload(&name("team/app"), Algorithm::Sha256, OWNER).unwrap().id();
    fixture.reopen();
    assert_eq!(status(&fixture, &id).unwrap(), 0);
    finish(&fixture, &id, b"content", b"content");
}

#[test]
fn an_upload_belongs_to_a_repository_and_an_owner() {
    let fixture = Fixture::new();
    let id = begin(fixture.store(), b"content");
    let held = fixture.store().resume_upload(&name("team/app"), &id, OWNER).unwrap();
    for released in [false, true] {
        for (repository, owner) in [("team/app", "pin:mallory"), ("team/app", ""), ("team", OWNER)] {
            assert_unknown(fixture.store().resume_upload(&name(repository), &id, owner));
            assert_unknown(fixture.store().upload_status(&name(repository), &id, owner));
        }
        if !released {
            let busy = fixture.store().resume_upload(&name("team/app"), &id, OWNER);
            assert!(matches!(busy, Err(StoreError::UploadBusy { .. })), "{busy:?}");
            assert_eq!(status(&fixture, &id).unwrap(), 7, "the status is answered all the same");
        }
        if released {
            break;
        }
    }
    drop(held);
    assert_unknown(fixture.store().resume_upload(&name("team/app"), &id, "pin:mallory"));
    finish(&fixture, &id, b"", b"content");
    assert_unknown(fixture.store().resume_upload(&name("team/app"), &id, OWNER));
}

#[test]
fn what_is_not_saved_is_forgotten() {
    let mut fixture = Fixture::new();
    let id = begin(fixture.store(), b"saved ");
    let mut upload = fixture.store().resume_upload(&name("team/app"), &id, OWNER).unwrap();
    upload.append(b"and forgotten").unwrap();
    drop(upload);
    assert_eq!(status(&fixture, &id).unwrap(), 6);
    assert_eq!(fs::read(data(&fixture, &id)).unwrap(), b"saved ", "and takes no space");
    fixture.reopen();
    finish(&fixture, &id, b"and kept", b"saved and kept");
}

#[test]
fn a_cancelled_upload_is_gone() {
    let fixture = Fixture::new();
    let id = begin(fixture.store(), b"content");
    fixture.store().resume_upload(&name("team/app"), &id, OWNER).unwrap().cancel().unwrap();
    assert_unknown(fixture.store().resume_upload(&name("team/app"), &id, OWNER));
    assert_eq!(fixture.files(""), ["portcullis/lock"]);
    assert_eq!(fixture.store().health().open_uploads, 0);
}

#[test]
fn an_unknown_upload_is_unknown() {
    let fixture = Fixture::new();
    let id = "3f1f8a52-93c1-4c5a-9a55-0d3f0b6f0c11".parse().unwrap();
    assert_unknown(status(&fixture, &id));
    assert_unknown(fixture.store().resume_upload(&name("team/app"), &id, OWNER));
    assert_eq!(fixture.store().health().damaged, 0);
}

#[test]
fn bytes_behind_the_saved_offset_are_cut_off() {
    // What kill -9 leaves in the middle of an append.
    let mut fixture = Fixture::new();
    let id = begin(fixture.store(), b"saved ");
    fixture.reopen();
    fs::write(data(&fixture, &id), b"saved and half of an app").unwrap();
    assert_eq!(status(&fixture, &id).unwrap(), 6);
    finish(&fixture, &id, b"and more", b"saved and more");
}

#[test]
fn after_another_boot_only_synced_bytes_count() {
    let mut fixture = Fixture::new();
    let large = vec![7; 3 << 20];
    let unsynced = begin(fixture.store(), b"small");
    let synced = begin(fixture.store(), &large);
    let both = begin(fixture.store(), &large);
    let mut upload = fixture.store().resume_upload(&name("team/app"), &both, OWNER).unwrap();
    upload.append(b"small").unwrap();
    upload.save().unwrap();
    fixture.reopen();
    for id in [&unsynced, &synced, &both] {
        edit_state(&fixture, id, of_another_boot);
    }
    // What was not synced may have become anything.
    let mut torn = large.clone();
    torn.extend([0; 5]);
    fs::write(data(&fixture, &both), &torn).unwrap();
    fs::write(data(&fixture, &unsynced), b"").unwrap();

    assert_eq!(status(&fixture, &unsynced).unwrap(), 0);
    assert_eq!(status(&fixture, &synced).unwrap(), 3 << 20);
    assert_eq!(status(&fixture, &both).unwrap(), 3 << 20);
    let mut whole = large.clone();
    whole.extend(b"more");
    for (id, rest, whole) in [(&both, b"more".as_slice(), &whole), (&synced, b"", &large)] {
        let mut upload = fixture.store().resume_upload(&name("team/app"), id, OWNER).unwrap();
        upload.append(rest).unwrap();
        upload.finish(&sha256(whole)).unwrap();
        assert_eq!(read(fixture.store(), "team/app", &sha256(whole)).as_ref(), Some(whole));
    }
    finish(&fixture, &unsynced, b"again", b"again");
}

#[test]
fn a_midstate_is_not_trusted_after_another_boot() {
    let mut fixture = Fixture::new();
    let content = vec![7; 2 << 20];
    let id = begin(fixture.store(), &content);
    fixture.reopen();
    // The bytes have changed although they were synced: the digest must be that of the bytes.
    edit_state(&fixture, &id, of_another_boot);
    fs::write(data(&fixture, &id), vec![8; 2 << 20]).unwrap();
    let upload = fixture.store().resume_upload(&name("team/app"), &id, OWNER).unwrap();
    let done = upload.finish(&sha256(&content));
    assert!(matches!(done, Err(StoreError::DigestMismatch { .. })), "{done:?}");
}

#[test]
fn without_a_usable_midstate_the_bytes_are_hashed_again() {
    let mut fixture = Fixture::new();
    let id = begin(fixture.store(), b"one ");
    fixture.reopen();
    edit_state(&fixture, &id, |state| state.replace("sha2-0.11", "sha2-9.99"));
    finish(&fixture, &id, b"two", b"one two");
}

#[test]
fn a_ruin_is_removed_when_it_is_asked_for() {
    let mut fixture = Fixture::new();
    let ruins: Vec<UploadId> = (0..4).map(|_| begin(fixture.store(), b"content")).collect();
    let sound = begin(fixture.store(), b"content");
    fixture.reopen();
    edit_state(&fixture, &ruins[0], |state| state[..state.len() / 2].to_owned());
    edit_state(&fixture, &ruins[1], |_| String::new());
    fs::write(data(&fixture, &ruins[2]), b"cont").unwrap();
    fs::remove_file(data(&fixture, &ruins[3])).unwrap();
    for id in &ruins {
        assert_unknown(status(&fixture, id));
        assert_unknown(fixture.store().resume_upload(&name("team/app"), id, OWNER));
        assert!(!fixture.path(&format!("portcullis/uploads/{id}")).exists());
    }
    assert_eq!(fixture.store().health().open_uploads, 1);
    finish(&fixture, &sound, b"", b"content");
}

#[test]
fn ruins_are_removed_at_the_first_start_after_a_boot() {
    let mut fixture = Fixture::new();
    let ruin = begin(fixture.store(), b"content");
    let sound = begin(fixture.store(), b"content");
    fixture.store = None;
    edit_state(&fixture, &ruin, |_| String::new());
    let lock = fs::read_to_string(fixture.path("portcullis/lock")).unwrap();
    fs::write(fixture.path("portcullis/lock"), of_another_boot(&lock)).unwrap();
    fixture.reopen();
    assert_eq!(fixture.store().health().open_uploads, 1);
    finish(&fixture, &sound, b"", b"content");
}

#[test]
fn an_upload_expires_once_whoever_looks() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for _ in 0..200 {
        begin(store, b"abandoned");
    }
    let expired: usize = std::thread::scope(|scope| {
        let reapers: Vec<_> = (0..4).map(|_| scope.spawn(|| store.expire_uploads(Duration::ZERO).unwrap())).collect();
        reapers.into_iter().map(|reaper| reaper.join().unwrap()).sum()
    });
    assert_eq!((expired, store.health().open_uploads), (200, 0));
}

#[test]
fn an_abandoned_upload_expires_by_when_it_was_saved_whoever_saved_it() {
    const HOUR: Duration = Duration::from_hours(1);
    let mut fixture = Fixture::new();
    let (old, young) = (begin(fixture.store(), b"old"), begin(fixture.store(), b"young"));
    edit_state(&fixture, &old, |state| {
        let (head, at) = state.split_once("\"saved_at\":").unwrap();
        let seconds: u64 = at.trim_end_matches('}').parse().unwrap();
        format!("{head}\"saved_at\":{}}}", seconds - 3601)
    });
    fixture.reopen();
    let held = fixture.store().resume_upload(&name("team/app"), &old, OWNER).unwrap();
    assert_eq!(fixture.store().expire_uploads(HOUR).unwrap(), 0, "a request holds the old one");
    drop(held);
    assert_eq!(fixture.store().expire_uploads(HOUR).unwrap(), 1);
    assert_unknown(status(&fixture, &old));
    assert_eq!(status(&fixture, &young).unwrap(), 5);
    finish(&fixture, &young, b"", b"young");
}

#[test]
fn an_upload_that_cannot_be_read_does_not_keep_the_others() {
    let fixture = Fixture::new();
    let ids: Vec<_> = (0..8).map(|_| begin(fixture.store(), b"old")).collect();
    let state = fixture.path(&format!("portcullis/uploads/{}/state", ids[0]));
    fs::remove_file(&state).unwrap();
    std::os::unix::fs::symlink("state", &state).unwrap();
    assert_eq!(fixture.store().expire_uploads(Duration::ZERO).unwrap(), 7);
    assert!(fixture.store().expire_uploads(Duration::ZERO).is_err(), "that one is said");
    assert_eq!(fixture.store().health().open_uploads, 1);
}

#[test]
fn an_idle_upload_is_not_busy_because_its_age_is_looked_at() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let id = begin(store, b"young");
    std::thread::scope(|scope| {
        let looking = scope
            .spawn(|| (0..2000).for_each(|_| assert_eq!(store.expire_uploads(Duration::from_hours(1)).unwrap(), 0)));
        while !looking.is_finished() {
            store.resume_upload(&name("team/app"), &id, OWNER).unwrap();
        }
    });
}

#[test]
fn as_many_open_as_may_be_and_one_more() {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { reserve: 0, open_uploads: 2, ..StoreOptions::default() };
    let start = |store: &Store| store.start_upload(&name("app"), Algorithm::Sha256, OWNER);
    let store = Store::open(directory.path(), &options).unwrap();
    let first = start(&store).unwrap();
    drop(start(&store).unwrap());
    assert!(matches!(start(&store), Err(StoreError::TooManyUploads { open: 2 })));
    first.cancel().unwrap();
    let third = start(&store).unwrap().id();
    assert!(start(&store).is_err());
    // Those of an earlier process count, and are gone when they expire.
    drop(store);
    let store = Store::open(directory.path(), &options).unwrap();
    assert!(start(&store).is_err());
    assert_eq!(store.expire_uploads(Duration::ZERO).unwrap(), 2);
    assert!(store.upload_status(&name("app"), &third, OWNER).is_err());
    start(&store).unwrap();
}
