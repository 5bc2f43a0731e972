//! Objects in memory: the second implementer of the seam, which shows that nothing above it needs a disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_oci::UploadId;

use crate::backend::{Backend, Object, Prepared, Reaped, Stage, Staged, Stamp};
use crate::error::StoreError;
use crate::layout::{Key, Prefix};

/// A bucket that ends with the process. Clones are the same bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryBackend {
    bucket: Arc<Mutex<Bucket>>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Stored>,
    stages: HashMap<UploadId, Growing>,
    /// By the time they were retired, and their key.
    retired: BTreeMap<(u64, String), Arc<[u8]>>,
    versions: u64,
    /// Seconds since 1970.
    now: u64,
    trap: Option<Trap>,
}

/// What happens to the calls that follow, counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trap {
    /// This one fails, and has no effect.
    Fault(u64),
    /// The process ends before this one: it and all later ones fail.
    Kill(u64),
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Arc<[u8]>,
    version: u64,
    written: u64,
}

#[derive(Debug, Default)]
struct Growing {
    data: Vec<u8>,
    note: Vec<u8>,
}

#[derive(Debug)]
struct MemoryStage {
    bucket: MemoryBackend,
    id: UploadId,
}

/// Objects that wait for their place.
#[derive(Debug)]
struct InMemory<'a> {
    bucket: &'a MemoryBackend,
    objects: VecDeque<(Key, Vec<u8>)>,
}

impl MemoryBackend {
    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        self.bucket().now += time.as_secs();
    }

    pub(crate) fn arm(&self, trap: Option<Trap>) {
        self.bucket().trap = trap;
    }

    /// Takes the trap away, to be armed again.
    pub(crate) fn disarm(&self) -> Option<Trap> {
        self.bucket().trap.take()
    }

    /// How many objects are in the trash.
    pub(crate) fn retired(&self) -> usize {
        self.bucket().retired.len()
    }

    /// As somebody else's program writes it.
    pub(crate) fn put_raw(&self, key: &str, bytes: &[u8]) {
        self.bucket().put_at(key, bytes);
    }

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.bucket().objects.keys().cloned().collect()
    }

    /// Counts a call, and fails if it shall.
    fn call(&self) -> Result<MutexGuard<'_, Bucket>, StoreError> {
        let mut bucket = self.bucket();
        let (fails, then) = match bucket.trap {
            None => (false, None),
            Some(Trap::Fault(0)) => (true, None),
            Some(Trap::Kill(0)) => (true, Some(Trap::Kill(0))),
            Some(Trap::Fault(left)) => (false, Some(Trap::Fault(left - 1))),
            Some(Trap::Kill(left)) => (false, Some(Trap::Kill(left - 1))),
        };
        bucket.trap = then;
        if fails { Err(fault(io::ErrorKind::Other)) } else { Ok(bucket) }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn put(&mut self, key: &Key, bytes: &[u8]) {
        self.put_at(key.as_str(), bytes);
    }

    fn put_at(&mut self, key: &str, bytes: &[u8]) {
        self.versions += 1;
        let stored = Stored { bytes: bytes.into(), version: self.versions, written: self.now };
        self.objects.insert(key.to_owned(), stored);
    }

    fn stage(&mut self, id: UploadId) -> Result<&mut Growing, StoreError> {
        self.stages.get_mut(&id).ok_or(StoreError::UploadUnknown { id })
    }
}

impl Backend for MemoryBackend {
    fn stat(&self, key: &Key) -> Result<Option<Stamp>, StoreError> {
        let bucket = self.call()?;
        let object = bucket.objects.get(key.as_str());
        Ok(object.map(|Stored { bytes, version, written }| Stamp {
            size: bytes.len() as u64,
            written: *written,
            version: (*version, 0, 0),
        }))
    }

    fn open(&self, key: &Key) -> Result<Option<Box<dyn Object>>, StoreError> {
        let bucket = self.call()?;
        let stored = bucket.objects.get(key.as_str());
        Ok(stored.map(|stored| Box::new(Arc::clone(&stored.bytes)) as Box<dyn Object>))
    }

    fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        self.call()?.put(key, bytes);
        Ok(())
    }

    fn prepare<'a>(&'a self, objects: &[(&Key, &[u8])]) -> Result<Box<dyn Prepared + 'a>, StoreError> {
        let objects = objects.iter().map(|(key, bytes)| ((*key).clone(), bytes.to_vec())).collect();
        drop(self.call()?);
        Ok(Box::new(InMemory { bucket: self, objects }))
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        Ok(self.call()?.objects.remove(key.as_str()).is_some())
    }

    fn delete_below(&self, prefix: &Prefix) -> Result<bool, StoreError> {
        let below = format!("{}/", prefix.as_str());
        let mut bucket = self.call()?;
        let before = bucket.objects.len();
        bucket.objects.retain(|key, _| !key.starts_with(&below));
        Ok(bucket.objects.len() < before)
    }

    fn renew(&self, key: &Key) -> Result<(), StoreError> {
        let mut bucket = self.call()?;
        bucket.versions += 1;
        let (version, now) = (bucket.versions, bucket.now);
        if let Some(stored) = bucket.objects.get_mut(key.as_str()) {
            (stored.version, stored.written) = (version, now);
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        self.bucket().now
    }

    fn retire(&self, key: &Key, seconds: u64) -> Result<Option<u64>, StoreError> {
        let mut bucket = self.call()?;
        let Some(Stored { bytes, .. }) = bucket.objects.remove(key.as_str()) else { return Ok(None) };
        let size = bytes.len() as u64;
        bucket.retired.insert((seconds, key.as_str().to_owned()), bytes);
        Ok(Some(size))
    }

    fn restore(&self, key: &Key) -> Result<bool, StoreError> {
        let mut bucket = self.call()?;
        let last = bucket.retired.keys().rfind(|(_, retired)| retired == key.as_str()).cloned();
        let bytes = last.and_then(|last| bucket.retired.remove(&last));
        Ok(bytes.map(|bytes| bucket.put(key, &bytes)).is_some())
    }

    fn reap(&self, seconds: u64, n: usize) -> Result<Reaped, StoreError> {
        let mut bucket = self.call()?;
        let mut reaped = Reaped::default();
        while reaped.objects < n {
            let Some(oldest) = bucket.retired.first_entry().filter(|entry| entry.key().0 < seconds) else { break };
            reaped.bytes += oldest.remove().len() as u64;
            reaped.objects += 1;
        }
        Ok(reaped)
    }

    fn quarantine(&self, key: &Key, to: &Key) -> Result<bool, StoreError> {
        let mut bucket = self.call()?;
        let Some(Stored { bytes, .. }) = bucket.objects.remove(key.as_str()) else { return Ok(false) };
        bucket.put(to, &bytes);
        Ok(true)
    }

    fn list(&self, prefix: &Prefix, after: Option<&str>, n: usize) -> Result<Vec<String>, StoreError> {
        let below = format!("{}/", prefix.as_str());
        let bucket = self.call()?;
        let names = bucket.objects.keys().filter_map(|key| key.strip_prefix(&below)?.split('/').next());
        let mut names: Vec<&str> = names.filter(|name| after.is_none_or(|after| *name > after)).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names.into_iter().take(n).map(str::to_owned).collect())
    }

    fn stage(&self, id: &UploadId, note: &[u8]) -> Result<Box<dyn Stage>, StoreError> {
        self.call()?.stages.insert(*id, Growing { data: Vec::new(), note: note.to_owned() });
        Ok(Box::new(MemoryStage { bucket: self.clone(), id: *id }))
    }

    fn staged(&self, id: &UploadId) -> Result<Option<Staged>, StoreError> {
        let note = self.call()?.stages.get(id).map(|stage| stage.note.clone());
        Ok(note.map(|note| Staged { stage: Box::new(MemoryStage { bucket: self.clone(), id: *id }), note }))
    }

    fn stages(&self) -> Result<Vec<UploadId>, StoreError> {
        Ok(self.call()?.stages.keys().copied().collect())
    }

    fn seal(&self, stage: &mut dyn Stage, key: &Key) -> Result<(), StoreError> {
        let mut bucket = self.call()?;
        let id = stage.id();
        let growing = bucket.stages.remove(&id).ok_or(StoreError::UploadUnknown { id })?;
        bucket.put(key, &growing.data);
        Ok(())
    }

    fn seal_with(&self, stage: &mut dyn Stage, key: &Key, link: (&Key, &[u8])) -> Result<(), StoreError> {
        self.seal(stage, key)?;
        self.put(link.0, link.1)
    }

    fn discard(&self, id: &UploadId) -> Result<bool, StoreError> {
        Ok(self.call()?.stages.remove(id).is_some())
    }

    fn epoch(&self) -> &'static str {
        "the only one"
    }

    fn epoch_is_new(&self) -> bool {
        false
    }

    fn free(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    fn read_only(&self) -> Option<String> {
        None
    }
}

impl Prepared for InMemory<'_> {
    fn place(&mut self, n: usize) -> Result<(), StoreError> {
        let mut bucket = self.bucket.call()?;
        for (key, bytes) in self.objects.drain(..n) {
            bucket.put(&key, &bytes);
        }
        Ok(())
    }
}

impl Object for Arc<[u8]> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError> {
        Ok(copy(self, buf, offset))
    }
}

impl Stage for MemoryStage {
    fn id(&self) -> UploadId {
        self.id
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.bucket.call()?.stage(self.id)?.data.len() as u64)
    }

    fn write_pieces_at(&mut self, pieces: &[&[u8]], offset: u64) -> Result<(), StoreError> {
        let bytes = pieces.concat();
        let mut bucket = self.bucket.call()?;
        let data = &mut bucket.stage(self.id)?.data;
        let start = usize::try_from(offset).map_err(|_| too_large())?;
        data.resize(data.len().max(start + bytes.len()), 0);
        data[start..start + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError> {
        Ok(copy(&self.bucket.call()?.stage(self.id)?.data, buf, offset))
    }

    fn cut(&mut self, size: u64) -> Result<(), StoreError> {
        let size = usize::try_from(size).map_err(|_| too_large())?;
        self.bucket.call()?.stage(self.id)?.data.resize(size, 0);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn note(&mut self, note: &[u8]) -> Result<(), StoreError> {
        note.clone_into(&mut self.bucket.call()?.stage(self.id)?.note);
        Ok(())
    }
}

fn copy(from: &[u8], to: &mut [u8], offset: u64) -> usize {
    let from = usize::try_from(offset).ok().and_then(|offset| from.get(offset..)).unwrap_or_default();
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

fn too_large() -> StoreError {
    fault(io::ErrorKind::FileTooLarge)
}

fn fault(kind: io::ErrorKind) -> StoreError {
    StoreError::Io { action: "use", path: PathBuf::new(), source: kind.into() }
}
