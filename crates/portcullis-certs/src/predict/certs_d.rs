//! Directories of certificate files: which one counts, what is loaded from it, and at which file the engine stops.

use super::words::{self, Failure, Suspect};
use super::{
    Endpoint, EngineUser, LoadedPair, LoadedRoot, Look, Outcome, Places, Prediction, Scheme, Situation, Tried,
    UnreadReason, insecure,
};
use crate::fault::Fault;
use crate::finding::{Finding, Severity};
use crate::host_certs::{self, DirectoryContents, directory};
use crate::profile::{EngineProfile, Hub, Insecure, Known, Layout, Loopback, ReadBy, Row, SystemRoots};
use crate::version::Versions;
use portcullis_oci::RegistryHost;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// docker-docs, docker, podman.
pub(super) fn predict(mut made: Prediction, situation: &Situation<'_>, host: &RegistryHost) -> Prediction {
    let profile = made.profile;
    let reason = insecurity(&profile, situation, host);
    let insecure = Row::at(profile.insecure, profile.assumed);
    let endpoint = blank_endpoint(host, reason.is_some());
    if let (Some(reason), Some(row)) = (reason, insecure.filter(|row| row.holds == Insecure::NotRead)) {
        made.row = Some((row.versions, row.known));
        made.outcome = Outcome::NotRead(reason);
        made.endpoints.push(endpoint);
        return made;
    }
    if host.is_docker_hub()
        && let Some(row) = Row::at(profile.hub, profile.assumed).filter(|row| row.holds == Hub::NotRead)
    {
        made.row = Some((row.versions, row.known));
        made.outcome = Outcome::NotRead(UnreadReason::DockerHub);
        made.endpoints.push(endpoint);
        return made;
    }
    made.tried = look(&profile, &places(&profile, situation, host));
    read_taken(&mut made, situation, host, endpoint);
    made
}

/// Reads the directory that was taken into the last endpoint.
pub(super) fn read_taken(
    made: &mut Prediction,
    situation: &Situation<'_>,
    host: &RegistryHost,
    mut endpoint: Endpoint,
) {
    if let Some(Tried { path, look: Look::Refused(error) }) = made.tried.last() {
        made.outcome = refused(&made.profile, situation, path, *error);
        return;
    }
    let Some(taken) = made.taken().map(Path::to_owned) else {
        made.findings.extend(directory::near_misses(&made.profile, &roots(&made.profile, situation), host));
        made.endpoints.push(endpoint);
        return;
    };
    match host_certs::read_directory(&made.profile, &taken, situation.now) {
        Ok(contents) => {
            let suspects = words::suspects_in_directory(&made.profile, &contents.findings);
            fill(made, &mut endpoint, contents, situation, &suspects);
        }
        Err(fault) => {
            made.outcome = stopped_at(&made.profile, situation, &taken, &fault);
            let severity = made.profile.for_directory(&fault);
            made.findings.push(Finding::new(&taken, severity, fault));
        }
    }
    if made.outcome == Outcome::Loaded || made.outcome == Outcome::NoFiles {
        made.endpoints.push(endpoint);
    }
}

/// Puts what was read into the endpoint, and the first failure into the outcome. `suspects`: the fatal findings, in the
/// order in which the engine comes across them.
pub(super) fn fill(
    made: &mut Prediction,
    endpoint: &mut Endpoint,
    contents: DirectoryContents,
    situation: &Situation<'_>,
    suspects: &[Suspect],
) {
    let DirectoryContents { roots, pairs, findings } = contents;
    endpoint.roots.extend(roots.into_iter().map(|(path, certificate)| LoadedRoot { path, certificate }));
    let pairs = pairs.into_iter().map(|pair| LoadedPair {
        cert_path: pair.cert_path,
        key_path: pair.key_path,
        chain: pair.chain,
    });
    endpoint.pairs.extend(pairs);
    let odd = suspects.iter().filter_map(words::pair_that_go_takes);
    for pair in odd {
        let at = endpoint.pairs.partition_point(|other| other.cert_path < pair.cert_path);
        endpoint.pairs.insert(at, pair);
    }
    let replaced = Row::at(made.profile.system_roots, made.profile.assumed)
        .is_some_and(|row| row.holds == SystemRoots::Replaced && !endpoint.roots.is_empty());
    endpoint.system_roots = !replaced;
    made.outcome = Outcome::Loaded;
    if let Some((outcome, row)) = suspects.iter().find_map(|suspect| outcome_of(&made.profile, situation, suspect)) {
        (made.outcome, made.row) = (outcome, row);
    }
    made.findings.extend(findings);
}

type Decided = (Outcome, Option<(Versions, Known)>);

fn outcome_of(profile: &EngineProfile, situation: &Situation<'_>, suspect: &Suspect) -> Option<Decided> {
    let at = suspect.finding.path.clone();
    if is_hidden_from_us(profile, situation, &suspect.finding.fault) {
        return Some((Outcome::CannotTell { at }, None));
    }
    match words::failure(profile, situation.root, suspect) {
        Failure::Says { text, row } => Some((Outcome::Fails { at, text }, row)),
        Failure::Hangs => Some((Outcome::Hangs { at }, None)),
        Failure::Unknown => Some((Outcome::CannotTell { at }, None)),
        Failure::None => None,
    }
}

/// Looks at each place in order; the first that is there counts.
pub(super) fn look(profile: &EngineProfile, places: &[PathBuf]) -> Vec<Tried> {
    let mut tried: Vec<Tried> = Vec::new();
    for path in places {
        let taken = tried.iter().any(|tried| tried.look == Look::Taken);
        let look = match fs::metadata(path).map_err(|error| error.kind()) {
            Ok(_) if taken => Look::Masked,
            Ok(_) => Look::Taken,
            Err(_) if taken => Look::Missing,
            Err(ErrorKind::NotFound) => Look::Missing,
            Err(error) if passes(profile, error) => Look::PassedOver(error),
            Err(error) => Look::Refused(error),
        };
        tried.push(Tried { path: path.clone(), look });
        if matches!(look, Look::Refused(_)) {
            break;
        }
    }
    tried
}

/// Whether an engine goes on to its next root: only where an unreadable directory is none.
fn passes(profile: &EngineProfile, error: ErrorKind) -> bool {
    profile.for_directory(&Fault::DirectoryUnreadable { error }) != Severity::Fatal
}

fn refused(profile: &EngineProfile, situation: &Situation<'_>, path: &Path, error: ErrorKind) -> Outcome {
    if is_hidden_from_us(profile, situation, &Fault::DirectoryUnreadable { error }) {
        return Outcome::CannotTell { at: path.to_owned() };
    }
    // Docker's loader only lists, the others look first.
    let call = if profile.layout == Layout::HostDirectories { "open" } else { "stat" };
    Outcome::Fails { at: path.to_owned(), text: words::io(call, situation.root, path, error) }
}

/// What happens when a directory or a configuration file cannot be read.
pub(super) fn stopped_at(profile: &EngineProfile, situation: &Situation<'_>, path: &Path, fault: &Fault) -> Outcome {
    let at = path.to_owned();
    if is_hidden_from_us(profile, situation, fault) {
        return Outcome::CannotTell { at };
    }
    let text = match fault {
        Fault::DirectoryUnreadable { .. } if profile.for_directory(fault) != Severity::Fatal => {
            return Outcome::NoFiles;
        }
        // Go opens the file and fails at the first `getdents64`.
        Fault::NotADirectory => words::io("readdirent", situation.root, path, ErrorKind::NotADirectory),
        Fault::DirectoryUnreadable { error } | Fault::Unreadable { error } => {
            words::io("open", situation.root, path, *error)
        }
        Fault::NotAFile if path.is_dir() => words::io("read", situation.root, path, ErrorKind::IsADirectory),
        _ => return Outcome::CannotTell { at },
    };
    Outcome::Fails { at, text }
}

/// Whether we were refused what a daemon of root's would have been given.
fn is_hidden_from_us(profile: &EngineProfile, situation: &Situation<'_>, fault: &Fault) -> bool {
    let daemon = profile.reader == ReadBy::Daemon && matches!(situation.user, EngineUser::Root { .. });
    let refused = matches!(
        fault,
        Fault::Unreadable { error: ErrorKind::PermissionDenied }
            | Fault::DirectoryUnreadable { error: ErrorKind::PermissionDenied }
    );
    daemon && refused && !rustix::process::geteuid().is_root()
}

pub(super) fn blank_endpoint(host: &RegistryHost, insecure: bool) -> Endpoint {
    let scheme = if insecure { Scheme::HttpsThenHttp } else { Scheme::Https };
    Endpoint { scheme, verifies: !insecure, ..Endpoint::of(host.as_str()) }
}

fn insecurity(profile: &EngineProfile, situation: &Situation<'_>, host: &RegistryHost) -> Option<UnreadReason> {
    let loopback = Row::at(profile.loopback, profile.assumed).map_or(Loopback::AsAnyOther, |row| row.holds);
    insecure::to_docker(loopback, situation.insecure_registries, host, situation.addresses)
}

/// The roots in which the host's directory is looked for.
pub(super) fn roots(profile: &EngineProfile, situation: &Situation<'_>) -> Vec<PathBuf> {
    match (situation.places, situation.user) {
        (Places::Roots(roots), _) => roots.to_vec(),
        (Places::HostDirectory(_), _) => Vec::new(),
        (Places::Own, EngineUser::Root { home }) => profile.search_roots(situation.root, home),
        (Places::Own, EngineUser::Rootless { home, config_home }) => {
            profile.rootless_search_roots(situation.root, home, config_home)
        }
    }
}

/// The host's directories that are tried, in order.
pub(super) fn places(profile: &EngineProfile, situation: &Situation<'_>, host: &RegistryHost) -> Vec<PathBuf> {
    match situation.places {
        Places::HostDirectory(directory) => vec![directory.to_owned()],
        _ => directory::candidates(profile, &roots(profile, situation), host),
    }
}
