//! Answers to a registry that wants more than a certificate: Basic, or a token (distribution's `docs/spec/auth/`).
//!
//! What is sent goes to the registry's own origin only, never to where it redirects. Its credential goes to the token
//! server that the registry itself names over the verified connection, as Docker and Podman do it; over https, under the
//! token server's own certificate directory, without following a redirect, and for no more than the request needs.
//! Credentials of other registries are never looked at. Must not know what the requests are for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use portcullis_oci::{RegistryHost, RepositoryName};
use reqwest::Url;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::ProtocolFault;
use crate::options::{ClientOptions, Transport};
use crate::secret::Secret;
use crate::session::{Repeat, Response, Session};
use crate::{Client, ClientError, Credential, Credentials, Progress};

mod challenge;
mod scope;
mod token;

use challenge::{Bearer, Challenge, Unanswerable};
pub(crate) use scope::Scopes;

/// The most tokens, the most repositories' credentials, and the most refresh tokens that are kept.
const MAX_KEPT: usize = 64;

/// What one registry asked for, and what was found for it.
#[derive(Debug)]
pub(crate) struct Access {
    source: Credentials,
    transport: Transport,
    known: Mutex<Known>,
    /// One task at a time gets a token; the others find it then.
    turn: Semaphore,
}

#[derive(Debug, Default)]
struct Known {
    wanted: Option<Challenge>,
    tokens: Vec<Token>,
    credentials: Vec<(Option<RepositoryName>, Option<Credential>)>,
    /// The refresh tokens that a token server gave in place of others: each with the one that was found for it.
    rotated: Vec<(Secret, Secret)>,
}

/// A token, and until when it is good by our own clock.
#[derive(Clone, Debug)]
struct Token {
    scopes: Scopes,
    value: Secret,
    until: Instant,
}

/// What goes with a request.
enum Shown {
    Nothing,
    /// Nothing newer can be had.
    Fresh(HeaderValue),
    /// A token from before, which the registry may have had enough of.
    Kept(HeaderValue),
}

/// What to do after an answer.
enum Next {
    /// It is the answer.
    Answer(Response),
    /// Ask again, with this.
    Show(Shown),
}

/// A request to the registry.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) scopes: &'a Scopes,
    pub(crate) progress: &'a Progress,
}

impl Access {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self {
            source: options.credentials.clone(),
            transport: options.transport,
            known: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }

    /// Whether this 401 asks for something that can be given, so that it is not about the certificate. It is remembered.
    pub(crate) async fn can_answer(&self, response: &Response) -> Result<bool, ClientError> {
        let Ok(challenge) = self.challenge(response) else { return Ok(false) };
        if challenge == Challenge::Basic && !self.source.may_have(response.host()).await? {
            return Ok(false);
        }
        self.known().wanted = Some(challenge);
        Ok(true)
    }

    /// Whether the registry wants more than a certificate.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted().is_some()
    }

    fn challenge(&self, response: &Response) -> Result<Challenge, Unanswerable> {
        challenge::best(response.headers(&WWW_AUTHENTICATE), self.transport)
    }

    fn wanted(&self) -> Option<Challenge> {
        self.known().wanted.clone()
    }

    fn token_for(&self, scopes: &Scopes) -> Option<Secret> {
        let now = Instant::now();
        let mut known = self.known();
        known.tokens.retain(|token| token.until > now);
        known.tokens.iter().find(|token| token.scopes.cover(scopes)).map(|token| token.value.clone())
    }

    fn keep(&self, token: Token) {
        let mut known = self.known();
        if known.tokens.len() == MAX_KEPT {
            known.tokens.remove(0);
        }
        known.tokens.push(token);
    }

    fn drop_token(&self, refused: &HeaderValue) {
        self.known().tokens.retain(|token| token.value.bearer().as_ref() != Some(refused));
    }

    /// What a token server has given in place of this identity token. Another repository's has a successor of its own.
    fn successor(&self, found: &Secret) -> Option<Secret> {
        let known = self.known();
        known.rotated.iter().find(|(first, _)| first == found).map(|(_, latest)| latest.clone())
    }

    fn succeed(&self, found: &Secret, latest: Secret) {
        let mut known = self.known();
        known.rotated.retain(|(first, _)| first != found);
        if known.rotated.len() == MAX_KEPT {
            known.rotated.remove(0);
        }
        known.rotated.push((found.clone(), latest));
    }

    /// The credential for a repository, looked up once.
    async fn credential(
        &self,
        host: &RegistryHost,
        repository: Option<&RepositoryName>,
    ) -> Result<Option<Credential>, ClientError> {
        let kept = |known: &Known| {
            known.credentials.iter().find(|(name, _)| name.as_ref() == repository).map(|(_, found)| found.clone())
        };
        if let Some(found) = kept(&self.known()) {
            return Ok(found);
        }
        let found = self.source.find(host, repository).await?;
        let mut known = self.known();
        if known.credentials.len() == MAX_KEPT {
            known.credentials.clear();
        }
        known.credentials.push((repository.cloned(), found.clone()));
        Ok(found)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole after every single call on it, so a panic elsewhere cannot have left it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// A GET or HEAD of `session`, which is one with the registry, with what the registry wants to see. A 401 that can be
    /// answered is answered, once.
    pub(crate) async fn read_as_known(
        &self,
        session: &Session,
        ask: &Ask<'_>,
        repeat: Repeat,
    ) -> Result<Response, ClientError> {
        let Ask { method, url, headers, scopes, progress } = *ask;
        let shown = self.shown(scopes).await?;
        let response = session.read(method, url, &shown.with(headers), repeat, progress).await?;
        match self.better_than(shown, response, scopes).await? {
            Next::Answer(response) => Ok(response),
            Next::Show(shown) => session.read(method, url, &shown.with(headers), repeat, progress).await,
        }
    }

    /// A request that changes something, with what the registry wants to see. Where it has answered 401, and so done
    /// nothing, it is sent a second time; else as often as `repeat` says.
    pub(crate) async fn write(&self, ask: Ask<'_>, body: Bytes, repeat: Repeat) -> Result<Response, ClientError> {
        let Ask { method, url, headers, scopes, progress } = ask;
        self.identity().fix().await;
        let session = self.session();
        let shown = self.shown(scopes).await?;
        let response = session.write(method, url, &shown.with(headers), body.clone(), repeat, progress).await?;
        match self.better_than(shown, response, scopes).await? {
            Next::Answer(response) => Ok(response),
            Next::Show(shown) => session.write(method, url, &shown.with(headers), body, repeat, progress).await,
        }
    }

    /// The headers of a request whose body can be sent only once.
    pub(crate) async fn headers_for(&self, headers: HeaderMap, scopes: &Scopes) -> Result<HeaderMap, ClientError> {
        self.identity().fix().await;
        Ok(self.shown(scopes).await?.with(&headers))
    }

    /// What the registry wants, as far as it is known.
    async fn shown(&self, scopes: &Scopes) -> Result<Shown, ClientError> {
        match self.access().wanted() {
            None => Ok(Shown::Nothing),
            Some(challenge) => self.answer(&challenge, scopes).await,
        }
    }

    /// What to do after an answer: a 401 that asks for something else than was shown gets it.
    async fn better_than(&self, shown: Shown, response: Response, scopes: &Scopes) -> Result<Next, ClientError> {
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(Next::Answer(response));
        }
        let challenge = match self.access().challenge(&response) {
            Ok(challenge) => challenge,
            Err(Unanswerable::Realm(realm)) => return Err(response.fault(ProtocolFault::UnsafeRealm { realm })),
            Err(Unanswerable::Unknown) => return Ok(Next::Answer(response)),
        };
        let mut wider = scopes.clone();
        if let Challenge::Bearer(Bearer { scope: Some(asked), .. }) = &challenge {
            wider = wider.with_asked(asked);
        }
        match &shown {
            // The password is wrong, whichever certificate it comes with: it is not sent with all of them.
            Shown::Fresh(_) if challenge == Challenge::Basic => return Err(response.into_error().await),
            Shown::Fresh(_) if wider == *scopes => return Ok(Next::Answer(response)),
            Shown::Kept(refused) | Shown::Fresh(refused) => self.access().drop_token(refused),
            Shown::Nothing => {}
        }
        self.access().known().wanted = Some(challenge.clone());
        match self.answer(&challenge, &wider).await? {
            Shown::Nothing => Ok(Next::Answer(response)),
            better => Ok(Next::Show(better)),
        }
    }

    async fn answer(&self, challenge: &Challenge, scopes: &Scopes) -> Result<Shown, ClientError> {
        let credential = self.access().credential(self.peer(), scopes.repository()).await?;
        let header = match (challenge, &credential) {
            (_, Some(Credential::RegistryToken(token))) => token.bearer(),
            (Challenge::Basic, Some(Credential::Password { username, password })) => password.basic(username),
            (Challenge::Basic, _) => None,
            (Challenge::Bearer(bearer), _) => return self.token(bearer, scopes, credential.as_ref()).await,
        };
        Ok(header.map_or(Shown::Nothing, Shown::Fresh))
    }

    /// A token that is kept, or a new one.
    async fn token(
        &self,
        bearer: &Bearer,
        scopes: &Scopes,
        credential: Option<&Credential>,
    ) -> Result<Shown, ClientError> {
        let access = self.access();
        let shown = |token: Secret, kind: fn(HeaderValue) -> Shown| token.bearer().map_or(Shown::Nothing, kind);
        if let Some(token) = access.token_for(scopes) {
            return Ok(shown(token, Shown::Kept));
        }
        // Never closed.
        let _turn = access.turn.acquire().await;
        if let Some(token) = access.token_for(scopes) {
            return Ok(shown(token, Shown::Kept));
        }
        let found = match credential {
            Some(Credential::IdentityToken(found)) => Some(found),
            _ => None,
        };
        let latest = found.and_then(|found| access.successor(found)).map(Credential::IdentityToken);
        let granted = self.fetch_token(bearer, scopes, latest.as_ref().or(credential)).await?;
        if let (Some(found), Some(refresh)) = (found, granted.refresh) {
            access.succeed(found, refresh);
        }
        let value = granted.value;
        access.keep(Token { scopes: scopes.clone(), value: value.clone(), until: granted.until });
        Ok(shown(value, Shown::Fresh))
    }
}

impl Shown {
    fn with(&self, headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        if let Self::Fresh(value) | Self::Kept(value) = self {
            headers.insert(AUTHORIZATION, value.clone());
        }
        headers
    }
}
