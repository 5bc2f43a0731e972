//! Push: blobs first, then manifests, children before parents, and the tag last, so that nobody can pull a name whose
//! parts are not all there.

use bytes::Bytes;
use portcullis_oci::{Descriptor, Digest, Manifest, Reference, Tag};

use crate::choice::{Referrers, TransferOptions};
use crate::deliver::{Delivered, Tally, Target, check_digest};
use crate::layout::LayoutDir;
use crate::origin::Origin;
use crate::progress::{Event, Progress};
use crate::source::ImageSource;
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
/// the layout never arrives. One that breaks off goes on from where the registry says that it is, or begins anew.
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
    let (layout, selected) = (layout.clone(), image.cloned());
    let source = blocking(move || ImageSource::in_layout(&layout, selected.as_ref())).await?;
    push_image(client, &source, reference, &TransferOptions::default(), progress).await
}

/// Pushes an image of a layout or an archive, or the part of it that `options` want, as [`push`] does.
///
/// # Errors
/// As [`push`]; [`ClientError::NoPlatform`] when the index has no image for the machine asked for.
pub async fn push_image(
    client: &Client,
    source: &ImageSource,
    reference: &Reference,
    options: &TransferOptions,
    progress: &Progress,
) -> Result<Pushed, ClientError> {
    same_host(client, reference)?;
    let (image, walk) = survey(source, options).await?;
    check_digest(reference, &source.path().display(), &image)?;
    walk.tell_plan(progress);
    let repository = reference.repository.clone();
    let target = Target { client: client.clone(), repository, progress: progress.clone() };
    let blobs = walk.blobs.iter().cloned();
    let delivered = each(options.parallel, blobs, |blob| send(target.clone(), source.clone(), blob)).await?;
    for descriptor in walk.children_first() {
        let (manifest, bytes) = manifest_of(source, descriptor).await?;
        target.put(descriptor, &manifest, bytes).await?;
    }
    let tag = tag_of(reference);
    if let Some(tag) = &tag {
        let (manifest, bytes) = manifest_of(source, &image).await?;
        target.tag(tag, &manifest.media_type, bytes).await?;
    }
    progress.tell(Event::Tagged { tag: tag.clone(), digest: image.digest });
    let Tally { sent, sent_bytes, existing, .. } = Tally::of(&delivered);
    Ok(Pushed { image, tag, manifests: walk.count(), sent, sent_bytes, existing })
}

/// What is to be pushed, and everything it names: all of it must be here before anything is sent.
pub(crate) async fn survey(source: &ImageSource, options: &TransferOptions) -> Result<(Descriptor, Walk), ClientError> {
    let (source, options) = (source.clone(), options.clone());
    blocking(move || {
        let image = source.select(&options.platforms)?;
        let mut walk = Walk::default();
        walk.enter(image.clone(), source.parsed(&image)?, 0)?;
        go_on(&source, &mut walk)?;
        if options.referrers == Referrers::Taken {
            enter_referrers(&source, &mut walk)?;
        }
        for blob in walk.blobs.iter().filter(|blob| blob.urls.is_empty()) {
            drop(source.open_blob(blob)?);
        }
        Ok((image, walk))
    })
    .await
}

/// Follows the indexes.
fn go_on(source: &ImageSource, walk: &mut Walk) -> Result<(), ClientError> {
    while let Some((child, depth)) = walk.next() {
        // A blob in an index (BuildKit's cache) is any size and does not parse.
        let parsed = match Kind::of(&child) {
            Kind::Manifest => Some(source.parsed(&child)?),
            Kind::Unknown => source.parsed(&child).ok(),
        };
        match parsed {
            Some(manifest) => walk.enter(child, manifest, depth)?,
            None => walk.enter_blob(child),
        }
    }
    Ok(())
}

/// What the layout lists beside the image and what refers to it, or to what refers to it, and so on.
fn enter_referrers(source: &ImageSource, walk: &mut Walk) -> Result<(), ClientError> {
    let mut listed: Vec<(Descriptor, Digest)> = Vec::new();
    for descriptor in source.listed()? {
        if let Some(subject) = source.parsed(&descriptor)?.subject {
            listed.push((descriptor, subject.digest));
        }
    }
    loop {
        let (now, later): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(_, subject)| walk.has_met(subject));
        if now.is_empty() {
            return Ok(());
        }
        for (referrer, _) in now {
            walk.wait_for(referrer);
        }
        go_on(source, walk)?;
        listed = later;
    }
}

async fn send(target: Target, source: ImageSource, blob: Descriptor) -> Result<Delivered, ClientError> {
    if target.has(&blob).await? {
        return Ok(Delivered::Existed);
    }
    match Origin::in_files(source, &blob, &target.progress).await? {
        Some(origin) => target.send(&blob, None, origin).await,
        None => Ok(Delivered::Foreign),
    }
}

/// A manifest's bytes with what they say.
async fn manifest_of(source: &ImageSource, descriptor: &Descriptor) -> Result<(Manifest, Bytes), ClientError> {
    let (source, wanted) = (source.clone(), descriptor.clone());
    blocking(move || Ok((source.parsed(&wanted)?, source.manifest(&wanted)?))).await
}
