//! Copy: from one registry to another, or within one, without a file in between. Blobs that the target lacks are mounted
//! where both are one registry, else streamed; then the manifests, children before parents, and the tag last.

use std::collections::HashMap;

use portcullis_oci::{Descriptor, Digest, Reference, RepositoryName, Tag};

use crate::choice::TransferOptions;
use crate::deliver::{Delivered, Tally, Target, check_digest};
use crate::origin::Origin;
use crate::progress::{Event, Progress};
use crate::select::select;
use crate::survey::{Gathered, Met, Survey};
use crate::transfer::{each, same_host, tag_of};
use crate::uploads::Mount;
use crate::{Client, ClientError};

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The manifest or index that was copied.
    pub image: Descriptor,
    /// The tag it has at the target now; `None` when the target's reference has only a digest.
    pub tag: Option<Tag>,
    /// How many manifests belong to it, indexes included.
    pub manifests: usize,
    /// How many blobs were streamed from registry to registry.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
    /// How many blobs the registry took over from the other repository by itself.
    pub mounted: usize,
    /// How many blobs the target had.
    pub existing: usize,
}

/// What was met at the source.
type Manifests = HashMap<Digest, Met>;

/// Where blobs come from.
#[derive(Clone)]
struct Source {
    client: Client,
    repository: RepositoryName,
    /// Whether the target can be asked to mount what this one has.
    mountable: bool,
}

/// Copies an image, with everything an index lists, from `from` to `to`. Each client is its reference's registry's; the
/// same one may be given twice.
///
/// Every blob is verified while it streams, and one that is not what it should be never becomes whole at the target. One
/// that breaks off goes on from where the target says that it is, and is read again from its start. Memory is bounded: a
/// few pieces for each of [`crate::PARALLEL`] blobs, and the manifests.
///
/// ```no_run
/// use portcullis_client::{Client, ClientOptions, Progress, copy};
/// use portcullis_oci::Reference;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let from: Reference = "registry.test:5443/team/app:1.2".parse()?;
/// let to: Reference = "mirror.test/team/app:1.2".parse()?;
/// let source = Client::connect(&from.host, &ClientOptions::default()).await?;
/// let target = Client::connect(&to.host, &ClientOptions::default()).await?;
/// let copied = copy(&source, &from, &target, &to, &Progress::none()).await?;
/// assert_eq!(copied.tag, to.tag);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ClientError::OtherDigest`] when `to` names a digest and the image has another; else any [`ClientError`], with the
/// host that it is about: the tag is then what it was.
pub async fn copy(
    source: &Client,
    from: &Reference,
    target: &Client,
    to: &Reference,
    progress: &Progress,
) -> Result<Copied, ClientError> {
    copy_image((source, from), (target, to), &TransferOptions::default(), progress).await
}

/// Copies an image, or the part of it that `options` want, as [`copy`] does.
///
/// # Errors
/// As [`copy`]; [`ClientError::NoPlatform`] when the index has no image for the machine asked for.
pub async fn copy_image(
    (source, from): (&Client, &Reference),
    (target, to): (&Client, &Reference),
    options: &TransferOptions,
    progress: &Progress,
) -> Result<Copied, ClientError> {
    same_host(source, from)?;
    same_host(target, to)?;
    let root = source.manifest_telling(&from.repository, &from.manifest(), progress).await?;
    let root = select(source, &from.repository, root, &options.platforms, progress).await?;
    let image = root.descriptor();
    check_digest(to, source.host(), &image)?;
    let survey = Survey::new(source, &from.repository, root, options.referrers, progress);
    let Gathered { walk, manifests, .. } = survey.gather().await?;
    let manifests: Manifests = manifests.into_iter().map(|met| (met.descriptor.digest, met)).collect();
    let mountable = from.host == to.host && from.repository != to.repository;
    let source = Source { client: source.clone(), repository: from.repository.clone(), mountable };
    let target = Target { client: target.clone(), repository: to.repository.clone(), progress: progress.clone() };
    let blobs = walk.blobs.iter().cloned();
    let delivered = each(options.parallel, blobs, |blob| deliver(source.clone(), target.clone(), blob)).await?;
    for descriptor in walk.children_first() {
        if let Some(met) = manifests.get(&descriptor.digest) {
            target.put(descriptor, &met.manifest, met.bytes.clone()).await?;
        }
    }
    let tag = tag_of(to);
    if let (Some(tag), Some(met)) = (&tag, manifests.get(&image.digest)) {
        target.tag(tag, &met.media_type, met.bytes.clone()).await?;
    }
    progress.tell(Event::Tagged { tag: tag.clone(), digest: image.digest });
    let Tally { sent, sent_bytes, mounted, existing } = Tally::of(&delivered);
    Ok(Copied { image, tag, manifests: walk.count(), sent, sent_bytes, mounted, existing })
}

/// Sees to it that the target has a blob.
async fn deliver(source: Source, target: Target, blob: Descriptor) -> Result<Delivered, ClientError> {
    if target.has(&blob).await? {
        return Ok(Delivered::Existed);
    }
    let (digest, size) = (blob.digest, blob.size);
    let mut begun = None;
    if source.mountable {
        match target.client.mount_blob(&target.repository, &digest, &source.repository).await? {
            Mount::Done => {
                target.progress.tell(Event::BlobMounted { digest, size });
                return Ok(Delivered::Mounted);
            }
            Mount::Declined(upload) => begun = Some(upload),
        }
    }
    match Origin::in_registry(source.client, source.repository, &blob, &target.progress).await {
        Ok(Some(origin)) => target.send(&blob, begun, origin).await,
        nothing => {
            if let Some(upload) = &begun {
                target.cancel(upload).await;
            }
            nothing.map(|_| Delivered::Foreign)
        }
    }
}
