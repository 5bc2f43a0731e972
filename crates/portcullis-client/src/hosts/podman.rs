//! The hosts of Podman's `registries.conf`: mirrors and locations, which are for pulls alone. Must not know in which order
//! they are asked, nor what for.

use portcullis_certs::engine_files::{PullBy, RegistriesConf, RegistryFault, RegistrySource, Standing};
use portcullis_oci::{RegistryHost, RepositoryName};

use super::{Files, Host, Hosts, HostsFault, Lacking, PassedOver, credentials};
use crate::options::{CertsChoice, ClientOptions, Transport};
use crate::session::Route;
use crate::{Client, ClientError};

impl Client {
    /// Connects as [`Client::connect`] does, to the hosts that Podman would ask for the images of one repository
    /// (`registries.conf`): its mirrors in order, then its location. Each has the certificates of its own directory. `told`
    /// hears of each that is passed over, at once or later; it is not asked again. The client is for reading this
    /// repository and no other.
    ///
    /// ```no_run
    /// use portcullis_certs::engine_files::PullBy;
    /// use portcullis_certs::{EngineProfile, RegistriesPlace, read_registries_conf};
    /// use portcullis_client::{Client, ClientOptions, PassedOver};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let conf = read_registries_conf(RegistriesPlace::Search).map_err(|finding| finding.to_string())?;
    /// let mut options = ClientOptions::default();
    /// options.certs.profile = EngineProfile::PODMAN;
    /// let told = PassedOver::new(|host, error| eprintln!("passed over {host}: {error}"));
    /// let (host, repository) = ("registry.test".parse()?, "team/app".parse()?);
    /// let client = Client::connect_as_podman(&conf, (&host, &repository), PullBy::Tag, &options, &told).await?;
    /// println!("{} answers for {host}", client.peer());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Hosts`] when the configuration blocks the image, or asks for what is not done here; nothing was sent
    /// then. Else the last host's error.
    pub async fn connect_as_podman(
        conf: &RegistriesConf,
        (registry, repository): (&RegistryHost, &RepositoryName),
        by: PullBy,
        options: &ClientOptions,
        told: &PassedOver,
    ) -> Result<Self, ClientError> {
        let sources = conf.sources(registry, repository, by).map_err(|fault| refusal(registry, fault))?;
        let last = sources.len() - 1;
        let hosts = sources.into_iter().enumerate().map(|(place, source)| {
            // What was asked for on the command line is about the registry itself.
            let asked = if place == last { options.transport } else { Transport::Tls };
            Host::instead(source, (registry, repository), asked, options)
        });
        let list = hosts.collect::<Result<Vec<_>, _>>()?;
        let (registry, repository, told) = (registry.clone(), Some(repository.clone()), told.clone());
        let hosts = Hosts { registry, repository, list, front: 0, lacking: Lacking::Goes, told };
        Self::connect_to_first(hosts, Vec::new(), HostsFault::NoRead).await
    }
}

/// Whether Podman's configuration lets a registry, or a repository in it, be asked as it is typed: what Podman does to push,
/// to delete, to list and to log in, for which no mirror and no location counts.
///
/// # Errors
/// [`ClientError::Hosts`] when the configuration blocks it, or calls it insecure and it would be spoken to over TLS.
pub fn check_registry_as_podman(
    conf: &RegistriesConf,
    registry: &RegistryHost,
    repository: Option<&RepositoryName>,
    options: &ClientOptions,
) -> Result<(), ClientError> {
    let Standing { blocked, insecure } = conf.standing(registry, repository);
    let insecure = insecure.filter(|_| options.transport == Transport::Tls);
    blocked.or(insecure).map_or(Ok(()), |fault| Err(refusal(registry, fault)))
}

impl Host {
    /// In the registry's place, or the registry itself.
    fn instead(
        source: RegistrySource,
        (registry, repository): (&RegistryHost, &RepositoryName),
        asked: Transport,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let RegistrySource { host, repository: there, standing: Standing { blocked, insecure } } = source;
        let transport = match (insecure, options.transport) {
            (Some(_), Transport::PlainHttp) => Transport::PlainHttp,
            (Some(fault), Transport::Tls) => return Err(refusal(&host, fault)),
            (None, _) => asked,
        };
        let credentials = credentials(options, &host, registry);
        // `--cert-dir` is the registry's own.
        let location =
            if host == *registry { options.certs.location.clone() } else { options.certs.location.of_others() };
        let certs = CertsChoice { profile: options.certs.profile, location };
        let options = ClientOptions { certs, transport, credentials, ..options.clone() };
        let route = Route { repository: (there != *repository).then_some(there), ..Route::default() };
        let refused = blocked.map(|fault| HostsFault::Registries(Box::new(fault)));
        Ok(Self { refused, ..Self::new(host, route, options, Files::OwnDirectory) })
    }
}

fn refusal(host: &RegistryHost, fault: RegistryFault) -> ClientError {
    ClientError::Hosts { host: host.clone(), fault: HostsFault::Registries(Box::new(fault)) }
}
