//! A disk that can lose its power: what was written and what is durable are two trees.
//!
//! Data reaches the durable tree by a sync of the file, an entry by a sync of its directory; an entry drags along the
//! earlier changes of the same name, as a journal does, and nothing else. A rename is one change: after a power cut it
//! has happened in both directories or in neither. A failed sync loses what it should have written, and the next one
//! succeeds without writing it, as Linux does.

mod tree;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use self::tree::{Change, Entries, File, Node, ROOT, Tree};
use crate::disk::{Access, Disk, Kind, Stamp};

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct ModelDisk {
    state: Arc<(Mutex<State>, Condvar)>,
}

/// What becomes of that which was not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    /// All of it is lost.
    Everything,
    /// Every change of a directory is there, and no data: what a missing sync of a file leaves.
    Data,
    /// Some of it is there: chosen by this number, which is not zero.
    Some(u64),
}

/// When the disk does something bad: calls are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    /// The power goes after this call: every later one fails.
    PowerCut(u64),
    /// This call fails with `EIO`, and a write has written half.
    Fault(u64),
    /// This call fails with `ENOSPC` if it may need space, and a write has written half.
    Full(u64),
    /// Every sync fails from here on.
    FailingSyncs,
    /// Every write fails with `ENOSPC` from here on.
    NoMoreSpace,
    /// This call waits until the trap is taken away.
    Hold(u64),
}

#[derive(Debug, Clone)]
struct State {
    tree: Tree,
    boot: u64,
    calls: u64,
    trap: Option<Trap>,
    off: bool,
    holding: bool,
    free: u64,
    shares_syncs_from: Option<usize>,
    early_sync_step: u64,
}

/// What a call is about to do, for the trap.
#[derive(Debug, Clone, Copy)]
enum What<'a> {
    /// It reads, removes or shortens.
    NeedsNoSpace,
    NeedsSpace,
    Write(u64, &'a [u8], u64),
    SyncData(u64),
    SyncDirectory(&'a str),
    SyncEverything,
}

impl ModelDisk {
    pub(crate) fn new() -> Self {
        let state = State {
            tree: Tree::new(),
            boot: 1,
            calls: 0,
            trap: None,
            off: false,
            holding: false,
            free: 1 << 40,
            shares_syncs_from: None,
            early_sync_step: u64::MAX,
        };
        Self { state: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    /// Sets the trap for calls counted from now on.
    pub(crate) fn arm(&self, trap: Option<Trap>) {
        let mut state = self.state();
        state.calls = 0;
        state.trap = trap;
        self.state.1.notify_all();
    }

    /// Another disk with the same content.
    pub(crate) fn fork(&self) -> Self {
        let state = State { trap: None, ..self.state().clone() };
        Self { state: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    /// Whether a call is held back.
    pub(crate) fn holds(&self) -> bool {
        self.state().holding
    }

    /// A disk on which every sync is one of everything.
    pub(crate) fn of_shared_syncs() -> Self {
        let disk = Self::new();
        disk.state().shares_syncs_from = Some(1);
        disk
    }

    /// A disk on which a growing file is synced early, again and again.
    pub(crate) fn of_early_syncs(step: u64) -> Self {
        let disk = Self::new();
        disk.state().early_sync_step = step;
        disk
    }

    /// What [`Disk::free`] answers.
    pub(crate) fn set_free(&self, bytes: u64) {
        self.state().free = bytes;
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        self.state().tree.now += time.as_secs().cast_signed();
    }

    pub(crate) fn set_clock_back(&self, time: Duration) {
        self.state().tree.now -= time.as_secs().cast_signed();
    }

    /// As an administrator does it, behind the store's back.
    pub(crate) fn move_directory(&self, from: &str, to: &str) {
        let tree = &mut self.state().tree;
        let inode = tree.find(from).unwrap();
        let change = Change::Move(tree.place(from).unwrap(), tree.place(to).unwrap(), inode);
        tree.change(change);
    }

    /// Calls since the trap was set.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Switches off, loses what was not synced, and switches on again.
    pub(crate) fn power_cut(&self, loss: Loss) {
        let mut state = self.state();
        state.tree.lose(loss);
        state.boot += 1;
        state.off = false;
        state.trap = None;
    }

    /// The end of a process: the disk is as it was, and answers again.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.off = false;
        state.trap = None;
    }

    /// Every file there is with its bytes, and every empty directory with a slash behind its name.
    pub(crate) fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let mut tree = BTreeMap::new();
        let mut rest = vec![(ROOT, String::new())];
        while let Some((inode, path)) = rest.pop() {
            match &state.tree.nodes[&inode] {
                Node::File(file) => drop(tree.insert(path, file.data.clone())),
                Node::Directory(entries) if entries.is_empty() => drop(tree.insert(path + "/", Vec::new())),
                Node::Directory(entries) => {
                    rest.extend(entries.iter().map(|(name, inode)| (*inode, join(&path, name))));
                }
            }
        }
        tree
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and makes it fail if it shall.
    fn call(&self, what: What<'_>) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.off {
            return Err(io::Error::other("the power is off"));
        }
        state.calls += 1;
        let calls = state.calls;
        while state.trap == Some(Trap::Hold(calls)) {
            state.holding = true;
            state = self.state.1.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.holding = false;
        }
        match state.trap {
            Some(Trap::PowerCut(at)) if calls > at => {
                state.off = true;
                Err(io::Error::other("the power went"))
            }
            Some(Trap::Fault(at)) if calls == at => Err(state.fail(what, Errno::IO)),
            Some(Trap::Full(at)) if calls == at && !matches!(what, What::NeedsNoSpace) => {
                Err(state.fail(what, Errno::NOSPC))
            }
            Some(Trap::FailingSyncs)
                if matches!(what, What::SyncData(_) | What::SyncDirectory(_) | What::SyncEverything) =>
            {
                Err(state.fail(what, Errno::IO))
            }
            Some(Trap::NoMoreSpace) if matches!(what, What::Write(..)) => Err(state.fail(what, Errno::NOSPC)),
            _ => Ok(state),
        }
    }
}

impl State {
    /// Leaves what a failed call leaves.
    fn fail(&mut self, what: What<'_>, error: Errno) -> io::Error {
        match what {
            What::NeedsNoSpace | What::NeedsSpace => {}
            What::Write(inode, bytes, offset) => self.tree.write(inode, &bytes[..bytes.len() / 2], offset),
            What::SyncEverything => self.tree.lose_everything(),
            What::SyncData(inode) => self.tree.lose_data(inode),
            What::SyncDirectory(path) => {
                if let Ok(inode) = self.tree.find(path) {
                    self.tree.lose_directory(inode);
                }
            }
        }
        error.into()
    }
}

impl Disk for ModelDisk {
    type File = u64;

    fn open(&self, path: &str, access: Access) -> io::Result<u64> {
        let creates = matches!(access, Access::Create | Access::CreateIfMissing);
        let mut state = self.call(if creates { What::NeedsSpace } else { What::NeedsNoSpace })?;
        let tree = &mut state.tree;
        match tree.find(path) {
            Ok(_) if access == Access::Create => Err(Errno::EXIST.into()),
            Ok(inode) if access != Access::Read && tree.nodes[&inode].as_file().is_none() => Err(Errno::ISDIR.into()),
            Ok(inode) => Ok(inode),
            Err(error) if creates && error.kind() == io::ErrorKind::NotFound => {
                let name = tree.place(path)?;
                Ok(tree.add(name, Node::File(File::default())))
            }
            Err(error) => Err(error),
        }
    }

    fn stat(&self, path: &str) -> io::Result<Stamp> {
        let state = self.call(What::NeedsNoSpace)?;
        Ok(state.tree.stamp(state.tree.find(path)?))
    }

    fn make_directory(&self, path: &str, _mode: u32) -> io::Result<()> {
        let tree = &mut self.call(What::NeedsSpace)?.tree;
        if tree.find(path).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let name = tree.place(path)?;
        tree.add(name, Node::Directory(Entries::new()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let tree = &mut self.call(What::NeedsSpace)?.tree;
        let inode = tree.find(from)?;
        let change = Change::Move(tree.place(from)?, tree.place(to)?, inode);
        if tree.find(to).is_ok_and(|target| tree.nodes[&target].as_file().is_none()) {
            return Err(Errno::NOTEMPTY.into());
        }
        tree.change(change);
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let tree = &mut self.call(What::NeedsNoSpace)?.tree;
        if tree.nodes[&tree.find(path)?].as_file().is_none() {
            return Err(Errno::ISDIR.into());
        }
        let name = tree.place(path)?;
        tree.change(Change::Remove(name));
        Ok(())
    }

    fn remove_directory(&self, path: &str) -> io::Result<()> {
        let tree = &mut self.call(What::NeedsNoSpace)?.tree;
        match &tree.nodes[&tree.find(path)?] {
            Node::Directory(entries) if entries.is_empty() => {}
            Node::Directory(_) => return Err(Errno::NOTEMPTY.into()),
            Node::File(_) => return Err(Errno::NOTDIR.into()),
        }
        let name = tree.place(path)?;
        tree.change(Change::Remove(name));
        Ok(())
    }

    fn list(&self, path: &str, each: &mut dyn FnMut(&str, Kind)) -> io::Result<()> {
        let entries: Vec<_> = {
            let state = self.call(What::NeedsNoSpace)?;
            let Node::Directory(entries) = &state.tree.nodes[&state.tree.find(path)?] else {
                return Err(Errno::NOTDIR.into());
            };
            entries.iter().map(|(name, inode)| (name.clone(), state.tree.stamp(*inode).kind)).collect()
        };
        // A directory is in no order.
        entries.iter().rev().for_each(|(name, kind)| each(name, *kind));
        Ok(())
    }

    fn touch(&self, path: &str) -> io::Result<()> {
        let tree = &mut self.call(What::NeedsNoSpace)?.tree;
        let inode = tree.find(path)?;
        tree.file(inode);
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        let tree = &mut self.call(What::SyncDirectory(path))?.tree;
        let inode = tree.find(path)?;
        tree.sync_directory(inode);
        Ok(())
    }

    fn sync_everything(&self) -> io::Result<()> {
        self.call(What::SyncEverything)?.tree.sync_everything();
        Ok(())
    }

    fn shares_syncs_from(&self) -> Option<usize> {
        self.state().shares_syncs_from
    }

    /// However long this machine takes: how many calls there are must not depend on that.
    fn slow_sync(&self) -> Duration {
        Duration::MAX
    }

    fn early_sync_step(&self) -> u64 {
        self.state().early_sync_step
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.call(What::NeedsNoSpace)?.free)
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.state().boot)
    }

    fn now(&self) -> u64 {
        self.state().tree.now.cast_unsigned()
    }

    fn read_at(&self, file: &u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.call(What::NeedsNoSpace)?;
        let Some(file) = state.tree.nodes[file].as_file() else { return Err(Errno::ISDIR.into()) };
        let rest = file.data.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_cached(&self, file: &u64, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.read_at(file, buf, offset).map(Some)
    }

    fn write_vectored_at(&self, file: &u64, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.call(What::Write(*file, &bytes, offset))?.tree.write(*file, &bytes, offset);
        Ok(bytes.len())
    }

    fn cut(&self, file: &u64, len: u64) -> io::Result<()> {
        self.call(What::NeedsNoSpace)?.tree.file(*file).data.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self, file: &u64) -> io::Result<()> {
        let mut state = self.call(What::SyncData(*file))?;
        // An early sync may come when the power was cut and its file is gone.
        if !state.tree.nodes.contains_key(file) {
            return Err(Errno::STALE.into());
        }
        state.tree.sync_data(*file);
        Ok(())
    }

    fn stamp(&self, file: &u64) -> io::Result<Stamp> {
        Ok(self.call(What::NeedsNoSpace)?.tree.stamp(*file))
    }

    fn try_lock(&self, _file: &u64) -> io::Result<bool> {
        self.call(What::NeedsNoSpace).map(|_| true)
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}
