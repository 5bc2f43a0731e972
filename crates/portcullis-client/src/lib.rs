//! A registry seen from outside: one call per endpoint, then pull, push and copy, with a client certificate per registry.
//!
//! Owns the HTTP of the client's end and the choice of the identity. Certificates come from a certificate directory
//! (`/etc/docker/certs.d/<host[:port]>/`), read by `portcullis-certs`; TLS is configured by `portcullis-tls`. Must not
//! know how progress is drawn or what a command line looks like.
//!
//! - A certificate is for one origin. A redirect to another host is followed with that host's own directory, a write is
//!   never sent to another host, and a proxy sees neither certificate nor key.
//! - With several pairs in the directory, each is tried in byte order of its name until the registry does not refuse
//!   it ([`Client::connect`]); from then on the identity is fixed.
//! - Every byte is verified against its digest as it streams, and no body is longer than its descriptor says.
//! - Every wait has a deadline ([`Timeouts`]), every repetition a bound ([`Retries`]).
//!
//! ```no_run
//! use portcullis_client::{Client, ClientOptions, LayoutDir, Progress, pull};
//! use portcullis_oci::Reference;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let reference: Reference = "registry.test:5443/team/app:1.2".parse()?;
//! let client = Client::connect(&reference.host, &ClientOptions::default()).await?;
//! let layout = LayoutDir::create("app.oci".as_ref())?;
//! let pulled = pull(&client, &reference, &layout, &Progress::none()).await?;
//! assert_eq!(pulled.tag, reference.tag);
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::LOCATION;
use http::{HeaderMap, Method};
use portcullis_certs::Finding;
use portcullis_oci::{Endpoint, RegistryHost};
use reqwest::Url;

mod alert;
mod answer;
mod archive;
mod blobs;
mod choice;
mod compare;
mod connect;
mod copy;
mod deliver;
mod distrust;
mod error;
mod expected;
mod layout;
mod lists;
mod manifests;
mod options;
mod ping;
mod progress;
mod pull;
mod push;
mod referrers;
mod refusal;
mod relay;
mod resolver;
mod select;
mod session;
mod sink;
mod source;
mod survey;
mod temporary;
mod transfer;
mod uploads;

pub use answer::{Answer, Complaint};
pub use archive::{Archive, ArchiveFault, ArchiveName, ArchivedImage, MAX_ENTRIES, MAX_EXTENDED, MAX_NAME};
pub use blobs::{BlobHead, BlobReader};
pub use choice::{Platforms, Referrers, TransferOptions};
pub use compare::{Change, Comparison, Difference, ImageChange, Layer, Layers, MAX_COMPARED, Sides, compare};
pub use copy::{Copied, copy, copy_image};
pub use distrust::Distrust;
pub use error::{BlobFault, ClientError, DigestMismatch, LayoutFault, ProtocolFault};
pub use layout::{BlobWriter, LayoutDir, LayoutName};
pub use lists::{MAX_LIST_PAGES, MAX_LISTED};
pub use manifests::{FetchedManifest, ManifestHead};
pub use options::{CertsChoice, ClientOptions, Location, Retries, Timeouts};
pub use progress::{Event, Progress};
pub use pull::{Pulled, pull, pull_image};
pub use push::{Pushed, push, push_image};
pub use referrers::MAX_REFERRERS;
pub use refusal::{Attempt, Failure, Refusal, Wait};
pub use relay::{RelayTo, Relayed, RelayedBody};
pub use sink::{ArchiveForm, ImageTarget};
pub use source::ImageSource;
pub use survey::MAX_MANIFEST_BYTES;
pub use transfer::{MAX_DEPTH, MAX_MANIFESTS, PARALLEL};
pub use uploads::{Mount, UploadLocation};

use connect::{Probe, choose, read_directory};
use error::ProtocolFault as Fault;
use session::{Repeat, Response, Session};

/// How many redirects in a row are followed.
pub const MAX_REDIRECTS: usize = 5;

/// How many hosts that a registry redirects to are remembered with their sessions.
const MAX_OTHER_HOSTS: usize = 16;

/// A registry, under one identity. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    session: Session,
    options: ClientOptions,
    warnings: Vec<Finding>,
    others: Mutex<HashMap<RegistryHost, Arc<Session>>>,
}

impl Client {
    /// Reads the certificate directory for `host` and finds the identity that the registry takes, with `GET /v2/`.
    ///
    /// The pairs are tried in byte order of their names. The next one is tried when the registry refuses one with a TLS
    /// alert (in the handshake, or in TLS 1.3 at the first read) or with 401, 403, 495, 496, a 5xx, or nginx's 400 about
    /// certificates; not on 404 or 429. Without a pair the connection is made without a certificate.
    ///
    /// # Errors
    /// [`ClientError::CertsDir`] when the directory has a fatal fault: nothing was sent then.
    /// [`ClientError::Refused`] when every identity was refused, with the reason for each.
    pub async fn connect(host: &RegistryHost, options: &ClientOptions) -> Result<Self, ClientError> {
        let directory = read_directory(host, options).await?;
        let (session, response) = choose(host, &directory.certs, options, &Probe::Base).await?;
        ping::check(response).await?;
        Ok(Self(Arc::new(Shared {
            session,
            options: options.clone(),
            warnings: directory.warnings,
            others: Mutex::default(),
        })))
    }

    /// The registry.
    pub fn host(&self) -> &RegistryHost {
        self.0.session.host()
    }

    /// The pair that the registry took, by the stem of its files' names; `None`: it asked for no certificate, or there
    /// was none to present.
    pub fn pair_used(&self) -> Option<&str> {
        self.0.session.pair()
    }

    /// What the certificate directory has that is not fatal: an expired pair, a key without a certificate, file modes.
    pub fn warnings(&self) -> &[Finding] {
        &self.0.warnings
    }

    fn session(&self) -> &Session {
        &self.0.session
    }

    fn retries(&self) -> Retries {
        self.0.options.retries
    }

    /// A GET or HEAD, with its redirects.
    async fn read(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let (method, url) = self.session().address(endpoint);
        self.read_from(&method, url, headers, progress).await
    }

    /// The same at an address on this registry.
    async fn read_from(
        &self,
        method: &Method,
        mut url: Url,
        headers: &HeaderMap,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        let mut hops = 0;
        loop {
            let response = self.read_at(method, &url, headers, progress).await?;
            let Some(target) = redirect_target(&response)? else { return Ok(response) };
            if hops == MAX_REDIRECTS {
                return Err(response.fault(Fault::TooManyRedirects { limit: MAX_REDIRECTS }));
            }
            hops += 1;
            url = target;
        }
    }

    /// One request of a read: to the registry under its identity, to any other origin under that origin's own.
    async fn read_at(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        progress: &Progress,
    ) -> Result<Response, ClientError> {
        if self.session().owns(url) {
            return self.session().read(method, url, headers, Repeat::Passing, progress).await;
        }
        let host = host_of(url).ok_or_else(|| self.insecure(method, url))?;
        let known = self.others().get(&host).cloned();
        if let Some(session) = known {
            return session.read(method, url, headers, Repeat::Passing, progress).await;
        }
        let options = self.0.options.for_another_host();
        let directory = read_directory(&host, &options).await?;
        let probe = Probe::Address(method, url, headers);
        let (session, response) = choose(&host, &directory.certs, &options, &probe).await?;
        let mut others = self.others();
        if others.len() >= MAX_OTHER_HOSTS {
            others.clear();
        }
        others.insert(host, Arc::new(session));
        Ok(response)
    }

    fn others(&self) -> std::sync::MutexGuard<'_, HashMap<RegistryHost, Arc<Session>>> {
        // The map is whole after every single call on it, so a panic elsewhere cannot have left it half done.
        self.0.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insecure(&self, method: &Method, url: &Url) -> ClientError {
        let request = format!("{method} {}", url.path());
        let fault = Fault::InsecureRedirect { origin: url.origin().ascii_serialization() };
        ClientError::Protocol { host: self.host().clone(), request, fault }
    }
}

/// Where the answer sends us, if it does.
fn redirect_target(response: &Response) -> Result<Option<Url>, ClientError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let target = location(response)?;
    // A user name in the address would become a login of the registry's choosing.
    if target.scheme() != "https" || !target.username().is_empty() || target.password().is_some() {
        return Err(response.fault(Fault::InsecureRedirect { origin: target.origin().ascii_serialization() }));
    }
    Ok(Some(target))
}

/// The `Location` header, absolute or relative to the address that answered.
fn location(response: &Response) -> Result<Url, ClientError> {
    let value = response.header(&LOCATION).ok_or_else(|| response.fault(Fault::NoHeader { header: "Location" }))?;
    let value_shown = || value.chars().take(200).collect();
    response
        .url()
        .join(value)
        .map_err(|_| response.fault(Fault::BadHeader { header: "Location", value: value_shown() }))
}

/// The registry's name for an address, as its certificate directory would be called. The URL standard has removed a port
/// of 443 by now, as there is none in the name of a host reached without one.
fn host_of(url: &Url) -> Option<RegistryHost> {
    let host = url.host_str()?;
    match url.port() {
        Some(port) => format!("{host}:{port}").parse().ok(),
        None => host.parse().ok(),
    }
}

/// Runs blocking file work beside the async tasks. A panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => resume_unwind(error.into_panic()),
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
