//! Words of `gateway`.

use std::str::FromStr;

use portcullis_oci::RegistryHost;
use portcullis_server::RepositoryGlob;

use super::ClientArgs;
use crate::gateway::Place;

#[derive(Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    /// The registry: HOST[:PORT]
    pub(crate) host: RegistryHost,
    /// Where to listen: 127.0.0.1:PORT, [::1]:PORT, localhost:PORT, or unix:PATH
    #[arg(long, value_name = "PLACE", default_value = "127.0.0.1:5000")]
    pub(crate) listen: Place,
    /// Let images be pushed too
    #[arg(long)]
    pub(crate) push: bool,
    /// Let manifests and blobs be deleted too
    #[arg(long)]
    pub(crate) delete: bool,
    /// Only these repositories: names with `*` within a component and `**` for any number of them; may be given again
    #[arg(long = "repo", value_name = "GLOB")]
    pub(crate) repositories: Vec<RepoWord>,
    /// Let in every user of this machine, not only this one and root
    #[arg(long)]
    pub(crate) any_user: bool,
    /// Listen on an address that is not loopback: whoever reaches it in plain HTTP acts under your certificate
    #[arg(long)]
    pub(crate) i_know: bool,
    /// The most connections at once, each with one request
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// How long either side may send or take nothing in the middle of something, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) stall: u16,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// A repository pattern, as in policy.toml.
#[derive(Debug, Clone)]
pub(crate) struct RepoWord {
    pub(crate) text: String,
    pub(crate) glob: RepositoryGlob,
}

impl FromStr for RepoWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let glob = RepositoryGlob::parse(text).ok_or_else(|| {
            format!("{text:?} is no repository pattern: lower-case names with `*` within a component and `**` for any number of components")
        })?;
        Ok(Self { text: text.to_owned(), glob })
    }
}
