//! What `install` wrote, one JSON line per file: host, engine, path, SHA-256, and for lines in a file of somebody else's those
//! lines. A file that is not in it with exactly its present content is somebody else's, or was changed by somebody else,
//! and is never replaced.
//!
//! A line is written *before* its file. A crash in between leaves a line about a content that is nowhere, which harms
//! nobody; the other way round our own file would be foreign to us.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_certs::{Finding, Fingerprint, Severity, permissions};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::{PkiError, files};

/// How long another install may take.
const WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// For whom something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// An engine.
    Engine(Engine),
    /// The operating system's store of trusted CAs.
    SystemStore,
}

/// Held while the record and what it is about change: two installs at once would each miss the other's lines. It is a file
/// beside the record, because the record itself is replaced. The kernel lets go of it when the process ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing the file lets go of the lock")] File);

/// The record, read.
#[derive(Debug, Default)]
pub(super) struct Record(HashSet<(PathBuf, Fingerprint)>);

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) host: String,
    /// `None` for a word that is not known.
    pub(super) owner: Option<Owner>,
    pub(super) path: PathBuf,
    pub(super) sha256: Fingerprint,
    pub(super) block: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    path: PathBuf,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<String>,
}

impl Owner {
    fn as_str(self) -> &'static str {
        match self {
            Self::Engine(engine) => engine.as_str(),
            Self::SystemStore => "system",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let system = Some(Self::SystemStore).filter(|owner| owner.as_str() == word);
        system.or_else(|| word.parse().ok().map(Self::Engine))
    }
}

impl Lock {
    /// # Errors
    /// [`PkiError::Busy`] when another process still holds it after ten seconds.
    pub(super) fn take(record: &Path) -> Result<Self, PkiError> {
        Self::take_within(record, WAIT)
    }

    fn take_within(record: &Path, wait: Duration) -> Result<Self, PkiError> {
        let path = record.with_extension("lock");
        make_directory(record)?;
        let mut how = OpenOptions::new();
        let file = open(&path, how.write(true).create(true).truncate(false).mode(files::SECRET))?;
        let deadline = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => return Err(PkiError::io("lock", &path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(PkiError::Busy { path }),
                Err(TryLockError::WouldBlock) => thread::sleep(POLL),
            }
        }
    }
}

impl Record {
    /// A missing record is an empty one; a line that cannot be read makes nothing ours.
    pub(super) fn read(path: &Path) -> Result<Self, PkiError> {
        let whole = entries(path)?.into_iter().filter(|entry| entry.block.is_none());
        Ok(Self(whole.map(|entry| (entry.path, entry.sha256)).collect()))
    }

    pub(super) fn is_ours(&self, path: &Path, content: Fingerprint) -> bool {
        self.0.contains(&(path.to_owned(), content))
    }
}

/// All lines that can be read.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>, PkiError> {
    Ok(read(path)?.lines().filter_map(parse).collect())
}

/// Keeps these lines, and those that cannot be read.
pub(super) fn retain(path: &Path, keep: impl Fn(&Entry) -> bool) -> Result<(), PkiError> {
    let text = read(path)?;
    let kept: String = text
        .lines()
        .filter(|line| parse(line).is_none_or(|entry| keep(&entry)))
        .map(|line| format!("{line}\n"))
        .collect();
    if kept == text { Ok(()) } else { files::replace(path, kept.as_bytes(), files::SECRET) }
}

pub(super) fn append(
    record: &Path,
    host: &str,
    owner: Owner,
    path: &Path,
    content: Fingerprint,
) -> Result<(), PkiError> {
    write(
        record,
        Entry { host: host.to_owned(), owner: Some(owner), path: path.to_owned(), sha256: content, block: None },
    )
}

/// Lines that are added to somebody else's file.
pub(super) fn append_block(
    record: &Path,
    host: &str,
    engine: Engine,
    path: &Path,
    block: &str,
) -> Result<(), PkiError> {
    let sha256 = Fingerprint::of(block.as_bytes());
    let block = Some(block.to_owned());
    write(
        record,
        Entry { host: host.to_owned(), owner: Some(Owner::Engine(engine)), path: path.to_owned(), sha256, block },
    )
}

fn write(record: &Path, entry: Entry) -> Result<(), PkiError> {
    make_directory(record)?;
    let line = Line {
        host: entry.host,
        engine: entry.owner.map(|owner| owner.as_str().to_owned()),
        path: entry.path.clone(),
        sha256: entry.sha256.to_string(),
        block: entry.block,
    };
    let line = serde_json::to_string(&line).map_err(|error| PkiError::io("record", &entry.path)(error.into()))?;
    let mut how = OpenOptions::new();
    let mut file = open(record, how.read(true).append(true).create(true).mode(files::SECRET))?;
    files::append_to(&mut file, record, &line)?;
    files::sync_dir(record.parent().unwrap_or(record))
}

/// Makes the directory of the record if it is missing. It stays ours even where the one above is another's: whoever owns it
/// says what is removed.
fn make_directory(record: &Path) -> Result<(), PkiError> {
    let Some(directory) = record.parent() else { return Ok(()) };
    if let Some(above) = directory.parent() {
        files::create_dir(above, files::PRIVATE_DIR)?;
    }
    match DirBuilder::new().mode(files::PRIVATE_DIR).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(PkiError::io("make the directory", directory)(error));
        }
        _ => {}
    }
    check_directory(directory)
}

/// A record that somebody else can write would have us remove what they name.
fn open(path: &Path, how: &mut OpenOptions) -> Result<File, PkiError> {
    if let Some(directory) = path.parent() {
        check_directory(directory)?;
    }
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
    let file = how.custom_flags(flags).open(path).map_err(PkiError::io("open", path))?;
    let metadata = file.metadata().map_err(PkiError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(PkiError::io("open", path)(io::ErrorKind::InvalidInput.into()));
    }
    refuse_if_others_can_write(path, &metadata)?;
    Ok(file)
}

fn check_directory(directory: &Path) -> Result<(), PkiError> {
    let metadata = fs::symlink_metadata(directory).map_err(PkiError::io("open", directory))?;
    if !metadata.is_dir() {
        return Err(PkiError::io("open", directory)(io::ErrorKind::NotADirectory.into()));
    }
    refuse_if_others_can_write(directory, &metadata)
}

fn refuse_if_others_can_write(path: &Path, metadata: &Metadata) -> Result<(), PkiError> {
    match permissions::check_not_writable(path, metadata, rustix::process::geteuid().as_raw()) {
        Some(fault) => Err(PkiError::Files { findings: vec![Finding::new(path, Severity::Fatal, fault)] }),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, PkiError> {
    let mut file = match open(path, OpenOptions::new().read(true)) {
        Err(PkiError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(PkiError::io("read", path))?;
    Ok(text)
}

fn parse(line: &str) -> Option<Entry> {
    let line: Line = serde_json::from_str(line).ok()?;
    let Line { host, engine, path, sha256, block } = line;
    let owner = engine.as_deref().and_then(Owner::parse);
    Some(Entry { host, owner, path, sha256: sha256.parse().ok()?, block })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_waits_for_the_other_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("installed");
        let held = Lock::take(&record).unwrap();
        let refused = Lock::take_within(&record, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(&refused, PkiError::Busy { path } if path.ends_with("installed.lock")), "{refused}");
        // Whoever waits gets it when it is let go.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::take_within(&record, Duration::from_mins(10)).is_ok());
            thread::sleep(POLL * 2);
            assert!(!waiting.is_finished());
            drop(held);
            assert!(waiting.join().unwrap());
        });
        // At the end of the process, or of the value, it is free.
        assert!(Lock::take_within(&record, Duration::ZERO).is_ok());
    }

    /// What people are told, and what `take` does.
    #[test]
    fn the_limit_is_ten_seconds() {
        assert_eq!(WAIT, Duration::from_secs(10));
        let text = PkiError::Busy { path: "/x.lock".into() }.to_string();
        assert!(text.contains("/x.lock"), "{text}");
    }
}
