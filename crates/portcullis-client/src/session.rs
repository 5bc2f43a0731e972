//! One HTTPS session with one origin under one identity: deadlines, bounded repetition, and answers turned
//! into values. Must not know the distribution API, nor how the identity was chosen.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use http::{Method, StatusCode};
use portcullis_certs::{Certificate, ClientPair};
use portcullis_oci::{Endpoint, RegistryHost, RepositoryName};
use portcullis_tls::client_config;
use reqwest::Url;
use rustls::ClientConfig;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use tokio::time::{Instant, sleep, timeout};

use crate::activity::Activity;
use crate::alert;
use crate::answer::{self, Answer};
use crate::attempts::Attempts;
use crate::auth::Scopes;
use crate::error::{ClientError, ProtocolFault};
use crate::options::{ClientOptions, Retries, Timeouts, Transport};
use crate::progress::{Event, Progress};
use crate::refusal::{Failure, Wait};
use crate::resolver::SystemResolver;
use crate::way::{PlainProxy, Way};

const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// A pool of connections to one origin, all with the same certificate.
#[derive(Debug)]
pub(crate) struct Session {
    http: reqwest::Client,
    /// The same configuration as in `http`; none when there is a proxy in between.
    direct: Option<Arc<ClientConfig>>,
    host: RegistryHost,
    base: Url,
    route: Route,
    /// Kept: a tunnel ends with it.
    way: Way,
    pair: Option<String>,
    timeouts: Timeouts,
    retries: Retries,
}

/// Where in a host the distribution API is, and of whose content it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// What stands for `/v2`.
    pub(crate) path: String,
    /// The registry whose place the host takes; containerd's `ns` in the query (`docs/hosts.md`).
    pub(crate) namespace: Option<RegistryHost>,
    /// What the repository is called there, where that is another name; such a session is for this repository alone.
    pub(crate) repository: Option<RepositoryName>,
}

impl Default for Route {
    fn default() -> Self {
        Self { path: "/v2".to_owned(), namespace: None, repository: None }
    }
}

/// What makes a request be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: whoever asks decides, or nobody knows whether it was done.
    Never,
    /// 429 only: while an identity is chosen, a 5xx or a broken connection may be a refusal.
    RateLimits,
    /// 429, 5xx, and a broken connection: it does no more when it is done twice.
    Passing,
}

/// Why a request is sent again.
pub(crate) struct Reason {
    /// For a person.
    pub(crate) text: String,
    /// The pause that was asked for.
    pub(crate) asked: Option<Duration>,
}

/// A request, as often as it has to be sent.
struct Sending<'a> {
    method: &'a Method,
    url: &'a Url,
    headers: &'a HeaderMap,
    body: Option<Bytes>,
    /// For the answer's head.
    wait: Duration,
}

/// The head of an answer, and a body that has a deadline for each piece.
#[derive(Debug)]
pub(crate) struct Response {
    inner: reqwest::Response,
    host: RegistryHost,
    request: String,
    idle: Duration,
    /// Whose it is among those that are asked in the registry's place.
    place: usize,
}

impl Session {
    pub(crate) fn open(
        host: &RegistryHost,
        transport: Transport,
        roots: &[Certificate],
        pair: Option<&ClientPair>,
        options: &ClientOptions,
        route: &Route,
        way: &Way,
    ) -> Result<Self, ClientError> {
        let base = base_url(host, transport)?;
        let tls = client_config(roots, options.roots, pair)
            .map_err(|source| ClientError::Tls { host: host.clone(), source: Box::new(source) })?;
        let is_direct = matches!(way, Way::Direct) && transport == Transport::Tls;
        let direct = is_direct.then(|| Arc::new(tls.clone()));
        let builder = reqwest::Client::builder().no_proxy();
        let builder = match way {
            Way::Proxy(PlainProxy(proxy)) => {
                let proxy = reqwest::Proxy::all(proxy.clone());
                builder.proxy(proxy.map_err(|source| ClientError::Http { host: host.clone(), source })?)
            }
            Way::Tunnel(tunnel) => builder.unix_socket(tunnel.socket()),
            Way::Direct => builder,
        };
        let http = builder
            .tls_backend_preconfigured(tls)
            .https_only(transport == Transport::Tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(SystemResolver))
            .connect_timeout(options.timeouts.connect)
            .user_agent(USER_AGENT)
            .build()
            .map_err(|source| ClientError::Http { host: host.clone(), source })?;
        let pair = pair.map(|pair| pair.name.clone());
        let (host, timeouts, retries) = (host.clone(), options.timeouts, options.retries);
        let (route, way) = (route.clone(), way.clone());
        Ok(Self { http, direct, host, base, route, way, pair, timeouts, retries })
    }

    pub(crate) fn pair(&self) -> Option<&str> {
        self.pair.as_deref()
    }

    /// Method and address of an endpoint here, and what a token for it is for.
    pub(crate) fn address(&self, endpoint: &Endpoint) -> (Method, Url, Scopes) {
        let endpoint = match &self.route.repository {
            Some(there) => Cow::Owned(endpoint.in_repository(there)),
            None => Cow::Borrowed(endpoint),
        };
        let (method, path) = endpoint.to_request();
        let mut url = self.base.clone();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path.as_str(), None),
        };
        url.set_path(&format!("{}{}", self.route.path, path.strip_prefix("/v2").unwrap_or(path)));
        url.set_query(query);
        if let Some(registry) = &self.route.namespace {
            url.query_pairs_mut().append_pair("ns", registry.as_str());
        }
        (method, url, Scopes::of(&endpoint))
    }

    /// Whether the certificate of this session is for this address.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// A GET or HEAD, repeated within [`Retries`].
    pub(crate) async fn read(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        repeat: Repeat,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let wait = self.timeouts.connect + self.timeouts.header;
        self.send(Sending { method, url, headers, body: None, wait }, repeat, progress).await
    }

    /// A request that changes something, repeated within [`Retries`]. The body is whole, so the answer may take as long as
    /// a commit.
    pub(crate) async fn write(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Bytes,
        repeat: Repeat,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let wait = self.timeouts.connect + self.timeouts.commit;
        self.send(Sending { method, url, headers, body: Some(body), wait }, repeat, progress).await
    }

    async fn send(&self, sending: Sending<'_>, repeat: Repeat, progress: &Progress) -> Result<Response, ClientError> {
        let mut attempts = Attempts::new(self.retries);
        loop {
            let result = self.send_once(&sending).await;
            let Some(Reason { text: reason, asked }) = repeat.reason(&result) else { return result };
            let Some(pause) = attempts.pause(Instant::now(), asked) else { return result };
            drop(result);
            let request = describe(sending.method, sending.url);
            tracing::debug!(%request, %reason, ?pause, "repeating");
            progress.tell(Event::Retrying { request, reason, pause });
            sleep(pause).await;
        }
    }

    async fn send_once(&self, sending: &Sending<'_>) -> Result<Response, ClientError> {
        let Sending { method, url, headers, body, wait } = sending;
        let request = self.http.request((*method).clone(), (*url).clone()).headers((*headers).clone());
        let request = match body {
            Some(body) => request.body(body.clone()),
            None => request,
        };
        self.received(method, url, timeout(*wait, request.send()).await)
    }

    /// The refusal behind a connection that was closed without one, if there is.
    pub(crate) async fn listen_for_alert(&self) -> Option<Failure> {
        alert::listen(&self.base, self.direct.as_ref()?, self.timeouts.connect).await
    }

    /// A request whose body is still being read, sent once; `activity` is kept up to date by it.
    pub(crate) async fn write_streaming(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: reqwest::Body,
        activity: &Activity,
    ) -> Result<Response, ClientError> {
        let sending = self.http.request(method.clone(), url.clone()).headers(headers).body(body).send();
        tokio::pin!(sending);
        loop {
            let (deadline, waiting_for) = activity.deadline(&self.timeouts);
            tokio::select! {
                sent = &mut sending => return self.received(method, url, Ok(sent)),
                () = tokio::time::sleep_until(deadline) => {
                    if activity.deadline(&self.timeouts).0 <= Instant::now() {
                        return Err(self.broken(Failure::TimedOut { waiting_for }, None));
                    }
                }
            }
        }
    }

    fn received(
        &self,
        method: &Method,
        url: &Url,
        sent: Result<reqwest::Result<reqwest::Response>, tokio::time::error::Elapsed>,
    ) -> Result<Response, ClientError> {
        match sent {
            Ok(Ok(inner)) => Ok(Response {
                inner,
                host: self.host.clone(),
                request: describe(method, url),
                idle: self.timeouts.idle,
                place: 0,
            }),
            Ok(Err(error)) => {
                // The HTTP library sees of a proxy behind a tunnel only that the connection ends.
                let failure = self.way.trouble().unwrap_or_else(|| Failure::of(&error));
                Err(self.broken(failure, Some(error.without_url().into())))
            }
            Err(_) => Err(self.broken(Failure::TimedOut { waiting_for: Wait::Answer }, None)),
        }
    }

    fn broken(&self, failure: Failure, source: Option<Box<dyn Error + Send + Sync>>) -> ClientError {
        ClientError::Connection { host: self.host.clone(), failure, source }
    }
}

impl Repeat {
    /// Why a request is sent again after this, if it is.
    pub(crate) fn reason(self, result: &Result<Response, ClientError>) -> Option<Reason> {
        match result {
            Ok(response) if response.asks_for_repetition(self) => {
                Some(Reason { text: response.status().to_string(), asked: response.retry_after() })
            }
            Err(ClientError::Connection { failure, .. }) if self == Self::Passing && failure.is_passing() => {
                Some(Reason { text: failure.to_string(), asked: None })
            }
            _ => None,
        }
    }
}

impl Response {
    pub(crate) fn with_place(self, place: usize) -> Self {
        Self { place, ..self }
    }

    pub(crate) const fn place(&self) -> usize {
        self.place
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// A header's value; one that is not text is as good as none.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// All values of a header that are text.
    pub(crate) fn headers(&self, name: &HeaderName) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(crate) fn all_headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The body, to be read without the deadlines of [`Response::chunk`], with the host and what it may idle.
    pub(crate) fn into_body(self) -> (reqwest::Body, RegistryHost, Duration) {
        (self.inner.into(), self.host, self.idle)
    }

    /// The address that answered.
    pub(crate) fn url(&self) -> &Url {
        self.inner.url()
    }

    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let (failure, source) = match timeout(self.idle, self.inner.chunk()).await {
            Ok(Ok(chunk)) => return Ok(chunk),
            Ok(Err(error)) => (Failure::of(&error), Some(error.without_url().into())),
            Err(_) => (Failure::TimedOut { waiting_for: Wait::Bytes }, None),
        };
        Err(ClientError::Connection { host: self.host.clone(), failure, source })
    }

    /// The whole body, which may not be longer than `limit`.
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Bytes, ClientError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(self.fault(ProtocolFault::TooLong { limit: limit as u64 }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Reads what the registry has to say. A body that breaks off is no reason to lose the status.
    pub(crate) async fn into_answer(mut self) -> Answer {
        let mut body = BytesMut::new();
        while body.len() < answer::MAX_BODY {
            match self.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(answer::MAX_BODY - body.len())]),
                Ok(None) | Err(_) => break,
            }
        }
        Answer::new(self.inner.status(), self.inner.headers(), &body)
    }

    /// The error that this answer is.
    pub(crate) async fn into_error(self) -> ClientError {
        let (host, request) = (self.host.clone(), self.request.clone());
        ClientError::Status { host, request, answer: Box::new(self.into_answer().await) }
    }

    /// An error about this answer.
    pub(crate) fn fault(&self, fault: ProtocolFault) -> ClientError {
        ClientError::Protocol { host: self.host.clone(), request: self.request.clone(), fault }
    }

    pub(crate) fn host(&self) -> &RegistryHost {
        &self.host
    }

    fn asks_for_repetition(&self, repeat: Repeat) -> bool {
        match self.status().as_u16() {
            429 => repeat != Repeat::Never,
            500 | 502..=504 => repeat == Repeat::Passing,
            _ => false,
        }
    }

    /// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date, which is held against the server's own clock where it tells
    /// that.
    fn retry_after(&self) -> Option<Duration> {
        let asked = self.header(&RETRY_AFTER)?.trim();
        if let Ok(seconds) = asked.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = self.header(&DATE).and_then(http_date).unwrap_or_else(OffsetDateTime::now_utc);
        Some(Duration::try_from(http_date(asked)? - now).unwrap_or_default())
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the one form that may be sent).
fn http_date(text: &str) -> Option<OffsetDateTime> {
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    Some(PrimitiveDateTime::parse(text.trim(), format).ok()?.assume_utc())
}

/// An error when the URL standard takes the host for another one: it reads `127.1` and `0177.0.0.1` as 127.0.0.1, whose
/// certificate directory would be a different one, and takes no `a.1` at all.
pub(crate) fn base_url(host: &RegistryHost, transport: Transport) -> Result<Url, ClientError> {
    origin(host, transport).ok_or_else(|| ClientError::Host { host: host.clone() })
}

fn origin(host: &RegistryHost, transport: Transport) -> Option<Url> {
    let scheme = match transport {
        Transport::Tls => "https",
        Transport::PlainHttp => "http",
    };
    let authority = host.api_authority();
    let url = Url::parse(&format!("{scheme}://{authority}/")).ok()?;
    let same =
        host.host().starts_with('[') || authority != host.as_str() || url.host_str()?.eq_ignore_ascii_case(host.host());
    same.then_some(url)
}

/// Without the query: an upload's state and a signed address do not belong in a message.
fn describe(method: &Method, url: &Url) -> String {
    format!("{method} {}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_https_and_the_host_as_typed() {
        for (host, url) in [
            ("registry.test", "https://registry.test/"),
            ("docker.io", "https://registry-1.docker.io/"),
            ("docker.io:5000", "https://docker.io:5000/"),
            ("Registry.Test:5443", "https://registry.test:5443/"),
            ("registry.test:443", "https://registry.test/"),
            ("10.77.0.1:5000", "https://10.77.0.1:5000/"),
            ("[fd00:0:0::1]:5000", "https://[fd00::1]:5000/"),
        ] {
            assert_eq!(base_url(&host.parse().unwrap(), Transport::Tls).unwrap().as_str(), url, "{host}");
        }
    }

    #[test]
    fn a_date_in_a_header() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(date.unix_timestamp(), 784_111_777);
        for text in
            ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun, 31 Feb 1994 08:49:37 GMT"]
        {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_that_a_url_takes_for_another_is_refused() {
        for host in ["127.1:5000", "0177.0.0.1:5000", "0x7f.0.0.1:5000", "a.1:5000", "1.2.3.4.5:80"] {
            assert!(base_url(&host.parse().unwrap(), Transport::Tls).is_err(), "{host}");
        }
    }
}
