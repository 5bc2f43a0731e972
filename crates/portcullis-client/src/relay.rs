//! Requests of another program, sent on under this client's identity, and answers given back as they came: what a gateway
//! in front of a registry is made of. Reads are redirected and repeated as the client's own, writes are sent once; bodies
//! stream in both directions.
//!
//! Must not know which requests may pass and which headers go with them: whoever relays decides that.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use portcullis_oci::{Digest, Endpoint, RegistryHost};
use reqwest::Url;
use tokio::time::{Instant, Sleep, sleep};

use crate::activity::Activity;
use crate::answer::Answer;
use crate::auth::{Ask, Scopes};
use crate::error::ClientError;
use crate::progress::Progress;
use crate::refusal::{Failure, Wait};
use crate::session::{Repeat, Response};
use crate::uploads::UploadLocation;
use crate::{Client, location};

/// Where a request is sent on to. Every address is on the client's registry.
#[derive(Clone, Copy, Debug)]
pub enum RelayTo<'a> {
    /// An endpoint, as the URL grammar spells it.
    Endpoint(&'a Endpoint),
    /// A page of the list that this endpoint is, with its whole query: registries name the next page in words of their own.
    Page(&'a Endpoint, &'a str),
    /// An upload under way, where the registry wants it to go on; with a digest it is finished.
    Upload(&'a UploadLocation, Option<&'a Digest>),
}

/// The head of the registry's answer, whatever its status, with the body still to come.
#[derive(Debug)]
pub struct Relayed {
    response: Response,
    scopes: Scopes,
}

/// The body of an answer, as it comes. Each wait for its next bytes has a deadline ([`crate::Timeouts::idle`]).
#[derive(Debug)]
pub struct RelayedBody {
    body: reqwest::Body,
    host: RegistryHost,
    idle: Duration,
    /// The deadline of the present wait.
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Client {
    /// Sends a GET or HEAD on, follows redirects as for a read of the client's own (another origin never sees this
    /// registry's certificate), and gives back the answer. The identity is the one that [`Client::connect`] found: what is
    /// relayed is no single operation whose first request could choose another.
    ///
    /// # Errors
    /// There was no answer, or a redirect that is not followed. An answer is none, whatever its status.
    pub async fn relay_read(
        &self,
        method: &Method,
        to: RelayTo<'_>,
        headers: &HeaderMap,
    ) -> Result<Relayed, ClientError> {
        self.identity().fix().await;
        let (url, scopes, progress) = (self.target(to), to.scopes(), Progress::none());
        let ask = Ask { method, url: &url, headers, scopes: &scopes, progress: &progress };
        let response = self.read_from(ask).await?;
        Ok(Relayed { response, scopes })
    }

    /// Sends any other request on, once, with its body as it comes.
    ///
    /// # Errors
    /// There was no answer, `body` broke off, or it had no bytes for too long ([`crate::Timeouts::idle`]).
    pub async fn relay_write<B>(
        &self,
        method: &Method,
        to: RelayTo<'_>,
        mut headers: HeaderMap,
        body: B,
    ) -> Result<Relayed, ClientError>
    where
        B: Body<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (url, scopes) = (self.target(to), to.scopes());
        if body.is_end_stream() {
            let ask = Ask { method, url: &url, headers: &headers, scopes: &scopes, progress: &Progress::none() };
            let response = self.write(ask, Bytes::new(), Repeat::Never).await?;
            return Ok(Relayed { response, scopes });
        }
        if let Some(length) = body.size_hint().exact() {
            // Some registries refuse a body in chunks.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let activity = Arc::new(Activity::new());
        let body = reqwest::Body::wrap(Outgoing { body, activity: Arc::clone(&activity) });
        let headers = self.headers_for(headers, &scopes).await?;
        let response = self.session().write_streaming(method, &url, headers, body, &activity).await?;
        Ok(Relayed { response, scopes })
    }

    /// Where the registry wants an upload to go on, by the `Location` of this answer.
    ///
    /// # Errors
    /// There is none, or it is on another origin, which the certificate is not for.
    pub fn relayed_upload(&self, answer: &Relayed) -> Result<UploadLocation, ClientError> {
        self.upload_location(&answer.response, answer.scopes.clone())
    }

    /// Path and query of what the `Location` of this answer names, if that is on this registry.
    pub fn relayed_location(&self, answer: &Relayed) -> Option<String> {
        location(&answer.response).ok().filter(|url| self.session().owns(url)).map(|url| path_and_query(&url))
    }

    /// Path and query of the next page of a list, by the `Link` of this answer; `None` where the list ends.
    ///
    /// # Errors
    /// It is on another origin, which the certificate is not for, or cannot be understood.
    pub fn relayed_next_page(&self, answer: &Relayed) -> Result<Option<String>, ClientError> {
        Ok(self.next_page(&answer.response)?.map(|url| path_and_query(&url)))
    }

    fn target(&self, to: RelayTo<'_>) -> Url {
        match to {
            RelayTo::Endpoint(endpoint) => self.session().address(endpoint).1,
            RelayTo::Page(endpoint, query) => {
                let mut url = self.session().address(endpoint).1;
                url.set_query(Some(query));
                url
            }
            RelayTo::Upload(location, None) => location.url().clone(),
            RelayTo::Upload(location, Some(digest)) => location.finishing(digest),
        }
    }
}

impl RelayTo<'_> {
    fn scopes(self) -> Scopes {
        match self {
            Self::Endpoint(endpoint) | Self::Page(endpoint, _) => Scopes::of(endpoint),
            Self::Upload(location, _) => location.scopes().clone(),
        }
    }
}

impl Relayed {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers, all of them.
    pub fn headers(&self) -> &HeaderMap {
        self.response.all_headers()
    }

    /// The body.
    pub fn into_body(self) -> RelayedBody {
        let (body, host, idle) = self.response.into_body();
        RelayedBody { body, host, idle, deadline: Box::pin(sleep(idle)), waiting: false }
    }

    /// Status and text of an answer that is handled here; the beginning of its body is read.
    pub async fn into_answer(self) -> Answer {
        self.response.into_answer().await
    }
}

impl Body for RelayedBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let (failure, source) = match polled {
            Poll::Ready(frame) => {
                this.waiting = false;
                match frame {
                    Some(Err(error)) => (Failure::of(&error), Some(error.without_url().into())),
                    // Trailers are for the connection they came on (RFC 9110 §6.5).
                    Some(Ok(frame)) => return Poll::Ready(frame.into_data().ok().map(|data| Ok(Frame::data(data)))),
                    None => return Poll::Ready(None),
                }
            }
            Poll::Pending => {
                if !this.waiting {
                    this.waiting = true;
                    this.deadline.as_mut().reset(Instant::now() + this.idle);
                }
                std::task::ready!(this.deadline.as_mut().poll(cx));
                (Failure::TimedOut { waiting_for: Wait::Bytes }, None)
            }
        };
        Poll::Ready(Some(Err(ClientError::Connection { host: this.host.clone(), failure, source })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that keeps the deadline of its sending.
struct Outgoing<B> {
    body: B,
    activity: Arc<Activity>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.activity.moved();
        if frame.is_none() || self.body.is_end_stream() {
            self.activity.finish();
        }
        Poll::Ready(frame.and_then(|frame| match frame {
            Ok(frame) => frame.into_data().ok().map(|data| Ok(Frame::data(data))),
            Err(error) => Some(Err(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}
