//! Applies a repair of the doctor's on opened descriptors: no link is followed below the given root, nothing is overwritten,
//! and a directory must belong to root or to the caller.
//!
//! The doctor looked earlier and may have been shown something else: everything is checked again on what was opened.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use pem_rfc7468::LineEnding;
use portcullis_certs::{Certificate, ShellCommand, pem};
use portcullis_doctor::Mend;
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags, Stat};
use rustix::process::geteuid;

use crate::cmd::shown;

/// No certificate or key file comes near it.
const LIMIT: u64 = 1 << 20;

/// No engine reads a file with this ending.
const BACKUP: &str = ".before-fix";

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What will be done, in one line.
pub(super) fn described(mend: &Mend) -> String {
    match mend {
        Mend::Rename { from, to } if from.parent() == to.parent() => {
            format!("rename {} to {}", shown(from), shown(to))
        }
        Mend::Rename { from, to } => format!("move {} to {}", shown(from), shown(to)),
        Mend::MoveInto { directory, files } => {
            let files: Vec<String> = files.iter().map(|file| shown(file)).collect();
            format!("make the directory {} and move {} into it", shown(directory), files.join(", "))
        }
        Mend::Mode { path, mode } => format!("give {} the mode {mode:04o}", shown(path)),
        Mend::ToPem { path } => {
            format!("write {} as PEM, keeping the file as it is in {}{BACKUP}", shown(path), shown(path))
        }
        Mend::Reorder { path, .. } => {
            format!(
                "put the key's certificate first in {}, keeping the file as it is in {}{BACKUP}",
                shown(path),
                shown(path)
            )
        }
    }
}

/// Does it, and says how it is undone.
pub(super) fn apply(mend: &Mend, root: &Path) -> anyhow::Result<ShellCommand> {
    match mend {
        Mend::Rename { from, to } => relocate(from, to, root),
        Mend::MoveInto { directory, files } => move_into(directory, files, root),
        Mend::Mode { path, mode } => set_mode(path, *mode, root),
        Mend::ToPem { path } => rewrite(path, root, |bytes| {
            let certificate = Certificate::from_der(bytes.to_vec().into()).context("it is no certificate in DER")?;
            encode(&[certificate])
        }),
        Mend::Reorder { path, key } => {
            let key = read(key, root)?.1;
            rewrite(path, root, |bytes| reordered(bytes, &key))
        }
    }
}

/// [`rename`], and before it the directory above the new place if it is missing.
fn relocate(from: &Path, to: &Path, root: &Path) -> anyhow::Result<ShellCommand> {
    let above = to.parent().context("it has no directory")?;
    let made = from.parent() != Some(above) && make_directory(above, root)?;
    match rename(from, to, root) {
        Ok(undo) if made => Ok(undo.then([OsStr::new("rmdir"), above.as_os_str()])),
        Ok(undo) => Ok(undo),
        Err(error) => {
            if made {
                remove_directory(above, root)?;
            }
            Err(error)
        }
    }
}

/// All of them or none.
fn move_into(directory: &Path, files: &[PathBuf], root: &Path) -> anyhow::Result<ShellCommand> {
    let above = directory.parent().context("it has no directory")?;
    ensure!(make_directory(directory, root)?, "{} exists already", shown(directory));
    let mut done: Vec<(&Path, PathBuf)> = Vec::new();
    for file in files {
        let to = directory.join(file.file_name().context("it has no name")?);
        if let Err(error) = rename(file, &to, root) {
            for (from, to) in done {
                rename(&to, from, root).with_context(|| format!("{} could not be put back", shown(&to)))?;
            }
            remove_directory(directory, root)?;
            return Err(error.context(format!("{} cannot be moved", shown(file))));
        }
        done.push((file, to));
    }
    let words = [OsStr::new("mv"), OsStr::new("-i")].into_iter();
    let undo = ShellCommand::new(words.chain(done.iter().map(|(_, to)| to.as_os_str())).chain([above.as_os_str()]));
    Ok(undo.then([OsStr::new("rmdir"), directory.as_os_str()]))
}

/// Whether it was made: `false` when something has that name.
fn make_directory(path: &Path, root: &Path) -> anyhow::Result<bool> {
    let (directory, name) = parent(path, root)?;
    match fs::mkdirat(&directory, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be made", shown(path))),
    }
    // The mode does not depend on the caller's umask.
    let made = fs::openat(&directory, name, READ | OFlags::DIRECTORY, Mode::empty())?;
    fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    fs::fsync(&directory)?;
    Ok(true)
}

/// Only an empty one goes.
fn remove_directory(path: &Path, root: &Path) -> anyhow::Result<()> {
    let (directory, name) = parent(path, root)?;
    fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)
        .with_context(|| format!("the new directory {} could not be removed again", shown(path)))
}

fn rename(from: &Path, to: &Path, root: &Path) -> anyhow::Result<ShellCommand> {
    let (directory, name) = parent(from, root)?;
    let (target, new_name) = parent(to, root)?;
    let stat = fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = fs::FileType::from_raw_mode(stat.st_mode);
    ensure!(
        kind == fs::FileType::RegularFile || kind == fs::FileType::Directory,
        "it is neither a file nor a directory"
    );
    check_owner(&stat)?;
    fs::renameat_with(&directory, name, &target, new_name, RenameFlags::NOREPLACE)
        .with_context(|| format!("{} is taken, or cannot be made", shown(to)))?;
    fs::fsync(&directory)?;
    fs::fsync(&target)?;
    Ok(ShellCommand::new([OsStr::new("mv"), OsStr::new("-i"), to.as_os_str(), from.as_os_str()]))
}

fn set_mode(path: &Path, mode: u32, root: &Path) -> anyhow::Result<ShellCommand> {
    let (directory, name) = parent(path, root)?;
    let file = fs::openat(&directory, name, READ, Mode::empty())?;
    let stat = fs::fstat(&file)?;
    check_owner(&stat)?;
    let is_directory = fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory;
    ensure!(is_directory || is_plain(&stat), "it is no regular file with one name");
    fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    let before = format!("{:04o}", stat.st_mode & 0o7777);
    Ok(ShellCommand::new([OsString::from("chmod"), before.into(), path.into()]))
}

/// The new contents go into a new file; the old one keeps its bytes under another name.
fn rewrite(
    path: &Path,
    root: &Path,
    change: impl FnOnce(&[u8]) -> anyhow::Result<String>,
) -> anyhow::Result<ShellCommand> {
    let (stat, bytes) = read(path, root)?;
    let contents = change(&bytes)?;
    let (directory, name) = parent(path, root)?;
    let backup = ending(name, BACKUP);
    let temporary = ending(name, ".new-by-fix");
    fs::linkat(&directory, name, &directory, &backup, AtFlags::empty())
        .with_context(|| format!("the backup {} cannot be made", shown(Path::new(&backup))))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let written = fs::openat(&directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
    if geteuid().is_root() {
        fs::fchown(&written, Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))?;
    }
    fs::fchmod(&written, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut written = File::from(written);
    written.write_all(contents.as_bytes())?;
    written.sync_all()?;
    fs::renameat(&directory, &temporary, &directory, name)?;
    fs::fsync(&directory)?;
    Ok(ShellCommand::new([OsString::from("mv"), ending(path.as_os_str(), BACKUP), path.into()]))
}

fn read(path: &Path, root: &Path) -> anyhow::Result<(Stat, Vec<u8>)> {
    let (directory, name) = parent(path, root)?;
    let file = fs::openat(&directory, name, READ, Mode::empty())?;
    let stat = fs::fstat(&file)?;
    ensure!(is_plain(&stat), "it is no regular file with one name");
    check_owner(&stat)?;
    let mut bytes = Vec::new();
    File::from(file).take(LIMIT + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= LIMIT, "it is larger than {LIMIT} bytes");
    Ok((stat, bytes))
}

/// The key's certificate, then each one's issuer, then what is left, in the order it had.
fn reordered(bytes: &[u8], key: &[u8]) -> anyhow::Result<String> {
    let (mut left, findings) = pem::certificates(bytes, Path::new("the file"));
    ensure!(findings.is_empty(), "it holds something else than certificates");
    let key = pem::private_key(key, Path::new("the key")).map_err(|_| anyhow::anyhow!("the key cannot be used"))?;
    let first =
        left.iter().position(|certificate| key.matches(certificate)).context("the key belongs to none of them")?;
    let mut ordered = vec![left.remove(first)];
    while let Some(last) = ordered.last() {
        let issuer = last.facts().issuer.clone();
        let Some(next) = left.iter().position(|certificate| certificate.facts().subject == issuer) else { break };
        ordered.push(left.remove(next));
    }
    ordered.extend(left);
    encode(&ordered)
}

fn encode(certificates: &[Certificate]) -> anyhow::Result<String> {
    let encode = |certificate: &Certificate| {
        pem_rfc7468::encode_string("CERTIFICATE", LineEnding::LF, certificate.der())
            .map_err(|error| anyhow::anyhow!("it cannot be written as PEM: {error}"))
    };
    certificates.iter().map(encode).collect()
}

/// The directory of a path, opened step by step below the root without following a link, and the last name.
fn parent<'a>(path: &'a Path, root: &Path) -> anyhow::Result<(OwnedFd, &'a OsStr)> {
    let below = path.strip_prefix(root).with_context(|| format!("{} is not below {}", shown(path), shown(root)))?;
    let name = below.file_name().context("it has no name")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = fs::openat(CWD, root, flags, Mode::empty())?;
    for part in below.parent().unwrap_or(Path::new("")).components() {
        let Component::Normal(part) = part else { bail!("{} is no plain path", shown(path)) };
        directory = fs::openat(&directory, part, flags | OFlags::NOFOLLOW, Mode::empty())
            .with_context(|| format!("{} on the way is a link, or cannot be opened", shown(Path::new(part))))?;
    }
    let stat = fs::fstat(&directory)?;
    check_owner(&stat).with_context(|| format!("the directory of {}", shown(path)))?;
    let sticky = stat.st_mode & 0o1000 != 0;
    ensure!(
        stat.st_mode & 0o002 == 0 || sticky,
        "everybody may change the directory of {}: mend that first",
        shown(path)
    );
    Ok((directory, name))
}

fn check_owner(stat: &Stat) -> anyhow::Result<()> {
    let us = geteuid().as_raw();
    ensure!(stat.st_uid == 0 || stat.st_uid == us, "it belongs to user {}, who is neither root nor you", stat.st_uid);
    Ok(())
}

/// A file with a second name may be somebody's on purpose.
fn is_plain(stat: &Stat) -> bool {
    fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::RegularFile && stat.st_nlink == 1
}

fn ending(name: &OsStr, ending: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(ending);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename(root: &Path, from: &str, to: &str) -> anyhow::Result<ShellCommand> {
        apply(&Mend::Rename { from: root.join(from), to: root.join(to) }, root)
    }

    /// The doctor leaves such repairs out; a file may have appeared since it looked.
    #[test]
    fn a_name_that_was_taken_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "a").unwrap();
        std::fs::write(at("b"), "b").unwrap();
        assert!(rename(dir.path(), "a", "b").is_err());
        std::os::unix::fs::symlink("/nowhere", at("link")).unwrap();
        assert!(rename(dir.path(), "a", "link").is_err());
        assert!(rename(dir.path(), "link", "c").is_err());
        assert_eq!((std::fs::read(at("a")).unwrap(), std::fs::read(at("b")).unwrap()), (b"a".to_vec(), b"b".to_vec()));
        let undo = rename(dir.path(), "a", "c").unwrap();
        assert_eq!(undo.to_string(), format!("mv -i {} {}", at("c").display(), at("a").display()));
    }

    /// The second file cannot be moved: the first is put back, and the new directory is gone.
    #[test]
    fn files_are_moved_all_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("ca.crt"), "a").unwrap();
        std::os::unix::fs::symlink("/nowhere", at("client.cert")).unwrap();
        let mend = Mend::MoveInto { directory: at("r.test"), files: vec![at("ca.crt"), at("client.cert")] };
        assert!(apply(&mend, dir.path()).is_err());
        assert!(at("ca.crt").exists() && at("client.cert").is_symlink() && !at("r.test").exists());
        // The directory was made meanwhile, or is a link.
        for make in [
            |path: &Path| std::fs::create_dir(path).unwrap(),
            |path: &Path| {
                std::os::unix::fs::symlink("/tmp", path).unwrap();
            },
        ] {
            make(&at("x"));
            let mend = Mend::MoveInto { directory: at("x"), files: vec![at("ca.crt")] };
            assert!(apply(&mend, dir.path()).unwrap_err().to_string().contains("exists already"));
            assert!(at("ca.crt").exists());
            let _ = std::fs::remove_dir(at("x")).or_else(|_| std::fs::remove_file(at("x")));
        }
    }

    #[test]
    fn a_missing_directory_above_is_made_and_its_undoing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("certs/r.test")).unwrap();
        assert!(rename(dir.path(), "certs/gone", "certs.d/gone").is_err());
        assert!(!at("certs.d").exists());
        let undo = rename(dir.path(), "certs/r.test", "certs.d/r.test").unwrap().to_string();
        assert!(at("certs.d/r.test").is_dir() && undo.ends_with(&format!("&& rmdir {}", at("certs.d").display())));
    }

    #[test]
    fn nothing_outside_of_the_root_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let outside = PathBuf::from("/etc/hostname");
        assert!(apply(&Mend::Mode { path: outside, mode: 0o600 }, dir.path()).is_err());
        let climbing = dir.path().join("../x");
        assert!(apply(&Mend::Mode { path: climbing, mode: 0o600 }, dir.path()).is_err());
    }
}
