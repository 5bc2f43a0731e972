//! The store as its users see it, on a real directory.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blobs;
mod concurrency;
mod damage;
mod fsck;
mod fuzz;
mod immutable;
mod legacy;
mod listing;
mod manifests;
mod opening;
mod pause;
mod referrers;
mod unspelled;
mod uploads;

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_oci::{Algorithm, Digest, RepositoryName, Tag};
use portcullis_store::{Store, StoreError, StoreOptions};
use tempfile::TempDir;

const OWNER: &str = "pin:alice";

/// A store in a directory of its own.
struct Fixture {
    directory: TempDir,
    store: Option<Store>,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self { directory: tempfile::tempdir().unwrap(), store: None };
        fixture.reopen();
        fixture
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Lets go of the directory and takes it again, as a restarted server does.
    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(self.directory.path()).unwrap());
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn layer_link(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.path(&format!("{TREE}/repositories/{repository}/_layers/{}/{}/link", digest.algorithm(), digest.hex()))
    }

    fn revision_link(&self, repository: &str, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        self.path(&format!("{TREE}/repositories/{repository}/_manifests/revisions/{algorithm}/{hex}/link"))
    }

    fn tag_link(&self, repository: &str, tag: &str) -> PathBuf {
        self.path(&format!("{TREE}/repositories/{repository}/_manifests/tags/{tag}/current/link"))
    }

    fn blob_data(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.path(&format!("{TREE}/blobs/{}/{}/{hex}/data", digest.algorithm(), &hex[..2]))
    }

    /// Every file below a directory, relative to the data directory.
    fn files(&self, below: &str) -> Vec<String> {
        let mut files = Vec::new();
        let mut rest = vec![self.path(below)];
        while let Some(path) = rest.pop() {
            if path.is_dir() {
                rest.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.exists() {
                files.push(path.strip_prefix(self.directory.path()).unwrap().to_str().unwrap().to_owned());
            }
        }
        files.sort();
        files
    }
}

const TREE: &str = "docker/registry/v2";

fn open(data: &Path) -> Result<Store, StoreError> {
    Store::open(data, &StoreOptions { reserve: 0, ..StoreOptions::default() })
}

fn push(store: &Store, repository: &str, content: &[u8]) -> Digest {
    let digest = sha256(content);
    let mut upload = store.start_upload(&name(repository), Algorithm::Sha256, OWNER).unwrap();
    upload.append(content).unwrap();
    upload.finish(&digest).unwrap();
    digest
}

fn put_manifest(store: &Store, repository: &str, content: &[u8], tags: &[&str]) -> Digest {
    let digest = sha256(content);
    let tags: Vec<Tag> = tags.iter().map(|text| tag(text)).collect();
    store.put_manifest(&name(repository), &digest, content, &tags).unwrap();
    digest
}

fn read(store: &Store, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
    let blob = store.open_blob(&name(repository), digest).unwrap()?;
    let mut bytes = vec![0; usize::try_from(blob.size()).unwrap()];
    assert_eq!(blob.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

/// Makes a file and the directories above it.
fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
