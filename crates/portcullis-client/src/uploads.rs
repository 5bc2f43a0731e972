//! Uploads: POST to begin, PATCH for each chunk but the last, PUT with the last or the whole blob to finish, GET to ask how
//! far it is, DELETE to give up. All under the identity that was chosen before the first of them. Must not know when a
//! failed upload goes on: `delivery.rs`.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use portcullis_oci::route::UploadStart;
use portcullis_oci::{Descriptor, Digest, Endpoint, RepositoryName};
use reqwest::Url;

use crate::activity::Activity;
use crate::auth::{Ask, Scopes};
use crate::error::{ClientError, ProtocolFault};
use crate::manifests::check_stored;
use crate::progress::Progress;
use crate::session::{Repeat, Response};
use crate::{Client, location};

mod memory;
mod supply;

pub(crate) use supply::Supply;

/// Where the registry wants an upload to go on. Its state is in it, so each answer replaces it.
#[derive(Clone, PartialEq, Eq)]
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

/// In how many requests a blob is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// In chunks of so many bytes.
    Chunks(u64),
    Whole,
}

/// How the sending of a blob has failed.
pub(crate) enum UploadError {
    /// On the side that the bytes come from.
    Source(ClientError),
    /// On the side they go to, so that it may go better in a while: after the pause that was asked for, if one was.
    Passing { error: ClientError, asked: Option<Duration> },
    /// On the side they go to.
    Refused(ClientError),
    /// A chunk is refused by a registry that may take the blob as a whole.
    NoChunks(ClientError),
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
        self.start_upload_telling(repository, digest, &Progress::none()).await
    }

    pub(crate) async fn start_upload_telling(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        progress: &Progress,
    ) -> Result<UploadLocation, ClientError> {
        let start = UploadStart::Session { algorithm: digest.algorithm() };
        let response = self.post_upload(repository, start, progress).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(response.into_error().await);
        }
        self.upload_location(&response, Scopes::push(repository))
    }

    /// Asks the registry to take a blob over from another of its repositories (distribution spec end-11).
    pub async fn mount_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<Mount, ClientError> {
        let start = UploadStart::Mount { digest: *digest, from: Some(from.clone()) };
        let response = self.post_upload(repository, start, &Progress::none()).await?;
        match response.status() {
            StatusCode::CREATED => check_blob(&response, digest).map(|()| Mount::Done),
            StatusCode::ACCEPTED => self.upload_location(&response, Scopes::push(repository)).map(Mount::Declined),
            _ => Err(response.into_error().await),
        }
    }

    /// Sends the whole blob in one PUT, once, and has it stored under the descriptor's digest.
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
        let supply = Supply::from_disk(source, source_path, descriptor, 0, progress);
        self.send_rest(&mut upload.clone(), descriptor, 0, &supply, Pace::Whole).await.map_err(UploadError::into)
    }

    /// Sends a blob from byte `from` on, which is how far the upload is. `upload` follows the registry's answers.
    pub(crate) async fn send_rest(
        &self,
        upload: &mut UploadLocation,
        descriptor: &Descriptor,
        from: u64,
        supply: &Supply,
        pace: Pace,
    ) -> Result<(), UploadError> {
        let Descriptor { digest, size, .. } = *descriptor;
        let mut part = Part { digest, size, from, length: size - from, supply };
        if let Pace::Chunks(chunk) = pace {
            while size - part.from > chunk.max(1) {
                part.length = chunk.max(1);
                *upload = self.send_chunk(upload, &part).await?;
                part.from += part.length;
                part.length = size - part.from;
            }
        }
        let (url, activity) = (upload.finishing(&digest), Arc::new(Activity::new()));
        let response = self.send_part(&Method::PUT, &url, &upload.scopes, &part, &activity).await?;
        if !response.status().is_success() {
            return Err(UploadError::Refused(response.into_error().await));
        }
        check_blob(&response, &digest).map_err(UploadError::Refused)
    }

    async fn send_chunk(&self, upload: &UploadLocation, part: &Part<'_>) -> Result<UploadLocation, UploadError> {
        let activity = Arc::new(Activity::new());
        let response = self.send_part(&Method::PATCH, &upload.url, &upload.scopes, part, &activity).await?;
        let status = response.status();
        // An answer before the end of the chunk acknowledges nothing.
        if status.is_success() && activity.is_finished() {
            let there = response.header(&RANGE).and_then(offset_after);
            if let Some(there) = there.filter(|there| *there != part.from + part.length) {
                let error =
                    response.fault(ProtocolFault::BadHeader { header: "Range", value: format!("0-{}", there - 1) });
                return Err(UploadError::Passing { error, asked: None });
            }
            return self.upload_location(&response, upload.scopes.clone()).map_err(UploadError::Refused);
        }
        let error = response.into_error().await;
        Err(match status.as_u16() {
            // It is about who asks.
            401 | 403 => UploadError::Refused(error),
            // Some registries take a blob in one piece only, or smaller chunks.
            200..=299 | 400..=499 | 501 => UploadError::NoChunks(error),
            _ => UploadError::Refused(error),
        })
    }

    /// Sends bytes of a blob in one request.
    async fn send_part(
        &self,
        method: &Method,
        url: &Url,
        scopes: &Scopes,
        part: &Part<'_>,
        activity: &Arc<Activity>,
    ) -> Result<Response, UploadError> {
        let body = reqwest::Body::wrap(part.supply.body(part.length, part.digest, activity));
        let headers = self.headers_for(part.headers(), scopes).await.map_err(UploadError::Refused)?;
        let sent = self.session().write_streaming(method, url, headers, body, activity).await;
        if let Some(fault) = part.supply.fault() {
            return Err(UploadError::Source(fault));
        }
        match (Repeat::Passing.reason(&sent), sent) {
            (None, Ok(response)) => Ok(response),
            (Some(reason), Ok(response)) => {
                Err(UploadError::Passing { error: response.into_error().await, asked: reason.asked })
            }
            (Some(reason), Err(error)) => Err(UploadError::Passing { error, asked: reason.asked }),
            (None, Err(error)) => Err(UploadError::Refused(error)),
        }
    }

    /// How far an upload of `size` bytes is, by the registry's word (distribution spec "Pushing a blob in chunks"), and where
    /// it goes on. `None`: it knows nothing of it any more, or nothing that can be used.
    ///
    /// # Errors
    /// There was no answer.
    pub(crate) async fn upload_offset(
        &self,
        upload: &UploadLocation,
        size: u64,
        progress: &Progress,
    ) -> Result<Option<(UploadLocation, u64)>, ClientError> {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let ask = Ask { method: &method, url: &upload.url, headers: &headers, scopes: &upload.scopes, progress };
        let response = self.read_as_known(&self.session(), &ask, Repeat::Passing).await?;
        let offset = response.header(&RANGE).and_then(offset_after).filter(|offset| *offset <= size);
        let Some(offset) = offset.filter(|_| response.status().is_success()) else { return Ok(None) };
        let known = self.upload_location(&response, upload.scopes.clone());
        Ok(Some((known.unwrap_or_else(|_| upload.clone()), offset)))
    }

    /// Gives an upload up, so that the registry need not keep what it has of it.
    pub async fn cancel_upload(&self, upload: &UploadLocation) -> Result<(), ClientError> {
        let (headers, progress) = (HeaderMap::new(), Progress::none());
        let (method, scopes) = (Method::DELETE, &upload.scopes);
        let ask = Ask { method: &method, url: &upload.url, headers: &headers, scopes, progress: &progress };
        let response = self.write(ask, Bytes::new(), Repeat::Never).await?;
        if response.status().is_success() { Ok(()) } else { Err(response.into_error().await) }
    }

    async fn post_upload(
        &self,
        repository: &RepositoryName,
        start: UploadStart,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let endpoint = Endpoint::StartUpload { repository: repository.clone(), start };
        let (method, url, scopes) = self.session().address(&endpoint);
        let headers = HeaderMap::new();
        let ask = Ask { method: &method, url: &url, headers: &headers, scopes: &scopes, progress };
        // A second one begins another upload, and the registry forgets the first.
        self.write(ask, Bytes::new(), Repeat::Passing).await
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
}

/// Bytes of a blob that go in one request.
struct Part<'a> {
    digest: Digest,
    /// Of the whole blob.
    size: u64,
    from: u64,
    length: u64,
    supply: &'a Supply,
}

impl Part<'_> {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        // Known in advance, and said so: some registries refuse a PUT in chunks.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.length));
        // Without a unit, as the specification has it.
        let range = format!("{}-{}", self.from, (self.from + self.length).saturating_sub(1));
        if let (true, Ok(range)) = (self.length > 0 && self.length < self.size, range.parse()) {
            headers.insert(CONTENT_RANGE, range);
        }
        headers
    }
}

impl fmt::Debug for UploadLocation {
    /// Without the query: the registry's state is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UploadLocation").field(&self.url.path()).finish()
    }
}

impl From<UploadError> for ClientError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Source(error)
            | UploadError::Passing { error, .. }
            | UploadError::Refused(error)
            | UploadError::NoChunks(error) => error,
        }
    }
}

/// `0-N` says that bytes 0 to N are there. `0-0` may also say that none is (Distribution and others write it so), and is no
/// help.
fn offset_after(range: &str) -> Option<u64> {
    let last: u64 = range.trim().strip_prefix("bytes=").unwrap_or(range.trim()).strip_prefix("0-")?.parse().ok()?;
    if last == 0 { None } else { last.checked_add(1) }
}

/// The registry's word about the blob it has now must be about the one that was meant.
fn check_blob(response: &Response, digest: &Digest) -> Result<(), ClientError> {
    check_stored(response, |algorithm| (algorithm == digest.algorithm()).then_some(*digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_an_upload_is() {
        for (range, offset) in
            [("0-1", Some(2)), ("0-67108863", Some(67_108_864)), ("bytes=0-9", Some(10)), (" 0-9 ", Some(10))]
        {
            assert_eq!(offset_after(range), offset, "{range}");
        }
        for range in ["", "0-0", "0-", "0--1", "1-9", "0-9/10", "9", "0-18446744073709551615", "0-18446744073709551616"]
        {
            assert_eq!(offset_after(range), None, "{range}");
        }
    }
}
