//! Many of everything: what is asked of a disk does not grow with what lies on it.

use std::path::Path;

use super::model::ModelDisk;
use super::world::{name, open, sha256};
use crate::disk::{Access, Disk};
use crate::{Store, StoreOptions};

const TREE: &str = "docker/registry/v2/repositories";
const REPOSITORIES: usize = 10_000;
const TAGS: usize = 100_000;

/// A volume as another server may have left it, written into the layout directly.
fn volume() -> ModelDisk {
    let disk = ModelDisk::new();
    let make = |path: &str| disk.make_directory(path, 0o755).unwrap();
    for path in ["docker", "docker/registry", "docker/registry/v2", TREE] {
        make(path);
    }
    for number in 0..REPOSITORIES {
        for below in ["", "/_layers", "/_layers/sha256"] {
            make(&format!("{TREE}/r{number:05}{below}"));
        }
    }
    for below in ["", "/_manifests", "/_manifests/tags"] {
        make(&format!("{TREE}/tagged{below}"));
    }
    for number in 0..TAGS {
        add_tag(&disk, &format!("t{number:06}"));
    }
    disk.sync_everything().unwrap();
    disk
}

fn add_tag(disk: &ModelDisk, tag: &str) {
    let tag = format!("{TREE}/tagged/_manifests/tags/{tag}");
    for path in [tag.clone(), format!("{tag}/current")] {
        disk.make_directory(&path, 0o755).unwrap();
    }
    let link = disk.open(&format!("{tag}/current/link"), Access::Create).unwrap();
    disk.write_at(&link, sha256(b"{}").to_string().as_bytes(), 0).unwrap();
}

/// A page of tags, and how often it asked the disk.
fn page(store: &Store, disk: &ModelDisk, after: Option<&str>, limit: usize) -> (Vec<String>, u64) {
    disk.arm(None);
    let tags = store.tags(&name("tagged"), after, limit).unwrap().unwrap();
    (tags.iter().map(ToString::to_string).collect(), disk.calls())
}

#[test]
fn a_start_and_every_page_cost_what_they_give() {
    let disk = volume();
    disk.arm(None);
    let store = open(&disk);
    assert!(disk.calls() <= 50, "a start makes {} disk calls", disk.calls());

    let (first, calls) = page(&store, &disk, None, 1000);
    assert_eq!((first.len(), first[999].as_str()), (1000, "t000999"));
    assert!(calls <= 1010, "{calls} for the first page");
    let (last, calls) = page(&store, &disk, Some("t099989"), 1000);
    assert_eq!((last.len(), last[9].as_str()), (10, "t099999"));
    // One for the stamp, one for each link.
    assert_eq!(calls, 11, "a later page reads no directory");

    // Our own writes are followed without reading it again.
    store.put_manifest(&name("tagged"), &sha256(b"{}"), b"{}", &["t0999995".parse().unwrap()]).unwrap();
    store.delete_tag(&name("tagged"), &"t099998".parse().unwrap()).unwrap();
    let (followed, calls) = page(&store, &disk, Some("t099997"), 1000);
    assert_eq!((followed.join(" ").as_str(), calls), ("t099999 t0999995", 3));

    // Anybody else's are seen by the directory's stamp.
    add_tag(&disk, "zz");
    assert_eq!(page(&store, &disk, Some("t099999"), 1000).0, ["t0999995", "zz"]);
}

#[test]
fn every_page_of_the_catalog_costs_the_same() {
    let disk = volume();
    let store = open(&disk);
    let mut last: Option<String> = None;
    for number in 0..REPOSITORIES / 1000 {
        disk.arm(None);
        let page = store.repositories(last.as_deref(), 1000).unwrap();
        // Three for each repository: two marks, and what lies below.
        assert!(disk.calls() <= 3010, "{} disk calls for page {number}", disk.calls());
        assert_eq!((page.len(), page[999].as_str()), (1000, format!("r{:05}", number * 1000 + 999).as_str()));
        last = page.last().map(ToString::to_string);
    }
    let rest = store.repositories(last.as_deref(), 1000).unwrap();
    assert_eq!(rest, [name("tagged")]);
}

/// A repository with more tags than may be kept is read page by page, and a page holds no more than it gives.
#[test]
fn more_tags_than_the_cache_holds() {
    let disk = ModelDisk::new();
    let options = StoreOptions { reserve: 0, cache_bytes: 2 * 64 * 20, ..StoreOptions::default() };
    let store = Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap();
    let mut expected = Vec::new();
    for number in 10..40 {
        let tag = format!("t{number}");
        store.put_manifest(&name("tagged"), &sha256(b"{}"), b"{}", &[tag.parse().unwrap()]).unwrap();
        expected.push(tag);
        // At the limit of twenty names, and past it.
        let mut found: Vec<String> = Vec::new();
        while found.len() < expected.len() {
            found.extend(page(&store, &disk, found.last().map(String::as_str), 7).0);
        }
        assert_eq!(found, expected);
    }
}
