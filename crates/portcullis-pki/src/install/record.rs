//! What `install` wrote, one JSON line per file: host, engine, path, SHA-256, and for lines in a file of somebody else's those
//! lines. A file that is not in it with exactly its present content is somebody else's, or was changed by somebody else,
//! and is never replaced.
//!
//! A line is written *before* its file. A crash in between leaves a line about a content that is nowhere, which harms
//! nobody; the other way round our own file would be foreign to us.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_certs::Fingerprint;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::{PkiError, files};

/// The record, read.
#[derive(Debug, Default)]
pub(super) struct Record(HashSet<(PathBuf, Fingerprint)>);

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) host: String,
    /// Absent in lines of early versions.
    pub(super) engine: Option<String>,
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
    engine: Engine,
    path: &Path,
    content: Fingerprint,
) -> Result<(), PkiError> {
    write(
        record,
        Entry {
            host: host.to_owned(),
            engine: Some(engine.as_str().to_owned()),
            path: path.to_owned(),
            sha256: content,
            block: None,
        },
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
        Entry { host: host.to_owned(), engine: Some(engine.as_str().to_owned()), path: path.to_owned(), sha256, block },
    )
}

fn write(record: &Path, entry: Entry) -> Result<(), PkiError> {
    if let Some(parent) = record.parent() {
        files::create_dir(parent, files::PRIVATE_DIR)?;
    }
    let line = Line {
        host: entry.host,
        engine: entry.engine,
        path: entry.path.clone(),
        sha256: entry.sha256.to_string(),
        block: entry.block,
    };
    let line = serde_json::to_string(&line).map_err(|error| PkiError::io("record", &entry.path)(error.into()))?;
    files::append_line(record, &line)
}

fn read(path: &Path) -> Result<String, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(PkiError::io("read", path)(error)),
    }
}

fn parse(line: &str) -> Option<Entry> {
    let line: Line = serde_json::from_str(line).ok()?;
    let Line { host, engine, path, sha256, block } = line;
    Some(Entry { host, engine, path, sha256: sha256.parse().ok()?, block })
}
