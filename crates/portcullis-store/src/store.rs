//! The store as a whole: what all its parts share, and in which order they lock.
//!
//! Locks, always taken in this order: a repository's (whoever changes its tags or removes manifests), then a digest's
//! (whoever makes content visible or answers that it is). While nobody holds a digest's lock, what is visible of it is
//! durable: a HEAD that answers 200 never rests on a rename that a power cut could undo.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use portcullis_oci::{Digest, RepositoryName};

use crate::at_hand::AtHand;
use crate::backend::Backend;
use crate::disk::{Disk, RealDisk};
use crate::error::{SpaceLimit, StoreError};
use crate::immutable::ImmutableTags;
use crate::journal::Journal;
use crate::local::LocalBackend;
use crate::pause::Pause;
use crate::promise::Promises;
use crate::referrers::Referrers;
use crate::tag_names::TagNames;
use crate::upload::OpenUploads;

const LOCKS: usize = 1024;

/// A registry's data. Cloning is cheap: all clones are the same store.
///
/// ```
/// use portcullis_oci::{Algorithm, Digest, RepositoryName};
/// use portcullis_store::{Store, StoreOptions};
///
/// # let directory = tempfile::tempdir()?;
/// let store = Store::open(directory.path(), &StoreOptions { reserve: 0, ..StoreOptions::default() })?;
/// let repository: RepositoryName = "team/app".parse()?;
/// let digest = Digest::of(Algorithm::Sha256, b"a layer");
///
/// let mut upload = store.start_upload(&repository, Algorithm::Sha256, "pin:alice")?;
/// upload.append(b"a layer")?;
/// upload.finish(&digest)?;
///
/// let blob = store.open_blob(&repository, &digest)?.ok_or("just pushed")?;
/// let mut bytes = [0; 7];
/// assert_eq!(blob.read_at(&mut bytes, 0)?, 7);
/// assert_eq!(&bytes, b"a layer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long to wait for another process to let go of the data directory. Default: not at all.
    pub lock_wait: Duration,
    /// The socket written into the lock file, for whoever finds the store locked. Default: none.
    pub socket: Option<PathBuf>,
    /// Bytes that stay free: below it uploads and manifests get [`StoreError::NoSpace`], while deletes go on.
    /// Default: 1 GiB.
    pub reserve: u64,
    /// How many bytes of a saved upload a power cut may take: saving syncs when more are not synced yet. What is
    /// smaller waits for the sync that finishing needs anyway. Default: 1 MiB.
    pub sync_step: u64,
    /// How long a link stays after it was last made, found or checked, though no manifest names it: in that time a push
    /// must get from its layers to its manifest. Default: 1 h.
    pub grace: Duration,
    /// How long collected blobs stay in the trash; while less than `reserve` is free, not at all. Default: 24 h.
    pub trash: Duration,
    /// Whether a collection also takes manifests that no tag, no index and no subject keeps. Default: no.
    pub untagged: bool,
    /// Uploads that may be open at once, those of earlier processes included. Default: 1,024.
    pub open_uploads: usize,
    /// What all caches together may hold, in bytes: one half for tag names, a quarter each for referrers and for what
    /// was read lately. Default: 32 MiB.
    pub cache_bytes: usize,
    /// Which tags never change once they are set. Default: none.
    pub immutable: ImmutableTags,
}

/// What the store has noticed about itself since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Why nothing can be written at the moment.
    pub read_only: Option<String>,
    /// How often a damaged link or manifest was met and treated as absent.
    pub damaged: u64,
    /// Uploads that were begun and neither finished nor cancelled, by this process or an earlier one.
    pub open_uploads: usize,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) uploads: OpenUploads,
    pub(crate) damaged: AtomicU64,
    pub(crate) referrers: Referrers,
    pub(crate) journal: Journal,
    pub(crate) promises: Promises,
    pub(crate) pause: Pause,
    pub(crate) tag_names: TagNames,
    pub(crate) at_hand: AtHand,
    pub(crate) immutable: ImmutableTags,
    pub(crate) sync_step: u64,
    pub(crate) grace: Duration,
    pub(crate) trash: Duration,
    pub(crate) untagged: bool,
    reserve: u64,
    repositories: Vec<Mutex<()>>,
    digests: Vec<Mutex<()>>,
    /// Read by whoever puts a manifest, from the check of what it names to the end of its writing; written by whoever
    /// deletes what a manifest may name. Taken before the repository's lock, and that before a digest's.
    puts: Vec<RwLock<()>>,
}

/// While this lives, no collection begins to look at the repository: see [`Store::begin_put`].
#[derive(Debug)]
pub struct Putting<'a> {
    _read: RwLockReadGuard<'a, ()>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            lock_wait: Duration::ZERO,
            socket: None,
            reserve: 1 << 30,
            sync_step: 1 << 20,
            grace: Duration::from_hours(1),
            trash: Duration::from_hours(24),
            untagged: false,
            open_uploads: 1024,
            cache_bytes: 32 << 20,
            immutable: ImmutableTags::default(),
        }
    }
}

impl Store {
    /// Opens the data directory, which is made if it is missing, and locks out every other process until the last
    /// clone (and the last [`Upload`](crate::Upload)) is dropped.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the process that has it.
    pub fn open(data: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let disk =
            RealDisk::open(data).map_err(|source| StoreError::Io { action: "open", path: data.to_owned(), source })?;
        Self::on_disk(disk, data, options)
    }

    /// Held from before the check of a manifest's children until the manifest is written. A collection waits for it
    /// before it reads the repository's manifests: otherwise it could begin between the two, see neither the promise of
    /// the check nor the manifest, and take what that names. Who deletes a blob or a manifest waits too, for the same
    /// reason. Not to be asked for twice in one thread, and nothing is to be deleted while it is held.
    pub fn begin_put(&self, repository: &RepositoryName) -> Putting<'_> {
        let lock = &self.inner.puts[shard(LOCKS, repository)];
        Putting { _read: lock.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// What was noticed since the store was opened.
    pub fn health(&self) -> Health {
        Health {
            read_only: self.inner.backend.read_only(),
            damaged: self.inner.damaged.load(Ordering::Relaxed),
            open_uploads: self.inner.uploads.count(),
        }
    }

    pub(crate) fn on_disk<D: Disk>(disk: D, root: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let backend = LocalBackend::open(disk, root, options.socket.clone(), options.lock_wait)?;
        Self::on_backend(Box::new(backend), options)
    }

    pub(crate) fn on_backend(backend: Box<dyn Backend>, options: &StoreOptions) -> Result<Self, StoreError> {
        let uploads = OpenUploads::find(backend.as_ref(), options.open_uploads)?;
        let pause = Pause::read(backend.as_ref())?;
        let locks = || std::iter::repeat_with(Mutex::default).take(LOCKS).collect();
        let puts = std::iter::repeat_with(RwLock::default).take(LOCKS).collect();
        Ok(Self {
            inner: Arc::new(Inner {
                backend,
                uploads,
                damaged: AtomicU64::new(0),
                referrers: Referrers::new(options.cache_bytes / 4),
                journal: Journal::default(),
                promises: Promises::default(),
                pause,
                tag_names: TagNames::new(options.cache_bytes / 2),
                at_hand: AtHand::new(options.cache_bytes / 4),
                immutable: options.immutable.clone(),
                sync_step: options.sync_step,
                grace: options.grace,
                trash: options.trash,
                untagged: options.untagged,
                reserve: options.reserve,
                repositories: locks(),
                digests: locks(),
                puts,
            }),
        })
    }
}

impl Inner {
    /// Held by whoever changes the tags of a repository or removes something from it.
    pub(crate) fn lock_repository(&self, repository: &RepositoryName) -> MutexGuard<'_, ()> {
        lock(&self.repositories, repository)
    }

    /// Held by whoever makes content visible, takes it away, or answers that it is there.
    pub(crate) fn lock_digest(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        lock(&self.digests, digest)
    }

    /// The same, if nobody holds it: for whoever must not wait.
    pub(crate) fn try_lock_digest(&self, digest: &Digest) -> Option<MutexGuard<'_, ()>> {
        match self.digests[shard(LOCKS, digest)].try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for the manifests of the repository that are being put.
    pub(crate) fn wait_for_puts(&self, repository: &RepositoryName) {
        drop(self.lock_puts(repository));
    }

    /// No manifest of the repository is being put while this is held: what its check has found would go before it is
    /// written. Whoever puts one has its whole body by then and waits for nobody but the disk.
    pub(crate) fn lock_puts(&self, repository: &RepositoryName) -> RwLockWriteGuard<'_, ()> {
        self.puts[shard(LOCKS, repository)].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses new bytes when they would eat into the reserve.
    pub(crate) fn check_space(&self) -> Result<(), StoreError> {
        match self.backend.free()? {
            Some(free) if free < self.reserve => {
                Err(StoreError::NoSpace { limit: SpaceLimit::Reserve { free, reserve: self.reserve } })
            }
            _ => Ok(()),
        }
    }
}

/// Two names may share a lock: that costs waiting, never correctness.
pub(crate) fn lock<'a>(locks: &'a [Mutex<()>], name: &impl Hash) -> MutexGuard<'a, ()> {
    locks[shard(locks.len(), name)].lock().unwrap_or_else(PoisonError::into_inner)
}

fn shard(locks: usize, name: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() % locks as u64).unwrap_or(0)
}
