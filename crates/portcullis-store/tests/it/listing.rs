//! Tags and repositories in pages.

use std::collections::BTreeSet;
use std::fs;

use portcullis_store::Store;
use proptest::prelude::*;

use crate::{Fixture, name, push, put_manifest, sha256, tag, write};

fn tags(store: &Store, after: Option<&str>, limit: usize) -> Vec<String> {
    let tags = store.tags(&name("app"), after, limit).unwrap().unwrap();
    tags.iter().map(|tag| tag.as_str().to_owned()).collect()
}

fn repositories(store: &Store, after: Option<&str>, limit: usize) -> Vec<String> {
    store.repositories(after, limit).unwrap().iter().map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn tags_come_in_byte_order() {
    let fixture = Fixture::new();
    put_manifest(fixture.store(), "app", b"{}", &["b", "a", "10", "9", "A", "_", "a-b", "a.b", "latest"]);
    let store = fixture.store();
    let all = ["10", "9", "A", "_", "a", "a-b", "a.b", "b", "latest"];
    assert_eq!(tags(store, None, 100), all);
    assert_eq!(tags(store, None, 9), all);
    assert_eq!(tags(store, None, 8), all[..8]);
    assert_eq!(tags(store, Some("a"), 2), ["a-b", "a.b"]);
    assert_eq!(tags(store, Some("a-a"), 1), ["a-b"], "a name that is no tag here");
    assert_eq!(tags(store, Some("../../x"), 1), ["10"], "a text that is no tag at all");
    assert_eq!(tags(store, Some("latest"), 100), [""; 0]);
    assert_eq!(tags(store, None, 0), [""; 0]);
}

#[test]
fn a_page_is_filled_although_much_of_the_directory_is_no_tag() {
    let fixture = Fixture::new();
    put_manifest(fixture.store(), "app", b"{}", &["a", "z"]);
    let directory = fixture.path("docker/registry/v2/repositories/app/_manifests/tags");
    for number in 0..2500 {
        fs::create_dir_all(directory.join(format!("m{number}"))).unwrap();
    }
    write(&directory.join("not a tag/current/link"), sha256(b"{}").to_string());
    assert_eq!(tags(fixture.store(), None, 2), ["a", "z"]);
    assert_eq!(tags(fixture.store(), Some("a"), 2), ["z"]);
}

#[test]
fn a_repository_without_tags_is_not_one_that_does_not_exist() {
    let fixture = Fixture::new();
    let store = fixture.store();
    assert_eq!(store.tags(&name("app"), None, 10).unwrap(), None);
    push(store, "app", b"a layer");
    assert_eq!(store.tags(&name("app"), None, 10).unwrap(), Some(Vec::new()));
    push(store, "a/b", b"a layer");
    assert_eq!(store.tags(&name("a"), None, 10).unwrap(), None, "only a directory on the way");
    put_manifest(store, "other", b"{}", &["1"]);
    store.delete_tag(&name("other"), &tag("1")).unwrap();
    assert_eq!(store.tags(&name("other"), None, 10).unwrap(), Some(Vec::new()));
}

#[test]
fn repositories_come_component_by_component() {
    let fixture = Fixture::new();
    let store = fixture.store();
    assert_eq!(repositories(store, None, 10), [""; 0]);
    for repository in ["b", "a-b", "a", "a/b/c", "a/b", "a/z", "library/x", "a.b"] {
        push(store, repository, b"a layer");
    }
    fs::create_dir_all(fixture.path("docker/registry/v2/repositories/empty/_uploads")).unwrap();
    fs::create_dir_all(fixture.path("docker/registry/v2/repositories/UPPER/_layers/sha256")).unwrap();
    let all = ["a", "a/b", "a/b/c", "a/z", "a-b", "a.b", "b", "library/x"];
    assert_eq!(repositories(store, None, 100), all);
    for limit in 1..=all.len() {
        assert_eq!(repositories(store, None, limit), all[..limit]);
    }
    for (at, last) in all.iter().enumerate() {
        assert_eq!(repositories(store, Some(last), 100), all[at + 1..], "after {last}");
        assert_eq!(repositories(store, Some(last), 1), all[at + 1..all.len().min(at + 2)]);
    }
    assert_eq!(repositories(store, Some("library"), 10), ["library/x"]);
    assert_eq!(repositories(store, Some("a/b/nothing/here"), 1), ["a/z"]);
    for hostile in ["..", "../..", "../../../..", "/", "", "a/", "a//b", "_layers", "a/../..", &"a/".repeat(5000)] {
        assert!(repositories(store, Some(hostile), 100).iter().all(|name| all.contains(&name.as_str())), "{hostile}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_any_size_make_up_the_whole(
        names in prop::collection::btree_set("[a-c]{1,2}(/[a-c]{1,2}){0,2}", 0..12),
        limit in 1_usize..5,
    ) {
        let fixture = Fixture::new();
        for name in &names {
            push(fixture.store(), name, b"");
            put_manifest(fixture.store(), "tagged", b"{}", &[&name.replace('/', ".")]);
        }
        let mut expected: Vec<String> = names.iter().cloned().collect();
        if !names.is_empty() {
            expected.push("tagged".to_owned());
        }
        expected.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = repositories(fixture.store(), found.last().map(String::as_str), limit);
            if page.is_empty() { break; }
            found.extend(page);
        }
        prop_assert_eq!(found, expected);

        let expected: BTreeSet<String> = names.iter().map(|name| name.replace('/', ".")).collect();
        let mut found: Vec<String> = Vec::new();
        while let Some(page) = fixture.store().tags(&name("tagged"), found.last().map(String::as_str), limit).unwrap() {
            if page.is_empty() { break; }
            found.extend(page.iter().map(|tag| tag.as_str().to_owned()));
        }
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}
