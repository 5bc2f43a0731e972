//! Notices that the files of a trust generation changed, and has them loaded.
//!
//! By looking, four times a second: a handful of `stat` calls, which see what a notification can miss, a swap of the
//! `..data` link of a Kubernetes volume, a file on a network, a mode that was corrected. On threads of their own: those
//! that do the runtime's blocking work may all wait for a disk, and a revocation waits for none of them. Must not know
//! what is in the files.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io, thread};

use tokio::sync::{oneshot, watch};

use crate::generation::Generations;

/// A change is in force within a second: this long until it is seen, as long again where it was seen half-written, and
/// the time to load it.
const PERIOD: Duration = Duration::from_millis(250);
/// More entries than a trust directory may have: past it the loading reports them.
const MAX_ENTRIES: usize = 4096;

/// Everything that changes when one of the files does: what a link leads to counts, not the link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamps {
    /// Of single files, and of all entries of directories.
    pub(crate) fn of(files: &[&Path], directories: &[&Path]) -> Self {
        let mut paths: Vec<PathBuf> = files.iter().map(|path| path.to_path_buf()).collect();
        for directory in directories {
            paths.push(directory.to_path_buf());
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            paths.extend(entries.take(MAX_ENTRIES).map(|entry| entry.path()));
        }
        paths.sort();
        Self(paths.into_iter().map(|path| (path.clone(), Stamp::of(&path))).collect())
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Starts the thread that reloads whenever the files are not those that were loaded last, at once and until `stop` turns
/// true. A generation that is refused is not tried again until something changes.
pub(crate) fn start(generations: Arc<Generations>, stop: watch::Receiver<bool>) -> io::Result<()> {
    let look = move || {
        while !*stop.borrow() {
            // The outcome is logged there, once.
            let _ = generations.refresh();
            thread::sleep(PERIOD);
        }
    };
    thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
}

/// Does `work` on a thread that is made for it.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, answer) = oneshot::channel();
    let work = move || {
        // Whoever asked may have gone.
        let _ = done.send(work());
    };
    thread::Builder::new().name("reload".to_owned()).spawn(work)?;
    answer.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is a way in which files are replaced; a change that leaves the stamps alike would never be loaded.
    #[test]
    fn every_kind_of_change_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let stamps = || Stamps::of(&[&path("policy")], &[&path("cas")]);
        let mut before = stamps();
        let mut check = |what: &str, change: &dyn Fn()| {
            // Older kernels stamp files by their tick, of up to 10 ms.
            thread::sleep(Duration::from_millis(20));
            change();
            let after = stamps();
            assert_ne!(before, after, "{what}");
            assert_eq!(after, stamps(), "{what}: nothing changed since");
            before = after;
        };
        check("a file appears", &|| fs::write(path("policy"), "a").expect("written"));
        check("in place, same length", &|| fs::write(path("policy"), "b").expect("written"));
        check("a directory appears", &|| fs::create_dir(path("cas")).expect("made"));
        check("an entry appears", &|| fs::write(path("cas/a.crt"), "a").expect("written"));
        check("moved into place", &|| {
            fs::write(path("new"), "c").expect("written");
            fs::rename(path("new"), path("cas/a.crt")).expect("moved");
        });
        check("the end of a link is swapped", &|| {
            fs::create_dir(path("1")).expect("made");
            fs::write(path("1/b.crt"), "b").expect("written");
            std::os::unix::fs::symlink(path("1"), path("..data")).expect("linked");
            std::os::unix::fs::symlink(path("..data/b.crt"), path("cas/b.crt")).expect("linked");
        });
        check("the link above it is swapped", &|| {
            fs::create_dir(path("2")).expect("made");
            fs::write(path("2/b.crt"), "b").expect("written");
            std::os::unix::fs::symlink(path("2"), path("..tmp")).expect("linked");
            fs::rename(path("..tmp"), path("..data")).expect("swapped");
        });
        check("an entry goes", &|| fs::remove_file(path("cas/a.crt")).expect("removed"));
    }
}
