//! One page: every endpoint and its handler.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use portcullis_oci::{Endpoint, RouteError};
use portcullis_store::{Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::{Denied, Permit};
use crate::api::blobs::CONTENT_DIGEST;
use crate::api::{base, blobs, catalog, manifests, referrers, tags, uploads};
use crate::body::buffers::Buffers;
use crate::body::{RequestBody, ResponseBody};
use crate::config::{Limits, MissingChildren};
use crate::connection::windows::Windows;
use crate::error::{ApiError, DockerChallenge};
use crate::events::operation::{Operation, loggable};
use crate::events::{Answered, Events, KeyProven};
use crate::exchange::{AnswerBody, Exchange};
use crate::media_types::MediaTypes;
use crate::peer::Peer;
use crate::policy::Caller;
use crate::reason::{Reason, typed_host};
use crate::recent::RecentBlobs;

/// What every request needs.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) missing_children: MissingChildren,
    pub(crate) recent: RecentBlobs,
    pub(crate) buffers: Buffers,
    pub(crate) windows: Windows,
    pub(crate) media_types: MediaTypes,
    pub(crate) events: Arc<Events>,
    /// Where the registry listens.
    pub(crate) port: u16,
    /// The requests that may be under way.
    pub(crate) requests: Arc<Semaphore>,
    /// The repositories whose manifests may be read all at once.
    pub(crate) readings: Arc<Semaphore>,
}

/// The parts of a request that a handler may look at.
pub(crate) struct Call<'a> {
    pub(crate) store: &'a Store,
    pub(crate) limits: &'a Limits,
    pub(crate) missing_children: MissingChildren,
    pub(crate) recent: &'a RecentBlobs,
    pub(crate) readings: &'a Arc<Semaphore>,
    pub(crate) buffers: &'a Buffers,
    pub(crate) media_types: &'a MediaTypes,
    pub(crate) headers: &'a http::HeaderMap,
    pub(crate) body: &'a mut RequestBody,
}

type Answer = Result<Response<ResponseBody>, ApiError>;

/// Answers one request of a peer. An answer always comes: errors have their status too.
pub(crate) async fn respond(app: &App, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<AnswerBody> {
    let (head, incoming) = request.into_parts();
    let endpoint = Endpoint::parse(&head.method, head.uri.path(), head.uri.query());
    let path = loggable(&endpoint, head.uri.path());
    let standing = peer.now();
    let who = standing.as_ref().map_or_else(|_| Arc::clone(&peer.last().who), |standing| Arc::clone(&standing.who));
    let mut exchange = Exchange::new(peer.address(), who, &head.method, &path);
    let mut body = RequestBody::new(incoming, &head.headers, &app.limits, exchange.received());
    let operation = Operation::of(&endpoint);
    let is_base = matches!(endpoint, Ok(Endpoint::Base));
    let answer = match standing {
        // Nobody can be asked for a password here: whoever has no rights without a certificate is told at the door.
        Ok(standing)
            if is_base
                && matches!(standing.caller, Caller::Anonymous)
                && !standing.generation.policy.knows_anonymous() =>
        {
            let chain = standing.generation.tls.chain();
            let host = typed_host(&head.uri, &head.headers, chain.first(), app.port);
            let also = DockerChallenge::new(&head.headers, &host);
            Err(ApiError::Unauthorized { reason: Reason::no_certificate(&host), also })
        }
        Ok(_) => {
            let call = app.call(&head.headers, &mut body);
            match app.slot(&endpoint).await {
                Ok(slot) => {
                    exchange.holds(slot);
                    handle(peer, endpoint, call).await
                }
                Err(error) => Err(error),
            }
        }
        Err(refused) => Err(ApiError::Denied(refused.into())),
    };
    let mut denied = None;
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => {
            body.discard().await;
            denied = app.note_denied(peer, &error);
            refuse(error, &operation, is_base)
        }
    };
    if head.method == Method::HEAD {
        drop_body(&mut response);
    }
    base::add_headers(&mut response);
    app.events.answered(&Answered {
        address: peer.address(),
        caller: &peer.last().caller,
        operation: &operation,
        method: &head.method,
        path: &path,
        status: response.status(),
        digest: response.headers().get(CONTENT_DIGEST).and_then(|digest| digest.to_str().ok()),
        denied: denied.as_deref(),
    });
    let status = response.status().as_u16();
    response.map(|body| exchange.answered(status, body))
}

impl App {
    fn call<'a>(&'a self, headers: &'a http::HeaderMap, body: &'a mut RequestBody) -> Call<'a> {
        let Self { store, limits, missing_children, recent, readings, buffers, media_types, .. } = self;
        Call {
            store,
            limits,
            missing_children: *missing_children,
            recent,
            readings,
            buffers,
            media_types,
            headers,
            body,
        }
    }

    /// Why the peer is denied, if it is, for the audit; told to the log and to those who ask later.
    fn note_denied(&self, peer: &Peer, error: &ApiError) -> Option<String> {
        let reason = match error {
            ApiError::Denied(denied) => denied.for_the_operator(),
            ApiError::Store(StoreError::TagImmutable { .. }) => error.to_string(),
            _ => return None,
        };
        if let ApiError::Denied(denied) = error
            && let Some(told) = denied.reason()
        {
            self.events.refusals.note(peer.address(), peer.chain(), told, &reason, KeyProven::Yes);
        }
        // Not every engine shows its user the answer.
        tracing::warn!(peer = %peer.address(), who = %peer.last().who, %reason, told = %error, "request denied");
        Some(reason)
    }

    /// A place among the requests under way, for which `request_wait` is waited. What goes on with an open upload needs
    /// none: there are `open_uploads` of them at most, each with one writer, and the bytes that came would be lost. By a
    /// name that no open upload has nobody gets past the others.
    async fn slot(&self, endpoint: &Result<Endpoint, RouteError>) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if let Ok(Endpoint::AppendUpload { id, .. } | Endpoint::FinishUpload { id, .. }) = endpoint
            && self.store.lists_upload(id)
        {
            return Ok(None);
        }
        let place = Arc::clone(&self.requests).acquire_owned();
        match tokio::time::timeout(self.limits.request_wait, place).await {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(ApiError::TooManyRequests { limit: self.limits.requests }),
        }
    }
}

/// The answer to a request that cannot be done.
fn refuse(error: ApiError, operation: &Operation, is_base: bool) -> Response<ResponseBody> {
    let ends = matches!(error, ApiError::Denied(Denied::Refused { .. }));
    let error = match error {
        ApiError::Denied(Denied::Refused { reason, .. }) if is_base => ApiError::Unauthorized { reason, also: None },
        error => error,
    };
    let mut response = error.into_response(operation);
    if ends {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.extensions_mut().insert(EndConnection);
    }
    response
}

/// RFC 9110 §9.3.2: HEAD has the headers of GET, its length too, and no body.
fn drop_body(response: &mut Response<ResponseBody>) {
    if let (false, Some(length)) =
        (response.headers().contains_key(CONTENT_LENGTH), response.body().size_hint().exact().filter(|n| *n > 0))
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = ResponseBody::Empty;
}

/// In an answer's extensions: the peer is no longer trusted, the connection must end with this answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndConnection;

async fn handle(peer: &Arc<Peer>, endpoint: Result<Endpoint, RouteError>, call: Call<'_>) -> Answer {
    match endpoint? {
        Endpoint::Base => Ok(base::get()),
        Endpoint::ListTags { repository, page } => tags::list(&Permit::ask(peer, repository)?, &page, call).await,
        Endpoint::GetManifest { repository, reference } | Endpoint::HeadManifest { repository, reference } => {
            manifests::get(&Permit::ask(peer, repository)?, reference, call).await
        }
        Endpoint::PutManifest { repository, reference, tags } => {
            manifests::put(Permit::ask(peer, repository)?, reference, tags, call).await
        }
        Endpoint::DeleteManifest { repository, reference } => {
            manifests::delete(&Permit::ask(peer, repository)?, reference, call).await
        }
        Endpoint::GetBlob { repository, digest } => blobs::get(Permit::ask(peer, repository)?, digest, call).await,
        Endpoint::HeadBlob { repository, digest } => blobs::head(&Permit::ask(peer, repository)?, digest, call).await,
        Endpoint::StartUpload { repository, start } => {
            uploads::start(peer, Permit::ask(peer, repository)?, start, call).await
        }
        Endpoint::UploadStatus { repository, id } => uploads::status(&Permit::ask(peer, repository)?, id, call).await,
        Endpoint::AppendUpload { repository, id } => uploads::append(Permit::ask(peer, repository)?, id, call).await,
        Endpoint::FinishUpload { repository, id, digest } => {
            uploads::finish(Permit::ask(peer, repository)?, id, digest, call).await
        }
        Endpoint::CancelUpload { repository, id } => uploads::cancel(&Permit::ask(peer, repository)?, id, call).await,
        Endpoint::DeleteBlob { repository, digest } => {
            blobs::delete(&Permit::ask(peer, repository)?, digest, call).await
        }
        Endpoint::Referrers { repository, digest, artifact_type, page } => {
            referrers::list(&Permit::ask(peer, repository)?, digest, artifact_type, &page, call).await
        }
        Endpoint::Catalog { page } => catalog::list(peer, &page, call).await,
    }
}
