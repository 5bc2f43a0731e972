//! Link files: whatever one holds, it is a digest or it is as if it were not there.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use portcullis_oci::{Algorithm, Digest, ManifestReference, RepositoryName, Tag};
use portcullis_store::{Store, StoreOptions};

const MANIFEST: &[u8] = b"{}";

/// One store for all runs: opening one takes longer than a run.
struct Fixture {
    store: Store,
    repository: RepositoryName,
    tag: Tag,
    link: PathBuf,
    _directory: tempfile::TempDir,
}

/// `bytes`: what stands in a tag's link.
pub(crate) fn run(bytes: &[u8]) {
    static FIXTURE: OnceLock<Mutex<Fixture>> = OnceLock::new();
    let fixture = FIXTURE.get_or_init(|| Mutex::new(Fixture::new())).lock().unwrap_or_else(PoisonError::into_inner);
    fs::write(&fixture.link, bytes).unwrap();
    let (store, repository) = (&fixture.store, &fixture.repository);
    let found = store.manifest(repository, &ManifestReference::Tag(fixture.tag.clone())).unwrap();
    let digest = Digest::of(Algorithm::Sha256, MANIFEST);
    assert_eq!(found.is_some(), bytes == digest.to_string().as_bytes(), "{:?}", String::from_utf8_lossy(bytes));
    assert!(found.is_none_or(|found| found.digest == digest && found.bytes == MANIFEST));
    let tags = store.tags(repository, None, 10).unwrap();
    assert_eq!(tags.as_deref(), Some(std::slice::from_ref(&fixture.tag)));
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { reserve: 0, ..StoreOptions::default() };
        let store = Store::open(directory.path(), &options).unwrap();
        let (repository, tag): (RepositoryName, Tag) = ("app".parse().unwrap(), "tag".parse().unwrap());
        let digest = Digest::of(Algorithm::Sha256, MANIFEST);
        store.put_manifest(&repository, &digest, MANIFEST, std::slice::from_ref(&tag)).unwrap();
        let link = directory.path().join("docker/registry/v2/repositories/app/_manifests/tags/tag/current/link");
        Self { store, repository, tag, link, _directory: directory }
    }
}
