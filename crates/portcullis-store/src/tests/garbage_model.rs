//! Random pushes, mounts, HEADs, deletes, collections, restarts, crashes and failing calls, against a model: what was
//! promised or acknowledged is never lost, and in the end everything dead is gone.
//!
//! A collection goes on step by step between the other operations, for as long as nothing restarts the process.

mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, Manifest, ManifestReference, RepositoryName, Tag};
use proptest::prelude::*;

use super::memory::{MemoryBackend, Trap};
use crate::{Collection, Removal, Store, StoreError, StoreOptions};

const OWNER: &str = "pin:alice";
const BLOBS: usize = 5;
const GRACE: Duration = Duration::from_hours(1);
/// What a promise is worth: see `Inner::promise`.
const PROMISED: u64 = 45;

#[derive(Debug, Clone)]
enum Op {
    Push {
        repository: usize,
        blob: usize,
    },
    Mount {
        from: usize,
        blob: usize,
    },
    Head {
        repository: usize,
        blob: usize,
    },
    HeadManifest {
        repository: usize,
        manifest: usize,
    },
    Put {
        repository: usize,
        manifest: usize,
        tag: Option<usize>,
    },
    DeleteManifest {
        repository: usize,
        manifest: usize,
    },
    DeleteTag {
        repository: usize,
        tag: usize,
    },
    DeleteBlob {
        repository: usize,
        blob: usize,
    },
    /// A few steps of the collection under way, or of a new one.
    Collect {
        steps: usize,
    },
    DryRun,
    Wait {
        minutes: u64,
    },
    Restart,
    /// The next operation is cut short by the end of the process, or meets one failing call.
    Arm {
        calls: u64,
        kills: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (repository, blob, manifest, tag) = (0..2_usize, 0..BLOBS, 0..MANIFESTS, 0..2_usize);
    let op = prop_oneof![
        6 => (repository.clone(), blob.clone()).prop_map(|(repository, blob)| Op::Push { repository, blob }),
        3 => (repository.clone(), blob.clone()).prop_map(|(from, blob)| Op::Mount { from, blob }),
        3 => (repository.clone(), blob.clone()).prop_map(|(repository, blob)| Op::Head { repository, blob }),
        1 => (repository.clone(), manifest.clone())
            .prop_map(|(repository, manifest)| Op::HeadManifest { repository, manifest }),
        6 => (repository.clone(), manifest.clone(), proptest::option::of(tag.clone()))
            .prop_map(|(repository, manifest, tag)| Op::Put { repository, manifest, tag }),
        2 => (repository.clone(), manifest).prop_map(|(repository, manifest)| Op::DeleteManifest { repository, manifest }),
        2 => (repository.clone(), tag).prop_map(|(repository, tag)| Op::DeleteTag { repository, tag }),
        1 => (repository, blob).prop_map(|(repository, blob)| Op::DeleteBlob { repository, blob }),
        9 => (1..12_usize).prop_map(|steps| Op::Collect { steps }),
        1 => Just(Op::DryRun),
        5 => prop_oneof![Just(1), Just(20), Just(50), Just(70)].prop_map(|minutes| Op::Wait { minutes }),
        1 => Just(Op::Restart),
        2 => (0..40_u64, any::<bool>()).prop_map(|(calls, kills)| Op::Arm { calls, kills }),
    ];
    proptest::collection::vec(op, 1..70)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_alive_is_lost_and_all_that_is_dead_goes(ops in ops(), untagged in any::<bool>()) {
        let mut world = World::new(untagged);
        for op in &ops {
            world.apply(op);
            world.check(&format!("{op:?}"));
        }
        world.check_that_the_dead_go();
    }
}

fn cases() -> u32 {
    if std::env::var_os("PORTCULLIS_TEST_LONG").is_some() { 20_000 } else { 1000 }
}

const MANIFESTS: usize = 5;

/// Two images that share a blob, an index of both, an index of that, and a signature of the first.
fn manifest(number: usize) -> Vec<u8> {
    let blob = |number| descriptor("application/x", &content(number));
    let listed = |number| descriptor("application/vnd.oci.image.manifest.v1+json", &manifest(number));
    let text = match number {
        0 => format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob(0), blob(1)),
        1 => format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob(2), blob(1)),
        2 => format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, listed(0), listed(1)),
        3 => format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed(2)),
        _ => format!(r#"{{"schemaVersion":2,"config":{},"layers":[],"subject":{}}}"#, blob(3), listed(0)),
    };
    text.into_bytes()
}

fn content(number: usize) -> Vec<u8> {
    format!("blob {number}").into_bytes()
}

fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest(content), content.len())
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

#[derive(Debug)]
struct World {
    bucket: MemoryBackend,
    store: Store,
    collection: Option<Collection>,
    untagged: bool,
    minutes: u64,
    kills: bool,
    /// By repository: which manifests were acknowledged and not deleted.
    manifests: [BTreeSet<usize>; 2],
    tags: [BTreeMap<usize, usize>; 2],
    /// Until when a blob of a repository was promised.
    promised: BTreeMap<(usize, usize), u64>,
}

impl World {
    fn new(untagged: bool) -> Self {
        let bucket = MemoryBackend::default();
        bucket.advance(Duration::from_hours(24 * 365));
        let store = open(&bucket, untagged);
        Self {
            bucket,
            store,
            collection: None,
            untagged,
            minutes: 0,
            kills: false,
            manifests: Default::default(),
            tags: Default::default(),
            promised: BTreeMap::new(),
        }
    }

    /// Runs one operation. An error is one that the trap made, and then the subject is what the store says it is.
    fn apply(&mut self, op: &Op) {
        let done = match *op {
            Op::Arm { calls, kills } => {
                self.kills = kills;
                self.bucket.arm(Some(if kills { Trap::Kill(calls) } else { Trap::Fault(calls) }));
                return;
            }
            Op::Wait { minutes } => {
                self.bucket.advance(Duration::from_mins(minutes));
                self.minutes += minutes;
                return;
            }
            Op::Restart => {
                self.restart();
                return;
            }
            Op::Collect { steps } => self.collect(steps),
            Op::DryRun => self.dry_run(),
            Op::Push { repository, blob } => self.push(repository, blob),
            Op::Mount { from, blob } => self.mount(from, blob),
            Op::Head { repository, blob } => self.head(repository, blob).map(drop),
            Op::HeadManifest { repository, manifest: number } => {
                self.store.manifest(&name(repository), &by_digest(number)).map(drop)
            }
            Op::Put { repository, manifest, tag } => self.put(repository, manifest, tag),
            Op::DeleteManifest { repository, manifest } => self.delete_manifest(repository, manifest),
            Op::DeleteTag { repository, tag } => self.delete_tag(repository, tag),
            Op::DeleteBlob { repository, blob } => self.delete_blob(repository, blob),
        };
        self.bucket.arm(None);
        if done.is_err() && self.kills {
            self.restart();
        }
        if done.is_err() {
            self.learn(op);
        }
        self.learn_what_went();
        self.kills = false;
    }

    /// After an operation that may or may not have happened.
    fn learn(&mut self, op: &Op) {
        match *op {
            Op::Put { repository, manifest, tag } => {
                if self.sees_manifest(repository, manifest) {
                    self.manifests[repository].insert(manifest);
                }
                self.learn_tag(repository, tag);
            }
            Op::DeleteManifest { repository, manifest } => {
                if !self.sees_manifest(repository, manifest) {
                    self.manifests[repository].remove(&manifest);
                }
                (0..2).for_each(|tag| self.learn_tag(repository, Some(tag)));
            }
            Op::DeleteTag { repository, tag } => self.learn_tag(repository, Some(tag)),
            _ => {}
        }
    }

    /// A collection may take what nothing kept until now: what would keep it later comes too late.
    fn learn_what_went(&mut self) {
        for repository in 0..2 {
            let (living, mut known) = (self.living(repository), self.manifests[repository].clone());
            known.retain(|number| living.contains(number) || self.sees(repository, *number));
            self.manifests[repository] = known;
        }
    }

    fn learn_tag(&mut self, repository: usize, tag: Option<usize>) {
        let Some(tag) = tag else { return };
        let points_to = self.store.manifest(&name(repository), &ManifestReference::Tag(tag_name(tag))).unwrap();
        let number =
            points_to.and_then(|found| (0..MANIFESTS).find(|number| digest(&manifest(*number)) == found.digest));
        match number {
            Some(number) => drop(self.tags[repository].insert(tag, number)),
            None => drop(self.tags[repository].remove(&tag)),
        }
    }

    fn restart(&mut self) {
        self.bucket.arm(None);
        self.collection = None;
        self.store = open(&self.bucket, self.untagged);
    }

    fn collect(&mut self, steps: usize) -> Result<(), StoreError> {
        for _ in 0..steps {
            let mut collection = match self.collection.take() {
                Some(collection) => collection,
                None => self.store.collect(Removal::Real)?,
            };
            if collection.step()? {
                self.collection = Some(collection);
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Says what a real one would do, and does nothing.
    fn dry_run(&mut self) -> Result<(), StoreError> {
        self.collection = None;
        let before = self.bucket.keys();
        let mut told = self.store.collect(Removal::DryRun)?;
        while told.step()? {}
        assert_eq!(self.bucket.keys(), before);
        let told = told.so_far().removed;
        let mut done = self.store.collect(Removal::Real)?;
        while done.step()? {}
        assert_eq!(done.so_far().removed, told);
        Ok(())
    }

    fn push(&mut self, repository: usize, blob: usize) -> Result<(), StoreError> {
        let mut upload = self.store.start_upload(&name(repository), Algorithm::Sha256, OWNER)?;
        upload.append(&content(blob))?;
        upload.finish(&digest(&content(blob)))?;
        self.promise(repository, blob);
        Ok(())
    }

    fn mount(&mut self, from: usize, blob: usize) -> Result<(), StoreError> {
        let to = 1 - from;
        if self.store.mount_blob(&name(from), &name(to), &digest(&content(blob)))? {
            self.promise(to, blob);
        }
        Ok(())
    }

    fn head(&mut self, repository: usize, blob: usize) -> Result<bool, StoreError> {
        let found = self.store.has_blob(&name(repository), &digest(&content(blob)))?;
        if found {
            self.promise(repository, blob);
        }
        Ok(found)
    }

    /// As the server does it: refused when a child is missing.
    fn put(&mut self, repository: usize, number: usize, tag: Option<usize>) -> Result<(), StoreError> {
        let (bytes, store) = (manifest(number), self.store.clone());
        let _putting = store.begin_put(&name(repository));
        let parsed = Manifest::parse(&bytes, None).unwrap();
        for blob in blobs_of(number) {
            if !self.head(repository, blob)? {
                return Ok(());
            }
        }
        for child in parsed.children() {
            if !store.has_manifest(&name(repository), &child.digest)? {
                return Ok(());
            }
        }
        let tags: Vec<Tag> = tag.map(tag_name).into_iter().collect();
        store.put_manifest(&name(repository), &digest(&bytes), &bytes, &tags)?;
        self.manifests[repository].insert(number);
        self.tags[repository].extend(tag.map(|tag| (tag, number)));
        Ok(())
    }

    fn delete_manifest(&mut self, repository: usize, number: usize) -> Result<(), StoreError> {
        self.store.delete_manifest(&name(repository), &digest(&manifest(number)))?;
        self.manifests[repository].remove(&number);
        self.tags[repository].retain(|_, tagged| *tagged != number);
        Ok(())
    }

    fn delete_tag(&mut self, repository: usize, tag: usize) -> Result<(), StoreError> {
        self.store.delete_tag(&name(repository), &tag_name(tag))?;
        self.tags[repository].remove(&tag);
        Ok(())
    }

    fn delete_blob(&mut self, repository: usize, blob: usize) -> Result<(), StoreError> {
        // Whether it happens or not: from now on nothing is promised.
        self.promised.remove(&(repository, blob));
        match self.store.delete_blob(&name(repository), &digest(&content(blob))) {
            Err(StoreError::BlobInUse { .. }) => Ok(()),
            done => done.map(drop),
        }
    }

    fn promise(&mut self, repository: usize, blob: usize) {
        self.promised.insert((repository, blob), self.minutes + PROMISED);
    }
}

fn blobs_of(number: usize) -> Vec<usize> {
    match number {
        0 => vec![0, 1],
        1 => vec![2, 1],
        4 => vec![3],
        _ => vec![],
    }
}

fn open(bucket: &MemoryBackend, untagged: bool) -> Store {
    let options = StoreOptions { reserve: 0, grace: GRACE, untagged, ..StoreOptions::default() };
    Store::on_backend(Box::new(bucket.clone()), &options).unwrap()
}

fn name(repository: usize) -> RepositoryName {
    ["team/app", "team/app/sub"][repository].parse().unwrap()
}

fn tag_name(tag: usize) -> Tag {
    ["latest", "1.0"][tag].parse().unwrap()
}

fn by_digest(number: usize) -> ManifestReference {
    ManifestReference::Digest(digest(&manifest(number)))
}
