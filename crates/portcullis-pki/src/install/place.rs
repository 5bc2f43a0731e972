//! Where an engine looks for a host's directory, and where we therefore put it. The directories themselves are in the
//! profiles of `portcullis-certs`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_certs::EngineProfile;

use crate::PkiError;
use crate::install::InstallRequest;

/// An engine whose directories we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Docker Engine.
    Docker,
    /// Podman, skopeo, buildah, CRI-O.
    Podman,
    /// containerd's CRI plugin, `ctr`, nerdctl.
    Containerd,
    /// BuildKit's daemon.
    Buildkit,
    /// k3s and RKE2.
    K3s,
}

/// For whom the engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// For the machine: directories under `/etc`, written by root.
    System,
    /// For one user: rootless Docker's directory, Podman's in the home.
    User {
        /// `$HOME`.
        home: PathBuf,
        /// `$XDG_CONFIG_HOME`; Docker honours it, Podman does not.
        config_home: Option<PathBuf>,
    },
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Docker, Self::Podman, Self::Containerd, Self::Buildkit, Self::K3s];

    /// The word after `--engine`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Buildkit => "buildkit",
            Self::K3s => "k3s",
        }
    }

    /// Its rules.
    pub const fn profile(self) -> &'static EngineProfile {
        match self {
            Self::Docker => &EngineProfile::DOCKER,
            Self::Podman => &EngineProfile::PODMAN,
            Self::Containerd => &EngineProfile::CONTAINERD,
            Self::Buildkit => &EngineProfile::BUILDKIT,
            Self::K3s => &EngineProfile::K3S,
        }
    }

    /// Whose rules hold for a directory of certificate files that a configuration names.
    pub(super) const fn directory_profile(self) -> &'static EngineProfile {
        match self {
            Self::Docker | Self::Podman => self.profile(),
            Self::Containerd | Self::Buildkit | Self::K3s => &EngineProfile::DOCKER_DOCS,
        }
    }

    /// Whether a configuration file decides what is read.
    pub(super) const fn has_config(self) -> bool {
        matches!(self, Self::Containerd | Self::Buildkit | Self::K3s)
    }
}

impl FromStr for Engine {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let found = Self::ALL.into_iter().find(|engine| engine.as_str() == text);
        found.ok_or_else(|| PkiError::UnknownEngine { text: text.chars().take(60).collect() })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Scope {
    /// The machine's as root, otherwise the user's, by the environment.
    ///
    /// # Errors
    /// [`PkiError::NoHome`] when `$HOME` is unset or relative.
    pub fn of_this_process() -> Result<Self, PkiError> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::System);
        }
        // The XDG specification has relative paths ignored.
        let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = directory("HOME").ok_or(PkiError::NoHome)?;
        Ok(Self::User { home, config_home: directory("XDG_CONFIG_HOME") })
    }
}

impl InstallRequest<'_> {
    /// The host's directory; that of BuildKit and k3s is ours to choose, beside their configuration file.
    pub fn directory(&self) -> PathBuf {
        let first = self.roots().into_iter().next().unwrap_or_default();
        let root = match self.engine {
            Engine::Buildkit | Engine::K3s => first.with_file_name("certs.d"),
            Engine::Docker | Engine::Podman | Engine::Containerd => first,
        };
        root.join(self.engine.profile().directory_name(self.host))
    }

    /// The engine's configuration file that must name the files.
    pub(super) fn config_file(&self, directory: &Path) -> Option<PathBuf> {
        match self.engine {
            Engine::Docker | Engine::Podman => None,
            Engine::Containerd => Some(directory.join("hosts.toml")),
            Engine::Buildkit | Engine::K3s => self.roots().into_iter().next(),
        }
    }

    /// The host's directories that the engine passes over once `directory` is there: it reads the first of them only.
    pub(super) fn masked(&self, directory: &Path) -> Vec<PathBuf> {
        let name = self.engine.profile().directory_name(self.host);
        let all = self.roots().into_iter().map(|root| root.join(&name));
        all.skip_while(|path| path != directory).skip(1).filter(|path| path.is_dir()).collect()
    }

    /// Where the engine looks, in order.
    fn roots(&self) -> Vec<PathBuf> {
        let (profile, root) = (self.engine.profile(), self.root.unwrap_or(Path::new("/")));
        match self.scope {
            Scope::User { home, config_home } => profile.rootless_search_roots(root, home, config_home.as_deref()),
            Scope::System => profile.search_roots(root, None),
        }
    }
}
