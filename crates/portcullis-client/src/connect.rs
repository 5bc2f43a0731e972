//! From a host's name to a session under the right identity: reads the certificate directory, then tries its pairs.
//!
//! The rule is Docker's page's, which no engine has followed since Docker 1.4 (2014): the pairs are tried in byte order
//! of their names; when the registry refuses one, in the TLS handshake or with a 4xx or 5xx authentication answer, the
//! next is tried. Only a GET or HEAD is ever used to find out. Must not know what the session is for.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use portcullis_certs::{ClientPair, Finding, HostCerts, Layout, Severity, read_host_certs, read_own_host_certs};
use portcullis_oci::{Endpoint, RegistryHost};
use reqwest::Url;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::auth::{Access, Ask};
use crate::error::ClientError;
use crate::options::{ClientOptions, Transport};
use crate::progress::{Event, Progress};
use crate::refusal::{Attempt, Refusal};
use crate::session::{Repeat, Response, Route, Session};
use crate::way::Way;
use crate::{Client, host_of};

/// A host with all the identities that there are for it.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) host: RegistryHost,
    transport: Transport,
    options: ClientOptions,
    certs: HostCerts,
    route: Route,
    way: Way,
    pub(crate) warnings: Vec<Finding>,
}

/// What is asked for to see whether an identity is accepted.
pub(crate) enum Probe<'a> {
    /// The distribution API's own: `GET /v2/`. A 401 that can be answered is no refusal.
    Base(&'a Access),
    /// The first GET or HEAD of an operation, with whatever the registry wants beside a certificate.
    First(&'a Client, Ask<'a>),
    /// A GET or HEAD of this address, on a host that need not be a registry.
    Address(&'a Method, &'a Url, &'a HeaderMap),
    /// A token server, without a login: 401 is what it should say.
    TokenServer(&'a Url),
}

/// The first identity that was not refused.
pub(crate) struct Chosen {
    pub(crate) session: Arc<Session>,
    /// Its place among the candidates.
    pub(crate) place: usize,
    /// The answer that showed it.
    pub(crate) response: Response,
    /// Those before it.
    pub(crate) refused: Vec<Attempt>,
}

impl Candidates {
    /// Reads the directory. Any fatal finding ends it, with all findings. Plain HTTP has no use for certificates.
    pub(crate) async fn read(
        host: &RegistryHost,
        transport: Transport,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let (certs, warnings) = read_certs(host, transport, &options).await?;
        let options = ClientOptions { transport, ..options };
        Self::given(host.clone(), options, certs, Route::default(), warnings).await
    }

    /// With the certificates that a configuration names for this host.
    pub(crate) async fn given(
        host: RegistryHost,
        options: ClientOptions,
        certs: HostCerts,
        route: Route,
        warnings: Vec<Finding>,
    ) -> Result<Self, ClientError> {
        let transport = options.transport;
        let way = Way::to(&host, transport, &options).await?;
        Ok(Self { host, transport, options, certs, route, way, warnings })
    }

    /// The same on another way within the host.
    pub(crate) fn on_route(self, route: Route) -> Self {
        Self { route, ..self }
    }

    pub(crate) const fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// For the host of an address that a registry sent us to; `None` when the address has none.
    pub(crate) async fn of_address(url: &Url, options: &ClientOptions) -> Option<Result<Self, ClientError>> {
        let transport = if url.scheme() == "http" { Transport::PlainHttp } else { Transport::Tls };
        Some(Self::read(&host_of(url)?, transport, options.for_another_host()).await)
    }

    /// The only session there can be; `None` when there is a choice.
    pub(crate) fn only_session(&self) -> Option<Result<Session, ClientError>> {
        (self.count() == 1).then(|| self.open(0))
    }

    /// Opens a session under the first identity that is not refused, from number `from` on, for which `open` is one. The
    /// answer that shows it may have any status that is not about the identity. `earlier` refusals are told too.
    pub(crate) async fn choose(
        &self,
        probe: &Probe<'_>,
        from: usize,
        open: Option<Arc<Session>>,
        earlier: Vec<Attempt>,
    ) -> Result<Chosen, ClientError> {
        let mut sessions = vec![None; self.count()];
        sessions[from] = open;
        let mut round = 0;
        loop {
            let mut refused = Vec::new();
            for (place, kept) in sessions.iter_mut().enumerate().skip(from) {
                let session = match kept {
                    Some(session) => Arc::clone(session),
                    None => Arc::clone(kept.insert(Arc::new(self.open(place)?))),
                };
                match self.attempt(&session, probe).await {
                    Ok(response) => {
                        let before = refused.into_iter().map(|(attempt, _)| attempt);
                        let refused = earlier.into_iter().chain(before).collect();
                        return Ok(Chosen { session, place, response, refused });
                    }
                    Err(Unsuitable::Identity(refusal, error)) => {
                        let pair = self.pair(place).map(|pair| pair.name.clone());
                        tracing::debug!(host = %self.host, ?pair, %refusal, "identity refused");
                        refused.push((Attempt { pair, refusal }, error));
                    }
                    Err(Unsuitable::Other(error)) => return Err(error),
                }
            }
            round += 1;
            // What every identity gets is the server's trouble, which may pass.
            let passing = refused.iter().all(|(attempt, _)| attempt.is_passing());
            if !passing || round > self.options.retries.limit {
                return Err(self.verdict(probe, earlier, refused));
            }
            self.wait(probe, round, &refused).await;
        }
    }

    fn count(&self) -> usize {
        self.certs.pairs.len().max(1)
    }

    fn pair(&self, place: usize) -> Option<&ClientPair> {
        self.certs.pairs.get(place)
    }

    fn open(&self, place: usize) -> Result<Session, ClientError> {
        let (roots, pair) = (&self.certs.roots, self.pair(place));
        Session::open(&self.host, self.transport, roots, pair, &self.options, &self.route, &self.way)
    }

    async fn wait(&self, probe: &Probe<'_>, round: u32, refused: &[(Attempt, ClientError)]) {
        let pause = self.options.retries.pause_before(round, None);
        if let (Probe::First(_, ask), Some((attempt, _))) = (probe, refused.last()) {
            let request = format!("{} {}", ask.method, ask.url.path());
            ask.progress.tell(Event::Retrying { request, reason: attempt.refusal.to_string(), pause });
        }
        sleep(pause).await;
    }

    async fn attempt(&self, session: &Session, probe: &Probe<'_>) -> Result<Response, Unsuitable> {
        let retries = self.options.retries;
        let mut number = 0;
        loop {
            let error = match probe.send(session).await {
                Ok(response) => return probe.judge(response).await,
                Err(error) => error,
            };
            let failure = match &error {
                ClientError::Connection { host, failure, .. } if *host == self.host => failure,
                // Also what a token server has to say.
                _ => return Err(Unsuitable::Other(error)),
            };
            if failure.is_about_identity() {
                return Err(Unsuitable::Identity(Refusal::Handshake(failure.clone()), error));
            }
            if !failure.is_passing() {
                return Err(Unsuitable::Other(error));
            }
            if let Some(heard) = session.listen_for_alert().await {
                return Err(Unsuitable::Identity(Refusal::Handshake(heard), error));
            }
            number += 1;
            if number > retries.limit {
                // Some servers (stunnel, HAProxy with an old configuration) refuse by closing without a word.
                return Err(Unsuitable::Identity(Refusal::Handshake(failure.clone()), error));
            }
            sleep(retries.pause_before(number, None)).await;
        }
    }

    fn verdict(
        &self,
        probe: &Probe<'_>,
        earlier: Vec<Attempt>,
        mut refused: Vec<(Attempt, ClientError)>,
    ) -> ClientError {
        let silent =
            |attempt: &Attempt| matches!(&attempt.refusal, Refusal::Handshake(failure) if failure.is_passing());
        let in_trouble = refused.len() == 1 && refused.iter().all(|(attempt, _)| attempt.is_passing());
        let alone = self.count() == 1 && matches!(probe, Probe::First(..));
        // Not a word about the identity anywhere, or no other one: the plain error says more than a list of one thing.
        let plain = alone || in_trouble || refused.iter().all(|(attempt, _)| silent(attempt));
        if plain
            && earlier.is_empty()
            && let Some((_, error)) = refused.pop()
        {
            return error;
        }
        let attempts = earlier.into_iter().chain(refused.into_iter().map(|(attempt, _)| attempt)).collect();
        ClientError::Refused { host: self.host.clone(), attempts }
    }
}

/// A host's own directory, and what is wrong with it that is not fatal. Plain HTTP has no use for it.
pub(crate) async fn read_certs(
    host: &RegistryHost,
    transport: Transport,
    options: &ClientOptions,
) -> Result<(HostCerts, Vec<Finding>), ClientError> {
    if transport == Transport::PlainHttp {
        return Ok((HostCerts::default(), Vec::new()));
    }
    let (profile, location, owned) = (options.certs.profile, options.certs.location.clone(), host.clone());
    let now = OffsetDateTime::now_utc();
    let read = move || match profile.layout {
        Layout::HostsToml { .. } => read_own_host_certs(location.as_certs_location(), &owned, now),
        _ => read_host_certs(&profile, location.as_certs_location(), &owned, now),
    };
    let (certs, findings) = crate::blocking(read).await;
    for finding in &findings {
        tracing::debug!(%host, %finding, "certificate directory");
    }
    Ok((certs, refuse_fatal(host, findings)?))
}

/// What is wrong, as warnings, unless anything of it is fatal.
pub(crate) fn refuse_fatal(host: &RegistryHost, findings: Vec<Finding>) -> Result<Vec<Finding>, ClientError> {
    if findings.iter().any(|finding| finding.severity == Severity::Fatal) {
        return Err(ClientError::CertsDir { host: host.clone(), findings });
    }
    Ok(findings)
}

/// Why an attempt did not give a session.
enum Unsuitable {
    /// The next identity may fare better. The error is the one to show when there was no refusal in it after all.
    Identity(Refusal, ClientError),
    /// No identity would.
    Other(ClientError),
}

impl Probe<'_> {
    async fn send(&self, session: &Session) -> Result<Response, ClientError> {
        let (none, nobody) = (HeaderMap::new(), Progress::none());
        match self {
            Self::Base(_) => {
                let (method, url, _) = session.address(&Endpoint::Base);
                session.read(&method, &url, &none, Repeat::RateLimits, &nobody).await
            }
            Self::First(client, ask) => client.read_as_known(session, ask, Repeat::RateLimits).await,
            Self::Address(method, url, headers) => {
                session.read(method, url, headers, Repeat::RateLimits, &nobody).await
            }
            Self::TokenServer(url) => session.read(&Method::GET, url, &none, Repeat::RateLimits, &nobody).await,
        }
    }

    async fn judge(&self, response: Response) -> Result<Response, Unsuitable> {
        if !matches!(response.status().as_u16(), 400 | 401 | 403 | 495 | 496 | 500..=599) {
            return Ok(response);
        }
        let is_no_refusal = match (self, response.status()) {
            (Self::Base(access), StatusCode::UNAUTHORIZED) => {
                access.can_answer(&response).await.map_err(Unsuitable::Other)?
            }
            // It need not have a page for who asks for nothing.
            (Self::TokenServer(_), status) => matches!(status.as_u16(), 400 | 401 | 404 | 405),
            _ => false,
        };
        if is_no_refusal {
            return Ok(response);
        }
        match response.into_error().await {
            ClientError::Status { host, request, answer } if answer.is_about_identity() => {
                let refusal = Refusal::Answer(answer.clone());
                Err(Unsuitable::Identity(refusal, ClientError::Status { host, request, answer }))
            }
            error => Err(Unsuitable::Other(error)),
        }
    }
}
