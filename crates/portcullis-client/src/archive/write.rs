//! Writing an archive. All sizes are known before the first blob comes, so every file's place is too: the blobs of an
//! image are written side by side, each at its own place, and nothing is kept elsewhere meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_oci::{Descriptor, Digest};
use tar::{EntryType, Header};

use super::entries::Span;
use super::fault::ArchiveFault;
use crate::error::{BlobFault, ClientError};
use crate::expected::Expected;
use crate::layout::BLOBS;
use crate::sink::ArchiveFile;
use crate::spool::{STREAM, Spool};
use crate::temporary::{Temporary, sync_directory};

const BLOCK: u64 = 512;

/// The longest name that fits into a header; a longer one, of a sha512 blob, has a header of its own.
const SHORT_NAME: usize = 100;

/// Which file stands where.
#[derive(Debug, Default)]
pub(crate) struct ArchivePlan {
    /// Headers and small files, each with its offset.
    known: Vec<(u64, Vec<u8>)>,
    blobs: HashMap<Digest, Span>,
    length: u64,
}

impl ArchivePlan {
    /// Adds a file whose content is known.
    pub(crate) fn add_file(&mut self, name: &str, bytes: Vec<u8>) {
        let offset = self.add(name, bytes.len() as u64);
        self.known.push((offset, bytes));
    }

    /// Adds a manifest under its digest.
    pub(crate) fn add_manifest(&mut self, digest: &Digest, bytes: Vec<u8>) {
        let offset = self.add(&blob_name(digest), bytes.len() as u64);
        self.blobs.insert(*digest, Span { offset, size: bytes.len() as u64 });
        self.known.push((offset, bytes));
    }

    /// Keeps a place for a blob.
    pub(crate) fn add_blob(&mut self, blob: &Descriptor) {
        if !self.blobs.contains_key(&blob.digest) {
            let offset = self.add(&blob_name(&blob.digest), blob.size);
            self.blobs.insert(blob.digest, Span { offset, size: blob.size });
        }
    }

    fn add(&mut self, name: &str, size: u64) -> u64 {
        if name.len() > SHORT_NAME {
            // Ended with a zero byte, as GNU tar does.
            let long = [name.as_bytes(), b"\0"].concat();
            let at = self.add_header("././@LongLink", long.len() as u64, EntryType::GNULongName);
            self.known.push((at, long));
        }
        self.add_header(&name[..name.len().min(SHORT_NAME)], size, EntryType::Regular)
    }

    /// Says where the content begins.
    fn add_header(&mut self, name: &str, size: u64, kind: EntryType) -> u64 {
        // GNU's format: sizes above 8 GiB fit, and every reader knows it. Same content, same bytes: no time, no owner.
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.known.push((self.length, header.as_bytes().to_vec()));
        let content = self.length + BLOCK;
        // A stated size may be any; one that no file can have is refused where it is written.
        self.length = content.saturating_add(size).div_ceil(BLOCK).saturating_mul(BLOCK);
        content
    }
}

/// An archive being written. It gets its name with [`ArchiveWriter::finish`]; dropped before that, nothing is left, and
/// what had the name before still has it.
#[derive(Debug)]
pub(crate) struct ArchiveWriter {
    content: Content,
    blobs: HashMap<Digest, Span>,
    length: u64,
}

#[derive(Debug)]
enum Content {
    Named { target: PathBuf, temporary: Temporary },
    Unnamed(Spool),
}

/// A blob on its way to its place.
#[derive(Debug)]
pub(crate) struct PlacedBlob {
    archive: Arc<ArchiveWriter>,
    offset: u64,
    expected: Expected,
}

impl ArchiveWriter {
    pub(crate) fn create(target: &ArchiveFile, plan: ArchivePlan) -> Result<Self, ClientError> {
        let content = match target {
            ArchiveFile::Named(path) if path.is_dir() => {
                return Err(ClientError::archive(path, ArchiveFault::NotAFile));
            }
            ArchiveFile::Named(path) => {
                Content::Named { target: path.clone(), temporary: Temporary::create(directory_of(path))? }
            }
            ArchiveFile::Unnamed(spool) => Content::Unnamed(spool.clone()),
        };
        for (offset, bytes) in &plan.known {
            content.write_at(bytes, *offset)?;
        }
        Ok(Self { content, blobs: plan.blobs, length: plan.length })
    }

    /// Begins to write a blob.
    pub(crate) fn create_blob(self: &Arc<Self>, blob: &Descriptor) -> Result<PlacedBlob, ClientError> {
        let span = self.blobs.get(&blob.digest).filter(|span| span.size == blob.size);
        let missing = || ClientError::blob(self.path(), &blob.digest, BlobFault::Missing);
        let offset = span.ok_or_else(missing)?.offset;
        Ok(PlacedBlob { archive: Arc::clone(self), offset, expected: Expected::of(blob) })
    }

    /// Gives the archive its name. Every blob was committed.
    pub(crate) fn finish(&self) -> Result<(), ClientError> {
        // The two empty blocks at the end.
        let length = self.length.saturating_add(2 * BLOCK);
        match &self.content {
            Content::Named { target, temporary } => {
                temporary.set_length(length)?;
                temporary.persist(target)?;
                sync_directory(directory_of(target))
            }
            Content::Unnamed(spool) => spool.set_length(length),
        }
    }

    /// For messages.
    fn path(&self) -> &Path {
        match &self.content {
            Content::Named { target, .. } => target,
            Content::Unnamed(_) => Path::new(STREAM),
        }
    }
}

impl Content {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ClientError> {
        match self {
            Self::Named { temporary, .. } => temporary.write_at(bytes, offset),
            Self::Unnamed(spool) => spool.write_at(bytes, offset),
        }
    }
}

impl PlacedBlob {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let within = self.expected.take(bytes, self.archive.path())?;
        self.archive.content.write_at(bytes, self.offset + within)
    }

    pub(crate) fn commit(self) -> Result<(), ClientError> {
        self.expected.check(self.archive.path())
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A blob's place in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS}/{}/{}", digest.algorithm(), digest.hex())
}
