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
//! - A registry that wants a login gets it: a token or a password, found where Docker and Podman keep theirs
//!   ([`Credentials`]), sent to the registry's own origin only.
//! - Every byte is verified against its digest as it streams, and no body is longer than its descriptor says.
//! - Every wait has a deadline ([`Timeouts`]), all repetitions of a request or a blob have a bound ([`Retries`]).
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
//!
//! A client of one's own needs the TLS configuration for a host, and nothing else from here. For reqwest:
//!
//! ```no_run
//! use portcullis_certs::{CertsLocation, EngineProfile, Severity, read_host_certs};
//! use portcullis_tls::{Roots, client_config};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host = "registry.test:5443".parse()?;
//! let now = time::OffsetDateTime::now_utc();
//! let (certs, findings) = read_host_certs(&EngineProfile::DOCKER_DOCS, CertsLocation::Search, &host, now);
//! if let Some(fatal) = findings.iter().find(|finding| finding.severity == Severity::Fatal) {
//!     return Err(fatal.to_string().into());
//! }
//! let tls = client_config(&certs.roots, Roots::Merge, certs.pairs.first())?;
//! // One client for one host: the certificate must not follow a redirect.
//! let http = reqwest::Client::builder()
//!     .tls_backend_preconfigured(tls)
//!     .redirect(reqwest::redirect::Policy::none())
//!     .build()?;
//! # drop(http);
//! # Ok(())
//! # }
//! ```
//!
//! For hyper, through `tokio-rustls`:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use hyper::client::conn::http1;
//! use hyper::{Request, header::HOST};
//! use portcullis_certs::{CertsLocation, EngineProfile, Severity, read_host_certs};
//! use portcullis_oci::RegistryHost;
//! use portcullis_tls::{Roots, client_config};
//! use rustls_pki_types::ServerName;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host: RegistryHost = "registry.test:5443".parse()?;
//! let now = time::OffsetDateTime::now_utc();
//! let (certs, findings) = read_host_certs(&EngineProfile::DOCKER_DOCS, CertsLocation::Search, &host, now);
//! if let Some(fatal) = findings.iter().find(|finding| finding.severity == Severity::Fatal) {
//!     return Err(fatal.to_string().into());
//! }
//! let mut tls = client_config(&certs.roots, Roots::Merge, certs.pairs.first())?;
//! // It offers HTTP/2 as well, which `http1` does not speak.
//! tls.alpn_protocols = vec![b"http/1.1".to_vec()];
//! let tcp = tokio::net::TcpStream::connect((host.server_name(), host.port_or_default())).await?;
//! let name = ServerName::try_from(host.server_name().to_owned())?;
//! let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
//! let (mut sender, connection) = http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
//! tokio::spawn(connection);
//! let request = Request::get("/v2/").header(HOST, host.as_str()).body(http_body_util::Empty::<bytes::Bytes>::new())?;
//! let answer = sender.send_request(request).await?;
//! assert_eq!(answer.status(), 200);
//! # Ok(())
//! # }
//! ```

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_certs::Finding;
use portcullis_oci::RegistryHost;

mod activity;
mod alert;
mod answer;
mod archive;
mod attempts;
mod auth;
mod blobs;
mod choice;
mod compare;
mod connect;
mod copy;
mod credentials;
mod deliver;
mod delivery;
mod distrust;
mod download;
mod early_sync;
mod error;
mod expected;
mod hosts;
mod identity;
mod layout;
mod lists;
mod manifests;
mod options;
mod origin;
mod ping;
mod plan;
mod progress;
mod proxy;
mod pull;
mod push;
mod reading;
mod referrers;
mod refusal;
mod relay;
mod resolver;
mod secret;
mod select;
mod session;
mod sink;
mod source;
mod spool;
mod survey;
mod temporary;
mod transfer;
mod tunnel;
mod uploads;
mod way;

pub use answer::{Answer, Complaint};
pub use archive::{Archive, ArchiveFault, ArchiveName, ArchivedImage, MAX_ENTRIES, MAX_EXTENDED, MAX_NAME};
pub use blobs::{BlobHead, BlobReader};
pub use choice::{Platforms, Referrers, TransferOptions};
pub use compare::{Change, Comparison, Difference, ImageChange, Layer, Layers, MAX_COMPARED, Sides, compare};
pub use copy::{Copied, copy, copy_image};
pub use credentials::{AuthFileFault, AuthFiles, AuthOrder, Credential, Credentials, HelperFault, Kept, forget, keep};
pub use delivery::CAREFUL_CHUNK;
pub use distrust::Distrust;
pub use error::{BlobFault, ClientError, DigestMismatch, LayoutFault, ProtocolFault};
pub use hosts::{HostsFault, PassedOver, Purpose, check_registry_as_podman};
pub use layout::{BlobWriter, LayoutDir, LayoutName};
pub use lists::{MAX_LIST_PAGES, MAX_LISTED};
pub use manifests::{FetchedManifest, ManifestHead};
pub use options::{CertsChoice, ClientOptions, Location, Retries, Timeouts, Transport};
pub use plan::{TransferPlan, plan_copy, plan_pull, plan_push};
pub use progress::{Event, Progress};
pub use pull::{Pulled, pull, pull_image};
pub use push::{Pushed, push, push_image};
pub use referrers::MAX_REFERRERS;
pub use refusal::{Attempt, Failure, Refusal, Wait};
pub use relay::{RelayTo, Relayed, RelayedBody};
pub use secret::Secret;
pub use sink::{ArchiveFile, ArchiveForm, ImageTarget};
pub use source::ImageSource;
pub use spool::{MAX_STREAM, Spool, SpoolError};
pub use survey::MAX_MANIFEST_BYTES;
pub use transfer::{MAX_DEPTH, MAX_MANIFESTS, PARALLEL};
pub use uploads::{Mount, UploadLocation};

use auth::Access;
use connect::{Candidates, Probe};
use hosts::Hosts;
use identity::Identity;
pub(crate) use reading::{host_of, location};
use session::Session;

/// How many redirects in a row are followed.
pub const MAX_REDIRECTS: usize = 5;

/// How many hosts that a registry redirects to are remembered with their sessions.
const MAX_OTHER_HOSTS: usize = 16;

/// A registry, under one identity. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    /// Those that are asked in the registry's place. They have none themselves, so that nothing holds itself.
    hosts: Option<Arc<Hosts>>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    access: Access,
    options: ClientOptions,
    others: Mutex<Vec<Arc<Session>>>,
}

impl Client {
    /// Reads the certificate directory for `host` and finds the identity that the registry takes, with `GET /v2/`.
    ///
    /// The pairs are tried in byte order of their names. The next one is tried when the registry refuses one with a TLS
    /// alert (in the handshake, or in TLS 1.3 at the first read) or with 401, 403, 495, 496, a 5xx, or nginx's 400 about
    /// certificates; not on 404 or 429, nor on a 401 that asks for what [`ClientOptions::credentials`] can give. The first
    /// GET or HEAD of the first operation is judged in the same way; from then on, or from the first write, the identity
    /// is fixed. Without a pair the connection is made without a certificate.
    ///
    /// # Errors
    /// [`ClientError::CertsDir`] when the directory has a fatal fault: nothing was sent then.
    /// [`ClientError::Refused`] when every identity was refused, with the reason for each.
    pub async fn connect(host: &RegistryHost, options: &ClientOptions) -> Result<Self, ClientError> {
        Self::open(Candidates::read(host, options.transport, options.clone()).await?).await
    }

    async fn open(candidates: Candidates) -> Result<Self, ClientError> {
        let options = candidates.options().clone();
        let access = Access::new(&options);
        let chosen = candidates.choose(&Probe::Base(&access), 0, None, Vec::new()).await?;
        let (identity, response) = Identity::new(candidates, chosen);
        ping::check(response, &access).await?;
        Ok(Self { shared: Arc::new(Shared { identity, access, options, others: Mutex::default() }), hosts: None })
    }

    /// The registry.
    pub fn host(&self) -> &RegistryHost {
        self.hosts.as_ref().map_or_else(|| self.peer(), |hosts| &hosts.registry)
    }

    /// The host that is spoken to: the registry, or the first that is asked in its place
    /// ([`Client::connect_as_containerd`], [`Client::connect_as_podman`]).
    pub fn peer(&self) -> &RegistryHost {
        &self.identity().candidates.host
    }

    /// The pair that the registry took, by the stem of its files' names; `None`: it asked for no certificate, or there
    /// was none to present. It may be another one after the first operation.
    pub fn pair_used(&self) -> Option<String> {
        self.session().pair().map(str::to_owned)
    }

    /// What the certificate directory has that is not fatal: an expired pair, a key without a certificate, file modes.
    pub fn warnings(&self) -> &[Finding] {
        &self.identity().candidates.warnings
    }

    /// Whether the registry has asked for more than a certificate so far.
    pub fn has_asked_for_login(&self) -> bool {
        self.access().is_wanted()
    }

    fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_deref()
    }

    fn with_hosts(self, hosts: Hosts) -> Self {
        Self { hosts: Some(Arc::new(hosts)), ..self }
    }

    fn without_hosts(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), hosts: None }
    }

    fn session(&self) -> Arc<Session> {
        self.identity().session()
    }

    fn access(&self) -> &Access {
        &self.shared.access
    }

    fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    fn transport(&self) -> Transport {
        self.shared.options.transport
    }

    fn retries(&self) -> Retries {
        self.shared.options.retries
    }

    fn chunk(&self) -> u64 {
        self.shared.options.chunk
    }

    fn others(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        // The list is whole after every single call on it, so a panic elsewhere cannot have left it half done.
        self.shared.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs blocking file work beside the async tasks. A panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => resume_unwind(error.into_panic()),
    }
}
