//! Objects as files of a disk: a key is a path, a stage is a directory under `uploads/`.
//!
//! Must not know what an object means.

use std::collections::{BinaryHeap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_oci::UploadId;

use crate::backend::{Backend, ListingStamp, Object, Prepared, Reaped, Stage, Staged, Stamp};
use crate::disk::{self, Access, Disk, Kind};
use crate::durable::{Aside, Durable, is_absence};
use crate::early::EarlySync;
use crate::error::StoreError;
use crate::layout::{self, Key, Prefix};
use crate::lock::{self, Holder, Lock};

/// The data directory, owned by this process while this value lives.
#[derive(Debug)]
pub(crate) struct LocalBackend<D: Disk> {
    durable: Arc<Durable<D>>,
    boot_id: String,
    lock: Lock<D::File>,
    lost: Lost,
}

/// Stages that lost bytes to a sync ahead of their end: whoever held them may be gone by then, and the next must not get
/// them.
#[derive(Debug, Clone, Default)]
struct Lost(Arc<Mutex<HashSet<UploadId>>>);

impl Lost {
    fn ids(&self) -> MutexGuard<'_, HashSet<UploadId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> LocalBackend<D> {
    /// Locks the directory and empties the temporaries of whoever had it before. Walks nothing else.
    pub(crate) fn open(disk: D, root: &Path, socket: Option<PathBuf>, lock_wait: Duration) -> Result<Self, StoreError> {
        let durable = Durable::new(disk, root.to_owned());
        durable.make_directories(layout::parent(layout::LOCK), &mut Vec::new())?;
        let holder = Holder { pid: std::process::id(), socket, boot_id: durable.disk().boot_id() };
        let lock = lock::take(&durable, root, &holder, lock_wait)?;
        for directory in [layout::TMP, layout::UPLOADS] {
            durable.make_directories(directory, &mut Vec::new())?;
        }
        durable.remove_all_below(layout::TMP).map_err(durable.fault("empty", layout::TMP))?;
        // Whoever wrote here before may have died between a rename and its sync, or be a server that never syncs
        // directories. What is visible now will be acknowledged (a HEAD answers 200), so it must be durable first.
        if let Err(error) = durable.sync_everything() {
            tracing::error!(%error, "the store opens read-only");
        }
        Ok(Self { durable: Arc::new(durable), boot_id: holder.boot_id, lock, lost: Lost::default() })
    }

    fn disk(&self) -> &D {
        self.durable.disk()
    }

    /// `None` if there is no such thing, or no regular file.
    fn open_file(&self, path: &str, access: Access) -> Result<Option<(D::File, disk::Stamp)>, StoreError> {
        let file = match self.disk().open(path, access) {
            Err(error) if is_absence(&error) || error.kind() == std::io::ErrorKind::IsADirectory => return Ok(None),
            opened => opened.map_err(self.durable.fault("open", path))?,
        };
        let stamp = self.disk().stamp(&file).map_err(self.durable.fault("read", path))?;
        Ok((stamp.kind == Kind::File).then_some((file, stamp)))
    }

    fn local_stage(&self, id: UploadId, file: D::File) -> Box<dyn Stage> {
        let path = layout::upload_data(&layout::upload(&id));
        let (durable, lost) = (Arc::clone(&self.durable), self.lost.clone());
        Box::new(LocalStage {
            durable,
            id,
            path,
            file: Arc::new(file),
            synced: false,
            early: EarlySync::default(),
            lost,
        })
    }

    fn make_stage(&self, aside: &str, id: &UploadId, note: &[u8]) -> Result<Box<dyn Stage>, StoreError> {
        self.durable.make_directories(aside, &mut Vec::new())?;
        self.durable.write_new(&layout::upload_state(aside), note)?;
        let data = layout::upload_data(aside);
        let file = self.disk().open(&data, Access::Create).map_err(self.durable.fault("make", &data))?;
        let path = layout::upload(id);
        self.disk().rename(aside, &path).map_err(self.durable.fault("make", &path))?;
        Ok(self.local_stage(*id, file))
    }
}

impl<D: Disk> LocalBackend<D> {
    fn seal_beside(
        &self,
        stage: &mut dyn Stage,
        key: &Key,
        (link, text): (&Key, &[u8]),
        temporary: &str,
    ) -> Result<(), StoreError> {
        // Written first: with others waiting one sync takes both.
        let file = self.durable.write_new(temporary, text)?;
        let written = self.durable.moment();
        stage.sync()?;
        if !self.durable.is_synced_since(written) {
            self.durable.sync_small(&[(file, temporary)])?;
        }
        // Set aside first: see `seal`.
        let Some(aside) = self.durable.set_aside(&layout::upload(&stage.id()))? else {
            return Err(StoreError::UploadUnknown { id: stage.id() });
        };
        let data = layout::upload_data(&aside);
        let placed = self.durable.place_all(&[(&data, key.as_str()), (temporary, link.as_str())]);
        self.discard_sealed(&aside);
        placed
    }

    /// Removes an upload that was set aside and whose data has moved: what it is known to hold, without looking.
    fn discard_sealed(&self, aside: &str) {
        let removed = self.disk().remove_file(&layout::upload_state(aside));
        if removed.and_then(|()| self.disk().remove_directory(aside)).is_err() {
            self.durable.discard(aside);
        }
    }

    /// The times at which something was retired, oldest first. Other names in the trash are somebody else's.
    fn retirements(&self) -> Result<Vec<u64>, StoreError> {
        let mut times = Vec::new();
        match self.disk().list(layout::TRASH, &mut |name, _| times.extend(name.parse::<u64>().ok())) {
            Err(error) if is_absence(&error) => {}
            done => done.map_err(self.durable.fault("list", layout::TRASH))?,
        }
        times.sort_unstable();
        Ok(times)
    }

    /// Removes the files of one directory of the trash, and the directory when it is empty, up to `n` files in all.
    fn reap_directory(&self, directory: &str, n: usize, reaped: &mut Reaped) -> std::io::Result<()> {
        let left = n - reaped.objects;
        let mut names = Vec::new();
        self.disk().list(directory, &mut |name, kind| {
            if names.len() < left && kind != Kind::Unspelled {
                names.push(format!("{directory}/{name}"));
            }
        })?;
        for path in &names {
            let size = self.disk().stat(path)?.size;
            self.disk().remove_file(path)?;
            reaped.objects += 1;
            reaped.bytes += size;
        }
        // Fails while there is more in it.
        let _ = self.disk().remove_directory(directory);
        Ok(())
    }
}

impl<D: Disk> Backend for LocalBackend<D> {
    fn stat(&self, key: &Key) -> Result<Option<Stamp>, StoreError> {
        match self.disk().stat(key.as_str()) {
            Ok(stamp) => Ok((stamp.kind == Kind::File).then(|| stamp.into())),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(self.durable.fault("read", key.as_str())(error)),
        }
    }

    fn open(&self, key: &Key) -> Result<Option<Box<dyn Object>>, StoreError> {
        let Some((file, stamp)) = self.open_file(key.as_str(), Access::Read)? else { return Ok(None) };
        let durable = Arc::clone(&self.durable);
        Ok(Some(Box::new(LocalObject { durable, path: key.clone(), file, size: stamp.size })))
    }

    fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), StoreError> {
        self.durable.put(key.as_str(), bytes)
    }

    fn prepare<'a>(&'a self, objects: &[(&Key, &[u8])]) -> Result<Box<dyn Prepared + 'a>, StoreError> {
        let files: Vec<_> = objects.iter().map(|(key, bytes)| (key.as_str(), *bytes)).collect();
        Ok(Box::new(self.durable.prepare(&files)?))
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        self.durable.remove_with_directory(key.as_str())
    }

    fn delete_below(&self, prefix: &Prefix) -> Result<bool, StoreError> {
        // The directory above stays, though it may be empty: Distribution takes a repository without `tags/` for unknown.
        self.durable.remove(prefix.as_str())
    }

    fn renew(&self, key: &Key) -> Result<(), StoreError> {
        self.disk().touch(key.as_str()).map_err(self.durable.fault("renew", key.as_str()))
    }

    fn now(&self) -> u64 {
        self.disk().now()
    }

    fn retire(&self, key: &Key, seconds: u64) -> Result<Option<u64>, StoreError> {
        let Some(Stamp { size, .. }) = self.stat(key)? else { return Ok(None) };
        self.durable.retire(key.as_str(), &layout::retired(key, seconds))?;
        Ok(Some(size))
    }

    fn restore(&self, key: &Key) -> Result<bool, StoreError> {
        self.durable.check_writable()?;
        for seconds in self.retirements()?.into_iter().rev() {
            let retired = layout::retired(key, seconds);
            if self.disk().stat(&retired).is_ok() {
                return self.durable.place(&retired, key.as_str()).map(|()| true);
            }
        }
        Ok(false)
    }

    fn reap(&self, seconds: u64, n: usize) -> Result<Reaped, StoreError> {
        let mut reaped = Reaped::default();
        for directory in self.retirements()?.into_iter().take_while(|at| *at < seconds).map(layout::trash) {
            self.reap_directory(&directory, n, &mut reaped).map_err(self.durable.fault("empty", &directory))?;
            if reaped.objects == n {
                break;
            }
        }
        Ok(reaped)
    }

    fn quarantine(&self, key: &Key, to: &Key) -> Result<bool, StoreError> {
        if self.stat(key)?.is_none() {
            return Ok(false);
        }
        self.durable.retire(key.as_str(), to.as_str())?;
        Ok(true)
    }

    fn list(&self, prefix: &Prefix, after: Option<&str>, n: usize) -> Result<Vec<String>, StoreError> {
        // A heap of the n smallest: a directory of 100,000 tags must not be held to answer with ten of them.
        let mut smallest = BinaryHeap::with_capacity(n.min(1024) + 1);
        let listed = self.disk().list(prefix.as_str(), &mut |name, _| {
            let wanted = after.is_none_or(|after| name > after);
            if wanted && (smallest.len() < n || smallest.peek().is_some_and(|last: &String| name < last.as_str())) {
                smallest.push(name.to_owned());
                if smallest.len() > n {
                    smallest.pop();
                }
            }
        });
        match listed {
            Err(error) if is_absence(&error) => Ok(Vec::new()),
            done => done.map_err(self.durable.fault("list", prefix.as_str())).map(|()| smallest.into_sorted_vec()),
        }
    }

    fn scan(&self, prefix: &Prefix, each: &mut dyn FnMut(&str) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        // The directory is read once: in pages it would be read for each of them.
        let mut goes_on = Ok(true);
        let listed = self.disk().list(prefix.as_str(), &mut |name, _| {
            if matches!(goes_on, Ok(true)) {
                goes_on = each(name);
            }
        });
        match listed {
            Err(error) if is_absence(&error) => {}
            done => done.map_err(self.durable.fault("list", prefix.as_str()))?,
        }
        goes_on.map(drop)
    }

    fn listing_stamp(&self, prefix: &Prefix) -> Result<Option<ListingStamp>, StoreError> {
        match self.disk().stat(prefix.as_str()) {
            Ok(stamp) => Ok(Some(ListingStamp { version: (stamp.inode, stamp.modified, stamp.changed) })),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(self.durable.fault("read", prefix.as_str())(error)),
        }
    }

    fn stage(&self, id: &UploadId, note: &[u8]) -> Result<Box<dyn Stage>, StoreError> {
        self.durable.check_writable()?;
        // Made aside and moved as a whole, so that an upload never lies there without its state.
        let aside = self.durable.temporary();
        let made = self.make_stage(&aside, id, note);
        if made.is_err() {
            self.durable.discard(&aside);
        }
        made
    }

    fn staged(&self, id: &UploadId) -> Result<Option<Staged>, StoreError> {
        const MAX_NOTE_BYTES: usize = 64 * 1024;
        if self.lost.ids().contains(id) {
            return Ok(None);
        }
        let path = layout::upload(id);
        let state = layout::upload_state(&path);
        let Some((file, _)) = self.open_file(&state, Access::Read)? else { return Ok(None) };
        let mut note = vec![0; MAX_NOTE_BYTES];
        let len = read_full(self.disk(), &file, &mut note, 0).map_err(self.durable.fault("read", &state))?;
        note.truncate(len);
        let Some((file, _)) = self.open_file(&layout::upload_data(&path), Access::Write)? else { return Ok(None) };
        Ok(Some(Staged { stage: self.local_stage(*id, file), note }))
    }

    fn stages(&self) -> Result<Vec<UploadId>, StoreError> {
        let mut ids = Vec::new();
        self.disk()
            .list(layout::UPLOADS, &mut |name, _| ids.extend(name.parse::<UploadId>().ok()))
            .map_err(self.durable.fault("list", layout::UPLOADS))?;
        Ok(ids)
    }

    fn seal(&self, stage: &mut dyn Stage, key: &Key) -> Result<(), StoreError> {
        stage.sync()?;
        // Set aside first: whatever happens from here on, no later start takes up an upload whose bytes moved away.
        let Some(aside) = self.durable.set_aside(&layout::upload(&stage.id()))? else {
            return Err(StoreError::UploadUnknown { id: stage.id() });
        };
        let sealed = self.durable.place(&layout::upload_data(&aside), key.as_str());
        self.discard_sealed(&aside);
        sealed
    }

    fn seal_with(&self, stage: &mut dyn Stage, key: &Key, link: (&Key, &[u8])) -> Result<(), StoreError> {
        self.durable.check_writable()?;
        let temporary = self.durable.temporary();
        let sealed = self.seal_beside(stage, key, link, &temporary);
        if sealed.is_err() {
            self.durable.discard(&temporary);
        }
        sealed
    }

    fn discard(&self, id: &UploadId) -> Result<bool, StoreError> {
        let aside = self.durable.set_aside(&layout::upload(id))?;
        self.lost.ids().remove(id);
        let Some(aside) = aside else { return Ok(false) };
        self.durable.discard(&aside);
        Ok(true)
    }

    fn epoch(&self) -> &str {
        &self.boot_id
    }

    fn epoch_is_new(&self) -> bool {
        self.lock.previous.as_ref().is_none_or(|previous| previous.boot_id != self.boot_id)
    }

    fn free(&self) -> Result<Option<u64>, StoreError> {
        self.disk().free().map(Some).map_err(self.durable.fault("measure", ""))
    }

    fn read_only(&self) -> Option<String> {
        self.durable.read_only()
    }
}

impl<D: Disk> Prepared for Aside<'_, D> {
    fn place(&mut self, n: usize) -> Result<(), StoreError> {
        self.place_next(n)
    }
}

#[derive(Debug)]
struct LocalObject<D: Disk> {
    durable: Arc<Durable<D>>,
    path: Key,
    file: D::File,
    size: u64,
}

impl<D: Disk> Object for LocalObject<D> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError> {
        // The kernel has an error, not an end of file, for offsets that no file can have.
        if offset >= self.size {
            return Ok(0);
        }
        read_full(self.durable.disk(), &self.file, buf, offset).map_err(self.durable.fault("read", self.path.as_str()))
    }

    fn read_cached(&self, buf: &mut [u8], offset: u64) -> Result<Option<usize>, StoreError> {
        if offset >= self.size {
            return Ok(Some(0));
        }
        let read = self.durable.disk().read_cached(&self.file, buf, offset);
        read.map_err(self.durable.fault("read", self.path.as_str()))
    }
}

#[derive(Debug)]
struct LocalStage<D: Disk> {
    durable: Arc<Durable<D>>,
    id: UploadId,
    path: String,
    file: Arc<D::File>,
    /// Nothing was written since the last sync, so that there is no flush to wait for.
    synced: bool,
    early: EarlySync,
    lost: Lost,
}

impl<D: Disk> Stage for LocalStage<D> {
    fn id(&self) -> UploadId {
        self.id
    }

    fn size(&self) -> Result<u64, StoreError> {
        let stamp = self.durable.disk().stamp(&self.file).map_err(self.durable.fault("read", &self.path))?;
        Ok(stamp.size)
    }

    fn write_pieces_at(&mut self, pieces: &[&[u8]], offset: u64) -> Result<(), StoreError> {
        self.synced = false;
        self.durable.write_pieces_at(&self.file, &self.path, pieces, offset)?;
        let (id, lost) = (self.id, self.lost.clone());
        let failed = move || {
            lost.ids().insert(id);
        };
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.early.wrote(bytes, &self.durable, (&self.file, &self.path), failed)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, StoreError> {
        read_full(self.durable.disk(), &self.file, buf, offset).map_err(self.durable.fault("read", &self.path))
    }

    fn cut(&mut self, size: u64) -> Result<(), StoreError> {
        self.synced = false;
        self.durable.disk().cut(&self.file, size).map_err(self.durable.fault("cut", &self.path))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.settle()?;
        if !self.synced {
            self.durable.check_writable()?;
            self.durable.sync_grown(&self.file, &self.path)?;
            self.synced = true;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.early.settle()?;
        if self.lost.ids().contains(&self.id) {
            let told = std::io::Error::other("bytes were lost in a sync before");
            return Err(self.durable.fault("sync", &self.path)(told));
        }
        Ok(())
    }

    fn note(&mut self, note: &[u8]) -> Result<(), StoreError> {
        self.durable.put_unsynced(&layout::upload_state(&layout::upload(&self.id)), note)
    }
}

impl From<disk::Stamp> for Stamp {
    fn from(stamp: disk::Stamp) -> Self {
        let written = u64::try_from(stamp.modified.0).unwrap_or(0);
        // The time of change, not that of modification: programs can set that back.
        Self { size: stamp.size, written, version: (stamp.inode, stamp.changed.0, stamp.changed.1) }
    }
}

fn read_full<D: Disk>(disk: &D, file: &D::File, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match disk.read_at(file, &mut buf[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
