//! Objects in memory: the second implementer of the seam, which shows that nothing above it needs a disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_oci::UploadId;

use crate::backend::{Backend, Object, Reaped, Stage, Staged, Stamp};
use crate::error::StoreError;
use crate::layout::{Key, Prefix};

/// A bucket that ends with the process. Clones are the same bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryBackend {
    bucket: Arc<Mutex<Bucket>>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, (Arc<[u8]>, u64)>,
    stages: HashMap<UploadId, Growing>,
    /// By the time they were retired, and their key.
    retired: BTreeMap<(u64, String), Arc<[u8]>>,
    versions: u64,
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

impl MemoryBackend {
    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn put(&mut self, key: &Key, bytes: &[u8]) {
        self.versions += 1;
        self.objects.insert(key.as_str().to_owned(), (bytes.into(), self.versions));
    }

    fn stage(&mut self, id: UploadId) -> Result<&mut Growing, StoreError> {
        self.stages.get_mut(&id).ok_or(StoreError::UploadUnknown { id })
    }
}

impl Backend for MemoryBackend {
    fn stat(&self, key: &Key) -> Result<Option<Stamp>, StoreError> {
        let bucket = self.bucket();
        let object = bucket.objects.get(key.as_str());
        Ok(object.map(|(bytes, version)| Stamp { size: bytes.len() as u64, version: (*version, 0, 0) }))
    }

    fn open(&self, key: &Key) -> Result<Option<Box<dyn Object>>, StoreError> {
        Ok(self.bucket().objects.get(key.as_str()).map(|(bytes, _)| Box::new(Arc::clone(bytes)) as Box<dyn Object>))
    }

    fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        self.bucket().put(key, bytes);
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        Ok(self.bucket().objects.remove(key.as_str()).is_some())
    }

    fn delete_below(&self, prefix: &Prefix) -> Result<bool, StoreError> {
        let below = format!("{}/", prefix.as_str());
        let mut bucket = self.bucket();
        let before = bucket.objects.len();
        bucket.objects.retain(|key, _| !key.starts_with(&below));
        Ok(bucket.objects.len() < before)
    }

    fn retire(&self, key: &Key, seconds: u64) -> Result<Option<u64>, StoreError> {
        let mut bucket = self.bucket();
        let Some((bytes, _)) = bucket.objects.remove(key.as_str()) else { return Ok(None) };
        let size = bytes.len() as u64;
        bucket.retired.insert((seconds, key.as_str().to_owned()), bytes);
        Ok(Some(size))
    }

    fn restore(&self, key: &Key) -> Result<bool, StoreError> {
        let mut bucket = self.bucket();
        let last = bucket.retired.keys().rfind(|(_, retired)| retired == key.as_str()).cloned();
        let bytes = last.and_then(|last| bucket.retired.remove(&last));
        Ok(bytes.map(|bytes| bucket.put(key, &bytes)).is_some())
    }

    fn reap(&self, seconds: u64, n: usize) -> Result<Reaped, StoreError> {
        let mut bucket = self.bucket();
        let mut reaped = Reaped::default();
        while reaped.objects < n {
            let Some(oldest) = bucket.retired.first_entry().filter(|entry| entry.key().0 < seconds) else { break };
            reaped.bytes += oldest.remove().len() as u64;
            reaped.objects += 1;
        }
        Ok(reaped)
    }

    fn quarantine(&self, key: &Key, to: &Key) -> Result<bool, StoreError> {
        let mut bucket = self.bucket();
        let Some((bytes, _)) = bucket.objects.remove(key.as_str()) else { return Ok(false) };
        bucket.put(to, &bytes);
        Ok(true)
    }

    fn list(&self, prefix: &Prefix, after: Option<&str>, n: usize) -> Result<Vec<String>, StoreError> {
        let below = format!("{}/", prefix.as_str());
        let bucket = self.bucket();
        let names = bucket.objects.keys().filter_map(|key| key.strip_prefix(&below)?.split('/').next());
        let mut names: Vec<&str> = names.filter(|name| after.is_none_or(|after| *name > after)).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names.into_iter().take(n).map(str::to_owned).collect())
    }

    fn stage(&self, id: &UploadId, note: &[u8]) -> Result<Box<dyn Stage>, StoreError> {
        self.bucket().stages.insert(*id, Growing { data: Vec::new(), note: note.to_owned() });
        Ok(Box::new(MemoryStage { bucket: self.clone(), id: *id }))
    }

    fn staged(&self, id: &UploadId) -> Result<Option<Staged>, StoreError> {
        let note = self.bucket().stages.get(id).map(|stage| stage.note.clone());
        Ok(note.map(|note| Staged { stage: Box::new(MemoryStage { bucket: self.clone(), id: *id }), note }))
    }

    fn stages(&self) -> Result<Vec<UploadId>, StoreError> {
        Ok(self.bucket().stages.keys().copied().collect())
    }

    fn seal(&self, stage: &mut dyn Stage, key: &Key) -> Result<(), StoreError> {
        let mut bucket = self.bucket();
        let id = stage.id();
        let growing = bucket.stages.remove(&id).ok_or(StoreError::UploadUnknown { id })?;
        bucket.put(key, &growing.data);
        Ok(())
    }

    fn discard(&self, id: &UploadId) -> Result<bool, StoreError> {
        Ok(self.bucket().stages.remove(id).is_some())
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
        Ok(self.bucket.bucket().stage(self.id)?.data.len() as u64)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let mut bucket = self.bucket.bucket();
        let data = &mut bucket.stage(self.id)?.data;
        let start = usize::try_from(offset).map_err(|_| too_large())?;
        data.resize(data.len().max(start + bytes.len()), 0);
        data[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError> {
        Ok(copy(&self.bucket.bucket().stage(self.id)?.data, buf, offset))
    }

    fn cut(&mut self, size: u64) -> Result<(), StoreError> {
        let size = usize::try_from(size).map_err(|_| too_large())?;
        self.bucket.bucket().stage(self.id)?.data.resize(size, 0);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn note(&mut self, note: &[u8]) -> Result<(), StoreError> {
        note.clone_into(&mut self.bucket.bucket().stage(self.id)?.note);
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
    StoreError::Io { action: "write", path: PathBuf::new(), source: io::ErrorKind::FileTooLarge.into() }
}
