//! Uploads: POST to begin, one PUT with the whole blob to finish, DELETE to give up. Nothing here is ever repeated: a
//! write is sent once, under the identity that was chosen before it.
//!
//! A source on disk is read and hashed on a blocking thread, two to four pieces ahead of the wire; a source in another
//! registry is read beside the sending. In both the last piece is held back until the digest is known to be right, so that
//! a damaged source cannot become a blob.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use portcullis_oci::route::UploadStart;
use portcullis_oci::{Descriptor, Digest, Endpoint, Hasher, RepositoryName};
use reqwest::Url;
use tokio::sync::mpsc;

use crate::auth::Scopes;
use crate::blobs::BlobReader;
use crate::error::{BlobFault, ClientError, ProtocolFault};
use crate::manifests::check_stored;
use crate::progress::{Event, Progress};
use crate::session::{Activity, Response};
use crate::{Client, location};

/// Pieces of this size are read and sent; four of them per blob are in memory at most.
const PIECE: usize = 256 * 1024;
const PIECES_AHEAD: usize = 2;

/// How many pieces from another registry, as large as they come, may wait for the wire.
const PIECES_RELAYED: usize = 8;

/// Where the registry wants an upload to go on. Its state is in it, so each answer replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadLocation {
    url: Url,
    scopes: Scopes,
}

/// What the registry makes of the wish to mount a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// The repository has the blob now.
    Done,
    /// The blob has to be sent: the registry has begun an upload for it.
    Declined(UploadLocation),
}

/// Why a source is no good; the file's path is the caller's to add.
#[derive(Debug)]
pub(crate) enum SourceFault {
    Io(io::Error),
    Blob(BlobFault),
}

/// How a blob's upload failed: `F` is what can go wrong with its source.
enum UploadError<F> {
    /// On the side that the bytes come from.
    Source(F),
    /// On the side they go to.
    Client(ClientError),
}

impl UploadLocation {
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// What a request for it needs.
    pub(crate) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Where the upload is finished (distribution spec end-6).
    pub(crate) fn finishing(&self, digest: &Digest) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        url
    }
}

impl Client {
    /// Begins an upload.
    pub async fn start_upload(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<UploadLocation, ClientError> {
        let start = UploadStart::Session { algorithm: digest.algorithm() };
        let response = self.post_upload(repository, start).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(response.into_error().await);
        }
        self.upload_location(&response, Scopes::push(repository))
    }

    /// Asks the registry to take a blob over from another of its repositories (distribution spec end-11). Never repeated.
    pub async fn mount_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<Mount, ClientError> {
        let start = UploadStart::Mount { digest: *digest, from: Some(from.clone()) };
        let response = self.post_upload(repository, start).await?;
        match response.status() {
            StatusCode::CREATED => check_blob(&response, digest).map(|()| Mount::Done),
            StatusCode::ACCEPTED => self.upload_location(&response, Scopes::push(repository)).map(Mount::Declined),
            _ => Err(response.into_error().await),
        }
    }

    /// Sends the whole blob in one PUT and has it stored under the descriptor's digest.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] when the source is shorter, longer or other than the descriptor says: the last bytes
    /// were not sent then, so the registry keeps nothing; `path` in it and in [`ClientError::Io`] is `source_path`.
    pub async fn finish_upload(
        &self,
        upload: &UploadLocation,
        descriptor: &Descriptor,
        source: impl Read + Send + 'static,
        source_path: &std::path::Path,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        match self.send(upload, descriptor, from_disk(source, descriptor), progress).await {
            Ok(()) => Ok(()),
            Err(UploadError::Client(error)) => Err(error),
            Err(UploadError::Source(SourceFault::Io(error))) => Err(ClientError::io("read", source_path)(error)),
            Err(UploadError::Source(SourceFault::Blob(fault))) => {
                Err(ClientError::blob(source_path, &descriptor.digest, fault))
            }
        }
    }

    /// Gives an upload up, so that the registry need not keep what it has of it.
    pub async fn cancel_upload(&self, upload: &UploadLocation) -> Result<(), ClientError> {
        let response = self.write(&Method::DELETE, &upload.url, HeaderMap::new(), Bytes::new(), &upload.scopes).await?;
        if response.status().is_success() { Ok(()) } else { Err(response.into_error().await) }
    }

    /// Sends a blob on as it comes: `first` is what was read of `source` already, `None` for an empty blob. The reader
    /// tells the progress.
    pub(crate) async fn relay_upload(
        &self,
        upload: &UploadLocation,
        descriptor: &Descriptor,
        first: Option<Bytes>,
        source: BlobReader,
    ) -> Result<(), ClientError> {
        let (sender, pieces) = mpsc::channel(PIECES_RELAYED);
        let feeding = feed(first, source, sender);
        let nobody = Progress::none();
        let sending = self.send(upload, descriptor, pieces, &nobody);
        tokio::pin!(sending);
        // A target that has answered takes no more pieces: the reader is dropped, wherever it is.
        let sent = tokio::select! {
            sent = &mut sending => sent,
            () = feeding => sending.await,
        };
        sent.map_err(|error| match error {
            UploadError::Source(error) | UploadError::Client(error) => error,
        })
    }

    async fn post_upload(&self, repository: &RepositoryName, start: UploadStart) -> Result<Response, ClientError> {
        let endpoint = Endpoint::StartUpload { repository: repository.clone(), start };
        let (method, url, scopes) = self.session().address(&endpoint);
        self.write(&method, &url, HeaderMap::new(), Bytes::new(), &scopes).await
    }

    pub(crate) fn upload_location(&self, response: &Response, scopes: Scopes) -> Result<UploadLocation, ClientError> {
        let target = location(response)?;
        // A user name in the address would become a login of the registry's choosing.
        let plain = target.username().is_empty() && target.password().is_none();
        if !plain || !self.session().owns(&target) {
            let origin = target.origin().ascii_serialization();
            return Err(response.fault(ProtocolFault::ForeignUpload { origin }));
        }
        Ok(UploadLocation { url: target, scopes })
    }

    async fn send<F: Send + 'static>(
        &self,
        upload: &UploadLocation,
        descriptor: &Descriptor,
        pieces: mpsc::Receiver<Result<Bytes, F>>,
        progress: &Progress,
    ) -> Result<(), UploadError<F>> {
        let url = upload.finishing(&descriptor.digest);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // Known in advance, and said so: some registries refuse a PUT in chunks.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(descriptor.size));
        let activity = Arc::new(Activity::new());
        let fault = Arc::new(Mutex::new(None));
        let (digest, left) = (descriptor.digest, descriptor.size);
        if left == 0 {
            activity.finish();
        }
        let (moving, failing) = (Arc::clone(&activity), Arc::clone(&fault));
        let body =
            Pieces { source: pieces, left, digest, activity: moving, fault: failing, progress: progress.clone() };
        let body = reqwest::Body::wrap(body);
        let headers = self.headers_for(headers, &upload.scopes).await.map_err(UploadError::Client)?;
        let sent = self.session().write_streaming(&Method::PUT, &url, headers, body, &activity).await;
        if let Some(fault) = fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(UploadError::Source(fault));
        }
        let response = sent.map_err(UploadError::Client)?;
        if !response.status().is_success() {
            return Err(UploadError::Client(response.into_error().await));
        }
        check_blob(&response, &descriptor.digest).map_err(UploadError::Client)
    }
}

/// The registry's word about the blob it has now must be about the one that was meant.
fn check_blob(response: &Response, digest: &Digest) -> Result<(), ClientError> {
    check_stored(response, |algorithm| (algorithm == digest.algorithm()).then_some(*digest))
}

/// The body of an upload: pieces from whoever reads the source.
struct Pieces<F> {
    source: mpsc::Receiver<Result<Bytes, F>>,
    left: u64,
    digest: Digest,
    activity: Arc<Activity>,
    fault: Arc<Mutex<Option<F>>>,
    progress: Progress,
}

/// Begins to read a source that blocks.
fn from_disk(
    source: impl Read + Send + 'static,
    descriptor: &Descriptor,
) -> mpsc::Receiver<Result<Bytes, SourceFault>> {
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let (digest, size) = (descriptor.digest, descriptor.size);
    // Ends with its source, or as soon as the body is dropped and nobody takes the next piece.
    tokio::task::spawn_blocking(move || {
        if let Err(fault) = read_verified(source, &digest, size, &sender) {
            drop(sender.blocking_send(Err(fault)));
        }
    });
    pieces
}

/// Hands on what comes from another registry; its reader says that the blob has ended only when its digest was right.
async fn feed(first: Option<Bytes>, mut source: BlobReader, sender: mpsc::Sender<Result<Bytes, ClientError>>) {
    let mut held = first;
    while let Some(piece) = held {
        let (piece, next) = match source.chunk().await {
            Ok(next) => (Ok(piece), next),
            // Of a blob that is found wrong, the last piece is never sent.
            Err(error) => (Err(error), None),
        };
        if sender.send(piece).await.is_err() {
            // The sending is over.
            return;
        }
        held = next;
    }
}

impl<F: Send + 'static> Body for Pieces<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        match std::task::ready!(this.source.poll_recv(cx)) {
            Some(Ok(piece)) => {
                this.left = this.left.saturating_sub(piece.len() as u64);
                this.activity.moved();
                if this.left == 0 {
                    this.activity.finish();
                }
                this.progress.tell(Event::BlobAdvanced { digest: this.digest, bytes: piece.len() as u64 });
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(fault)) => {
                *this.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                Poll::Ready(Some(Err(io::Error::other("the source of the upload is not what it should be"))))
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads exactly `size` bytes, and sends the last piece only if all of them have the digest.
fn read_verified(
    source: impl Read,
    digest: &Digest,
    size: u64,
    sender: &mpsc::Sender<Result<Bytes, SourceFault>>,
) -> Result<(), SourceFault> {
    // One byte more than there should be, to see that there is none.
    let mut source = source.take(size.saturating_add(1));
    let mut hasher = Hasher::new(digest.algorithm());
    let mut read = 0;
    let mut held: Option<Bytes> = None;
    loop {
        let piece = read_piece(&mut source).map_err(SourceFault::Io)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
        read += piece.len() as u64;
        if read > size {
            break;
        }
        if let Some(before) = held.replace(piece)
            && sender.blocking_send(Ok(before)).is_err()
        {
            return Ok(());
        }
    }
    if read != size {
        return Err(SourceFault::Blob(BlobFault::Size { expected: size, actual: read }));
    }
    if hasher.finish() != *digest {
        return Err(SourceFault::Blob(BlobFault::Damaged));
    }
    if let Some(last) = held {
        // Nobody takes it when the request is over already.
        drop(sender.blocking_send(Ok(last)));
    }
    Ok(())
}

fn read_piece(source: &mut impl Read) -> io::Result<Bytes> {
    let mut piece = BytesMut::zeroed(PIECE);
    let mut filled = 0;
    while filled < PIECE {
        match source.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece.freeze())
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    /// What would have gone over the wire, and how it ended.
    fn sent(source: &[u8], digest: &Digest, size: u64) -> (Vec<u8>, Result<(), SourceFault>) {
        let (sender, mut receiver) = mpsc::channel(64);
        let result = read_verified(source, digest, size, &sender);
        drop(sender);
        let mut wire = Vec::new();
        while let Ok(Ok(piece)) = receiver.try_recv() {
            wire.extend_from_slice(&piece);
        }
        (wire, result)
    }

    #[test]
    fn a_good_source_goes_out_whole() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let source: Vec<u8> = (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let digest = Digest::of(Algorithm::Sha512, &source);
            let (wire, result) = sent(&source, &digest, size as u64);
            assert!(result.is_ok(), "{size}");
            assert!(wire == source, "{size}");
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
            let (wire, result) = sent(&source, digest, size as u64);
            assert!(matches!(result, Err(SourceFault::Blob(_))), "{size}");
            assert!(size == 0 || wire.len() < size, "{size}: {} bytes went out", wire.len());
        }
    }
}
