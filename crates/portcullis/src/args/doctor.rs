//! `portcullis doctor` and `portcullis explain`.

use std::path::PathBuf;

use clap::ValueEnum;
use portcullis_certs::EngineProfile;
use portcullis_doctor::Target;

use super::HomeArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// The registry as it is typed in image names, or an image of it: HOST[:PORT][/NAME[:TAG]]
    #[arg(value_name = "HOST[:PORT][/NAME[:TAG]]")]
    pub(crate) target: Target,
    /// Look at this engine only, found or not; may be given again [default: the engines on this machine]
    #[arg(long = "engine", value_enum, value_name = "ENGINE")]
    pub(crate) engines: Vec<DoctorEngine>,
    /// Read files only: resolve nothing, connect to nothing
    #[arg(long)]
    pub(crate) offline: bool,
    /// Another root, such as a mounted image
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Do the repairs that are safe and can be undone, after showing them
    #[arg(long, conflicts_with = "json")]
    pub(crate) fix: bool,
    /// With --fix: show the repairs, and change nothing
    #[arg(long, requires = "fix")]
    pub(crate) dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Say how each verdict is known
    #[arg(long, short)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// `--engine` of `doctor`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorEngine {
    /// Docker's page, as Portcullis' own client reads it
    DockerDocs,
    /// Docker Engine, classic image store
    Docker,
    /// Docker Engine, containerd image store
    DockerContainerd,
    /// Podman, skopeo, buildah, CRI-O
    Podman,
    /// containerd
    Containerd,
    /// nerdctl
    Nerdctl,
    /// buildkitd
    Buildkit,
    /// k3s and RKE2
    K3s,
}

impl DoctorEngine {
    pub(crate) const fn profile(self) -> &'static EngineProfile {
        match self {
            Self::DockerDocs => &EngineProfile::DOCKER_DOCS,
            Self::Docker => &EngineProfile::DOCKER,
            Self::DockerContainerd => &EngineProfile::DOCKER_CONTAINERD,
            Self::Podman => &EngineProfile::PODMAN,
            Self::Containerd => &EngineProfile::CONTAINERD,
            Self::Nerdctl => &EngineProfile::NERDCTL,
            Self::Buildkit => &EngineProfile::BUILDKIT,
            Self::K3s => &EngineProfile::K3S,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A code such as D20, or an error text as it was printed, in quotes
    #[arg(required = true, value_name = "CODE|TEXT")]
    pub(crate) words: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}
