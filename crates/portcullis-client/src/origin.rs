//! Where the blobs of a push or a copy come from: files on this machine, or another registry. Must not know where they go.

use bytes::Bytes;
use portcullis_oci::{Descriptor, RepositoryName};

use crate::blobs::BlobReader;
use crate::error::BlobFault;
use crate::progress::{Event, Progress};
use crate::source::{ImageSource, SourceBlob};
use crate::survey::unless_foreign;
use crate::uploads::Supply;
use crate::{Client, ClientError, blocking};

/// A blob's source, which can be read again from its start.
pub(crate) enum Origin {
    Files {
        source: Box<ImageSource>,
        /// For the first time.
        opened: Option<SourceBlob>,
    },
    Registry {
        client: Client,
        repository: RepositoryName,
        /// For the first time.
        begun: Option<Box<Reading>>,
    },
}

/// A blob whose first piece has come, or, if it is empty, has been found right: before anything is sent.
pub(crate) struct Reading {
    first: Option<Bytes>,
    rest: BlobReader,
}

impl Origin {
    /// A blob of a layout or an archive. `None`: a layer that is fetched from elsewhere, and is not here.
    pub(crate) async fn in_files(
        source: ImageSource,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<Option<Self>, ClientError> {
        match open(&source, blob).await {
            Err(ClientError::LayoutBlob { fault: BlobFault::Missing, .. }) if !blob.urls.is_empty() => {
                progress.tell(Event::BlobForeign { digest: blob.digest });
                Ok(None)
            }
            opened => Ok(Some(Self::Files { opened: Some(opened?), source: Box::new(source) })),
        }
    }

    /// A blob of another registry, or of another repository. `None`: a layer that is fetched from elsewhere.
    pub(crate) async fn in_registry(
        client: Client,
        repository: RepositoryName,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<Option<Self>, ClientError> {
        let opened = client.blob(&repository, blob, progress).await;
        let Some(rest) = unless_foreign(opened, blob, progress)? else { return Ok(None) };
        let begun = Some(Box::new(Reading::begin(rest, blob, progress).await?));
        Ok(Some(Self::Registry { client, repository, begun }))
    }

    /// The blob from byte `from` on. Tells that it begins, and how much of it is there.
    pub(crate) async fn supply(
        &mut self,
        blob: &Descriptor,
        from: u64,
        progress: &Progress,
    ) -> Result<Supply, ClientError> {
        let Descriptor { digest, size, .. } = *blob;
        match self {
            Self::Files { source, opened } => {
                let content = match opened.take() {
                    Some(opened) => opened,
                    None => open(source, blob).await?,
                };
                progress.tell(Event::BlobStarted { digest, size });
                if from > 0 {
                    progress.tell(Event::BlobResumed { digest, bytes: from });
                }
                Ok(Supply::from_disk(content, &source.blob_path(blob), blob, from, progress))
            }
            Self::Registry { client, repository, begun } => {
                let Reading { first, rest } = match begun.take() {
                    Some(begun) => *begun,
                    None => Reading::begin(client.blob(repository, blob, progress).await?, blob, progress).await?,
                };
                Ok(Supply::from_registry(first, rest, from))
            }
        }
    }
}

impl Reading {
    async fn begin(mut rest: BlobReader, blob: &Descriptor, progress: &Progress) -> Result<Self, ClientError> {
        progress.tell(Event::BlobStarted { digest: blob.digest, size: blob.size });
        let first = rest.chunk().await?;
        Ok(Self { first, rest })
    }
}

async fn open(source: &ImageSource, blob: &Descriptor) -> Result<SourceBlob, ClientError> {
    let (source, wanted) = (source.clone(), blob.clone());
    blocking(move || source.open_blob(&wanted)).await
}
