//! Reading blobs: whole, in part, and asking for their size.

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use portcullis_oci::{ByteRange, Digest};

use crate::access::{Delete, Permit, Pull};
use crate::api::blocking;
use crate::app::Call;
use crate::body::ResponseBody;
use crate::error::{ApiError, header, shared_header};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(crate) async fn get(
    permit: Permit<Pull>,
    digest: Digest,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let repository = permit.repository().clone();
    let blob = blocking(call.store, move |store| store.open_blob(&repository, &digest)).await?;
    let blob = blob.ok_or(ApiError::BlobUnknown { digest })?;
    if is_known(call.headers, &digest) {
        return Ok(not_modified(&digest));
    }
    let size = blob.size();
    let range = wanted_range(call.headers, &digest);
    let (offset, length) = match range {
        Some(range) => range.resolve(size).ok_or(ApiError::RangeNotSatisfiable { size })?,
        None => (0, size),
    };
    let mut response = Response::new(ResponseBody::blob(blob, offset, length, permit, call.buffers));
    add_headers(response.headers_mut(), &digest, length);
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let content_range = format!("bytes {offset}-{}/{size}", offset + length - 1);
        response.headers_mut().insert(CONTENT_RANGE, header(&content_range));
    }
    Ok(response)
}

pub(crate) async fn head(
    permit: &Permit<Pull>,
    digest: Digest,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let size = match call.store.stat_blob_at_hand(permit.repository(), &digest)? {
        Some(size) => Some(size),
        None => {
            let repository = permit.repository().clone();
            blocking(call.store, move |store| store.stat_blob(&repository, &digest)).await?
        }
    };
    let size = size.ok_or(ApiError::BlobUnknown { digest })?;
    if is_known(call.headers, &digest) {
        return Ok(not_modified(&digest));
    }
    let mut response = Response::new(ResponseBody::Empty);
    add_headers(response.headers_mut(), &digest, size);
    Ok(response)
}

/// Takes the blob out of this repository; refused while a manifest of it names the blob.
pub(crate) async fn delete(
    permit: &Permit<Delete>,
    digest: Digest,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let repository = permit.repository().clone();
    if !blocking(call.store, move |store| store.delete_blob(&repository, &digest)).await? {
        return Err(ApiError::BlobUnknown { digest });
    }
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// RFC 9110 §13.1.5: with `If-Range` the range counts only while what the peer has is a part of this very content.
fn wanted_range(headers: &HeaderMap, digest: &Digest) -> Option<ByteRange> {
    if headers.get(IF_RANGE).is_some_and(|known| known.as_bytes() != etag(digest).as_bytes()) {
        return None;
    }
    ByteRange::parse(headers.get(RANGE)?.to_str().ok()?)
}

/// Whether the peer has it already. A digest is a strong validator: what has it never changes. `*` is whatever there is.
pub(crate) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    if !headers.contains_key(IF_NONE_MATCH) {
        return false;
    }
    let etag = etag(digest);
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|value| value == "*" || value.trim_start_matches("W/") == etag)
}

pub(crate) fn not_modified(digest: &Digest) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    add_digest(response.headers_mut(), digest);
    response
}

pub(crate) fn add_digest(headers: &mut HeaderMap, digest: &Digest) {
    // The tag has the digest in it: they share its bytes.
    let etag = Bytes::from(etag(digest));
    headers.insert(CONTENT_DIGEST, shared_header(etag.slice(1..etag.len() - 1)));
    headers.insert(ETAG, shared_header(etag));
}

fn add_headers(headers: &mut HeaderMap, digest: &Digest, length: u64) {
    add_digest(headers, digest);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

fn etag(digest: &Digest) -> String {
    ["\"", digest.algorithm().as_str(), ":", &digest.hex(), "\""].concat()
}
