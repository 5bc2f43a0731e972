//! Who may read our keys and change what decides on trust.
//!
//! Pure over [`Metadata`], which must come from the opened descriptor or from the path after links were followed. `our_uid` is
//! the user the home belongs to: the process' own, except that root works on another user's home as that user.

use crate::fault::Fault;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One of our own private keys: only its owner may read it.
///
/// Owned by us, it must have no bit for group or others. Owned by root, it may be readable by one of our groups (up to
/// 0640), as Kubernetes mounts secrets. Anybody else's is refused.
pub fn check_private(_path: &Path, metadata: &Metadata, our_uid: u32) -> Option<Fault> {
    private(metadata.mode(), metadata.uid(), our_uid, || is_our_group(metadata.gid()))
}

/// The home, `trust/`, `pki/`, the policy or the configuration: nobody but us and root may change it.
///
/// Two things that look writable are not, and are how Kubernetes mounts a Secret or a ConfigMap: a directory of root's
/// with the sticky bit (others can add a file, which is then refused as theirs, but cannot touch what is there), and
/// anything on a read-only mount.
pub fn check_not_writable(path: &Path, metadata: &Metadata, our_uid: u32) -> Option<Fault> {
    let fault = not_writable(metadata.mode(), metadata.uid(), our_uid)?;
    let is_writable = matches!(fault, Fault::WritableByOthers { .. });
    let is_sealed = is_sticky_of_root(metadata.is_dir(), metadata.mode(), metadata.uid()) || is_read_only(path);
    (!is_writable || !is_sealed).then_some(fault)
}

/// A file, or a link to one, in a directory that others may add to: it must not be theirs. `metadata` is the link's own.
pub fn check_not_foreign(_path: &Path, metadata: &Metadata, our_uid: u32) -> Option<Fault> {
    let uid = metadata.uid();
    (uid != our_uid && uid != 0).then_some(Fault::ForeignOwner { uid, expected: our_uid })
}

fn is_sticky_of_root(is_dir: bool, mode: u32, uid: u32) -> bool {
    is_dir && uid == 0 && mode & 0o1000 != 0
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|about| about.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn private(mode: u32, uid: u32, our_uid: u32, our_group: impl FnOnce() -> bool) -> Option<Fault> {
    let mode = mode & 0o7777;
    if uid != our_uid && uid != 0 {
        return Some(Fault::ForeignOwner { uid, expected: our_uid });
    }
    let shared_by_root = uid == 0 && our_uid != 0 && mode & !0o740 == 0 && our_group();
    (mode & 0o077 != 0 && !shared_by_root).then_some(Fault::PrivateKeyExposed { mode })
}

fn not_writable(mode: u32, uid: u32, our_uid: u32) -> Option<Fault> {
    let mode = mode & 0o7777;
    if uid != our_uid && uid != 0 {
        return Some(Fault::ForeignOwner { uid, expected: our_uid });
    }
    (mode & 0o022 != 0).then_some(Fault::WritableByOthers { mode })
}

fn is_our_group(gid: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    others.into_iter().chain([rustix::process::getegid()]).any(|group| group.as_raw() == gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let check = |mode, uid, our_uid, in_group| private(0o100_000 | mode, uid, our_uid, || in_group);
        let exposed = |mode| Some(Fault::PrivateKeyExposed { mode });
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(check(mode, 1000, 1000, false), None);
            assert_eq!(check(mode, 0, 1000, false), None);
        }
        for mode in [0o640, 0o604, 0o660, 0o601, 0o644] {
            assert_eq!(check(mode, 1000, 1000, true), exposed(mode));
        }
        assert_eq!(check(0o640, 0, 1000, true), None);
        assert_eq!(check(0o440, 0, 1000, true), None);
        assert_eq!(check(0o640, 0, 1000, false), exposed(0o640));
        assert_eq!(check(0o660, 0, 1000, true), exposed(0o660));
        assert_eq!(check(0o644, 0, 1000, true), exposed(0o644));
        assert_eq!(check(0o640, 0, 0, true), exposed(0o640));
        assert_eq!(check(0o600, 7, 1000, true), Some(Fault::ForeignOwner { uid: 7, expected: 1000 }));
    }

    #[test]
    fn what_decides_on_trust() {
        for mode in [0o755, 0o700, 0o644, 0o400] {
            assert_eq!(not_writable(mode, 1000, 1000), None);
            assert_eq!(not_writable(mode, 0, 1000), None);
        }
        for mode in [0o775, 0o757, 0o1777, 0o620] {
            assert_eq!(not_writable(mode, 1000, 1000), Some(Fault::WritableByOthers { mode }));
        }
        assert!(is_sticky_of_root(true, 0o41777, 0));
        for (is_dir, mode, uid) in [(true, 0o40777, 0), (true, 0o41777, 1000), (false, 0o101_777, 0)] {
            assert!(!is_sticky_of_root(is_dir, mode, uid));
        }
        assert_eq!(not_writable(0o700, 7, 1000), Some(Fault::ForeignOwner { uid: 7, expected: 1000 }));
    }
}
