//! The bytes of a blob on their way out: read and verified ahead of the wire, and handed to one request after another.
//!
//! A source on disk is read and hashed on a blocking thread, two to four pieces ahead; a source in another registry is read
//! beside the sending. In both the last piece is held back until the digest is known to be right, so that a damaged source
//! cannot become a blob, also where what comes before a certain byte is there already and only hashed.

use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use portcullis_oci::{Descriptor, Digest, Hasher};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::activity::Activity;
use crate::blobs::BlobReader;
use crate::error::{BlobFault, ClientError};
use crate::progress::{Event, Progress};
use crate::uploads::memory::Memory;

/// With the one that is read and the one that is sent, four of them per blob are in memory at most.
const PIECES_AHEAD: usize = 2;

/// How many pieces from another registry, as large as they come, may wait for the wire.
const PIECES_RELAYED: usize = 8;

type Pieces = mpsc::Receiver<Result<Bytes, ClientError>>;

/// A blob from a certain byte on.
pub(crate) struct Supply {
    state: Arc<Mutex<State>>,
    /// Who hears of what is sent.
    progress: Progress,
    /// Who reads from another registry; stopped with this.
    _reading: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    pieces: Pieces,
    /// What the request before had no room for.
    rest: Bytes,
    fault: Option<ClientError>,
}

impl Supply {
    /// Begins to read a source that blocks. `path` is what it is called in errors.
    pub(crate) fn from_disk(
        source: impl Read + Send + 'static,
        path: &Path,
        descriptor: &Descriptor,
        from: u64,
        progress: &Progress,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let (digest, size, path) = (descriptor.digest, descriptor.size, path.to_owned());
        // Ends with its source, or as soon as nobody takes the next piece.
        tokio::task::spawn_blocking(move || {
            let fault = match read_verified(source, &digest, size, from, &sender) {
                Ok(()) => return,
                Err(SourceFault::Io(error)) => ClientError::io("read", &path)(error),
                Err(SourceFault::Blob(fault)) => ClientError::blob(&path, &digest, fault),
            };
            drop(sender.blocking_send(Err(fault)));
        });
        Self::new(pieces, JoinSet::new(), progress.clone())
    }

    /// Begins to hand on what comes from another registry: `first` is what was read of it already, `None` for an empty blob.
    /// It is read from its start, also where less is to be sent: whether it is right shows only so. It is the reader that
    /// tells the progress.
    pub(crate) fn from_registry(first: Option<Bytes>, source: BlobReader, from: u64) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_RELAYED);
        let mut reading = JoinSet::new();
        reading.spawn(feed(first, source, from, sender));
        Self::new(pieces, reading, Progress::none())
    }

    fn new(pieces: Pieces, reading: JoinSet<()>, progress: Progress) -> Self {
        let state = State { pieces, rest: Bytes::new(), fault: None };
        Self { state: Arc::new(Mutex::new(state)), progress, _reading: reading }
    }

    /// The next `length` bytes, as the body of a request.
    pub(crate) fn body(&self, length: u64, digest: Digest, activity: &Arc<Activity>) -> Outgoing {
        if length == 0 {
            activity.finish();
        }
        let (state, activity, progress) = (Arc::clone(&self.state), Arc::clone(activity), self.progress.clone());
        Outgoing { state, left: length, digest, activity, progress }
    }

    /// What is wrong with the source, if it has shown.
    pub(crate) fn fault(&self) -> Option<ClientError> {
        lock(&self.state).fault.take()
    }
}

/// The body of a request.
pub(crate) struct Outgoing {
    state: Arc<Mutex<State>>,
    left: u64,
    digest: Digest,
    activity: Arc<Activity>,
    progress: Progress,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Whole after every single assignment, so a panic elsewhere cannot have left it half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The next piece, of `most` bytes at most.
    fn poll_piece(&mut self, most: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        if self.rest.is_empty() {
            match std::task::ready!(self.pieces.poll_recv(cx)) {
                Some(Ok(piece)) => self.rest = piece,
                Some(Err(fault)) => {
                    self.fault = Some(fault);
                    return Poll::Ready(Some(Err(())));
                }
                None => return Poll::Ready(None),
            }
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        Poll::Ready(Some(Ok(self.rest.split_to(count))))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(lock(&this.state).poll_piece(this.left, cx));
        Poll::Ready(piece.map(|piece| match piece {
            Ok(piece) => {
                this.left -= piece.len() as u64;
                this.activity.moved();
                if this.left == 0 {
                    this.activity.finish();
                }
                this.progress.tell(Event::BlobAdvanced { digest: this.digest, bytes: piece.len() as u64 });
                Ok(Frame::data(piece))
            }
            Err(()) => Err(io::Error::other("the source of the upload is not what it should be")),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Hands on what comes from another registry; its reader says that the blob has ended only when its digest was right.
async fn feed(
    first: Option<Bytes>,
    mut source: BlobReader,
    from: u64,
    sender: mpsc::Sender<Result<Bytes, ClientError>>,
) {
    let mut skipping = Skip(from);
    let mut held = first;
    while let Some(piece) = held {
        let (piece, next) = match source.chunk().await {
            Ok(next) => (Ok(skipping.rest_of(piece)), next),
            // Of a blob that is found wrong, the last piece is never sent.
            Err(error) => (Err(error), None),
        };
        let is_wanted = piece.as_ref().is_ok_and(|piece| !piece.is_empty()) || piece.is_err();
        if is_wanted && sender.send(piece).await.is_err() {
            // The sending is over.
            return;
        }
        held = next;
    }
}

/// How many bytes at the start are not to be sent.
struct Skip(u64);

impl Skip {
    fn rest_of(&mut self, mut piece: Bytes) -> Bytes {
        let known = usize::try_from(self.0).unwrap_or(usize::MAX).min(piece.len());
        self.0 -= known as u64;
        piece.split_off(known)
    }
}

/// Why a source on disk is no good.
#[derive(Debug)]
enum SourceFault {
    Io(io::Error),
    Blob(BlobFault),
}

/// Reads exactly `size` bytes, sends those from `from` on, and the last piece only if all of them have the digest.
fn read_verified(
    source: impl Read,
    digest: &Digest,
    size: u64,
    from: u64,
    sender: &mpsc::Sender<Result<Bytes, ClientError>>,
) -> Result<(), SourceFault> {
    // One byte more than there should be, to see that there is none.
    let mut source = source.take(size.saturating_add(1));
    let mut hasher = Hasher::new(digest.algorithm());
    let (mut read, mut skipping) = (0, Skip(from));
    let (memory, mut held) = (Memory::default(), Bytes::new());
    loop {
        let piece = memory.read(&mut source).map_err(SourceFault::Io)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
        read += piece.len() as u64;
        if read > size {
            break;
        }
        let before = std::mem::replace(&mut held, skipping.rest_of(piece));
        // A source whose first bytes are only hashed is read on for somebody, or for nobody any more.
        if sender.is_closed() || (!before.is_empty() && sender.blocking_send(Ok(before)).is_err()) {
            return Ok(());
        }
    }
    if read != size {
        return Err(SourceFault::Blob(BlobFault::Size { expected: size, actual: read }));
    }
    if hasher.finish() != *digest {
        return Err(SourceFault::Blob(BlobFault::Damaged));
    }
    if !held.is_empty() {
        // Nobody takes it when the request is over already.
        drop(sender.blocking_send(Ok(held)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;
    use crate::uploads::memory::PIECE;

    /// What would have gone over the wire, and how it ended.
    fn sent(source: &[u8], digest: &Digest, size: u64, from: u64) -> (Vec<u8>, Result<(), SourceFault>) {
        let (sender, mut receiver) = mpsc::channel(64);
        let result = read_verified(source, digest, size, from, &sender);
        drop(sender);
        let mut wire = Vec::new();
        while let Ok(Ok(piece)) = receiver.try_recv() {
            wire.extend_from_slice(&piece);
        }
        (wire, result)
    }

    fn noise(size: usize) -> Vec<u8> {
        (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect()
    }

    #[test]
    fn a_good_source_goes_out_whole_or_from_where_it_is_wanted() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let source = noise(size);
            let digest = Digest::of(Algorithm::Sha512, &source);
            for from in [0, 1, PIECE - 1, PIECE, PIECE + 1, size].into_iter().filter(|from| *from <= size) {
                let (wire, result) = sent(&source, &digest, size as u64, from as u64);
                assert!(result.is_ok(), "{size} {from}");
                assert!(wire == source[from..], "{size} {from}");
            }
        }
    }

    #[test]
    fn of_a_bad_source_something_is_always_held_back() {
        let source = vec![7; PIECE + 5];
        let digest = Digest::of(Algorithm::Sha256, &source);
        let other = Digest::of(Algorithm::Sha256, b"other");
        for (digest, size) in
            [(&other, source.len()), (&digest, source.len() + 1), (&digest, source.len() - 1), (&digest, 0)]
        {
            for from in [0, PIECE, PIECE + 2].into_iter().filter(|from| *from == 0 || *from < size) {
                let (wire, result) = sent(&source, digest, size as u64, from as u64);
                assert!(matches!(result, Err(SourceFault::Blob(_))), "{size} {from}");
                assert!(size == 0 || wire.len() < size - from, "{size} {from}: {} bytes went out", wire.len());
            }
        }
    }

    /// One request after another takes from the same source, each as much as it may.
    #[tokio::test]
    async fn requests_share_a_source() {
        let source = noise(2 * PIECE + 5);
        let digest = Digest::of(Algorithm::Sha256, &source);
        let descriptor =
            serde_json::from_value(serde_json::json!({"mediaType": "a/b", "digest": digest, "size": source.len()}))
                .unwrap();
        let supply =
            Supply::from_disk(io::Cursor::new(source.clone()), Path::new("x"), &descriptor, 1, &Progress::none());
        let mut wire = Vec::new();
        for length in [0, 1, PIECE as u64, 7, source.len() as u64 - PIECE as u64 - 9] {
            let activity = Arc::new(Activity::new());
            let mut body = supply.body(length, digest, &activity);
            let before = wire.len() as u64;
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                wire.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            assert_eq!(wire.len() as u64 - before, length);
        }
        assert!(wire == source[1..]);
        assert!(supply.fault().is_none());
    }
}
