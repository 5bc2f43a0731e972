//! What the store promises when things go wrong after, or at, every single call to the disk.
//!
//! A scenario runs against a model of what may be seen afterwards: an operation under way may or may not have happened,
//! one that was acknowledged has.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, ManifestReference, RepositoryName, Tag, UploadId};

use super::model::{Loss, ModelDisk, Trap};
use crate::layout;
use crate::{Store, StoreError, StoreOptions};

const OWNER: &str = "pin:alice";

/// What happens to the disk when the process is gone.
#[derive(Debug, Clone, Copy)]
enum End {
    /// `kill -9`.
    Kill,
    PowerCut(Loss),
}

const ENDS: [End; 6] = [
    End::Kill,
    End::PowerCut(Loss::Everything),
    End::PowerCut(Loss::Data),
    End::PowerCut(Loss::Some(0x9E37_79B9)),
    End::PowerCut(Loss::Some(0xB529_7A4D)),
    End::PowerCut(Loss::Some(0x68E3_1DA4)),
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Blob(RepositoryName, Digest),
    Manifest(RepositoryName, Digest),
    Tag(RepositoryName, Tag),
}

/// What a subject reads as: the bytes, or for a tag the digest.
type Seen = Option<Vec<u8>>;

/// A store, and what may be seen of it.
struct Run {
    store: Store,
    world: World,
}

#[derive(Default)]
struct World {
    allowed: BTreeMap<Subject, Vec<Seen>>,
    uploads: BTreeMap<String, SavedUpload>,
    /// The scenario began with a damaged volume and has not repaired it yet.
    damaged: bool,
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

type Scenario = fn(&mut Run) -> Result<(), StoreError>;

#[test]
fn push_survives_everything() {
    check(
        |_| Ok(()),
        |run| {
            run.push("team/app", b"a first layer")?;
            run.push("team/app", b"a second layer")?;
            run.push("other", b"a first layer")?;
            run.mount("team/app", "third", b"a second layer")
        },
    );
}

#[test]
fn a_push_of_what_is_there_survives_everything() {
    check(
        |run| run.push("team/app", b"a layer"),
        |run| {
            run.push("team/app", b"a layer")?;
            run.push("team/app/sub", b"a layer")
        },
    );
}

#[test]
fn chunked_push_survives_everything() {
    check(
        |_| Ok(()),
        |run| {
            let content = long_content();
            let id = run.start("team/app", &content)?;
            run.append_and_save(id, 1000)?;
            run.append_and_save(id, content.len() - 10)?; // synced: more than a step since the last
            run.append_and_save(id, content.len() - 5)?;
            run.finish(id)
        },
    );
}

#[test]
fn manifest_and_tags_survive_everything() {
    check(
        |_| Ok(()),
        |run| {
            run.push("team/app", b"config")?;
            run.put_manifest("team/app", b"{\"first\":1}", &["1.0", "latest"])?;
            run.put_manifest("team/app", b"{\"second\":2}", &["latest"])?;
            run.put_manifest("team/app", b"{\"second\":2}", &[])
        },
    );
}

#[test]
fn deletes_survive_everything() {
    let fill: Scenario = |run| {
        run.push("team/app", b"config")?;
        run.put_manifest("team/app", br#"{"schemaVersion":2,"manifests":[]}"#, &["1.0", "stable"])?;
        run.put_manifest("team/app", br#"{"schemaVersion":2,"manifests":[],"annotations":{}}"#, &["2.0", "latest"])
    };
    check(fill, |run| {
        run.delete_tag("team/app", "latest")?;
        run.delete_manifest("team/app", br#"{"schemaVersion":2,"manifests":[]}"#, &["1.0", "stable"])?;
        run.delete_blob("team/app", b"config")
    });
}

#[test]
fn what_comes_and_goes_and_comes_again_survives_everything() {
    check(
        |_| Ok(()),
        |run| {
            run.push("app", b"a layer")?;
            run.delete_blob("app", b"a layer")?;
            run.push("app", b"a layer")?;
            run.put_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])?;
            run.delete_tag("app", "a")?;
            run.put_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])?;
            run.delete_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])?;
            run.put_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])
        },
    );
}

#[test]
fn a_damaged_volume_is_repaired_by_a_push_that_survives_everything() {
    let damage: Scenario = |run| {
        run.push("team/app", b"a layer")?;
        run.put_manifest("team/app", b"{\"first\":1}", &["1.0"])?;
        let backend = &run.store.inner.backend;
        let (blob, manifest) = (sha256(b"a layer"), sha256(b"{\"first\":1}"));
        backend.put(&layout::blob_data(&blob), b"a la")?;
        backend.put(&layout::layer_link(&name("team/app"), &blob), b"")?;
        backend.put(&layout::blob_data(&manifest), b"{\"first\":")?;
        backend.put(&layout::revision_link(&name("team/app"), &manifest), b"sha256:")?;
        let absent = run.world.allowed.values_mut();
        absent.for_each(|allowed| *allowed = vec![None]);
        run.world.damaged = true;
        Ok(())
    };
    check(damage, |run| {
        run.push("team/app", b"a layer")?;
        run.put_manifest("team/app", b"{\"first\":1}", &["1.0"])
    });
}

#[test]
fn what_a_head_finds_while_it_is_pushed_is_durable() {
    let push: Scenario = |run| run.push("team/app", b"a layer");
    let put: Scenario = |run| run.put_manifest("team/app", b"{}", &["1"]);
    for (scenario, tagged) in [(push, false), (put, true)] {
        let (disk, mut run) = start(|_| Ok(()));
        scenario(&mut run).unwrap();
        let calls = disk.calls();
        for at in 1..calls {
            // No answer means that it waits for the push, which is right too: it need not be waited for long.
            check_heads_during(scenario, at, Duration::from_millis(50));
        }
        if tagged {
            let (_, manifest) = check_heads_during(scenario, calls, Duration::from_mins(1));
            assert!(manifest, "a manifest is there while its tag is being written");
        }
    }
}

/// Holds the scenario at one call, and asks meanwhile for its blob and its manifest: what was found.
fn check_heads_during(scenario: Scenario, at: u64, patience: Duration) -> (bool, bool) {
    let (disk, mut run) = start(|_| Ok(()));
    let store = run.store.clone();
    disk.arm(Some(Trap::Hold(at)));
    let (blob, manifest) = (sha256(b"a layer"), sha256(b"{}"));
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| scenario(&mut run));
        while !disk.holds() && !pushing.is_finished() {
            std::thread::yield_now();
        }
        let (tell, told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let app = name("team/app");
            let _ = tell.send((store.has_blob(&app, &blob).unwrap(), store.has_manifest(&app, &manifest).unwrap()));
        });
        let answer = told.recv_timeout(patience).unwrap_or_default();
        let after = disk.fork();
        // Released before anything is asserted: a failure must end the test, not leave it waiting for the push.
        disk.arm(None);
        pushing.join().unwrap().unwrap();
        after.power_cut(Loss::Everything);
        let after = open(&after);
        assert!(!answer.0 || after.has_blob(&name("team/app"), &blob).unwrap(), "a blob, at call {at}");
        assert!(!answer.1 || after.has_manifest(&name("team/app"), &manifest).unwrap(), "a manifest, at call {at}");
        answer
    })
}

/// Runs a scenario to its end, to every call with an end of the process after it, and with every call failing.
fn check(before: Scenario, scenario: Scenario) {
    let (disk, mut run) = start(before);
    scenario(&mut run).unwrap();
    let calls = disk.calls();
    run.check(&disk, None, "undisturbed");
    for at in 0..=calls {
        for end in ENDS {
            let what = format!("{end:?} after call {at} of {calls}");
            let (disk, mut run) = start(before);
            disk.arm(Some(Trap::PowerCut(at)));
            let done = scenario(&mut run);
            // What is acknowledged before its temporaries are removed may be acknowledged a few calls early.
            assert!(done.is_ok() || at < calls, "{what}: {done:?}");
            run = run.end(&disk, end);
            run.check(&disk, Some(end), &what);
            run.check_that_nothing_is_taken_back(&disk, &what);
            run = again(run, scenario, &what);
            run.check(&disk, None, &format!("again after {what}"));
        }
    }
    for at in 1..=calls {
        for trap in [Trap::Fault(at), Trap::Full(at)] {
            check_fault(before, scenario, trap);
        }
    }
}

fn check_fault(before: Scenario, scenario: Scenario, trap: Trap) {
    let what = format!("{trap:?}");
    // What is still answered after the fault is promised: the power goes at once.
    let (disk, mut run) = start(before);
    disk.arm(Some(trap));
    let done = scenario(&mut run);
    disk.arm(None);
    if done.is_err() {
        run.check(&disk, None, &what);
        let left: Vec<_> = disk.tree().into_keys().filter(|path| path.starts_with("portcullis/tmp/")).collect();
        assert!(left == ["portcullis/tmp/"], "{what} left {left:?}");
    }
    run.promise_what_is_seen();
    run = run.end(&disk, End::PowerCut(Loss::Everything));
    run.check(&disk, Some(End::PowerCut(Loss::Everything)), &what);

    // The same store goes on, and what it then acknowledges survives too.
    let (disk, mut run) = start(before);
    disk.arm(Some(trap));
    let _ = scenario(&mut run);
    disk.arm(None);
    run = again(run, scenario, &what);
    run.check(&disk, None, &format!("again after {what}"));
    run = run.end(&disk, End::PowerCut(Loss::Everything));
    run.check(&disk, Some(End::PowerCut(Loss::Everything)), &format!("again after {what}, then a power cut"));
}

fn start(before: Scenario) -> (ModelDisk, Run) {
    let disk = ModelDisk::new();
    let mut run = Run { store: open(&disk), world: World::default() };
    before(&mut run).unwrap();
    disk.arm(None);
    (disk, run)
}

fn again(mut run: Run, scenario: Scenario, what: &str) -> Run {
    run.world.uploads.clear();
    scenario(&mut run).unwrap_or_else(|error| panic!("again after {what}: {error} ({error:?})"));
    run.world.damaged = false;
    run
}

fn open(disk: &ModelDisk) -> Store {
    let options = StoreOptions { reserve: 0, sync_step: 1024, ..StoreOptions::default() };
    Store::on_disk(disk.clone(), Path::new("/data"), &options).unwrap()
}

impl Run {
    fn push(&mut self, repository: &str, content: &[u8]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        self.attempt(Subject::Blob(repository.clone(), digest), Some(content.to_vec()), |store| {
            let mut upload = store.start_upload(&repository, Algorithm::Sha256, OWNER)?;
            for piece in content.chunks(5) {
                upload.append(piece)?;
            }
            upload.finish(&digest)
        })
    }

    fn mount(&mut self, from: &str, to: &str, content: &[u8]) -> Result<(), StoreError> {
        let (from, to, digest) = (name(from), name(to), sha256(content));
        self.attempt(Subject::Blob(to.clone(), digest), Some(content.to_vec()), |store| {
            store.mount_blob(&from, &to, &digest).map(|mounted| assert!(mounted))
        })
    }

    fn start(&mut self, repository: &str, content: &[u8]) -> Result<UploadId, StoreError> {
        let repository = name(repository);
        let upload = self.store.start_upload(&repository, Algorithm::Sha256, OWNER)?;
        let id = upload.id();
        let saved = SavedUpload { id, repository, content: content.to_vec(), acknowledged: 0, touched: false };
        self.world.uploads.insert(id.to_string(), saved);
        Ok(id)
    }

    fn append_and_save(&mut self, id: UploadId, until: usize) -> Result<(), StoreError> {
        let saved = self.world.uploads.get_mut(&id.to_string()).unwrap();
        saved.touched = true;
        let mut upload = self.store.resume_upload(&saved.repository, &id, OWNER)?;
        assert_eq!(upload.offset(), saved.acknowledged);
        upload.append(&saved.content[usize::try_from(upload.offset()).unwrap()..until])?;
        saved.acknowledged = upload.save()?;
        saved.touched = false;
        Ok(())
    }

    fn finish(&mut self, id: UploadId) -> Result<(), StoreError> {
        let saved = self.world.uploads.remove(&id.to_string()).unwrap();
        let digest = sha256(&saved.content);
        self.attempt(Subject::Blob(saved.repository.clone(), digest), Some(saved.content.clone()), |store| {
            let mut upload = store.resume_upload(&saved.repository, &id, OWNER)?;
            upload.append(&saved.content[usize::try_from(upload.offset()).unwrap()..])?;
            upload.finish(&digest)
        })
    }

    fn put_manifest(&mut self, repository: &str, content: &[u8], tags: &[&str]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let mut subjects = vec![(Subject::Manifest(repository.clone(), digest), Some(content.to_vec()))];
        let points_here = Some(digest.to_string().into_bytes());
        subjects.extend(tags.iter().map(|tag| (Subject::Tag(repository.clone(), tag.clone()), points_here.clone())));
        self.attempt_all(subjects, |store| store.put_manifest(&repository, &digest, content, &tags))
    }

    fn delete_tag(&mut self, repository: &str, tag: &str) -> Result<(), StoreError> {
        let (repository, tag): (_, Tag) = (name(repository), tag.parse().unwrap());
        self.attempt(Subject::Tag(repository.clone(), tag.clone()), None, |store| {
            store.delete_tag(&repository, &tag).map(drop)
        })
    }

    fn delete_manifest(&mut self, repository: &str, content: &[u8], tags: &[&str]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        let mut subjects = vec![(Subject::Manifest(repository.clone(), digest), None)];
        let tags = tags.iter().map(|tag| (Subject::Tag(repository.clone(), tag.parse().unwrap()), None));
        subjects.extend(tags);
        self.attempt_all(subjects, |store| store.delete_manifest(&repository, &digest).map(drop))
    }

    fn delete_blob(&mut self, repository: &str, content: &[u8]) -> Result<(), StoreError> {
        let (repository, digest) = (name(repository), sha256(content));
        self.attempt(Subject::Blob(repository.clone(), digest), None, |store| {
            store.delete_blob(&repository, &digest).map(drop)
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

    fn end(self, disk: &ModelDisk, end: End) -> Self {
        let Self { store, world } = self;
        drop(store);
        match end {
            End::Kill => disk.kill(),
            End::PowerCut(loss) => disk.power_cut(loss),
        }
        Self { store: open(disk), world }
    }

    /// A HEAD that answers 200 must not be taken back.
    fn promise_what_is_seen(&mut self) {
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
    fn check_that_nothing_is_taken_back(&mut self, disk: &ModelDisk, what: &str) {
        let disk = disk.fork();
        disk.power_cut(Loss::Everything);
        let store = open(&disk);
        for (subject, allowed) in &self.world.allowed {
            let seen = see(&store, subject);
            assert!(allowed.contains(&seen), "{what}, then a power cut: {subject:?} is {seen:?}, allowed {allowed:?}");
        }
    }

    /// `end`: the process has just been started again after this.
    fn check(&mut self, disk: &ModelDisk, end: Option<End>, what: &str) {
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
            assert_eq!(sha256(&bytes).hex(), hex, "{what}: {path}");
        }
        if path.ends_with("/link") {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.parse::<Digest>().is_ok(), "{what}: {path} holds {text:?}");
        }
    }
}

/// Longer than what is saved without a sync.
fn long_content() -> Vec<u8> {
    (0..700_u32).flat_map(u32::to_le_bytes).collect()
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}
