//! The walk over an image that a registry has, and over what refers to it: what pull and copy begin with. Must not know what becomes of what is met.

use bytes::Bytes;
use portcullis_oci::{Descriptor, Digest, Manifest, ManifestReference, RepositoryName};

use crate::blobs::BlobReader;
use crate::choice::Referrers;
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
    referrers: Referrers,
    /// Whose referrers were not asked for yet.
    unasked: Vec<Digest>,
    found: Vec<Descriptor>,
}

/// What a walk found.
pub(crate) struct Found {
    pub(crate) walk: Walk,
    /// Manifests that refer to one of the others, and are listed by none.
    pub(crate) referrers: Vec<Descriptor>,
}

/// All of it, with the manifests' bytes.
pub(crate) struct Gathered {
    pub(crate) walk: Walk,
    pub(crate) referrers: Vec<Descriptor>,
    /// The image's own first.
    pub(crate) manifests: Vec<Met>,
}

/// The most bytes of manifests that are held, where they are written after the blobs.
pub const MAX_MANIFEST_BYTES: usize = 32 * 1024 * 1024;

/// A manifest that was met: fetched, verified, understood.
pub(crate) struct Met {
    /// As its index lists it.
    pub(crate) descriptor: Descriptor,
    /// As the manifest itself says.
    pub(crate) media_type: String,
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Bytes,
}

impl<'a> Survey<'a> {
    /// Begins at the manifest that a reference stands for.
    pub(crate) fn new(
        client: &'a Client,
        repository: &'a RepositoryName,
        root: FetchedManifest,
        referrers: Referrers,
        progress: &'a Progress,
    ) -> Self {
        let walk = Walk::default();
        let (unasked, found) = (Vec::new(), Vec::new());
        Self { client, repository, progress, root: Some(root), walk, referrers, unasked, found }
    }

    /// The next manifest: the root first, each one once; `None` when all were met.
    pub(crate) async fn next(&mut self) -> Result<Option<Met>, ClientError> {
        if let Some(root) = self.root.take() {
            return self.enter(root.descriptor(), root, 0).map(Some);
        }
        while let Some((child, depth)) = self.next_child().await? {
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
    pub(crate) fn finish(self) -> Found {
        self.walk.tell_plan(self.progress);
        Found { walk: self.walk, referrers: self.found }
    }

    /// Fetches and keeps all manifests.
    pub(crate) async fn gather(mut self) -> Result<Gathered, ClientError> {
        let (mut manifests, mut held) = (Vec::new(), 0);
        while let Some(met) = self.next().await? {
            held += met.bytes.len();
            if held > MAX_MANIFEST_BYTES {
                return Err(ClientError::TooMany { limit: MAX_MANIFEST_BYTES, unit: "bytes of them" });
            }
            manifests.push(met);
        }
        let Found { walk, referrers } = self.finish();
        Ok(Gathered { walk, referrers, manifests })
    }

    /// The next descriptor of an index, or of what refers to a manifest that was met.
    async fn next_child(&mut self) -> Result<Option<(Descriptor, usize)>, ClientError> {
        loop {
            if let Some(child) = self.walk.next() {
                return Ok(Some(child));
            }
            let Some(subject) = self.unasked.pop() else { return Ok(None) };
            for referrer in self.client.referrers(self.repository, &subject, None).await? {
                if self.walk.wait_for(referrer.clone()) {
                    self.found.push(referrer);
                }
            }
        }
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
        if self.referrers == Referrers::Taken {
            self.unasked.push(descriptor.digest);
        }
        self.walk.enter(descriptor.clone(), fetched.manifest.clone(), depth)?;
        Ok(Met { descriptor, media_type, manifest: fetched.manifest, bytes: fetched.bytes })
    }
}

/// A blob of an image, as it was opened. `None`: a layer that is fetched from elsewhere (`urls`), which this registry does
/// not have.
pub(crate) fn unless_foreign(
    opened: Result<BlobReader, ClientError>,
    blob: &Descriptor,
    progress: &Progress,
) -> Result<Option<BlobReader>, ClientError> {
    match opened {
        Err(error) if error.is_not_found() && !blob.urls.is_empty() => {
            progress.tell(Event::BlobForeign { digest: blob.digest });
            Ok(None)
        }
        opened => opened.map(Some),
    }
}
