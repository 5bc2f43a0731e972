//! Uploads: bytes that come in pieces, are hashed on the way, and become a blob when their digest is right.
//!
//! An upload belongs to a repository and an owner, and is written by one request at a time. What a request does not
//! [save](Upload::save) is forgotten; what it saves survives the end of this process. A power cut may take what was
//! not synced, and then the offset says so.

mod state;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, Hasher, RepositoryName, UploadId};

use self::state::State;
use crate::backend::{Backend, Stage, Staged};
use crate::durable::LARGE_FILE;
use crate::error::StoreError;
use crate::layout::{self, Key};
use crate::store::{Inner, Store};

/// How much may be written between two looks at the free space.
const SPACE_STEP: u64 = 16 << 20;

const REHASH_BUFFER: usize = 256 << 10;

/// An upload held by one request. Dropping it keeps what was last [saved](Upload::save).
///
/// ```
/// # use portcullis_oci::{Algorithm, Digest, RepositoryName};
/// # use portcullis_store::{Store, StoreOptions};
/// # let directory = tempfile::tempdir()?;
/// # let store = Store::open(directory.path(), &StoreOptions { reserve: 0, ..StoreOptions::default() })?;
/// let repository: RepositoryName = "team/app".parse()?;
/// let mut upload = store.start_upload(&repository, Algorithm::Sha256, "pin:alice")?;
/// let id = upload.id();
/// upload.append(b"one ")?;
/// assert_eq!(upload.save()?, 4);
///
/// let mut upload = store.resume_upload(&repository, &id, "pin:alice")?;
/// upload.append(b"two")?;
/// upload.finish(&Digest::of(Algorithm::Sha256, b"one two"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Upload {
    claim: Claim,
    /// As it is on disk.
    state: State,
    stage: Box<dyn Stage>,
    hasher: Hasher,
    /// Bytes taken in.
    offset: u64,
    /// The data may reach this far: further than `offset` after a write that failed half-way.
    written: u64,
    /// Where the free space is looked at again.
    next_space_check: u64,
    /// It is a blob now, or thrown away.
    gone: bool,
    /// Nobody else knows its name: it ends with this value.
    is_private: bool,
}

/// Which uploads there are, and which of them a request holds.
#[derive(Debug)]
pub(crate) struct OpenUploads {
    tables: Mutex<Tables>,
    most: usize,
}

#[derive(Debug, Default)]
struct Tables {
    open: HashSet<UploadId>,
    held: HashSet<UploadId>,
}

/// The right to write to an upload, let go of when it is dropped.
#[derive(Debug)]
struct Claim {
    inner: Arc<Inner>,
    id: UploadId,
    /// What is on disk cannot be trusted and could not be removed: nobody gets this upload again.
    condemned: bool,
}

/// An upload as it lies there.
struct Found {
    state: State,
    /// `None`: what was taken in must be hashed again.
    hasher: Option<Hasher>,
    stage: Box<dyn Stage>,
    /// How much of it can be relied on.
    offset: u64,
}

impl Store {
    /// Begins an upload whose bytes are hashed with `algorithm`. It survives the end of this process from the start.
    ///
    /// # Errors
    /// [`StoreError::TooManyUploads`] when as many are open as may be.
    pub fn start_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
        owner: &str,
    ) -> Result<Upload, StoreError> {
        let inner = &self.inner;
        inner.check_space()?;
        let id = random_id();
        let claim = Claim::take(inner, id)?;
        let state = State {
            repository: repository.clone(),
            owner: owner.to_owned(),
            algorithm,
            offset: 0,
            synced: 0,
            epoch: inner.backend.epoch().to_owned(),
            saved_at: inner.backend.now(),
        };
        let hasher = Hasher::new(algorithm);
        inner.uploads.opened(id)?;
        let stage = inner.backend.stage(&id, &state.encode(&hasher)).inspect_err(|_| inner.uploads.closed(id))?;
        Ok(Upload::new(claim, state, stage, hasher, 0))
    }

    /// Goes on with an upload of the same repository and owner, where it was last saved.
    ///
    /// # Errors
    /// [`StoreError::UploadUnknown`] also when it belongs to another repository or owner;
    /// [`StoreError::UploadBusy`] while another request holds it.
    pub fn resume_upload(&self, repository: &RepositoryName, id: &UploadId, owner: &str) -> Result<Upload, StoreError> {
        let unknown = StoreError::UploadUnknown { id: *id };
        let claim = match Claim::take(&self.inner, *id) {
            // Only its owner may learn that it exists.
            Err(busy) => return Err(self.upload_status(repository, id, owner).err().unwrap_or(busy)),
            Ok(claim) => claim,
        };
        let Some(found) = Found::read(self.inner.backend.as_ref(), id)? else {
            // Whatever is left of it is of no use to anybody.
            claim.discard()?;
            return Err(unknown);
        };
        let Found { state, hasher, mut stage, offset } = found;
        if !state.belongs_to(repository, owner) {
            return Err(unknown);
        }
        if stage.size()? > offset {
            stage.cut(offset)?;
        }
        let hasher = match hasher {
            Some(hasher) => hasher,
            None => hash_again(stage.as_ref(), state.algorithm, offset)?,
        };
        Ok(Upload::new(claim, state, stage, hasher, offset))
    }

    /// The offset that the upload would be resumed at. Also answers while a request holds it.
    pub fn upload_status(&self, repository: &RepositoryName, id: &UploadId, owner: &str) -> Result<u64, StoreError> {
        match Found::read(self.inner.backend.as_ref(), id)? {
            Some(found) if found.state.belongs_to(repository, owner) => Ok(found.offset),
            _ => Err(StoreError::UploadUnknown { id: *id }),
        }
    }

    /// Whether an upload of this name is open, whoever it belongs to: for whoever has to know before any lock or disk is
    /// touched. A look into memory; what it says may be over a moment later, and only [`Store::resume_upload`] knows.
    pub fn lists_upload(&self, id: &UploadId) -> bool {
        self.inner.uploads.tables().open.contains(id)
    }
}

impl Store {
    /// Throws away the uploads that nobody holds and that were saved at least `age` ago, by this process or an earlier
    /// one. Returns how many. A clock that was set back makes them younger, never older.
    ///
    /// # Errors
    /// The first, when none was thrown away. One that cannot be read or removed does not keep the others.
    pub fn expire_uploads(&self, age: Duration) -> Result<usize, StoreError> {
        let open: Vec<UploadId> = self.inner.uploads.tables().open.iter().copied().collect();
        let (mut expired, mut first_error) = (0, None);
        for id in open {
            match self.expire_upload(id, age) {
                Ok(true) => expired += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(upload = %id, %error, "whether an upload has expired could not be seen to");
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.filter(|_| expired == 0).map_or(Ok(expired), Err)
    }

    /// Looked at before it is held: its owner's next request must not find it busy because it was looked at.
    fn expire_upload(&self, id: UploadId, age: Duration) -> Result<bool, StoreError> {
        let inner = &self.inner;
        if !inner.is_idle_for(&id, age)? {
            return Ok(false);
        }
        let Ok(claim) = Claim::take(inner, id) else { return Ok(false) };
        // Whoever had it meanwhile may have finished it, or thrown it away as this one would.
        let is_idle = self.lists_upload(&id) && inner.is_idle_for(&id, age)?;
        if is_idle {
            claim.discard()?;
        }
        Ok(is_idle)
    }
}

impl Upload {
    /// Its name.
    pub fn id(&self) -> UploadId {
        self.claim.id
    }

    /// How many bytes were taken in: where the next one goes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the bytes are hashed with on the way. [Finishing](Upload::finish) with a digest of another algorithm reads
    /// them all again.
    pub fn algorithm(&self) -> Algorithm {
        self.hasher.algorithm()
    }

    /// Writes and hashes the next bytes. After an error the offset is unchanged, and the upload can still be saved.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.append_all(&[bytes])
    }

    /// The same for pieces that follow one another: one write takes them all, which costs half of a write for each.
    pub fn append_all(&mut self, pieces: &[&[u8]]) -> Result<(), StoreError> {
        if self.offset >= self.next_space_check {
            self.claim.inner.check_space()?;
            self.next_space_check = self.offset + SPACE_STEP;
        }
        let end = self.offset + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.written = self.written.max(end);
        self.stage.write_pieces_at(pieces, self.offset)?;
        for piece in pieces {
            self.hasher.update(piece);
        }
        self.offset = end;
        Ok(())
    }

    /// Keeps what was appended and returns the offset.
    ///
    /// # Errors
    /// When a sync fails the upload is gone. After any other error what was saved before is kept.
    pub fn save(mut self) -> Result<u64, StoreError> {
        self.trim()?;
        let mut state = State {
            offset: self.offset,
            synced: self.state.synced.min(self.offset),
            epoch: self.claim.inner.backend.epoch().to_owned(),
            saved_at: self.claim.inner.backend.now(),
            ..self.state.clone()
        };
        let synced = if state.offset - state.synced >= self.claim.inner.sync_step {
            self.stage.sync().map(|()| state.synced = state.offset)
        } else {
            self.stage.settle()
        };
        if let Err(error) = synced {
            // The kernel may have dropped the pages that it could not write: a later sync would not notice.
            if !matches!(error, StoreError::ReadOnly { .. }) {
                self.throw_away();
            }
            return Err(error);
        }
        self.stage.note(&state.encode(&self.hasher))?;
        self.state = state;
        Ok(self.offset)
    }

    /// Makes the bytes a blob of the repository, durable on return.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] when `expected` is not the digest of the bytes. The upload is gone after any
    /// error but [`StoreError::ReadOnly`].
    pub fn finish(mut self, expected: &Digest) -> Result<(), StoreError> {
        let done = self.become_blob(expected);
        if !self.gone && !matches!(done, Err(StoreError::ReadOnly { .. })) {
            self.throw_away();
        }
        done
    }

    /// For an upload that is received in one request, whose name nobody learns: unless it is finished, it is thrown away
    /// when it is dropped.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.is_private = true;
        self
    }

    /// Throws the upload away.
    pub fn cancel(mut self) -> Result<(), StoreError> {
        self.claim.discard()?;
        self.gone = true;
        Ok(())
    }

    fn new(claim: Claim, state: State, stage: Box<dyn Stage>, hasher: Hasher, offset: u64) -> Self {
        // A blob that comes in small pieces is resumed for each of them: it is the first bytes that are looked at.
        Self {
            claim,
            state,
            stage,
            hasher,
            offset,
            written: offset,
            next_space_check: offset,
            gone: false,
            is_private: false,
        }
    }

    fn become_blob(&mut self, expected: &Digest) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.claim.inner);
        self.trim()?;
        let actual = if self.hasher.algorithm() == expected.algorithm() {
            self.hasher.clone().finish()
        } else {
            hash_again(self.stage.as_ref(), expected.algorithm(), self.offset)?.finish()
        };
        if actual != *expected {
            return Err(StoreError::DigestMismatch { expected: Box::new(*expected), actual: Box::new(actual) });
        }
        let data = layout::blob_data(expected);
        if self.offset >= LARGE_FILE && !inner.has_data(&data, self.offset)? {
            // Outside the lock: a large blob takes seconds to reach the disk. A small one is synced with its link.
            self.stage.sync()?;
        }
        let link = layout::layer_link(&self.state.repository, expected);
        let _digest = inner.lock_digest(expected);
        if inner.has_data(&data, self.offset)? {
            inner.write_link(&link, expected)?;
            return inner.promise(&self.state.repository, &link, expected, expected);
        }
        // What lies there with another size is damaged. It goes first: see `Inner::put_fixed`.
        inner.backend.delete(&data)?;
        let is_first = inner.backend.stat(&link)?.is_none();
        if is_first {
            inner.backend.seal_with(self.stage.as_mut(), &data, (&link, expected.to_string().as_bytes()))?;
        } else {
            inner.backend.seal(self.stage.as_mut(), &data)?;
        }
        self.gone = true;
        inner.uploads.closed(self.claim.id);
        if !is_first {
            inner.write_first_link(&link, expected, &data)?;
        }
        inner.promise(&self.state.repository, &link, expected, expected)
    }

    /// Cuts off what a failed write may have left behind the offset.
    fn trim(&mut self) -> Result<(), StoreError> {
        if self.written > self.offset {
            self.stage.cut(self.offset)?;
            self.written = self.offset;
        }
        Ok(())
    }

    fn throw_away(&mut self) {
        self.gone = true;
        if let Err(error) = self.claim.discard() {
            tracing::error!(upload = %self.claim.id, %error, "an upload that failed could not be removed");
            self.claim.condemned = true;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_private && !self.gone {
            self.throw_away();
            return;
        }
        // The next request would cut this off as well; until then it must not fill the disk.
        if !self.gone && self.written > self.state.offset {
            let _ = self.stage.cut(self.state.offset);
        }
    }
}

impl OpenUploads {
    /// Lists what earlier processes have left. When unsynced bytes may have been lost since then, each is looked at,
    /// and what can never be resumed is removed.
    pub(crate) fn find(backend: &dyn Backend, most: usize) -> Result<Self, StoreError> {
        let mut open: HashSet<_> = backend.stages()?.into_iter().collect();
        if backend.epoch_is_new() {
            open.retain(|id| match Found::read(backend, id) {
                Ok(None) => {
                    tracing::info!(upload = %id, "removed: a power cut left too little of it");
                    backend.discard(id).is_err()
                }
                Ok(Some(_)) | Err(_) => true,
            });
        }
        Ok(Self { tables: Mutex::new(Tables { open, held: HashSet::new() }), most })
    }

    pub(crate) fn count(&self) -> usize {
        self.tables().open.len()
    }

    /// Looked at and counted in one step: many at once must not be more than there may be.
    fn opened(&self, id: UploadId) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let open = tables.open.len();
        if open >= self.most {
            return Err(StoreError::TooManyUploads { open });
        }
        tables.open.insert(id);
        Ok(())
    }

    fn closed(&self, id: UploadId) {
        self.tables().open.remove(&id);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    fn take(inner: &Arc<Inner>, id: UploadId) -> Result<Self, StoreError> {
        if inner.uploads.tables().held.insert(id) {
            Ok(Self { inner: Arc::clone(inner), id, condemned: false })
        } else {
            Err(StoreError::UploadBusy { id })
        }
    }

    fn discard(&self) -> Result<(), StoreError> {
        self.inner.backend.discard(&self.id)?;
        self.inner.uploads.closed(self.id);
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.condemned {
            self.inner.uploads.tables().held.remove(&self.id);
        }
    }
}

impl Found {
    /// `None` when there is no such upload, or too little is left of it to go on.
    fn read(backend: &dyn Backend, id: &UploadId) -> Result<Option<Self>, StoreError> {
        let Some(Staged { stage, note }) = backend.staged(id)? else { return Ok(None) };
        let Some((state, hasher)) = State::decode(&note) else { return Ok(None) };
        let same_epoch = state.epoch == backend.epoch();
        let offset = if same_epoch { state.offset } else { state.synced };
        let hasher = hasher.filter(|_| same_epoch);
        Ok((stage.size()? >= offset).then_some(Self { state, hasher, stage, offset }))
    }
}

impl Inner {
    /// Whether an upload was saved at least `age` ago, or nothing usable is left of it.
    fn is_idle_for(&self, id: &UploadId, age: Duration) -> Result<bool, StoreError> {
        let Some(found) = Found::read(self.backend.as_ref(), id)? else { return Ok(true) };
        Ok(self.backend.now().saturating_sub(found.state.saved_at) >= age.as_secs())
    }

    fn has_data(&self, data: &Key, size: u64) -> Result<bool, StoreError> {
        Ok(self.backend.stat(data)?.is_some_and(|stamp| stamp.size == size))
    }
}

/// Random, though it is no secret: an upload also belongs to a repository and an owner.
pub(crate) fn random_id() -> UploadId {
    UploadId::from_bytes(uuid::Uuid::new_v4().into_bytes())
}

fn hash_again(stage: &dyn Stage, algorithm: Algorithm, len: u64) -> Result<Hasher, StoreError> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; REHASH_BUFFER];
    let mut offset = 0;
    while offset < len {
        let wanted = usize::try_from(len - offset).map_or(REHASH_BUFFER, |left| left.min(REHASH_BUFFER));
        let read = stage.read_at(&mut buffer[..wanted], offset)?;
        if read == 0 {
            return Err(StoreError::UploadUnknown { id: stage.id() });
        }
        hasher.update(&buffer[..read]);
        offset += read as u64;
    }
    Ok(hasher)
}
