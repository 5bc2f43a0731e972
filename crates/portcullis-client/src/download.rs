//! One blob's way from a registry to the sink of a pull: it goes on where an earlier attempt has stopped, its bytes are
//! hashed and written on a blocking thread, and it gets its name only when it is right. Must not know what the blob is for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use portcullis_oci::{Descriptor, RepositoryName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::blobs::BlobReader;
use crate::progress::{Event, Progress};
use crate::sink::{Sink, SinkBlob};
use crate::survey::unless_foreign;
use crate::{Client, ClientError, blocking};

/// What comes is gathered to pieces of this size, so that hashing and writing are not woken for each TLS record: a
/// gibibyte took 98,000 wake-ups and 90,000 writes without.
const PIECE: usize = 512 * 1024;

/// How many pieces of a blob may wait for the disk.
const PIECES_WAITING: usize = 2;

/// Whence and whither.
#[derive(Clone)]
pub(crate) struct Download {
    pub(crate) client: Client,
    pub(crate) repository: RepositoryName,
    pub(crate) sink: Sink,
    /// One permit for each blob that is being written.
    pub(crate) running: Arc<Semaphore>,
    pub(crate) progress: Progress,
}

/// What became of a blob.
pub(crate) enum Fetched {
    /// It has come, and how many bytes of it now.
    Blob(u64),
    Reused,
    Foreign,
}

/// A blob that is being written, with its permit.
struct Begun {
    blob: SinkBlob,
    _running: Option<OwnedSemaphorePermit>,
}

/// What the writer is handed.
enum Piece {
    Bytes(Bytes),
    /// All of it has come.
    End,
    /// What came is not what it should be.
    Wrong,
}

impl Download {
    /// Sees to it that the sink has a blob.
    pub(crate) async fn fetch(self, blob: Descriptor) -> Result<Fetched, ClientError> {
        let (digest, size) = (blob.digest, blob.size);
        let (there, wanted) = (self.sink.clone(), blob.clone());
        if blocking(move || there.has_blob(&wanted)).await {
            self.progress.tell(Event::BlobExists { digest, size });
            return Ok(Fetched::Reused);
        }
        let begun = self.begin(&blob).await?;
        let had = begun.blob.offset();
        match self.fetch_rest(&blob, begun).await {
            // What was left may be what is wrong, after a power cut for one. If it is the registry, that shows now.
            Err(ClientError::Digest(_)) if had > 0 => {
                tracing::debug!(%digest, had, "what was left of the blob is not right, all of it is fetched");
                let begun = self.begin(&blob).await?;
                self.fetch_rest(&blob, begun).await
            }
            fetched => fetched,
        }
    }

    /// Before anything is asked for: reading what is there may take longer than a registry waits.
    async fn begin(&self, blob: &Descriptor) -> Result<Begun, ClientError> {
        // Never closed.
        let running = Arc::clone(&self.running).acquire_owned().await.ok();
        let (sink, blob) = (self.sink.clone(), blob.clone());
        // Gone when nobody waits for it any more.
        let waiting = Arc::new(());
        let waited_for = Arc::downgrade(&waiting);
        let begun = blocking(move || {
            let blob = sink.begin_blob(&blob, || waited_for.strong_count() > 0)?;
            Ok(Begun { blob, _running: running })
        })
        .await;
        drop(waiting);
        begun
    }

    async fn fetch_rest(&self, blob: &Descriptor, mut begun: Begun) -> Result<Fetched, ClientError> {
        let (digest, size, from) = (blob.digest, blob.size, begun.blob.offset());
        let mut reader = None;
        if from < size || size == 0 {
            let opened = self.client.blob_from(&self.repository, blob, from, &self.progress).await;
            if opened.as_ref().is_err_and(is_about_content) {
                begun.blob.discard();
            }
            let Some(opened) = unless_foreign(opened, blob, &self.progress)? else { return Ok(Fetched::Foreign) };
            reader = Some(opened);
        }
        self.progress.tell(Event::BlobStarted { digest, size });
        if from > 0 {
            self.progress.tell(Event::BlobResumed { digest, bytes: from });
        }
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        let writer = blocking(move || begun.write(pieces));
        let (read, written) = tokio::join!(hand_on(reader.as_mut(), sender), writer);
        read?;
        let senders = reader.map_or_else(|| self.client.host().to_string(), |reader| reader.senders());
        written.map_err(|error| blame(senders, error))?;
        self.progress.tell(Event::BlobFinished { digest });
        Ok(Fetched::Blob(size - from))
    }
}

impl Begun {
    /// Writes what comes, and commits it only when the end is said to be one: a reader that gave up just goes away.
    fn write(mut self, mut pieces: mpsc::Receiver<Piece>) -> Result<(), ClientError> {
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Bytes(bytes) => self.blob.write(&bytes)?,
                Piece::End => return self.blob.commit(),
                Piece::Wrong => self.blob.discard(),
            }
        }
        Ok(())
    }
}

/// Gathers what comes and hands it to the writer, who stops taking it when something is wrong, and says what. Without a
/// reader all of it is there.
async fn hand_on(reader: Option<&mut BlobReader>, writer: mpsc::Sender<Piece>) -> Result<(), ClientError> {
    let ended = match reader {
        Some(reader) => hand_on_all(reader, &writer).await,
        None => Ok(()),
    };
    let last = match &ended {
        Ok(()) => Piece::End,
        Err(error) if is_about_content(error) => Piece::Wrong,
        // What came is left for the next attempt.
        Err(_) => return ended,
    };
    // A writer that has gone says why.
    drop(writer.send(last).await);
    ended
}

async fn hand_on_all(reader: &mut BlobReader, writer: &mpsc::Sender<Piece>) -> Result<(), ClientError> {
    let mut gathered = BytesMut::new();
    while let Some(piece) = reader.chunk().await? {
        if gathered.len() + piece.len() > PIECE && writer.send(Piece::Bytes(gathered.split().freeze())).await.is_err() {
            return Ok(());
        }
        if gathered.capacity() < gathered.len() + piece.len() {
            gathered.reserve(PIECE.max(piece.len()));
        }
        gathered.extend_from_slice(&piece);
    }
    drop(writer.send(Piece::Bytes(gathered.freeze())).await);
    Ok(())
}

/// Whether what came, or is there, is no part of the blob; else the next attempt goes on with it.
fn is_about_content(error: &ClientError) -> bool {
    matches!(error, ClientError::Protocol { .. } | ClientError::Digest(_)) || error.is_not_found()
}

/// The writer finds the wrong digest, others sent it.
fn blame(senders: String, error: ClientError) -> ClientError {
    match error {
        ClientError::Digest(mut mismatch) => {
            mismatch.from = senders;
            ClientError::Digest(mismatch)
        }
        other => other,
    }
}
