//! Every call the store makes to a disk, as one trait, so that a test can fail each of them or cut the power after it.
//!
//! Paths are relative to the data directory; the empty path is that directory. Must not know what any file means.

use std::fmt;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW};

/// The data directory of one store.
pub(crate) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file. Closing it makes nothing durable.
    type File: fmt::Debug + Send + Sync + 'static;

    fn open(&self, path: &str, access: Access) -> io::Result<Self::File>;
    /// Follows symbolic links, as every other call.
    fn stat(&self, path: &str) -> io::Result<Stamp>;
    fn make_directory(&self, path: &str, mode: u32) -> io::Result<()>;
    /// Replaces a file at `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove_file(&self, path: &str) -> io::Result<()>;
    fn remove_directory(&self, path: &str) -> io::Result<()>;
    /// A name that is not UTF-8 comes with U+FFFD in place of what is not, as [`Kind::Unspelled`]: nothing of the store's
    /// has such a name, and whoever takes what is not named for absent must know that it is there.
    fn list(&self, path: &str, each: &mut dyn FnMut(&str, Kind)) -> io::Result<()>;
    /// Sets the modification time of a file to now.
    fn touch(&self, path: &str) -> io::Result<()>;
    /// Makes the entries of a directory durable, not what they point to.
    fn sync_directory(&self, path: &str) -> io::Result<()>;
    /// Makes everything on the filesystem durable.
    fn sync_everything(&self) -> io::Result<()>;
    /// From how many who wait at once it is better to sync everything for all of them than a file for each. `None`: never,
    /// where such a sync may not tell that something was lost.
    fn shares_syncs_from(&self) -> Option<usize>;
    /// From how long on such a sync has more to write than what small objects need.
    fn slow_sync(&self) -> Duration;
    /// After so many bytes of a growing file it is worth to sync them while more come.
    fn early_sync_step(&self) -> u64;
    /// Bytes that a process without privileges may still use.
    fn free(&self) -> io::Result<u64>;
    /// A text that changes whenever unsynced bytes may have been lost.
    fn boot_id(&self) -> String;
    /// Seconds since 1970, by the clock that gives files their times.
    fn now(&self) -> u64;

    fn read_at(&self, file: &Self::File, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// What is in memory already, without waiting for the disk. `None`: nothing is there, or nobody can tell.
    fn read_cached(&self, file: &Self::File, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.write_vectored_at(file, &[IoSlice::new(bytes)], offset)
    }
    /// The same from several places at once. One large write costs half of what its pieces do: the page cache takes larger
    /// pages for it.
    fn write_vectored_at(&self, file: &Self::File, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    fn cut(&self, file: &Self::File, len: u64) -> io::Result<()>;
    fn sync_data(&self, file: &Self::File) -> io::Result<()>;
    fn stamp(&self, file: &Self::File) -> io::Result<Stamp>;
    /// `false`: another process holds it. Let go of when the file is dropped.
    fn try_lock(&self, file: &Self::File) -> io::Result<bool>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Reading and writing; the file exists.
    Write,
    /// Reading and writing; the file is made, and must not exist.
    Create,
    /// Reading and writing; the file is made if it does not exist.
    CreateIfMissing,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Other,
    /// No path leads to it, whatever it is.
    Unspelled,
}

/// One version of a file: whoever replaces or changes it changes its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) modified: (i64, i64),
    /// When anything about it changed last, its name and times included: nobody can set this back.
    pub(crate) changed: (i64, i64),
}

/// One alone has its files synced sooner than all that others have written to the same filesystem.
const WORTH_SHARING: usize = 3;

/// IOV_MAX: one write takes no more.
const MOST_PIECES: usize = 1024;

/// A large push is among it, or another program's files on the same filesystem.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// 100 MB that come in 390 ms were durable 168 ms later without, 41 ms with it. Each costs a flush of the disk.
const EARLY_SYNC_STEP: u64 = 16 << 20;

/// Filesystems whose `syncfs` waits for data and journal (`f_type` of statfs(2)): ext2 to 4, XFS, Btrfs, F2FS. Others, such
/// as network filesystems and FUSE, may leave that to somebody else.
const KNOWN_FILESYSTEMS: [u64; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010];

/// Before Linux 5.8 `syncfs` did not tell of lost writes (syncfs(2)).
const SYNCFS_TELLS: (u32, u32) = (5, 8);

/// A directory of the machine.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: OwnedFd,
    shares_syncs_from: Option<usize>,
}

impl RealDisk {
    /// Opens `root`, and makes it if it is missing.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let shares_syncs_from = tells_what_syncfs_lost(&root).then_some(WORTH_SHARING);
        Ok(Self { root, shares_syncs_from })
    }

    fn open_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, if path.is_empty() { "." } else { path }, flags, Mode::empty())?)
    }
}

impl Disk for RealDisk {
    type File = OwnedFd;

    fn open(&self, path: &str, access: Access) -> io::Result<OwnedFd> {
        // O_NONBLOCK: a FIFO in a damaged tree must not hold a thread for ever.
        let flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let flags = flags
            | match access {
                Access::Read => OFlags::RDONLY,
                Access::Write => OFlags::RDWR,
                Access::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
                Access::CreateIfMissing => OFlags::RDWR | OFlags::CREATE,
            };
        Ok(rustix::fs::openat(&self.root, path, flags, Mode::from_raw_mode(0o644))?)
    }

    fn stat(&self, path: &str) -> io::Result<Stamp> {
        Ok(stamp(&rustix::fs::statat(&self.root, path, AtFlags::empty())?))
    }

    fn make_directory(&self, path: &str, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(mode))?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::empty())?)
    }

    fn remove_directory(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::REMOVEDIR)?)
    }

    fn list(&self, path: &str, each: &mut dyn FnMut(&str, Kind)) -> io::Result<()> {
        let mut entries = Dir::new(self.open_directory(path)?)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                each(&entry.file_name().to_string_lossy(), Kind::Unspelled);
                continue;
            };
            match entry.file_type() {
                _ if name == "." || name == ".." => {}
                FileType::RegularFile => each(name, Kind::File),
                FileType::Directory => each(name, Kind::Directory),
                // Some filesystems do not say, and a link says nothing of its target.
                _ => each(name, self.stat(&format!("{path}/{name}")).map_or(Kind::Other, |stamp| stamp.kind)),
            }
        }
        Ok(())
    }

    fn touch(&self, path: &str) -> io::Result<()> {
        // Both times to "now": that wants the right to write and no more, where a time of our choice wants the owner.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        Ok(rustix::fs::utimensat(&self.root, path, &times, AtFlags::empty())?)
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_directory(path)?)?)
    }

    fn sync_everything(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    fn shares_syncs_from(&self) -> Option<usize> {
        self.shares_syncs_from
    }

    fn slow_sync(&self) -> Duration {
        SLOW_SYNC
    }

    fn early_sync_step(&self) -> u64 {
        EARLY_SYNC_STEP
    }

    fn free(&self) -> io::Result<u64> {
        let filesystem = rustix::fs::fstatvfs(&self.root)?;
        Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
    }

    fn boot_id(&self) -> String {
        // Where /proc is hidden every start counts as another boot: uploads are then hashed again, never trusted.
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| uuid::Uuid::new_v4().to_string(), |id| id.trim_end().to_owned())
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn read_at(&self, file: &OwnedFd, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buf, offset))?)
    }

    fn read_cached(&self, file: &OwnedFd, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut into = [IoSliceMut::new(buf)];
        match preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            // Not in the page cache; or a filesystem or kernel (before 4.14) that cannot say.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write_vectored_at(&self, file: &OwnedFd, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let pieces = &pieces[..pieces.len().min(MOST_PIECES)];
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(file, pieces, offset))?)
    }

    fn cut(&self, file: &OwnedFd, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(file, len)?)
    }

    fn sync_data(&self, file: &OwnedFd) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(file)?)
    }

    fn stamp(&self, file: &OwnedFd) -> io::Result<Stamp> {
        Ok(stamp(&rustix::fs::fstat(file)?))
    }

    fn try_lock(&self, file: &OwnedFd) -> io::Result<bool> {
        match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn tells_what_syncfs_lost(root: &OwnedFd) -> bool {
    let is_known = rustix::fs::fstatfs(root)
        .is_ok_and(|filesystem| u64::try_from(filesystem.f_type).is_ok_and(|kind| KNOWN_FILESYSTEMS.contains(&kind)));
    let kernel = rustix::system::uname();
    let release = kernel.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    is_known && numbers.next().zip(numbers.next()).is_some_and(|version| version >= SYNCFS_TELLS)
}

fn stamp(stat: &Stat) -> Stamp {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Stamp {
        kind,
        size,
        inode: stat.st_ino,
        modified: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
        changed: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
    }
}
