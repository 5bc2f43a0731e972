//! Words of `install`.

use std::path::PathBuf;

use clap::ValueEnum;
use portcullis_oci::RegistryHost;

#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The registry as it is typed in image names: HOST or HOST:PORT
    pub(crate) host: RegistryHost,
    /// The client's directory with ca.crt, client.cert and client.key
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Whose directory; without it, those of the engines found on this machine
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineWord>,
    /// Another root, such as a mounted image
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `--engine` of `install`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineWord {
    /// Docker Engine
    Docker,
    /// Podman, skopeo, buildah, CRI-O
    Podman,
    /// Both
    All,
}
