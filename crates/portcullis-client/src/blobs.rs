//! Blobs: GET and HEAD of `/v2/<name>/blobs/<digest>`. A blob is read as a stream that cannot end well unless every byte
//! was what its descriptor says.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use portcullis_oci::{Descriptor, Digest, Endpoint, Hasher, RegistryHost, RepositoryName};
use tokio::time::{Instant, sleep};

use crate::Client;
use crate::attempts::Attempts;
use crate::error::{ClientError, DigestMismatch, ProtocolFault};
use crate::progress::{Event, Progress};
use crate::session::Response;

/// So many bytes without a break make up for the breaks before them, whichever way they go.
pub(crate) const CREDIT: u64 = 8 * 1024 * 1024;

/// What HEAD says about a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHead {
    /// `Content-Length`, where the registry sends it.
    pub size: Option<u64>,
}

/// A blob on its way. [`BlobReader::chunk`] returns `None` only after the whole blob has come and its digest is right;
/// whoever keeps what came before that keeps unverified bytes.
///
/// When the connection breaks in the middle, the rest is asked for with a `Range`, a bounded number of times.
#[derive(Debug)]
pub struct BlobReader {
    client: Client,
    repository: RepositoryName,
    digest: Digest,
    size: u64,
    response: Response,
    /// The first answer's, where it is a strong one: another one later is another content.
    etag: Option<HeaderValue>,
    /// `None` once the digest was found right, or where the reader's owner hashes.
    hasher: Option<Hasher>,
    received: u64,
    /// Bytes at the start of the present answer that were received before: it ignored the range.
    to_skip: u64,
    attempts: Attempts,
    received_at_break: u64,
    /// Hosts that sent the beginning, and then broke off for good.
    earlier: Vec<RegistryHost>,
    progress: Progress,
}

impl Client {
    /// Asks about a blob; `None` when the repository does not have it.
    pub async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobHead>, ClientError> {
        let endpoint = Endpoint::HeadBlob { repository: repository.clone(), digest: *digest };
        let response = self.read(&endpoint, &HeaderMap::new(), &Progress::none()).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(BlobHead { size: content_length(&response) })),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(response.into_error().await),
        }
    }

    /// Opens a blob for reading: digest and size are the descriptor's, and the bytes are held against both.
    ///
    /// # Errors
    /// [`ClientError::Status`]: 404 when the repository does not have it.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        descriptor: &Descriptor,
        progress: &Progress,
    ) -> Result<BlobReader, ClientError> {
        let mut reader = self.blob_from(repository, descriptor, 0, progress).await?;
        reader.hasher = Some(Hasher::new(descriptor.digest.algorithm()));
        Ok(reader)
    }

    /// Opens a blob for reading from byte `from` on. The digest is left to whoever has the bytes before that and verifies
    /// all of them while writing: hashing twice would double the cost of a pull.
    ///
    /// A registry that gives no such part sends all of it, and what is known is skipped: nothing here says that it is the
    /// same content (an ETag of an earlier process would be no better), so the digest decides.
    pub(crate) async fn blob_from(
        &self,
        repository: &RepositoryName,
        descriptor: &Descriptor,
        from: u64,
        progress: &Progress,
    ) -> Result<BlobReader, ClientError> {
        let Descriptor { digest, size, .. } = *descriptor;
        let rest = (from > 0).then_some((from, None));
        let mut response = self.open_blob(repository, &digest, rest, progress).await?;
        let is_rest =
            from > 0 && response.status() == StatusCode::PARTIAL_CONTENT && check_range(&response, from, size).is_ok();
        if from > 0
            && !is_rest
            && matches!(response.status(), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
        {
            response = self.open_blob(repository, &digest, None, progress).await?;
        }
        if !is_rest {
            if response.status() != StatusCode::OK {
                return Err(response.into_error().await);
            }
            if let Some(actual) = content_length(&response).filter(|actual| *actual != size) {
                return Err(response.fault(ProtocolFault::Length { expected: size, actual }));
            }
        }
        Ok(BlobReader {
            etag: strong_etag(&response),
            client: self.clone(),
            repository: repository.clone(),
            digest,
            size,
            response,
            hasher: None,
            received: from,
            to_skip: if is_rest { 0 } else { from },
            attempts: Attempts::new(self.retries()),
            received_at_break: from,
            earlier: Vec::new(),
            progress: progress.clone(),
        })
    }

    async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        rest: Option<(u64, Option<&HeaderValue>)>,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let endpoint = Endpoint::GetBlob { repository: repository.clone(), digest: *digest };
        let mut headers = HeaderMap::new();
        if let Some((from, etag)) = rest
            && let Ok(range) = format!("bytes={from}-").parse()
        {
            headers.insert(RANGE, range);
            headers.extend(etag.map(|etag| (IF_RANGE, etag.clone())));
        }
        self.read(&endpoint, &headers, progress).await
    }
}

impl BlobReader {
    /// The blob's size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; `None` at the end of a blob that was found right. Not cancel safe.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] with [`ProtocolFault::TooLong`] as soon as a byte too many comes,
    /// [`ClientError::Digest`] at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.response.chunk().await {
                Ok(Some(chunk)) => {
                    let fresh = self.without_known(chunk);
                    if !fresh.is_empty() {
                        return self.take(fresh).map(Some);
                    }
                }
                Ok(None) if self.received == self.size => return self.finish().map(|()| None),
                Ok(None) => {
                    let fault = ProtocolFault::Length { expected: self.size, actual: self.received };
                    return Err(self.response.fault(fault));
                }
                // All bytes are there: a server that closes without the end that HTTP asks for takes nothing away.
                Err(_) if self.received == self.size && self.to_skip == 0 => return self.finish().map(|()| None),
                Err(error) => self.resume(error).await?,
            }
        }
    }

    fn without_known(&mut self, mut chunk: Bytes) -> Bytes {
        let known = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(chunk.len());
        self.to_skip -= known as u64;
        chunk.split_off(known)
    }

    fn take(&mut self, chunk: Bytes) -> Result<Bytes, ClientError> {
        self.received += chunk.len() as u64;
        if self.received > self.size {
            return Err(self.response.fault(ProtocolFault::TooLong { limit: self.size }));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        self.progress.tell(Event::BlobAdvanced { digest: self.digest, bytes: chunk.len() as u64 });
        Ok(chunk)
    }

    fn finish(&mut self) -> Result<(), ClientError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual == self.digest {
            return Ok(());
        }
        let from = self.senders();
        Err(ClientError::Digest(Box::new(DigestMismatch { from, expected: self.digest, actual })))
    }

    /// Whom the bytes are from.
    pub(crate) fn senders(&self) -> String {
        let hosts: Vec<&str> = self.earlier.iter().chain([self.response.host()]).map(RegistryHost::as_str).collect();
        hosts.join(" and ")
    }

    /// Asks for the rest after a break: where it broke, or after too many breaks the next host that may have it. Gives the
    /// break back when there is none.
    async fn resume(&mut self, error: ClientError) -> Result<(), ClientError> {
        let passing = matches!(&error, ClientError::Connection { failure, .. } if failure.is_passing());
        if self.received - self.received_at_break >= CREDIT {
            self.attempts.got_on();
        }
        self.received_at_break = self.received;
        if !passing {
            return Err(error);
        }
        let Some(pause) = self.attempts.pause(Instant::now(), None) else { return self.go_on_elsewhere(error).await };
        let request = format!("blob {}", self.digest);
        tracing::debug!(%request, from = self.received, %error, "resuming");
        self.progress.tell(Event::Retrying { request, reason: error.to_string(), pause });
        sleep(pause).await;
        self.reopen().await
    }

    /// At the next host, which has an ETag of its own.
    async fn go_on_elsewhere(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !self.client.pass_over(&self.response, &error) {
            return Err(error);
        }
        self.etag = None;
        self.attempts.got_on();
        self.earlier.push(self.response.host().clone());
        self.reopen().await
    }

    async fn reopen(&mut self) -> Result<(), ClientError> {
        let rest = (self.received > 0).then_some((self.received, self.etag.as_ref()));
        let response = self.client.open_blob(&self.repository, &self.digest, rest, &self.progress).await?;
        self.to_skip = match response.status() {
            StatusCode::OK => self.received,
            StatusCode::PARTIAL_CONTENT => {
                check_range(&response, self.received, self.size)?;
                0
            }
            _ => return Err(response.into_error().await),
        };
        self.response = response;
        Ok(())
    }
}

/// The part that was sent must start where the break was, and be of a blob of this size.
fn check_range(response: &Response, from: u64, size: u64) -> Result<(), ClientError> {
    let value = response.header(&CONTENT_RANGE).unwrap_or_default();
    let is_rest = value.strip_prefix(&format!("bytes {from}-")).and_then(|rest| rest.split_once('/')).is_some_and(
        |(last, whole)| last.parse().is_ok_and(|last: u64| last < size) && (whole == "*" || whole.parse() == Ok(size)),
    );
    if is_rest {
        return Ok(());
    }
    let value = value.chars().take(100).collect();
    Err(response.fault(ProtocolFault::BadHeader { header: "Content-Range", value }))
}

/// A weak one says nothing about bytes (RFC 9110 §13.1.5).
fn strong_etag(response: &Response) -> Option<HeaderValue> {
    let etag = response.header(&ETAG).filter(|etag| etag.starts_with('"'))?;
    HeaderValue::from_str(etag).ok()
}

fn content_length(response: &Response) -> Option<u64> {
    response.header(&CONTENT_LENGTH)?.parse().ok()
}
