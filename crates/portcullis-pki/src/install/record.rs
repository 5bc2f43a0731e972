//! What `install` wrote, one JSON line per file: host, path, SHA-256. A file that is not in it with exactly its present
//! content is somebody else's, or was changed by somebody else, and is never replaced.
//!
//! A line is written *before* its file. A crash in between leaves a line about a content that is nowhere, which harms
//! nobody; the other way round our own file would be foreign to us.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_certs::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::{PkiError, files};

/// The record, read.
#[derive(Debug, Default)]
pub(super) struct Record(HashSet<(PathBuf, Fingerprint)>);

#[derive(Serialize, Deserialize)]
struct Line {
    host: String,
    path: PathBuf,
    sha256: String,
}

impl Record {
    /// A missing record is an empty one; a line that cannot be read makes nothing ours.
    pub(super) fn read(path: &Path) -> Result<Self, PkiError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(PkiError::io("read", path)(error)),
        };
        let parse = |line: &str| -> Option<(PathBuf, Fingerprint)> {
            let line: Line = serde_json::from_str(line).ok()?;
            Some((line.path, line.sha256.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(parse).collect()))
    }

    pub(super) fn is_ours(&self, path: &Path, content: Fingerprint) -> bool {
        self.0.contains(&(path.to_owned(), content))
    }
}

pub(super) fn append(record: &Path, host: &str, path: &Path, content: Fingerprint) -> Result<(), PkiError> {
    let line = Line { host: host.to_owned(), path: path.to_owned(), sha256: content.to_string() };
    let line = serde_json::to_string(&line).map_err(|error| PkiError::io("record", path)(error.into()))?;
    files::append_line(record, &line)
}
