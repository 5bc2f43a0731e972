//! Where a push reads: one image of a layout directory or of an archive. All calls block.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use portcullis_oci::{Descriptor, Manifest, Tag};

use crate::ClientError;
use crate::archive::{Archive, ArchivedImage, SpanReader};
use crate::choice::{Platforms, Step};
use crate::layout::LayoutDir;

/// An image on this machine.
#[derive(Clone, Debug)]
pub struct ImageSource {
    image: Descriptor,
    files: Files,
}

#[derive(Clone, Debug)]
enum Files {
    Layout(LayoutDir),
    Archive(Box<ArchivedImage>),
}

/// A blob's content.
pub(crate) enum SourceBlob {
    File(std::fs::File),
    Span(SpanReader),
}

impl ImageSource {
    /// The image of a layout that has this tag; without one, its only image.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTag`] and [`ClientError::TagNeeded`], which list the tags there are.
    pub fn in_layout(layout: &LayoutDir, tag: Option<&Tag>) -> Result<Self, ClientError> {
        Ok(Self { image: layout.image(tag)?, files: Files::Layout(layout.clone()) })
    }

    /// The image of an archive that has this name, or this tag; without one, its only image.
    ///
    /// # Errors
    /// [`ClientError::NoSuchImage`] and [`ClientError::ImageNeeded`], which list the names there are.
    pub fn in_archive(archive: &Archive, name: Option<&str>) -> Result<Self, ClientError> {
        let image = archive.image(name)?;
        Ok(Self { image: image.descriptor.clone(), files: Files::Archive(Box::new(image)) })
    }

    /// The manifest or index.
    pub fn image(&self) -> &Descriptor {
        &self.image
    }

    /// The layout's directory or the archive's file.
    pub fn path(&self) -> &Path {
        match &self.files {
            Files::Layout(layout) => layout.path(),
            Files::Archive(image) => image.archive().path(),
        }
    }

    /// What else is listed there.
    pub(crate) fn listed(&self) -> Result<Vec<Descriptor>, ClientError> {
        match &self.files {
            Files::Layout(layout) => layout.images(),
            Files::Archive(image) => Ok(image.archive().listed()),
        }
    }

    pub(crate) fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, ClientError> {
        match &self.files {
            Files::Layout(layout) => layout.manifest(descriptor),
            Files::Archive(image) => image.manifest(descriptor),
        }
    }

    pub(crate) fn open_blob(&self, descriptor: &Descriptor) -> Result<SourceBlob, ClientError> {
        match &self.files {
            Files::Layout(layout) => layout.open_blob(descriptor).map(SourceBlob::File),
            Files::Archive(image) => image.open_blob(descriptor).map(SourceBlob::Span),
        }
    }

    /// For messages.
    pub(crate) fn blob_path(&self, descriptor: &Descriptor) -> PathBuf {
        match &self.files {
            Files::Layout(layout) => layout.blob_path(&descriptor.digest),
            Files::Archive(image) => image.archive().path().to_owned(),
        }
    }

    /// A manifest, understood.
    pub(crate) fn parsed(&self, descriptor: &Descriptor) -> Result<Manifest, ClientError> {
        let bytes = self.manifest(descriptor)?;
        let name = || descriptor.digest.to_string();
        Manifest::parse(&bytes, None).map_err(|source| ClientError::Manifest { name: name(), source })
    }

    /// The image of it that is wanted.
    pub(crate) fn select(&self, platforms: &Platforms) -> Result<Descriptor, ClientError> {
        let mut image = self.image.clone();
        for depth in 0.. {
            match platforms.step(&self.parsed(&image)?, depth)? {
                Step::Take => break,
                Step::Descend(child) => image = child,
                Step::Ask(config) => {
                    platforms.check_config(&self.manifest(&config)?)?;
                    break;
                }
            }
        }
        Ok(image)
    }
}

impl Read for SourceBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Span(span) => span.read(buffer),
        }
    }
}
