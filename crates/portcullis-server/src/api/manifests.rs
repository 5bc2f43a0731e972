//! Manifests: kept byte for byte, typed by their own body, taken only when what they name is here.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use portcullis_oci::{Algorithm, Content, Digest, Manifest, ManifestReference, RepositoryName, Tag, route};
use portcullis_store::{Store, StoredManifest};

use crate::access::{AfterBody, Delete, Permit, Pull, Push};
use crate::api::blobs::{add_digest, is_known, not_modified};
use crate::api::blocking;
use crate::app::Call;
use crate::body::{ResponseBody, Watch};
use crate::config::MissingChildren;
use crate::error::{ApiError, header};

/// One per tag of `?tag=` that was set.
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Says that the subject was understood: the client need not keep referrers under a tag of its own.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// `Accept` never converts and never makes a 404: there is one body, and its type is its own.
pub(crate) async fn get(
    permit: &Permit<Pull>,
    reference: ManifestReference,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let found = match at_hand(permit, &reference, &call) {
        Some(found) => Some(found),
        None => read(permit, &reference, &call).await?,
    };
    let (found, media_type) = found.ok_or(ApiError::ManifestUnknown { reference })?;
    if is_known(call.headers, &found.digest) {
        return Ok(not_modified(&found.digest));
    }
    let length = found.bytes.len();
    let mut response = Response::new(ResponseBody::full(found.bytes));
    let headers = response.headers_mut();
    add_digest(headers, &found.digest);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, media_type);
    Ok(response)
}

/// Without waiting, where both the manifest and its type are known from a moment ago.
fn at_hand(
    permit: &Permit<Pull>,
    reference: &ManifestReference,
    call: &Call<'_>,
) -> Option<(StoredManifest, HeaderValue)> {
    let found = call.store.manifest_at_hand(permit.repository(), reference)?;
    let media_type = call.media_types.get(&found.digest)?;
    Some((found, media_type))
}

async fn read(
    permit: &Permit<Pull>,
    reference: &ManifestReference,
    call: &Call<'_>,
) -> Result<Option<(StoredManifest, HeaderValue)>, ApiError> {
    let (repository, wanted) = (permit.repository().clone(), reference.clone());
    // Reading 4 MiB of JSON takes long enough to be kept out of the task.
    let found = blocking(call.store, move |store| {
        let found = store.manifest(&repository, &wanted)?;
        // What is stored and cannot be understood any more has no type to be sent with: it is absent.
        Ok(found.and_then(|found| {
            let media_type = HeaderValue::from_str(&Manifest::parse(&found.bytes, None).ok()?.media_type).ok()?;
            Some((found, media_type))
        }))
    })
    .await?;
    if let Some((found, media_type)) = &found {
        call.media_types.note(&found.digest, media_type);
    }
    Ok(found)
}

pub(crate) async fn put(
    permit: Permit<Push>,
    reference: ManifestReference,
    mut tags: Vec<Tag>,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut watch = Watch::new(permit);
    let bytes = call.body.whole(call.limits.manifest, &mut watch).await?;
    let permit = watch.into_permit();
    let content_type = match call.headers.get(CONTENT_TYPE) {
        Some(value) => Some(value.to_str().map_err(|_| ApiError::ManifestInvalid(not_text()))?.to_owned()),
        None => None,
    };
    let asked = tags.clone();
    let digest = match &reference {
        ManifestReference::Digest(digest) => Some(*digest),
        ManifestReference::Tag(_) => None,
    };
    tags.extend(match reference {
        ManifestReference::Tag(tag) => Some(tag),
        ManifestReference::Digest(_) => None,
    });
    let permit = permit.after_body()?;
    let check = move || Checked::new(bytes, content_type.as_deref(), digest);
    let Written { digest, subject } = write(&permit, check, tags, &call).await?;
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    add_digest(headers, &digest);
    headers.insert(LOCATION, header(&route::manifest_location(permit.repository(), &digest)));
    if let Some(subject) = subject {
        headers.insert(OCI_SUBJECT, header(&subject.to_string()));
    }
    for tag in asked {
        headers.append(OCI_TAG, header(tag.as_str()));
    }
    Ok(response)
}

/// A manifest that this registry takes, with its digest.
struct Checked {
    bytes: Bytes,
    manifest: Manifest,
    digest: Digest,
}

impl Checked {
    /// `digest` is the one it is pushed by; by tag it is the SHA-256.
    fn new(bytes: Bytes, content_type: Option<&str>, digest: Option<Digest>) -> Result<Self, ApiError> {
        let manifest = Manifest::parse(&bytes, content_type)?;
        if HeaderValue::from_str(&manifest.media_type).is_err() {
            return Err(ApiError::ManifestInvalid(not_text()));
        }
        if matches!(manifest.content, Content::Schema1 { .. }) {
            return Err(ApiError::Schema1);
        }
        let digest = digest.unwrap_or_else(|| Digest::of(Algorithm::Sha256, &bytes));
        Ok(Self { bytes, manifest, digest })
    }
}

/// A manifest that is visible now.
struct Written {
    digest: Digest,
    subject: Option<Digest>,
}

/// Makes the manifest and its tags visible, if it passes the check and all that it needs is here.
async fn write(
    permit: &AfterBody<Push>,
    check: impl FnOnce() -> Result<Checked, ApiError> + Send + 'static,
    tags: Vec<Tag>,
    call: &Call<'_>,
) -> Result<Written, ApiError> {
    let (repository, store, missing_children) =
        (permit.repository().clone(), call.store.clone(), call.missing_children);
    let check_and_put = move || {
        let checked = check()?;
        // From the checks to the end of the write: what the checks found must not be collected in between.
        let _putting = store.begin_put(&repository);
        check_blobs(&store, &repository, &checked.manifest)?;
        check_children(&store, &repository, &checked.manifest, missing_children)?;
        store.put_manifest(&repository, &checked.digest, &checked.bytes, &tags)?;
        let subject = checked.manifest.subject.map(|subject| subject.digest);
        Ok(Written { digest: checked.digest, subject })
    };
    tokio::task::spawn_blocking(check_and_put).await?
}

/// By tag: the tag alone. By digest: the tags that point to it, then the manifest.
pub(crate) async fn delete(
    permit: &Permit<Delete>,
    reference: ManifestReference,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let (repository, wanted) = (permit.repository().clone(), reference.clone());
    let deleted = blocking(call.store, move |store| match &wanted {
        ManifestReference::Tag(tag) => store.delete_tag(&repository, tag),
        ManifestReference::Digest(digest) => store.delete_manifest(&repository, digest),
    })
    .await?;
    if !deleted {
        return Err(ApiError::ManifestUnknown { reference });
    }
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Config and layers are in this repository, and as large as the manifest says: an engine refuses to pull others.
fn check_blobs(store: &Store, repository: &RepositoryName, manifest: &Manifest) -> Result<(), ApiError> {
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    for blob in manifest.required_descriptors() {
        if !seen.insert((blob.digest, blob.size)) {
            continue;
        }
        match store.stat_blob(repository, &blob.digest)? {
            Some(actual) if actual == blob.size => {}
            Some(actual) => return Err(ApiError::WrongSize { digest: blob.digest, actual, stated: blob.size }),
            None => missing.push(blob.digest),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(ApiError::ManifestBlobUnknown { digests: missing }) }
}

/// The children of an index may come later, or live elsewhere, unless the config says otherwise. Those that are here
/// are asked for in any case: whoever names them relies on them from now on.
fn check_children(
    store: &Store,
    repository: &RepositoryName,
    manifest: &Manifest,
    missing_children: MissingChildren,
) -> Result<(), ApiError> {
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    for child in manifest.children() {
        if seen.insert(child.digest) && !store.has_manifest(repository, &child.digest)? {
            missing.push(child.digest);
        }
    }
    match missing_children {
        MissingChildren::Refuse if !missing.is_empty() => Err(ApiError::ManifestBlobUnknown { digests: missing }),
        MissingChildren::Accept | MissingChildren::Refuse => Ok(()),
    }
}

fn not_text() -> portcullis_oci::ManifestError {
    portcullis_oci::ManifestError::ContentType {
        media_type: "not a media type".to_owned(),
        content_type: "not visible ASCII".to_owned(),
    }
}
