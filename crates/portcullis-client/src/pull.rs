//! Pull: resolve the reference, take the manifest or the whole index, then the blobs, and list the image last.
//!
//! Until the last step the layout's `index.json` is as it was: a pull that breaks off leaves verified blobs behind, which
//! the next one uses again, and parts of others, with which it goes on. An archive is not there at all until then.

use std::sync::Arc;

use portcullis_oci::{Descriptor, Reference, RepositoryName, Tag};
use tokio::sync::Semaphore;

use crate::archive::{ArchiveName, ArchivePlan, ArchiveWriter, Contents};
use crate::choice::TransferOptions;
use crate::download::{Download, Fetched};
use crate::layout::LayoutDir;
use crate::progress::{Event, Progress};
use crate::select::select;
use crate::sink::{ArchiveForm, ImageTarget, Sink};
use crate::survey::{Found, Gathered, Met, Survey};
use crate::transfer::{Walk, each, same_host, tag_of};
use crate::{Client, ClientError, blocking};

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The manifest or index that the reference stood for.
    pub image: Descriptor,
    /// The tag it has in the layout now; `None` when it was asked for by its digest alone.
    pub tag: Option<Tag>,
    /// How many manifests belong to it, indexes included.
    pub manifests: usize,
    /// How many blobs came over the wire.
    pub fetched: usize,
    /// Their bytes, without those that an earlier pull had left.
    pub fetched_bytes: u64,
    /// How many blobs the layout had.
    pub reused: usize,
}

/// Pulls an image, with everything an index lists, into a layout.
///
/// Every manifest and blob is verified before it gets its name. Blobs that the layout has with the right size are not
/// fetched again, and of one that an earlier pull has broken off (`.portcullis-partial-*`) only the rest is; layers with
/// `urls` that the registry does not have are left out.
///
/// # Errors
/// Any [`ClientError`]; the layout then lists what it listed before.
pub async fn pull(
    client: &Client,
    reference: &Reference,
    layout: &LayoutDir,
    progress: &Progress,
) -> Result<Pulled, ClientError> {
    let target = ImageTarget::Layout { layout: layout.clone(), tag: None };
    pull_image(client, reference, &target, &TransferOptions::default(), progress).await
}

/// Pulls an image, or the part of it that `options` want, to where `target` says.
///
/// An archive gets its name when it is whole: until then what was there before is there. Blobs are written to it side by
/// side, and kept nowhere else meanwhile.
///
/// # Errors
/// [`ClientError::NoPlatform`] when the index has no image for the machine asked for, [`ClientError::NotForDocker`] when an
/// archive for Docker cannot hold it; else any [`ClientError`]. The target then lists what it listed before.
pub async fn pull_image(
    client: &Client,
    reference: &Reference,
    target: &ImageTarget,
    options: &TransferOptions,
    progress: &Progress,
) -> Result<Pulled, ClientError> {
    same_host(client, reference)?;
    let repository = &reference.repository;
    let root = client.manifest_telling(repository, &reference.manifest(), progress).await?;
    let root = select(client, repository, root, &options.platforms, progress).await?;
    let image = root.descriptor();
    let survey = Survey::new(client, repository, root, options.referrers, progress);
    let (sink, walk, listing) = match target {
        ImageTarget::Layout { layout, tag } => {
            let Found { walk, referrers } = fill(survey, layout, progress).await?;
            let tag = tag.clone().or_else(|| tag_of(reference));
            (Sink::Layout(layout.clone()), walk, Listing { image: image.clone(), tag, referrers })
        }
        ImageTarget::Archive { file, form } => {
            let gathered = survey.gather().await?;
            let blobs = obtainable(client, repository, &gathered.walk.blobs).await?;
            let (plan, tag) = plan(form, reference, &image, &gathered, &blobs)?;
            let file = file.clone();
            let writer = blocking(move || ArchiveWriter::create(&file, plan)).await?;
            let listing = Listing { image: image.clone(), tag, referrers: Vec::new() };
            (Sink::Archive(Arc::new(writer)), gathered.walk, listing)
        }
    };
    let fetched = fetch_all(client, repository, &sink, &walk, options, progress).await?;
    let tag = listing.tag.clone();
    blocking(move || listing.finish(sink)).await?;
    progress.tell(Event::Tagged { tag: tag.clone(), digest: image.digest });
    let sizes = fetched.iter().filter_map(|fetched| match fetched {
        Fetched::Blob(size) => Some(*size),
        Fetched::Reused | Fetched::Foreign => None,
    });
    Ok(Pulled {
        image,
        tag,
        manifests: walk.count(),
        fetched: sizes.clone().count(),
        fetched_bytes: sizes.sum(),
        reused: fetched.iter().filter(|fetched| matches!(fetched, Fetched::Reused)).count(),
    })
}

/// What is done when all blobs are there.
struct Listing {
    image: Descriptor,
    tag: Option<Tag>,
    referrers: Vec<Descriptor>,
}

impl Listing {
    fn finish(self, sink: Sink) -> Result<(), ClientError> {
        match sink {
            Sink::Layout(layout) => {
                self.referrers.iter().try_for_each(|referrer| layout.set_image(referrer, None))?;
                layout.set_image(&self.image, self.tag.as_ref())
            }
            Sink::Archive(archive) => archive.finish(),
        }
    }
}

/// Fetches the manifests, puts them into the layout, and finds the blobs.
async fn fill(mut survey: Survey<'_>, layout: &LayoutDir, progress: &Progress) -> Result<Found, ClientError> {
    while let Some(Met { descriptor, media_type, bytes, .. }) = survey.next().await? {
        let (digest, size, target) = (descriptor.digest, bytes.len() as u64, layout.clone());
        blocking(move || target.put_blob(&descriptor, &bytes)).await?;
        progress.tell(Event::Manifest { digest, media_type, size });
    }
    Ok(survey.finish())
}

/// What an archive will hold, and the tag that the image has in it.
fn plan(
    form: &ArchiveForm,
    reference: &Reference,
    image: &Descriptor,
    gathered: &Gathered,
    blobs: &[Descriptor],
) -> Result<(ArchivePlan, Option<Tag>), ClientError> {
    let manifests: Vec<_> = gathered.manifests.iter().map(|met| (met.descriptor.clone(), met.bytes.clone())).collect();
    let contents = Contents { image, referrers: &gathered.referrers, manifests: &manifests, blobs };
    match form {
        ArchiveForm::Oci { tag } => {
            let tag = tag.clone().or_else(|| tag_of(reference));
            Ok((contents.oci(tag.as_ref()), tag))
        }
        ArchiveForm::Docker { name } => {
            let name = name.clone().or_else(|| ArchiveName::of(reference));
            let tag = name.as_ref().map(|name| name.tag().clone());
            Ok((contents.docker(name.as_ref())?, tag))
        }
    }
}

/// The blobs that the registry has: an archive keeps no place for a layer that is fetched from elsewhere.
async fn obtainable(
    client: &Client,
    repository: &RepositoryName,
    blobs: &[Descriptor],
) -> Result<Vec<Descriptor>, ClientError> {
    let mut there = Vec::new();
    for blob in blobs {
        if blob.urls.is_empty() || client.head_blob(repository, &blob.digest).await?.is_some() {
            there.push(blob.clone());
        }
    }
    Ok(there)
}

async fn fetch_all(
    client: &Client,
    repository: &RepositoryName,
    sink: &Sink,
    walk: &Walk,
    options: &TransferOptions,
    progress: &Progress,
) -> Result<Vec<Fetched>, ClientError> {
    let parallel = options.parallel.max(1);
    let writers = Arc::new(Semaphore::new(parallel));
    let download = Download {
        client: client.clone(),
        repository: repository.clone(),
        sink: sink.clone(),
        running: Arc::clone(&writers),
        progress: progress.clone(),
    };
    let fetched = each(parallel, walk.blobs.iter().cloned(), |blob| download.clone().fetch(blob)).await;
    // A task that was stopped leaves its writing thread to notice; nothing is being written once all have.
    drop(writers.acquire_many(u32::try_from(parallel).unwrap_or(u32::MAX)).await);
    fetched
}
