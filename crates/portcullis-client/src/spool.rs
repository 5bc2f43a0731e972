//! An archive that comes or goes as a stream, kept in a file without a name meanwhile: only its owner can read it, and
//! it is gone with the process. All calls block. Must not know what is in it.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::ClientError;

/// The longest archive that is taken from a stream, in bytes.
pub const MAX_STREAM: u64 = 64 * 1024 * 1024 * 1024;

/// A file without a name in the directory for temporary files (`TMPDIR`). Cloning shares it.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    file: Arc<File>,
}

/// The file without a name cannot be made or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the archive in a temporary file in {directory}: {source}", directory = directory.display())]
pub struct SpoolError {
    /// The directory for temporary files.
    pub directory: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl SpoolError {
    pub(crate) const ADVICE: &str =
        "name a directory that can be written to and has room for the archive: TMPDIR=DIR before the command";
}

impl Spool {
    /// An empty one.
    ///
    /// # Errors
    /// [`ClientError::Spool`] when there is no such directory, or nothing can be written to it.
    pub fn create() -> Result<Self, ClientError> {
        let directory = std::env::temp_dir();
        match tempfile::tempfile_in(&directory) {
            Ok(file) => Ok(Self { directory, file: Arc::new(file) }),
            Err(source) => Err(SpoolError { directory, source }.into()),
        }
    }

    /// Hands all of it on, from its beginning.
    ///
    /// # Errors
    /// What reading it or writing to `sink` says; a reader that went away is [`io::ErrorKind::BrokenPipe`].
    pub fn write_to(&self, sink: &mut impl Write) -> io::Result<()> {
        let mut file = &*self.file;
        file.rewind()?;
        io::copy(&mut file, sink)?;
        sink.flush()
    }

    /// Takes all that comes; `None` when that is more than `limit` bytes.
    pub(crate) fn fill(&self, stream: &mut impl Read, limit: u64) -> Result<Option<u64>, ClientError> {
        let mut piece = vec![0; 256 * 1024];
        let mut length = 0;
        loop {
            let count = match stream.read(&mut piece) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::io("read", Path::new(STREAM))(error)),
            };
            if count == 0 {
                return Ok(Some(length));
            }
            self.write_at(&piece[..count], length)?;
            length += count as u64;
            if length > limit {
                return Ok(None);
            }
        }
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ClientError> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.fault(source))
    }

    pub(crate) fn set_length(&self, length: u64) -> Result<(), ClientError> {
        self.file.set_len(length).map_err(|source| self.fault(source))
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    fn fault(&self, source: io::Error) -> ClientError {
        SpoolError { directory: self.directory.clone(), source }.into()
    }
}

/// What a stream is called where a file has its path, as it is typed.
pub(crate) const STREAM: &str = "-";
