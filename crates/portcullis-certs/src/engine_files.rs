//! The configuration files that stand for certificate directories: containerd's `hosts.toml` and `config.toml`,
//! `buildkitd.toml`, k3s' `registries.yaml`, Podman's `registries.conf`. Each reader takes bytes and gives what the engine
//! would see, with lines.
//!
//! They open no file: a path in a file is a value here. What an engine makes of it is in `predict`.

mod buildkitd_toml;
mod containerd_config;
pub mod edit;
mod hosts_toml;
mod registries_conf;
mod registries_yaml;
mod tree;

use crate::file;
use std::path::{Path, PathBuf};

pub use buildkitd_toml::{BuildkitRegistry, BuildkitdToml};
pub use containerd_config::ContainerdConfig;
pub use hosts_toml::{HostEntry, HostsToml};
pub use registries_conf::{
    MAX_MIRRORS, MirrorPulls, MirrorTable, PullBy, RegistriesConf, RegistryFault, RegistrySource, RegistryTable,
    Standing, Written,
};
pub use registries_yaml::{RegistriesYaml, RegistryTls};

/// Why an engine does not take a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct NotTaken {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub reason: String,
}

/// The files that one entry names for TLS, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Files of roots.
    pub roots: Vec<PathBuf>,
    /// Certificate and key; the same file twice when it holds both.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.pairs.is_empty()
    }

    /// The same files where they lie when `root` stands for the machine's `/`.
    pub(crate) fn below(&self, root: &Path) -> Self {
        Self {
            roots: self.roots.iter().map(|path| file::below(root, path)).collect(),
            pairs: self.pairs.iter().map(|(cert, key)| (file::below(root, cert), file::below(root, key))).collect(),
        }
    }
}

/// The scheme and authority of a URL, as Go's `net/url` splits it; `None` for what is no URL.
fn split_url(text: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty() && !host.contains(char::is_whitespace)).then_some((scheme, host, path))
}

/// Go's `filepath.Join(base, path)` for what is not absolute.
fn absolute(base: &Path, path: &str) -> PathBuf {
    if path.is_empty() { base.to_owned() } else { base.join(path) }
}
