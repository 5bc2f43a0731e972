//! The hosts of containerd's `hosts.toml`. Must not know in which order they are asked, nor what for.

use portcullis_certs::{EngineHost, Finding, Scheme, read_engine_hosts};
use portcullis_oci::RegistryHost;
use time::OffsetDateTime;

use super::{Files, Host, Hosts, HostsFault, Lacking, PassedOver, Purpose, credentials};
use crate::connect::refuse_fatal;
use crate::options::{ClientOptions, Transport};
use crate::session::Route;
use crate::{Client, ClientError};

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
        let (found, warnings) = read(registry, options).await?;
        let usable = |host: &EngineHost| match purpose {
            Purpose::Read => host.resolves || host.pulls,
            Purpose::Push => host.pushes,
        };
        let found = found.into_iter().filter(usable);
        let mut list = found.map(|host| Host::named(host, registry, options)).collect::<Result<Vec<_>, _>>()?;
        if purpose == Purpose::Push {
            list.truncate(1);
            // What is there already is asked for where it is pushed to.
            for host in &mut list {
                (host.resolves, host.pulls) = (true, true);
            }
        }
        let none = if purpose == Purpose::Push { HostsFault::NoPush } else { HostsFault::NoRead };
        let (registry, told) = (registry.clone(), told.clone());
        let hosts = Hosts { registry, repository: None, list, front: 0, lacking: Lacking::Stays, told };
        Self::connect_to_first(hosts, warnings, none).await
    }
}

impl Host {
    /// As the configuration names it.
    fn named(found: EngineHost, registry: &RegistryHost, options: &ClientOptions) -> Result<Self, ClientError> {
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
        let credentials = credentials(options, &host, registry);
        let options = ClientOptions { transport, credentials, ..options.clone() };
        // To containerd Docker Hub's two hosts are one (`isProxy`).
        let namespace = (host.api_authority() != registry.api_authority()).then(|| registry.clone());
        let route = Route { path, namespace, repository: None };
        Ok(Self { resolves, pulls, ..Self::new(host, route, options, Files::Named(certs)) })
    }
}

/// All hosts, and what is wrong with them that is not fatal.
async fn read(
    registry: &RegistryHost,
    options: &ClientOptions,
) -> Result<(Vec<EngineHost>, Vec<Finding>), ClientError> {
    let (location, host) = (options.certs.location.clone(), registry.clone());
    let now = OffsetDateTime::now_utc();
    let read = move || read_engine_hosts(location.as_certs_location(), &host, now);
    let (found, findings) = crate::blocking(read).await;
    Ok((found, refuse_fatal(registry, findings)?))
}
