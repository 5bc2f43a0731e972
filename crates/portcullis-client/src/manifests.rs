//! Manifests: GET, HEAD, PUT and DELETE of `/v2/<name>/manifests/<reference>`.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use portcullis_oci::{
    Algorithm, Descriptor, Digest, Endpoint, Manifest, ManifestReference, RepositoryName, manifest, media,
};

use crate::Client;
use crate::auth::Ask;
use crate::error::{ClientError, DigestMismatch, ProtocolFault};
use crate::progress::Progress;
use crate::session::{Repeat, Response};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Whether a registry said that it saw the subject of a manifest that was put: one that does not say so knows nothing of
/// subjects.
pub(crate) enum SubjectKnown {
    Yes,
    No,
}

/// A manifest as it was received: whole, verified, understood.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The digest of the bytes: the one asked for, else the registry's where it names one, else SHA-256.
    pub digest: Digest,
    /// The bytes, unchanged.
    pub bytes: Bytes,
    /// What they say.
    pub manifest: Manifest,
}

/// What HEAD says about a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`, if there is a possible one. It is the registry's word, not verified.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<String>,
    /// `Content-Length`.
    pub size: Option<u64>,
}

impl Client {
    /// Fetches a manifest of at most 4 MiB and verifies it: against the digest asked for, or for a tag against the digest
    /// that the registry names.
    ///
    /// # Errors
    /// [`ClientError::Status`] (404 when there is none: [`ClientError::is_not_found`]), [`ClientError::Digest`],
    /// [`ClientError::Manifest`] when it cannot be understood.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<FetchedManifest, ClientError> {
        self.manifest_telling(repository, reference, &Progress::none()).await
    }

    pub(crate) async fn manifest_telling(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        progress: &Progress,
    ) -> Result<FetchedManifest, ClientError> {
        let endpoint = Endpoint::GetManifest { repository: repository.clone(), reference: reference.clone() };
        let mut response = self.read(&endpoint, &accept(), progress).await?;
        if response.status() != StatusCode::OK {
            return Err(response.into_error().await);
        }
        let bytes = response.whole(manifest::MAX_BYTES).await?;
        let digest = verify(&response, reference, &bytes)?;
        let manifest = Manifest::parse(&bytes, manifest_type(&response))
            .map_err(|source| ClientError::Manifest { name: reference.to_string(), source })?;
        Ok(FetchedManifest { digest, bytes, manifest })
    }

    /// Asks about a manifest; `None` when there is none.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<ManifestHead>, ClientError> {
        let endpoint = Endpoint::HeadManifest { repository: repository.clone(), reference: reference.clone() };
        let response = self.read(&endpoint, &accept(), &Progress::none()).await?;
        match response.status() {
            StatusCode::OK => Ok(Some(ManifestHead {
                digest: stated_digest(&response),
                media_type: response.header(&CONTENT_TYPE).map(|value| media::essence(value).to_owned()),
                size: response.header(&CONTENT_LENGTH).and_then(|value| value.parse().ok()),
            })),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(response.into_error().await),
        }
    }

    /// Stores a manifest under a tag or its digest. Repeated within [`crate::Retries`]: twice is as good as once.
    ///
    /// # Errors
    /// [`ClientError::Status`], with the registry's own words: it refuses a manifest whose blobs it does not have.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        self.put_manifest_for(repository, reference, media_type, bytes, &Progress::none()).await.map(drop)
    }

    /// The same; says whether the registry keeps the list of what refers to the manifest's subject.
    pub(crate) async fn put_manifest_for(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
        media_type: &str,
        bytes: Bytes,
        progress: &Progress,
    ) -> Result<SubjectKnown, ClientError> {
        let endpoint =
            Endpoint::PutManifest { repository: repository.clone(), reference: reference.clone(), tags: Vec::new() };
        let (method, url, scopes) = self.session().address(&endpoint);
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(media_type) {
            headers.insert(CONTENT_TYPE, value);
        }
        let ask = Ask { method: &method, url: &url, headers: &headers, scopes: &scopes, progress };
        let response = self.write(ask, bytes.clone(), Repeat::Passing).await?;
        if !response.status().is_success() {
            return Err(response.into_error().await);
        }
        check_stored(&response, |algorithm| Some(Digest::of(algorithm, &bytes)))?;
        Ok(if response.header(&SUBJECT).is_some() { SubjectKnown::Yes } else { SubjectKnown::No })
    }

    /// Deletes a tag, or a manifest by its digest, which takes the tags that point to it along. Never repeated:
    /// nobody knows whether it was done.
    ///
    /// # Errors
    /// [`ClientError::Status`]: 404 when there is none, 405 when the registry does not delete; Distribution 2 deletes by
    /// digest only and answers 400 to a tag.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<(), ClientError> {
        let endpoint = Endpoint::DeleteManifest { repository: repository.clone(), reference: reference.clone() };
        let (method, url, scopes) = self.session().address(&endpoint);
        let (headers, progress) = (HeaderMap::new(), Progress::none());
        let ask = Ask { method: &method, url: &url, headers: &headers, scopes: &scopes, progress: &progress };
        let response = self.write(ask, Bytes::new(), Repeat::Never).await?;
        if response.status().is_success() { Ok(()) } else { Err(response.into_error().await) }
    }
}

impl FetchedManifest {
    /// A descriptor of this manifest, as an index would list it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.manifest.media_type.clone(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            urls: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
            platform: None,
            artifact_type: None,
            data: None,
        }
    }
}

/// The registry's word about what it stored, where it gives one, must be about what was sent.
/// `sent` computes the digest of it with an algorithm, or does not know.
pub(crate) fn check_stored(response: &Response, sent: impl Fn(Algorithm) -> Option<Digest>) -> Result<(), ClientError> {
    let Some(actual) = stated_digest(response) else { return Ok(()) };
    match sent(actual.algorithm()) {
        Some(expected) if expected != actual => {
            let (expected, actual) = (expected.to_string(), actual.to_string());
            Err(response.fault(ProtocolFault::StoredOther { expected, actual }))
        }
        _ => Ok(()),
    }
}

fn accept() -> HeaderMap {
    media::MANIFESTS.iter().map(|media_type| (ACCEPT, HeaderValue::from_static(media_type))).collect()
}

fn stated_digest(response: &Response) -> Option<Digest> {
    response.header(&CONTENT_DIGEST)?.parse().ok()
}

/// The digest of the bytes, if it is the one it has to be.
fn verify(response: &Response, reference: &ManifestReference, bytes: &[u8]) -> Result<Digest, ClientError> {
    let expected = match reference {
        ManifestReference::Digest(digest) => Some(*digest),
        ManifestReference::Tag(_) => stated_digest(response),
    };
    let Some(expected) = expected else { return Ok(Digest::of(Algorithm::Sha256, bytes)) };
    let actual = Digest::of(expected.algorithm(), bytes);
    if actual == expected {
        return Ok(actual);
    }
    let from = response.host().to_string();
    Err(ClientError::Digest(Box::new(DigestMismatch { from, expected, actual })))
}

/// The Content-Type where it names a kind of manifest. Registries that serve `application/json` or worse are common, and
/// the body says what it is; one that names another kind than the body is refused by [`Manifest::parse`].
fn manifest_type(response: &Response) -> Option<&str> {
    let content_type = response.header(&CONTENT_TYPE)?;
    let essence = media::essence(content_type);
    let known = [media::DOCKER_SCHEMA1, media::DOCKER_SCHEMA1_SIGNED];
    (media::MANIFESTS.contains(&essence) || known.contains(&essence)).then_some(content_type)
}
