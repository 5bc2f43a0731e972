//! Image archives: an OCI image layout in a tar (`oci-archive`), and what `docker save` writes, with an OCI layout inside
//! (since Docker 25) or without (`manifest.json`, configs and layers alone). Source of a push, sink of a pull.
//!
//! All calls block. Contents are read where they are, never unpacked, so memory does not depend on sizes. What an archive
//! says of itself is verified like what a registry says. Must not know HTTP.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use portcullis_oci::{Descriptor, Digest, manifest};
use serde_json::Value;

use crate::error::{BlobFault, ClientError};
use crate::layout::{INDEX, MARKER, MAX_INDEX, check_version, listed_images, names_of};
use crate::spool::{STREAM, Spool};

mod docker;
mod entries;
mod fault;
mod image;
mod write;

pub use entries::{MAX_ENTRIES, MAX_EXTENDED, MAX_NAME};
pub use fault::ArchiveFault;
pub use image::ArchiveName;
pub(crate) use image::Contents;
pub(crate) use write::{ArchivePlan, ArchiveWriter, PlacedBlob};

use docker::Saved;
use entries::{Entries, Span};

const SAVED: &str = "manifest.json";

/// An archive that was opened: its list of files is known and sound, its contents are not looked at yet.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    path: PathBuf,
    file: Arc<File>,
    entries: Entries,
    images: Vec<Listed>,
}

/// An image of an archive.
struct Listed {
    /// What it is called in it.
    names: Vec<String>,
    kind: Kind,
}

enum Kind {
    /// It has a manifest.
    Manifest(Box<Descriptor>),
    /// `docker save` before version 25: it has none.
    Saved(Saved),
}

/// One image of an archive, with what had to be made for it: an archive of old has no manifest.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    pub(crate) descriptor: Descriptor,
    archive: Archive,
    made: Option<Bytes>,
    /// Where the blobs are whose files are not named by their digests.
    named: HashMap<Digest, Span>,
}

impl Archive {
    /// Opens an archive and reads the list of its files and images.
    ///
    /// # Errors
    /// [`ClientError::Archive`] when it is none, is damaged, or holds what no image archive holds: names and links that
    /// lead out of it, names that stand twice, devices, sizes that lie.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        let file = File::open(path).map_err(ClientError::io("open", path))?;
        let metadata = file.metadata().map_err(ClientError::io("read", path))?;
        let fault = |fault| ClientError::archive(path, fault);
        if !metadata.is_file() {
            return Err(fault(ArchiveFault::NotAFile));
        }
        Self::read(path, Arc::new(file), metadata.len()).map_err(fault)
    }

    /// Takes an archive from a stream to its end: it is kept in a file without a name ([`Spool`]), since its files are read
    /// in another order than they stand in. At most `limit` bytes are taken; [`crate::MAX_STREAM`] is meant for it.
    ///
    /// # Errors
    /// Those of [`Archive::open`], [`ClientError::Spool`] when there is no room for it, and [`ClientError::Io`] when the
    /// stream breaks off.
    pub fn from_stream(stream: &mut impl Read, limit: u64) -> Result<Self, ClientError> {
        let fault = |fault| ClientError::archive(Path::new(STREAM), fault);
        let spool = Spool::create()?;
        match spool.fill(stream, limit)? {
            None => Err(fault(ArchiveFault::TooLong { limit })),
            Some(0) => Err(fault(ArchiveFault::Empty)),
            Some(length) => Self::read(Path::new(STREAM), spool.file(), length).map_err(fault),
        }
    }

    fn read(path: &Path, file: Arc<File>, length: u64) -> Result<Self, ArchiveFault> {
        compression(&file)?;
        let entries = Entries::read(&file, length)?;
        let mut inner = Inner { path: path.to_owned(), file, entries, images: Vec::new() };
        inner.images = inner.listed()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The file; `-` for a stream.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The images' names, as far as they have any.
    pub fn names(&self) -> Vec<String> {
        self.0.images.iter().flat_map(|image| image.names.iter().cloned()).collect()
    }

    /// The image of this name; without one, the only image. Layers of an archive of old that are compressed are read
    /// once for their digests.
    ///
    /// # Errors
    /// [`ClientError::NoSuchImage`] and [`ClientError::ImageNeeded`], which list the names there are.
    pub fn image(&self, name: Option<&str>) -> Result<ArchivedImage, ClientError> {
        let images = &self.0.images;
        let matching: Vec<&Listed> = match name {
            Some(name) => images.iter().filter(|image| image.names.iter().any(|own| is_called(own, name))).collect(),
            None => images.iter().collect(),
        };
        let path = || self.0.path.clone();
        let fault = |fault| ClientError::archive(&self.0.path, fault);
        match (matching.as_slice(), name) {
            ([first, rest @ ..], _) if rest.iter().all(|other| other.is_same(first)) => {
                self.select(first).map_err(fault)
            }
            ([], None) => Err(fault(ArchiveFault::NoImages)),
            ([], Some(name)) => {
                Err(ClientError::NoSuchImage { path: path(), name: name.to_owned(), available: self.names() })
            }
            (several, _) => {
                Err(ClientError::ImageNeeded { path: path(), count: several.len(), available: self.names() })
            }
        }
    }

    /// The manifests that its index lists.
    pub(crate) fn listed(&self) -> Vec<Descriptor> {
        let manifest = |image: &Listed| match &image.kind {
            Kind::Manifest(descriptor) => Some((**descriptor).clone()),
            Kind::Saved(_) => None,
        };
        self.0.images.iter().filter_map(manifest).collect()
    }

    fn select(&self, image: &Listed) -> Result<ArchivedImage, ArchiveFault> {
        match &image.kind {
            Kind::Manifest(descriptor) => Ok(ArchivedImage {
                descriptor: (**descriptor).clone(),
                archive: self.clone(),
                made: None,
                named: HashMap::new(),
            }),
            Kind::Saved(saved) => {
                let made = saved.make(&self.0)?;
                let descriptor = made.descriptor;
                Ok(ArchivedImage { descriptor, archive: self.clone(), made: Some(made.manifest), named: made.blobs })
            }
        }
    }
}

impl ArchivedImage {
    /// The archive it is in.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    pub(crate) fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, ClientError> {
        if let Some(made) = self.made.as_ref().filter(|_| descriptor.digest == self.descriptor.digest) {
            return Ok(made.clone());
        }
        let path = self.archive.path();
        if descriptor.size > manifest::MAX_BYTES as u64 {
            let bytes = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
            let source = portcullis_oci::ManifestError::TooLarge { bytes };
            return Err(ClientError::Manifest { name: descriptor.digest.to_string(), source });
        }
        let mut bytes = Vec::new();
        self.open_blob(descriptor)?.read_to_end(&mut bytes).map_err(ClientError::io("read", path))?;
        if Digest::of(descriptor.digest.algorithm(), &bytes) != descriptor.digest {
            return Err(ClientError::blob(path, &descriptor.digest, BlobFault::Damaged));
        }
        Ok(bytes.into())
    }

    /// Opens a blob for reading, after a look at its size.
    pub(crate) fn open_blob(&self, descriptor: &Descriptor) -> Result<SpanReader, ClientError> {
        let (digest, inner) = (&descriptor.digest, &self.archive.0);
        let name = write::blob_name(digest);
        let fault = |fault| ClientError::blob(&inner.path, digest, fault);
        let span = self.named.get(digest).copied().or_else(|| inner.entries.file(&name));
        let span = span.ok_or_else(|| fault(BlobFault::Missing))?;
        if span.size != descriptor.size {
            return Err(fault(BlobFault::Size { expected: descriptor.size, actual: span.size }));
        }
        Ok(SpanReader::new(Arc::clone(&inner.file), span))
    }
}

impl Inner {
    fn listed(&self) -> Result<Vec<Listed>, ArchiveFault> {
        if self.entries.file(MARKER).is_some() {
            return self.listed_in_layout();
        }
        if self.entries.file(SAVED).is_none() {
            return Err(ArchiveFault::NoImages);
        }
        let images = docker::saved(&self.json(SAVED, MAX_INDEX)?)?;
        Ok(images.into_iter().map(|(names, saved)| Listed { names, kind: Kind::Saved(saved) }).collect())
    }

    fn listed_in_layout(&self) -> Result<Vec<Listed>, ArchiveFault> {
        let unreadable = |name: &str, reason| ArchiveFault::Unreadable { name: name.to_owned(), reason };
        check_version(&self.json(MARKER, 4096)?).map_err(|fault| unreadable(MARKER, fault.to_string()))?;
        let index = self.json(INDEX, MAX_INDEX)?;
        let index: Value = serde_json::from_slice(&index).map_err(|error| unreadable(INDEX, error.to_string()))?;
        let images = listed_images(&index).map_err(|error| unreadable(INDEX, error.to_string()))?;
        Ok(images
            .into_iter()
            .map(|image| Listed { names: names_of(&image), kind: Kind::Manifest(Box::new(image)) })
            .collect())
    }

    /// A small file, whole.
    fn json(&self, name: &str, limit: u64) -> Result<Vec<u8>, ArchiveFault> {
        let span = self.entries.file(name).ok_or_else(|| ArchiveFault::Missing { name: name.to_owned() })?;
        if span.size > limit {
            return Err(ArchiveFault::TooLarge { name: name.to_owned(), size: span.size, limit });
        }
        let mut bytes = vec![0; usize::try_from(span.size).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, span.offset).map_err(|source| ArchiveFault::Io { source })?;
        Ok(bytes)
    }
}

impl Listed {
    fn is_same(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Manifest(one), Kind::Manifest(other)) => one.digest == other.digest,
            (Kind::Saved(one), Kind::Saved(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Archive").field(&self.0.path).finish()
    }
}

/// A part of the archive. Several read at once without disturbing each other.
pub(crate) struct SpanReader {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl SpanReader {
    fn new(file: Arc<File>, span: Span) -> Self {
        Self { file, at: span.offset, left: span.size }
    }
}

impl Read for SpanReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// `docker.io/library/app:1`, `docker.io/app:1` and `app:1` are one name to Docker.
fn is_called(own: &str, name: &str) -> bool {
    fn familiar(name: &str) -> &str {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name)
    }
    familiar(own) == familiar(name)
}

/// Many tools take a compressed archive; here it would have to be unpacked first.
fn compression(mut file: &File) -> Result<(), ArchiveFault> {
    let io = |source| ArchiveFault::Io { source };
    let mut magic = Vec::new();
    file.rewind().map_err(io)?;
    file.take(6).read_to_end(&mut magic).map_err(io)?;
    match compressor(&magic) {
        Some(program) => Err(ArchiveFault::Compressed { program }),
        None => Ok(()),
    }
}

/// What unpacks a file that begins like this.
fn compressor(magic: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"BZh", "bzip2"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    ];
    known.iter().find(|(prefix, _)| magic.starts_with(prefix)).map(|(_, program)| *program)
}

#[cfg(test)]
mod tests;
