use super::*;
use crate::tests::model::{Loss, ModelDisk};

fn durable() -> (ModelDisk, Durable<ModelDisk>) {
    let disk = ModelDisk::new();
    disk.make_directory("portcullis", 0o700).unwrap();
    disk.make_directory(layout::TMP, 0o700).unwrap();
    disk.sync_everything().unwrap();
    (disk.clone(), Durable::new(disk, PathBuf::from("/data")))
}

#[test]
fn a_directory_that_another_operation_has_just_made_is_not_yet_durable() {
    let (disk, durable) = durable();
    for path in ["a", "a/b", "a/b/c"] {
        disk.make_directory(path, 0o755).unwrap();
    }
    durable.put("a/b/c/file", b"bytes").unwrap();
    disk.power_cut(Loss::Everything);
    assert_eq!(disk.tree()["a/b/c/file"], b"bytes");
}

#[test]
fn a_directory_that_was_removed_and_made_again_is_not_yet_durable() {
    let (disk, durable) = durable();
    durable.put("a/b/file", b"old").unwrap();
    assert!(durable.remove("a/b").unwrap());
    durable.put("a/b/file", b"new").unwrap();
    assert!(durable.remove_with_directory("a/b/file").unwrap());
    durable.put("a/b/file", b"newer").unwrap();
    disk.power_cut(Loss::Everything);
    assert_eq!(disk.tree()["a/b/file"], b"newer");
}

#[test]
fn a_directory_that_somebody_removes_behind_our_back_is_made_again() {
    let (disk, durable) = durable();
    durable.put("a/b/file", b"old").unwrap();
    disk.remove_file("a/b/file").unwrap();
    disk.remove_directory("a/b").unwrap();
    disk.remove_directory("a").unwrap();
    durable.put("a/b/file", b"new").unwrap();
    disk.power_cut(Loss::Everything);
    assert_eq!(disk.tree()["a/b/file"], b"new");
}

#[test]
fn a_directory_known_to_be_durable_is_not_synced_again() {
    let (disk, durable) = durable();
    let calls = |path: &str| {
        disk.arm(None);
        durable.put(path, b"bytes").unwrap();
        disk.calls()
    };
    let first = calls("a/b/c/one");
    let second = calls("a/b/c/two");
    // Open, write, sync, stat, rename, sync.
    assert_eq!(second, 6);
    assert!(first > second);
}
