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
    /// Put the pair beside another client's, as NAME.cert and NAME.key
    #[arg(long, value_name = "NAME", conflicts_with = "replace")]
    pub(crate) add: Option<String>,
    /// Replace a pair that install wrote, also where it is another client's
    #[arg(long)]
    pub(crate) replace: bool,
    /// Also put the CA into the operating system's store, where every program of this machine trusts it
    #[arg(long)]
    pub(crate) system_trust: bool,
    /// With --system-trust: take a CA that may certify every name
    #[arg(long, requires = "system_trust")]
    pub(crate) unconstrained: bool,
    /// Do not ask the registry at the end whether it lets the client in
    #[arg(long)]
    pub(crate) no_proof: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `portcullis convert HOST --from ENGINE --to ENGINE`
#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// The registry as it is typed in image names: HOST or HOST:PORT
    pub(crate) host: RegistryHost,
    /// The engine whose files are taken
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) from: EngineWord,
    /// The engine that gets them
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) to: EngineWord,
    /// Another root, such as a mounted image
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Do not ask the registry at the end whether it lets the client in
    #[arg(long)]
    pub(crate) no_proof: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `portcullis uninstall HOST`
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// The registry as it was typed at install: HOST or HOST:PORT
    pub(crate) host: RegistryHost,
    /// Only this engine's
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineWord>,
    /// The other root that was given at install
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Show what would be removed, and remove nothing
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
    /// containerd, ctr, nerdctl
    Containerd,
    /// BuildKit's daemon: its buildkitd.toml is added to
    Buildkit,
    /// k3s and RKE2: registries.yaml is added to
    #[value(name = "k3s")]
    K3s,
    /// Docker and Podman, and those of the others that are found
    All,
}
