//! Pull: resolve the reference, take the manifest or the whole index, then the blobs, and list the image last.
//!
//! Until the last step the layout's `index.json` is as it was: a pull that breaks off leaves verified blobs behind, which
//! the next one uses again. An archive is not there at all until then.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use portcullis_oci::{Descriptor, Reference, RepositoryName, Tag};
use tokio::sync::{Semaphore, mpsc};

use crate::archive::{ArchiveName, ArchivePlan, ArchiveWriter, Contents};
use crate::blobs::BlobReader;
use crate::choice::TransferOptions;
use crate::layout::LayoutDir;
use crate::progress::{Event, Progress};
use crate::select::select;
use crate::sink::{ArchiveForm, ImageTarget, Sink};
use crate::survey::{Found, Gathered, Met, Survey, open};
use crate::transfer::{Walk, each, same_host, tag_of};
use crate::{Client, ClientError, blocking};

/// What comes is gathered to pieces of this size, so that hashing and writing are not woken for each TLS record: a
/// gibibyte took 98,000 wake-ups and 90,000 writes without.
const PIECE: usize = 512 * 1024;

/// How many pieces of a blob may wait for the disk.
const PIECES_WAITING: usize = 2;

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
    /// Their bytes.
    pub fetched_bytes: u64,
    /// How many blobs the layout had.
    pub reused: usize,
}

/// Where it goes, and who is writing to it.
struct Writers {
    sink: Sink,
    running: Arc<Semaphore>,
}

enum Fetched {
    Blob(u64),
    Reused,
    Foreign,
}

/// Pulls an image, with everything an index lists, into a layout.
///
/// Every manifest and blob is verified before it gets its name. Blobs that the layout has with the right size are not
/// fetched again; layers with `urls` that the registry does not have are left out.
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
    let fetched = each(parallel, walk.blobs.iter().cloned(), |blob| {
        let writers = Writers { sink: sink.clone(), running: Arc::clone(&writers) };
        fetch(client.clone(), repository.clone(), writers, blob, progress.clone())
    })
    .await;
    // A task that was stopped leaves its writing thread to notice; nothing is being written once all have.
    drop(writers.acquire_many(u32::try_from(parallel).unwrap_or(u32::MAX)).await);
    fetched
}

async fn fetch(
    client: Client,
    repository: RepositoryName,
    writers: Writers,
    blob: Descriptor,
    progress: Progress,
) -> Result<Fetched, ClientError> {
    let (digest, size) = (blob.digest, blob.size);
    let (there, wanted) = (writers.sink.clone(), blob.clone());
    if blocking(move || there.has_blob(&wanted)).await {
        progress.tell(Event::BlobExists { digest, size });
        return Ok(Fetched::Reused);
    }
    let Some(reader) = open(&client, &repository, &blob, &progress).await? else { return Ok(Fetched::Foreign) };
    let mut reader = reader.verified_by_its_reader();
    progress.tell(Event::BlobStarted { digest, size });
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    let running = writers.running.acquire_owned().await;
    let writer = blocking(move || {
        let _running = running;
        write(&writers.sink, &blob, pieces)
    });
    let (read, written) = tokio::join!(hand_on(&mut reader, sender), writer);
    read?;
    written.map_err(|error| blame(&client, error))?;
    progress.tell(Event::BlobFinished { digest });
    Ok(Fetched::Blob(size))
}

/// Gathers what comes and hands it to the writer, who stops taking it when something is wrong, and says what.
async fn hand_on(reader: &mut BlobReader, writer: mpsc::Sender<Option<Bytes>>) -> Result<(), ClientError> {
    let mut gathered = BytesMut::new();
    while let Some(piece) = reader.chunk().await? {
        if gathered.len() + piece.len() > PIECE && writer.send(Some(gathered.split().freeze())).await.is_err() {
            return Ok(());
        }
        if gathered.capacity() < gathered.len() + piece.len() {
            gathered.reserve(PIECE.max(piece.len()));
        }
        gathered.extend_from_slice(&piece);
    }
    if writer.send(Some(gathered.freeze())).await.is_ok() {
        drop(writer.send(None).await);
    }
    Ok(())
}

/// Writes what comes, and commits it only when the end is said to be one: a reader that gave up just goes away.
fn write(sink: &Sink, blob: &Descriptor, mut pieces: mpsc::Receiver<Option<Bytes>>) -> Result<(), ClientError> {
    let mut writer = sink.create_blob(blob)?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Some(piece) => writer.write(&piece)?,
            None => return writer.commit(),
        }
    }
    Ok(())
}

/// The writer finds the wrong digest, the registry sent it.
fn blame(client: &Client, error: ClientError) -> ClientError {
    match error {
        ClientError::Digest(mut mismatch) => {
            mismatch.from = client.host().to_string();
            ClientError::Digest(mismatch)
        }
        other => other,
    }
}
