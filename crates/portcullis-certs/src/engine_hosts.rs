//! The hosts that containerd asks in a registry's place, for who is to do what containerd does: `hosts.toml` with its files.
//!
//! What an engine would do, without doing it, is told by `predict`; here keys are loaded. One reading is safer than the
//! engine's: a `hosts.toml` that cannot be read is a fault, where containerd logs it and goes on with the certificate files.

use crate::engine_files::{HostEntry, HostsToml};
use crate::fault::{Fault, WithoutConfig};
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
use crate::host_certs::{self, CertsLocation, HostCerts, directory};
use crate::predict::Scheme;
use crate::profile::EngineProfile;
use portcullis_oci::RegistryHost;
use std::path::Path;
use time::OffsetDateTime;

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
pub fn read_engine_hosts(
    location: CertsLocation<'_>,
    registry: &RegistryHost,
    now: OffsetDateTime,
) -> (Vec<EngineHost>, Vec<Finding>) {
    let profile = &EngineProfile::CONTAINERD;
    let mut findings = Vec::new();
    let chosen = directory::choose(profile, location, registry, &mut findings);
    if let Some(directory) = &chosen {
        let path = directory.join("hosts.toml");
        match file::read(&path, FILE_LIMIT) {
            // Empty is absent, to containerd too.
            Ok((bytes, _)) if bytes.is_empty() => {}
            Ok((bytes, _)) => return (read_entries(&path, &bytes, registry, now, &mut findings), findings),
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
    for entry in read.entries {
        let named = match &entry.server {
            None => Ok((registry.clone(), None)),
            Some((scheme, authority)) => authority.parse().map(|host| (host, Some(scheme_of(scheme)))),
        };
        match named {
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
