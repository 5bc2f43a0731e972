//! Hosts that are asked in a registry's place, as an engine's configuration says: containerd's `hosts.toml`, Podman's
//! `registries.conf`.
//!
//! A read goes to each host that is for it, in order, until one answers; the registry's server is last. Each has an identity
//! of its own, from the files that are named for it, is connected to when its turn comes, and never sees another's. A push
//! goes to one host, and nowhere else. Must not know how the configuration is written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_certs::engine_files::RegistryFault;
use portcullis_certs::{Finding, HostCerts};
use portcullis_oci::{Endpoint, ManifestReference, RegistryHost, RepositoryName};
use tokio::sync::OnceCell;

use crate::connect::Candidates;
use crate::options::{ClientOptions, Transport};
use crate::session::{Response, Route};
use crate::{Client, ClientError, Credentials};

mod containerd;
mod podman;

pub use podman::check_registry_as_podman;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Tags are resolved, and content is read.
    Read,
    /// An image is pushed.
    Push,
}

/// Who is told that a host was passed over, and why.
#[derive(Clone)]
pub struct PassedOver(Arc<Told>);

type Told = dyn Fn(&RegistryHost, &ClientError) + Send + Sync;

/// Why the hosts that the engine's configuration names cannot be used. Nothing was sent to any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsFault {
    /// `skip_verify` is never followed.
    #[error(
        "the engine's configuration skips the verification of its certificate (skip_verify), which is never done here: name its CA as `ca`, or speak to it without TLS at all, with http:// in its address and --plain-http"
    )]
    SkipsVerification,
    /// HTTP where it was not asked for.
    #[error(
        "the engine's configuration speaks to it without TLS (http://): write https://, or allow it with --plain-http"
    )]
    PlainHttp,
    /// No host has the capability.
    #[error("the engine's configuration has no host for it that takes pushes: give one the capability \"push\"")]
    NoPush,
    /// No host has the capability.
    #[error(
        "the engine's configuration has no host for it that is read from: give one the capabilities \"pull\" and \"resolve\""
    )]
    NoRead,
    /// Podman's configuration is against it.
    #[error(transparent)]
    Registries(Box<RegistryFault>),
    /// Podman's configuration was read for one repository; another one may be elsewhere.
    #[error("was connected to for another repository than {asked}: connect for each")]
    OtherRepository {
        /// The one that is asked for now.
        asked: RepositoryName,
    },
}

/// What a host must be able to do for a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ability {
    Resolve,
    Pull,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// The registry whose place they take.
    pub(crate) registry: RegistryHost,
    /// The only repository that they are for; `None`: any.
    repository: Option<RepositoryName>,
    list: Vec<Host>,
    /// The first that let us in.
    front: usize,
    lacking: Lacking,
    told: PassedOver,
}

/// What becomes of a host that does not have what it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacking {
    /// It is asked for the rest, as containerd does.
    Stays,
    /// It is not asked again: Podman takes an image from one host.
    Goes,
}

#[derive(Debug)]
struct Host {
    name: RegistryHost,
    route: Route,
    options: ClientOptions,
    files: Files,
    resolves: bool,
    pulls: bool,
    /// Why it is not even connected to.
    refused: Option<HostsFault>,
    client: OnceCell<Client>,
    /// It has failed, and is not asked again.
    out: AtomicBool,
}

/// Which certificates a host has.
#[derive(Debug)]
enum Files {
    /// Those that the configuration names.
    Named(HostCerts),
    /// Those of its own directory, which is looked at when its turn comes.
    OwnDirectory,
}

/// Whose turn it is.
pub(crate) struct Turn {
    pub(crate) client: Client,
    pub(crate) at: usize,
    ability: Ability,
}

impl Client {
    /// Connects to the first of them that lets us in.
    async fn connect_to_first(mut hosts: Hosts, warnings: Vec<Finding>, none: HostsFault) -> Result<Self, ClientError> {
        let mut last = ClientError::Hosts { host: hosts.registry.clone(), fault: none };
        for front in 0..hosts.list.len() {
            match hosts.list[front].connect(warnings.clone()).await {
                Ok(client) => {
                    hosts.front = front;
                    return Ok(client.with_hosts(hosts));
                }
                Err(error) => {
                    if front + 1 < hosts.list.len() {
                        (hosts.told.0)(&hosts.list[front].name, &error);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The first host that is for it.
    pub(crate) async fn first_turn(&self, endpoint: &Endpoint) -> Result<Turn, ClientError> {
        let ability = Ability::for_endpoint(endpoint);
        let front = || Turn { client: self.without_hosts(), at: 0, ability };
        let Some(hosts) = self.hosts() else { return Ok(front()) };
        hosts.check_repository(endpoint)?;
        if hosts.list[hosts.front].is_for(ability) {
            return Ok(Turn { at: hosts.front, ..front() });
        }
        match hosts.turn_after(hosts.front, ability).await {
            Some(turn) => turn,
            None => Err(ClientError::Hosts { host: hosts.registry.clone(), fault: HostsFault::NoRead }),
        }
    }

    /// Whether another host comes after this one.
    pub(crate) fn has_turn_after(&self, turn: &Turn) -> bool {
        self.hosts().is_some_and(|hosts| hosts.after(turn.at, turn.ability).next().is_some())
    }

    /// The next host, after this one has failed with `error`, which it is if there is none.
    pub(crate) async fn next_turn(&self, turn: &Turn, error: ClientError) -> Result<Turn, ClientError> {
        let Some(hosts) = self.hosts().filter(|_| self.has_turn_after(turn)) else { return Err(error) };
        let failed = &hosts.list[turn.at];
        // It may lack one blob and have the others. Whatever else is wrong with it will be so for them too.
        if error.is_not_found() && hosts.lacking == Lacking::Stays {
            (hosts.told.0)(&failed.name, &error);
        } else {
            hosts.put_out(failed, &error);
        }
        hosts.turn_after(turn.at, turn.ability).await.unwrap_or(Err(error))
    }

    /// Passes over the host that gave this answer to a read of content, which broke off for good. Whether another one can be
    /// asked.
    pub(crate) fn pass_over(&self, answer: &Response, error: &ClientError) -> bool {
        let Some(hosts) = self.hosts() else { return false };
        let place = answer.place();
        if hosts.after(place, Ability::Pull).next().is_none() {
            return false;
        }
        hosts.put_out(&hosts.list[place], error);
        true
    }
}

impl Hosts {
    /// Those after this one that are for it, with their places.
    fn after(&self, at: usize, ability: Ability) -> impl Iterator<Item = (usize, &Host)> {
        self.list.iter().enumerate().skip(at + 1).filter(move |(_, host)| host.is_for(ability))
    }

    async fn turn_after(&self, at: usize, ability: Ability) -> Option<Result<Turn, ClientError>> {
        let mut last = None;
        for (at, host) in self.after(at, ability) {
            match host.client.get_or_try_init(|| Box::pin(host.connect(Vec::new()))).await {
                Ok(client) => return Some(Ok(Turn { client: client.clone(), at, ability })),
                Err(error) => {
                    if self.after(at, ability).next().is_some() {
                        (self.told.0)(&host.name, &error);
                        host.out.store(true, Ordering::Relaxed);
                    }
                    last = Some(Err(error));
                }
            }
        }
        last
    }

    /// A host is not asked again; that is told once.
    fn put_out(&self, failed: &Host, error: &ClientError) {
        if !failed.out.swap(true, Ordering::Relaxed) {
            (self.told.0)(&failed.name, error);
        }
    }

    fn check_repository(&self, endpoint: &Endpoint) -> Result<(), ClientError> {
        match (&self.repository, endpoint.repository()) {
            (Some(own), Some(asked)) if own != asked => {
                let fault = HostsFault::OtherRepository { asked: asked.clone() };
                Err(ClientError::Hosts { host: self.registry.clone(), fault })
            }
            _ => Ok(()),
        }
    }
}

impl Host {
    fn new(name: RegistryHost, route: Route, options: ClientOptions, files: Files) -> Self {
        let (resolves, pulls, client, out) = (true, true, OnceCell::new(), AtomicBool::new(false));
        Self { name, route, options, files, resolves, pulls, refused: None, client, out }
    }

    fn is_for(&self, ability: Ability) -> bool {
        let able = match ability {
            Ability::Resolve => self.resolves,
            Ability::Pull => self.pulls,
        };
        able && !self.out.load(Ordering::Relaxed)
    }

    async fn connect(&self, warnings: Vec<Finding>) -> Result<Client, ClientError> {
        let host = self.name.clone();
        if let Some(fault) = &self.refused {
            return Err(ClientError::Hosts { host, fault: fault.clone() });
        }
        let (options, route) = (self.options.clone(), self.route.clone());
        let candidates = match (&self.files, options.transport) {
            (Files::OwnDirectory, transport) => Candidates::read(&host, transport, options).await?.on_route(route),
            (Files::Named(_), Transport::PlainHttp) => {
                Candidates::given(host, options, HostCerts::default(), route, warnings).await?
            }
            (Files::Named(certs), Transport::Tls) => {
                Candidates::given(host, options, certs.clone(), route, warnings).await?
            }
        };
        Client::open(candidates).await
    }
}

/// What a host in the registry's place is shown beside a certificate: what the auth files have for its own name.
fn credentials(options: &ClientOptions, host: &RegistryHost, registry: &RegistryHost) -> Credentials {
    match &options.credentials {
        Credentials::Given(_) if host != registry => Credentials::Anonymous,
        other => other.clone(),
    }
}

impl Ability {
    /// A tag is resolved; everything else has its digest.
    fn for_endpoint(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::GetManifest { reference, .. } | Endpoint::HeadManifest { reference, .. }
                if matches!(reference, ManifestReference::Digest(_)) =>
            {
                Self::Pull
            }
            Endpoint::GetBlob { .. } | Endpoint::HeadBlob { .. } | Endpoint::Referrers { .. } => Self::Pull,
            _ => Self::Resolve,
        }
    }
}

impl PassedOver {
    /// `told` is called from several tasks and must return at once.
    pub fn new(told: impl Fn(&RegistryHost, &ClientError) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassedOver")
    }
}
