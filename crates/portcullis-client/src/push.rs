//! Push: blobs first, then manifests, children before parents, and the tag last, so that nobody can pull a name whose
//! parts are not all there.

use bytes::Bytes;
use portcullis_oci::{Descriptor, Manifest, Reference, Tag};

use crate::deliver::{Delivered, Tally, Target, check_digest};
use crate::error::BlobFault;
use crate::layout::LayoutDir;
use crate::progress::{Event, Progress};
use crate::transfer::{Kind, Walk, each, same_host, tag_of};
use crate::{Client, ClientError, blocking};

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
    check_digest(reference, &layout.path().display(), &image)?;
    walk.tell_plan(progress);
    let repository = reference.repository.clone();
    let target = Target { client: client.clone(), repository, progress: progress.clone() };
    let delivered = each(walk.blobs.iter().cloned(), |blob| send(target.clone(), layout.clone(), blob)).await?;
    for descriptor in walk.children_first() {
        let (media_type, bytes) = manifest_of(layout, descriptor).await?;
        target.put(descriptor, media_type, bytes).await?;
    }
    let tag = tag_of(reference);
    if let Some(tag) = &tag {
        let (media_type, bytes) = manifest_of(layout, &image).await?;
        target.tag(tag, &media_type, bytes).await?;
    }
    progress.tell(Event::Tagged { tag: tag.clone(), digest: image.digest });
    let Tally { sent, sent_bytes, existing, .. } = Tally::of(&delivered);
    Ok(Pushed { image, tag, manifests: walk.count(), sent, sent_bytes, existing })
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

async fn send(target: Target, layout: LayoutDir, blob: Descriptor) -> Result<Delivered, ClientError> {
    if target.has(&blob).await? {
        return Ok(Delivered::Existed);
    }
    let (client, progress) = (&target.client, &target.progress);
    let (digest, size) = (blob.digest, blob.size);
    let path = layout.blob_path(&digest);
    let (source, wanted) = (layout.clone(), blob.clone());
    let file = match blocking(move || source.open_blob(&wanted)).await {
        Err(ClientError::LayoutBlob { fault: BlobFault::Missing, .. }) if !blob.urls.is_empty() => {
            progress.tell(Event::BlobForeign { digest });
            return Ok(Delivered::Foreign);
        }
        opened => opened?,
    };
    progress.tell(Event::BlobStarted { digest, size });
    let upload = client.start_upload(&target.repository, &digest).await?;
    let sent = client.finish_upload(&upload, &blob, file, &path, progress).await;
    target.finish(&blob, &upload, sent).await
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
