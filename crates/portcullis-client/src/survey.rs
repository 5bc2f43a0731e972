//! The walk over an image that a registry has: what pull and copy begin with. Must not know what becomes of what is met.

use bytes::Bytes;
use portcullis_oci::{Descriptor, ManifestReference, RepositoryName};

use crate::blobs::BlobReader;
use crate::error::ProtocolFault;
use crate::manifests::FetchedManifest;
use crate::progress::{Event, Progress};
use crate::transfer::{Kind, Walk};
use crate::{Client, ClientError};

/// A walk under way. Manifests come one by one; the blobs are known when there is no further one.
pub(crate) struct Survey<'a> {
    client: &'a Client,
    repository: &'a RepositoryName,
    progress: &'a Progress,
    root: Option<FetchedManifest>,
    walk: Walk,
}

/// A manifest that was met: fetched, verified, understood.
pub(crate) struct Met {
    /// As its index lists it.
    pub(crate) descriptor: Descriptor,
    /// As the manifest itself says.
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

impl<'a> Survey<'a> {
    /// Begins at the manifest that a reference stands for.
    pub(crate) fn new(
        client: &'a Client,
        repository: &'a RepositoryName,
        root: FetchedManifest,
        progress: &'a Progress,
    ) -> Self {
        Self { client, repository, progress, root: Some(root), walk: Walk::default() }
    }

    /// The next manifest: the root first, each one once; `None` when all were met.
    pub(crate) async fn next(&mut self) -> Result<Option<Met>, ClientError> {
        if let Some(root) = self.root.take() {
            return self.enter(root.descriptor(), root, 0).map(Some);
        }
        while let Some((child, depth)) = self.walk.next() {
            let reference = ManifestReference::Digest(child.digest);
            let unknown = matches!(Kind::of(&child), Kind::Unknown);
            if unknown && self.client.head_manifest(self.repository, &reference).await?.is_none() {
                self.walk.enter_blob(child);
                continue;
            }
            let fetched = self.client.manifest_telling(self.repository, &reference, self.progress).await?;
            return self.enter(child, fetched, depth).map(Some);
        }
        Ok(None)
    }

    /// Everything that was met; tells how much there is to transfer.
    pub(crate) fn finish(self) -> Walk {
        self.walk.tell_plan(self.progress);
        self.walk
    }

    fn enter(&mut self, descriptor: Descriptor, fetched: FetchedManifest, depth: usize) -> Result<Met, ClientError> {
        let actual = fetched.bytes.len() as u64;
        if actual != descriptor.size {
            return Err(ClientError::Protocol {
                host: self.client.host().clone(),
                request: format!("GET of manifest {}", descriptor.digest),
                fault: ProtocolFault::Length { expected: descriptor.size, actual },
            });
        }
        let media_type = fetched.manifest.media_type.clone();
        self.walk.enter(descriptor.clone(), fetched.manifest, depth)?;
        Ok(Met { descriptor, media_type, bytes: fetched.bytes })
    }
}

/// Opens a blob of an image. `None`: a layer that is fetched from elsewhere (`urls`), which this registry does not have.
pub(crate) async fn open(
    client: &Client,
    repository: &RepositoryName,
    blob: &Descriptor,
    progress: &Progress,
) -> Result<Option<BlobReader>, ClientError> {
    match client.blob(repository, blob, progress).await {
        Err(error) if error.is_not_found() && !blob.urls.is_empty() => {
            progress.tell(Event::BlobForeign { digest: blob.digest });
            Ok(None)
        }
        opened => opened.map(Some),
    }
}
