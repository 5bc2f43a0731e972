//! Where an engine looks for a host's directory, and where we therefore put it. The directories themselves are in the
//! profiles of `portcullis-certs`; rootless Docker's, which no profile has, is here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_certs::{EngineProfile, SearchRoot};

use crate::PkiError;
use crate::install::InstallRequest;

/// An engine whose directories we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Docker Engine.
    Docker,
    /// Podman, skopeo, buildah, CRI-O.
    Podman,
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
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// The word after `--engine`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    pub(super) const fn profile(self) -> &'static EngineProfile {
        match self {
            Self::Docker => &EngineProfile::DOCKER_DOCS,
            Self::Podman => &EngineProfile::PODMAN,
        }
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
    /// The host's directory.
    pub fn directory(&self) -> PathBuf {
        let profile = self.engine.profile();
        let root = match (self.scope, self.engine) {
            (Scope::User { home, config_home }, Engine::Docker) => {
                // moby daemon/pkg/registry/config.go:74-84.
                config_home.clone().unwrap_or_else(|| home.join(".config")).join("docker/certs.d")
            }
            (Scope::User { home, .. }, Engine::Podman) => home.join(first(profile, |root| match root {
                SearchRoot::Home(path) => Some(path),
                SearchRoot::System(_) => None,
            })),
            (Scope::System, _) => PathBuf::from(first(profile, |root| match root {
                SearchRoot::System(path) => Some(path),
                SearchRoot::Home(_) => None,
            })),
        };
        let below = |other: &Path| other.join(root.strip_prefix("/").unwrap_or(&root));
        self.root.map_or_else(|| root.clone(), below).join(profile.directory_name(self.host))
    }

    /// The host's directories that the engine passes over once `directory` is there: it reads the first of them only.
    pub(super) fn masked(&self, directory: &Path) -> Vec<PathBuf> {
        let profile = self.engine.profile();
        let home = match self.scope {
            Scope::User { home, .. } => Some(home.as_path()),
            Scope::System => None,
        };
        let roots = profile.search_roots(self.root.unwrap_or(Path::new("/")), home);
        let all = roots.into_iter().map(|root| root.join(profile.directory_name(self.host)));
        all.skip_while(|path| path != directory).skip(1).filter(|path| path.is_dir()).collect()
    }
}

fn first(profile: &EngineProfile, pick: impl Fn(SearchRoot) -> Option<&'static str>) -> &'static str {
    profile.roots.iter().copied().find_map(pick).unwrap_or_default()
}
