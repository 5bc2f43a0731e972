//! Hosts that are asked in a registry's place, as the engine's configuration says: containerd's `hosts.toml`.
//!
//! A read goes to each host that is for it, in order, until one answers; the registry's server is last. Each has an identity
//! of its own, from the files that are named for it, is connected to when its turn comes, and never sees another's. A push
//! goes to the first host that takes pushes, and nowhere else. Must not know how the configuration is written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_certs::{EngineHost, Finding, HostCerts, Scheme, read_engine_hosts};
use portcullis_oci::{Endpoint, ManifestReference, RegistryHost};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::connect::{Candidates, refuse_fatal};
use crate::options::{ClientOptions, Transport};
use crate::session::Route;
use crate::{Client, ClientError, Credentials};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
}

/// What a host must be able to do for a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ability {
    Resolve,
    Pull,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// The registry whose place they take.
    pub(crate) registry: RegistryHost,
    list: Vec<Host>,
    /// The first that let us in.
    front: usize,
    told: PassedOver,
}

#[derive(Debug)]
struct Host {
    name: RegistryHost,
    route: Route,
    options: ClientOptions,
    certs: HostCerts,
    resolves: bool,
    pulls: bool,
    client: OnceCell<Client>,
    /// It has failed otherwise than by not having something.
    out: AtomicBool,
}

/// Whose turn it is.
pub(crate) struct Turn {
    pub(crate) client: Client,
    at: usize,
}

impl Client {
    /// Connects as [`Client::connect`] does, to the hosts that containerd would ask in the place of `registry`
    /// (`hosts.toml`), where [`ClientOptions::certs`] says that its directories are. `told` hears of each host that is
    /// passed over, at once or later, when the next one is asked.
    ///
    /// # Errors
    /// [`ClientError::CertsDir`] when the configuration or a file that it names has a fatal fault, [`ClientError::Hosts`]
    /// when it asks for what is not done here; nothing was sent then. Else the last host's error.
    pub async fn connect_as_containerd(
        registry: &RegistryHost,
        options: &ClientOptions,
        purpose: Purpose,
        told: &PassedOver,
    ) -> Result<Self, ClientError> {
        let (found, warnings) = read_hosts(registry, options).await?;
        let usable = |host: &EngineHost| match purpose {
            Purpose::Read => host.resolves || host.pulls,
            Purpose::Push => host.pushes,
        };
        let found = found.into_iter().filter(usable);
        let mut list = found.map(|host| Host::new(host, registry, options)).collect::<Result<Vec<_>, _>>()?;
        if purpose == Purpose::Push {
            list.truncate(1);
            // What is there already is asked for where it is pushed to.
            for host in &mut list {
                (host.resolves, host.pulls) = (true, true);
            }
        }
        let fault = if purpose == Purpose::Push { HostsFault::NoPush } else { HostsFault::NoRead };
        let mut last = ClientError::Hosts { host: registry.clone(), fault };
        for front in 0..list.len() {
            match list[front].connect(warnings.clone()).await {
                Ok(client) => {
                    let hosts = Hosts { registry: registry.clone(), list, front, told: told.clone() };
                    return Ok(client.with_hosts(hosts));
                }
                Err(error) => {
                    if front + 1 < list.len() {
                        (told.0)(&list[front].name, &error);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The first host that is for it.
    pub(crate) async fn first_turn(&self, ability: Ability) -> Result<Turn, ClientError> {
        let front = || Turn { client: self.without_hosts(), at: 0 };
        match self.hosts() {
            None => Ok(front()),
            Some(hosts) if hosts.list[hosts.front].is_for(ability) => Ok(Turn { at: hosts.front, ..front() }),
            Some(hosts) => match hosts.turn_after(hosts.front, ability).await {
                Some(turn) => turn,
                None => Err(ClientError::Hosts { host: hosts.registry.clone(), fault: HostsFault::NoRead }),
            },
        }
    }

    /// Whether another host comes after this one.
    pub(crate) fn has_turn_after(&self, turn: &Turn, ability: Ability) -> bool {
        self.hosts().is_some_and(|hosts| hosts.after(turn.at, ability).next().is_some())
    }

    /// The next host, after this one has failed with `error`, which it is if there is none.
    pub(crate) async fn next_turn(
        &self,
        turn: &Turn,
        ability: Ability,
        error: ClientError,
    ) -> Result<Turn, ClientError> {
        let Some(hosts) = self.hosts().filter(|_| self.has_turn_after(turn, ability)) else { return Err(error) };
        let failed = &hosts.list[turn.at];
        // It may lack one blob and have the others. Whatever else is wrong with it will be so for them too.
        if error.is_not_found() || !failed.out.swap(true, Ordering::Relaxed) {
            (hosts.told.0)(&failed.name, &error);
        }
        hosts.turn_after(turn.at, ability).await.unwrap_or(Err(error))
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
                Ok(client) => return Some(Ok(Turn { client: client.clone(), at })),
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
}

impl Host {
    fn new(found: EngineHost, registry: &RegistryHost, options: &ClientOptions) -> Result<Self, ClientError> {
        let EngineHost { host, scheme, path, resolves, pulls, verifies, certs, .. } = found;
        let refused = |fault| Err(ClientError::Hosts { host: host.clone(), fault });
        let transport = match (scheme, options.transport) {
            (Some(Scheme::Http | Scheme::HttpsThenHttp), Transport::Tls) => return refused(HostsFault::PlainHttp),
            (Some(Scheme::Http | Scheme::HttpsThenHttp), Transport::PlainHttp) => Transport::PlainHttp,
            (None, asked) => asked,
            (Some(Scheme::Https), _) => Transport::Tls,
        };
        if !verifies && transport == Transport::Tls {
            return refused(HostsFault::SkipsVerification);
        }
        let is_other = host != *registry;
        let credentials = match &options.credentials {
            Credentials::Given(_) if is_other => Credentials::Anonymous,
            other => other.clone(),
        };
        let options = ClientOptions { transport, credentials, ..options.clone() };
        let route = Route { path, namespace: is_other.then(|| registry.clone()) };
        let (client, out) = (OnceCell::new(), AtomicBool::new(false));
        Ok(Self { name: host, route, options, certs, resolves, pulls, client, out })
    }

    fn is_for(&self, ability: Ability) -> bool {
        let able = match ability {
            Ability::Resolve => self.resolves,
            Ability::Pull => self.pulls,
        };
        able && !self.out.load(Ordering::Relaxed)
    }

    async fn connect(&self, warnings: Vec<Finding>) -> Result<Client, ClientError> {
        let certs = match self.options.transport {
            Transport::PlainHttp => HostCerts::default(),
            Transport::Tls => self.certs.clone(),
        };
        let (host, options) = (self.name.clone(), self.options.clone());
        Client::open(Candidates::given(host, options, certs, self.route.clone(), warnings)).await
    }
}

/// All hosts, and what is wrong with them that is not fatal.
async fn read_hosts(
    registry: &RegistryHost,
    options: &ClientOptions,
) -> Result<(Vec<EngineHost>, Vec<Finding>), ClientError> {
    let (location, host) = (options.certs.location.clone(), registry.clone());
    let now = OffsetDateTime::now_utc();
    let read = move || read_engine_hosts(location.as_certs_location(), &host, now);
    let (found, findings) = crate::blocking(read).await;
    Ok((found, refuse_fatal(registry, findings)?))
}

impl Ability {
    /// A tag is resolved; everything else has its digest.
    pub(crate) fn for_endpoint(endpoint: &Endpoint) -> Self {
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
