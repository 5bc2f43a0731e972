//! Uploads: in one request, streamed, or in chunks; hashed while they are written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use portcullis_oci::{Algorithm, ContentRange, Digest, RepositoryName, UploadId, UploadStart, route};
use portcullis_store::{Store, StoreError, Upload};
use tokio::task::JoinHandle;

use crate::access::{AfterBody, Permit, Pull, Push};
use crate::api::blobs::add_digest;
use crate::api::blocking;
use crate::app::Call;
use crate::body::{RequestBody, ResponseBody, Watch};
use crate::error::{ApiError, header, upload_range};
use crate::peer::Peer;
use crate::recent::RecentBlobs;

/// What is gathered before it is written: large enough that a write costs little per byte, small enough that an upload
/// holds little memory.
const WRITE_BYTES: usize = 512 * 1024;

/// What a piece counts for at least: it keeps the whole buffer alive that it was read into, and a peer that sends single
/// bytes would otherwise have half a million of them waiting.
const PIECE_COST: usize = 16 * 1024;

/// When as many uploads are open as may be, those make room that nobody has gone on with for so long.
const CROWDED_AGE: Duration = Duration::from_hours(1);

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(crate) async fn start(
    peer: &Arc<Peer>,
    permit: Permit<Push>,
    start: UploadStart,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    match start {
        UploadStart::Session { algorithm } => open(&permit, algorithm, call.store).await,
        UploadStart::Monolithic { digest } => {
            let owner = permit.owner()?;
            let repository = permit.repository().clone();
            let algorithm = digest.algorithm();
            let upload = blocking(call.store, move |store| begin(store, &repository, algorithm, &owner)).await?;
            receive_and_finish(permit, upload.private(), digest, call).await
        }
        UploadStart::Mount { digest, from } => {
            let sources = match from {
                Some(from) => vec![from],
                None => call.recent.repositories_of(&digest),
            };
            for source in sources {
                // A mount reads the source: without the right to pull there it is as if it had no such blob.
                let Ok(source) = Permit::<Pull>::ask(peer, source) else { continue };
                let (from, to) = (source.repository().clone(), permit.repository().clone());
                if blocking(call.store, move |store| store.mount_blob(&from, &to, &digest)).await? {
                    call.recent.note(&digest, permit.repository());
                    return Ok(created(permit.repository(), &digest));
                }
            }
            open(&permit, digest.algorithm(), call.store).await
        }
    }
}

pub(crate) async fn status(
    permit: &Permit<Push>,
    id: UploadId,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let (repository, owner) = (permit.repository().clone(), permit.owner()?);
    let offset = blocking(call.store, move |store| store.upload_status(&repository, &id, &owner)).await?;
    Ok(session(StatusCode::NO_CONTENT, permit.repository(), &id, offset))
}

/// A chunk, or a stream without an announced end.
pub(crate) async fn append(
    permit: Permit<Push>,
    id: UploadId,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let upload = resume(&permit, id, call.store).await?;
    let chunk = check_range(&permit, &upload, call.headers)?;
    let begun = upload.offset();
    let (permit, received) = receive(permit, upload, call.body, call.limits.blob).await?;
    check_length(chunk, received.offset() - begun)?;
    let permit = permit.after_body()?;
    let offset = tokio::task::spawn_blocking(move || received.into_upload()?.save()).await??;
    Ok(session(StatusCode::ACCEPTED, permit.repository(), &id, offset))
}

pub(crate) async fn finish(
    permit: Permit<Push>,
    id: UploadId,
    digest: Digest,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let upload = resume(&permit, id, call.store).await?;
    let chunk = check_range(&permit, &upload, call.headers)?;
    let begun = upload.offset();
    let (permit, received) = receive(permit, upload, call.body, call.limits.blob).await?;
    check_length(chunk, received.offset() - begun)?;
    seal(&permit.after_body()?, received, digest, call.recent).await
}

pub(crate) async fn cancel(
    permit: &Permit<Push>,
    id: UploadId,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let (repository, owner) = (permit.repository().clone(), permit.owner()?);
    blocking(call.store, move |store| store.resume_upload(&repository, &id, &owner)?.cancel()).await?;
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn open(permit: &Permit<Push>, algorithm: Algorithm, store: &Store) -> Result<Response<ResponseBody>, ApiError> {
    let (repository, owner) = (permit.repository().clone(), permit.owner()?);
    let id = blocking(store, move |store| Ok(begin(store, &repository, algorithm, &owner)?.id())).await?;
    Ok(session(StatusCode::ACCEPTED, permit.repository(), &id, 0))
}

fn begin(store: &Store, repository: &RepositoryName, algorithm: Algorithm, owner: &str) -> Result<Upload, StoreError> {
    match store.start_upload(repository, algorithm, owner) {
        Err(StoreError::TooManyUploads { .. }) if store.expire_uploads(CROWDED_AGE)? > 0 => {
            store.start_upload(repository, algorithm, owner)
        }
        done => done,
    }
}

async fn resume(permit: &Permit<Push>, id: UploadId, store: &Store) -> Result<Upload, ApiError> {
    let (repository, owner) = (permit.repository().clone(), permit.owner()?);
    blocking(store, move |store| store.resume_upload(&repository, &id, &owner)).await
}

async fn receive_and_finish(
    permit: Permit<Push>,
    upload: Upload,
    digest: Digest,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let (permit, received) = receive(permit, upload, call.body, call.limits.blob).await?;
    seal(&permit.after_body()?, received, digest, call.recent).await
}

/// Makes the upload a blob of the repository.
async fn seal(
    permit: &AfterBody<Push>,
    received: Received,
    digest: Digest,
    recent: &RecentBlobs,
) -> Result<Response<ResponseBody>, ApiError> {
    tokio::task::spawn_blocking(move || received.into_upload()?.finish(&digest)).await??;
    recent.note(&digest, permit.repository());
    Ok(created(permit.repository(), &digest))
}

/// Writes and hashes one batch on the blocking pool while the next is decrypted here. The whole blob has `most` bytes
/// at most.
async fn receive(
    permit: Permit<Push>,
    upload: Upload,
    body: &mut RequestBody,
    most: u64,
) -> Result<(Permit<Push>, Received), ApiError> {
    let too_large = || ApiError::TooLarge { limit: most };
    let mut left = most.checked_sub(upload.offset()).ok_or_else(too_large)?;
    if body.announced() > left {
        return Err(too_large());
    }
    let mut watch = Watch::new(permit);
    let mut writer = Writer::new(upload);
    let (mut batch, mut gathered) = (Vec::new(), 0);
    while let Some(bytes) = watch.next_of(body).await? {
        left = left.checked_sub(bytes.len() as u64).ok_or_else(too_large)?;
        gathered += bytes.len().max(PIECE_COST);
        batch.push(bytes);
        if gathered >= WRITE_BYTES {
            writer.write(std::mem::take(&mut batch)).await?;
            gathered = 0;
        }
    }
    Ok((watch.into_permit(), Received { upload: writer.into_upload().await?, rest: batch }))
}

/// An upload whose bytes are all here, the last of them not yet written: that goes with what ends the request, in one
/// turn of the blocking pool.
struct Received {
    upload: Upload,
    rest: Vec<Bytes>,
}

impl Received {
    fn offset(&self) -> u64 {
        self.upload.offset() + self.rest.iter().map(|bytes| bytes.len() as u64).sum::<u64>()
    }

    /// Blocks.
    fn into_upload(mut self) -> Result<Upload, StoreError> {
        append_batch(&mut self.upload, &self.rest)?;
        Ok(self.upload)
    }
}

/// An upload whose last batch may still be on its way to the disk.
enum Writer {
    Idle(Box<Upload>),
    Writing(JoinHandle<Result<Box<Upload>, StoreError>>),
    /// A batch failed, and its upload with it.
    Failed,
}

impl Writer {
    fn new(upload: Upload) -> Self {
        Self::Idle(Box::new(upload))
    }

    /// Waits for the batch before, then hands this one over.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<(), ApiError> {
        let mut upload = self.settle().await?;
        *self = Self::Writing(tokio::task::spawn_blocking(move || {
            append_batch(&mut upload, &batch)?;
            Ok(upload)
        }));
        Ok(())
    }

    async fn into_upload(mut self) -> Result<Upload, ApiError> {
        Ok(*self.settle().await?)
    }

    async fn settle(&mut self) -> Result<Box<Upload>, ApiError> {
        match std::mem::replace(self, Self::Failed) {
            Self::Idle(upload) => Ok(upload),
            Self::Writing(batch) => Ok(batch.await??),
            Self::Failed => Err(ApiError::BodyCut { reason: "an earlier write failed".to_owned() }),
        }
    }
}

fn append_batch(upload: &mut Upload, batch: &[Bytes]) -> Result<(), StoreError> {
    let pieces: Vec<&[u8]> = batch.iter().map(AsRef::as_ref).collect();
    upload.append_all(&pieces)
}

/// Where `Content-Range` is given it must begin where the upload stands.
fn check_range(permit: &Permit<Push>, upload: &Upload, headers: &HeaderMap) -> Result<Option<ContentRange>, ApiError> {
    let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(None) };
    let range: ContentRange = value.to_str().unwrap_or_default().parse()?;
    let offset = upload.offset();
    if range.start != offset {
        let location = route::upload_location(permit.repository(), &upload.id());
        return Err(ApiError::UploadRange { start: range.start, offset, location });
    }
    Ok(Some(range))
}

fn check_length(chunk: Option<ContentRange>, actual: u64) -> Result<(), ApiError> {
    match chunk {
        Some(chunk) if chunk.len() != actual => Err(ApiError::SizeMismatch { expected: chunk.len(), actual }),
        _ => Ok(()),
    }
}

fn session(status: StatusCode, repository: &RepositoryName, id: &UploadId, offset: u64) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(&route::upload_location(repository, id)));
    headers.insert(RANGE, header(&upload_range(offset)));
    headers.insert(UPLOAD_UUID, header(&id.to_string()));
    // RFC 9110 §8.6: a 204 has no Content-Length.
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(&route::blob_location(repository, digest)));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    add_digest(headers, digest);
    response
}
