//! BuildKit and k3s: one file of the engine's own names the certificate files of each registry.

use super::certs_d::{self, blank_endpoint, fill};
use super::words;
use super::{Endpoint, Look, Outcome, Prediction, Scheme, Situation, Tried, UnreadReason, insecure};
use crate::engine_files::{BuildkitRegistry, BuildkitdToml, NotTaken, RegistriesYaml, RegistryTls, TlsFiles};
use crate::fault::{Fault, WithoutConfig};
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
use crate::host_certs;
use portcullis_oci::RegistryHost;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `buildkitd.toml`: `util/resolver/resolver.go` `NewRegistryConfig`.
pub(super) fn buildkit(mut made: Prediction, situation: &Situation<'_>, host: &RegistryHost) -> Prediction {
    let Some((path, bytes)) = read_config(&mut made, situation) else { return made };
    let config = match BuildkitdToml::parse(&bytes) {
        Ok(config) => config,
        Err(error) => return not_taken(made, path, error),
    };
    let Some(registry) = config.registry(host.as_str()) else {
        made.endpoints.push(blank_endpoint(host, false));
        return made;
    };
    made.outcome = Outcome::Loaded;
    let none = BuildkitRegistry::default();
    for mirror in &registry.mirrors {
        let authority = mirror.split('/').next().unwrap_or_default();
        let entry = config.registry(authority).unwrap_or(&none);
        let endpoint = Endpoint { pushes: false, ..Endpoint::of(authority) };
        if !read_registry(&mut made, endpoint, entry, situation) {
            return made;
        }
    }
    if read_registry(&mut made, Endpoint::of(host.api_authority()), registry, situation)
        && made.endpoints.last().is_some_and(|endpoint| endpoint.scheme == Scheme::Http)
    {
        made.outcome = Outcome::NotRead(UnreadReason::PlainHttp);
    }
    made
}

/// `fillInsecureOpts` and `loadTLSConfig`: the files of the entry first, then those of its directories; roots before pairs.
fn read_registry(
    made: &mut Prediction,
    mut endpoint: Endpoint,
    registry: &BuildkitRegistry,
    situation: &Situation<'_>,
) -> bool {
    let literal = endpoint.authority.parse().is_ok_and(|host| insecure::is_literal_loopback(&host));
    let is_http = registry.http.unwrap_or(literal);
    endpoint.verifies = registry.insecure != Some(true);
    endpoint.scheme = match (registry.insecure == Some(true), is_http) {
        (true, true) => Scheme::HttpsThenHttp,
        (false, true) => Scheme::Http,
        (_, false) => Scheme::Https,
    };
    let files = match with_directories(registry, situation.root) {
        Ok(files) => files,
        Err((at, error)) => {
            let text = words::io("open", situation.root, &at, error);
            made.outcome = Outcome::Fails { at, text };
            return false;
        }
    };
    read_into(made, endpoint, &files, situation)
}

/// What the engine will try to load: a directory that may not be read, or is not there, holds nothing.
fn with_directories(registry: &BuildkitRegistry, root: &Path) -> Result<TlsFiles, (PathBuf, ErrorKind)> {
    let mut files = registry.files.below(root);
    for directory in registry.directories.iter().map(|path| file::below(root, path)) {
        let names = match file::list(&directory) {
            Ok(names) => names,
            Err(Fault::DirectoryUnreadable { error: ErrorKind::NotFound | ErrorKind::PermissionDenied }) => continue,
            Err(Fault::DirectoryUnreadable { error }) => return Err((directory, error)),
            Err(_) => return Err((directory, ErrorKind::NotADirectory)),
        };
        for name in names {
            let path = directory.join(name);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => files.roots.push(path),
                Some("cert") => files.pairs.push((path.clone(), path.with_extension("key"))),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// k3s: `pkg/agent/containerd/config.go`, which writes a `hosts.toml` for each entry, and containerd's reading of it.
pub(super) fn k3s(mut made: Prediction, situation: &Situation<'_>, host: &RegistryHost) -> Prediction {
    let Some((path, bytes)) = read_config(&mut made, situation) else { return made };
    let config = match RegistriesYaml::parse(&bytes) {
        Ok(config) => config,
        Err(error) => return not_taken(made, path, error),
    };
    for (line, key) in config.with_scheme() {
        let fault = Fault::NotAHost { key: key.to_owned() };
        made.findings.push(Finding::at(&path, line, Severity::Warning, fault));
    }
    let found = |name: &str| config.mirrors.iter().find(|(mirror, _)| mirror == name).map(|(_, list)| list.as_slice());
    let mirrors = found(host.as_str()).or_else(|| found("*")).unwrap_or_default();
    let own = config.config(host.as_str()).or_else(|| config.config("*"));
    if mirrors.is_empty() && own.is_none() {
        made.endpoints.push(blank_endpoint(host, false));
        return made;
    }
    made.outcome = Outcome::Loaded;
    for mirror in mirrors {
        let authority = mirror.split_once("://").map_or(mirror.as_str(), |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        let mut endpoint = Endpoint { pushes: false, ..Endpoint::of(authority) };
        if mirror.starts_with("http://") {
            endpoint.scheme = Scheme::Http;
        }
        if !read_tls(&mut made, endpoint, config.config(authority), situation, &path) {
            return made;
        }
    }
    read_tls(&mut made, blank_endpoint(host, false), own, situation, &path);
    made
}

fn read_tls(
    made: &mut Prediction,
    mut endpoint: Endpoint,
    tls: Option<&RegistryTls>,
    situation: &Situation<'_>,
    path: &Path,
) -> bool {
    let Some(tls) = tls.filter(|tls| tls.is_set) else {
        made.endpoints.push(endpoint);
        return true;
    };
    endpoint.verifies = !tls.skip_verify;
    let below = |path: &PathBuf| file::below(situation.root, path);
    let pairs = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => vec![(below(cert), below(key))],
        (None, None) => Vec::new(),
        // The half that is missing becomes an empty name in hosts.toml, which containerd takes for the directory.
        (cert, key) => {
            let given = cert.as_ref().or(key.as_ref()).map(|path| path.display().to_string()).unwrap_or_default();
            let (has, lacks) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
            let text = format!("{has} file \"{given}\" was specified, but no corresponding {lacks} file was specified");
            made.findings.push(Finding::at(path, tls.line, Severity::Fatal, Fault::EmptyFileName));
            made.outcome = Outcome::Fails { at: path.to_owned(), text };
            return false;
        }
    };
    let files = TlsFiles { roots: tls.ca_file.iter().map(below).collect(), pairs };
    read_into(made, endpoint, &files, situation)
}

/// Whether the engine goes on.
fn read_into(made: &mut Prediction, mut endpoint: Endpoint, files: &TlsFiles, situation: &Situation<'_>) -> bool {
    let contents = host_certs::read_named(&made.profile, files, situation.now);
    let suspects = words::suspects_of(files, &contents.findings);
    fill(made, &mut endpoint, contents, situation, &suspects);
    let goes_on = made.outcome == Outcome::Loaded;
    if goes_on {
        made.endpoints.push(endpoint);
    }
    goes_on
}

/// The engine's file; `None` when the prediction is made without it.
fn read_config(made: &mut Prediction, situation: &Situation<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let path = certs_d::roots(&made.profile, situation).into_iter().next()?;
    let look = match fs::metadata(&path).map_err(|error| error.kind()) {
        Ok(_) => Look::Taken,
        Err(ErrorKind::NotFound) => Look::Missing,
        Err(error) => Look::Refused(error),
    };
    made.tried.push(Tried { path: path.clone(), look });
    if look == Look::Missing {
        return None;
    }
    match file::read(&path, FILE_LIMIT) {
        Ok((bytes, _)) => Some((path, bytes)),
        Err(fault) => {
            made.outcome = certs_d::stopped_at(&made.profile, situation, &path, &fault);
            made.findings.push(Finding::new(&path, Severity::Fatal, fault));
            None
        }
    }
}

fn not_taken(mut made: Prediction, path: PathBuf, error: NotTaken) -> Prediction {
    let fault = Fault::ConfigNotTaken { reason: error.reason.clone(), then: WithoutConfig::NotStarted };
    made.findings.push(Finding::at(&path, error.line, Severity::Fatal, fault));
    made.outcome = Outcome::Fails { at: path, text: error.reason };
    made
}
