//! The target's side of push and copy: blobs that it lacks, manifests under their digests, the tag last. Must not know
//! where the bytes come from.

use std::time::Duration;

use bytes::Bytes;
use portcullis_oci::{Content, Descriptor, Manifest, ManifestReference, Reference, RepositoryName, Tag};
use tokio::time::timeout;

use crate::delivery::Delivery;
use crate::error::{DigestMismatch, ProtocolFault};
use crate::manifests::SubjectKnown;
use crate::origin::Origin;
use crate::progress::{Event, Progress};
use crate::uploads::UploadLocation;
use crate::{Client, ClientError};

/// How long a failed transfer tries to tell the registry that it gave an upload up.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// A repository that is written to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) repository: RepositoryName,
    pub(crate) progress: Progress,
}

/// How a blob came to be at the target.
pub(crate) enum Delivered {
    Sent(u64),
    Mounted,
    Existed,
    /// It did not: it is fetched from elsewhere.
    Foreign,
}

/// What became of all blobs.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) mounted: usize,
    pub(crate) existing: usize,
}

impl Target {
    /// Whether the repository has the blob already, and with the right size.
    pub(crate) async fn has(&self, blob: &Descriptor) -> Result<bool, ClientError> {
        let (digest, size) = (blob.digest, blob.size);
        let Some(head) = self.client.head_blob(&self.repository, &digest).await? else { return Ok(false) };
        if let Some(actual) = head.size.filter(|actual| *actual != size) {
            return Err(ClientError::Protocol {
                host: self.client.host().clone(),
                request: format!("HEAD of blob {digest}"),
                fault: ProtocolFault::Length { expected: size, actual },
            });
        }
        self.progress.tell(Event::BlobExists { digest, size });
        Ok(true)
    }

    /// Sends a blob into the upload that a declined mount has begun, or into a new one. After a break it goes on from where
    /// the registry says that it is; one that fails for good is given up.
    pub(crate) async fn send(
        &self,
        blob: &Descriptor,
        begun: Option<UploadLocation>,
        origin: Origin,
    ) -> Result<Delivered, ClientError> {
        let upload = match begun {
            Some(upload) => upload,
            None => self.client.start_upload_telling(&self.repository, &blob.digest, &self.progress).await?,
        };
        Delivery::new(self, blob, origin, upload).complete().await?;
        self.progress.tell(Event::BlobFinished { digest: blob.digest });
        Ok(Delivered::Sent(blob.size))
    }

    /// The registry forgets the upload by itself, later: whether this works is no matter.
    pub(crate) async fn cancel(&self, upload: &UploadLocation) {
        drop(timeout(CANCEL_WAIT, self.client.cancel_upload(upload)).await);
    }

    /// Puts a manifest under its digest, and sees to it that it is found by its subject.
    pub(crate) async fn put(
        &self,
        descriptor: &Descriptor,
        manifest: &Manifest,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let (digest, size, media_type) = (descriptor.digest, bytes.len() as u64, manifest.media_type.clone());
        let reference = ManifestReference::Digest(digest);
        let client = &self.client;
        let stored = client.put_manifest_for(&self.repository, &reference, &media_type, bytes, &self.progress).await?;
        if let (Some(subject), SubjectKnown::No) = (&manifest.subject, stored) {
            let referrer = as_referrer(descriptor, manifest);
            self.client.list_referrer(&self.repository, &subject.digest, referrer).await?;
        }
        self.progress.tell(Event::Manifest { digest, media_type, size });
        Ok(())
    }

    /// Puts the image under its tag.
    pub(crate) async fn tag(&self, tag: &Tag, media_type: &str, bytes: Bytes) -> Result<(), ClientError> {
        let reference = ManifestReference::Tag(tag.clone());
        let client = &self.client;
        client.put_manifest_for(&self.repository, &reference, media_type, bytes, &self.progress).await.map(drop)
    }
}

impl Tally {
    pub(crate) fn of(delivered: &[Delivered]) -> Self {
        let mut tally = Self::default();
        for one in delivered {
            match one {
                Delivered::Sent(size) => {
                    tally.sent += 1;
                    tally.sent_bytes += size;
                }
                Delivered::Mounted => tally.mounted += 1,
                Delivered::Existed => tally.existing += 1,
                Delivered::Foreign => {}
            }
        }
        tally
    }
}

/// As the list of a subject's referrers has it (distribution spec "Listing Referrers").
fn as_referrer(descriptor: &Descriptor, manifest: &Manifest) -> Descriptor {
    let config = match &manifest.content {
        Content::Image { config, .. } => Some(config.media_type.clone()),
        Content::Index { .. } | Content::Schema1 { .. } => None,
    };
    Descriptor {
        media_type: manifest.media_type.clone(),
        artifact_type: manifest.artifact_type.clone().or(config),
        annotations: manifest.annotations.clone(),
        ..descriptor.clone()
    }
}

/// A target with a digest must be the digest of the image; `from` is where the image comes from.
pub(crate) fn check_digest(reference: &Reference, from: &impl ToString, image: &Descriptor) -> Result<(), ClientError> {
    match reference.digest {
        Some(expected) if expected != image.digest => {
            let from = from.to_string();
            Err(ClientError::OtherDigest(Box::new(DigestMismatch { from, expected, actual: image.digest })))
        }
        _ => Ok(()),
    }
}
