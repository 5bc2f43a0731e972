//! Push: blobs first, then manifests, children before parents, and the tag last, so that nobody can pull a name whose
//! parts are not all there.

use std::time::Duration;

use bytes::Bytes;
use portcullis_oci::{Descriptor, Manifest, ManifestReference, Reference, RepositoryName, Tag};
use tokio::time::timeout;

use crate::error::{BlobFault, DigestMismatch, ProtocolFault};
use crate::layout::LayoutDir;
use crate::progress::{Event, Progress};
use crate::transfer::{Kind, Walk, each, same_host};
use crate::{Client, ClientError, blocking};

/// How long a failed push tries to tell the registry that it gave an upload up.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest or index that was pushed.
    pub image: Descriptor,
    /// The tag it has in the registry now; `None` when the reference has only a digest.
    pub tag: Option<Tag>,
    /// How many manifests belong to it, indexes included.
    pub manifests: usize,
    /// How many blobs were sent.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
    /// How many blobs the registry had.
    pub existing: usize,
}

enum Sent {
    Blob(u64),
    Existed,
    Foreign,
}

/// Pushes an image of a layout, with everything an index lists. `image` selects it by its tag in the layout; without
/// one, the layout must have a single image.
///
/// Blobs that the repository has are not sent. What is sent is verified while it is read, and a blob that is damaged in
/// the layout never arrives. A write is never repeated.
///
/// # Errors
/// [`ClientError::OtherDigest`] when the reference names a digest and the image has another; else any [`ClientError`]:
/// the tag is then what it was.
pub async fn push(
    client: &Client,
    layout: &LayoutDir,
    image: Option<&Tag>,
    reference: &Reference,
    progress: &Progress,
) -> Result<Pushed, ClientError> {
    same_host(client, reference)?;
    let (source, selected) = (layout.clone(), image.cloned());
    let (image, walk) = blocking(move || {
        let image = source.image(selected.as_ref())?;
        let walk = walk(&source, &image)?;
        Ok::<_, ClientError>((image, walk))
    })
    .await?;
    check_digest(reference, layout, &image)?;
    let bytes = walk.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    progress.tell(Event::Planned { blobs: walk.blobs.len(), bytes });
    let repository = &reference.repository;
    let sent = each(walk.blobs.iter().cloned(), |blob| {
        send(client.clone(), repository.clone(), layout.clone(), blob, progress.clone())
    })
    .await?;
    for descriptor in walk.children_first() {
        put(client, repository, layout, descriptor, progress).await?;
    }
    let tag = match (&reference.tag, &reference.digest) {
        (None, Some(_)) => None,
        _ => reference.tag.clone().or_else(|| default_tag(reference)),
    };
    if let Some(tag) = &tag {
        let (media_type, bytes) = manifest_of(layout, &image).await?;
        client.put_manifest(repository, &ManifestReference::Tag(tag.clone()), &media_type, bytes).await?;
    }
    progress.tell(Event::Tagged { tag: tag.clone(), digest: image.digest });
    let sizes = sent.iter().filter_map(|sent| match sent {
        Sent::Blob(size) => Some(*size),
        Sent::Existed | Sent::Foreign => None,
    });
    Ok(Pushed {
        image,
        tag,
        manifests: walk.count(),
        sent: sizes.clone().count(),
        sent_bytes: sizes.sum(),
        existing: sent.iter().filter(|sent| matches!(sent, Sent::Existed)).count(),
    })
}

fn default_tag(reference: &Reference) -> Option<Tag> {
    match reference.manifest() {
        ManifestReference::Tag(tag) => Some(tag),
        ManifestReference::Digest(_) => None,
    }
}

fn check_digest(reference: &Reference, layout: &LayoutDir, image: &Descriptor) -> Result<(), ClientError> {
    match reference.digest {
        Some(expected) if expected != image.digest => {
            let from = layout.path().display().to_string();
            Err(ClientError::OtherDigest(Box::new(DigestMismatch { from, expected, actual: image.digest })))
        }
        _ => Ok(()),
    }
}

/// Everything that the image names must be here before anything is sent.
fn walk(layout: &LayoutDir, image: &Descriptor) -> Result<Walk, ClientError> {
    let mut walk = Walk::default();
    let root = parse(image, &layout.manifest(image)?)?;
    walk.enter(image.clone(), root, 0)?;
    while let Some((child, depth)) = walk.next() {
        // A blob in an index (BuildKit's cache) is any size and does not parse.
        let parsed = match Kind::of(&child) {
            Kind::Manifest => Some(parse(&child, &layout.manifest(&child)?)?),
            Kind::Unknown => layout.manifest(&child).ok().and_then(|bytes| parse(&child, &bytes).ok()),
        };
        match parsed {
            Some(manifest) => walk.enter(child, manifest, depth)?,
            None => walk.enter_blob(child),
        }
    }
    for blob in walk.blobs.iter().filter(|blob| blob.urls.is_empty()) {
        drop(layout.open_blob(blob)?);
    }
    Ok(walk)
}

fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest, ClientError> {
    Manifest::parse(bytes, None).map_err(|source| ClientError::Manifest { name: descriptor.digest.to_string(), source })
}

async fn send(
    client: Client,
    repository: RepositoryName,
    layout: LayoutDir,
    blob: Descriptor,
    progress: Progress,
) -> Result<Sent, ClientError> {
    let (digest, size) = (blob.digest, blob.size);
    if let Some(head) = client.head_blob(&repository, &digest).await? {
        if let Some(actual) = head.size.filter(|actual| *actual != size) {
            return Err(ClientError::Protocol {
                host: client.host().clone(),
                request: format!("HEAD of blob {digest}"),
                fault: ProtocolFault::Length { expected: size, actual },
            });
        }
        progress.tell(Event::BlobExists { digest, size });
        return Ok(Sent::Existed);
    }
    let path = layout.blob_path(&digest);
    let (source, wanted) = (layout.clone(), blob.clone());
    let file = match blocking(move || source.open_blob(&wanted)).await {
        Err(ClientError::LayoutBlob { fault: BlobFault::Missing, .. }) if !blob.urls.is_empty() => {
            progress.tell(Event::BlobForeign { digest });
            return Ok(Sent::Foreign);
        }
        opened => opened?,
    };
    progress.tell(Event::BlobStarted { digest, size });
    let upload = client.start_upload(&repository, &digest).await?;
    if let Err(error) = client.finish_upload(&upload, &blob, file, &path, &progress).await {
        // The registry forgets it by itself, later; the error that matters is the first.
        drop(timeout(CANCEL_WAIT, client.cancel_upload(&upload)).await);
        return Err(error);
    }
    progress.tell(Event::BlobFinished { digest });
    Ok(Sent::Blob(size))
}

async fn put(
    client: &Client,
    repository: &RepositoryName,
    layout: &LayoutDir,
    descriptor: &Descriptor,
    progress: &Progress,
) -> Result<(), ClientError> {
    let (media_type, bytes) = manifest_of(layout, descriptor).await?;
    let (digest, size) = (descriptor.digest, bytes.len() as u64);
    client.put_manifest(repository, &ManifestReference::Digest(digest), &media_type, bytes).await?;
    progress.tell(Event::Manifest { digest, media_type, size });
    Ok(())
}

/// A manifest's bytes with the type that they say they have.
async fn manifest_of(layout: &LayoutDir, descriptor: &Descriptor) -> Result<(String, Bytes), ClientError> {
    let (source, wanted) = (layout.clone(), descriptor.clone());
    blocking(move || {
        let bytes = source.manifest(&wanted)?;
        Ok((parse(&wanted, &bytes)?.media_type, bytes))
    })
    .await
}
