//! The URL grammar of the distribution API, in both directions: a request line becomes an [`Endpoint`], and an
//! [`Endpoint`] becomes a request line. The only code that spells URL paths.
//!
//! Repository names contain slashes, so a path is read from its right end: whatever stands before the endpoint's own
//! words is the name. Must not know what an endpoint does or who may call it.

use http::Method;

use crate::name::{InvalidName, InvalidTag};
use crate::{Algorithm, Digest, InvalidDigest, ManifestReference, RepositoryName, Tag};

mod query;

use query::Query;

/// An upload session's name in a URL: 128 random bits, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UploadId([u8; 16]);

/// Where a page of a list starts and how long it may be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// At most this many entries; the server has a limit of its own.
    pub n: Option<u32>,
    /// Only entries after this one.
    pub last: Option<String>,
}

/// How an upload begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UploadStart {
    /// An empty session.
    Session {
        /// The algorithm the client will finish with (`digest-algorithm`); SHA-256 where it does not say.
        algorithm: Algorithm,
    },
    /// The whole blob is in this request's body.
    Monolithic {
        /// Its digest.
        digest: Digest,
    },
    /// The blob is in the registry already, perhaps.
    Mount {
        /// Its digest.
        digest: Digest,
        /// The repository that has it; `None` asks the registry to find one.
        from: Option<RepositoryName>,
    },
}

/// Every request of the distribution API, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are the grammar's own words: repository, reference, digest, id, page")]
pub enum Endpoint {
    /// `GET /v2/`
    Base,
    /// `GET /v2/_catalog`
    Catalog { page: Page },
    /// `GET /v2/<name>/tags/list`
    ListTags { repository: RepositoryName, page: Page },
    /// `GET /v2/<name>/referrers/<digest>`
    Referrers { repository: RepositoryName, digest: Digest, artifact_type: Option<String>, page: Page },
    /// `GET /v2/<name>/manifests/<reference>`
    GetManifest { repository: RepositoryName, reference: ManifestReference },
    /// `HEAD /v2/<name>/manifests/<reference>`
    HeadManifest { repository: RepositoryName, reference: ManifestReference },
    /// `PUT /v2/<name>/manifests/<reference>[?tag=…]`
    PutManifest { repository: RepositoryName, reference: ManifestReference, tags: Vec<Tag> },
    /// `DELETE /v2/<name>/manifests/<reference>`
    DeleteManifest { repository: RepositoryName, reference: ManifestReference },
    /// `GET /v2/<name>/blobs/<digest>`
    GetBlob { repository: RepositoryName, digest: Digest },
    /// `HEAD /v2/<name>/blobs/<digest>`
    HeadBlob { repository: RepositoryName, digest: Digest },
    /// `DELETE /v2/<name>/blobs/<digest>`
    DeleteBlob { repository: RepositoryName, digest: Digest },
    /// `POST /v2/<name>/blobs/uploads/`
    StartUpload { repository: RepositoryName, start: UploadStart },
    /// `GET /v2/<name>/blobs/uploads/<id>`
    UploadStatus { repository: RepositoryName, id: UploadId },
    /// `PATCH /v2/<name>/blobs/uploads/<id>`
    AppendUpload { repository: RepositoryName, id: UploadId },
    /// `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>`
    FinishUpload { repository: RepositoryName, id: UploadId, digest: Digest },
    /// `DELETE /v2/<name>/blobs/uploads/<id>`
    CancelUpload { repository: RepositoryName, id: UploadId },
}

/// Why a request line is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No endpoint has this path.
    #[error("no such path in the distribution API")]
    NotFound,
    /// The path exists, not with this method.
    #[error("this path takes {allowed}")]
    Method {
        /// The methods it takes, as the `Allow` header lists them.
        allowed: &'static str,
    },
    /// The repository name is wrong.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The tag is wrong.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// A manifest is asked for, or to be deleted, by what can be no tag: there is none.
    #[error("no such manifest: {0}")]
    Reference(InvalidTag),
    /// A digest, in the path or in the query, is wrong.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// One manifest cannot get so many tags at once.
    #[error("a manifest takes at most {} tags in one request", query::MAX_TAGS)]
    TooManyTags,
    /// The upload's name is not one that this registry gives.
    #[error("no such upload")]
    UploadId,
    /// A query parameter is missing, stands twice, or has no possible value.
    #[error("query parameter `{key}` {problem}")]
    Query {
        /// The parameter.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl UploadId {
    /// From 128 random bits.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for UploadId {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = hex.get(2 * index..2 * index + 2).ok_or(RouteError::UploadId)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| RouteError::UploadId)?;
        }
        let id = Self(bytes);
        // One session has one spelling.
        if id.to_string() == text { Ok(id) } else { Err(RouteError::UploadId) }
    }
}

impl Endpoint {
    /// Reads a request line: `path` and `query` as they stand in it, still percent-encoded.
    ///
    /// # Errors
    /// [`RouteError`]; unknown query parameters are ignored, as the spec has it.
    ///
    /// ```
    /// use http::Method;
    /// use portcullis_oci::Endpoint;
    ///
    /// let endpoint = Endpoint::parse(&Method::GET, "/v2/team/app/manifests/latest", None)?;
    /// assert_eq!(endpoint.to_request(), (Method::GET, "/v2/team/app/manifests/latest".to_owned()));
    /// # Ok::<(), portcullis_oci::RouteError>(())
    /// ```
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, RouteError> {
        let path = query::decode_path(path).ok_or(RouteError::NotFound)?;
        let rest = match path.as_ref() {
            "/v2" | "/v2/" => return list(method, Self::Base),
            path => path.strip_prefix("/v2/").ok_or(RouteError::NotFound)?,
        };
        let query = Query::parse(query.unwrap_or_default());
        if rest == "_catalog" {
            return list(method, Self::Catalog { page: query.page()? });
        }
        let (rest, last) = rest.rsplit_once('/').ok_or(RouteError::NotFound)?;
        let (name, word) = split_last(rest);
        match (word, last) {
            ("tags", "list") => list(method, Self::ListTags { repository: name.parse()?, page: query.page()? }),
            ("manifests", reference) => manifest(method, name.parse()?, reference, &query),
            ("referrers", digest) => {
                let (repository, digest) = (name.parse()?, digest.parse()?);
                let artifact_type = query.one("artifactType")?.map(str::to_owned);
                list(method, Self::Referrers { repository, digest, artifact_type, page: query.page()? })
            }
            ("blobs", "uploads") => start_upload(method, name, &query),
            ("uploads", id) => match split_last(name) {
                (name, "blobs") if id.is_empty() => start_upload(method, name, &query),
                (name, "blobs") => upload(method, name.parse()?, id.parse()?, &query),
                _ => Err(RouteError::NotFound),
            },
            ("blobs", digest) => blob(method, name.parse()?, digest.parse()?),
            _ => Err(RouteError::NotFound),
        }
    }

    /// Writes the request line: method, and path with query, percent-encoded where it must be.
    pub fn to_request(&self) -> (Method, String) {
        match self {
            Self::Base => (Method::GET, "/v2/".to_owned()),
            Self::Catalog { page } => (Method::GET, query::with("/v2/_catalog".to_owned(), &query::page(page))),
            Self::ListTags { repository, page } => {
                (Method::GET, query::with(format!("/v2/{repository}/tags/list"), &query::page(page)))
            }
            Self::Referrers { repository, digest, artifact_type, page } => {
                let mut pairs = query::page(page);
                pairs.extend(artifact_type.iter().map(|artifact_type| ("artifactType", artifact_type.clone())));
                (Method::GET, query::with(format!("/v2/{repository}/referrers/{digest}"), &pairs))
            }
            Self::GetManifest { repository, reference } => (Method::GET, manifest_path(repository, reference)),
            Self::HeadManifest { repository, reference } => (Method::HEAD, manifest_path(repository, reference)),
            Self::PutManifest { repository, reference, tags } => {
                let pairs: Vec<_> = tags.iter().map(|tag| ("tag", tag.to_string())).collect();
                (Method::PUT, query::with(manifest_path(repository, reference), &pairs))
            }
            Self::DeleteManifest { repository, reference } => (Method::DELETE, manifest_path(repository, reference)),
            Self::GetBlob { repository, digest } => (Method::GET, format!("/v2/{repository}/blobs/{digest}")),
            Self::HeadBlob { repository, digest } => (Method::HEAD, format!("/v2/{repository}/blobs/{digest}")),
            Self::DeleteBlob { repository, digest } => (Method::DELETE, format!("/v2/{repository}/blobs/{digest}")),
            Self::StartUpload { repository, start } => {
                (Method::POST, query::with(format!("/v2/{repository}/blobs/uploads/"), &query::upload_start(start)))
            }
            Self::UploadStatus { repository, id } => (Method::GET, upload_path(repository, id)),
            Self::AppendUpload { repository, id } => (Method::PATCH, upload_path(repository, id)),
            Self::FinishUpload { repository, id, digest } => {
                (Method::PUT, query::with(upload_path(repository, id), &[("digest", digest.to_string())]))
            }
            Self::CancelUpload { repository, id } => (Method::DELETE, upload_path(repository, id)),
        }
    }

    /// The repository that the request is about; none for `/v2/` and the catalog.
    pub const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog { .. } => None,
            Self::ListTags { repository, .. }
            | Self::Referrers { repository, .. }
            | Self::GetManifest { repository, .. }
            | Self::HeadManifest { repository, .. }
            | Self::PutManifest { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::GetBlob { repository, .. }
            | Self::HeadBlob { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::StartUpload { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::AppendUpload { repository, .. }
            | Self::FinishUpload { repository, .. }
            | Self::CancelUpload { repository, .. } => Some(repository),
        }
    }

    /// The same request about another repository; `/v2/` and the catalog are about none.
    ///
    /// ```
    /// use http::Method;
    /// use portcullis_oci::Endpoint;
    ///
    /// let endpoint = Endpoint::parse(&Method::GET, "/v2/team/app/tags/list", None)?;
    /// let there = endpoint.in_repository(&"mirrored/app".parse()?);
    /// assert_eq!(there.to_request().1, "/v2/mirrored/app/tags/list");
    /// # Ok::<(), portcullis_oci::RouteError>(())
    /// ```
    #[must_use]
    pub fn in_repository(&self, other: &RepositoryName) -> Self {
        let mut moved = self.clone();
        match &mut moved {
            Self::Base | Self::Catalog { .. } => {}
            Self::ListTags { repository, .. }
            | Self::Referrers { repository, .. }
            | Self::GetManifest { repository, .. }
            | Self::HeadManifest { repository, .. }
            | Self::PutManifest { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::GetBlob { repository, .. }
            | Self::HeadBlob { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::StartUpload { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::AppendUpload { repository, .. }
            | Self::FinishUpload { repository, .. }
            | Self::CancelUpload { repository, .. } => repository.clone_from(other),
        }
        moved
    }
}

/// The `Location` of a blob, relative to the registry.
pub fn blob_location(repository: &RepositoryName, digest: &Digest) -> String {
    Endpoint::GetBlob { repository: repository.clone(), digest: *digest }.to_request().1
}

/// The `Location` of a manifest, relative to the registry.
pub fn manifest_location(repository: &RepositoryName, digest: &Digest) -> String {
    manifest_path(repository, &ManifestReference::Digest(*digest))
}

/// The `Location` of an upload, relative to the registry.
pub fn upload_location(repository: &RepositoryName, id: &UploadId) -> String {
    upload_path(repository, id)
}

fn manifest_path(repository: &RepositoryName, reference: &ManifestReference) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

fn upload_path(repository: &RepositoryName, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// What stands before the last slash, and what behind it.
fn split_last(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn start_upload(method: &Method, name: &str, query: &Query<'_>) -> Result<Endpoint, RouteError> {
    let repository = name.parse()?;
    only(method, &[Method::POST], "POST", Endpoint::StartUpload { repository, start: query.upload_start()? })
}

/// RFC 9110 §9.1: what can be got can be asked for with HEAD.
fn list(method: &Method, endpoint: Endpoint) -> Result<Endpoint, RouteError> {
    only(method, &[Method::GET, Method::HEAD], "GET, HEAD", endpoint)
}

fn only(method: &Method, taken: &[Method], allowed: &'static str, endpoint: Endpoint) -> Result<Endpoint, RouteError> {
    if taken.contains(method) { Ok(endpoint) } else { Err(RouteError::Method { allowed }) }
}

fn manifest(
    method: &Method,
    repository: RepositoryName,
    reference: &str,
    query: &Query<'_>,
) -> Result<Endpoint, RouteError> {
    let reference = if reference.contains(':') {
        ManifestReference::Digest(reference.parse()?)
    } else {
        ManifestReference::Tag(reference.parse().map_err(|invalid| match *method {
            Method::GET | Method::HEAD | Method::DELETE => RouteError::Reference(invalid),
            _ => RouteError::Tag(invalid),
        })?)
    };
    match *method {
        Method::GET => Ok(Endpoint::GetManifest { repository, reference }),
        Method::HEAD => Ok(Endpoint::HeadManifest { repository, reference }),
        Method::PUT => Ok(Endpoint::PutManifest { repository, reference, tags: query.tags()? }),
        Method::DELETE => Ok(Endpoint::DeleteManifest { repository, reference }),
        _ => Err(RouteError::Method { allowed: "GET, HEAD, PUT, DELETE" }),
    }
}

fn blob(method: &Method, repository: RepositoryName, digest: Digest) -> Result<Endpoint, RouteError> {
    match *method {
        Method::GET => Ok(Endpoint::GetBlob { repository, digest }),
        Method::HEAD => Ok(Endpoint::HeadBlob { repository, digest }),
        Method::DELETE => Ok(Endpoint::DeleteBlob { repository, digest }),
        _ => Err(RouteError::Method { allowed: "GET, HEAD, DELETE" }),
    }
}

fn upload(
    method: &Method,
    repository: RepositoryName,
    id: UploadId,
    query: &Query<'_>,
) -> Result<Endpoint, RouteError> {
    match *method {
        Method::GET => Ok(Endpoint::UploadStatus { repository, id }),
        Method::PATCH => Ok(Endpoint::AppendUpload { repository, id }),
        Method::PUT => Ok(Endpoint::FinishUpload { repository, id, digest: query.required_digest()? }),
        Method::DELETE => Ok(Endpoint::CancelUpload { repository, id }),
        _ => Err(RouteError::Method { allowed: "GET, PATCH, PUT, DELETE" }),
    }
}

#[cfg(test)]
mod tests;
