//! Name lookup: the system's, with an error that keeps its type. Knows nothing of TLS or HTTP.

use std::io;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver, on the blocking pool.
#[derive(Debug)]
pub(crate) struct SystemResolver;

/// The system's resolver has no address for a name.
#[derive(Debug, thiserror::Error)]
#[error("no address found for {name}")]
pub(crate) struct NameNotFound {
    pub(crate) name: String,
    source: io::Error,
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 is replaced by the one of the URL.
            match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(addresses) => {
                    let addresses: Addrs = Box::new(addresses.collect::<Vec<_>>().into_iter());
                    Ok(addresses)
                }
                Err(source) => Err(NameNotFound { name: name.as_str().to_owned(), source }.into()),
            }
        })
    }
}
