//! How files of ours come to be: whole or not at all, durable, with the right mode from the first byte, and a key never
//! over another. Knows no certificates.
//!
//! A new file is written beside its target under a name that no engine reads, synced, renamed into place (or linked,
//! where a file that is there must win), and the directory is synced. As root, a new file belongs to the owner of the
//! directory it lies in, so that `sudo portcullis ...` on a service's home leaves nothing the service cannot read.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use portcullis_certs::{Finding, Severity, permissions};

use crate::PkiError;

/// For private keys and records: nobody but the owner.
pub const SECRET: u32 = 0o600;
/// For certificates: an engine of another user must read them.
pub const PUBLIC: u32 = 0o644;
/// For directories that hold keys.
pub const PRIVATE_DIR: u32 = 0o700;
/// For the directories of engines.
pub const PUBLIC_DIR: u32 = 0o755;

/// Makes a directory and those above it that are missing, all with `mode` whatever the umask. What is there stays as it
/// is.
pub fn create_dir(dir: &Path, mode: u32) -> Result<(), PkiError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(PkiError::io("make the directory", dir)(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(PkiError::io("look at", dir)(error)),
    }
    let parent = parent_of(dir);
    if parent != dir {
        create_dir(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.map_err(PkiError::io("make the directory", dir))?,
    }
    adopt_dir(dir, mode)?;
    sync_dir(parent)
}

/// Gives a directory of ours its mode, its owner and its durability.
pub(crate) fn adopt_dir(dir: &Path, mode: u32) -> Result<(), PkiError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(PkiError::io("set the mode of", dir))?;
    if let Some((uid, gid)) = heir(parent_of(dir)) {
        std::os::unix::fs::chown(dir, Some(uid), Some(gid)).map_err(PkiError::io("give away", dir))?;
    }
    sync_dir(dir)
}

/// Writes a file that must not be there yet.
///
/// # Errors
/// [`PkiError::Exists`] when it is, even when it appeared this moment.
pub fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), PkiError> {
    Staged::write(path, contents, mode)?.publish_new()?;
    sync_dir(parent_of(path))
}

/// Writes a file over whatever is there, in one step for whoever reads it. Not for keys.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), PkiError> {
    Staged::write(path, contents, mode)?.publish()?;
    sync_dir(parent_of(path))
}

/// Appends one line and syncs it, so that it is there before what it records is handed out. A line that a crash cut
/// short is left alone: the new one begins on a line of its own.
pub fn append_line(path: &Path, line: &str) -> Result<(), PkiError> {
    if !path.try_exists().map_err(PkiError::io("look at", path))? {
        match write_new(path, b"", SECRET) {
            Ok(()) | Err(PkiError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(PkiError::io("append to", path))?;
    append_to(&mut file, path, line)
}

/// The same, to a file that is open for reading and appending.
pub(crate) fn append_to(file: &mut File, path: &Path, line: &str) -> Result<(), PkiError> {
    let separator = if ends_in_newline(file, path)? { "" } else { "\n" };
    // One write, so that two processes do not mix their lines.
    file.write_all(format!("{separator}{line}\n").as_bytes()).map_err(PkiError::io("append to", path))?;
    file.sync_data().map_err(PkiError::io("sync", path))
}

/// Removes a file for good.
pub fn remove(path: &Path) -> Result<(), PkiError> {
    fs::remove_file(path).map_err(PkiError::io("remove", path))?;
    sync_dir(parent_of(path))
}

/// Refuses a private key of ours that others can read; the error has the `chmod` to type.
pub fn refuse_if_others_can_read(key: &Path) -> Result<(), PkiError> {
    let metadata = fs::metadata(key).map_err(PkiError::io("read", key))?;
    // Root works on another user's home as that user.
    let our_uid = heir(parent_of(key)).map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid);
    match permissions::check_private(key, &metadata, our_uid) {
        Some(fault) => Err(PkiError::Files { findings: vec![Finding::new(key, Severity::Fatal, fault)] }),
        None => Ok(()),
    }
}

/// A file that is written and synced, under a temporary name beside its target. Dropped, it is gone.
pub(crate) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
}

impl Staged {
    pub(crate) fn write(target: &Path, contents: &[u8], mode: u32) -> Result<Self, PkiError> {
        let staged = Self { temporary: temporary_name(target)?, target: target.to_owned() };
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET).open(&staged.temporary)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            if let Some((uid, gid)) = heir(parent_of(target)) {
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            file.write_all(contents)?;
            file.sync_all()
        };
        write().map_err(PkiError::io("write", target))?;
        Ok(staged)
    }

    /// Puts the file in its place. The directory is not synced: several of them may follow one another closely.
    pub(crate) fn publish(self) -> Result<(), PkiError> {
        fs::rename(&self.temporary, &self.target).map_err(PkiError::io("write", &self.target))
    }

    /// The same, where a file that is there wins: a link is refused then, in the same moment.
    pub(crate) fn publish_new(self) -> Result<(), PkiError> {
        fs::hard_link(&self.temporary, &self.target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => PkiError::Exists { path: self.target.clone() },
            _ => PkiError::io("write", &self.target)(error),
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `publish` there is nothing left to remove; before, a leftover would be harmless.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Makes renames in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), PkiError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(PkiError::io("sync", dir))
}

/// Eight random hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, PkiError> {
    let mut octets = [0; 4];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| PkiError::Crypto { doing: "make a random name" })?;
    Ok(format!("{:08x}", u32::from_be_bytes(octets)))
}

fn temporary_name(target: &Path) -> Result<PathBuf, PkiError> {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", random_hex()?));
    Ok(target.with_file_name(name))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Who gets what root makes in `dir`; `None` when that is root, or when we are not root.
fn heir(dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let metadata = fs::metadata(dir).ok()?;
    (metadata.uid() != 0).then(|| (metadata.uid(), metadata.gid()))
}

fn ends_in_newline(file: &mut File, path: &Path) -> Result<bool, PkiError> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    if file.metadata().map_err(PkiError::io("read", path))?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(PkiError::io("read", path))?;
    Ok(last == [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        write_new(&path, b"first", SECRET).unwrap();
        assert!(matches!(write_new(&path, b"second", SECRET), Err(PkiError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(dir.path()), ["ca.key"], "no temporary file is left");
    }

    #[test]
    fn a_dangling_link_is_something_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(write_new(&path, b"key", SECRET), Err(PkiError::Exists { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_replaced_file_has_the_new_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.crt");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        replace(&path, b"new", PUBLIC).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode(&path)), (b"new".as_slice(), 0o644));
        assert_eq!(names(dir.path()), ["server.crt"]);
    }

    #[test]
    fn directories_have_their_mode_all_the_way_down() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir(&deep, PRIVATE_DIR).unwrap();
        create_dir(&deep, PUBLIC_DIR).unwrap();
        assert_eq!((mode(&deep), mode(&dir.path().join("a"))), (0o700, 0o700));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(create_dir(&dir.path().join("file/x"), PRIVATE_DIR).is_err());
    }

    #[test]
    fn a_line_cut_short_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issued.jsonl");
        append_line(&path, "one").unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"tw").unwrap();
        append_line(&path, "three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nthree\n");
        assert_eq!(mode(&path), 0o600);
    }
}
