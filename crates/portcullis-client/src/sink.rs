//! Where a pull writes: a layout directory or an archive. Each blob is verified while it is written. All calls block.

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_oci::{Descriptor, Tag};

use crate::ClientError;
use crate::archive::{ArchiveName, ArchiveWriter, PlacedBlob};
use crate::layout::{BlobWriter, LayoutDir};
use crate::spool::Spool;

/// A place for an image on this machine.
#[derive(Clone, Debug)]
pub enum ImageTarget {
    /// An OCI layout directory, which keeps what else is in it.
    Layout {
        /// The directory.
        layout: LayoutDir,
        /// The image's tag in it; that of the reference where there is none.
        tag: Option<Tag>,
    },
    /// A new archive.
    Archive {
        /// The file.
        file: ArchiveFile,
        /// Who is to read it.
        form: ArchiveForm,
    },
}

/// Where an archive is written.
#[derive(Clone, Debug)]
pub enum ArchiveFile {
    /// A new file, or one that takes an older one's place when it is whole.
    Named(PathBuf),
    /// A file without a name: the archive is whole, and can be handed on, once the pull has ended well.
    Unnamed(Spool),
}

/// What kind of archive is written.
#[derive(Clone, Debug)]
pub enum ArchiveForm {
    /// An OCI layout in a tar.
    Oci {
        /// The image's tag in it; that of the reference where there is none.
        tag: Option<Tag>,
    },
    /// What `docker load`, `podman load` and skopeo's `docker-archive:` take: one image for one machine.
    Docker {
        /// What the image is called when it was loaded; as in the registry where there is none.
        name: Option<ArchiveName>,
    },
}

/// The place, opened.
#[derive(Clone)]
pub(crate) enum Sink {
    Layout(LayoutDir),
    Archive(Arc<ArchiveWriter>),
}

/// A blob on its way there.
pub(crate) enum SinkBlob {
    Layout(BlobWriter),
    Archive(PlacedBlob),
}

impl Sink {
    pub(crate) fn has_blob(&self, blob: &Descriptor) -> bool {
        match self {
            Self::Layout(layout) => layout.keeps_blob(blob),
            Self::Archive(_) => false,
        }
    }

    /// Begins a blob, or goes on with it where a part of it is there, which is read for as long as `wanted`.
    pub(crate) fn begin_blob(&self, blob: &Descriptor, wanted: impl Fn() -> bool) -> Result<SinkBlob, ClientError> {
        match self {
            Self::Layout(layout) => layout.resume_blob(blob, wanted).map(SinkBlob::Layout),
            Self::Archive(archive) => archive.create_blob(blob).map(SinkBlob::Archive),
        }
    }
}

impl SinkBlob {
    /// How many of its bytes are there.
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Self::Layout(blob) => blob.offset(),
            Self::Archive(_) => 0,
        }
    }

    /// Nothing of it is to be left: what came is not what it should be.
    pub(crate) fn discard(&mut self) {
        match self {
            Self::Layout(blob) => blob.discard(),
            // Has no name of its own, and goes with the archive.
            Self::Archive(_) => {}
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match self {
            Self::Layout(blob) => blob.write(bytes),
            Self::Archive(blob) => blob.write(bytes),
        }
    }

    pub(crate) fn commit(self) -> Result<(), ClientError> {
        match self {
            Self::Layout(blob) => blob.commit(),
            Self::Archive(blob) => blob.commit(),
        }
    }
}
