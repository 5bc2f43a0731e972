//! Every answer of the gateway's own: what went wrong as a status and an OCI error body, which engines print. The
//! registry's answers are handed on as they are.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use portcullis_client::{Answer, ClientError, Failure};
use portcullis_oci::{ErrorBody, ErrorCode, RepositoryName, RouteError};
use portcullis_server::route_status;
use serde_json::Value;

use super::head::HeadFault;
use super::peer_user::Unknown;

/// Why a request is not sent on, or what became of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Head(#[from] HeadFault),
    #[error("this gateway is for the user who runs it and for root, not for user {0}")]
    ForeignUser(u32),
    #[error("{0}, so the connection is refused")]
    UnknownUser(#[from] Unknown),
    #[error("{0} connections are open, and no more can be: try again in a moment")]
    TooManyConnections(usize),
    #[error("the request is for another host: this gateway answers to its own address alone")]
    OtherHost,
    #[error("the request comes from a web page (it has the header {0}): this gateway is not for browsers")]
    Browser(String),
    #[error("the request names a scheme and a host in its first line: this gateway is no proxy of that kind")]
    AbsoluteTarget,
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("the gateway is read-only: start it with --push")]
    ReadOnly,
    #[error("the gateway deletes nothing: start it with --delete")]
    NoDeletion,
    #[error("the gateway is not for repository {0}: see its --repo")]
    OutsideRepositories(RepositoryName),
    #[error("the gateway is for some repositories alone (--repo), and the catalog names all")]
    CatalogHidden,
    #[error("a request of this kind has no body")]
    UnwantedBody,
    #[error("no such upload, or it was left alone for too long: begin it again")]
    UnknownUpload,
    #[error("the registry's list goes on at an address that is no page of this list")]
    OtherList,
    #[error("nothing of the request's body came for {} seconds", .0.as_secs())]
    BodyStalled(Duration),
    #[error("the request's body ended early: {0}")]
    BodyCut(String),
    /// In place of the registry's 401: whoever asks the gateway has no login that would help.
    #[error("{host} does not let the gateway in: {answer}{}", advice(.answer.advice()))]
    NotLetIn { host: String, answer: Box<Answer> },
    #[error("{}{}", .0, advice(.0.advice()))]
    Client(#[source] ClientError),
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Refusal {
    pub(super) fn status(&self) -> (StatusCode, ErrorCode) {
        match self {
            Self::Head(HeadFault::Slow(_)) => (StatusCode::REQUEST_TIMEOUT, ErrorCode::Unknown),
            Self::BodyStalled(_) => (StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid),
            Self::Head(HeadFault::TooLarge) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ErrorCode::Unknown),
            Self::Head(_) | Self::AbsoluteTarget | Self::UnwantedBody => (StatusCode::BAD_REQUEST, ErrorCode::Unknown),
            Self::BodyCut(_) => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
            Self::TooManyConnections(_) => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
            Self::ForeignUser(_)
            | Self::UnknownUser(_)
            | Self::OtherHost
            | Self::Browser(_)
            | Self::ReadOnly
            | Self::NoDeletion
            | Self::OutsideRepositories(_)
            | Self::CatalogHidden
            | Self::NotLetIn { .. } => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            Self::UnknownUpload => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
            Self::Route(error) => route_status(error),
            Self::Client(error) if error.is_refusal() => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            Self::Client(ClientError::Connection { failure: Failure::TimedOut { .. }, .. }) => {
                (StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unknown)
            }
            Self::OtherList | Self::Client(_) => (StatusCode::BAD_GATEWAY, ErrorCode::Unknown),
        }
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let (status, code) = self.status();
        let mut response = Response::new(Bytes::from(ErrorBody::new(code, self.to_string(), Value::Null).to_json()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Route(RouteError::Method { allowed }) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::TooManyConnections(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }

    /// The answer as bytes, for a connection on which HTTP is not spoken yet.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let (head, body) = self.into_response().into_parts();
        let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
        for (name, value) in &head.headers {
            bytes.extend(name.as_str().as_bytes());
            bytes.extend(b": ");
            bytes.extend(value.as_bytes());
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
        bytes.extend(body);
        bytes
    }
}

fn advice(advice: Option<&str>) -> String {
    advice.map(|advice| format!(" ({advice})")).unwrap_or_default()
}
