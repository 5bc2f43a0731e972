//! What the doctor knows, before it thinks: all I/O is here, and no verdict.
//!
//! Everything a check needs is a field of [`Facts`]; a check that wanted to look again would be no table test any more.

mod config;
mod engines;
mod hosts;
mod live;
mod programs;

use portcullis_certs::{
    DirectorySurvey, EngineProfile, Prediction, RegistryHost, Version, survey_directory, survey_root,
};
use portcullis_oci::{InvalidReference, Reference, RepositoryName, Tag};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use time::OffsetDateTime;

pub use config::{Builder, Config, DockerConfig, TextFile};
pub use hosts::HostsLine;
pub(crate) use live::verdict;
pub use live::{Answer, Contact, ContactEnd, LiveFacts, OtherHost, PairTrial, VersionTrial};

/// Which registry is asked about, and which image of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The registry, as it is typed in image names.
    pub host: RegistryHost,
    /// A repository of it.
    pub repository: Option<RepositoryName>,
    /// A tag of the repository.
    pub tag: Option<Tag>,
}

impl FromStr for Target {
    type Err = InvalidReference;

    /// `HOST[:PORT][/REPO[:TAG]]`
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') {
            let Reference { host, repository, tag, .. } = text.parse()?;
            return Ok(Self { host, repository: Some(repository), tag });
        }
        Ok(Self { host: text.parse()?, repository: None, tag: None })
    }
}

/// How far the doctor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Files only: nothing is resolved and nothing is connected to.
    Files,
    /// The registry too, and the hosts it sends to; nothing else.
    #[default]
    Network,
}

/// What the caller chose.
#[derive(Debug, Clone)]
pub struct Options {
    /// What stands for `/`.
    pub root: PathBuf,
    /// Files only, or the network too.
    pub reach: Reach,
    /// These engines, found or not; empty: those that are found.
    pub engines: Vec<&'static EngineProfile>,
}

impl Default for Options {
    fn default() -> Self {
        Self { root: "/".into(), reach: Reach::default(), engines: Vec::new() }
    }
}

/// What the process was given by its user.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The effective user.
    pub uid: u32,
    /// `$HOME`, taken below [`Options::root`].
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `$SSL_CERT_FILE`.
    pub ssl_cert_file: Option<OsString>,
    /// `$SSL_CERT_DIR`.
    pub ssl_cert_dir: Option<OsString>,
    /// `$HTTPS_PROXY` or `$https_proxy` is set; its value may hold a password and is not kept.
    pub proxy: bool,
    /// Docker runs for this user alone: `$ROOTLESSKIT_STATE_DIR`, or a `$DOCKER_HOST` in the user's runtime directory.
    pub rootless_docker: bool,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let rootless_host = set("DOCKER_HOST").is_some_and(|host| host.to_string_lossy().contains("/run/user/"));
        Self {
            uid: rustix::process::geteuid().as_raw(),
            home: set("HOME").map(PathBuf::from),
            config_home: set("XDG_CONFIG_HOME").map(PathBuf::from),
            ssl_cert_file: set("SSL_CERT_FILE"),
            ssl_cert_dir: set("SSL_CERT_DIR"),
            proxy: set("HTTPS_PROXY").or_else(|| set("https_proxy")).is_some(),
            rootless_docker: rootless_host || set("ROOTLESSKIT_STATE_DIR").is_some(),
        }
    }
}

/// The machine and the user.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What stands for `/`.
    pub root: PathBuf,
    /// What the process was given.
    pub environment: Environment,
    /// When the system's bundle of roots was last changed.
    pub store_changed: Option<OffsetDateTime>,
    /// When dockerd was started: its pid file.
    pub docker_started: Option<OffsetDateTime>,
    /// Directories of virtual machines whose engines have files of their own: Podman machine, Docker Desktop.
    pub virtual_machines: Vec<PathBuf>,
}

/// One engine of this machine, and what it makes of the files.
#[derive(Debug, Clone)]
pub struct EngineFacts {
    /// Its rules.
    pub profile: &'static EngineProfile,
    /// Its version, where the package database has it or the program says it.
    pub version: Option<Version>,
    /// The programs that were found; empty for an engine that was only asked for.
    pub programs: Vec<PathBuf>,
    /// What it will do.
    pub prediction: Prediction,
}

/// What the server said about a certificate when it was asked on its own host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDecision {
    /// The pair's certificate file.
    pub cert_path: PathBuf,
    /// Its words.
    pub text: String,
    /// Whether it lets this certificate in.
    pub accepted: bool,
}

/// Whether the network was asked.
#[derive(Debug, Clone)]
pub enum Live {
    /// No, and why.
    NotAsked(&'static str),
    /// What came of it.
    Asked(Box<LiveFacts>),
}

/// Everything the checks may know.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The moment that is "now".
    pub now: OffsetDateTime,
    /// What was asked about.
    pub target: Target,
    /// The machine.
    pub machine: Machine,
    /// The engines, in the order of [`EngineProfile::ALL`].
    pub engines: Vec<EngineFacts>,
    /// The directories that hold host directories, of all engines, whether or not they exist.
    pub roots: Vec<DirectorySurvey>,
    /// The host's directories that count for an engine.
    pub directories: Vec<DirectorySurvey>,
    /// The engines' configuration files.
    pub config: Config,
    /// The addresses of the registry's name: from the hosts file, and from the resolver when the network is asked.
    pub addresses: Vec<IpAddr>,
    /// What the hosts file says about the name.
    pub hosts: Vec<HostsLine>,
    /// The registry itself.
    pub live: Live,
    /// What the server decided about our pairs, where it could be asked.
    pub decisions: Vec<ServerDecision>,
}

impl Facts {
    /// What was learned from the network.
    pub fn live(&self) -> Option<&LiveFacts> {
        match &self.live {
            Live::Asked(live) => Some(live),
            Live::NotAsked(_) => None,
        }
    }

    /// The engine's facts, if it is one of those looked at.
    pub fn engine(&self, name: &str) -> Option<&EngineFacts> {
        self.engines.iter().find(|engine| engine.profile.name == name)
    }
}

/// Looks at the machine, and asks the registry if `options` allow it. Never fails: what cannot be read is a fact.
pub fn gather(target: &Target, options: &Options, environment: &Environment, now: OffsetDateTime) -> Facts {
    let root = options.root.as_path();
    let config = config::read(root, environment.home.as_deref());
    let hosts = hosts::lookup(root, target.host.server_name());
    // A name that is an address stands for itself.
    let literal = target.host.server_name().parse().ok();
    let mut addresses: Vec<IpAddr> = literal.into_iter().chain(hosts.iter().map(|line| line.address)).collect();
    let resolved = match options.reach {
        Reach::Network => Some(live::resolve(&target.host)),
        Reach::Files => None,
    };
    if let Some(Ok(found)) = &resolved {
        addresses.clone_from(found);
    }
    let around = engines::Surroundings { root, environment, config: &config, now };
    let engines = engines::find(&target.host, &options.engines, around, &addresses);
    let roots = engines::roots(&engines, root);
    let tried = engines.iter().flat_map(|engine| &engine.prediction.tried);
    let hosts_toml = config::hosts_toml(&unique(tried.map(|tried| tried.path.clone())));
    let directories = unique(engines.iter().filter_map(|engine| engine.prediction.taken().map(Path::to_owned)));
    let predict = |host: &RegistryHost| {
        let made = |engine: &EngineFacts| (engine.profile, around.predict(engine.profile, engine.version, host, &[]));
        engines.iter().map(made).collect()
    };
    let live = match resolved {
        Some(resolved) => Live::Asked(Box::new(live::ask(target, &engines, resolved, &predict, now))),
        None => Live::NotAsked("the network was not asked (--offline)"),
    };
    Facts {
        now,
        target: target.clone(),
        machine: engines::machine(root, environment),
        roots: roots.iter().map(|root| survey_root(root)).collect(),
        directories: directories.iter().filter(|path| path.is_dir()).map(|path| survey_directory(path)).collect(),
        engines,
        config: Config { hosts_toml, ..config },
        addresses,
        hosts,
        live,
        decisions: Vec::new(),
    }
}

/// In order of first appearance.
fn unique(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen: Vec<PathBuf> = Vec::new();
    for path in paths {
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen
}

/// An absolute path of the machine, below what stands for its `/`.
fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_typed() {
        let parts = |text: &str| {
            let target: Target = text.parse().unwrap();
            let repository = target.repository.map(|name| name.to_string());
            (target.host.to_string(), repository, target.tag.map(|tag| tag.to_string()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("r.test"), ("r.test".into(), None, None));
        assert_eq!(parts("[fd00::1]:5000"), ("[fd00::1]:5000".into(), None, None));
        assert_eq!(parts("r.test:5443/a/b"), ("r.test:5443".into(), some("a/b"), None));
        assert_eq!(parts("r.test/a:1"), ("r.test".into(), some("a"), some("1")));
        for bad in ["", "https://r.test", "r.test:0", "r.test/A", "-x", "a b"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
