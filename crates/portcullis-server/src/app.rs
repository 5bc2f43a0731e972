//! One page: every endpoint and its handler.

use std::sync::Arc;
use std::time::Instant;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use portcullis_certs::Visible;
use portcullis_oci::{Endpoint, RouteError};
use portcullis_store::Store;

use crate::access::{Denied, Permit};
use crate::api::blobs::CONTENT_DIGEST;
use crate::api::{base, blobs, catalog, manifests, referrers, tags, uploads};
use crate::body::{RequestBody, ResponseBody};
use crate::config::Limits;
use crate::error::ApiError;
use crate::events::operation::Operation;
use crate::events::{Answered, Events};
use crate::peer::{Described, Peer};
use crate::policy::Caller;
use crate::reason::{Reason, typed_host};
use crate::recent::RecentBlobs;

/// What every request needs.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) recent: RecentBlobs,
    pub(crate) events: Arc<Events>,
    /// Where the registry listens.
    pub(crate) port: u16,
}

/// The parts of a request that a handler may look at.
pub(crate) struct Call<'a> {
    pub(crate) store: &'a Store,
    pub(crate) recent: &'a RecentBlobs,
    pub(crate) headers: &'a http::HeaderMap,
    pub(crate) body: &'a mut RequestBody,
}

type Answer = Result<Response<ResponseBody>, ApiError>;

/// Answers one request of a peer. An answer always comes: errors have their status too.
pub(crate) async fn respond(app: &App, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<ResponseBody> {
    let begun = Instant::now();
    let (head, incoming) = request.into_parts();
    let mut body = RequestBody::new(incoming, &head.headers, app.limits.body_timeout);
    let endpoint = Endpoint::parse(&head.method, head.uri.path(), head.uri.query());
    let operation = Operation::of(&endpoint);
    let is_base = matches!(endpoint, Ok(Endpoint::Base));
    let (who, answer) = match peer.now() {
        // Nobody can be asked for a password here: whoever has no rights without a certificate is told at the door.
        Ok((generation, Caller::Anonymous)) if is_base && !generation.policy.knows_anonymous() => {
            let host = typed_host(&head.uri, &head.headers, generation.tls.chain().first(), app.port);
            ("anonymous".to_owned(), Err(ApiError::Unauthorized(Reason::no_certificate(&host))))
        }
        Ok((_, caller)) => {
            let call = Call { store: &app.store, recent: &app.recent, headers: &head.headers, body: &mut body };
            (Described(&caller).to_string(), handle(peer, endpoint, call).await)
        }
        Err(refused) => (String::new(), Err(ApiError::Denied(refused.into()))),
    };
    let mut denied = None;
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => {
            body.discard().await;
            let refused = if let ApiError::Denied(denied) = &error { Some(denied) } else { None };
            if let Some(refused) = refused {
                let reason = refused.for_the_operator();
                app.events.refusals.note(peer.address(), peer.chain(), refused.reason(), &reason);
                // Not every engine shows its user the answer.
                tracing::warn!(peer = %peer.address(), who = %who, %reason, told = %refused, "request denied");
                denied = Some(reason);
            }
            let ends = matches!(refused, Some(Denied::Refused { .. }));
            let error = match error {
                ApiError::Denied(Denied::Refused { reason, .. }) if is_base => ApiError::Unauthorized(reason),
                error => error,
            };
            let mut response = error.into_response();
            if ends {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                response.extensions_mut().insert(EndConnection);
            }
            response
        }
    };
    if head.method == Method::HEAD {
        *response.body_mut() = ResponseBody::Empty;
    }
    base::add_headers(&mut response);
    app.events.answered(&Answered {
        address: peer.address(),
        caller: &peer.last(),
        operation: &operation,
        method: &head.method,
        path: head.uri.path(),
        status: response.status(),
        digest: response.headers().get(CONTENT_DIGEST).and_then(|digest| digest.to_str().ok()),
        denied: denied.as_deref(),
    });
    tracing::info!(
        peer = %peer.address(),
        who = %who,
        method = %head.method,
        path = %Visible(head.uri.path()),
        status = response.status().as_u16(),
        ms = begun.elapsed().as_millis(),
        "request"
    );
    response
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
