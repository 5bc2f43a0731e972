//! Words of `up` and `serve`, and of what asks a running server.

use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_pki::ServerName;

use super::HomeArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// Where the images are kept; a volume of registry:2 or registry:3 can be given here [default: HOME/data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen [default: [::]:5443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// A name or address that clients type; may be given again. On an existing home it is added to the certificate
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<ServerName>,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Check config, trust, policy and certificate, and do not serve
    #[arg(long)]
    pub(crate) check: bool,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MaintainArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// List the clients of the last 7 days instead, whose certificate ends next first
    #[arg(long)]
    pub(crate) clients: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// Remove nothing; say what would be removed, and what stops a removal
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}
