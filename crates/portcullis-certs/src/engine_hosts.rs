//! The hosts that containerd asks in a registry's place, for who is to do what containerd does: `hosts.toml` with its files.
//!
//! What an engine would do, without doing it, is told by `predict`; here keys are loaded. One reading is safer than the
//! engine's: a `hosts.toml` that cannot be read is a fault, where containerd logs it and goes on with the certificate files.

use crate::engine_files::{ContainerdConfig, HostEntry, HostsToml};
use crate::fault::{Fault, WithoutConfig};
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
use crate::host_certs::{self, CertsLocation, HostCerts, directory};
use crate::predict::Scheme;
use crate::profile::EngineProfile;
use portcullis_oci::RegistryHost;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// containerd's own configuration file.
const CONFIG: &str = "/etc/containerd/config.toml";

/// One host, and what it is asked for.
#[derive(Debug, Clone)]
pub struct EngineHost {
    /// Whom it is.
    pub host: RegistryHost,
    /// How its URL says that it is spoken to; `None`: it is the registry as it was asked for.
    pub scheme: Option<Scheme>,
    /// The path below which it has the distribution API, mostly `/v2`.
    pub path: String,
    /// Whether it says what a tag stands for.
    pub resolves: bool,
    /// Whether it gives content by digest.
    pub pulls: bool,
    /// Whether it takes pushes.
    pub pushes: bool,
    /// Whether its certificate is verified: `skip_verify` says no.
    pub verifies: bool,
    /// Roots and pairs for it, and for no other host.
    pub certs: HostCerts,
}

/// The hosts for `registry` in the order in which they are asked, its server last; and everything that is wrong, in the
/// severities of containerd. Without a `hosts.toml` it is the registry alone, with the certificate files of the directory.
///
/// Where it is looked for by itself, that is below the `config_path` of `/etc/containerd/config.toml`, a list of
/// directories, or below `/etc/containerd/certs.d` where it names none.
pub fn read_engine_hosts(
    location: CertsLocation<'_>,
    registry: &RegistryHost,
    now: OffsetDateTime,
) -> (Vec<EngineHost>, Vec<Finding>) {
    read(location, registry, Wanted::All, now)
}

/// The files for `registry` itself, for who asks no other host in its place; and everything that is wrong with them. What a
/// `hosts.toml` names for mirrors is not opened.
pub fn read_own_host_certs(
    location: CertsLocation<'_>,
    registry: &RegistryHost,
    now: OffsetDateTime,
) -> (HostCerts, Vec<Finding>) {
    let (mut hosts, findings) = read(location, registry, Wanted::Registry, now);
    (hosts.pop().map(|own| own.certs).unwrap_or_default(), findings)
}

/// Whose files are opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Registry,
}

/// The directories that containerd's configuration names; `None`: its own, or those that the caller names.
fn configured(location: CertsLocation<'_>) -> Result<Option<Vec<PathBuf>>, Finding> {
    let root = match location {
        CertsLocation::Search => Path::new("/"),
        CertsLocation::SearchBelow { root, .. } => root,
        CertsLocation::Root(_) | CertsLocation::Roots(_) | CertsLocation::HostDirectory(_) => return Ok(None),
    };
    let path = file::below(root, Path::new(CONFIG));
    let config = match file::read(&path, FILE_LIMIT) {
        Ok((bytes, _)) => ContainerdConfig::parse(&bytes).map_err(|error| {
            let fault = Fault::ConfigNotTaken { reason: error.reason, then: WithoutConfig::Refused };
            Finding::at(&path, error.line, Severity::Fatal, fault)
        })?,
        Err(fault) if fault.is_absent() => return Ok(None),
        Err(fault) => return Err(Finding::new(&path, Severity::Fatal, fault)),
    };
    let paths: Vec<PathBuf> = config.paths().iter().map(|path| file::below(root, path)).collect();
    Ok(if paths.is_empty() { None } else { Some(paths) })
}

fn read(
    location: CertsLocation<'_>,
    registry: &RegistryHost,
    wanted: Wanted,
    now: OffsetDateTime,
) -> (Vec<EngineHost>, Vec<Finding>) {
    let configured = match configured(location) {
        Ok(configured) => configured,
        Err(finding) => return (Vec::new(), vec![finding]),
    };
    let location = configured.as_deref().map_or(location, CertsLocation::Roots);
    let profile = &EngineProfile::CONTAINERD;
    let mut findings = Vec::new();
    let chosen = directory::choose(profile, location, registry, &mut findings);
    if let Some(directory) = &chosen {
        let path = directory.join("hosts.toml");
        match file::read(&path, FILE_LIMIT) {
            // Empty is absent, to containerd too.
            Ok((bytes, _)) if bytes.is_empty() => {}
            Ok((bytes, _)) => return (read_entries(&path, &bytes, registry, wanted, now, &mut findings), findings),
            Err(fault) if fault.is_absent() => {}
            Err(fault) => {
                findings.push(Finding::new(&path, Severity::Fatal, fault));
                return (Vec::new(), findings);
            }
        }
    }
    let (certs, findings) = host_certs::read_host_certs(profile, location, registry, now);
    let path = "/v2".to_owned();
    let host = registry.clone();
    let alone =
        EngineHost { host, scheme: None, path, resolves: true, pulls: true, pushes: true, verifies: true, certs };
    (vec![alone], findings)
}

fn read_entries(
    path: &Path,
    bytes: &[u8],
    registry: &RegistryHost,
    wanted: Wanted,
    now: OffsetDateTime,
    findings: &mut Vec<Finding>,
) -> Vec<EngineHost> {
    let mut not_taken = |line, reason| {
        let fault = Fault::ConfigNotTaken { reason, then: WithoutConfig::Refused };
        findings.push(Finding::at(path, line, Severity::Fatal, fault));
    };
    let directory = path.parent().unwrap_or(path);
    let read = match HostsToml::parse(bytes, directory) {
        Ok(read) => read,
        Err(error) => {
            not_taken(error.line, error.reason);
            return Vec::new();
        }
    };
    let mut hosts = Vec::new();
    // The last one is the registry's own.
    let others = if wanted == Wanted::Registry { read.entries.len().saturating_sub(1) } else { 0 };
    for entry in read.entries.into_iter().skip(others) {
        let named = match &entry.server {
            None => Ok((registry.clone(), None)),
            Some((scheme, authority)) => authority.parse().map(|host| (host, Some(scheme_of(scheme)))),
        };
        match named {
            // A `server` elsewhere is no registry of that name.
            Ok((host, _)) if wanted == Wanted::Registry && host.api_authority() != registry.api_authority() => {}
            Ok((host, scheme)) => hosts.push((host, scheme, entry)),
            Err(error) => not_taken(entry.line, error.to_string()),
        }
    }
    hosts.into_iter().map(|(host, scheme, entry)| load(path, host, scheme, &entry, now, findings)).collect()
}

fn scheme_of(scheme: &str) -> Scheme {
    if scheme == "https" { Scheme::Https } else { Scheme::Http }
}

fn load(
    path: &Path,
    host: RegistryHost,
    scheme: Option<Scheme>,
    entry: &HostEntry,
    now: OffsetDateTime,
    findings: &mut Vec<Finding>,
) -> EngineHost {
    findings.extend(entry.warnings(path));
    let contents = host_certs::read_named(&EngineProfile::CONTAINERD, &entry.files, now);
    findings.extend(contents.findings);
    let roots = contents.roots.into_iter().map(|(_, certificate)| certificate).collect();
    let certs = HostCerts { directory: path.parent().map(Path::to_owned), roots, pairs: contents.pairs };
    let (resolves, pulls, pushes) = (entry.resolves, entry.pulls, entry.pushes);
    let verifies = entry.skip_verify != Some(true);
    EngineHost { host, scheme, path: entry.path.clone(), resolves, pulls, pushes, verifies, certs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HOST: &str = "r.test";

    fn machine() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn configure(root: &Path, config_path: &str) {
        let table = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n";
        write(root, CONFIG.trim_start_matches('/'), &format!("{table}config_path = \"{config_path}\"\n"));
    }

    fn mirrors(location: CertsLocation<'_>) -> (Vec<String>, Vec<Finding>) {
        let (hosts, findings) = read_engine_hosts(location, &HOST.parse().unwrap(), OffsetDateTime::UNIX_EPOCH);
        (hosts.iter().map(|host| host.host.to_string()).collect(), findings)
    }

    fn asked(root: &Path) -> Vec<String> {
        mirrors(CertsLocation::SearchBelow { root, home: None }).0
    }

    #[test]
    fn the_directories_that_containerds_configuration_names() {
        let machine = machine();
        let root = machine.path();
        for (place, mirror) in [("etc/containerd/certs.d", "own.test"), ("b", "b.test")] {
            write(root, &format!("{place}/{HOST}/hosts.toml"), &format!("[host.\"https://{mirror}\"]\n"));
        }
        assert_eq!(asked(root), ["own.test", HOST]);
        configure(root, "/a:/b");
        assert_eq!(asked(root), ["b.test", HOST]);
        configure(root, "/a");
        assert_eq!(asked(root), [HOST]);
        configure(root, "");
        assert_eq!(asked(root), ["own.test", HOST]);
        // A directory that was named for us is the one.
        configure(root, "/b");
        let named = root.join("etc/containerd/certs.d");
        assert_eq!(mirrors(CertsLocation::Root(&named)).0, ["own.test", HOST]);
    }

    #[test]
    fn a_configuration_that_cannot_be_read_names_no_default() {
        let machine = machine();
        let root = machine.path();
        write(root, &format!("etc/containerd/certs.d/{HOST}/hosts.toml"), "[host.\"https://own.test\"]\n");
        for (text, line) in [("version = 2\n[plugins", Some(2)), ("config = \n", Some(1))] {
            write(root, "etc/containerd/config.toml", text);
            let location = CertsLocation::SearchBelow { root, home: None };
            let (hosts, findings) = mirrors(location);
            assert!(hosts.is_empty(), "{text}: {hosts:?}");
            assert_eq!((findings[0].severity, findings[0].line), (Severity::Fatal, line), "{text}");
            let (_, findings) = read_own_host_certs(location, &HOST.parse().unwrap(), OffsetDateTime::UNIX_EPOCH);
            assert_eq!(findings.len(), 1);
        }
        fs::remove_file(root.join("etc/containerd/config.toml")).unwrap();
        fs::create_dir(root.join("etc/containerd/config.toml")).unwrap();
        let (_, findings) = mirrors(CertsLocation::SearchBelow { root, home: None });
        assert_eq!(findings[0].fault, Fault::NotAFile);
    }

    #[test]
    fn the_registrys_own_files_without_the_mirrors() {
        let machine = machine();
        let root = machine.path();
        let own = |text: &str| {
            write(root, &format!("certs.d/{HOST}/hosts.toml"), text);
            let certs = root.join("certs.d");
            let location = CertsLocation::Root(&certs);
            let all = mirrors(location).1.len();
            let now = OffsetDateTime::UNIX_EPOCH;
            let (_, own) = read_own_host_certs(location, &HOST.parse().unwrap(), now);
            (all, own.iter().filter(|finding| finding.severity == Severity::Fatal).count())
        };
        assert_eq!(own("[host.\"https://m.test\"]\nca = \"none.crt\"\n"), (1, 0));
        assert_eq!(own("ca = \"none.crt\"\n[host.\"https://m.test\"]\n"), (1, 1));
        assert_eq!(own("server = \"https://else.test\"\nca = \"none.crt\"\n"), (1, 0));
        assert_eq!(own("server = \"https://r.test\"\nca = \"none.crt\"\n"), (1, 1));
        assert_eq!(own("not toml"), (1, 1));
    }
}
