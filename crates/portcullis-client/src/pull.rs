//! Pull: resolve the reference, take the manifest or the whole index, then the blobs, and list the image last.
//!
//! Until the last step the layout's `index.json` is as it was: a pull that breaks off leaves verified blobs behind, which
//! the next one uses again.

use std::sync::Arc;

use bytes::Bytes;
use portcullis_oci::{Descriptor, Reference, RepositoryName, Tag};
use tokio::sync::{Semaphore, mpsc};

use crate::layout::LayoutDir;
use crate::progress::{Event, Progress};
use crate::survey::{Met, Survey, open};
use crate::transfer::{PARALLEL, Walk, each, same_host, tag_of};
use crate::{Client, ClientError, blocking};

/// How many pieces of a blob may wait for the disk.
const PIECES_WAITING: usize = 8;

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

/// The layout, and who is writing to it.
struct Writers {
    layout: LayoutDir,
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
    same_host(client, reference)?;
    let repository = &reference.repository;
    let root = client.manifest_telling(repository, &reference.manifest(), progress).await?;
    let image = root.descriptor();
    let walk = walk(Survey::new(client, repository, root, progress), layout, progress).await?;
    let writers = Arc::new(Semaphore::new(PARALLEL));
    let fetched = each(walk.blobs.iter().cloned(), |blob| {
        let layout = Writers { layout: layout.clone(), running: Arc::clone(&writers) };
        fetch(client.clone(), repository.clone(), layout, blob, progress.clone())
    })
    .await;
    // A task that was stopped leaves its writing thread to notice; nothing is being written once all have.
    drop(writers.acquire_many(u32::try_from(PARALLEL).unwrap_or(u32::MAX)).await);
    let fetched = fetched?;
    let tag = tag_of(reference);
    let (listed, named, target) = (image.clone(), tag.clone(), layout.clone());
    blocking(move || target.set_image(&listed, named.as_ref())).await?;
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

/// Fetches the manifests, puts them into the layout, and finds the blobs.
async fn walk(mut survey: Survey<'_>, layout: &LayoutDir, progress: &Progress) -> Result<Walk, ClientError> {
    while let Some(Met { descriptor, media_type, bytes }) = survey.next().await? {
        let (digest, size, target) = (descriptor.digest, bytes.len() as u64, layout.clone());
        blocking(move || target.put_blob(&descriptor, &bytes)).await?;
        progress.tell(Event::Manifest { digest, media_type, size });
    }
    Ok(survey.finish())
}

async fn fetch(
    client: Client,
    repository: RepositoryName,
    writers: Writers,
    blob: Descriptor,
    progress: Progress,
) -> Result<Fetched, ClientError> {
    let (digest, size) = (blob.digest, blob.size);
    let (there, wanted) = (writers.layout.clone(), blob.clone());
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
        write(&writers.layout, &blob, pieces)
    });
    let reader = async {
        while let Some(piece) = reader.chunk().await? {
            if sender.send(Some(piece)).await.is_err() {
                // The writer stopped, and says why.
                return Ok(());
            }
        }
        drop(sender.send(None).await);
        drop(sender);
        Ok(())
    };
    let (read, written) = tokio::join!(reader, writer);
    read?;
    written.map_err(|error| blame(&client, error))?;
    progress.tell(Event::BlobFinished { digest });
    Ok(Fetched::Blob(size))
}

/// Writes what comes, and commits it only when the end is said to be one: a reader that gave up just goes away.
fn write(layout: &LayoutDir, blob: &Descriptor, mut pieces: mpsc::Receiver<Option<Bytes>>) -> Result<(), ClientError> {
    let mut writer = layout.create_blob(blob)?;
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
