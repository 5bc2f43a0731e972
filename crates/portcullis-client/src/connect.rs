//! From a host's name to a session under the right identity: reads the certificate directory, then tries its pairs.
//!
//! The rule is Docker's page's, which no engine has followed since Docker 1.4 (2014): the pairs are tried in byte order
//! of their names; when the registry refuses one, in the TLS handshake or with a 4xx or 5xx authentication answer, the
//! next is tried. Only a GET or HEAD is ever used to find out. Must not know what the session is for.

use http::{HeaderMap, Method};
use portcullis_certs::{ClientPair, Finding, HostCerts, Severity, read_host_certs};
use portcullis_oci::{Endpoint, RegistryHost};
use reqwest::Url;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::progress::Progress;
use crate::refusal::{Attempt, Refusal};
use crate::session::{Repeat, Response, Session};

/// What a host's certificate directory gave, without a fatal finding.
pub(crate) struct Directory {
    pub(crate) certs: HostCerts,
    pub(crate) warnings: Vec<Finding>,
}

/// What is asked for to see whether an identity is accepted.
pub(crate) enum Probe<'a> {
    /// The distribution API's own: `GET /v2/`.
    Base,
    /// A GET or HEAD of this address, on a host that need not be a registry.
    Address(&'a Method, &'a Url, &'a HeaderMap),
}

/// Reads the directory. Any fatal finding ends it, with all findings.
pub(crate) async fn read_directory(host: &RegistryHost, options: &ClientOptions) -> Result<Directory, ClientError> {
    let (profile, location, owned) = (options.certs.profile, options.certs.location.clone(), host.clone());
    let read = move || read_host_certs(&profile, location.as_certs_location(), &owned, OffsetDateTime::now_utc());
    let (certs, findings) = crate::blocking(read).await;
    for finding in &findings {
        tracing::debug!(%host, %finding, "certificate directory");
    }
    if findings.iter().any(|finding| finding.severity == Severity::Fatal) {
        return Err(ClientError::CertsDir { host: host.clone(), findings });
    }
    Ok(Directory { certs, warnings: findings })
}

/// Opens a session under the first identity that is not refused, with the answer that showed it. That answer may have
/// any status that is not about the identity.
pub(crate) async fn choose(
    host: &RegistryHost,
    certs: &HostCerts,
    options: &ClientOptions,
    probe: &Probe<'_>,
) -> Result<(Session, Response), ClientError> {
    let identities: Vec<Option<&ClientPair>> =
        if certs.pairs.is_empty() { vec![None] } else { certs.pairs.iter().map(Some).collect() };
    let mut round = 0;
    loop {
        let mut refused = Vec::new();
        for pair in &identities {
            let session = Session::open(host, &certs.roots, *pair, options)?;
            match attempt(&session, probe, options).await {
                Ok(response) => return Ok((session, response)),
                Err(Unsuitable::Identity(refusal, error)) => {
                    let pair = pair.map(|pair| pair.name.clone());
                    tracing::debug!(%host, ?pair, %refusal, "identity refused");
                    refused.push((Attempt { pair, refusal }, error));
                }
                Err(Unsuitable::Other(error)) => return Err(error),
            }
        }
        round += 1;
        // What every identity gets is the server's trouble, which may pass.
        let passing = refused.iter().all(|(attempt, _)| attempt.is_passing());
        if !passing || round > options.retries.limit {
            return Err(verdict(host, refused));
        }
        sleep(options.retries.pause_before(round, None)).await;
    }
}

/// Why an attempt did not give a session.
enum Unsuitable {
    /// The next identity may fare better. The error is the one to show when there was no refusal in it after all.
    Identity(Refusal, ClientError),
    /// No identity would.
    Other(ClientError),
}

async fn attempt(session: &Session, probe: &Probe<'_>, options: &ClientOptions) -> Result<Response, Unsuitable> {
    let none = HeaderMap::new();
    let base = session.address(&Endpoint::Base).1;
    let (method, url, headers) = match probe {
        Probe::Base => (&Method::GET, &base, &none),
        Probe::Address(method, url, headers) => (*method, *url, *headers),
    };
    let mut number = 0;
    loop {
        let sent = session.read(method, url, headers, Repeat::RateLimits, &Progress::none()).await;
        let error = match sent {
            Ok(response) => return judge(response).await,
            Err(error) => error,
        };
        let ClientError::Connection { failure, .. } = &error else { return Err(Unsuitable::Other(error)) };
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
        if number > options.retries.limit {
            // Some servers (stunnel, HAProxy with an old configuration) refuse by closing without a word.
            return Err(Unsuitable::Identity(Refusal::Handshake(failure.clone()), error));
        }
        sleep(options.retries.pause_before(number, None)).await;
    }
}

async fn judge(response: Response) -> Result<Response, Unsuitable> {
    if !response.status().is_client_error() && !response.status().is_server_error() {
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

fn verdict(host: &RegistryHost, mut refused: Vec<(Attempt, ClientError)>) -> ClientError {
    let silent = |attempt: &Attempt| matches!(&attempt.refusal, Refusal::Handshake(failure) if failure.is_passing());
    let alone = refused.len() == 1 && refused.iter().all(|(attempt, _)| attempt.is_passing());
    // Not a word about the identity anywhere: the plain error says more than a list of one thing.
    if (alone || refused.iter().all(|(attempt, _)| silent(attempt)))
        && let Some((_, error)) = refused.pop()
    {
        return error;
    }
    let attempts = refused.into_iter().map(|(attempt, _)| attempt).collect();
    ClientError::Refused { host: host.clone(), attempts }
}
