//! How a host is reached: directly, or through the proxy that the environment names for it. Must not know what is sent.

use std::fmt;
use std::sync::Arc;

use portcullis_oci::RegistryHost;
use reqwest::Url;

use crate::connect::read_certs;
use crate::options::{ClientOptions, Transport};
use crate::proxy::{BadProxy, Proxies};
use crate::refusal::Failure;
use crate::session::base_url;
use crate::tunnel::Tunnel;
use crate::{ClientError, host_of};

/// The way to one host.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    Direct,
    /// Through a proxy that is spoken to without TLS.
    Proxy(PlainProxy),
    /// Through one that is spoken to over TLS.
    Tunnel(Arc<Tunnel>),
}

/// Its address, with a login perhaps.
#[derive(Clone)]
pub(crate) struct PlainProxy(pub(crate) Url);

impl Way {
    /// A proxy has a certificate directory of its own, read as the engine would; nothing of the registry's is for it.
    pub(crate) async fn to(
        host: &RegistryHost,
        transport: Transport,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let base = base_url(host, transport)?;
        let bad = |scheme| ClientError::Proxy { host: host.clone(), scheme };
        let named = Proxies::from_environment().proxy_for(&base).map_err(|BadProxy { scheme }| bad(scheme))?;
        let address = match named {
            None => return Ok(Self::Direct),
            Some(address) if address.scheme() == "http" => return Ok(Self::Proxy(PlainProxy(address))),
            Some(address) => address,
        };
        let proxy = host_of(&address).ok_or_else(|| bad(None))?;
        let (certs, _) = read_certs(&proxy, Transport::Tls, &options.for_another_host()).await?;
        Ok(Self::Tunnel(Arc::new(Tunnel::open(&address, proxy, &certs, &base, options).await?)))
    }

    /// Why the last connection was not made, where that is known here alone.
    pub(crate) fn trouble(&self) -> Option<Failure> {
        match self {
            Self::Tunnel(tunnel) => tunnel.trouble(),
            Self::Direct | Self::Proxy(_) => None,
        }
    }
}

impl fmt::Debug for PlainProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlainProxy({})", self.0.origin().ascii_serialization())
    }
}
