//! Which directory is read, and what looks like it when there is none.

use super::CertsLocation;
use crate::fault::{Fault, LookAlike};
use crate::file;
use crate::finding::{Finding, Severity};
use crate::profile::EngineProfile;
use portcullis_oci::RegistryHost;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Suggestions are for a person: the first few do.
const LOOK_ALIKE_LIMIT: usize = 8;

/// The host's directory, or `None` when there is none or it cannot be told.
pub(crate) fn choose(
    profile: &EngineProfile,
    location: CertsLocation<'_>,
    host: &RegistryHost,
    findings: &mut Vec<Finding>,
) -> Option<PathBuf> {
    let roots = match location {
        CertsLocation::HostDirectory(directory) => return given(profile, directory, host, findings),
        CertsLocation::Root(root) => {
            if matches!(root.try_exists(), Ok(false)) {
                findings.push(Finding::new(root, Severity::Note, Fault::DirectoryMissing));
            }
            vec![root.to_owned()]
        }
        CertsLocation::Roots(roots) => roots.to_vec(),
        CertsLocation::SearchBelow { root, home } => profile.search_roots(root, home),
        CertsLocation::Search => profile.search_roots(Path::new("/"), environment("HOME").as_deref()),
    };
    let winner = first_existing(profile, &candidates(profile, &roots, host), findings);
    if winner.is_none() {
        findings.extend(near_misses(profile, &roots, host));
    }
    winner
}

/// A path that the environment names: the one place where it is asked.
pub(crate) fn environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What looks like the host's directory where there is none.
pub(crate) fn near_misses(profile: &EngineProfile, roots: &[PathBuf], host: &RegistryHost) -> Vec<Finding> {
    let mut findings = Vec::new();
    for root in roots {
        report_look_alikes(root, &profile.directory_name(host), host, &mut findings);
    }
    findings
}

/// All places that are tried for a host, in order: in each root, each name.
pub(crate) fn candidates(profile: &EngineProfile, roots: &[PathBuf], host: &RegistryHost) -> Vec<PathBuf> {
    let names = profile.directory_names(host);
    roots.iter().flat_map(|root| names.iter().map(|name| root.join(name))).collect()
}

/// A directory that was named explicitly (`--cert-dir`). The classic mistake is to name its parent.
fn given(
    profile: &EngineProfile,
    directory: &Path,
    host: &RegistryHost,
    findings: &mut Vec<Finding>,
) -> Option<PathBuf> {
    if matches!(directory.try_exists(), Ok(false)) {
        findings.push(Finding::new(directory, Severity::Warning, Fault::DirectoryMissing));
        return None;
    }
    let below = directory.join(profile.directory_name(host));
    if below.is_dir() {
        let fault = Fault::LookAlike { wanted: directory.to_owned(), how: LookAlike::OneLevelDown };
        findings.push(Finding::new(&below, Severity::Warning, fault));
    }
    Some(directory.to_owned())
}

/// The first candidate that exists wins, whatever is in it; nothing is merged.
fn first_existing(profile: &EngineProfile, candidates: &[PathBuf], findings: &mut Vec<Finding>) -> Option<PathBuf> {
    let mut winner: Option<&PathBuf> = None;
    for candidate in candidates {
        let error = match (fs::metadata(candidate), winner) {
            (Ok(_), None) => {
                winner = Some(candidate);
                continue;
            }
            (Ok(_), Some(winner)) => {
                findings.push(Finding::new(candidate, Severity::Note, Fault::Masked { by: winner.clone() }));
                continue;
            }
            (Err(_), Some(_)) => continue,
            (Err(error), None) => error.kind(),
        };
        if error == io::ErrorKind::NotFound {
            if candidate.is_symlink() {
                findings.push(Finding::new(candidate, Severity::Warning, Fault::DanglingLink));
            }
            continue;
        }
        let fault = Fault::DirectoryUnreadable { error };
        let severity = profile.for_directory(&fault);
        findings.push(Finding::new(candidate, severity, fault));
        if severity == Severity::Fatal {
            return None;
        }
    }
    winner.cloned()
}

fn report_look_alikes(root: &Path, name: &str, host: &RegistryHost, findings: &mut Vec<Finding>) {
    let wanted = root.join(name);
    let mut note = |path: &Path, fault| findings.push(Finding::new(path, Severity::Note, fault));
    for misspelled in ["cert.d", "certs", "cert", "certd"] {
        let path = root.with_file_name(misspelled).join(name);
        if path != wanted && path.is_dir() {
            note(&path, Fault::LookAlike { wanted: wanted.clone(), how: LookAlike::Root });
        }
    }
    let names = file::list(root).unwrap_or_default();
    let is_certificate = |name: &str| [".crt", ".cert", ".key"].iter().any(|suffix| name.ends_with(suffix));
    if names.iter().any(|name| name.to_str().is_some_and(is_certificate) && root.join(name).is_file()) {
        note(root, Fault::FilesInRoot);
    }
    let similar = names.iter().filter_map(|name| Some((root.join(name), similarity(host, name.to_str()?)?)));
    for (path, how) in similar.filter(|(path, _)| path.is_dir()).take(LOOK_ALIKE_LIMIT) {
        note(&path, Fault::LookAlike { wanted: wanted.clone(), how });
    }
}

/// In what way a directory's name is nearly the host's.
fn similarity(wanted: &RegistryHost, other: &str) -> Option<LookAlike> {
    let host = wanted.host();
    let port = wanted.port().map_or(String::new(), |port| port.to_string());
    if let Some(bare) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && (other == bare || other == format!("{bare}:{port}"))
    {
        return Some(LookAlike::Brackets);
    }
    let forms = [format!("{host}_{port}_"), format!("{host}..{port}"), format!("{host}{port}")];
    if !port.is_empty() && forms.iter().any(|form| form == other) {
        return Some(LookAlike::OtherForm);
    }
    let (other_host, other_port) = split(other);
    if normal(other_host) != normal(host) {
        return None;
    }
    match (port.as_str(), other_port) {
        (ours, theirs) if ours == theirs => (other != wanted.as_str()).then_some(LookAlike::Spelling),
        ("", "443") | ("443", "") => Some(LookAlike::DefaultPort),
        _ => Some(LookAlike::OtherPort),
    }
}

fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (name, ""),
    }
}

fn normal(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_prefix("https:").or(host.strip_prefix("http:")).unwrap_or(&host);
    host.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_nearly_right() {
        let cases = [
            ("r.test", "r.test:443", Some(LookAlike::DefaultPort)),
            ("r.test:443", "r.test", Some(LookAlike::DefaultPort)),
            ("r.test:5000", "r.test", Some(LookAlike::OtherPort)),
            ("r.test:5000", "r.test:5001", Some(LookAlike::OtherPort)),
            ("r.test", "R.Test", Some(LookAlike::Spelling)),
            ("r.test:5000", "r.test.:5000", Some(LookAlike::Spelling)),
            ("r.test:5000", "https:r.test:5000", Some(LookAlike::Spelling)),
            ("r.test:5000", "r.test_5000_", Some(LookAlike::OtherForm)),
            ("r.test:5000", "r.test..5000", Some(LookAlike::OtherForm)),
            ("r.test:5000", "r.test5000", Some(LookAlike::OtherForm)),
            ("[fd00::1]:5000", "fd00::1:5000", Some(LookAlike::Brackets)),
            ("[fd00::1]", "fd00::1", Some(LookAlike::Brackets)),
            ("[fd00::1]:5000", "[fd00::1]", Some(LookAlike::OtherPort)),
            ("r.test", "r.test", None),
            ("r.test", "s.test", None),
            ("r.test", "r.test.evil", None),
        ];
        for (wanted, other, how) in cases {
            assert_eq!(similarity(&wanted.parse().unwrap(), other), how, "{wanted} {other}");
        }
    }
}
