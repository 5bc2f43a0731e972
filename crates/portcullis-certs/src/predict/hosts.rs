//! containerd, Docker's containerd image store, and nerdctl: a directory with `hosts.toml`, or with certificate files.

use super::certs_d::{self, blank_endpoint, fill, look, read_taken};
use super::words;
use super::{Endpoint, Look, Outcome, Places, Prediction, Scheme, Situation, Tried, UnreadReason, insecure};
use crate::engine_files::{ContainerdConfig, HostEntry, HostsToml, NotTaken};
use crate::fault::{Fault, WithoutConfig};
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
use crate::host_certs;
use crate::profile::{EngineProfile, Layout, Loopback, Row, SearchRoot};
use crate::version::Version;
use portcullis_oci::RegistryHost;
use std::path::{Path, PathBuf};

/// Before it, a file without a table `host` is an error (b5615caf1 took that away).
const NO_HOST_TABLE: Version = Version::new(2, 0, 0);
/// The transfer service pulls, and takes `config_path` for one directory.
const TRANSFER_SERVICE: Version = Version::new(2, 1, 0);
/// `config_path` has a default.
const DEFAULT_PATH: Version = Version::new(2, 2, 0);

pub(super) fn predict(mut made: Prediction, situation: &Situation<'_>, host: &RegistryHost) -> Prediction {
    let roots = match configured(&mut made, situation) {
        Ok(roots) => roots,
        Err(outcome) => {
            made.outcome = outcome;
            made.endpoints.push(registry(&made.profile, host, false));
            return made;
        }
    };
    let situation = Situation { places: roots.as_deref().map_or(situation.places, Places::Roots), ..*situation };
    made.tried = look(&made.profile, &certs_d::places(&made.profile, &situation, host));
    report_shadowing(&mut made, host);
    let hosts_toml = made.taken().map(|taken| taken.join("hosts.toml"));
    let bytes = hosts_toml.as_deref().map(|path| file::read(path, FILE_LIMIT));
    match (hosts_toml, bytes) {
        (Some(path), Some(Ok((bytes, _)))) if !bytes.is_empty() => {
            read_hosts_toml(&mut made, &path, &bytes, &situation, host);
        }
        (Some(path), Some(Err(fault))) if !fault.is_absent() => {
            made.outcome = certs_d::stopped_at(&made.profile, &situation, &path, &fault);
            made.findings.push(Finding::new(&path, Severity::Fatal, fault));
        }
        _ => read_certificate_files(&mut made, &situation, host),
    }
    made
}

/// The roots that containerd's configuration names; `None`: the profile's own, or those the situation names.
fn configured(made: &mut Prediction, situation: &Situation<'_>) -> Result<Option<Vec<PathBuf>>, Outcome> {
    if made.profile.name != EngineProfile::CONTAINERD.name || situation.places != Places::Own {
        return Ok(None);
    }
    let path = situation.root.join("etc/containerd/config.toml");
    let config = match file::read(&path, FILE_LIMIT) {
        Ok((bytes, _)) => match ContainerdConfig::parse(&bytes) {
            Ok(config) => config,
            Err(error) => {
                let fault = Fault::ConfigNotTaken { reason: error.reason.clone(), then: WithoutConfig::NotStarted };
                made.findings.push(Finding::at(&path, error.line, Severity::Fatal, fault));
                return Err(Outcome::Fails { at: path, text: error.reason });
            }
        },
        Err(fault) if fault.is_absent() => ContainerdConfig::default(),
        Err(_) => return Err(Outcome::CannotTell { at: path }),
    };
    if let Some(line) = config.misplaced {
        made.findings.push(Finding::at(&path, line, Severity::Warning, Fault::OtherPlugin));
    }
    roots_of(made, &config, &path, situation.root)
}

fn roots_of(
    made: &mut Prediction,
    config: &ContainerdConfig,
    path: &Path,
    root: &Path,
) -> Result<Option<Vec<PathBuf>>, Outcome> {
    let below = |absolute: &Path| file::below(root, absolute);
    let version = made.profile.assumed;
    let (line, list, paths) = match &config.config_path {
        Some((line, list)) if !list.is_empty() => (Some(*line), list.clone(), config.paths()),
        _ if version >= DEFAULT_PATH && config.old_tables.is_none() => (None, default_list(), default_paths()),
        _ => {
            made.findings.push(Finding::new(path, Severity::Warning, Fault::NoConfigPath));
            return Err(Outcome::NotRead(UnreadReason::NoConfigPath));
        }
    };
    if paths.len() > 1 && version >= TRANSFER_SERVICE && !config.local_pull {
        let fault = Fault::ListTakenForOne { list: list.clone() };
        made.findings.push(Finding { path: path.to_owned(), line, severity: Severity::Warning, fault });
        return Ok(Some(vec![below(Path::new(&list))]));
    }
    Ok(Some(paths.iter().map(|path| below(path)).collect()))
}

/// `plugins/cri/images/plugin.go`: containerd's own root, then Docker's.
fn default_paths() -> Vec<PathBuf> {
    let roots = EngineProfile::CONTAINERD.roots.iter().chain(EngineProfile::DOCKER.roots);
    let system = |root: &SearchRoot| match root {
        SearchRoot::System(path) => Some(PathBuf::from(path)),
        _ => None,
    };
    roots.filter_map(system).collect()
}

fn default_list() -> String {
    let paths = default_paths();
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}

/// D11: nerdctl always asks with the port, so that `_default` comes before the bare host.
fn report_shadowing(made: &mut Prediction, host: &RegistryHost) {
    if made.profile.layout != (Layout::HostsToml { port_443_first: true }) {
        return;
    }
    let bare = |tried: &&Tried| tried.look == Look::Masked && tried.path.file_name() == Some(host.host().as_ref());
    let Some(taken) = made.taken().filter(|taken| taken.file_name() == Some("_default".as_ref())) else { return };
    if let Some(shadowed) = made.tried.iter().find(bare) {
        let fault = Fault::DefaultShadows { host: shadowed.path.clone() };
        made.findings.push(Finding::new(taken, Severity::Warning, fault));
    }
}

fn read_certificate_files(made: &mut Prediction, situation: &Situation<'_>, host: &RegistryHost) {
    if let Some(path) = made.taken().map(|taken| taken.join("host.toml")).filter(|path| path.is_file()) {
        made.findings.push(Finding::new(&path, Severity::Warning, Fault::MisnamedConfig { wanted: "hosts.toml" }));
    }
    let endpoint = registry(&made.profile, host, false);
    read_taken(made, situation, host, endpoint);
    let profile = made.profile;
    if let Some(endpoint) = made.endpoints.last_mut() {
        let explicit = !(endpoint.roots.is_empty() && endpoint.pairs.is_empty());
        let Endpoint { scheme, verifies, .. } = registry(&profile, host, explicit);
        (endpoint.scheme, endpoint.verifies) = (scheme, verifies);
    }
    speak_plainly(made);
}

/// Where HTTP is spoken no certificate plays a part.
fn speak_plainly(made: &mut Prediction) {
    let plain = made.endpoints.last().is_some_and(|endpoint| endpoint.scheme == Scheme::Http);
    if plain && matches!(made.outcome, Outcome::Loaded | Outcome::NoFiles) {
        made.outcome = Outcome::NotRead(UnreadReason::PlainHttp);
    }
}

fn read_hosts_toml(made: &mut Prediction, path: &Path, bytes: &[u8], situation: &Situation<'_>, host: &RegistryHost) {
    let directory = path.parent().unwrap_or(path).to_owned();
    let read = match parse(bytes, &directory, situation.root) {
        Ok(read) if read.has_host_table || made.profile.assumed >= no_host_table(&made.profile) => Ok(read),
        Ok(_) => Err((1, "invalid `host` tree: this version wants a table [host.\"…\"]".to_owned())),
        Err(error) => Err((error.line, error.reason)),
    };
    let read = match read {
        Ok(read) => read,
        Err((line, reason)) => {
            let fault = Fault::ConfigNotTaken { reason, then: WithoutConfig::CertificateFiles };
            made.findings.push(Finding::at(path, line, Severity::Warning, fault));
            return read_certificate_files(made, situation, host);
        }
    };
    report_beside(made, &directory, &read);
    report_entries(made, path, &read);
    made.outcome = Outcome::Loaded;
    for entry in &read.entries {
        if !read_entry(made, entry, situation, host) {
            return;
        }
    }
    speak_plainly(made);
}

/// The file as the machine's engine sees it, with its files where they lie below the root.
fn parse(bytes: &[u8], directory: &Path, root: &Path) -> Result<HostsToml, NotTaken> {
    let inside = directory.strip_prefix(root).unwrap_or(directory);
    let mut read = HostsToml::parse(bytes, &Path::new("/").join(inside))?;
    for entry in &mut read.entries {
        entry.files = entry.files.below(root);
    }
    Ok(read)
}

/// Docker and nerdctl carry containerd's code of their own time: both versions of theirs came after the change.
fn no_host_table(profile: &EngineProfile) -> Version {
    if profile.name == EngineProfile::CONTAINERD.name { NO_HOST_TABLE } else { Version::new(0, 0, 0) }
}

/// Whether the engine goes on to the next entry.
fn read_entry(made: &mut Prediction, entry: &HostEntry, situation: &Situation<'_>, host: &RegistryHost) -> bool {
    let explicit = !entry.files.is_empty() || entry.skip_verify.is_some();
    let mut endpoint = match &entry.server {
        None => registry(&made.profile, host, explicit),
        Some((scheme, authority)) => named(scheme, authority, explicit),
    };
    if let Some(skip) = entry.skip_verify.filter(|_| entry.server.is_some() || endpoint.verifies) {
        endpoint.verifies = !skip;
    }
    (endpoint.pulls, endpoint.pushes) = (entry.pulls || entry.resolves, entry.pushes);
    let contents = host_certs::read_named(&made.profile, &entry.files, situation.now);
    let suspects = words::suspects_of(&entry.files, &contents.findings);
    fill(made, &mut endpoint, contents, situation, &suspects);
    let goes_on = made.outcome == Outcome::Loaded;
    if goes_on {
        made.endpoints.push(endpoint);
    }
    goes_on
}

/// The entry of the registry itself, as `ConfigureHosts` fills it in.
fn registry(profile: &EngineProfile, host: &RegistryHost, explicit_tls: bool) -> Endpoint {
    let mut made = blank_endpoint(host, false);
    if host.is_docker_hub() {
        host.api_authority().clone_into(&mut made.authority);
        return made;
    }
    let loopback = Row::at(profile.loopback, profile.assumed).map_or(Loopback::AsAnyOther, |row| row.holds);
    if !insecure::is_literal_loopback(host) {
        return made;
    }
    let ambiguous = if host.port() == Some(80) { Scheme::Http } else { Scheme::HttpsThenHttp };
    match loopback {
        Loopback::PlainHttp if explicit_tls && profile.name == EngineProfile::NERDCTL.name => made.scheme = ambiguous,
        Loopback::PlainHttp => made.scheme = Scheme::Http,
        Loopback::NotVerified => {
            let tls = matches!(host.port(), None | Some(443));
            made.scheme = if tls { Scheme::Https } else { ambiguous };
            made.verifies = made.scheme == Scheme::Http;
        }
        _ => {}
    }
    made
}

fn named(scheme: &str, authority: &str, explicit_tls: bool) -> Endpoint {
    let scheme = match scheme {
        "http" if explicit_tls && !authority.ends_with(":80") => Scheme::HttpsThenHttp,
        "http" => Scheme::Http,
        _ => Scheme::Https,
    };
    Endpoint { scheme, ..Endpoint::of(authority) }
}

/// Certificate files that nobody reads because hosts.toml is there, unless it names them.
fn report_beside(made: &mut Prediction, directory: &Path, read: &HostsToml) {
    let named = |path: &Path| {
        read.entries.iter().any(|entry| {
            let pairs = entry.files.pairs.iter().flat_map(|(cert, key)| [cert, key]);
            entry.files.roots.iter().chain(pairs).any(|file| file == path)
        })
    };
    for name in file::list(directory).unwrap_or_default() {
        let path = directory.join(name);
        let is_file = path.extension().is_some_and(|extension| ["crt", "cert", "key"].iter().any(|e| extension == *e));
        if is_file && !named(&path) {
            made.findings.push(Finding::new(&path, Severity::Warning, Fault::BesideHostsToml));
        }
    }
}

fn report_entries(made: &mut Prediction, path: &Path, read: &HostsToml) {
    made.findings.extend(read.entries.iter().flat_map(|entry| entry.warnings(path)));
    let with_files = read.entries.iter().find(|entry| !entry.files.is_empty());
    let without = read.entries.iter().filter(|entry| entry.files.is_empty() && entry.skip_verify != Some(true));
    if let Some(with_files) = with_files {
        for entry in without {
            let fault = Fault::OtherEntry { line: with_files.line };
            made.findings.push(Finding::at(path, entry.line, Severity::Note, fault));
        }
    }
}
