//! Files that are whole or absent, and durable when a call returns: written aside, synced, renamed into place, and
//! every directory on the way synced too.
//!
//! Also owns what follows from a failed sync: the kernel then marks the lost pages clean, so that syncing once more
//! would succeed and prove nothing. The operation fails, what it had made visible is taken away, and nothing is written
//! until a new file could be written and synced. Must not know what is stored.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::commit::{Committer, Inside, Moment};
use crate::disk::{Access, Disk, Kind};
use crate::error::{SpaceLimit, StoreError, kernel_text};
use crate::layout;

/// How many directories are remembered as durable. Forgetting one costs a needless sync.
const MAX_SETTLED: usize = 16_384;

/// From this size on a file is synced for itself: others should not wait for its bytes.
pub(crate) const LARGE_FILE: u64 = 1 << 20;

/// How often a disk that fails is tried again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a rename is tried whose directory another operation has just removed.
const MAX_RENAMES: u32 = 8;

/// Writes to a disk such that a power cut loses nothing that was acknowledged.
#[derive(Debug)]
pub(crate) struct Durable<D> {
    disk: D,
    /// Where the data directory is, for messages.
    root: PathBuf,
    next_temporary: AtomicU64,
    /// Directories whose own entry, and that of all above them, is known to be durable. A directory that merely exists
    /// proves nothing: another operation may have made it and not synced it yet. One that was removed may still be
    /// named here; whoever makes it again strikes it out.
    settled: Mutex<HashSet<String>>,
    committer: Committer,
    failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

/// Files that are written and synced under temporary names, in the order in which they take their own.
#[derive(Debug)]
pub(crate) struct Aside<'a, D: Disk> {
    durable: &'a Durable<D>,
    /// From where to where.
    moves: VecDeque<(String, String)>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    cause: String,
    last_probe: Option<Instant>,
}

impl<D: Disk> Durable<D> {
    pub(crate) fn new(disk: D, root: PathBuf) -> Self {
        Self {
            committer: Committer::new(disk.slow_sync()),
            disk,
            root,
            next_temporary: AtomicU64::new(0),
            settled: Mutex::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn disk(&self) -> &D {
        &self.disk
    }

    /// A name in the directory of temporaries that nothing else has.
    pub(crate) fn temporary(&self) -> String {
        layout::temporary(self.next_temporary.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes `path` hold `bytes`, whole and durable. After an error it holds what it held before or, when it existed,
    /// perhaps the new bytes.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.prepare(&[(path, bytes)])?.place_next(1)
    }

    /// Writes and syncs the bytes of several files aside, for all of them in one go.
    pub(crate) fn prepare(&self, files: &[(&str, &[u8])]) -> Result<Aside<'_, D>, StoreError> {
        self.check_writable()?;
        let moves = files.iter().map(|(path, _)| (self.temporary(), (*path).to_owned())).collect();
        // From here on whatever was written goes again, unless it is placed.
        let aside = Aside { durable: self, moves };
        let written = aside.moves.iter().zip(files).map(|((temporary, _), (_, bytes))| {
            let file = self.write_new(temporary, bytes)?;
            Ok((file, temporary.as_str()))
        });
        let written = written.collect::<Result<Vec<_>, StoreError>>()?;
        if !written.is_empty() {
            self.sync_small(&written)?;
        }
        Ok(aside)
    }

    /// Makes `path` hold `bytes`, whole also when this process dies, but not synced.
    pub(crate) fn put_unsynced(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_writable()?;
        let temporary = self.temporary();
        let done = self.write_new(&temporary, bytes).and_then(|_| self.rename(&temporary, path));
        if done.is_err() {
            self.discard(&temporary);
        }
        done
    }

    /// Moves a synced file to `to` and makes that durable. After an error `to` is as it was or, when it existed,
    /// perhaps replaced.
    pub(crate) fn place(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.place_all(&[(from, to)])
    }

    /// The same for several files, one after another; they are durable together.
    pub(crate) fn place_all(&self, moves: &[(&str, &str)]) -> Result<(), StoreError> {
        let (mut made, mut placed) = (Vec::new(), Vec::new());
        let moved = moves.iter().try_for_each(|(from, to)| {
            if self.disk.stat(to).is_err_and(|error| is_absence(&error)) {
                placed.push(*to);
            }
            self.rename_into_place(from, to, &mut made)
        });
        let directories: Vec<&str> = moves.iter().map(|(_, to)| layout::parent(to)).collect();
        let done = moved.and_then(|()| self.settle(&directories));
        if done.is_err() {
            // The last first: what leads to another goes before it.
            placed.iter().rev().for_each(|path| self.discard(path));
            for directory in made.iter().rev() {
                // Fails when another operation has put something there meanwhile: then it stays.
                let _ = self.disk.remove_directory(directory);
            }
        }
        done
    }

    /// Removes a file, or a directory and all below it, at once and durably. `false`: it was not there.
    pub(crate) fn remove(&self, path: &str) -> Result<bool, StoreError> {
        self.check_writable()?;
        let Some(aside) = self.set_aside(path)? else { return Ok(false) };
        let inside = self.committer.enter();
        let synced = if self.shares(&inside) { self.commit() } else { self.sync_directory(layout::parent(path)) };
        drop(inside);
        if let Err(error) = synced {
            // It comes back: if it stayed away, the next attempt would find nothing and acknowledge that, although a
            // power cut could still bring it back.
            let _ = self.disk.rename(&aside, path);
            return Err(error);
        }
        self.discard(&aside);
        Ok(true)
    }

    /// The same, and the directory that held it, if nothing else is in there.
    pub(crate) fn remove_with_directory(&self, path: &str) -> Result<bool, StoreError> {
        let removed = self.remove(path)?;
        if removed {
            // An empty directory says nothing; it need not go durably, nor when another operation has filled it meanwhile.
            let _ = self.disk.remove_directory(layout::parent(path));
        }
        Ok(removed)
    }

    /// Moves a file to `to`, and removes the directory that held it, if nothing else is in there. A power cut may undo
    /// that, but it loses nothing: the directory that takes the file is durable before.
    pub(crate) fn retire(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.check_writable()?;
        let directory = layout::parent(to);
        if !self.settled().contains(directory) {
            self.make_directories(directory, &mut Vec::new())?;
            self.settle(&[directory])?;
        }
        self.rename_into_place(from, to, &mut Vec::new())?;
        let _ = self.disk.remove_directory(layout::parent(from));
        Ok(())
    }

    /// Moves something among the temporaries, where no reader and no later start finds it. `None`: it was not there.
    pub(crate) fn set_aside(&self, path: &str) -> Result<Option<String>, StoreError> {
        let aside = self.temporary();
        match self.disk.rename(path, &aside) {
            Err(error) if is_absence(&error) => Ok(None),
            done => done.map_err(self.fault("remove", path)).map(|()| Some(aside)),
        }
    }

    /// Makes a file with these bytes, where nothing was. It is not synced.
    pub(crate) fn write_new(&self, path: &str, bytes: &[u8]) -> Result<D::File, StoreError> {
        let file = self.disk.open(path, Access::Create).map_err(self.fault("make", path))?;
        self.write_at(&file, path, bytes, 0)?;
        Ok(file)
    }

    /// Writes all of `bytes`.
    pub(crate) fn write_at(&self, file: &D::File, path: &str, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.write_pieces_at(file, path, &[bytes], offset)
    }

    /// Writes all pieces, one after another.
    pub(crate) fn write_pieces_at(
        &self,
        file: &D::File,
        path: &str,
        pieces: &[&[u8]],
        mut offset: u64,
    ) -> Result<(), StoreError> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        // Empty ones at the front are nothing to write.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = match self.disk.write_vectored_at(file, rest, offset) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                done => done,
            };
            let written = written.map_err(self.fault("write", path))?;
            IoSlice::advance_slices(&mut rest, written);
            offset += written as u64;
        }
        Ok(())
    }

    /// Makes the bytes of a file durable. A failure makes the store read-only.
    pub(crate) fn sync_data(&self, file: &D::File, path: &str) -> Result<(), StoreError> {
        self.disk.sync_data(file).map_err(|error| self.sync_failed(path, error))
    }

    /// Makes the bytes of small files durable: one by one, or with all that others wait for.
    pub(crate) fn sync_small(&self, files: &[(D::File, &str)]) -> Result<(), StoreError> {
        let inside = self.committer.enter();
        if self.shares(&inside) {
            return self.commit();
        }
        files.iter().try_for_each(|(file, path)| self.sync_data(file, path))
    }

    /// The same for a file that has grown: a large one always for itself.
    pub(crate) fn sync_grown(&self, file: &D::File, path: &str) -> Result<(), StoreError> {
        let size = self.disk.stamp(file).map_err(self.fault("read", path))?.size;
        let inside = self.committer.enter();
        if size < LARGE_FILE && self.shares(&inside) { self.commit() } else { self.sync_data(file, path) }
    }

    /// For [`Durable::is_synced_since`].
    pub(crate) fn moment(&self) -> Moment {
        self.committer.now()
    }

    /// Whether all that was written before this moment is durable, because others have waited for all there is.
    pub(crate) fn is_synced_since(&self, moment: Moment) -> bool {
        self.committer.has_covered(moment)
    }

    /// Whether so many wait that one sync of everything is better than each for itself.
    fn shares(&self, inside: &Inside<'_>) -> bool {
        self.disk.shares_syncs_from().is_some_and(|least| inside.count() >= least) && !self.committer.is_slow()
    }

    /// Makes everything durable that was written before this call.
    fn commit(&self) -> Result<(), StoreError> {
        self.committer.join(|| self.disk.sync_everything()).map_err(|error| self.sync_failed("", error))
    }

    /// Makes everything durable that anybody has written before this process had the directory for itself.
    pub(crate) fn sync_everything(&self) -> Result<(), StoreError> {
        self.disk.sync_everything().map_err(|error| self.sync_failed("", error))
    }

    /// Makes one directory, which may exist, and all above it.
    pub(crate) fn make_directories(&self, path: &str, made: &mut Vec<String>) -> Result<(), StoreError> {
        let mut error = match self.make_directory(path, made) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::NotFound && !path.is_empty() {
            self.make_directories(layout::parent(path), made)?;
            match self.make_directory(path, made) {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        Err(self.fault("make the directory", path)(error))
    }

    /// Removes a file, or a directory and all below it, that no acknowledgement rests on.
    pub(crate) fn discard(&self, path: &str) {
        if let Err(error) = self.remove_all(path)
            && !is_absence(&error)
        {
            tracing::warn!(path, %error, "a temporary stays until the next start");
        }
    }

    /// Empties a directory.
    pub(crate) fn remove_all_below(&self, path: &str) -> io::Result<()> {
        let mut names = Vec::new();
        self.disk.list(path, &mut |name, kind| {
            if kind != Kind::Unspelled {
                names.push(name.to_owned());
            }
        })?;
        names.iter().try_for_each(|name| self.remove_all(&format!("{path}/{name}")))
    }

    fn remove_all(&self, path: &str) -> io::Result<()> {
        // Tried as a file first: a symbolic link to a directory must not be followed.
        match self.disk.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                self.remove_all_below(path)?;
                self.disk.remove_directory(path)
            }
            done => done,
        }
    }

    /// Refuses while the store is read-only, and tries at most once a second whether it still has to be.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = failure.as_mut() else { return Ok(()) };
        if known.last_probe.is_none_or(|last| last.elapsed() >= PROBE_INTERVAL) {
            match self.probe() {
                Ok(()) => {
                    tracing::info!("writing and syncing works again: the store is writable");
                    *failure = None;
                    self.failed.store(false, Ordering::Release);
                    return Ok(());
                }
                Err(error) => {
                    known.reason = format!("a probe cannot be written and synced: {error}");
                    known.cause = kernel_text(&error);
                    known.last_probe = Some(Instant::now());
                }
            }
        }
        Err(StoreError::ReadOnly { reason: known.reason.clone(), cause: known.cause.clone() })
    }

    /// Why nothing is written at the moment.
    pub(crate) fn read_only(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|failure| failure.reason.clone())
    }

    /// An error of the disk with what was tried, or the one that says the disk is full.
    pub(crate) fn fault<'a>(
        &'a self,
        action: &'static str,
        path: &'a str,
    ) -> impl FnOnce(io::Error) -> StoreError + 'a {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::NoSpace { limit: SpaceLimit::Disk }
            }
            _ => StoreError::Io { action, path: self.root.join(path), source },
        }
    }

    fn rename_into_place(&self, from: &str, to: &str, made: &mut Vec<String>) -> Result<(), StoreError> {
        let directory = layout::parent(to);
        for _ in 1..MAX_RENAMES {
            if !self.settled().contains(directory) {
                self.make_directories(directory, made)?;
            }
            match self.disk.rename(from, to) {
                // The directory was there a moment ago: its last entry has just been deleted, and it with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.settled().remove(directory),
                done => return done.map_err(self.fault("write", to)),
            };
        }
        self.rename(from, to)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.disk.rename(from, to).map_err(self.fault("write", to))
    }

    /// Makes the entries of directories durable, and every directory above them that is not known to be.
    fn settle(&self, directories: &[&str]) -> Result<(), StoreError> {
        let inside = self.committer.enter();
        let mut unsettled = Vec::new();
        if self.shares(&inside) {
            self.commit()?;
            unsettled.extend(directories.iter().flat_map(|directory| ancestors(directory)).map(str::to_owned));
        } else {
            directories.iter().try_for_each(|directory| self.settle_one(directory, &mut unsettled))?;
        }
        let mut settled = self.settled();
        if settled.len() + unsettled.len() > MAX_SETTLED {
            settled.clear();
        }
        settled.extend(unsettled);
        Ok(())
    }

    fn settle_one(&self, directory: &str, unsettled: &mut Vec<String>) -> Result<(), StoreError> {
        self.sync_directory(directory)?;
        for at in ancestors(directory) {
            if !self.settled().contains(at) {
                self.sync_directory(layout::parent(at))?;
                unsettled.push(at.to_owned());
            }
        }
        Ok(())
    }

    fn make_directory(&self, path: &str, made: &mut Vec<String>) -> io::Result<()> {
        match self.disk.make_directory(path, layout::directory_mode(path)) {
            Ok(()) => {
                self.settled().remove(path);
                made.push(path.to_owned());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_directory(&self, path: &str) -> Result<(), StoreError> {
        self.disk.sync_directory(path).map_err(|error| self.sync_failed(path, error))
    }

    fn sync_failed(&self, path: &str, error: io::Error) -> StoreError {
        let reason = format!("cannot sync {}: {error}", self.root.join(path).display());
        tracing::error!(%reason, "a sync failed: nothing is written until a probe succeeds");
        self.settled().clear();
        let failure = Failure { reason, cause: kernel_text(&error), last_probe: None };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        self.failed.store(true, Ordering::Release);
        self.fault("sync", path)(error)
    }

    fn probe(&self) -> io::Result<()> {
        let path = self.temporary();
        let file = self.disk.open(&path, Access::Create)?;
        let done = self
            .disk
            .write_at(&file, b"probe", 0)
            .and_then(|_| self.disk.sync_data(&file))
            .and_then(|()| self.disk.sync_directory(layout::TMP));
        self.discard(&path);
        done
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> Aside<'_, D> {
    /// Moves the next `n` files into place, one after another; they are durable together. After an error each is as it was
    /// or, when it existed, perhaps replaced.
    pub(crate) fn place_next(&mut self, n: usize) -> Result<(), StoreError> {
        let next = self.moves.iter().take(n);
        let next: Vec<_> = next.map(|(temporary, path)| (temporary.as_str(), path.as_str())).collect();
        self.durable.place_all(&next)?;
        self.moves.drain(..next.len());
        Ok(())
    }
}

impl<D: Disk> Drop for Aside<'_, D> {
    fn drop(&mut self) {
        for (temporary, _) in &self.moves {
            self.durable.discard(temporary);
        }
    }
}

/// The directory itself and all above it, the data directory left out.
fn ancestors(directory: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(directory), |at| Some(layout::parent(at))).take_while(|at| !at.is_empty())
}

/// Whether an error says that there is no such file, and not that it cannot be read.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
