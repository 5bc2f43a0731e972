//! What is refused, and what a refusal leaves: a full disk, a reserve, a sync that fails, a start on a bad disk.

use std::path::Path;

use portcullis_oci::{Algorithm, Digest, RepositoryName};

use super::model::{Loss, ModelDisk, Trap};
use crate::{SpaceLimit, Store, StoreError, StoreOptions, Upload};

const OWNER: &str = "pin:alice";

#[test]
fn a_failed_sync_makes_the_store_read_only_until_a_probe_succeeds() {
    let (disk, store) = open(0);
    push(&store, b"before").unwrap();
    let open_since_before = begin(&store, b"open since before");

    disk.arm(Some(Trap::FailingSyncs));
    assert!(matches!(push(&store, b"during"), Err(StoreError::Io { action: "sync", .. })));
    let reason = store.health().read_only.unwrap();
    assert!(reason.contains("/data/portcullis/"), "{reason}");
    let refused = |done: Result<(), StoreError>| assert!(matches!(done, Err(StoreError::ReadOnly { .. })), "{done:?}");
    refused(push(&store, b"after"));
    refused(store.put_manifest(&app(), &digest(b"{}"), b"{}", &[]));
    refused(store.mount_blob(&app(), &"other".parse().unwrap(), &digest(b"before")).map(drop));
    refused(store.delete_blob(&app(), &digest(b"before")).map(drop));
    refused(open_since_before.finish(&digest(b"open since before")));
    assert_eq!(store.stat_blob(&app(), &digest(b"before")).unwrap(), Some(6), "reading goes on");
    assert_eq!(store.stat_blob(&app(), &digest(b"during")).unwrap(), None);

    disk.arm(None);
    std::thread::sleep(std::time::Duration::from_millis(1100)); // one probe a second
    push(&store, b"after").unwrap();
    assert_eq!(store.health().read_only, None);
    drop(store);
    disk.power_cut(Loss::Everything);
    let store = reopen(&disk, 0);
    assert_eq!(store.stat_blob(&app(), &digest(b"after")).unwrap(), Some(5));
}

#[test]
fn an_upload_that_could_not_be_synced_is_never_resumed() {
    let (disk, store) = open(0);
    let content = vec![7; 2000];
    let upload = begin(&store, &content);
    let id = upload.id();
    disk.arm(Some(Trap::FailingSyncs));
    assert!(matches!(upload.save(), Err(StoreError::Io { action: "sync", .. })));
    disk.arm(None);
    assert!(matches!(store.resume_upload(&app(), &id, OWNER), Err(StoreError::UploadUnknown { .. })));
    assert_eq!(store.health().open_uploads, 0);
}

#[test]
fn bytes_lost_in_an_early_sync_are_never_acknowledged() {
    let ends: [fn(Upload) -> Result<(), StoreError>; 2] =
        [|upload| upload.save().map(drop), |upload| upload.finish(&digest(&[7; 2000]))];
    for end in ends {
        let disk = ModelDisk::of_early_syncs(1000);
        let store = reopen(&disk, 0);
        let mut upload = begin(&store, &[7; 900]);
        let id = upload.id();
        disk.arm(Some(Trap::FailingSyncs));
        upload.append(&[7; 1100]).unwrap();
        while store.health().read_only.is_none() {
            std::thread::yield_now();
        }
        // Like the kernel's, the next sync of the same file succeeds.
        disk.arm(None);
        assert!(matches!(end(upload), Err(StoreError::Io { action: "sync", .. })));
        assert!(matches!(store.resume_upload(&app(), &id, OWNER), Err(StoreError::UploadUnknown { .. })));
        assert_eq!(store.health().open_uploads, 0);
        assert_eq!(store.stat_blob(&app(), &digest(&[7; 2000])).unwrap(), None);
    }
}

#[test]
fn an_upload_whose_early_sync_failed_when_nobody_held_it_is_never_resumed() {
    let disk = ModelDisk::of_early_syncs(1000);
    let store = reopen(&disk, 0);
    let upload = begin(&store, &[7; 900]);
    let id = upload.id();
    upload.save().unwrap();
    let mut upload = store.resume_upload(&app(), &id, OWNER).unwrap();
    disk.arm(Some(Trap::FailingSyncs));
    upload.append(&[7; 1100]).unwrap();
    drop(upload);
    while store.upload_status(&app(), &id, OWNER).is_ok() {
        std::thread::yield_now();
    }
    disk.arm(None);
    assert!(matches!(store.resume_upload(&app(), &id, OWNER), Err(StoreError::UploadUnknown { .. })));
    assert_eq!(store.health().open_uploads, 0);
}

#[test]
fn a_full_disk_leaves_nothing() {
    let (disk, store) = open(0);
    let files = || disk.tree().into_keys().filter(|path| !path.ends_with('/')).collect::<Vec<_>>();
    let before = files();
    disk.arm(Some(Trap::NoMoreSpace));
    for content in [b"".as_slice(), b"content"] {
        let done = push(&store, content);
        assert!(matches!(done, Err(StoreError::NoSpace { limit: SpaceLimit::Disk })), "{done:?}");
        let done = store.put_manifest(&app(), &digest(content), content, &["1".parse().unwrap()]);
        assert!(content.is_empty() || matches!(done, Err(StoreError::NoSpace { .. })), "{done:?}");
    }
    disk.arm(None);
    assert_eq!(store.health().open_uploads, 0);
    assert_eq!(files(), before);
}

#[test]
fn bytes_that_found_no_room_are_given_back() {
    let (disk, store) = open(0);
    let mut upload = begin(&store, b"saved");
    let id = upload.id();
    upload.save().unwrap();
    upload = store.resume_upload(&app(), &id, OWNER).unwrap();
    upload.append(b" and more").unwrap();
    disk.arm(Some(Trap::NoMoreSpace));
    assert!(upload.append(b" than there is room for").is_err());
    assert_eq!(upload.offset(), 14, "a failed append takes nothing in");
    disk.arm(None);
    drop(upload);
    assert_eq!(disk.tree()[&format!("portcullis/uploads/{id}/data")], b"saved");
}

#[test]
fn a_failed_append_can_be_repeated_shorter() {
    let (disk, store) = open(0);
    let mut upload = begin(&store, b"one ");
    disk.arm(Some(Trap::Full(1)));
    assert!(matches!(upload.append(b"two that does not fit"), Err(StoreError::NoSpace { .. })));
    disk.arm(None);
    upload.append(b"two").unwrap();
    upload.finish(&digest(b"one two")).unwrap();
    assert_eq!(store.stat_blob(&app(), &digest(b"one two")).unwrap(), Some(7), "nothing of the failed append is left");
}

#[test]
fn the_reserve_stops_what_grows_and_nothing_else() {
    let (disk, store) = open(1000);
    push(&store, b"layer").unwrap();
    store.put_manifest(&app(), &digest(b"{}"), b"{}", &["1".parse().unwrap()]).unwrap();
    disk.set_free(1000);
    push(&store, b"at the limit").unwrap();
    disk.set_free(999);
    let limit = SpaceLimit::Reserve { free: 999, reserve: 1000 };
    let refused = |done: Result<(), StoreError>| match done {
        Err(StoreError::NoSpace { limit: found }) => assert_eq!(found, limit),
        other => panic!("{other:?}"),
    };
    refused(push(&store, b"one byte past it"));
    refused(store.put_manifest(&app(), &digest(b"{ }"), b"{ }", &[]));
    assert!(store.delete_tag(&app(), &"1".parse().unwrap()).unwrap());
    assert!(store.delete_manifest(&app(), &digest(b"{}")).unwrap());
    assert!(store.delete_blob(&app(), &digest(b"layer")).unwrap());
}

#[test]
fn a_long_upload_looks_at_the_reserve_on_its_way() {
    let (disk, store) = open(1000);
    let mut upload = store.start_upload(&app(), Algorithm::Sha256, OWNER).unwrap();
    let piece = vec![0; 1 << 20];
    disk.set_free(999);
    let done = (0..64).try_for_each(|_| upload.append(&piece));
    assert!(matches!(done, Err(StoreError::NoSpace { limit: SpaceLimit::Reserve { .. } })), "{done:?}");
}

#[test]
fn an_upload_in_small_pieces_looks_at_the_reserve_at_each_of_them() {
    let (disk, store) = open(1000);
    let id = store.start_upload(&app(), Algorithm::Sha256, OWNER).unwrap().id();
    let piece = || {
        let mut upload = store.resume_upload(&app(), &id, OWNER).unwrap();
        upload.append(b"piece")?;
        upload.save()
    };
    disk.set_free(1000);
    assert_eq!(piece().unwrap(), 5, "at the limit");
    disk.set_free(999);
    let done = piece();
    assert!(matches!(done, Err(StoreError::NoSpace { limit: SpaceLimit::Reserve { .. } })), "{done:?}");
    disk.set_free(1000);
    assert_eq!(piece().unwrap(), 10, "it goes on when there is room again");
}

#[test]
fn a_start_survives_the_end_of_an_earlier_start_at_every_call() {
    let (disk, store) = open(0);
    push(&store, b"layer").unwrap();
    drop(store);
    let mut at = 0;
    loop {
        disk.arm(Some(Trap::PowerCut(at)));
        let opened = Store::on_disk(disk.clone(), Path::new("/data"), &options(0)).is_ok();
        disk.power_cut(Loss::Everything);
        assert_eq!(reopen(&disk, 0).stat_blob(&app(), &digest(b"layer")).unwrap(), Some(5), "after call {at}");
        if opened {
            break;
        }
        at += 1;
    }
    assert!((5..50).contains(&at), "a start makes {at} calls");
}

#[test]
fn a_start_makes_few_calls_however_much_is_stored() {
    let (disk, store) = open(0);
    let calls = |disk: &ModelDisk| {
        disk.arm(None);
        drop(reopen(disk, 0));
        disk.calls()
    };
    drop(store);
    let empty = calls(&disk);
    let store = reopen(&disk, 0);
    for number in 0..100 {
        push_to(&store, &format!("app{number}").parse().unwrap(), number.to_string().as_bytes()).unwrap();
        begin(&store, b"open").save().unwrap();
    }
    drop(store);
    assert_eq!(calls(&disk), empty);
    assert!(empty < 50, "{empty}");
}

#[test]
fn a_disk_that_cannot_sync_at_the_start_is_served_read_only() {
    let (disk, store) = open(0);
    push(&store, b"layer").unwrap();
    drop(store);
    disk.arm(None);
    drop(reopen(&disk, 0));
    let calls = disk.calls();
    let mut read_only = 0;
    for at in 1..=calls {
        disk.arm(Some(Trap::Fault(at)));
        // Any other failing call ends the start with its error.
        let Ok(store) = Store::on_disk(disk.clone(), Path::new("/data"), &options(0)) else { continue };
        assert_eq!(store.stat_blob(&app(), &digest(b"layer")).unwrap(), Some(5));
        read_only += usize::from(store.health().read_only.is_some());
    }
    assert_eq!(read_only, 1);
}

fn begin(store: &Store, content: &[u8]) -> Upload {
    let mut upload = store.start_upload(&app(), Algorithm::Sha256, OWNER).unwrap();
    upload.append(content).unwrap();
    upload
}

fn push(store: &Store, content: &[u8]) -> Result<(), StoreError> {
    push_to(store, &app(), content)
}

fn push_to(store: &Store, repository: &RepositoryName, content: &[u8]) -> Result<(), StoreError> {
    let mut upload = store.start_upload(repository, Algorithm::Sha256, OWNER)?;
    upload.append(content)?;
    upload.finish(&digest(content))
}

fn open(reserve: u64) -> (ModelDisk, Store) {
    let disk = ModelDisk::new();
    let store = reopen(&disk, reserve);
    (disk, store)
}

fn reopen(disk: &ModelDisk, reserve: u64) -> Store {
    Store::on_disk(disk.clone(), Path::new("/data"), &options(reserve)).unwrap()
}

fn options(reserve: u64) -> StoreOptions {
    StoreOptions { reserve, sync_step: 1024, ..StoreOptions::default() }
}

fn app() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
