//! What a transfer would do: everything is looked at, nothing is written.

use portcullis_oci::{Descriptor, Reference, Tag};

use crate::choice::TransferOptions;
use crate::deliver::check_digest;
use crate::layout::LayoutDir;
use crate::progress::Progress;
use crate::select::select;
use crate::source::ImageSource;
use crate::survey::{Gathered, Survey};
use crate::transfer::{Walk, each, same_host, tag_of};
use crate::{Client, ClientError, blocking, push};

/// What a transfer would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferPlan {
    /// The manifest or index that would arrive.
    pub image: Descriptor,
    /// The tag that it would have, where it would have one.
    pub tag: Option<Tag>,
    /// How many manifests belong to it, indexes included.
    pub manifests: usize,
    /// The blobs that would be transferred.
    pub wanted: Vec<Descriptor>,
    /// The blobs that are there already.
    pub there: Vec<Descriptor>,
}

/// What [`crate::pull_image`] would do; `layout` is what is there already, if anything.
///
/// # Errors
/// What would make the pull fail before its first blob.
pub async fn plan_pull(
    client: &Client,
    reference: &Reference,
    layout: Option<&LayoutDir>,
    options: &TransferOptions,
) -> Result<TransferPlan, ClientError> {
    let (image, walk) = at_source(client, reference, options).await?;
    let (blobs, layout) = (walk.blobs.clone(), layout.cloned());
    let has = move |blob: &Descriptor| layout.as_ref().is_some_and(|layout| layout.has_blob(blob));
    let (there, wanted) = blocking(move || blobs.into_iter().partition(has)).await;
    Ok(TransferPlan { image, tag: tag_of(reference), manifests: walk.count(), wanted, there })
}

/// What [`crate::push_image`] would do.
///
/// # Errors
/// What would make the push fail before its first blob.
pub async fn plan_push(
    client: &Client,
    source: &ImageSource,
    reference: &Reference,
    options: &TransferOptions,
) -> Result<TransferPlan, ClientError> {
    same_host(client, reference)?;
    let (image, walk) = push::survey(source, options).await?;
    check_digest(reference, &source.path().display(), &image)?;
    at_target(client, reference, image, &walk, options).await
}

/// What [`crate::copy_image`] would do. Blobs that could be mounted count as wanted: only trying would tell.
///
/// # Errors
/// What would make the copy fail before its first blob.
pub async fn plan_copy(
    (source, from): (&Client, &Reference),
    (target, to): (&Client, &Reference),
    options: &TransferOptions,
) -> Result<TransferPlan, ClientError> {
    same_host(target, to)?;
    let (image, walk) = at_source(source, from, options).await?;
    check_digest(to, source.host(), &image)?;
    at_target(target, to, image, &walk, options).await
}

async fn at_source(
    client: &Client,
    reference: &Reference,
    options: &TransferOptions,
) -> Result<(Descriptor, Walk), ClientError> {
    same_host(client, reference)?;
    let (repository, nobody) = (&reference.repository, Progress::none());
    let root = client.manifest(repository, &reference.manifest()).await?;
    let root = select(client, repository, root, &options.platforms, &nobody).await?;
    let image = root.descriptor();
    let Gathered { walk, .. } = Survey::new(client, repository, root, options.referrers, &nobody).gather().await?;
    Ok((image, walk))
}

async fn at_target(
    client: &Client,
    reference: &Reference,
    image: Descriptor,
    walk: &Walk,
    options: &TransferOptions,
) -> Result<TransferPlan, ClientError> {
    let asked = each(options.parallel, walk.blobs.iter().cloned(), |blob| {
        let (client, repository) = (client.clone(), reference.repository.clone());
        async move { Ok((client.head_blob(&repository, &blob.digest).await?.is_some(), blob)) }
    });
    let (there, wanted): (Vec<_>, Vec<_>) = asked.await?.into_iter().partition(|(is_there, _)| *is_there);
    let blobs = |pairs: Vec<(bool, Descriptor)>| pairs.into_iter().map(|(_, blob)| blob).collect();
    Ok(TransferPlan {
        image,
        tag: tag_of(reference),
        manifests: walk.count(),
        wanted: blobs(wanted),
        there: blobs(there),
    })
}
