//! The two trees of a model disk: what a process sees, and what a power cut leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use super::Loss;
use crate::disk::{Kind, Stamp};

/// The inode of the data directory.
pub(super) const ROOT: u64 = 1;

pub(super) type Entries = BTreeMap<String, u64>;

/// A directory's inode, and a name in it.
pub(super) type Name = (u64, String);

#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) nodes: HashMap<u64, Node>,
    /// The durable entries of every directory.
    durable: HashMap<u64, Entries>,
    /// Changes of directories that are not durable, oldest first.
    pending: Vec<Change>,
    next_inode: u64,
    clock: i64,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// When the entries of a directory changed.
    changed: HashMap<u64, i64>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Directory(Entries),
    File(File),
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    synced: Vec<u8>,
    /// A sync failed: its pages count as clean.
    lost: bool,
    /// Seconds since 1970, and a number that tells two changes within one from each other.
    modified: (i64, i64),
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Add(Name, u64),
    Remove(Name),
    Move(Name, Name, u64),
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::Directory(Entries::new()))]),
            durable: HashMap::from([(ROOT, Entries::new())]),
            pending: Vec::new(),
            next_inode: ROOT + 1,
            clock: 0,
            now: 1_764_000_000,
            changed: HashMap::new(),
        }
    }

    pub(super) fn sync_data(&mut self, inode: u64) {
        let file = self.file_as_it_is(inode);
        if !file.lost {
            file.synced.clone_from(&file.data);
        }
    }

    /// What a failed sync leaves: the next one has nothing to do.
    pub(super) fn lose_data(&mut self, inode: u64) {
        self.file_as_it_is(inode).lost = true;
    }

    pub(super) fn sync_directory(&mut self, inode: u64) {
        let changes = self.take_pending(|change| change.touches(inode));
        self.make_durable(changes);
    }

    /// What a failed sync leaves: the next one has nothing to do.
    pub(super) fn lose_directory(&mut self, inode: u64) {
        self.take_pending(|change| change.touches(inode));
    }

    pub(super) fn sync_everything(&mut self) {
        let changes = self.take_pending(|_| true);
        self.make_durable(changes);
        for inode in self.files() {
            self.sync_data(inode);
        }
    }

    /// What a failed sync of everything leaves.
    pub(super) fn lose_everything(&mut self) {
        self.take_pending(|_| true);
        for inode in self.files() {
            self.lose_data(inode);
        }
    }

    fn files(&self) -> Vec<u64> {
        self.nodes.iter().filter_map(|(inode, node)| node.as_file().map(|_| *inode)).collect()
    }

    pub(super) fn stamp(&self, inode: u64) -> Stamp {
        let (kind, size, modified) = match &self.nodes[&inode] {
            Node::Directory(_) => (Kind::Directory, 0, (0, self.changed.get(&inode).copied().unwrap_or(0))),
            Node::File(file) => (Kind::File, file.data.len() as u64, file.modified),
        };
        Stamp { kind, size, inode, modified, changed: modified }
    }

    pub(super) fn find(&self, path: &str) -> io::Result<u64> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match self.nodes.get(&at) {
                Some(Node::Directory(entries)) => at = *entries.get(name).ok_or(rustix::io::Errno::NOENT)?,
                _ => return Err(rustix::io::Errno::NOTDIR.into()),
            }
        }
        Ok(at)
    }

    /// The directory of a path, and the name in it.
    pub(super) fn place(&self, path: &str) -> io::Result<Name> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inode = self.find(directory)?;
        match self.nodes.get(&inode) {
            Some(Node::Directory(_)) => Ok((inode, name.to_owned())),
            _ => Err(rustix::io::Errno::NOTDIR.into()),
        }
    }

    fn entries(&mut self, inode: u64) -> &mut Entries {
        match self.nodes.get_mut(&inode) {
            Some(Node::Directory(entries)) => entries,
            _ => panic!("{inode} is no directory"),
        }
    }

    pub(super) fn file(&mut self, inode: u64) -> &mut File {
        self.clock += 1;
        let modified = (self.now, self.clock);
        let file = self.file_as_it_is(inode);
        file.modified = modified;
        file
    }

    /// Syncing changes no times.
    fn file_as_it_is(&mut self, inode: u64) -> &mut File {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file,
            _ => panic!("{inode} is no file"),
        }
    }

    pub(super) fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) {
        let data = &mut self.file(inode).data;
        let start = usize::try_from(offset).unwrap();
        data.resize(data.len().max(start + bytes.len()), 0);
        data[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn add(&mut self, name: Name, node: Node) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        if matches!(node, Node::Directory(_)) {
            self.durable.insert(inode, Entries::new());
        }
        self.nodes.insert(inode, node);
        self.change(Change::Add(name, inode));
        inode
    }

    /// Changes the present tree now, and the durable one later.
    pub(super) fn change(&mut self, change: Change) {
        self.clock += 1;
        let clock = self.clock;
        self.changed.extend(change.names().into_iter().map(|(directory, _)| (directory, clock)));
        match change.clone() {
            Change::Add((directory, name), inode) => drop(self.entries(directory).insert(name, inode)),
            Change::Remove((directory, name)) => drop(self.entries(directory).remove(&name)),
            Change::Move((from, old), (to, new), inode) => {
                self.entries(from).remove(&old);
                self.entries(to).insert(new, inode);
            }
        }
        self.pending.push(change);
    }

    /// Takes the changes out that are `wanted` and those they rest on, oldest first.
    fn take_pending(&mut self, mut wanted: impl FnMut(&Change) -> bool) -> Vec<Change> {
        let mut names = BTreeSet::new();
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            if wanted(&change) || change.names().iter().any(|name| names.contains(name)) {
                names.extend(change.names());
                taken.push(change);
            } else {
                kept.push(change);
            }
        }
        kept.reverse();
        taken.reverse();
        self.pending = kept;
        taken
    }

    fn make_durable(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Add((directory, name), inode) => {
                    self.durable.entry(directory).or_default().insert(name, inode);
                }
                Change::Remove((directory, name)) => {
                    self.durable.entry(directory).or_default().remove(&name);
                }
                Change::Move((from, old), (to, new), inode) => {
                    let from = self.durable.entry(from).or_default();
                    if from.get(&old) == Some(&inode) {
                        from.remove(&old);
                    }
                    self.durable.entry(to).or_default().insert(new, inode);
                }
            }
        }
    }

    pub(super) fn lose(&mut self, loss: Loss) {
        let mut dice = match loss {
            Loss::Everything | Loss::Data => 0,
            Loss::Some(seed) => seed,
        };
        let survivors = self.take_pending(|_| match loss {
            Loss::Everything => false,
            Loss::Data => true,
            Loss::Some(_) => roll(&mut dice, 2) == 0,
        });
        self.make_durable(survivors);
        self.pending.clear();
        let mut inodes: Vec<u64> = self.nodes.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            match self.nodes.get_mut(&inode) {
                Some(Node::Directory(entries)) => entries.clone_from(&self.durable[&inode]),
                Some(Node::File(file)) => {
                    file.synced = match loss {
                        Loss::Everything => file.synced.clone(),
                        Loss::Data => file.zeroed(),
                        Loss::Some(_) => file.torn(roll(&mut dice, 4)),
                    };
                    file.data.clone_from(&file.synced);
                    file.lost = false;
                }
                None => {}
            }
        }
    }
}

impl Node {
    pub(super) fn as_file(&self) -> Option<&File> {
        match self {
            Self::File(file) => Some(file),
            Self::Directory(_) => None,
        }
    }
}

impl File {
    /// The new length, with zeros where nothing was synced.
    fn zeroed(&self) -> Vec<u8> {
        let synced = |at: usize| self.synced.get(at).copied();
        self.data.iter().enumerate().map(|(at, byte)| if synced(at) == Some(*byte) { *byte } else { 0 }).collect()
    }

    fn torn(&self, choice: u64) -> Vec<u8> {
        match choice {
            _ if self.data == self.synced => self.synced.clone(),
            0 => self.synced.clone(),
            1 if !self.lost => self.data.clone(),
            2 => {
                // Half of what is new has reached the disk.
                let same = self.data.iter().zip(&self.synced).take_while(|(new, old)| new == old).count();
                self.data[..same + (self.data.len() - same) / 2].to_vec()
            }
            _ => self.zeroed(),
        }
    }
}

impl Change {
    fn names(&self) -> Vec<Name> {
        match self {
            Self::Add(name, _) | Self::Remove(name) => vec![name.clone()],
            Self::Move(from, to, _) => vec![from.clone(), to.clone()],
        }
    }

    fn touches(&self, directory: u64) -> bool {
        self.names().iter().any(|name| name.0 == directory)
    }
}

/// The next number below `sides` (xorshift: good enough to choose what is lost, and the same on every machine).
fn roll(dice: &mut u64, sides: u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    *dice % sides
}
