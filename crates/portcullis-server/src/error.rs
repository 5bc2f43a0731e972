//! The only place where an error becomes a status and an OCI error body.

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use portcullis_oci::{Digest, Endpoint, ErrorBody, ErrorCode, ManifestError, ManifestReference, RouteError};
use portcullis_store::StoreError;
use serde_json::{Value, json};

use crate::access::Denied;
use crate::body::ResponseBody;
use crate::events::operation::Operation;
use crate::reason::Reason;

/// The word of a refusal, for programs; the error code has to be one of the specification's.
const REASON: HeaderName = HeaderName::from_static("portcullis-reason");
/// RFC 9110 §11.6.1 wants a challenge with a 401. No engine knows this scheme: each gives up and shows the message.
const CHALLENGE: &str = "Mutual realm=\"client certificate\"";

/// The longest reason phrase, in bytes: nginx in front of us takes 4 KiB of status line and headers.
const MAX_PHRASE: usize = 1024;

/// How many digests an error names.
const LISTED: usize = 100;

/// Everything that a request can be answered with but success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("{0}")]
    Denied(Denied),
    /// Not let in at all.
    #[error("{0}")]
    Stranger(Reason),
    /// The same on `/v2/`, where engines ask whether they may come in at all: with 403 there they lose the message.
    #[error("{reason}")]
    Unauthorized { reason: Reason, also: Option<DockerChallenge> },
    #[error("blob {digest} is not in this repository")]
    BlobUnknown { digest: Digest },
    #[error("manifest {reference} is not in this repository")]
    ManifestUnknown { reference: ManifestReference },
    #[error("there is no such repository")]
    NameUnknown,
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    #[error("Docker's schema 1 manifests are read but no longer taken: push with a current client")]
    Schema1,
    #[error("the manifest names {} that this repository does not have: push them first", list(.digests))]
    ManifestBlobUnknown { digests: Vec<Digest> },
    #[error("the content has the digest {actual}, the request says {expected}")]
    DigestMismatch { expected: Box<Digest>, actual: Box<Digest> },
    #[error("Content-Range begins at {start}, the upload stands at {offset}")]
    UploadRange { start: u64, offset: u64, location: String },
    #[error("{0}")]
    ContentRange(#[from] portcullis_oci::InvalidRange),
    #[error("the range is outside of the blob's {size} bytes")]
    RangeNotSatisfiable { size: u64 },
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("{digest} has {actual} bytes, the manifest says {stated}: build or push it again")]
    WrongSize { digest: Digest, actual: u64, stated: u64 },
    #[error("{limit} requests are under way, and no more can be: try again in a moment")]
    TooManyRequests { limit: usize },
    #[error("the referrers of {limit} other repositories are being read for the first time: try again in a moment")]
    TooManyReadings { limit: usize },
    #[error("the body ended early: {reason}")]
    BodyCut { reason: String },
    #[error("{bytes} bytes of the body came within {seconds} seconds, {least} are the least")]
    BodyStalled { seconds: u64, bytes: u64, least: u64 },
    #[error("the body has {actual} bytes, Content-Range says {expected}")]
    SizeMismatch { expected: u64, actual: u64 },
    #[error(transparent)]
    Store(StoreError),
    #[error("the work was given up: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DigestMismatch { expected, actual } => Self::DigestMismatch { expected, actual },
            error => Self::Store(error),
        }
    }
}

impl ApiError {
    /// Status and code, by the distribution spec's "Error Codes" and endpoint table.
    pub(crate) fn status(&self) -> (StatusCode, ErrorCode) {
        match self {
            Self::Route(error) => route_status(error),
            Self::Denied(Denied::ReadOnly) => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
            Self::Denied(_) | Self::Stranger(_) => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            Self::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized),
            Self::BlobUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
            Self::ManifestUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            Self::NameUnknown => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
            Self::ManifestInvalid(ManifestError::TooLarge { .. }) | Self::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid)
            }
            Self::ManifestInvalid(_) | Self::Schema1 | Self::WrongSize { .. } => {
                (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid)
            }
            Self::ManifestBlobUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown),
            Self::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            Self::UploadRange { .. } | Self::ContentRange(_) => {
                (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid)
            }
            Self::RangeNotSatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid),
            Self::SizeMismatch { .. } => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
            Self::TooManyRequests { .. } | Self::TooManyReadings { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
            }
            Self::BodyCut { .. } => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
            Self::BodyStalled { .. } => (StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid),
            Self::Store(error) => store_status(error),
            Self::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
        }
    }

    /// The answer to a request about `operation`. What went wrong inside is logged here, once, with the path, which the
    /// peer is not told.
    pub(crate) fn into_response(self, operation: &Operation) -> Response<ResponseBody> {
        let (status, code) = self.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %Chain(&self), about = operation.object(), "a request failed");
        }
        let message = self.message(operation);
        let phrase = if self.is_refusal() { phrase(status, &message) } else { None };
        let body = ErrorBody::new(code, message, self.detail()).to_json();
        let mut response = Response::new(ResponseBody::full(body));
        *response.status_mut() = status;
        phrase.map(|phrase| response.extensions_mut().insert(phrase));
        self.add_headers(&mut response);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// Whether the message tells a peer why it may not.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Stranger(_)
                | Self::Unauthorized { .. }
                | Self::Denied(Denied::NotAllowed { .. } | Denied::Refused { .. })
        )
    }

    /// What the peer is told. Where the disk failed: what was tried, on what of the peer's own, and what the kernel said;
    /// never where it lies.
    fn message(&self, operation: &Operation) -> String {
        match self {
            Self::Store(error @ StoreError::Io { action, .. }) => format!(
                "the registry's disk failed at {} ({action}: {}); nothing was acknowledged. Whoever runs the registry finds \
                 the file in its log: check that disk and the kernel's log (dmesg)",
                operation.object(),
                error.cause().unwrap_or_default(),
            ),
            Self::Store(error @ StoreError::ReadOnly { .. }) => format!(
                "the registry takes nothing for {} since its disk failed to sync: {}; pulls go on, and pushes do again when \
                 the disk takes a test write. Whoever runs the registry: `portcullis status` names the file; check that \
                 disk and the kernel's log (dmesg)",
                operation.object(),
                error.cause().unwrap_or_default(),
            ),
            Self::Store(StoreError::Locked { .. } | StoreError::Collecting) | Self::Task(_) => format!(
                "the registry failed at {}, by a fault of its own and not of the disk: its log says which",
                operation.object(),
            ),
            error => error.to_string(),
        }
    }

    fn detail(&self) -> Value {
        match self {
            Self::BlobUnknown { digest } => json!({ "digest": digest }),
            Self::ManifestBlobUnknown { digests } => json!({ "digests": listed(digests) }),
            Self::Denied(Denied::NotAllowed { reason, action, repository }) => {
                json!({ "reason": reason.code(), "action": action.as_str(), "repository": repository.as_str() })
            }
            Self::Denied(Denied::Refused { reason, .. })
            | Self::Stranger(reason)
            | Self::Unauthorized { reason, .. } => {
                json!({ "reason": reason.code() })
            }
            _ => Value::Null,
        }
    }

    fn add_headers(&self, response: &mut Response<ResponseBody>) {
        let headers = response.headers_mut();
        match self {
            Self::Route(RouteError::Method { allowed }) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Store(StoreError::BlobInUse { .. }) | Self::Denied(Denied::ReadOnly) => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::UploadRange { offset, location, .. } => {
                headers.insert(RANGE, header(&upload_range(*offset)));
                headers.insert(LOCATION, header(location));
            }
            Self::RangeNotSatisfiable { size } => {
                headers.insert(CONTENT_RANGE, header(&format!("bytes */{size}")));
            }
            Self::TooManyRequests { .. }
            | Self::TooManyReadings { .. }
            | Self::Store(
                StoreError::ReadOnly { .. } | StoreError::UploadBusy { .. } | StoreError::TooManyUploads { .. },
            ) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            // The rest of the body is still on its way: the connection cannot be used again.
            Self::BodyCut { .. } | Self::BodyStalled { .. } | Self::TooLarge { .. } => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Denied(denied) => {
                headers.extend(denied.reason().map(|reason| (REASON, HeaderValue::from_static(reason.code()))));
            }
            Self::Stranger(reason) => {
                headers.insert(REASON, HeaderValue::from_static(reason.code()));
            }
            Self::Unauthorized { reason, also } => {
                headers.insert(REASON, HeaderValue::from_static(reason.code()));
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
                if let Some(DockerChallenge(challenge)) = also {
                    headers.append(WWW_AUTHENTICATE, header(challenge));
                }
            }
            _ => {}
        }
    }
}

/// The `Range` header of an upload that stands at `offset`: the last byte is inclusive, and nothing yet is `0-0`.
pub(crate) fn upload_range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// A header of text that was made here: digests, names and numbers, all visible ASCII by their grammars.
pub(crate) fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The same, without a copy.
pub(crate) fn shared_header(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What makes `docker login` print the message. moby's `loginV2` (registry/auth.go) drops the answer to its own request,
/// and shows the error body of a token server: so docker, and nobody else, is sent to `/v2/` for a token, which answers
/// as before. What it sends there, the password that was typed for this registry, comes to this registry and is not read.
#[derive(Debug)]
pub(crate) struct DockerChallenge(String);

impl DockerChallenge {
    /// For a client that says it is docker, and calls this registry `host`.
    pub(crate) fn new(request: &HeaderMap, host: &str) -> Option<Self> {
        let is_docker = request.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"docker/"));
        let (_, base) = Endpoint::Base.to_request();
        is_docker.then(|| Self(format!("Bearer realm=\"https://{host}{base}\",service=\"{host}\"")))
    }
}

/// The sentence on the status line, for those who read no body: `ctr` prints Go's `Response.Status`, which is that line
/// (containerd remotes/docker/errors). RFC 9112 §4 lets it be any text; HTTP/2 has none.
fn phrase(status: StatusCode, message: &str) -> Option<ReasonPhrase> {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let text = format!("{}: {message}", status.canonical_reason()?);
    ReasonPhrase::try_from(text.chars().map(visible).take(MAX_PHRASE).collect::<String>()).ok()
}

/// Status and code for a request line that is no endpoint.
pub fn route_status(error: &RouteError) -> (StatusCode, ErrorCode) {
    match error {
        RouteError::NotFound => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
        RouteError::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        RouteError::Name(_) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        // What the official suite asks of a GET by `.INVALID_MANIFEST_NAME`.
        RouteError::Reference(_) => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        RouteError::Tag(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        RouteError::Digest(_) => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        RouteError::TooManyTags => (StatusCode::URI_TOO_LONG, ErrorCode::Unsupported),
        RouteError::UploadId => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        RouteError::Query { key: "digest" | "digest-algorithm" | "mount", .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
        }
        RouteError::Query { .. } => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
    }
}

fn store_status(error: &StoreError) -> (StatusCode, ErrorCode) {
    match error {
        StoreError::UploadUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        StoreError::UploadBusy { .. } => (StatusCode::CONFLICT, ErrorCode::BlobUploadInvalid),
        StoreError::TooManyUploads { .. } => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
        StoreError::TagImmutable { .. } => (StatusCode::FORBIDDEN, ErrorCode::Denied),
        // RFC 4918 §11.5: the server cannot store what it would need to, for a time. Pulls go on, so 503 would be wrong.
        StoreError::NoSpace { .. } | StoreError::ReadOnly { .. } => {
            (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown)
        }
        StoreError::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        StoreError::BlobInUse { .. } => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        StoreError::Io { .. } | StoreError::Locked { .. } | StoreError::Collecting => {
            (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown)
        }
    }
}

/// The first of them: a manifest can name tens of thousands.
fn listed(digests: &[Digest]) -> &[Digest] {
    &digests[..digests.len().min(LISTED)]
}

fn list(digests: &[Digest]) -> String {
    let text = listed(digests).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match digests.len().saturating_sub(LISTED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// An error with its sources, for the log.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_visible_ascii_and_bounded() {
        let text =
            |message: &str| String::from_utf8(phrase(StatusCode::FORBIDDEN, message).unwrap().as_bytes().to_vec());
        assert_eq!(text("CN=Zoë\r\nSet-Cookie: a=b").unwrap(), "Forbidden: CN=Zo???Set-Cookie: a=b");
        assert_eq!(text(&"x".repeat(MAX_PHRASE - "Forbidden: ".len())).unwrap().len(), MAX_PHRASE);
        assert_eq!(text(&"x".repeat(MAX_PHRASE)).unwrap().len(), MAX_PHRASE);
    }
}
