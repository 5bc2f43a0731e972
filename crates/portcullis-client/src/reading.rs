//! Reads with their redirects: at the registry under its identity, anywhere else under that host's own. Must not know
//! what is read.

use std::pin::Pin;
use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderMap, Method};
use portcullis_oci::{Endpoint, RegistryHost};
use reqwest::Url;

use crate::auth::{Ask, Scopes};
use crate::connect::{Candidates, Probe};
use crate::error::ProtocolFault as Fault;
use crate::options::Transport;
use crate::session::{Repeat, Response, Session};
use crate::{Client, ClientError, MAX_OTHER_HOSTS, MAX_REDIRECTS, Progress};

impl Client {
    /// A GET or HEAD, with its redirects, of the first host that has it.
    pub(crate) async fn read(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let mut turn = self.first_turn(endpoint).await?;
        loop {
            let error = match turn.client.read_here(endpoint, headers, progress).await {
                Ok(response) if response.status().as_u16() < 400 || !self.has_turn_after(&turn) => {
                    return Ok(response.with_place(turn.at));
                }
                Ok(response) => response.into_error().await,
                Err(error) => error,
            };
            turn = self.next_turn(&turn, error).await?;
        }
    }

    /// The same at this host alone.
    pub(crate) async fn read_here(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let (method, url, scopes) = self.session().address(endpoint);
        self.read_from(Ask { method: &method, url: &url, headers, scopes: &scopes, progress }).await
    }

    /// A page of a list.
    pub(crate) async fn read_page(&self, url: &Url, scopes: &Scopes) -> Result<Response, ClientError> {
        let (headers, progress) = (HeaderMap::new(), Progress::none());
        self.read_from(Ask { method: &Method::GET, url, headers: &headers, scopes, progress: &progress }).await
    }

    /// The same at an address on this registry.
    pub(crate) async fn read_from(&self, ask: Ask<'_>) -> Result<Response, ClientError> {
        let mut hops = 0;
        let mut url = ask.url.clone();
        loop {
            let response = self.read_at(Ask { url: &url, ..ask }).await?;
            let Some(next) = redirect_target(&response, self.transport())? else { return Ok(response) };
            if hops == MAX_REDIRECTS {
                return Err(response.fault(Fault::TooManyRedirects { limit: MAX_REDIRECTS }));
            }
            hops += 1;
            url = next;
        }
    }

    /// One request of a read: to the registry under its identity, to any other origin under that origin's own, and
    /// without what the registry wanted to see.
    async fn read_at(&self, ask: Ask<'_>) -> Result<Response, ClientError> {
        if self.session().owns(ask.url) {
            return self.read_as_chosen(ask).await;
        }
        let Ask { method, url, headers, progress, .. } = ask;
        if let Some(session) = self.known_session(url) {
            return session.read(method, url, headers, Repeat::Passing, progress).await;
        }
        let candidates = self.candidates_for(url, || format!("{method} {}", url.path())).await?;
        let chosen = candidates.choose(&Probe::Address(method, url, headers), 0, None, Vec::new()).await?;
        self.remember(url, chosen.session);
        Ok(chosen.response)
    }

    /// A session with a token server, under the identity that its own directory gives it.
    pub(crate) async fn session_with(&self, url: &Url) -> Result<Arc<Session>, ClientError> {
        let registry = self.session();
        if registry.owns(url) {
            return Ok(registry);
        }
        if let Some(session) = self.known_session(url) {
            return Ok(session);
        }
        let candidates = self.candidates_for(url, || "the token server".to_owned()).await?;
        let session = match candidates.only_session() {
            Some(session) => Arc::new(session?),
            None => choose_for_tokens(&candidates, url).await?,
        };
        self.remember(url, Arc::clone(&session));
        Ok(session)
    }

    async fn candidates_for(&self, url: &Url, request: impl Fn() -> String) -> Result<Candidates, ClientError> {
        // On the heap: any read may lead to another host, and the futures of them all would grow by it.
        match Box::pin(Candidates::of_address(url, self.options())).await {
            Some(candidates) => candidates,
            None => {
                let fault = Fault::InsecureRedirect { origin: url.origin().ascii_serialization() };
                Err(ClientError::Protocol { host: self.peer().clone(), request: request(), fault })
            }
        }
    }

    fn known_session(&self, url: &Url) -> Option<Arc<Session>> {
        self.others().iter().find(|session| session.owns(url)).cloned()
    }

    fn remember(&self, url: &Url, session: Arc<Session>) {
        let mut others = self.others();
        if others.len() >= MAX_OTHER_HOSTS {
            others.clear();
        }
        others.retain(|other| !other.owns(url));
        others.push(session);
    }
}

/// Boxed: the choice of an identity may lead to a token server, which has an identity to choose.
fn choose_for_tokens<'a>(
    candidates: &'a Candidates,
    url: &'a Url,
) -> Pin<Box<dyn Future<Output = Result<Arc<Session>, ClientError>> + Send + 'a>> {
    Box::pin(async move {
        let probe = Probe::TokenServer(url);
        Ok(candidates.choose(&probe, 0, None, Vec::new()).await?.session)
    })
}

/// Where the answer sends us, if it does.
fn redirect_target(response: &Response, transport: Transport) -> Result<Option<Url>, ClientError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let target = location(response)?;
    let allowed = target.scheme() == "https" || (target.scheme() == "http" && transport == Transport::PlainHttp);
    // A user name in the address would become a login of the registry's choosing.
    if !allowed || !target.username().is_empty() || target.password().is_some() {
        return Err(response.fault(Fault::InsecureRedirect { origin: target.origin().ascii_serialization() }));
    }
    Ok(Some(target))
}

/// The `Location` header, absolute or relative to the address that answered.
pub(crate) fn location(response: &Response) -> Result<Url, ClientError> {
    let value = response.header(&LOCATION).ok_or_else(|| response.fault(Fault::NoHeader { header: "Location" }))?;
    let value_shown = || value.chars().take(200).collect();
    response
        .url()
        .join(value)
        .map_err(|_| response.fault(Fault::BadHeader { header: "Location", value: value_shown() }))
}

/// The registry's name for an address, as its certificate directory would be called. The URL standard has removed the
/// scheme's own port by now, as there is none in the name of a host reached without one.
pub(crate) fn host_of(url: &Url) -> Option<RegistryHost> {
    let host = url.host_str()?;
    match url.port() {
        Some(port) => format!("{host}:{port}").parse().ok(),
        None => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_redirect_target() {
        for (url, host) in [
            ("https://cdn.test/x?y=z", "cdn.test"),
            ("https://cdn.test:443/", "cdn.test"),
            ("https://cdn.test:8443/", "cdn.test:8443"),
            ("https://[fd00::1]:5000/", "[fd00::1]:5000"),
        ] {
            assert_eq!(host_of(&Url::parse(url).unwrap()).unwrap().as_str(), host);
        }
        assert_eq!(host_of(&Url::parse("data:,x").unwrap()), None);
    }
}
