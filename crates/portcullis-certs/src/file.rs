//! Bounded reading: never more than a limit, never from anything but a regular file, never in a directory's own order.
//!
//! It knows nothing of certificates; what went wrong comes back as a [`Fault`].

use crate::fault::Fault;
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// No certificate or key file comes near it; buildx has the same cap.
pub(crate) const FILE_LIMIT: u64 = 1 << 20;

/// Entries of one directory.
pub(crate) const ENTRY_LIMIT: usize = 1024;

/// Where an absolute path of a machine lies when `root` stands for its `/`. No `..` leads out of the root; a symbolic link may.
pub(crate) fn below(root: &Path, absolute: &Path) -> PathBuf {
    if root == Path::new("/") {
        // The kernel knows best what `..` means behind a link.
        return root.join(absolute);
    }
    let mut path = root.to_owned();
    let mut depth = 0_usize;
    for part in absolute.components() {
        match part {
            Component::Normal(name) => {
                path.push(name);
                depth += 1;
            }
            Component::ParentDir if depth > 0 => {
                path.pop();
                depth -= 1;
            }
            Component::ParentDir | Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// Reads a regular file of at most `limit` bytes. Symbolic links are followed.
pub(crate) fn read(path: &Path, limit: u64) -> Result<(Vec<u8>, Metadata), Fault> {
    // Looked at before it is opened, because opening a device can do things; and after, because it may have changed.
    let before = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !before.is_file() {
        return Err(Fault::NotAFile);
    }
    let file = open(path).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Fault::TooLarge { limit });
    }
    Ok((bytes, metadata))
}

/// The names in a directory, in byte order, as Go's `os.ReadDir` gives them.
pub(crate) fn list(directory: &Path) -> Result<Vec<OsString>, Fault> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotADirectory => Fault::NotADirectory,
        error => Fault::DirectoryUnreadable { error },
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(refused)? {
        if names.len() == ENTRY_LIMIT {
            return Err(Fault::TooManyEntries { limit: ENTRY_LIMIT });
        }
        names.push(entry.map_err(refused)?.file_name());
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// Without blocking: a FIFO put in the file's place between the two looks must not hold us.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let is_link = || fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    match error.kind() {
        io::ErrorKind::NotFound if is_link() => Fault::DanglingLink,
        error => Fault::Unreadable { error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_root() {
        for (absolute, expected) in [
            ("/etc/x.crt", "/mnt/etc/x.crt"),
            ("etc/x.crt", "/mnt/etc/x.crt"),
            ("/a/../../../etc/x.crt", "/mnt/etc/x.crt"),
            ("/a/b/../x.crt", "/mnt/a/x.crt"),
            ("/", "/mnt"),
        ] {
            assert_eq!(below(Path::new("/mnt"), Path::new(absolute)), Path::new(expected), "{absolute}");
        }
        assert_eq!(below(Path::new("/"), Path::new("/a/../x")), Path::new("/a/../x"));
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"12345").unwrap();
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert_eq!(read(&path, 5).unwrap().0, b"12345");
        assert_eq!(read(&dir.path().join("link"), 5).unwrap().0, b"12345");
        assert_eq!(read(&path, 4).unwrap_err(), Fault::TooLarge { limit: 4 });
        assert_eq!(read(dir.path(), 5).unwrap_err(), Fault::NotAFile);
        assert_eq!(read(Path::new("/dev/zero"), 5).unwrap_err(), Fault::NotAFile);
        let missing = read(&dir.path().join("none"), 5).unwrap_err();
        assert_eq!(missing, Fault::Unreadable { error: io::ErrorKind::NotFound });
        std::os::unix::fs::symlink("none", dir.path().join("dangling")).unwrap();
        assert_eq!(read(&dir.path().join("dangling"), 5).unwrap_err(), Fault::DanglingLink);
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo.crt");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read(&path, 5).unwrap_err(), Fault::NotAFile);
        drop(open(&path).unwrap());
    }

    #[test]
    fn names_come_in_byte_order_and_in_bounded_number() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "10", "2", "Z", ".a", "a"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [".a", "10", "2", "Z", "a", "b"]);
        for i in 6..ENTRY_LIMIT {
            fs::write(dir.path().join(format!("f{i}")), b"").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap().len(), ENTRY_LIMIT);
        fs::write(dir.path().join("one more"), b"").unwrap();
        assert_eq!(list(dir.path()).unwrap_err(), Fault::TooManyEntries { limit: ENTRY_LIMIT });
        assert_eq!(list(&dir.path().join("a")).unwrap_err(), Fault::NotADirectory);
    }
}
