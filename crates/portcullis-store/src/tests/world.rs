//! What may be seen of a store: the operations of a scenario, each with what it promises once it is acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, ManifestReference, RepositoryName, Tag, UploadId};

use super::model::{Loss, ModelDisk};
use crate::{Removal, Store, StoreError, StoreOptions};

const OWNER: &str = "pin:alice";

/// What happens to the disk when the process is gone.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// `kill -9`.
    Kill,
    PowerCut(Loss),
}

impl End {
    /// Another choice of what is lost at every call.
    pub(super) fn at(self, call: u64) -> Self {
        match self {
            Self::PowerCut(Loss::Some(seed)) => Self::PowerCut(Loss::Some(seed.wrapping_mul(2 * call + 1) | 1)),
            other => other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Blob(RepositoryName, Digest),
    Manifest(RepositoryName, Digest),
    Tag(RepositoryName, Tag),
}

/// What a subject reads as: the bytes, or for a tag the digest.
pub(super) type Seen = Option<Vec<u8>>;

/// A store, and what may be seen of it.
pub(super) struct Run {
    pub(super) store: Store,
    pub(super) world: World,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) allowed: BTreeMap<Subject, Vec<Seen>>,
    uploads: BTreeMap<String, SavedUpload>,
    /// The scenario began with a damaged volume and has not repaired it yet.
    pub(super) damaged: bool,
}

struct SavedUpload {
    id: UploadId,
    repository: RepositoryName,
    content: Vec<u8>,
    /// The offset last acknowledged.
    acknowledged: u64,
    /// Something was tried since then.
    touched: bool,
}

impl World {
    /// The uploads of an earlier attempt are nobody's any more.
    pub(super) fn forget_uploads(&mut self) {
        self.uploads.clear();
    }
}

impl Run {
    pub(super) fn push(&mut self, repository: &str, content: &[u8]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        self.attempt(Subject::Blob(repository.clone(), digest), Some(content.to_vec()), |store| {
            let mut upload = store.start_upload(&repository, Algorithm::Sha256, OWNER)?;
            for piece in content.chunks(5) {
                upload.append(piece)?;
            }
            upload.finish(&digest)
        })
    }

    /// By its sha512.
    pub(super) fn push_sha512(&mut self, repository: &str, content: &[u8]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), Digest::of(Algorithm::Sha512, content));
        self.attempt(Subject::Blob(repository.clone(), digest), Some(content.to_vec()), |store| {
            let mut upload = store.start_upload(&repository, Algorithm::Sha512, OWNER)?;
            upload.append(content)?;
            upload.finish(&digest)
        })
    }

    pub(super) fn mount(&mut self, from: &str, to: &str, content: &[u8]) -> Result<(), StoreError> {
        let (from, to, digest) = (name(from), name(to), sha256(content));
        self.attempt(Subject::Blob(to.clone(), digest), Some(content.to_vec()), |store| {
            store.mount_blob(&from, &to, &digest).map(|mounted| assert!(mounted))
        })
    }

    pub(super) fn start(&mut self, repository: &str, content: &[u8]) -> Result<UploadId, StoreError> {
        let repository = name(repository);
        let upload = self.store.start_upload(&repository, Algorithm::Sha256, OWNER)?;
        let id = upload.id();
        let saved = SavedUpload { id, repository, content: content.to_vec(), acknowledged: 0, touched: false };
        self.world.uploads.insert(id.to_string(), saved);
        Ok(id)
    }

    pub(super) fn append_and_save(&mut self, id: UploadId, until: usize) -> Result<(), StoreError> {
        let saved = self.world.uploads.get_mut(&id.to_string()).unwrap();
        saved.touched = true;
        let mut upload = self.store.resume_upload(&saved.repository, &id, OWNER)?;
        assert_eq!(upload.offset(), saved.acknowledged);
        let rest = &saved.content[usize::try_from(upload.offset()).unwrap()..until];
        let (first, second) = rest.split_at(rest.len() / 2);
        upload.append_all(&[first, b"", second])?;
        saved.acknowledged = upload.save()?;
        saved.touched = false;
        Ok(())
    }

    pub(super) fn finish(&mut self, id: UploadId) -> Result<(), StoreError> {
        let saved = self.world.uploads.remove(&id.to_string()).unwrap();
        let digest = sha256(&saved.content);
        self.attempt(Subject::Blob(saved.repository.clone(), digest), Some(saved.content.clone()), |store| {
            let mut upload = store.resume_upload(&saved.repository, &id, OWNER)?;
            upload.append(&saved.content[usize::try_from(upload.offset()).unwrap()..])?;
            upload.finish(&digest)
        })
    }

    pub(super) fn put_manifest(&mut self, repository: &str, content: &[u8], tags: &[&str]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let mut subjects = vec![(Subject::Manifest(repository.clone(), digest), Some(content.to_vec()))];
        let points_here = Some(digest.to_string().into_bytes());
        subjects.extend(tags.iter().map(|tag| (Subject::Tag(repository.clone(), tag.clone()), points_here.clone())));
        self.attempt_all(subjects, |store| store.put_manifest(&repository, &digest, content, &tags))
    }

    pub(super) fn delete_tag(&mut self, repository: &str, tag: &str) -> Result<(), StoreError> {
        let (repository, tag): (_, Tag) = (name(repository), tag.parse().unwrap());
        self.attempt(Subject::Tag(repository.clone(), tag.clone()), None, |store| {
            store.delete_tag(&repository, &tag).map(drop)
        })
    }

    pub(super) fn delete_manifest(
        &mut self,
        repository: &str,
        content: &[u8],
        tags: &[&str],
    ) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        let mut subjects = vec![(Subject::Manifest(repository.clone(), digest), None)];
        let tags = tags.iter().map(|tag| (Subject::Tag(repository.clone(), tag.parse().unwrap()), None));
        subjects.extend(tags);
        self.attempt_all(subjects, |store| store.delete_manifest(&repository, &digest).map(drop))
    }

    pub(super) fn delete_blob(&mut self, repository: &str, content: &[u8]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        self.attempt(Subject::Blob(repository.clone(), digest), None, |store| {
            store.delete_blob(&repository, &digest).map(drop)
        })
    }

    /// Collects to the end; only these blobs are dead.
    pub(super) fn collect(&mut self, dead: &[(&str, &[u8])]) -> Result<(), StoreError> {
        let dead = dead.iter().map(|(repository, content)| (Subject::Blob(name(repository), sha256(content)), None));
        self.attempt_all(dead.collect(), |store| {
            let mut collection = store.collect(Removal::Real)?;
            while collection.step()? {}
            // What could not be read may have been a manifest: then nothing went, and nothing is acknowledged.
            match collection.so_far().held.first() {
                Some(held) => Err(StoreError::Io {
                    action: "collect",
                    path: held.repository.as_str().into(),
                    source: std::io::Error::other(held.obstacle.to_string()),
                }),
                None => Ok(()),
            }
        })
    }

    fn attempt(
        &mut self,
        subject: Subject,
        then: Seen,
        operation: impl FnOnce(&Store) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.attempt_all(vec![(subject, then)], operation)
    }

    /// While the operation is under way both the old and the new may be seen; afterwards only the new.
    fn attempt_all(
        &mut self,
        subjects: Vec<(Subject, Seen)>,
        operation: impl FnOnce(&Store) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for (subject, then) in &subjects {
            self.world.allowed.entry(subject.clone()).or_insert_with(|| vec![None]).push(then.clone());
        }
        operation(&self.store)?;
        for (subject, then) in subjects {
            self.world.allowed.insert(subject, vec![then]);
        }
        Ok(())
    }

    pub(super) fn end(self, disk: &ModelDisk, end: End) -> Self {
        let Self { store, world } = self;
        drop(store);
        match end {
            End::Kill => disk.kill(),
            End::PowerCut(loss) => disk.power_cut(loss),
        }
        Self { store: open(disk), world }
    }

    /// A HEAD that answers 200 must not be taken back.
    pub(super) fn promise_what_is_seen(&mut self) {
        for (subject, allowed) in &mut self.world.allowed {
            let promised = match subject {
                Subject::Blob(repository, digest) => self.store.has_blob(repository, digest).unwrap(),
                Subject::Manifest(repository, digest) => self.store.has_manifest(repository, digest).unwrap(),
                Subject::Tag(..) => false,
            };
            if promised {
                allowed.retain(Option::is_some);
            }
        }
    }

    /// What the store says is there must be there after one more power cut: it may have been made visible by a process
    /// that died before it had synced it.
    pub(super) fn check_that_nothing_is_taken_back(&mut self, disk: &ModelDisk, what: &str) {
        let disk = disk.fork();
        disk.power_cut(Loss::Everything);
        let store = open(&disk);
        for (subject, allowed) in &self.world.allowed {
            let seen = see(&store, subject);
            assert!(allowed.contains(&seen), "{what}, then a power cut: {subject:?} is {seen:?}, allowed {allowed:?}");
        }
    }

    /// `end`: the process has just been started again after this.
    pub(super) fn check(&mut self, disk: &ModelDisk, end: Option<End>, what: &str) {
        for (subject, allowed) in &mut self.world.allowed {
            let seen = see(&self.store, subject);
            assert!(allowed.contains(&seen), "{what}: {subject:?} is {seen:?}, allowed {allowed:?}");
            if end.is_some() {
                *allowed = vec![seen];
            }
        }
        if !self.world.damaged {
            check_tree(disk, what);
        }
        if let Some(end) = end {
            let temporaries = disk.tree().into_keys().filter(|path| path.starts_with("portcullis/tmp/"));
            assert_eq!(temporaries.collect::<Vec<_>>(), ["portcullis/tmp/"], "{what}");
            self.check_uploads(end, what);
        }
    }

    /// Every upload goes on where the status says, and what was acknowledged before a kill is all there.
    fn check_uploads(&mut self, end: End, what: &str) {
        for id in self.store.inner.backend.stages().unwrap() {
            let staged = self.store.inner.backend.staged(&id).unwrap();
            assert!(staged.is_some_and(|staged| !staged.note.is_empty()), "{what}: upload {id} is a ruin");
        }
        for saved in std::mem::take(&mut self.world.uploads).into_values() {
            let SavedUpload { id, repository, content, acknowledged, touched } = saved;
            let offset = match self.store.upload_status(&repository, &id, OWNER) {
                Ok(offset) => offset,
                Err(StoreError::UploadUnknown { .. }) if touched || matches!(end, End::PowerCut(_)) => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            match end {
                End::Kill if !touched => assert_eq!(offset, acknowledged, "{what}"),
                End::Kill => assert!(offset >= acknowledged, "{what}"),
                End::PowerCut(_) if !touched => assert!(offset <= acknowledged, "{what}"),
                End::PowerCut(_) => {}
            }
            let mut upload = self.store.resume_upload(&repository, &id, OWNER).unwrap();
            assert_eq!(upload.offset(), offset, "{what}");
            upload.append(&content[usize::try_from(offset).unwrap()..]).unwrap();
            upload.finish(&sha256(&content)).unwrap_or_else(|error| panic!("{what}: at {offset}: {error}"));
        }
    }
}

fn see(store: &Store, subject: &Subject) -> Seen {
    match subject {
        Subject::Blob(repository, digest) => store.open_blob(repository, digest).unwrap().map(|blob| {
            let mut bytes = vec![0; usize::try_from(blob.size()).unwrap()];
            assert_eq!(blob.read_at(&mut bytes, 0).unwrap(), bytes.len());
            bytes
        }),
        Subject::Manifest(repository, digest) => {
            let reference = ManifestReference::Digest(*digest);
            store.manifest(repository, &reference).unwrap().map(|manifest| manifest.bytes.to_vec())
        }
        Subject::Tag(repository, tag) => {
            let reference = ManifestReference::Tag(tag.clone());
            let manifest = store.manifest(repository, &reference).unwrap();
            let listed = store.tags(repository, None, 100).unwrap().is_some_and(|tags| tags.contains(tag));
            assert!(listed || manifest.is_none(), "{tag} answers but is not listed");
            manifest.map(|manifest| manifest.digest.to_string().into_bytes())
        }
    }
}

/// Nothing half-written is visible: all data has the digest it lies under.
fn check_tree(disk: &ModelDisk, what: &str) {
    for (path, bytes) in disk.tree() {
        if let Some(hex) = path.strip_suffix("/data").filter(|path| path.contains("/blobs/")) {
            let hex = hex.rsplit('/').next().unwrap();
            let algorithm = if path.contains("/sha512/") { Algorithm::Sha512 } else { Algorithm::Sha256 };
            assert_eq!(Digest::of(algorithm, &bytes).hex(), hex, "{what}: {path}");
        }
        if path.ends_with("/link") {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.parse::<Digest>().is_ok(), "{what}: {path} holds {text:?}");
        }
    }
}

pub(super) fn open(disk: &ModelDisk) -> Store {
    // No grace: a collection takes everything at once that nobody names.
    let grace = Duration::ZERO;
    let options = StoreOptions { reserve: 0, sync_step: 1024, grace, ..StoreOptions::default() };
    Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap()
}

pub(super) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
